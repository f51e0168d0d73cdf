"""The table of files that OpenCV 5 and imgmatch-df read differently, and that of the speed of each format.

python benchmarks/formats.py --update-docs
python benchmarks/formats.py --speed FOLDER --update-docs
python benchmarks/formats.py --large FOLDER --update-docs
"""

import argparse
import io
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import polars as pl
from harness import Arena, allowed_cpus, describe_machine, markdown_table, pin, replace_between
from hashing import CONTENDERS, Bench
from photos import ImageSet, draw_photos, encode, read_folder
from PIL import Image

import imgmatch_df

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "formats.md"
FIGURES = ROOT / "benchmarks" / "README.md"
SEEDS = (1, 2, 3)
SIZE = (160, 120)
# Format and mode of Pillow, and options of its writer.
FORMATS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "PNG": ("PNG", "RGB", {}),
    "PNG, RGBA": ("PNG", "RGBA", {}),
    "PNG, grey": ("PNG", "L", {}),
    "PNG, palette": ("PNG", "P", {}),
    "WebP": ("WEBP", "RGB", {}),
    "WebP, lossless": ("WEBP", "RGB", {"lossless": True}),
    "TIFF": ("TIFF", "RGB", {}),
    "TIFF, grey": ("TIFF", "L", {}),
    "TIFF, RGBA": ("TIFF", "RGBA", {}),
    "TIFF, tiles": ("TIFF", "RGB", {"tile": (256, 256)}),
    "TIFF, PackBits": ("TIFF", "RGB", {"compression": "packbits"}),
    "TIFF, LZW": ("TIFF", "RGB", {"compression": "tiff_lzw"}),
    "TIFF, deflate": ("TIFF", "RGB", {"compression": "tiff_adobe_deflate"}),
    "TIFF, deflate, predictor": ("TIFF", "RGB", {"compression": "tiff_adobe_deflate", "tiffinfo": {317: 2}}),
    "GIF": ("GIF", "P", {}),
    "AVIF": ("AVIF", "RGB", {}),
    "BMP": ("BMP", "RGB", {}),
}
LARGE = {"JPEG": {"quality": 90}, "PNG": {"compress_level": 3}, "WebP": {"quality": 80}}
LARGE_SIZES = ((4000, 3000), (6000, 4000))
N_LARGE = 2
TURNED = ("TIFF", "BMP")  # read so fast that a few images are not enough for one round
PEERS = ("opencv", "polars-cv")
PACKAGES = ("pillow", "isal", "opencv-contrib-python-headless", "polars-cv")

sys.path.insert(0, str(ROOT / "tests" / "support"))
from oddities import KINDS, KNOWN, READ, odd_files  # noqa: E402
from tiff_writer import Spec, blocks, file_of, tags_of  # noqa: E402


def table() -> str:
    """Return the table of docs/formats.md, in Markdown."""
    distances = _distances()
    rows = []
    for class_, known in KNOWN.items():
        here = "other pixels" if known.here == known.opencv else known.here
        rows.append([class_, known.opencv, here, _bits(distances[class_]), known.why])
    return markdown_table(["class of file", "OpenCV 5", "here", "bits that differ: bmh1 / phash", "why"], rows)


def _distances() -> dict[str, list[tuple[int, int]]]:
    found: dict[str, list[tuple[int, int]]] = {class_: [] for class_ in KNOWN}
    for kind in KINDS:
        for seed in SEEDS:
            for class_, _, data in odd_files(kind, seed, *SIZE):
                known = KNOWN.get(class_)
                if known is not None and known.opencv == known.here == READ:
                    distance = _distance(data)
                    if distance is not None:
                        found[class_].append(distance)
    return found


def _distance(data: bytes) -> tuple[int, int] | None:
    ours = imgmatch_df.visual_hash(pl.DataFrame({"x": [data]}), "x").row(0, named=True)
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if ours["status"] != "ok" or pixels is None:
        return None
    pixels = np.clip(pixels, 0, 255).astype(np.uint8)
    bmh1 = cv2.img_hash.BlockMeanHash_create(1).compute(pixels).tobytes()
    phash = int.from_bytes(cv2.img_hash.PHash_create().compute(pixels).tobytes(), "big")
    bits = sum((a ^ b).bit_count() for a, b in zip(ours["bmh1"], bmh1, strict=True))
    return bits, (ours["phash"] ^ phash).bit_count()


def _bits(distances: list[tuple[int, int]]) -> str:
    if not distances:
        return ""
    middle, most = ([f(kind) for kind in zip(*distances, strict=True)] for f in (median, max))
    return f"median {middle[0]:.0f} / {middle[1]:.0f}, at most {most[0]} / {most[1]}"


def _write_tiles(image: Image.Image, _: str, tile: tuple[int, int]) -> bytes:
    """Return an RGB image as a TIFF of tiles, which Pillow does not write."""
    spec = Spec(2, 8, 3, tile=tile)
    return file_of(spec, blocks(spec, np.asarray(image))[0], tags_of(spec, *image.size))


