"""The demo: draws images and edited copies of them, hashes them, and finds the copies."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import polars as pl
from PIL import Image, ImageDraw, ImageEnhance

from imgmatch_df.columns import DETAIL, DISTANCE, KEPT, OK, PATH, REPRESENTATIVE_ID, STATUS
from imgmatch_df.errors import ArgumentError
from imgmatch_df.frames.clustering import cluster
from imgmatch_df.frames.expressions import hamming, visual_hash
from imgmatch_df.hashes.kinds import BMH1, PHASH
from imgmatch_df.images.scan import scan_images

if TYPE_CHECKING:
    from rich.console import Console

Plane = npt.NDArray[np.float64]

# Measured on these images: copies are within 16 bits of bmh1, except one of 28 that is shown as missed; different
# images are at least 250 apart.
RADIUS: Final = BMH1.near_radius

# What to type next: the shell's line, then Python's.
_LINES: Final = (
    f"imgmatch remove-duplicates photos --radius {RADIUS} -o kept.parquet",
    "",
    "import imgmatch_df",
    'photos = imgmatch_df.scan_images("photos/")',
    f'kept = imgmatch_df.remove_duplicates(photos, {RADIUS}, source="path").collect()',
)

_MARKER: Final = ".imgmatch-demo"
_WIDTH, _HEIGHT = 480, 360
_ORIENTATION_TAG: Final = 0x0112
_TURN_LEFT: Final = 6  # stored turned to the left, to be shown turned back

_Y, _X = np.mgrid[0:_HEIGHT, 0:_WIDTH].astype(np.float64)


def run_demo(folder: Path, console: "Console") -> None:
    """Draw the images into `folder`, hash them, and show which are copies of which.

    Parameters
    ----------
    folder
        New, empty, or of an earlier demo.
    console
        What to show on.

    Raises
    ------
    ArgumentError
        If `folder` holds anything else, or cannot be written.
    """
    n_drawn = draw_images(folder)
    console.print(
        f"Drew {n_drawn} images into {folder}: some are copies of others, one file is cut off.\n", markup=False
    )
    hashed = visual_hash(scan_images(folder), PATH).collect()
    copies = find_edited(hashed, RADIUS)
    _show_copies(copies, console)
    missed = find_missed(hashed, copies)
    n_hashed = hashed.filter(pl.col(STATUS) == OK).height
    n_alone = n_hashed - copies.height - copies["original"].n_unique() - missed.height
    console.print(f"\n{n_alone} images have no copy.")
    for original, copy, n_bits in missed.iter_rows():
        console.print(
            f"Missed: {copy}, {n_bits} bits from {original}. A cropped image with fine structure can be missed.",
            style="yellow",
            highlight=False,
        )
    _show_failures(hashed.filter(pl.col(STATUS) != OK), console)
    console.print("\nThe same for your images, from the shell or from Python. No file is deleted.\n")
    for line in _LINES:
        console.print(f"    {line}".rstrip(), style="bold", highlight=False, soft_wrap=True)


def draw_images(folder: Path) -> int:
    """Draw the originals, their copies and one file that is cut off; return how many files that are.

    The same images each time. See `run_demo` for `folder`.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()) and not (folder / _MARKER).exists():
            raise ArgumentError(
                f"{str(folder)!r} is not empty, and not from an earlier demo\nHint: --folder names another."
            )
        (folder / _MARKER).touch()
        return _write_images(folder)
    except OSError as error:
        raise ArgumentError(
            f"cannot write into {str(folder)!r}: {error.strerror}\nHint: --folder names another."
        ) from error


def find_edited(hashed: pl.DataFrame, radius: int) -> pl.DataFrame:
    """Return each image that has copies with its copies, nearest first.

    Parameters
    ----------
    hashed
        Columns `path`, `bmh1` and `phash`.
    radius
        Largest distance of a copy in bits of bmh1, inclusive.

    Returns
    -------
    DataFrame
        ``original: String``, ``copy: String``, and the distances in bits ``bmh1: UInt16``, ``phash: UInt16``.
    """
    # "star": a copy of a copy that is farther than the radius from the image is not a copy of it.
    clustered = cluster(hashed, radius, linkage="star", id=PATH)
    originals = hashed.select(pl.col(PATH).alias("original"), pl.col(PHASH.name).alias("of_original"))
    return (
        clustered.filter(~pl.col(KEPT))
        .rename({REPRESENTATIVE_ID: "original", PATH: "copy"})
        .join(originals, on="original")
        .select(
            "original",
            "copy",
            pl.col(DISTANCE).alias(BMH1.name),
            hamming(PHASH.name, pl.col("of_original")).alias(PHASH.name),
        )
        .sort("original", BMH1.name, PHASH.name, "copy")
    )


