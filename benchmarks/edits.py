"""Edits of an image as people make them: recompressed, resized, recoloured, written over, framed, cropped and turned.

`accuracy.py` measures how many of these copies a hash finds. Each edit draws the same pixels on every run.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from photos import encode, to_bytes
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

Draw = Callable[[Image.Image], Image.Image]
_INK: Final = (20, 20, 20)
_PAPER: Final = (245, 245, 245)


@dataclass(frozen=True)
class Edit:
    """One edit: `draw` takes and returns RGB pixels, which are then encoded as JPEG of this quality."""

    what: str
    draw: Draw
    quality: int = 90

    def copy(self, image: Image.Image) -> bytes:
        """Return the edited copy of an RGB image, encoded."""
        return encode(self.draw(image), "JPEG", quality=self.quality)


def _scaled(width: float, height: float | None = None) -> Draw:
    def draw(image: Image.Image) -> Image.Image:
        size = (image.width * width, image.height * (height or width))
        return image.resize((max(1, round(size[0])), max(1, round(size[1]))), Image.Resampling.BICUBIC)

    return draw


def _noisy(sigma: float) -> Draw:
    def draw(image: Image.Image) -> Image.Image:
        rng = np.random.default_rng(image.width * image.height)
        return Image.fromarray(to_bytes(np.asarray(image) + rng.normal(0, sigma, (image.height, image.width, 3))))

    return draw


def _enhanced(kind: Any, factor: float) -> Draw:
    def draw(image: Image.Image) -> Image.Image:
        enhanced: Image.Image = kind(image).enhance(factor)
        return enhanced

    return draw


def _gamma(exponent: float) -> Draw:
    table = [round(255 * (value / 255) ** exponent) for value in range(256)] * 3
    return lambda image: image.point(table)


def _vignetted(image: Image.Image) -> Image.Image:
    """Darken towards the corners, which keep 30 % of their light."""
    y, x = np.linspace(-1, 1, image.height)[:, None], np.linspace(-1, 1, image.width)
    light = 1 - 0.35 * (x**2 + y**2)
    return Image.fromarray(to_bytes(np.asarray(image) * light[:, :, None]))


def _watermarked(image: Image.Image) -> Image.Image:
    """Write three lines of white over the image, half transparent."""
    mask = Image.new("L", image.size)
    for y in (0.2, 0.5, 0.8):
        _write(mask, "SAMPLE IMAGE", (0.5, y), 0.09, 128)
    return Image.composite(Image.new("RGB", image.size, "white"), image, mask)


def _with_logo(image: Image.Image) -> Image.Image:
    """Draw an opaque badge in the lower right corner: a fifth of the width, a sixth of the height."""
    drawn = image.copy()
    left, top = round(0.77 * image.width), round(0.8 * image.height)
    right, bottom = round(0.97 * image.width), round(0.97 * image.height)
    draw = ImageDraw.Draw(drawn)
    draw.rectangle((left, top, right, bottom), fill=(200, 30, 40))
    draw.ellipse((left, top, max(left, (left + right) // 2), bottom), fill=_PAPER)
    return drawn


def _captioned(image: Image.Image) -> Image.Image:
    """Add a white bar with a line of text above the image, a fifth as high as it."""
    bar = max(1, image.height // 5)
    drawn = Image.new("RGB", (image.width, image.height + bar), "white")
    drawn.paste(image, (0, bar))
    _write(drawn, "when you see it", (0.5, 0.5 * bar / drawn.height), 0.07, _INK)
    return drawn


def _framed(x: float, y: float, colour: str) -> Draw:
    def draw(image: Image.Image) -> Image.Image:
        border = (round(x * image.width), round(y * image.height))
        return ImageOps.expand(image, border, fill=colour)

    return draw


def _cropped(share: float) -> Draw:
    """Cut off `share` of the width and of the height, half of it at each side."""

    def draw(image: Image.Image) -> Image.Image:
        dx, dy = round(share / 2 * image.width), round(share / 2 * image.height)
        return image.crop((dx, dy, max(dx + 1, image.width - dx), max(dy + 1, image.height - dy)))

    return draw


def _rotated(degrees: float) -> Draw:
    return lambda image: image.rotate(degrees, Image.Resampling.BICUBIC)


def _screenshot(image: Image.Image) -> Image.Image:
    """Place the image, three quarters as large, on a page with a title bar, a button and lines of text."""
    page = Image.new("RGB", image.size, _PAPER)
    width, height = image.size
    draw = ImageDraw.Draw(page)
    draw.rectangle((0, 0, width, round(0.07 * height)), fill=(50, 60, 80))
    draw.ellipse((round(0.02 * width), round(0.015 * height), round(0.05 * width), round(0.055 * height)), fill="red")
    small = _scaled(0.75)(image)
    page.paste(small, (round(0.04 * width), round(0.1 * height)))
    for y in (0.88, 0.91, 0.94):
        draw.line((round(0.04 * width), round(y * height), round(0.6 * width), round(y * height)), fill=_INK)
    draw.rectangle((round(0.82 * width), round(0.12 * height), round(0.96 * width), round(0.18 * height)), fill="blue")
    return page


def _combined(image: Image.Image) -> Image.Image:
    small = _scaled(2 / 3)(_cropped(0.01)(image))
    return _enhanced(ImageEnhance.Color, 1.2)(_enhanced(ImageEnhance.Brightness, 1.1)(small))


def _write(image: Image.Image, text: str, place: tuple[float, float], size: float, fill: Any) -> None:
    """Write a line of text centred at `place`; places and sizes are shares of the image."""
    font = ImageFont.load_default(max(4, round(size * image.width)))
    at = (place[0] * image.width, place[1] * image.height)
    ImageDraw.Draw(image).text(at, text, fill=fill, font=font, anchor="mm")


EDITS: Final[dict[str, Edit]] = {
    "jpeg50": Edit("JPEG quality 50", lambda image: image, 50),
    "jpeg10": Edit("JPEG quality 10", lambda image: image, 10),
    "half": Edit("half size", _scaled(0.5)),
    "quarter": Edit("quarter size", _scaled(0.25)),
    "blur2": Edit("Gaussian blur, radius 2", lambda image: image.filter(ImageFilter.GaussianBlur(2))),
    "sharpen": Edit("sharpened", lambda image: image.filter(ImageFilter.UnsharpMask(2, 200, 0))),
    "noise10": Edit("noise, sigma 10", _noisy(10)),
    "noise25": Edit("noise, sigma 25", _noisy(25)),
    "bw": Edit("black and white", lambda image: image.convert("L").convert("RGB")),
    "bright+20": Edit("20 % brighter", _enhanced(ImageEnhance.Brightness, 1.2)),
    "bright-20": Edit("20 % darker", _enhanced(ImageEnhance.Brightness, 0.8)),
    "contrast": Edit("40 % more contrast", _enhanced(ImageEnhance.Contrast, 1.4)),
    "gamma0.5": Edit("gamma 0.5, lighter", _gamma(0.5)),
    "gamma2": Edit("gamma 2, darker", _gamma(2)),
    "saturate": Edit("60 % more saturation", _enhanced(ImageEnhance.Color, 1.6)),
    "vignette": Edit("dark corners", _vignetted),
    "watermark": Edit("three lines of half-transparent text", _watermarked),
    "logo": Edit("a badge in a corner", _with_logo),
    "meme": Edit("a caption bar above", _captioned),
    "letterbox10": Edit("black bars above and below, 10 % each", _framed(0, 0.1, "black")),
    "pad20": Edit("a white frame, 20 % on each side", _framed(0.2, 0.2, "white")),
    "aspect10": Edit("10 % wider", _scaled(1.1, 1)),
    "crop1": Edit("cropped by 1 %", _cropped(0.01)),
    "crop5": Edit("cropped by 5 %", _cropped(0.05)),
    "crop10": Edit("cropped by 10 %", _cropped(0.1)),
    "crop20": Edit("cropped by 20 %", _cropped(0.2)),
    "rotate1": Edit("rotated by 1 degree", _rotated(1)),
    "rotate4": Edit("rotated by 4 degrees", _rotated(4)),
    "flip": Edit("mirrored", ImageOps.mirror),
    "turn90": Edit("a quarter turn", lambda image: image.transpose(Image.Transpose.ROTATE_90)),
    "turn180": Edit("a half turn", lambda image: image.transpose(Image.Transpose.ROTATE_180)),
    "screenshot": Edit("a screenshot of a page that shows it", _screenshot),
    "combo": Edit("cropped by 1 %, two thirds of the size, brighter, more saturation, JPEG 40", _combined, 40),
}
# What no hash of this package finds, or few: the limits of local hashes.
HARDER: Final[dict[str, Edit]] = {
    "crop30": Edit("cropped by 30 %", _cropped(0.3)),
    "crop40": Edit("cropped by 40 %", _cropped(0.4)),
    "crop50": Edit("cropped by 50 %", _cropped(0.5)),
    "aspect25": Edit("25 % narrower", _scaled(0.75, 1)),
    "squash": Edit("squashed to a square", lambda image: image.resize((min(image.size),) * 2)),
    "rotate8": Edit("rotated by 8 degrees", _rotated(8)),
    "rotate15": Edit("rotated by 15 degrees", _rotated(15)),
    "negative": Edit("negative", ImageOps.invert),
}
