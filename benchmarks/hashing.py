"""The speed of hashing, compared with the decoder alone and with other libraries.

    python benchmarks/hashing.py [FOLDER] [--quick] [--update-docs]

See benchmarks/README.md for what is measured and how.
"""

import argparse
import io
import os
import pickle
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import numpy as np
import simplejpeg
from harness import (
    Arena,
    Contender,
    Timings,
    Way,
    allowed_cpus,
    describe_machine,
    markdown_table,
    median_and_quartiles,
    pin,
    replace_between,
    run,
)
from photos import ImageSet, draw_photos, enlarge, image_size, make_pngs, make_thumbnails, read_folder, repeated
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = (
    "imgmatch-df", "polars", "numba", "simplejpeg", "pillow",
    "opencv-contrib-python-headless", "polars-cv", "ImageHash", "pdqhash", "daft",
)  # fmt: skip
N_BITS = {"bmh1": 961, "phash": 64}


# Contenders. Each imports its library when its worker starts, and gets encoded images in memory.


def _in_threads(one: Callable[[bytes], object], images: list[bytes], n_threads: int) -> dict[str, Way]:
    pool = ThreadPoolExecutor(n_threads)

    def run() -> None:
        remaining = iter(images)

        def work() -> None:
            for image in remaining:
                one(image)

        for task in [pool.submit(work) for _ in range(n_threads)]:
            task.result()

    return {"": lambda: run}


def decode_with_libjpeg(images: list[bytes], n_threads: int) -> dict[str, Way]:
    n_bytes = 3 * max(width * height for width, height in map(image_size, images))
    kept = threading.local()

    def decode(image: bytes) -> None:
        if not hasattr(kept, "buffer"):
            kept.buffer = np.empty(n_bytes, np.uint8)  # reused, so that no page fault is timed
        simplejpeg.decode_jpeg(image, "BGR", buffer=kept.buffer)

    return _in_threads(decode, images, n_threads)


def decode_with_pillow(images: list[bytes], n_threads: int) -> dict[str, Way]:
    return _in_threads(lambda image: Image.open(io.BytesIO(image)).load(), images, n_threads)


def _ours(
    decode: Literal["full", "scaled"] = "full", note: str = "", *, budgets: bool = True, isolate: bool = False
) -> Contender:
    def ways(images: list[bytes], _n_threads: int) -> dict[str, Way]:
        import polars as pl

        import imgmatch_df

        if not budgets:
            remove_budgets()

        def expressions() -> list[pl.Expr]:
            kinds = (imgmatch_df.phash, imgmatch_df.bmh1)
            return [kind("data", decode=decode, isolate=isolate) for kind in kinds]

        return _frame_ways(images, expressions)

    def result(images: list[bytes], _n_threads: int) -> object:
        import polars as pl

        import imgmatch_df

        hashes = imgmatch_df.visual_hash(pl.DataFrame({"data": images}), "data", decode=decode)
        return {
            "phash": hashes["phash"].to_list(),
            "bmh1": [None if bmh1 is None else int.from_bytes(bmh1) for bmh1 in hashes["bmh1"]],
        }

    return Contender(f'imgmatch-df, bmh1 + phash, `decode="{decode}"`{note}', ("imgmatch-df",), ways, result)


def remove_budgets() -> None:
    """Remove the limits of memory and pixels from the decoders of this process."""
    from imgmatch_df.images import decode, pixel_budget

    class NoBudget(pixel_budget.PixelBudget):
        def __enter__(self) -> None:
            pass

        def __exit__(self, *_: object) -> None:
            pass

        def take(self, *_: int) -> None:
            pass

    decode.jpeg_budget = decode.jpeg2000_budget = lambda *_: None
    pixel_budget.PIXELS = NoBudget(1)


def _frame_ways(images: list[bytes], expressions: Callable[[], Any]) -> dict[str, Way]:
    """Return ways to evaluate Polars expressions, on a new frame each round, so that nothing is cached."""
    import polars as pl

    def eager() -> Callable[[], object]:
        frame = pl.DataFrame({"data": images})
        return lambda: frame.select(expressions())

    def streaming() -> Callable[[], object]:
        frame = pl.DataFrame({"data": images}).lazy()
        return lambda: frame.select(expressions()).collect(engine="streaming")

    return {"eager": eager, "streaming": streaming}