def find_missed(hashed: pl.DataFrame, copies: pl.DataFrame) -> pl.DataFrame:
    """Return the copies that were drawn and are not among `copies`.

    Returns
    -------
    DataFrame
        ``original: String``, ``copy: String``, ``bmh1: UInt16``.
    """
    drawn = [(f"{name}.jpg", f"{name}_{edit}") for name, (_, edits) in _IMAGES.items() for edit in edits]
    hashes = {Path(path).name: value for path, value in hashed.select(PATH, BMH1.name).iter_rows()}
    found = {Path(path).name for path in copies["copy"]}
    missed = [(*pair, *(hashes[name] for name in pair)) for pair in drawn if pair[1] not in found]
    schema = {"original": pl.String(), "copy": pl.String(), "left": BMH1.dtype, "right": BMH1.dtype}
    pairs = pl.DataFrame(missed, schema, orient="row")
    return pairs.select("original", "copy", hamming("left", pl.col("right")).alias(BMH1.name))


def _show_copies(copies: pl.DataFrame, console: "Console") -> None:
    from rich.table import Column, Table

    grid = Table(
        "image",
        "copy found",
        Column(f"bits of {BMH1.n_bits}\nof bmh1", justify="right"),
        Column(f"bits of {PHASH.n_bits}\nof phash", justify="right"),
        title=f"Copies: images within {RADIUS} bits of each other by bmh1",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    for (original,), group in copies.group_by("original", maintain_order=True):
        name = Path(str(original)).name
        for copy, *distances in group.select("copy", BMH1.name, PHASH.name).iter_rows():
            grid.add_row(name, Path(copy).name, *map(str, distances))
            name = ""
    console.print(grid)


def _show_failures(failed: pl.DataFrame, console: "Console") -> None:
    from rich.text import Text

    for path, status, detail in failed.select(PATH, STATUS, DETAIL).iter_rows():
        console.print(Text(f"Not hashed: {Path(path).name}, {status}: {detail}", "red"))


def _write_images(folder: Path) -> int:
    n_files = 0
    for row, (name, (draw, edits)) in enumerate(_IMAGES.items()):
        image = _photo(draw(np.random.default_rng(row)), row)
        image.save(folder / f"{name}.jpg", quality=92)
        for edit in edits:
            _EDITS[edit](image, folder / f"{name}_{edit}")
        n_files += 1 + len(edits)
    whole = (folder / f"{next(iter(_IMAGES))}.jpg").read_bytes()
    (folder / "cut_off.jpg").write_bytes(whole[: len(whole) // 3])
    return n_files + 1


def _photo(image: Image.Image, seed: int) -> Image.Image:
    """Return `image` with uneven light and the grain of a camera."""
    grain = np.random.default_rng(seed).normal(0, 4, (_HEIGHT, _WIDTH, 1))
    light = 1.05 - 0.2 * np.hypot(_X / _WIDTH - 0.5, _Y / _HEIGHT - 0.5)
    return Image.fromarray(np.clip(np.asarray(image) * light[..., None] + grain, 0, 255).astype(np.uint8))


def _paint(plane: Plane, dark: tuple[int, int, int], light: tuple[int, int, int]) -> Image.Image:
    """Return a plane of values from 0 to 1 as an image between two colours."""
    share = np.clip(plane, 0, 1)[..., None]
    return Image.fromarray((np.array(dark) * (1 - share) + np.array(light) * share).astype(np.uint8))


def _clouds(rng: np.random.Generator, n_octaves: int = 5) -> Plane:
    """Return smooth noise from 0 to 1: random grids, each finer and fainter than the one before."""
    total = np.zeros((_HEIGHT, _WIDTH))
    for octave in range(n_octaves):
        n_cells = 3 * 2**octave
        grid = Image.fromarray(rng.random((n_cells, n_cells), np.float32))
        total += np.asarray(grid.resize((_WIDTH, _HEIGHT), Image.Resampling.BICUBIC), np.float64) / 2**octave
    lowest, highest = total.min(), total.max()
    return np.asarray((total - lowest) / (highest - lowest))


def _harbour(rng: np.random.Generator) -> Image.Image:
    waves = np.sin(_Y / 3 + 2 * np.sin(_X / 40)) * 0.08
    image = _paint(np.where(_Y < 210, 0.5 + _Y / 420, 0.35 + waves), (20, 50, 110), (255, 205, 150))
    pen = ImageDraw.Draw(image)
    pen.ellipse((330, 60, 400, 130), (255, 240, 190))
    pen.polygon([(90, 250), (250, 250), (225, 290), (115, 290)], (90, 30, 25))
    pen.polygon([(165, 70), (165, 240), (250, 240)], (250, 245, 235))
    pen.polygon([(155, 100), (155, 240), (95, 240)], (225, 220, 210))
    for left in rng.integers(0, 440, 7):
        pen.rectangle((left, 190, left + 30, 210), (60, 60, 75))
    return image


def _mountains(rng: np.random.Generator) -> Image.Image:
    image = _paint(1 - _Y / _HEIGHT, (230, 200, 190), (90, 140, 210))
    pen = ImageDraw.Draw(image)
    for shade, base, rise in ((170, 250, 200), (110, 290, 150), (50, 340, 90)):
        steps = np.cumsum(rng.normal(0, 1, 25))
        steps = (steps - steps.min()) / (steps.max() - steps.min())
        ridge = [(20.0 * column, base - rise * step) for column, step in enumerate(steps)]
        pen.polygon([(0.0, 360.0), *ridge, (480.0, 360.0)], (shade - 20, shade, shade + 15))
    return image


def _rings(rng: np.random.Generator) -> Image.Image:
    distance = np.hypot(_X - 200, _Y - 170) + 12 * _clouds(rng)
    return _paint((distance // 38) % 2, (190, 30, 40), (245, 240, 230))


def _chess(rng: np.random.Generator) -> Image.Image:
    depth = 1 / (0.25 + _Y / _HEIGHT)
    board = (np.floor((_X - 240) * depth / 60) + np.floor(9 * depth)) % 2
    return _paint(board * 0.8 + 0.2 * _clouds(rng), (60, 35, 20), (240, 220, 180))


def _letter(rng: np.random.Generator) -> Image.Image:
    image = Image.new("RGB", (_WIDTH, _HEIGHT), (238, 232, 215))
    pen = ImageDraw.Draw(image)
    for line, top in enumerate(range(40, 330, 24)):
        left = 60 if line % 5 else 110
        while left < 420 - 130 * (line % 5 == 4):
            width = int(rng.integers(10, 55))
            pen.rectangle((left, top, left + width, top + 9), (45, 45, 70))
            left += width + 9
    return image


def _sky(rng: np.random.Generator) -> Image.Image:
    return _paint(_clouds(rng), (40, 90, 170), (255, 255, 255))


def _quilt(rng: np.random.Generator) -> Image.Image:
    patches = rng.integers(20, 236, (6, 8, 3)).astype(np.uint8)
    return Image.fromarray(patches).resize((_WIDTH, _HEIGHT), Image.Resampling.NEAREST)


def _flower(rng: np.random.Generator) -> Image.Image:
    angle, distance = np.arctan2(_Y - 190, _X - 270), np.hypot(_Y - 190, _X - 270)
    petals = distance < 95 + 55 * np.cos(7 * angle)
    image = _paint(petals * 0.7 + 0.3 * _clouds(rng), (25, 70, 35), (250, 190, 220))
    ImageDraw.Draw(image).ellipse((235, 155, 305, 225), (220, 160, 30))
    return image


def _city(rng: np.random.Generator) -> Image.Image:
    image = _paint(_Y / _HEIGHT, (10, 12, 35), (70, 50, 90))
    pen = ImageDraw.Draw(image)
    for left in range(0, _WIDTH, 60):
        top = int(rng.integers(40, 260))
        pen.rectangle((left, top, left + 52, 360), (22, 24, 34))
        for x in range(left + 6, left + 46, 12):
            for y in range(top + 8, 350, 16):
                if rng.random() < 0.6:
                    pen.rectangle((x, y, x + 7, y + 9), (250, 220, 120))
    return image


def _zebra(rng: np.random.Generator) -> Image.Image:
    bend = 60 * _clouds(rng, 2) + 25 * np.sin(_Y / 70)
    return _paint(np.sin((_X + bend) / 13) > 0, (20, 20, 22), (235, 232, 225))


def _portrait(rng: np.random.Generator) -> Image.Image:
    image = _paint(_X / _WIDTH * 0.6 + 0.4 * _clouds(rng), (45, 60, 70), (150, 165, 160))
    pen = ImageDraw.Draw(image)
    pen.ellipse((130, 270, 350, 480), (120, 40, 60))
    pen.ellipse((165, 50, 315, 200), (60, 35, 20))
    pen.ellipse((175, 80, 305, 270), (230, 190, 160))
    for left in (200, 255):
        pen.ellipse((left, 150, left + 26, 166), (250, 250, 250))
        pen.ellipse((left + 8, 151, left + 20, 165), (50, 40, 30))
    pen.arc((210, 190, 272, 235), 20, 160, (150, 40, 40), 6)
    return image


def _orchard(rng: np.random.Generator) -> Image.Image:
    image = _paint(0.5 * _clouds(rng), (30, 80, 30), (120, 190, 70))
    pen = ImageDraw.Draw(image)
    for x, y, radius in zip(rng.integers(0, 480, 34), rng.integers(0, 360, 34), rng.integers(14, 34, 34), strict=True):
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), (200 + int(radius), 60 + int(radius), 40))
        pen.ellipse((x - radius // 2, y - radius // 2, x, y), (255, 190, 150))
    return image


def _save_turned(image: Image.Image, path: Path) -> None:
    exif = Image.Exif()
    exif[_ORIENTATION_TAG] = _TURN_LEFT
    image.transpose(Image.Transpose.ROTATE_90).save(path, quality=92, exif=exif)


# Suffix of the name of the image: `_` sorts after `.`, so an image comes before its copies.
_EDITS: Final[dict[str, Callable[[Image.Image, Path], None]]] = {
    "half_size.jpg": lambda image, path: image.resize((_WIDTH // 2, _HEIGHT // 2)).save(path, quality=92),
    "jpeg_quality_20.jpg": lambda image, path: image.save(path, quality=20),
    "black_and_white.jpg": lambda image, path: image.convert("L").save(path, quality=92),
    "brighter.jpg": lambda image, path: ImageEnhance.Brightness(image).enhance(1.15).save(path, quality=92),
    "cropped.jpg": lambda image, path: image.crop((2, 1, _WIDTH - 2, _HEIGHT - 1)).save(path, quality=92),
    "turned_by_exif.jpg": _save_turned,
    "saved_as.png": lambda image, path: image.save(path),
    "saved_as.webp": lambda image, path: image.save(path, quality=80),
}

# How each image is drawn, and which copies are made of it.
_IMAGES: Final[dict[str, tuple[Callable[[np.random.Generator], Image.Image], tuple[str, ...]]]] = {
    "harbour": (_harbour, ("half_size.jpg", "jpeg_quality_20.jpg", "black_and_white.jpg", "cropped.jpg")),
    "mountains": (_mountains, ("brighter.jpg", "turned_by_exif.jpg", "cropped.jpg")),
    "rings": (_rings, ("half_size.jpg", "saved_as.png", "saved_as.webp")),
    "chess": (_chess, ("black_and_white.jpg", "brighter.jpg", "jpeg_quality_20.jpg", "cropped.jpg")),
    "letter": (_letter, ("turned_by_exif.jpg", "saved_as.png", "cropped.jpg")),
    "sky": (_sky, ("half_size.jpg", "jpeg_quality_20.jpg", "saved_as.webp")),
    "quilt": (_quilt, ("black_and_white.jpg", "brighter.jpg", "turned_by_exif.jpg", "cropped.jpg")),
    "flower": (_flower, ("saved_as.png", "turned_by_exif.jpg")),
    "city": (_city, ("half_size.jpg", "jpeg_quality_20.jpg")),
    "zebra": (_zebra, ()),
    "portrait": (_portrait, ()),
    "orchard": (_orchard, ()),
}
