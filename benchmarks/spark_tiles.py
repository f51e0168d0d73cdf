"""Tiles of a join in blocks: seconds and memory of the tasks that a billion rows would have, without Spark.

    python benchmarks/spark_tiles.py [--rows N] [--quick] [--update-docs]

100,000,000 phashes are divided into blocks of the size that a billion would have, and all tiles of two blocks are
compared by processes of one thread. Their pairs are counted again by one join of all rows. For pdq and local hashes
some tiles are measured. The figures are kept in spark_tiles.json, of which `to_a_billion.py` makes the tables of the
guide. See benchmarks/README.md for what is measured and how.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl
from harness import allowed_cpus, describe_machine

from imgmatch_df.hashes.kinds import hash_kind
from imgmatch_df.matching import join
from imgmatch_df.matching.points import Points
from imgmatch_df.spark import sizes

FIGURES: Final = Path(__file__).with_name("spark_tiles.json")
PACKAGES: Final = ("imgmatch-df", "polars", "numba", "numpy")
U64 = npt.NDArray[np.uint64]
BILLION: Final = 10**9
RADII: Final = {"phash": 4, "pdq": 31}
MODES: Final = ("pairs", "links")
COPIES: Final = 0.01  # of the rows, within the radius of others
N_LINKED: Final = 3  # blocks whose tiles are measured in the mode "links", and of other kinds
IMAGES: Final = (10_000, 20_000, 40_000, 80_000)  # of one tile of local hashes
MAX_PAIRS: Final = 100_000_000


@dataclass(frozen=True)
class Tile:
    """What one task took, with one thread.

    Parameters
    ----------
    n_rows
        Rows of both blocks.
    n_found
        Pairs, or links.
    read_s, compare_s, write_s
        Processor seconds of its steps, which other programs on the machine change less than the time of a clock.
    peak_bytes
        Largest memory of its process.
    expected_s
        Seconds that the planner of the join expects of the comparison; 0 where there is no plan.
    """

    kind: str
    mode: str
    same: bool
    n_rows: int
    n_found: int
    read_s: float
    compare_s: float
    write_s: float
    peak_bytes: int
    expected_s: float = 0.0


def draw_blocks(folder: Path, kind_name: str, n: int, n_blocks: int) -> int:
    """Write uniform hashes, some near others, as blocks of distinct hashes in their order; return their number."""
    kind = hash_kind(kind_name)
    n_words, radius = sizes.n_words(kind), RADII[kind_name]
    rng = np.random.default_rng(18)
    hashes = rng.integers(0, np.iinfo(np.uint64).max, (n, n_words), np.uint64, endpoint=True)
    copies = np.sort(rng.choice(n, int(n * COPIES), replace=False))
    near = hashes[rng.integers(0, n, len(copies))]
    n_flips = rng.integers(1, radius + 1, len(copies))
    for flip in range(radius):
        bit = rng.integers(0, kind.n_bits, len(copies))
        chosen = np.where(flip < n_flips, np.uint64(1) << (bit % 64).astype(np.uint64), np.uint64(0))
        near[np.arange(len(copies)), bit // 64] ^= chosen
    hashes[copies] = near
    block = (hashes[:, 0] * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(33)).astype(np.int64) % n_blocks
    order = np.argsort(block.astype(np.uint16), kind="stable")
    cuts = np.concatenate([[0], np.cumsum(np.bincount(block, minlength=n_blocks))])
    del block
    n_distinct = 0
    for number in range(n_blocks):
        own = hashes[order[cuts[number] : cuts[number + 1]]]
        own = np.unique(own) if n_words == 1 else np.unique(own, axis=0)
        own = own.reshape(len(own), n_words)
        node = pl.Series("node", number << 40 | np.arange(len(own)))
        words = {f"hash_{word}": pl.Series(own[:, word]) for word in range(n_words)}
        pl.DataFrame({"node": node, **words}).write_parquet(block_file(folder, number), compression="zstd")
        n_distinct += len(own)
    return n_distinct


def block_file(folder: Path, number: int) -> Path:
    return folder / f"{number}.parquet"


def read_block(folder: Path, number: int) -> tuple[U64, npt.NDArray[np.int64]]:
    frame = pl.read_parquet(block_file(folder, number))
    hashes = np.ascontiguousarray(frame.drop("node").to_numpy().reshape(len(frame), -1))
    return hashes, frame["node"].to_numpy()


def measure_tile(folder: Path, kind_name: str, mode: str, left: int, right: int) -> Tile:
    """Read two blocks, compare them and write what is found, as one task does."""
    kind = hash_kind(kind_name)
    radius, same = RADII[kind_name], left == right
    forget_peak()
    start = time.process_time()
    hashes, nodes = read_block(folder, left)
    others, other_nodes = (hashes, nodes) if same else read_block(folder, right)
    read = time.process_time()
    n_rows = len(hashes) + (0 if same else len(others))
    if mode == "pairs":
        found = (
            join.self_join(hashes, radius, kind.n_bits, max_pairs=MAX_PAIRS)
            if same
            else join.cross_join(hashes, others, radius, kind.n_bits, max_pairs=MAX_PAIRS)
        )
        columns = {"left_node": nodes[found.left], "right_node": other_nodes[found.right], "distance": found.distance}
    else:
        both = hashes if same else np.concatenate([hashes, others])
        both_nodes = nodes if same else np.concatenate([nodes, other_nodes])
        first = join.connect(both, radius, kind.n_bits)
        linked = np.flatnonzero(first != np.arange(len(first)))
        columns = {"left_node": both_nodes[first[linked]], "right_node": both_nodes[linked]}
    compared = time.process_time()
    frame = pl.DataFrame(columns)
    frame.write_parquet(folder / f"{mode}-{left}-{right}.parquet", compression="zstd")
    steps, peak = (read - start, compared - read, time.process_time() - compared), peak_bytes()
    expected = 0.0
    if mode == "pairs":
        expected = join.explain(hashes, radius, kind.n_bits, references=None if same else others).seconds
    return Tile(kind_name, mode, same, n_rows, len(frame), *steps, peak, expected)


def measure_copies(n: int, folder: Path) -> Tile:
    """Compare the images of a tile by their points."""
    from imgmatch_df.matching.copies import self_copies

    with np.load(folder / f"{n}.npz") as file:
        forget_peak()
        start = time.process_time()
        points = Points(file["hashes"], file["places"], file["starts"], file["boxes"])
    read = time.process_time()
    found = self_copies(points, 8, max_pairs=MAX_PAIRS)
    compared = time.process_time()
    return Tile("local", "pairs", True, n, len(found.left), read - start, compared - read, 0.0, peak_bytes())


def draw_images(folder: Path) -> None:
    """Write the points of images for each size of a tile: a fifth are copies, and the others share no points."""
    from copies import draw_shop, points_of
    from photos import draw_photos

    source = points_of(draw_photos(80))
    for n in IMAGES:
        points, _ = draw_shop(source, n, shared=False)
        np.savez(folder / f"{n}.npz", **points._asdict())


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) << 10


def compile_kernels() -> None:
    """Compile what the tiles run, so that no tile is measured with it."""
    from copies import random_points

    from imgmatch_df.matching.copies import self_copies

    rng = np.random.default_rng(0)
    for kind_name, radius in RADII.items():
        kind = hash_kind(kind_name)
        hashes = rng.integers(0, 1 << 63, (100_000, sizes.n_words(kind)), np.uint64)
        join.self_join(hashes, radius, kind.n_bits)
        join.cross_join(hashes[:50_000], hashes[50_000:], radius, kind.n_bits)
        join.connect(hashes, radius, kind.n_bits)
    words, places = random_points(rng, 20, 64)
    boxes = np.tile(np.array([0, 0, 65535, 65535, 512, 384], np.uint16), (20, 1))
    self_copies(Points(words.ravel(), places.reshape(-1, 3), np.arange(21) * 64, boxes))


def run_tiles(tasks: list[tuple[Any, ...]], n_processes: int) -> list[Tile]:
    """Return what each tile took: processes of one thread, as the cores of an executor have them."""
    os.environ.update(IMGMATCH_MAX_THREADS="1", POLARS_MAX_THREADS="1")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(n_processes, context, initializer=compile_kernels) as pool:
        started = [pool.submit(*task) for task in tasks]
        tiles = []
        for done, one in enumerate(started):
            tiles.append(one.result())
            if done % 20 == 0:
                print(f"{done + 1} of {len(tasks)} tiles: {tiles[-1]}", file=sys.stderr)
    return tiles


def one_join(folder: Path, kind_name: str, n_blocks: int) -> dict[str, float]:
    """Return the seconds, memory and pairs of one join of all rows, with all threads."""
    parts = [pl.read_parquet(block_file(folder, number)).drop("node").to_numpy() for number in range(n_blocks)]
    hashes = np.ascontiguousarray(np.concatenate(parts), np.uint64)
    parts.clear()
    forget_peak()
    start = time.perf_counter()
    found = join.self_join(hashes, RADII[kind_name], hash_kind(kind_name).n_bits, max_pairs=MAX_PAIRS)
    return {"seconds": time.perf_counter() - start, "n_pairs": len(found.left), "peak_bytes": peak_bytes()}


def summary(tiles: list[Tile]) -> list[dict[str, Any]]:
    """Return the medians of tiles of one kind, mode and size; of the memory the largest."""
    groups: dict[tuple[Any, ...], list[Tile]] = {}
    for tile in tiles:
        size = tile.n_rows if tile.kind == "local" else 0
        groups.setdefault((tile.kind, tile.mode, tile.same, size), []).append(tile)
    medians = []
    for members in groups.values():
        one = asdict(members[0])
        for name in ("n_rows", "n_found"):
            one[name] = int(statistics.median(getattr(tile, name) for tile in members))
        for name in ("read_s", "compare_s", "write_s", "expected_s"):
            one[name] = round(statistics.median(getattr(tile, name) for tile in members), 4)
        one["peak_bytes"] = max(tile.peak_bytes for tile in members)
        medians.append({**one, "n_tiles": len(members)})
    return medians


def tiles_of(kind_name: str, mode: str, folder: Path, n_blocks: int) -> list[tuple[Any, ...]]:
    return [
        (measure_tile, folder, kind_name, mode, left, right)
        for left in range(n_blocks)
        for right in range(left, n_blocks)
    ]


def blocks_of(n: int, kind_name: str) -> int:
    """Return the number of blocks of `n` rows that are as large as those of a billion."""
    return max(N_LINKED, round(n * sizes.default_blocks(BILLION, hash_kind(kind_name)) / BILLION))


def main() -> None:
    """Measure, keep the figures, and with --update-docs write the tables of the guide."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10**8, help="phashes that are joined in blocks")
    parser.add_argument("--quick", action="store_true", help="a hundredth of the rows; the figures are not kept")
    parser.add_argument("--update-docs", action="store_true", help="write the tables into the documentation")
    arguments = parser.parse_args()
    share = 100 if arguments.quick else 1
    n = arguments.rows // share
    cpus = allowed_cpus()
    tiles: list[Tile] = []
    with tempfile.TemporaryDirectory() as name:
        folders = {kind: Path(name) / kind for kind in (*RADII, "local")}
        for folder in folders.values():
            folder.mkdir()
        n_blocks = blocks_of(n * share, "phash")
        n_distinct = draw_blocks(folders["phash"], "phash", n, n_blocks)
        print(f"{n_distinct:,} distinct phashes in {n_blocks} blocks", file=sys.stderr)
        start = time.perf_counter()
        all_tiles = run_tiles(tiles_of("phash", "pairs", folders["phash"], n_blocks), len(cpus))
        seconds = time.perf_counter() - start
        whole = one_join(folders["phash"], "phash", n_blocks)
        n_found = sum(tile.n_found for tile in all_tiles)
        if n_found != whole["n_pairs"]:
            raise SystemExit(f"the tiles found {n_found:,} pairs, one join {whole['n_pairs']:,}")
        tiles += all_tiles
        tasks = tiles_of("phash", "links", folders["phash"], N_LINKED)
        per_block = BILLION // sizes.default_blocks(BILLION, hash_kind("pdq")) // share
        draw_blocks(folders["pdq"], "pdq", N_LINKED * per_block, N_LINKED)
        tasks += [task for mode in MODES for task in tiles_of("pdq", mode, folders["pdq"], N_LINKED)]
        draw_images(folders["local"])
        tasks += [(measure_copies, images, folders["local"]) for images in IMAGES]
        tiles += run_tiles(tasks, len(cpus))
    figures = {
        "rows": n_distinct,
        "n_blocks": n_blocks,
        "n_tiles": len(all_tiles),
        "seconds": round(seconds, 1),
        "core_seconds": round(sum(tile.read_s + tile.compare_s + tile.write_s for tile in all_tiles), 1),
        "n_pairs": n_found,
        "one_join_s": round(whole["seconds"], 2),
        "one_join_bytes": whole["peak_bytes"],
        "tiles": summary(tiles),
        "machine": describe_machine(len(cpus), PACKAGES),
    }
    text = json.dumps(figures, indent=2)
    print(text)
    if not arguments.quick:
        FIGURES.write_text(f"{text}\n", encoding="utf-8")
    if arguments.update_docs:
        import to_a_billion

        to_a_billion.main()


if __name__ == "__main__":
    main()