def hash_with_opencv(images: list[bytes], n_threads: int) -> dict[str, Way]:
    return _in_threads(_opencv_hasher(), images, n_threads)


def result_of_opencv(images: list[bytes], _n_threads: int) -> object:
    hashes = list(map(_opencv_hasher(), images))
    return {
        kind: [None if pair is None else int.from_bytes(pair[i].tobytes()) for pair in hashes]
        for i, kind in enumerate(N_BITS)
    }


def _opencv_hasher() -> Callable[[bytes], tuple[Any, Any] | None]:
    import cv2

    cv2.setNumThreads(1)  # the images are divided among the threads, not the rows of one image
    kept = threading.local()

    def compute(image: bytes) -> tuple[Any, Any] | None:
        if not hasattr(kept, "hashes"):
            kept.hashes = cv2.img_hash.BlockMeanHash.create(1), cv2.img_hash.PHash.create()
        pixels = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR)
        return None if pixels is None else tuple(algorithm.compute(pixels) for algorithm in kept.hashes)

    return compute


def _polars_cv(thumbnail: int | None) -> Callable[[list[bytes], int], dict[str, Way]]:
    def ways(images: list[bytes], _n_threads: int) -> dict[str, Way]:
        import polars as pl
        from polars_cv import Pipeline

        source = Pipeline().source("image_bytes")
        pipeline = (source if thumbnail is None else source.thumbnail(thumbnail)).perceptual_hash()
        return _frame_ways(images, lambda: pl.col("data").cv.pipe(pipeline).sink("list"))  # type: ignore[attr-defined]

    return ways


