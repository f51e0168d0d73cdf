"""Hashing from archives and from Parquet, compared with the same images in a folder: speed, and peak memory.

    python benchmarks/archives.py [FOLDER] [--quick] [--update-docs]

See benchmarks/README.md for what is measured and how.
"""

import argparse
import io
import os
import pickle
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle, islice
from pathlib import Path

from harness import (
    Arena,
    Contender,
    Way,
    allowed_cpus,
    describe_machine,
    markdown_table,
    median_and_quartiles,
    pin,
    replace_between,
    serve,
)

PAGE = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"
PACKAGES = ("imgmatch-df", "polars", "numba", "simplejpeg")
SHARD_ROWS = 500
GROUP_ROWS = 100


# The images, as each contender reads them.


def write_folder(images: list[bytes], place: Path) -> str:
    """Write a folder of files; return what `scan_images` lists."""
    place.mkdir()
    for name, data in named(images):
        (place / name).write_bytes(data)
    return str(place)


def write_shards(images: list[bytes], place: Path, *, has_others: bool = False) -> str:
    """Write tar shards as webdataset does; with `has_others`, samples also have a text and metadata."""
    place.mkdir()
    members = named(images)
    for number in range(-(-len(images) // SHARD_ROWS)):
        with tarfile.open(place / f"{number:05}.tar", "w") as shard:
            for name, data in islice(members, SHARD_ROWS):
                add(shard, name, data)
                if has_others:
                    add(shard, name.replace(".jpg", ".txt"), b"a caption of an image " * 4)
                    add(shard, name.replace(".jpg", ".json"), b'{"width": 500, "url": "https://example.com"}')
    return str(place / "*.tar")


def add(shard: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mtime = len(data), time.time()  # type: ignore[assignment]  # a fraction: a PAX header, as webdataset
    shard.addfile(info, io.BytesIO(data))


def write_zip(images: list[bytes], place: Path, *, method: int) -> str:
    """Write one zip file."""
    path = place.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in named(images):
            archive.writestr(name, data)
    return str(path)


def write_parquet(images: list[bytes], place: Path) -> str:
    """Write a Parquet file as Hugging Face does: ``image: Struct{bytes, path}``, 100 rows in a row group."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = place.with_suffix(".parquet")
    schema = pa.schema({"image": pa.struct({"bytes": pa.binary(), "path": pa.string()})})
    members = named(images)
    with pq.ParquetWriter(path, schema) as writer:
        while rows := [{"bytes": data, "path": name} for name, data in islice(members, GROUP_ROWS)]:
            writer.write_table(pa.table({"image": rows}, schema), GROUP_ROWS)
    return str(path)


def named(images: list[bytes]) -> Iterator[tuple[str, bytes]]:
    return iter([(f"{number:08}.jpg", data) for number, data in enumerate(images)])


WRITERS: dict[str, Callable[[list[bytes], Path], str]] = {
    "folder": write_folder,
    "tar": write_shards,
    "webdataset": partial(write_shards, has_others=True),
    "zip": partial(write_zip, method=zipfile.ZIP_STORED),
    "deflated": partial(write_zip, method=zipfile.ZIP_DEFLATED),
    "parquet": write_parquet,
}


# Contenders. Each lists the images anew in every round, and hashes them.


def hash_listed(source: str) -> list[int | None]:
    """Hash the images of a folder or of archives."""
    import polars as pl

    import imgmatch_df

    listed = imgmatch_df.scan_images(source)
    hashed = listed.select(pl.col("path").imgmatch.visual_hash().struct.field("phash"))  # type: ignore[attr-defined]
    return list(hashed.collect(engine="streaming").to_series())


def hash_parquet(source: str) -> list[int | None]:
    """Hash the images of a Parquet file."""
    import polars as pl

    import imgmatch_df  # noqa: F401  # the namespace

    image = pl.col("image").struct.field("bytes")
    hashed = pl.scan_parquet(source).select(image.imgmatch.visual_hash().struct.field("phash"))  # type: ignore[attr-defined]
    return list(hashed.collect(engine="streaming").to_series())


def change_times(source: str) -> None:
    """Give archives another time, so that they are listed anew: an index is kept for an unchanged archive."""
    path = Path(source)
    for archive in path.parent.glob(path.name) if path.suffix in (".tar", ".zip") else ():
        os.utime(archive)


def contender(key: str, label: str) -> Contender:
    def hash_images(source: str) -> list[int | None]:
        return hash_parquet(source) if key == "parquet" else hash_listed(source)

    def ways(sources: dict[str, str], _n_threads: int) -> dict[str, Way]:
        def way() -> Callable[[], object]:
            change_times(sources[key])
            return partial(hash_images, sources[key])

        return {"": way}

    def result(sources: dict[str, str], _n_threads: int) -> object:
        return hash_images(sources[key])

    return Contender(label, ("pyarrow",) if key == "parquet" else (), ways, result)


CONTENDERS = {
    key: contender(key, label)
    for key, label in {
        "folder": "folder",
        "tar": "tar shards",
        "webdataset": "tar shards, with two other files a sample",
        "zip": "zip, stored",
        "deflated": "zip, deflated",
        "parquet": "Parquet of Hugging Face",
    }.items()
}

_PEAK = """
import sys
sys.path.insert(0, sys.argv[1])
from archives import hash_listed, hash_parquet
hashed = (hash_parquet if sys.argv[2].endswith(".parquet") else hash_listed)(sys.argv[2])
assert None not in hashed
try:
    lines = open("/proc/self/status").read().splitlines()
    print(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1000)
except FileNotFoundError:
    import resource
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)
"""


def peak_mb(source: str) -> float:
    """Return the peak resident memory of a process that hashes the images of a source, in MB."""
    command = [sys.executable, "-c", _PEAK, str(Path(__file__).parent), source]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout)


def section(folder: Path, images: list[bytes], cpus: list[int], n_images: int, n_rounds: int) -> str:
    """Race the contenders, measure the memory of each for two numbers of images, and return the table."""
    from photos import repeated

    sources: dict[int, dict[str, str]] = {}
    for n in (n_images, 4 * n_images):
        say(f"writing {n:,} images in {len(WRITERS)} forms")
        several = repeated(images, n)
        sources[n] = {key: write(several, folder / f"{key}-{n}") for key, write in WRITERS.items()}
    data = folder / "sources.pickle"
    data.write_bytes(pickle.dumps(sources[n_images]))
    say(f"speed: {n_rounds} rounds")
    with Arena(__file__, CONTENDERS) as arena:
        timings = arena.race(dict.fromkeys(CONTENDERS, cpus), data, limit="folder", n_rounds=n_rounds)
        hashes = [arena.worker(key, cpus).request("result", str(data)) for key in CONTENDERS]
    if any(one != hashes[0] for one in hashes) or None in hashes[0]:
        raise SystemExit("the hashes of the contenders differ")
    rows = []
    for key, timing in timings.items():
        if timing.failure is not None:
            rows.append([CONTENDERS[key].label, timing.failure, "", "", ""])
            continue
        say(f"memory: {key}")
        share, low, high = median_and_quartiles(timing.to_limit)
        spread = "" if key == "folder" else f" ({low:.2f} to {high:.2f})"
        rate = n_images / statistics.median(timing.seconds)
        peaks = [f"{peak_mb(sources[n][key]):,.0f}" for n in sources]
        rows.append([CONTENDERS[key].label, f"{rate:,.0f}", f"{share:.2f}{spread}", *peaks])
    header = ["", "images a second", "of the folder (quartiles)", *(f"peak MB, {n:,} images" for n in sources)]
    kilobytes = statistics.mean(map(len, islice(cycle(images), n_images))) / 1e3
    return (
        f"{markdown_table(header, rows)}\n\n{len(images)} JPEG images of {kilobytes:,.0f} KB on average, repeated; "
        f"bmh1 and phash, {len(cpus)} threads, {n_rounds} rounds; all contenders give equal hashes. "
        f"{describe_machine(len(cpus), PACKAGES)}"
    )


def say(what: str) -> None:
    print(f"{time.strftime('%X')}  {what}", file=sys.stderr)


def main() -> None:
    """Measure, print the table, and with --update-docs write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="images; drawn ones by default")
    parser.add_argument("--quick", action="store_true", help="fewer images and rounds")
    parser.add_argument("--update-docs", action="store_true", help="write the table into the documentation")
    arguments = parser.parse_args()
    from photos import draw_photos, read_folder

    images = draw_photos(80) if arguments.folder is None else read_folder(arguments.folder)
    cpus = allowed_cpus()[:2]
    pin(cpus)
    n_images, n_rounds = (300, 3) if arguments.quick else (2_000, 9)
    with tempfile.TemporaryDirectory() as name:
        text = section(Path(name), images.data, cpus, n_images, n_rounds)
    print(text)
    if arguments.update_docs:
        replace_between(PAGE, "archives", text)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        serve(CONTENDERS, sys.argv[2], sys.argv[3])
    else:
        main()
