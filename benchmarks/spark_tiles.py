"""Tiles of a join in blocks: seconds and memory of the tasks that a billion rows would have, without Spark.

    python benchmarks/spark_tiles.py [--rows N] [--quick] [--update-docs]

100,000,000 phashes are divided into blocks of the size that a billion would have, and the function of Spark's tasks
compares all tiles of two blocks, in processes of one thread. Their pairs are counted again by one join of all rows. For
pdq and local hashes some tiles are measured. The figures are kept in spark_tiles.json, of which `to_a_billion.py` makes
the tables of the guide. See benchmarks/README.md for what is measured and how.
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
import pyarrow as pa
import pyarrow.parquet as pq
from harness import allowed_cpus, describe_machine
from photos import draw_photos, repeated

import imgmatch_df as im
from imgmatch_df.frames.comparison import Comparison
from imgmatch_df.frames.criteria import check_comparison
from imgmatch_df.frames.distances import ByDistance
from imgmatch_df.hashes import codec
from imgmatch_df.hashes.kinds import HashKind, hash_kind
from imgmatch_df.hashes.local import N_POINTS, N_RECORD_BYTES
from imgmatch_df.matching import join
from imgmatch_df.matching.points import Points
from imgmatch_df.spark import sizes
from imgmatch_df.spark import tiles as room
from imgmatch_df.spark.nodes import BLOCK_BITS, HASH, ID, LAST_ID, NODE, SIZE, Nodes
from imgmatch_df.spark.work import WorkFolder

FIGURES: Final = Path(__file__).with_name("spark_tiles.json")
PACKAGES: Final = ("imgmatch-df", "polars", "numba", "numpy")
U64 = npt.NDArray[np.uint64]
BILLION: Final = 10**9
RADII: Final = {"phash": 4, "pdq": 31}
MODES: Final = ("pairs", "links")
COPIES: Final = 0.01  # of the rows, within the radius of others
N_LINKED: Final = 2  # blocks whose tiles are measured in the mode "links", and of other kinds
IMAGES: Final = (40_000, 80_000)  # of one tile of local hashes
MAX_PAIRS: Final = 100_000_000
HASHED: Final = (("phash",), ("pdq",), ("local",), ("bmh1", "phash", "sha256"))
N_PHOTOS: Final = 80
N_ROUNDS: Final = 7


@dataclass(frozen=True)
class Tile:
    """What one task took, with one thread.

    Parameters
    ----------
    n_rows
        Rows of both blocks.
    n_found
        Pairs, or links.
    read_s, compare_s
        Processor seconds of its steps, which other programs on the machine change less than the time of a clock. The
        second one includes writing.
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
    peak_bytes: int
    expected_s: float = 0.0


def comparison_of(kind_name: str) -> Comparison:
    return check_comparison(kind_name, RADII.get(kind_name), None, None)


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
        hashes_of_block = own.reshape(len(own), n_words).view(np.uint8).reshape(len(own), -1)
        write_block(folder, kind, number, hashes_of_block)
        n_distinct += len(own)
    return n_distinct


def write_block(folder: Path, kind: HashKind, number: int, rows: npt.NDArray[np.uint8]) -> None:
    """Write hashes, (n, n_bytes), as Spark writes the nodes of a block."""
    path = folder / "rows" / f"block={number}"
    path.mkdir(parents=True)
    n, width = rows.shape
    if kind.is_number:
        hashes = pa.array(rows.view(np.int64).ravel())
    else:
        offsets = pa.py_buffer(np.arange(n + 1, dtype=np.int32) * width)
        hashes = pa.Array.from_buffers(pa.binary(), n, [None, offsets, pa.py_buffer(np.ascontiguousarray(rows))])
    node = pa.array((number << BLOCK_BITS) + np.arange(n))
    sizes_of_nodes = pa.array(np.ones(n, np.int64))
    columns = {ID: node, NODE: node, HASH: hashes, SIZE: sizes_of_nodes, LAST_ID: pa.nulls(n, pa.int64())}
    pq.write_table(pa.table(columns), path / "part-0.parquet", compression="snappy")


def read_hashes(folder: Path, kind: HashKind, number: int) -> U64:
    table = pq.read_table(folder / "rows" / f"block={number}" / "part-0.parquet", columns=[HASH], partitioning=None)
    return codec.hash_words(codec.as_hashes(pl.DataFrame(table)[HASH], kind), kind)


def measure_tile(folder: Path, kind_name: str, mode: Any, left: int, right: int, n_blocks: int) -> Tile:
    """Run the function of one task: it reads two blocks, compares them and writes what is found."""
    comparison = comparison_of(kind_name)
    tiles = room.Tiles(Nodes(WorkFolder(str(folder)), "rows", n_blocks, "{}"), comparison, mode, MAX_PAIRS)
    forget_peak()
    start = time.process_time()
    blocks = [room._block(tiles.nodes, number, tiles) for number in dict.fromkeys((left, right))]
    read = time.process_time()
    n_found, _ = room._compute(tiles, left, right)
    compared = time.process_time()
    peak, expected = peak_bytes(), 0.0
    if mode == "pairs" and isinstance(comparison, ByDistance):
        words = [block.words for block in blocks]
        others = None if left == right else words[1]
        expected = join.explain(words[0], comparison.radius, comparison.kind.n_bits, references=others).seconds
    n_rows = sum(len(block.words) for block in blocks)
    return Tile(kind_name, mode, left == right, n_rows, n_found, read - start, compared - read, peak, expected)


