"""The images that the benchmarks hash: of a folder or drawn, and larger, smaller and PNG versions of them."""

import io
import statistics
import zlib
from itertools import cycle, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, ImageOps


class ImageSet(NamedTuple):
    """Encoded images, all different, and a phrase that describes them."""

    data: list[bytes]
    what: str

    def describe(self) -> str:
        sizes = list(map(image_size, self.data))
        megapixels = statistics.mean(width * height for width, height in sizes) / 1e6
        kilobytes = statistics.mean(map(len, self.data)) / 1e3
        return f"{len(self.data)} {self.what}, on average {megapixels:.2f} megapixels and {kilobytes:,.0f} KB"

    def about(self, megapixels: float) -> list[bytes]:
        """Return images of about `megapixels` in total, repeated or spread evenly; at least 4."""
        mean = statistics.mean(width * height for width, height in map(image_size, self.data)) / 1e6
        n = max(4, round(megapixels / mean))
        if n < len(self.data):
            return [self.data[i * len(self.data) // n] for i in range(n)]
        return repeated(self.data, n)


def repeated(images: list[bytes], n: int) -> list[bytes]:
    """Return `n` images, which are repeated but differ in a comment: equal bytes would be hashed once."""
    return [_with_comment(image, i // len(images)) for i, image in enumerate(islice(cycle(images), n))]


def _with_comment(encoded: bytes, number: int) -> bytes:
    if number == 0:
        return encoded
    text = b"%08d" % number
    if encoded.startswith(b"\xff\xd8"):
        return b"".join([encoded[:2], b"\xff\xfe", (2 + len(text)).to_bytes(2, "big"), text, encoded[2:]])
    if encoded.startswith(b"\x89PNG"):
        body = b"tEXtComment\0" + text
        chunk = b"".join([(len(body) - 4).to_bytes(4, "big"), body, zlib.crc32(body).to_bytes(4, "big")])
        return b"".join([encoded[:33], chunk, encoded[33:]])
    return encoded + text


def image_size(encoded: bytes) -> tuple[int, int]:
    return Image.open(io.BytesIO(encoded)).size


def read_folder(folder: Path) -> ImageSet:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    paths = [paths[i * len(paths) // 400] for i in range(400)] if len(paths) > 400 else paths
    read = [_as_jpeg(path.read_bytes()) for path in paths]
    data = [encoded for encoded, _ in read if encoded is not None]
    if not data:
        raise SystemExit(f"no image in {folder}")
    n_encoded = sum(was_encoded for _, was_encoded in read)
    return ImageSet(data, "JPEG images" + (f" ({n_encoded} encoded as such here)" if n_encoded else ""))


def _as_jpeg(data: bytes) -> tuple[bytes | None, bool]:
    """Return an image as grey or colour JPEG, which every contender reads, and whether it was encoded here."""
    try:
        image = Image.open(io.BytesIO(data))
        if image.format == "JPEG" and image.mode in ("L", "RGB"):
            simplejpeg.decode_jpeg(data, "BGR")  # raises for a damaged file
            return data, False
        return encode(image.convert("RGB"), "JPEG", quality=90), True
    except (OSError, ValueError, SyntaxError):
        return None, False


def draw_photos(n: int) -> ImageSet:
    """Draw images with the spectrum of photos: 1/f noise, some edges, grain; 500 x 375 JPEG."""
    rng = np.random.default_rng(2)
    y, x = np.mgrid[0:375, 0:500]
    frequency = np.hypot(np.fft.fftfreq(375)[:, None], np.fft.rfftfreq(500)[None]) + 1 / 500
    data = []
    for _ in range(n):
        phases = rng.normal(size=(3, *frequency.shape)) + 1j * rng.normal(size=(3, *frequency.shape))
        phases = 0.8 * phases[:1] + 0.4 * phases  # correlated channels, as in photos
        pixels = np.fft.irfft2(phases / frequency, s=(375, 500))
        pixels *= 45 / pixels.std()
        for _ in range(12):
            cx, cy, rx, ry = rng.uniform(0, [500, 375, 150, 120])
            inside = ((x - cx) / (rx + 4)) ** 2 + ((y - cy) / (ry + 4)) ** 2 < 1
            pixels[:, inside] = 0.5 * pixels[:, inside] + rng.normal(0, 40, (3, 1))
        pixels += rng.normal(0, 6, pixels.shape[1:])
        data.append(encode(Image.fromarray(to_bytes(np.moveaxis(pixels, 0, 2) + 120)), "JPEG", quality=92))
    return ImageSet(data, "drawn 500 x 375 JPEG images")


def enlarge(photos: ImageSet, n: int) -> ImageSet:
    """Make 12-megapixel photos: enlarged, with added grain, because a smooth image decodes faster than a photo."""
    rng = np.random.default_rng(12)
    grain = rng.normal(0, 5, (3000, 4000, 1)).astype(np.int8)
    data = []
    for encoded in islice(cycle(photos.data), n):
        image = Image.open(io.BytesIO(encoded)).convert("RGB").resize((4000, 3000), Image.Resampling.BICUBIC)
        noisy = np.asarray(image).astype(np.int16) + np.roll(grain, int(rng.integers(4000)), axis=1)
        data.append(encode(Image.fromarray(to_bytes(noisy)), "JPEG", quality=90))
    return ImageSet(data, "images enlarged to 4000 x 3000 with grain, JPEG quality 90")


def make_thumbnails(photos: ImageSet) -> ImageSet:
    images = (Image.open(io.BytesIO(encoded)).convert("RGB") for encoded in photos.data)
    data = [encode(ImageOps.fit(image, (200, 200)), "JPEG", quality=85) for image in images]
    return ImageSet(data, "thumbnails of 200 x 200, JPEG quality 85")


def make_pngs(photos: ImageSet) -> ImageSet:
    return ImageSet([encode(Image.open(io.BytesIO(encoded)), "PNG") for encoded in photos.data], "PNG images")


def to_bytes(pixels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    clipped: npt.NDArray[np.uint8] = np.clip(pixels, 0, 255).astype(np.uint8)
    return clipped


def encode(image: Image.Image, format_: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format_, **options)
    return stream.getvalue()