def _imagehash(method: str, **options: int) -> Contender:
    """Return the contender that computes one hash of ImageHash, in processes: its threads would wait for the GIL."""

    def ways(images: list[bytes], n_threads: int) -> dict[str, Way]:
        import imagehash

        _images_of_child[:] = images
        getattr(imagehash, method)(Image.new("L", (64, 64)), **options)  # imports everything before the fork
        pool = get_context("fork").Pool(n_threads)
        n_each = max(1, len(images) // (4 * n_threads))
        compute = partial(_imagehash_of, method, options)
        return {"": lambda: lambda: pool.map(compute, range(len(images)), n_each)}

    size = "".join(f" of size {size}" for size in options.values())
    return Contender(f"ImageHash, {method}{size} alone, processes", ("ImageHash",), ways)


_images_of_child: list[bytes] = []


def _imagehash_of(method: str, options: dict[str, int], row: int) -> str:
    import imagehash

    return str(getattr(imagehash, method)(Image.open(io.BytesIO(_images_of_child[row])), **options))


def hash_with_pdqhash(images: list[bytes], n_threads: int) -> dict[str, Way]:
    import pdqhash

    def with_libjpeg(image: bytes) -> object:
        return pdqhash.compute(simplejpeg.decode_jpeg(image, "RGB"))

    def with_pillow(image: bytes) -> object:
        return pdqhash.compute(np.asarray(Image.open(io.BytesIO(image)).convert("RGB")))

    decoders = {"Pillow": with_pillow, "libjpeg-turbo": with_libjpeg}
    return {name: _in_threads(one, images, n_threads)[""] for name, one in decoders.items()}


def _ours_of(label: str, *kinds: str) -> Contender:
    def ways(images: list[bytes], _n_threads: int) -> dict[str, Way]:
        import imgmatch_df

        return _frame_ways(images, lambda: [imgmatch_df.perceptual_hash("data", kind) for kind in kinds])

    return Contender(f"imgmatch-df, {label}", ("imgmatch-df",), ways)


def _every_kind() -> tuple[str, ...]:
    from imgmatch_df.hashes.kinds import KINDS, SHA256

    return tuple(name for name in KINDS if name != SHA256.name)  # with it, rounds after the first decode nothing


def hash_with_daft(images: list[bytes], n_threads: int) -> dict[str, Way]:
    import daft
    from daft.functions import decode_image, image_hash

    frame = daft.from_pydict({"data": images})
    batches = frame.into_batches(max(1, len(images) // (4 * n_threads)))
    phash = image_hash(decode_image(daft.col("data")), method="phash")
    return {
        "one batch": lambda: frame.select(phash).collect,
        "in batches": lambda: batches.select(phash).collect,
    }


# The reference packages, and the kinds with their hashes.
AS_PEERS = {
    "pdqhash": "pdq",
    "imagehash": "imagehash_phash",
    "imagehash-dhash": "imagehash_dhash",
    "imagehash-ahash": "imagehash_ahash",
    "imagehash-phash16": "imagehash_phash16",
    "imagehash-dhash16": "imagehash_dhash16",
}
CONTENDERS = {
    "limit": Contender("decode only, libjpeg-turbo (the limit)", ("simplejpeg",), decode_with_libjpeg),
    "pillow": Contender("decode only, Pillow", ("pillow",), decode_with_pillow),
    "full": _ours("full"),
    "scaled": _ours("scaled"),
    "unbounded": _ours(note=", without budgets", budgets=False),
    "isolated": _ours(note=", `isolate=True`", isolate=True),
    "opencv": Contender(
        "OpenCV decode + img_hash bmh1 + phash",
        ("opencv-contrib-python-headless",), hash_with_opencv, result_of_opencv,
    ),
    "polars-cv": Contender("polars-cv, phash alone", ("polars-cv",), _polars_cv(None)),
    "polars-cv-thumbnail": Contender("polars-cv, phash alone, of `thumbnail(64)`", ("polars-cv",), _polars_cv(64)),
    "imagehash": _imagehash("phash"),
    "imagehash-dhash": _imagehash("dhash"),
    "imagehash-ahash": _imagehash("average_hash"),
    "imagehash-phash16": _imagehash("phash", hash_size=16),
    "imagehash-dhash16": _imagehash("dhash", hash_size=16),
    "pdqhash": Contender("pdqhash", ("pdqhash",), hash_with_pdqhash),
    "daft": Contender("Daft, phash alone", ("daft",), hash_with_daft),
    **{f"as-{name}": _ours_of(f"{kind} alone", kind) for name, kind in AS_PEERS.items()},
    "every-kind": _ours_of("all hash kinds together", *_every_kind()),
}  # fmt: skip
KIND_NAMES = ["limit", "pillow", "every-kind", *(f"{way}{name}" for name in AS_PEERS for way in ("as-", ""))]
COST_NAMES = ["limit", "full", "unbounded", "isolated"]
JPEG_NAMES = ["limit", "full", "scaled", "opencv", "polars-cv", "polars-cv-thumbnail", "imagehash", "daft"]
PNG_NAMES = ["pillow", "full", "opencv", "polars-cv", "imagehash", "daft"]


# Sections. Each returns Markdown.


class Bench:
    """One run: a folder for its files, the processors it may use, its contenders, and how thorough it is."""

    def __init__(self, folder: Path, cpus: list[int], arena: Arena, *, quick: bool) -> None:
        self.folder = folder
        self.cpus = cpus
        self.arena = arena
        self.quick = quick
        self._start = time.monotonic()

    def say(self, what: str) -> None:
        print(f"{time.monotonic() - self._start:5.0f} s  {what}", file=sys.stderr)

    def save(self, images: list[bytes]) -> Path:
        path = self.folder / "images.pickle"
        path.write_bytes(pickle.dumps(images))
        return path

    def hashes(self, images: list[bytes], name: str) -> dict[str, list[int | None]] | None:
        """Return the hashes of a contender, by kind; None if it is not installed."""
        if CONTENDERS[name].missing:
            return None
        worker = self.arena.worker(name, self.cpus[:2])
        hashes: dict[str, list[int | None]] = worker.request("result", str(self.save(images)))
        return hashes


def speed_section(bench: Bench, images: ImageSet, names: list[str], megapixels: float, n_rounds: int) -> str:
    bench.say(f"speed: {images.describe()}")
    data = images.about(megapixels / 4 if bench.quick else megapixels)
    n_rounds = 3 if bench.quick else n_rounds
    cpus = bench.cpus[:2]
    timings = bench.arena.race(dict.fromkeys(names, cpus), bench.save(data), limit=names[0], n_rounds=n_rounds)
    ours = {f'`"{name}"` is faster by': timings[name] for name in ("full", "scaled") if name in timings}
    rows = []
    for name, timing in timings.items():
        label = CONTENDERS[name].label + (f" ({timing.way})" if timing.way else "")
        if timing.failure is not None:
            rows.append([label, timing.failure, "", *[""] * len(ours)])
            continue
        share, low, high = median_and_quartiles(timing.to_limit)
        spread = "" if name == names[0] else f" ({low:.2f} to {high:.2f})"
        rate = len(data) / statistics.median(timing.seconds)
        rows.append(
            [label, f"{rate:,.0f}", f"{share:.2f}{spread}", *(_faster_by(own, timing) for own in ours.values())]
        )
    table = markdown_table(["", "images a second", "of decode only (quartiles)", *ours], rows)
    return (
        f"{table}\n\n{images.describe()}. {len(cpus)} threads, {len(data)} images a round, {n_rounds} rounds, "
        "encoded images in memory."
    )


def _faster_by(ours: Timings, other: Timings) -> str:
    if ours is other or ours.failure is not None:
        return ""
    # Both are shares of the limit in the same round, so the drift of the machine cancels.
    return f"{statistics.median(a / b for a, b in zip(ours.to_limit, other.to_limit, strict=True)):.2f}"


def kinds_section(bench: Bench, images: ImageSet, megapixels: float, n_rounds: int) -> str:
    """Race each kind with the package whose hashes it has, and all kinds together with the decoder alone."""
    bench.say(f"hash kinds: {images.describe()}")
    data = images.about(megapixels / 4 if bench.quick else megapixels)
    n_rounds = 2 if bench.quick else n_rounds
    cpus = bench.cpus[:2]
    timings = bench.arena.race(dict.fromkeys(KIND_NAMES, cpus), bench.save(data), limit="limit", n_rounds=n_rounds)
    rows = []
    for name, timing in timings.items():
        label = CONTENDERS[name].label + (f" ({timing.way})" if timing.way else "")
        if timing.failure is not None:
            rows.append([label, timing.failure, "", ""])
            continue
        share, low, high = median_and_quartiles(timing.to_limit)
        spread = "" if name == "limit" else f" ({low:.2f} to {high:.2f})"
        package = timings.get(name.removeprefix("as-"), timing)
        factor = "" if package.failure is not None else _faster_by(timing, package)
        rate = len(data) / statistics.median(timing.seconds)
        rows.append([label, f"{rate:,.0f}", f"{share:.2f}{spread}", factor])
    table = markdown_table(["", "images a second", "of decode only (quartiles)", "faster than the package by"], rows)
    return (
        f"{table}\n\n{images.describe()}. {len(cpus)} threads or processes, {len(data)} images a round, {n_rounds} "
        "rounds, encoded images in memory."
    )


def scaling_section(bench: Bench, photos: ImageSet) -> str:
    counts = sorted({1, min(2, len(bench.cpus)), len(bench.cpus)})
    bench.say(f"threads: {counts}")
    data = photos.about((15 if bench.quick else 60) * len(bench.cpus) / 2)
    names = ("limit", "full", "scaled")
    cpus = {f"{name}@{n}": bench.cpus[:n] for n in counts for name in names}
    n_rounds = 3 if bench.quick else 5
    timings = bench.arena.race(cpus, bench.save(data), limit="limit@1", n_rounds=n_rounds)
    rows = []
    for n in counts:
        row = [str(n)]
        for name in names:
            timing = timings[f"{name}@{n}"]
            speedup = statistics.median(timing.to_limit) / statistics.median(timings[f"{name}@1"].to_limit)
            row.append(f"{len(data) / statistics.median(timing.seconds):,.0f} (x {speedup:.2f})")
        rows.append(row)
    table = markdown_table(["threads", "decode only", 'ours, `"full"`', 'ours, `"scaled"`'], rows)
    return f"{table}\n\nImages a second, and times the speed of one thread."


def accuracy_section(bench: Bench, sets: Sequence[ImageSet]) -> str:
    bench.say("bits")
    rows = []
    for images in sets:
        full, scaled, opencv = (bench.hashes(images.data, name) for name in ("full", "scaled", "opencv"))
        assert full is not None
        assert scaled is not None
        for kind, n_bits in N_BITS.items():
            distances = differing_bits(full[kind], scaled[kind])
            median, last = np.percentile(distances, [50, 99]) if distances else (np.nan, np.nan)
            from_opencv = "not installed" if opencv is None else f"{sum(differing_bits(full[kind], opencv[kind])):,}"
            rows.append(
                [images.what, str(len(distances)), f"{kind} ({n_bits})", f"{median:.0f}", f"{last:.0f}", from_opencv]
            )
    return markdown_table(
        ["images", "n", "hash (bits)", '`"scaled"` from `"full"`: median', "99th percentile",
         '`"full"` from OpenCV: all bits together'],
        rows,
    )  # fmt: skip


def differing_bits(left: list[int | None], right: list[int | None]) -> list[int]:
    pairs = zip(left, right, strict=True)
    return [(a ^ b).bit_count() for a, b in pairs if a is not None and b is not None]


_IMPORT = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"
_FIRST_CALL = """
import sys, polars as pl, imgmatch_df
frame = pl.DataFrame({"data": [open(sys.argv[1], "rb").read()]})
frame.select(pl.col("data").imgmatch.phash(), pl.col("data").imgmatch.bmh1()).item(0, 0)
"""


def cold_section(bench: Bench, photos: ImageSet) -> str:
    bench.say("cold start")
    n_runs = 3 if bench.quick else 9
    imports: dict[str, list[float]] = {"polars": [], "imgmatch_df": []}
    for _ in range(n_runs):
        for name, seconds in imports.items():
            seconds.append(float(run_python(_IMPORT.format(name))))
    ratio = statistics.median(own / other for own, other in zip(imports["imgmatch_df"], imports["polars"], strict=True))
    image = bench.folder / "first.jpg"
    image.write_bytes(photos.data[0])
    # The package without compiled kernels, as on a machine that has just installed it.
    clean = bench.folder / "clean"
    package = Path(str(find_spec("imgmatch_df").origin)).parent
    shutil.copytree(package, clean / package.name, ignore=shutil.ignore_patterns("__pycache__"))
    env = {
        **os.environ,
        "NUMBA_CACHE_DIR": str(bench.folder / "numba"),
        "PYTHONPATH": str(clean),
        "PYTHONSAFEPATH": "1",
    }
    first, *later = (_wall(lambda: run_python(_FIRST_CALL, str(image), env=env)) for _ in range(1 + n_runs // 2))
    return markdown_table(
        ["cold start", "seconds"],
        [
            ["`import polars`", f"{statistics.median(imports['polars']):.2f}"],
            ["`import imgmatch_df`", f"{statistics.median(imports['imgmatch_df']):.2f} ({ratio:.2f} of polars)"],
            ["a process that hashes one image, the first ever (compiles the kernels)", f"{first:.2f}"],
            ["the same, any later one", f"{statistics.median(later):.2f}"],
        ],
    )


_STREAM = """
import sys, polars as pl, imgmatch_df
rows = pl.scan_parquet(sys.argv[1]).head(int(sys.argv[3]))
rows.select("id", pl.col("data").imgmatch.phash(), pl.col("data").imgmatch.bmh1()).sink_parquet(sys.argv[2])
try:
    lines = open("/proc/self/status").read().splitlines()
    print(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1000)
except FileNotFoundError:
    import resource
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6)
"""


def memory_section(bench: Bench, photos: ImageSet) -> str:
    sizes = (1_000, 3_000) if bench.quick else (8_000, 16_000)
    bench.say(f"memory: {sizes} rows")
    kilobytes = statistics.mean(map(len, photos.data)) / 1e3
    rows = []
    for n_group in (100,) if bench.quick else (100, 500):
        path = bench.folder / "images.parquet"
        write_parquet(photos, path, max(sizes), n_group)
        for n_rows in sizes:
            peak = float(run_python(_STREAM, str(path), str(bench.folder / "hashes.parquet"), str(n_rows)))
            rows.append([str(n_group), f"{n_rows:,}", f"{kilobytes * n_rows / 1e3:,.0f}", f"{peak:,.0f}"])
        path.unlink()
    return markdown_table(
        ["rows in a row group", "rows", "images, MB", "peak resident memory of the process, MB"], rows
    )


def write_parquet(photos: ImageSet, path: Path, n_rows: int, n_group: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema({"id": pa.int64(), "data": pa.large_binary()})
    images = iter(repeated(photos.data, n_rows))
    # No dictionary: it would store each of the repeated images once.
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as writer:
        for start in range(0, n_rows, n_group):
            ids = range(start, min(start + n_group, n_rows))
            writer.write_table(pa.table({"id": ids, "data": list(islice(images, len(ids)))}, schema))


def run_python(code: str, *arguments: str, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=env, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"failed:\n{code}\n{done.stderr}")
    return done.stdout


def _wall(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def text_of(sections: Mapping[str, str], machine: str) -> str:
    """Return sections by their titles as Markdown."""
    return "\n\n".join(f"### {title}\n\n{text}" for title, text in sections.items()) + f"\n\n{machine}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="images to hash; drawn ones if none is given")
    parser.add_argument("--quick", action="store_true", help="fewer images and rounds: under a minute, rough")
    parser.add_argument("--kinds", action="store_true", help="only the tables of other hash kinds")
    parser.add_argument("--update-docs", action="store_true", help="write the tables into the documents")
    arguments = parser.parse_args()
    all_cpus = allowed_cpus()
    pin(all_cpus[:2])  # processes that are started here have two processors
    with tempfile.TemporaryDirectory() as folder, Arena(__file__, CONTENDERS) as arena:
        bench = Bench(Path(folder), all_cpus, arena, quick=arguments.quick)
        photos = draw_photos(40) if arguments.folder is None else read_folder(arguments.folder)
        machine = describe_machine(len(all_cpus), PACKAGES)
        bench.say("making other images")
        large = enlarge(photos, 6 if bench.quick else 24)
        kinds = {
            "Other hash kinds": kinds_section(bench, photos, 60, 5),
            "Other hash kinds, 12-megapixel photos": kinds_section(bench, large, 96, 3),
        }
        print(text_of(kinds, machine))
        if arguments.update_docs:
            replace_between(ROOT / "benchmarks" / "README.md", "hashing-kinds", text_of(kinds, machine))
        if arguments.kinds:
            return
        main_table = speed_section(bench, photos, JPEG_NAMES, 60, 9)
        thumbnails, pngs = make_thumbnails(photos), make_pngs(photos)
        sections = {
            "Photos": main_table,
            "12-megapixel photos": speed_section(bench, large, JPEG_NAMES, 96, 5),
            "Thumbnails": speed_section(bench, thumbnails, JPEG_NAMES, 40, 5),
            "What the budgets cost": speed_section(bench, photos, COST_NAMES, 60, 9),
            "What the budgets cost, thumbnails": speed_section(bench, thumbnails, COST_NAMES, 40, 9),
            "PNG": speed_section(bench, pngs, PNG_NAMES, 18, 5),
            "Differing bits": accuracy_section(bench, [photos, large, thumbnails, pngs]),
            "Threads": scaling_section(bench, photos),
            "Cold start": cold_section(bench, photos),
            "Memory of a streaming run": memory_section(bench, photos),
        }
        bench.say("done")
    details = text_of(sections, machine)
    print(details)
    if arguments.update_docs:
        replace_between(ROOT / "README.md", "hashing", f"{main_table} {machine}")
        replace_between(ROOT / "benchmarks" / "README.md", "hashing-more", details)


if __name__ == "__main__":
    run(main, CONTENDERS)