def draw_images(folder: Path, n: int) -> None:
    """Write the local hashes of images as two blocks: a fifth are copies, and the others share no points."""
    from copies import draw_shop, points_of

    points, _ = draw_shop(points_of(draw_photos(80)), n, shared=False)
    rows = np.zeros((n, 1 + N_POINTS, N_RECORD_BYTES), np.uint8)
    rows[:, 0, :8] = points.boxes[:, :4].astype(">u2").view(np.uint8)
    rows[:, 0, 8:10], rows[:, 0, 10] = points.boxes[:, 4:], N_POINTS
    rows[:, 1:, :8] = points.hashes.astype(">u8").view(np.uint8).reshape(n, N_POINTS, 8)
    rows[:, 1:, 8:] = points.places.reshape(n, N_POINTS, 3)
    for number in range(2):
        write_block(folder, hash_kind("local"), number, rows[number::2].reshape(len(rows[number::2]), -1))


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
    kind = hash_kind(kind_name)
    hashes = np.concatenate([read_hashes(folder, kind, number) for number in range(n_blocks)])
    forget_peak()
    start, core_start = time.perf_counter(), time.process_time()
    found = join.self_join(hashes, RADII[kind_name], kind.n_bits, max_pairs=MAX_PAIRS)
    seconds, core_s = time.perf_counter() - start, time.process_time() - core_start
    return {"seconds": seconds, "core_s": core_s, "n_pairs": len(found.left), "peak_bytes": peak_bytes()}


def measure_hashing() -> tuple[dict[str, float], str]:
    """Return the images a second of one core, by hash kinds, and what the images are."""
    photos = draw_photos(N_PHOTOS)
    # Other bytes in each round: equal ones would be hashed once.
    several = repeated(photos.data, N_PHOTOS * (N_ROUNDS + 1))
    first, *frames = pl.DataFrame({"image": pl.Series(several, dtype=pl.Binary)}).iter_slices(N_PHOTOS)
    speeds = {}
    for hash_types in HASHED:
        expression = im.visual_hash("image", hash_types=hash_types)
        first.select(expression)
        seconds = []
        for frame in frames:
            start = time.process_time()
            frame.select(expression)
            seconds.append(time.process_time() - start)
        speeds[", ".join(hash_types)] = round(N_PHOTOS / statistics.median(seconds), 1)
    return speeds, f"{photos.describe()}."


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
        for name in ("read_s", "compare_s", "expected_s"):
            one[name] = round(statistics.median(getattr(tile, name) for tile in members), 4)
        one["peak_bytes"] = max(tile.peak_bytes for tile in members)
        medians.append({**one, "n_tiles": len(members)})
    return medians


def core_seconds(medians: list[dict[str, Any]]) -> float:
    """Return the processor seconds of all tiles: the median of each group times its number of tiles."""
    return sum(one["n_tiles"] * (one["read_s"] + one["compare_s"]) for one in medians)


def tiles_of(kind_name: str, mode: str, folder: Path, n_blocks: int) -> list[tuple[Any, ...]]:
    return [
        (measure_tile, folder, kind_name, mode, left, right, n_blocks)
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
        all_tiles = run_tiles(tiles_of("phash", "pairs", folders["phash"], n_blocks), len(cpus))
        whole = one_join(folders["phash"], "phash", n_blocks)
        n_found = sum(tile.n_found for tile in all_tiles)
        if n_found != whole["n_pairs"]:
            raise SystemExit(f"the tiles found {n_found:,} pairs, one join {whole['n_pairs']:,}")
        tiles += all_tiles
        tasks = tiles_of("phash", "links", folders["phash"], N_LINKED)
        per_block = BILLION // sizes.default_blocks(BILLION, hash_kind("pdq")) // share
        draw_blocks(folders["pdq"], "pdq", N_LINKED * per_block, N_LINKED)
        tasks += [task for mode in MODES for task in tiles_of("pdq", mode, folders["pdq"], N_LINKED)]
        for images in IMAGES:
            draw_images(folders["local"] / str(images), images // share)
            tasks.append((measure_tile, folders["local"] / str(images), "local", "pairs", 0, 1, 2))
        tiles += run_tiles(tasks, len(cpus))
    speeds, what = measure_hashing()
    figures = {
        "rows": n_distinct,
        "n_blocks": n_blocks,
        "n_tiles": len(all_tiles),
        "core_seconds": round(core_seconds(summary(all_tiles)), 1),
        "n_pairs": n_found,
        "one_join_s": round(whole["seconds"], 2),
        "one_join_core_s": round(whole["core_s"], 1),
        "one_join_bytes": whole["peak_bytes"],
        "tiles": summary(tiles),
        "images_a_second_a_core": speeds,
        "images": what,
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