def speed_table(photos: ImageSet, n_rounds: int) -> str:
    """Return the table of the speed of each format, in Markdown: all contenders in one run, per format."""
    rows = []
    cpus = allowed_cpus()[:2]
    pin(cpus)
    with (
        tempfile.TemporaryDirectory() as folder,
        Arena(str(Path(__file__).with_name("hashing.py")), CONTENDERS) as arena,
    ):
        bench = Bench(Path(folder), cpus, arena, quick=False)
        for label, (format_, mode, options) in FORMATS.items():
            bench.say(label)
            images = [Image.open(io.BytesIO(data)).convert(mode) for data in photos.data]
            write = _write_tiles if "tile" in options else encode
            if format_ in TURNED:
                images += [image.transpose(turn) for image in images for turn in Image.Transpose]
            data = bench.save([write(image, format_, **options) for image in images])
            timings = arena.race(dict.fromkeys(("full", *PEERS), cpus), data, limit="full", n_rounds=n_rounds)
            cells = [f"{len(images) / median(timings['full'].seconds):,.0f}"]
            for name in PEERS:
                if timings[name].failure is not None:
                    cells += ["not read", ""]
                    continue
                faster = 1 / median(timings[name].to_limit)  # in the same rounds
                cells += [f"{len(images) / median(timings[name].seconds):,.0f}", f"{faster:.2f}"]
            rows.append([label, *cells])
    header = [
        "format",
        "imgmatch-df, bmh1 + phash",
        "OpenCV, bmh1 + phash",
        "faster by",
        "polars-cv, phash",
        "faster by",
    ]
    what = photos.describe()
    machine = describe_machine(len(cpus), ("imgmatch-df", *PACKAGES))
    return (
        f"{markdown_table(header, rows)}\n\nImages a second. {what}, written by Pillow in each format, except "
        f"tiles. {' and '.join(TURNED)}: in all 8 turns, so that a round takes 0.05 s. {len(cpus)} threads, "
        f"{n_rounds} rounds, encoded images in memory. {machine}"
    )


def large_table(photos: ImageSet, n_rounds: int) -> str:
    """Return the table of the speed of large images, read in full and scaled, in Markdown."""
    rows = []
    cpus = allowed_cpus()[:2]
    pin(cpus)
    names = ("scaled", "full", "polars-cv-thumbnail")
    with (
        tempfile.TemporaryDirectory() as folder,
        Arena(str(Path(__file__).with_name("hashing.py")), CONTENDERS) as arena,
    ):
        bench = Bench(Path(folder), cpus, arena, quick=False)
        for size in LARGE_SIZES:
            images = [Image.open(io.BytesIO(data)).convert("RGB").resize(size) for data in photos.data[:N_LARGE]]
            for label, options in LARGE.items():
                bench.say(f"{label} of {size[0]} x {size[1]}")
                data = bench.save([encode(image, label.upper(), **options) for image in images])
                timings = arena.race(dict.fromkeys(names, cpus), data, limit="scaled", n_rounds=n_rounds)
                cells = [f"{len(images) / median(timings[name].seconds):,.1f}" for name in names]
                faster = 1 / median(timings["polars-cv-thumbnail"].to_limit)  # in the same rounds
                rows.append([f"{label}, {size[0] * size[1] // 1_000_000} megapixels", *cells, f"{faster:.2f}"])
    header = ["images", '`decode="scaled"`', '`decode="full"`', "polars-cv, `thumbnail(64)`", "scaled is faster by"]
    machine = describe_machine(len(cpus), ("imgmatch-df", *PACKAGES))
    return (
        f"{markdown_table(header, rows)}\n\nImages a second: bmh1 and phash here, phash alone by polars-cv. {N_LARGE} "
        f"enlarged photos, {len(cpus)} threads, {n_rounds} rounds, encoded images in memory. {machine}"
    )


def main() -> None:
    """Print, and with ``--update-docs`` write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="images for the speeds; drawn ones if none is given")
    parser.add_argument("--speed", action="store_true", help="the table of the speed")
    parser.add_argument("--large", action="store_true", help="the table of the speed of large images")
    parser.add_argument("--quick", action="store_true", help="fewer images and rounds for --speed: rough")
    parser.add_argument("--update-docs", action="store_true")
    arguments = parser.parse_args()
    if arguments.speed or arguments.large:
        photos = draw_photos(12) if arguments.folder is None else read_folder(arguments.folder)
    if arguments.large:
        text = large_table(photos, 3 if arguments.quick else 5)
        print(text)
        if arguments.update_docs:
            replace_between(FIGURES, "formats-large", text)
        return
    if arguments.speed:
        photos = photos._replace(data=photos.data[: 12 if arguments.quick else 80])
        text = speed_table(photos, 3 if arguments.quick else 5)
        print(text)
        if arguments.update_docs:
            replace_between(FIGURES, "formats-speed", text)
        return
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    text = table()
    print(text)
    if arguments.update_docs:
        replace_between(PAGE, "formats", text)


if __name__ == "__main__":
    main()
