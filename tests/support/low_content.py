"""Images with little to see: flat areas, gradients, shapes, logos, icons, pages, forms, windows and charts."""

from collections.abc import Callable
from random import Random

import numpy as np
from PIL import Image, ImageDraw

WIDTH, HEIGHT = 480, 360
INK = (40, 40, 40)


def images(n_each: int = 10) -> dict[str, Image.Image]:
    """Return `n_each` different images of each of ten sorts, by name."""
    return {
        f"{sort.__name__} {number}": sort(Random(f"{sort.__name__} {number}"))
        for sort in SORTS
        for number in range(n_each)
    }


def colour(random: Random, low: int = 0, high: int = 255) -> tuple[int, int, int]:
    return random.randint(low, high), random.randint(low, high), random.randint(low, high)


def blank(fill: tuple[int, int, int] = (255, 255, 255)) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (WIDTH, HEIGHT), fill)
    return image, ImageDraw.Draw(image)


def flat(random: Random) -> Image.Image:
    return blank(colour(random))[0]


def gradient(random: Random) -> Image.Image:
    first, last = np.array(colour(random)), np.array(colour(random))
    angle = random.uniform(0, 2 * np.pi)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    along = x * np.cos(angle) + y * np.sin(angle)
    share = (along - along.min()) / (along.max() - along.min())
    return Image.fromarray((first + share[..., None] * (last - first)).astype(np.uint8))


def split(random: Random) -> Image.Image:
    image, pen = blank(colour(random))
    at = random.uniform(0.2, 0.8)
    box = (0, 0, WIDTH, int(at * HEIGHT)) if random.random() < 0.5 else (0, 0, int(at * WIDTH), HEIGHT)
    pen.rectangle(box, fill=colour(random))
    return image


def shape(random: Random) -> Image.Image:
    image, pen = blank(colour(random, 120))
    x, y, size = random.randint(60, 360), random.randint(60, 260), random.randint(40, 120)
    draw = random.choice([pen.ellipse, pen.rectangle])
    draw((x - size, y - size, x + size, y + size), fill=colour(random, 0, 120))
    return image


def logo(random: Random) -> Image.Image:
    image, pen = blank()
    x, y, size, n_corners = (
        random.randint(120, 360),
        random.randint(100, 220),
        random.randint(40, 90),
        random.randint(3, 9),
    )
    pen.regular_polygon((x, y, size), n_corners, rotation=random.randint(0, 359), fill=colour(random, 0, 200))
    text = "".join(random.choices("ABCDEFGHKLMNOPRSTUVXYZ", k=random.randint(3, 9)))
    pen.text((x - size, y + size + 10), text, fill=INK, font_size=random.randint(20, 48))
    return image


def icon(random: Random) -> Image.Image:
    image, pen = blank(colour(random, 180))
    cells = [(x, y) for x in range(3) for y in range(5) if random.random() < 0.5]
    for x, y in cells:
        for column in (x, 4 - x):
            pen.rectangle((90 + 60 * column, 30 + 60 * y, 149 + 60 * column, 89 + 60 * y), fill=INK)
    return image


def page(random: Random) -> Image.Image:
    image, pen = blank()
    for line in range(random.randint(8, 26)):
        if random.random() < 0.85:
            pen.text((40, 20 + 12 * line), words(random, random.randint(4, 10)), fill=INK, font_size=11)
    return image


def form(random: Random) -> Image.Image:
    image, pen = blank()
    for row in range(random.randint(3, 8)):
        y = 20 + 40 * row
        pen.text((20, y), words(random, 2), fill=INK, font_size=12)
        pen.rectangle((180, y - 4, random.randint(300, 460), y + 20), outline=INK)
    return image


def window(random: Random) -> Image.Image:
    is_dark = random.random() < 0.5
    image, pen = blank((50, 50, 55) if is_dark else (240, 240, 240))
    top, side = random.randint(20, 80), random.randint(40, 300)
    pen.rectangle((0, 0, WIDTH, top), fill=colour(random, 40, 220))
    pen.rectangle((0, top, side, HEIGHT), fill=colour(random, 60, 230))
    for row in range(random.randint(2, 9)):
        pen.text(
            (side + 20, top + 15 + 30 * row), words(random, 5), fill=(230, 230, 230) if is_dark else INK, font_size=12
        )
    return image


def chart(random: Random) -> Image.Image:
    image, pen = blank()
    pen.line((40, 20, 40, 320, 460, 320), fill=INK, width=2)
    n_bars = random.randint(4, 12)
    for bar in range(n_bars):
        x, top = 50 + 400 * bar // n_bars, random.randint(40, 310)
        pen.rectangle((x, top, x + 300 // n_bars, 319), fill=colour(random, 40, 200))
    return image


def words(random: Random, n_words: int) -> str:
    return " ".join("".join(random.choices("aeinorstul", k=random.randint(2, 8))) for _ in range(n_words))


SORTS: list[Callable[[Random], Image.Image]] = [
    flat, gradient, split, shape, logo, icon, page, form, window, chart,
]  # fmt: skip
