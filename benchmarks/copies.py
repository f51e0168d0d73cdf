"""Copies by local hashes: the cost of a hash, and seconds, memory and recall of the join among many images.

    python benchmarks/copies.py [FOLDER] [--sizes 10000 100000 1000000] [--update-docs]

See benchmarks/README.md for what is measured and how.
"""

import argparse
import io
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from harness import allowed_cpus, describe_machine, markdown_table, pin, replace_between
from photos import ImageSet, draw_photos, read_folder

import imgmatch_df as im
from imgmatch_df.hashes.kinds import hash_kind
from imgmatch_df.hashes.local import unpack
from imgmatch_df.matching.copies import explain_copies, self_copies
from imgmatch_df.matching.points import Points

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("imgmatch-df", "polars", "numba", "numpy")
U64 = npt.NDArray[np.uint64]
N_POINTS = 64
MIN_VOTES = 8
COPIES = 0.2  # of the images
STUDIOS, STUDIO_POINTS, IN_STUDIO = 20, 10, 0.5
LOGOS, LOGO_POINTS, WITH_LOGO = 5, 8, 0.3
KEPT = 0.6  # of the points of a copy
_ROWS_DRAWN = 50_000


def points_of(photos: ImageSet) -> Points:
    """Return 64 points of each image that has at least 32: repeated ones, where it has fewer."""
    rows = hash_images(photos).drop_nulls().to_numpy()
    hashes = np.frombuffer(b"".join(rows.tolist()), np.uint8).reshape(len(rows), -1)
    points = Points(*unpack(hashes))
    n_points = np.diff(points.starts)
    rich = np.flatnonzero(n_points >= N_POINTS // 2)
    chosen = (points.starts[rich, None] + np.arange(N_POINTS) % n_points[rich, None]).ravel()
    starts = np.arange(len(rich) + 1, dtype=np.int64) * N_POINTS
    return Points(points.hashes[chosen], points.places[chosen], starts, points.boxes[rich])


def hash_images(photos: ImageSet) -> pl.Series:
    frame = pl.DataFrame({"image": pl.Series(photos.data, dtype=pl.Binary)})
    return frame.select(im.visual_hash("image", hash_types=("local",)).struct.field("local")).to_series()


def draw_shop(source: Points, n: int, *, seed: int = 0, shared: bool = True) -> tuple[Points, npt.NDArray[np.int64]]:
    """Return the points of `n` images of one shop, and the pairs of an image and its copy, (m, 2).

    Each image has the points of a real one with 12 random bits inverted, so that images are unrelated, but their hashes
    are distributed as real ones. Half of the images share ten points with those of one of twenty studios, of very
    different sizes, and a third eight points of one of five logos, each with up to three bits inverted. A fifth are
    copies: three in five points of another image, with up to three bits inverted. Without `shared` there are no studios
    and no logos.
    """
    rng = np.random.default_rng(seed)
    shape = (source.n_images, N_POINTS)
    words, places = source.hashes.reshape(shape), source.places.reshape(*shape, 3)
    studios, logos = random_points(rng, STUDIOS, STUDIO_POINTS), random_points(rng, LOGOS, LOGO_POINTS)
    hashes, where = np.empty((n, N_POINTS), np.uint64), np.empty((n, N_POINTS, 3), np.uint8)
    boxes = np.empty((n, 6), np.uint16)
    n_originals = n - int(n * COPIES)
    originals = np.arange(n)
    for start in range(0, n, _ROWS_DRAWN):
        rows = np.arange(start, min(n, start + _ROWS_DRAWN))
        drawn = rng.integers(0, source.n_images, len(rows))
        hashes[rows] = inverted(rng, words[drawn], 12, 12)
        where[rows], boxes[rows] = places[drawn], source.boxes[drawn]
        for group, share, at in ((studios, IN_STUDIO, 40), (logos, WITH_LOGO, 50)) if shared else ():
            some = rows[rng.random(len(rows)) < share]
            one = (len(group[0]) * rng.random(len(some)) ** 2).astype(int)
            span = slice(at, at + group[0].shape[1])
            hashes[some, span], where[some, span] = inverted(rng, group[0][one], 1, 3), group[1][one]
        copies = rows[rows >= n_originals]
        if len(copies):
            of = rng.integers(0, n_originals, len(copies))
            kept = rng.random((len(copies), N_POINTS)) < KEPT
            hashes[copies] = np.where(kept, inverted(rng, hashes[of], 1, 3), hashes[copies])
            where[copies] = np.where(kept[..., None], where[of], where[copies])
            boxes[copies], originals[copies] = boxes[of], of
    order = rng.permutation(n)
    position = np.argsort(order)
    copies = np.arange(n_originals, n)
    pairs = np.sort(np.stack([position[copies], position[originals[copies]]], 1), axis=1)
    starts = np.arange(n + 1, dtype=np.int64) * N_POINTS
    return Points(hashes[order].ravel(), where[order].reshape(-1, 3), starts, boxes[order]), pairs


def random_points(rng: np.random.Generator, n: int, n_points: int) -> tuple[U64, npt.NDArray[np.uint8]]:
    hashes = rng.integers(0, 1 << 63, (n, n_points), dtype=np.uint64) << np.uint64(1)
    places = rng.integers(20, 140, (n, n_points, 3))
    places[..., 2] %= 5
    return hashes, places.astype(np.uint8)


def inverted(rng: np.random.Generator, hashes: U64, least: int, most: int) -> U64:
    """Return hashes with `least` to `most` random bits inverted; a bit may be drawn twice."""
    out = hashes.copy()
    n_bits = rng.integers(least, most + 1, hashes.shape)
    for bit in range(most):
        chosen = np.uint64(1) << rng.integers(1, 64, hashes.shape, dtype=np.uint64)
        out ^= np.where(bit < n_bits, chosen, np.uint64(0))
    return out


def measure_hashing(photos: ImageSet, n_threads: int) -> str:
    """Return a table of the cost of local hashes beside that of the other kinds."""
    frame = pl.DataFrame({"image": pl.Series(photos.data, dtype=pl.Binary)})
    rows = []
    for kinds in (("bmh1",), ("local",), ("local", "bmh1")):
        seconds = []
        for _ in range(4):
            start = time.perf_counter()
            hashed = frame.select(im.visual_hash("image", hash_types=kinds).alias("hashes")).unnest("hashes")
            seconds.append(time.perf_counter() - start)
        milliseconds = 1e3 * n_threads * statistics.median(seconds[1:]) / len(frame)
        stored = io.BytesIO()
        hashed.select(kinds).write_parquet(stored)
        n_bytes = sum(hash_kind(kind).n_bytes for kind in kinds)
        rows.append(
            [", ".join(f"`{kind}`" for kind in kinds), f"{milliseconds:.2f}", str(n_bytes),
             f"{len(stored.getvalue()) / len(frame):.0f}"]
        )  # fmt: skip
    return markdown_table(
        ["hashes", "milliseconds an image, of one thread, with decoding", "bytes", "bytes in Parquet"], rows
    )


def measure_join(points: str, n: int, turns: bool) -> list[str]:
    """Return the row of a table, measured in this process."""
    with np.load(points) as saved:
        source = Points(*(saved[name] for name in Points._fields))
    self_copies(draw_shop(source, 500)[0], MIN_VOTES, turns=turns)  # compilation
    images, copies = draw_shop(source, n, seed=1)
    before = peak_gb()
    start, used = time.perf_counter(), time.process_time()
    found = self_copies(images, MIN_VOTES, turns=turns)
    seconds, used = time.perf_counter() - start, time.process_time() - used
    peak = peak_gb()
    explained = explain_copies(images, turns=turns)
    pairs = found.left.astype(np.int64) * n + found.right
    recall = np.isin(copies[:, 0] * n + copies[:, 1], pairs).mean()
    return [
        f"{n:,}, {'eight turns' if turns else 'no turns'}",
        f"{seconds:,.1f} s",
        f"{used:,.1f} s",
        f"{peak:.1f} GB ({before:.1f})",
        f"{explained.n_set_aside / explained.n_points:.1%}",
        f"{explained.n_candidates:,}",
        f"{len(found.left):,}",
        f"{recall:.2%}",
    ]


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def join_table(points: str, sizes: Sequence[int]) -> str:
    rows = []
    for n in sizes:
        for turns in (False, True):
            print(f"{n:,} images, turns {turns}", file=sys.stderr, flush=True)
            worker = [sys.executable, __file__, "--worker", points, str(n), str(int(turns))]
            reply = subprocess.run(worker, check=True, stdout=subprocess.PIPE, text=True)
            rows.append(reply.stdout.strip().split("\t"))
    header = [
        "images", "time", "processor time", "peak memory (before)", "points set aside", "candidates", "pairs",
        "copies found",
    ]  # fmt: skip
    return markdown_table(header, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="folder of images; by default they are drawn")
    parser.add_argument("--sizes", nargs="+", type=int, default=[10_000, 100_000, 1_000_000], help="numbers of images")
    parser.add_argument("--update-docs", action="store_true", help="write the tables into docs/benchmarks.md")
    arguments: Any = parser.parse_args()
    cpus = allowed_cpus()[:2]
    pin(cpus)
    photos = read_folder(arguments.folder) if arguments.folder else draw_photos(80)
    source = points_of(photos)
    file = ROOT / "benchmarks" / "points.npz"
    try:
        np.savez(file, **source._asdict())
        tables = [measure_hashing(photos, len(cpus)), join_table(str(file), arguments.sizes)]
    finally:
        file.unlink(missing_ok=True)
    about = (
        f"{photos.describe()}. The join is of rows made from the points of {source.n_images} of them, 64 a row, "
        f"like images of one shop; {MIN_VOTES} votes, two threads. {describe_machine(len(cpus), PACKAGES)}"
    )
    text = "\n\n".join([*tables, about])
    print(text)
    if arguments.update_docs:
        replace_between(ROOT / "docs" / "benchmarks.md", "copies", text)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        print("\t".join(measure_join(sys.argv[2], int(sys.argv[3]), sys.argv[4] == "1")))
    else:
        main()
