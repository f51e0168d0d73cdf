"""Spark with two local executors beside the verbs of one machine with two threads: hashing, a join and clusters.

    python benchmarks/spark.py [--rows N] [--images N] [--update-docs]

Needs the extra ``spark`` and Java. See benchmarks/README.md for what is measured and how.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from harness import describe_machine, markdown_table, replace_between
from hash_sets import planted_phashes
from photos import draw_photos, repeated

import imgmatch_df as im

ROOT: Final = Path(__file__).resolve().parent.parent
PACKAGES: Final = ("imgmatch-df", "polars", "numba", "pyspark", "pyarrow")
MASTER: Final = "local-cluster[2,1,2048]"
N_CORES: Final = 2
N_ROUNDS: Final = 3
RADIUS: Final = 4
N_FILES: Final = 16
N_PHOTOS: Final = 80
HASH_TYPES: Final = ("bmh1", "phash")
# Functions that a join on Spark calls one after the other, and what each step is.
STEPS: Final = {
    "survey": "counting rows, and their checksum",
    "write_nodes": "rows in blocks: the shuffle",
    "run_tiles": "tiles: the comparison",
    "find_components": "components of the links",
    "check_different": "repeated ids",
}
JOBS: Final = ["files", "hashing", "join", "cluster"]
Job = Callable[[Path], object]


def make_data(folder: Path, n_images: int, n_rows: int) -> None:
    """Write images and hashes as Parquet files."""
    photos = repeated(draw_photos(N_PHOTOS).data, n_images)
    files, images, paths, hashes = (folder / name for name in ("files", "images", "paths", "hashes"))
    for place in (files, images, paths, hashes):
        place.mkdir()
    for number, photo in enumerate(photos):
        (files / f"{number:06}.jpg").write_bytes(photo)
    rows = pl.DataFrame(
        {"id": np.arange(n_rows), "phash": planted_phashes(n_rows).view(np.uint64).ravel().view(np.int64)}
    )
    for number in range(N_FILES):
        ids = np.arange(number, n_images, N_FILES)
        frame = pl.DataFrame({"id": ids, "image": [photos[one] for one in ids]})
        frame.write_parquet(images / f"{number:02}.parquet", compression="uncompressed", row_group_size=200)
        names = pl.DataFrame({"id": ids, "path": [str(files / f"{one:06}.jpg") for one in ids]})
        names.write_parquet(paths / f"{number:02}.parquet")
        rows[number::N_FILES].write_parquet(hashes / f"{number:02}.parquet")


def jobs_of_one_machine(data: Path) -> dict[str, Job]:
    """Return the jobs with the verbs of one machine: each reads Parquet files and writes one."""

    def hashes() -> pl.DataFrame:
        return pl.read_parquet(data / "hashes" / "*.parquet").sort("id")

    def hash_column(name: str, source: str, out: Path) -> None:
        frame = pl.scan_parquet(data / name / "*.parquet")
        hashed = frame.select("id", im.visual_hash(source, hash_types=HASH_TYPES).alias("hashes"))
        hashed.unnest("hashes").sink_parquet(out / "one.parquet")

    def hash_images(out: Path) -> None:
        hash_column("images", "image", out)

    def hash_files(out: Path) -> None:
        hash_column("paths", "path", out)

    def join(out: Path) -> None:
        im.near_duplicates(hashes(), RADIUS, "phash", id="id").write_parquet(out / "one.parquet")

    def cluster(out: Path) -> None:
        im.cluster(hashes(), RADIUS, "phash").write_parquet(out / "one.parquet")

    return {"files": hash_files, "hashing": hash_images, "join": join, "cluster": cluster}


def jobs_on_spark(spark: Any, data: Path) -> dict[str, Job]:
    """Return the same jobs on Spark."""
    import imgmatch_df.spark as ims

    def write(df: Any, out: Path) -> None:
        df.write.mode("overwrite").parquet(str(out / "spark"))

    def hash_images(out: Path) -> None:
        images = spark.read.parquet(str(data / "images"))
        write(ims.visual_hash(images, "image", hash_types=HASH_TYPES).drop("image"), out)

    def hash_files(out: Path) -> None:
        paths = spark.read.parquet(str(data / "paths")).repartition(N_FILES)
        write(ims.visual_hash(paths, "path", hash_types=HASH_TYPES), out)

    def join(out: Path) -> None:
        with tempfile.TemporaryDirectory(dir=out) as work:
            hashes = spark.read.parquet(str(data / "hashes"))
            write(ims.near_duplicates(hashes, RADIUS, "phash", id="id", work_dir=work), out)

    def cluster(out: Path) -> None:
        with tempfile.TemporaryDirectory(dir=out) as work:
            hashes = spark.read.parquet(str(data / "hashes"))
            write(ims.cluster(hashes, RADIUS, "phash", id="id", work_dir=work), out)

    return {"files": hash_files, "hashing": hash_images, "join": join, "cluster": cluster}


def start_spark(folder: Path) -> Any:
    """Return a session with two executors of one core each."""
    from pyspark.sql import SparkSession

    os.environ.update(
        SPARK_LOCAL_IP="127.0.0.1",
        SPARK_LOCAL_HOSTNAME="localhost",
        PYSPARK_PYTHON=sys.executable,
        PYSPARK_DRIVER_PYTHON=sys.executable,
    )
    config = {
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.shuffle.partitions": str(2 * N_CORES),
        "spark.sql.warehouse.dir": str(folder / "warehouse"),
        "spark.local.dir": str(folder / "local"),
        "spark.sql.files.maxPartitionBytes": "64m",
    }
    builder = SparkSession.builder.master(MASTER).appName("benchmark")
    for name, value in config.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    return spark


def measure_overheads(spark: Any, started_s: float) -> dict[str, float]:
    """Return the seconds of what every job on Spark pays for."""

    def nothing(batches: Iterator[Any]) -> Iterator[Any]:
        import imgmatch_df.matching.join

        assert imgmatch_df.matching.join
        yield from batches

    def run() -> float:
        start = time.perf_counter()
        spark.range(0, N_CORES, 1, N_CORES).mapInArrow(nothing, "id long").count()
        return time.perf_counter() - start

    def count() -> float:
        start = time.perf_counter()
        spark.range(0, N_CORES, 1, N_CORES).count()
        return time.perf_counter() - start

    count()
    first = run()
    later = statistics.median(run() for _ in range(5))
    return {
        "the session: Java, and two executors": started_s,
        "the first job with Python: its workers start, and import this package": first - later,
        "a job that does nothing": statistics.median(count() for _ in range(5)),
        "a job that does nothing in Python": later,
    }


@contextmanager
def timed_steps(seconds: dict[str, float]) -> Iterator[None]:
    """Add up the seconds of the steps of a join on Spark, where the driver calls them."""
    replaced = []

    def timed(function: Callable[..., Any], step: str) -> Callable[..., Any]:
        def run(*args: Any, **named: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **named)
            finally:
                seconds[step] = seconds.get(step, 0.0) + time.perf_counter() - start

        return run

    for module in [one for name, one in sys.modules.items() if name.startswith("imgmatch_df.spark.")]:
        for name, step in STEPS.items():
            function = vars(module).get(name)
            if callable(function) and not isinstance(function, type):
                replaced.append((module, name, function))
                setattr(module, name, timed(function, step))
    try:
        yield
    finally:
        for module, name, function in replaced:
            setattr(module, name, function)


def seconds_of(job: Job, out: Path) -> float:
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    start = time.perf_counter()
    job(out)
    return time.perf_counter() - start


def serve_one_machine(data: Path) -> None:
    """Run the jobs of one machine whose names come in, one a line, and print their seconds."""
    jobs = jobs_of_one_machine(data)
    for line in sys.stdin:
        print(json.dumps(seconds_of(jobs[line.strip()], data / "out-one")), flush=True)


def compare(folder: Path, names: list[str], n_rounds: int) -> tuple[dict[str, Any], dict[str, float], dict[str, float]]:
    """Return the seconds of each job on one machine and on Spark, in turn; the overheads; and the steps of the join."""
    started = time.perf_counter()
    spark = start_spark(folder)
    overheads = measure_overheads(spark, time.perf_counter() - started)
    environment = {**os.environ, "IMGMATCH_MAX_THREADS": str(N_CORES), "POLARS_MAX_THREADS": str(N_CORES)}
    command = [sys.executable, __file__, "--one-machine", str(folder)]
    found: dict[str, Any] = {}
    steps: dict[str, float] = {}
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as one:
        assert one.stdin is not None
        assert one.stdout is not None

        def on_one_machine(name: str) -> float:
            print(name, file=one.stdin, flush=True)
            line = one.stdout.readline() if one.stdout is not None else ""
            if not line:
                raise SystemExit(f"{name} failed on one machine")
            return float(json.loads(line))

        jobs = jobs_on_spark(spark, folder)
        for name in names:
            on_one_machine(name)  # compiles
            seconds_of(jobs[name], folder / "out-spark")
            figures: dict[str, list[float]] = {"one": [], "spark": []}
            for _ in range(n_rounds):
                figures["one"].append(on_one_machine(name))
                of_steps: dict[str, float] = {}
                with timed_steps(of_steps):
                    figures["spark"].append(seconds_of(jobs[name], folder / "out-spark"))
                if name == "join":
                    steps = {
                        **of_steps,
                        "a comparison in one task, reading what was found, and writing it": figures["spark"][-1],
                    }
                print(name, figures, of_steps, file=sys.stderr)
            found[name] = {side: statistics.median(values) for side, values in figures.items()}
        one.stdin.close()
    spark.stop()
    rest = "a comparison in one task, reading what was found, and writing it"
    if steps:
        steps[rest] -= sum(value for step, value in steps.items() if step != rest)
    return found, overheads, steps


def table_of(found: dict[str, Any], n_images: int, n_rows: int) -> str:
    what = {
        "files": f"hash {n_images:,} files (bmh1, phash), images a second",
        "hashing": f"hash {n_images:,} images in a column of Parquet, images a second",
        "join": f"near-duplicates of {n_rows:,} phashes within {RADIUS} bits",
        "cluster": f"clusters of {n_rows:,} phashes within {RADIUS} bits",
    }
    rows = []
    for name, seconds in found.items():
        if name in ("files", "hashing"):
            one, two = (f"{n_images / seconds[side]:,.0f}" for side in ("one", "spark"))
            share = f"{seconds['one'] / seconds['spark']:.2f} of the speed"
        else:
            one, two = (f"{seconds[side]:.2f} s" for side in ("one", "spark"))
            share = f"{seconds['spark'] / seconds['one']:.1f} times the time"
        rows.append((what[name], one, two, share))
    return markdown_table(["", "one machine, 2 threads", "Spark, 2 executors of 1 core", "Spark"], rows)


def seconds_table(title: str, seconds: dict[str, float]) -> str:
    return markdown_table([title, "seconds"], [(name, f"{value:.2f}") for name, value in seconds.items()])


def main() -> None:
    """Measure, print the tables, and with --update-docs write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="phashes to join")
    parser.add_argument("--images", type=int, default=8_000, help="images to hash")
    parser.add_argument("--rounds", type=int, default=N_ROUNDS, help="rounds of each job")
    parser.add_argument("--only", action="append", choices=JOBS, help="jobs; several times")
    parser.add_argument("--one-machine", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--update-docs", action="store_true", help="write the tables into the documentation")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    if arguments.one_machine is not None:
        serve_one_machine(arguments.one_machine)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_data(folder, arguments.images, arguments.rows)
        names = arguments.only or JOBS
        found, overheads, steps = compare(folder, names, arguments.rounds)
    photos = draw_photos(N_PHOTOS).describe()
    note = (
        f"Medians of {arguments.rounds} rounds in turn, after one that is not counted. Both read Parquet files and "
        f"write some. {photos}, repeated."
    )
    machine = describe_machine(N_CORES, PACKAGES)
    main_table = f"{table_of(found, arguments.images, arguments.rows)}\n\n{note} {machine}"
    more = "\n\n".join(
        [
            seconds_table("what a job on Spark pays for", overheads),
            seconds_table("steps of the join on Spark", steps),
            machine,
        ]
    )
    print(f"{main_table}\n\n{more}")
    if arguments.update_docs:
        replace_between(ROOT / "docs" / "benchmarks.md", "spark", main_table)
        replace_between(ROOT / "benchmarks" / "README.md", "spark-more", more)


if __name__ == "__main__":
    main()
