"""Sample images for the notebooks: photos drawn from a seed, and edited copies of them.

All arithmetic is on integers, so that every machine draws the same pixels. With your own photos, you need
`contact_sheet` only.
"""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps

Colour = tuple[int, ...]
WIDTH, HEIGHT = 480, 360
_TURNED = Image.Exif()
_TURNED[0x0112] = 6  # orientation: stored turned to the left, shown upright


def draw_photo(seed: int) -> Image.Image:
    """Return a photo of one of eight kinds of scenes, drawn from `seed`."""
    dice = random.Random(seed)  # noqa: S311  # dice for drawing
    photo = dice.choice(_SCENES)(dice)
    grain = np.random.default_rng(seed).integers(-5, 6, (2, HEIGHT, WIDTH, 1)).sum(0)
    return Image.fromarray(np.clip(np.asarray(photo) + grain, 0, 255).astype(np.uint8))


def save_photo(photo: Image.Image, path: str | Path) -> None:
    """Save a photo as JPEG, and create its folder."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    photo.save(path, quality=90)


def save_copy(photo: Image.Image, edit: str, stem: str | Path) -> Path:
    """Save an edited copy as ``{stem}_{edit}`` with the suffix of its format, and return its path."""
    make, suffix, options = COPIES[edit]
    path = Path(f"{stem}_{edit}.{suffix}")
    path.parent.mkdir(parents=True, exist_ok=True)
    make(photo).save(path, **options)
    return path


def _noise(photo: Image.Image, amount: int) -> Image.Image:
    noise = np.random.default_rng(0).integers(-amount, amount + 1, (3, HEIGHT, WIDTH, 3)).sum(0)
    return Image.fromarray(np.clip(np.asarray(photo) + noise, 0, 255).astype(np.uint8))


def _crop(photo: Image.Image, percent: int) -> Image.Image:
    x, y = photo.width * percent // 200, photo.height * percent // 200
    return photo.crop((x, y, photo.width - x, photo.height - y))


# Usual edits of a photo: function, suffix, and options of the encoder.
COPIES: dict[str, tuple[Callable[[Image.Image], Image.Image], str, dict[str, Any]]] = {
    "png": (lambda photo: photo, "png", {}),
    "webp": (lambda photo: photo, "webp", {"quality": 70}),
    "turned": (lambda photo: photo.transpose(Image.Transpose.ROTATE_90), "jpg", {"quality": 90, "exif": _TURNED}),
    "half": (lambda photo: photo.reduce(2), "jpg", {"quality": 90}),
    "quarter": (lambda photo: photo.reduce(4), "jpg", {"quality": 90}),
    "jpeg50": (lambda photo: photo, "jpg", {"quality": 50}),
    "jpeg10": (lambda photo: photo, "jpg", {"quality": 10}),
    "grey": (ImageOps.grayscale, "jpg", {"quality": 90}),
    "brighter": (lambda photo: ImageEnhance.Brightness(photo).enhance(1.2), "jpg", {"quality": 90}),
    "contrast": (lambda photo: ImageEnhance.Contrast(photo).enhance(1.3), "jpg", {"quality": 90}),
    "blur": (lambda photo: photo.filter(ImageFilter.GaussianBlur(2)), "jpg", {"quality": 90}),
    "noise": (lambda photo: _noise(photo, 15), "jpg", {"quality": 90}),
    "crop1": (lambda photo: _crop(photo, 1), "jpg", {"quality": 90}),
    "crop5": (lambda photo: _crop(photo, 5), "jpg", {"quality": 90}),
}


def contact_sheet(paths: Sequence[str], captions: Sequence[str] = (), columns: int = 5) -> Image.Image:
    """Return the images side by side, in rows, each above its caption."""
    width, height, text = 152, 114, 18 if captions else 0
    rows = -(-len(paths) // columns)
    sheet = Image.new("RGB", (columns * (width + 8) + 8, rows * (height + text + 8) + 8), "white")
    pen = ImageDraw.Draw(sheet)
    for i, path in enumerate(paths):
        with Image.open(path) as image:
            thumbnail = ImageOps.contain(ImageOps.exif_transpose(image).convert("RGB"), (width, height))
        x, y = 8 + i % columns * (width + 8), 8 + i // columns * (height + text + 8)
        sheet.paste(thumbnail, (x + (width - thumbnail.width) // 2, y + (height - thumbnail.height) // 2))
        if captions:
            pen.text((x + width / 2, y + height + 9), captions[i], (40, 40, 40), anchor="mm", font_size=12)
    return sheet.quantize(64)


# The scenes.


def _colour(dice: random.Random, low: int = 0, high: int = 255) -> Colour:
    return dice.randint(low, high), dice.randint(low, high), dice.randint(low, high)


def _gradient(*colours: Colour) -> Image.Image:
    strip = Image.fromarray(np.array(colours, np.uint8)[:, None, :])
    return strip.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)


def _clouds(dice: random.Random, finest: int = 32) -> Image.Image:
    """Return soft grey noise: random grids, each finer and fainter than the one before."""
    grid, clouds = 3, Image.new("L", (WIDTH, HEIGHT), 128)
    while grid <= finest:
        noise = Image.frombytes("L", (grid, grid), dice.randbytes(grid * grid))
        clouds = Image.blend(clouds, noise.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), 0.6 if grid == 3 else 0.3)
        grid *= 2
    return ImageOps.autocontrast(clouds)


def _disc(pen: ImageDraw.ImageDraw, x: int, y: int, radius: int, fill: Colour) -> None:
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill)


def _sky(dice: random.Random) -> Image.Image:
    top, low = dice.choice([
        ((60, 120, 200), (200, 225, 240)), ((30, 40, 90), (250, 160, 100)), ((120, 140, 160), (205, 210, 215)),
        ((15, 20, 50), (90, 60, 110)), ((90, 170, 220), (250, 240, 210)),
    ])  # fmt: skip
    sky = _gradient(top, low)
    return Image.composite(Image.new("RGB", sky.size, (250, 248, 245)), sky, _clouds(dice).point(lambda v: v * 2 // 5))


def _mountains(dice: random.Random) -> Image.Image:
    image = _sky(dice)
    pen = ImageDraw.Draw(image)
    _disc(pen, dice.randint(40, 440), dice.randint(40, 130), dice.randint(15, 35), (255, 240, 200))
    shade = _colour(dice, 60, 140)
    for layer in range(dice.randint(2, 4)):
        height = 90 + 65 * layer + dice.randint(-20, 40)
        ridge = [
            (x + dice.randint(-12, 12), height + dice.randint(-60, 60) * 2 // (layer + 2))
            for x in range(-20, WIDTH + 60, 40)
        ]
        pen.polygon([(0, HEIGHT), *ridge, (WIDTH, HEIGHT)], tuple(v * (4 - layer) // 4 for v in shade))
    return image


def _city(dice: random.Random) -> Image.Image:
    image = _sky(dice)
    pen = ImageDraw.Draw(image)
    left = -dice.randint(0, 30)
    while left < WIDTH:
        width, top, wall = dice.randint(35, 85), dice.randint(60, 270), _colour(dice, 25, 95)
        pen.rectangle((left, top, left + width, HEIGHT), wall)
        for x in range(left + 6, left + width - 8, 13):
            for y in range(top + 8, HEIGHT, 18):
                pen.rectangle((x, y, x + 7, y + 10), (250, 215, 120) if dice.random() < 0.5 else (15, 20, 35))
        left += width + dice.randint(0, 14)
    return image


def _sea(dice: random.Random) -> Image.Image:
    image, horizon = _sky(dice), dice.randint(130, 230)
    pen = ImageDraw.Draw(image)
    deep = _colour(dice, 10, 110)
    pen.rectangle((0, horizon, WIDTH, HEIGHT), (deep[0] // 2, deep[1], min(255, deep[2] + 60)))
    for _ in range(90):
        x, y = dice.randint(-30, WIDTH), dice.randint(horizon + 4, HEIGHT)
        pen.line((x, y, x + (y - horizon) // 2 + 8, y), (190, 215, 225), 1 + (y - horizon) // 70)
    for _ in range(dice.randint(1, 3)):
        x, y, size = dice.randint(60, 400), dice.randint(horizon + 10, 320), dice.randint(40, 110)
        keel = y + size // 5
        hull = [(x - size // 2, y), (x + size // 2, y), (x + size // 3, keel), (x - size // 3, keel)]
        pen.polygon(hull, _colour(dice, 20, 160))
        pen.polygon([(x, y - size), (x, y - 4), (x + size // 2, y - 4)], (245, 240, 230))
        pen.polygon([(x - 4, y - size * 3 // 4), (x - 4, y - 4), (x - size // 2, y - 4)], _colour(dice, 140, 240))
    return image


def _meadow(dice: random.Random) -> Image.Image:
    image, horizon = _sky(dice), dice.randint(150, 230)
    green = Image.composite(
        _gradient((190, 200, 90), (60, 120, 50)), _gradient((90, 150, 70), (20, 70, 30)), _clouds(dice, 100)
    )
    image.paste(green.crop((0, horizon, WIDTH, HEIGHT)), (0, horizon))
    pen = ImageDraw.Draw(image)
    for y in sorted(dice.randint(horizon, 330) for _ in range(dice.randint(3, 9))):
        x, size, leaf = dice.randint(0, WIDTH), 18 + (y - horizon) // 3, _colour(dice, 20, 120)
        pen.rectangle((x - size // 8, y - size, x + size // 8, y), (80, 55, 35))
        for _ in range(7):
            fill = (leaf[0], leaf[1] + dice.randint(20, 100), leaf[2] // 2)
            _disc(
                pen,
                x + dice.randint(-size, size) // 2,
                y - size * 3 // 2 + dice.randint(-size, size) // 2,
                size // 2,
                fill,
            )
    return image


def _fruit(dice: random.Random) -> Image.Image:
    image, table = _gradient(_colour(dice, 40, 230), _colour(dice, 40, 230)), dice.randint(190, 260)
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, table, WIDTH, HEIGHT), _colour(dice, 60, 170))
    for y in sorted(dice.randint(table - 20, 320) for _ in range(dice.randint(4, 9))):
        x, radius, skin = dice.randint(50, 430), dice.randint(28, 62), _colour(dice, 60, 255)
        pen.ellipse((x - radius, y + radius // 3 * 2, x + radius * 5 // 3, y + radius), (30, 25, 25))
        for step in range(6):
            lighter = tuple(min(255, v * (6 + step) // 9) for v in skin)
            _disc(pen, x - step * radius // 16, y - step * radius // 16, radius - step * radius // 7, lighter)
    return image


def _flowers(dice: random.Random) -> Image.Image:
    image = Image.composite(
        _gradient((70, 110, 50), (20, 60, 30)), _gradient((25, 50, 30), (60, 90, 40)), _clouds(dice)
    )
    pen = ImageDraw.Draw(image)
    for _ in range(dice.randint(2, 8)):
        x, y, size, petal = dice.randint(50, 430), dice.randint(50, 310), dice.randint(25, 70), _colour(dice, 110, 255)
        for i in range(8):
            dx, dy = ((5, 0), (4, 4), (0, 5), (-4, 4), (-5, 0), (-4, -4), (0, -5), (4, -4))[i]
            fill = tuple(v - 12 * (i % 2) for v in petal)
            _disc(pen, x + dx * size // 7, y + dy * size // 7, size // 2, fill)
        _disc(pen, x, y, size // 3, (235, 180, 50))
    return image


def _quilt(dice: random.Random) -> Image.Image:
    across, down = dice.randint(3, 8), dice.randint(3, 6)
    colours = [_colour(dice, 20, 240) for _ in range(dice.randint(3, 6))]
    patches = np.array([dice.choice(colours) for _ in range(across * down)], np.uint8).reshape(down, across, 3)
    image = Image.fromarray(patches).resize((WIDTH, HEIGHT), Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(image)
    for _ in range(dice.randint(2, 9)):
        x, y, size, fill = dice.randint(0, WIDTH), dice.randint(0, HEIGHT), dice.randint(20, 90), dice.choice(colours)
        pen.regular_polygon((x, y, size), dice.choice((3, 4, 6, 40)), dice.randint(0, 90), fill)
    return image


def _still_water(dice: random.Random) -> Image.Image:
    half = dice.choice((_mountains, _city, _meadow))(dice).crop((0, 0, WIDTH, 300)).resize((WIDTH, HEIGHT // 2))
    image = Image.new("RGB", (WIDTH, HEIGHT))
    image.paste(half, (0, 0))
    mirrored = ImageOps.flip(half).filter(ImageFilter.BoxBlur(3))
    image.paste(Image.blend(mirrored, Image.new("RGB", mirrored.size, _colour(dice, 20, 90)), 0.35), (0, HEIGHT // 2))
    return image


_SCENES = (_mountains, _city, _sea, _meadow, _fruit, _flowers, _quilt, _still_water)
