"""A folder of drawn photos and their copies: what a report is made of."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from drawing import draw
from PIL import Image, ImageDraw, ImageEnhance

# 2026-01-01, in seconds since 1970; the files are a day apart.
FIRST_DAY = 1_767_225_600


def _marked(image: Image.Image) -> Image.Image:
    image = image.copy()
    ImageDraw.Draw(image).rectangle((20, 15, 90, 45), fill=(240, 240, 240))
    return image


EDITS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "half": lambda image: image.resize((image.width // 2, image.height // 2)),
    "bright": lambda image: ImageEnhance.Brightness(image).enhance(1.3),
    "marked": _marked,
    "cropped": lambda image: image.crop((12, 9, image.width - 4, image.height - 3)),
    "grey": lambda image: image.convert("L"),
}


def draw_album(folder: Path, n_photos: int = 24) -> Path:
    """Draw photos into ``2024/``, ``2025/`` and ``Exports/`` of a folder, and what is no photo; return the folder.

    Every third photo has no copy, the others one to five. Five files are no photos: two are flat, two cannot be read,
    and one is no image.
    """
    for number in range(n_photos):
        photo = Image.fromarray(draw(1000 + number, 240, 180))
        place = folder / ("2024" if number % 2 else "2025")
        _save(photo, place / f"IMG_{number:04}.jpg", quality=92, day=number)
        for at, (edit, change) in enumerate(list(EDITS.items())[: number % 3 * (1 + number % 5)]):
            day = 100 + 10 * number + at
            _save(change(photo), folder / "Exports" / f"{number:04}_{edit}.jpg", quality=60 + 5 * at, day=day)
    _save(Image.new("RGB", (160, 120), (250, 250, 250)), folder / "white.jpg", quality=90, day=700)
    _save(Image.new("RGB", (160, 120), (5, 5, 5)), folder / "2024" / "black.jpg", quality=90, day=701)
    (folder / "2025" / "cut.jpg").write_bytes((folder / "2025" / "IMG_0000.jpg").read_bytes()[:2000])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "notes.txt").write_text("no image")
    return folder


def _save(image: Image.Image, path: Path, *, quality: int, day: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, quality=quality)
    os.utime(path, (FIRST_DAY + 86_400 * day + 0.123457,) * 2)


def draw_noise(seed: int, width: int, height: int) -> Image.Image:
    """Return an image of noise, that is near no other."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))
