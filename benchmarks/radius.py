"""Distances of edited copies from their originals and of unrelated photos, to choose a radius by.

python benchmarks/radius.py FOLDER --update-docs
"""

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
from harness import markdown_table, replace_between
from photos import draw_photos, encode, read_folder
from PIL import Image, ImageEnhance, ImageFilter

import imgmatch_df

PAGE = Path(__file__).parent.parent / "docs" / "guide" / "choosing-a-radius.md"
KINDS = ("bmh1", "phash")


def _scaled(factor: float) -> Callable[[Image.Image], bytes]:
    return lambda image: encode(
        image.resize((max(1, int(image.width * factor)), max(1, int(image.height * factor)))), "JPEG", quality=90
    )


def _noisy(sigma: float) -> Callable[[Image.Image], bytes]:
    def edit(image: Image.Image) -> bytes:
        rng = np.random.default_rng(image.width * image.height)
        pixels = np.asarray(image) + rng.normal(0, sigma, (image.height, image.width, 3))
        return encode(Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)), "JPEG", quality=90)

    return edit


def _cropped(share: float) -> Callable[[Image.Image], bytes]:
    def edit(image: Image.Image) -> bytes:
        dx, dy = int(image.width * share / 2), int(image.height * share / 2)
        return encode(image.crop((dx, dy, image.width - dx, image.height - dy)), "JPEG", quality=90)

    return edit


EDITS: dict[str, Callable[[Image.Image], bytes]] = {
    "black-and-white": lambda image: encode(image.convert("L"), "JPEG", quality=90),
    "half size": _scaled(0.5),
    "quarter size": _scaled(0.25),
    "JPEG quality 50": lambda image: encode(image, "JPEG", quality=50),
    "JPEG quality 10": lambda image: encode(image, "JPEG", quality=10),
    "noise, sigma 10": _noisy(10),
    "noise, sigma 25": _noisy(25),
    "blur, radius 2": lambda image: encode(image.filter(ImageFilter.GaussianBlur(2)), "JPEG", quality=90),
    "20 % brighter": lambda image: encode(ImageEnhance.Brightness(image).enhance(1.2), "JPEG", quality=90),
    "1 % cropped": _cropped(0.01),
    "5 % cropped": _cropped(0.05),
}


def main() -> None:
    """Measure, print, and with ``--update-docs`` write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="any folder of images; drawn ones if none is given")
    parser.add_argument("--update-docs", action="store_true")
    arguments = parser.parse_args()
    photos = read_folder(arguments.folder) if arguments.folder else draw_photos(100)
    originals = _hash(photos.data)
    images = [Image.open(io.BytesIO(data)).convert("RGB") for data in photos.data]
    rows = []
    for name, edit in EDITS.items():
        copies = _hash([edit(image) for image in images])
        rows.append([name, *(_spread(copies[kind].imgmatch.hamming(originals[kind])) for kind in KINDS)])
    rows.append(["**unrelated photos**, nearest first", *(_nearest(originals, kind) for kind in KINDS)])
    n_pairs = len(photos.data) * (len(photos.data) - 1) // 2
    table = markdown_table(["bits away from the original: median / 99th percentile", *KINDS], rows)
    note = (
        f"Edited copies of {photos.describe()}. Unrelated: the nearest of their {n_pairs:,} pairs, the nearest "
        f"1 in 1,000 and 1 in 100."
    )
    text = f"{table}\n\n{note}"
    print(text)
    if arguments.update_docs:
        replace_between(PAGE, "radius", text)


def _hash(images: list[bytes]) -> pl.DataFrame:
    return imgmatch_df.visual_hash(pl.DataFrame({"url": images}), on_error="raise").drop("url")


def _spread(distances: pl.Series) -> str:
    return " / ".join(f"{distances.quantile(q, 'higher'):.0f}" for q in (0.5, 0.99))


def _nearest(hashes: pl.DataFrame, kind: str) -> str:
    every = imgmatch_df.near_duplicates(hashes, imgmatch_df.hashes.kinds.KINDS[kind].n_bits, kind)["distance"]
    return " / ".join(f"{every.quantile(q, 'higher'):.0f}" for q in (0, 0.001, 0.01))


if __name__ == "__main__":
    main()
