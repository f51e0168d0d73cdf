"""The kinds of ImageHash against the package ImageHash, bit for bit."""

import io
import platform

import imagehash
import numpy as np
import polars as pl
import pytest
from drawing import draw, jpeg
from PIL import Image, ImageOps

import imgmatch_df
from imgmatch_df.hashes import imagehash as imagehash_kernels
from imgmatch_df.hashes.kernels.lanczos import resize
from imgmatch_df.hashes.kinds import KINDS, empty_row, load_kernel
from imgmatch_df.hashes.squares import HashInput, upright

REFERENCES = {
    "imagehash_phash": imagehash.phash,
    "imagehash_dhash": imagehash.dhash,
    "imagehash_ahash": imagehash.average_hash,
    "imagehash_phash16": lambda image: imagehash.phash(image, hash_size=16),
    "imagehash_dhash16": lambda image: imagehash.dhash(image, hash_size=16),
}
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIZES = [
    (1, 1), (1, 2), (2, 1), (1, 7), (9, 1), (3, 5), (8, 9), (9, 8), (16, 17), (31, 33), (32, 32), (64, 64), (63, 65),
    (64, 1000), (257, 255), (400, 500), (1, 3000), (3000, 1),
]  # fmt: skip
# Compilers of other processors may join a multiplication and an addition, which rounds once instead of twice.
NOISE_IS_EQUAL = platform.machine() in {"x86_64", "AMD64"}


def text(kind: str, value: int | bytes) -> str:
    """Return a hash as hexadecimal digits."""
    return f"{value:0{2 * KINDS[kind].n_bytes}x}" if isinstance(value, int) else value.hex()


def hashes(pixels: np.ndarray, orientation: int = 1) -> dict[str, str]:
    image, rows = HashInput(pixels, orientation), empty_row(KINDS[name] for name in REFERENCES)
    for kind, row in rows.items():
        load_kernel(kind)(image, row)
    return {kind.name: text(kind.name, kind.value(row)) for kind, row in rows.items()}


def expected(image: Image.Image) -> dict[str, str]:
    return {kind: str(reference(image)) for kind, reference in REFERENCES.items()}


def pillow(pixels: np.ndarray, orientation: int = 1) -> Image.Image:
    """Return pixels, RGBX or grey, as the image that is seen."""
    image = Image.fromarray(pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels[..., :3]))
    return image.transpose(TURNS[orientation]) if orientation in TURNS else image


@pytest.mark.parametrize("n_channels", [1, 4])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_noise_of_every_size_and_orientation(size, n_channels):
    rng = np.random.default_rng([*size, n_channels])
    pixels = rng.integers(0, 256, (*size, 4) if n_channels == 4 else size, dtype=np.uint8)
    for orientation in range(1, 9):
        assert hashes(pixels, orientation) == expected(pillow(pixels, orientation)), orientation


# One or both sides larger or smaller than the small image, and next to where Pillow changes the order of its passes.
RESIZED = [
    *((1, 1), (1, 40), (40, 1), (8, 8), (9, 8), (8, 9), (16, 17), (7, 200), (200, 7), (64, 63), (63, 64), (65, 64)),
    *((40, 24), (41, 24), (40, 25), (72, 40), (73, 40), (112, 88), (113, 88), (200, 131), (201, 132), (202, 133)),
    *((40, 2000), (2000, 40), (1030, 1500), (2100, 1025)),
]


@pytest.mark.parametrize("side", [(8, 8), (9, 8), (17, 16), (32, 32), (64, 64)], ids=str)
def test_the_resize_is_that_of_pillow(side):
    rng = np.random.default_rng(side)
    for height, width in [*RESIZED, *rng.integers(1, 130, (60, 2))]:
        noise = rng.integers(0, 256, (height, width), np.uint8)
        # Full contrast overshoots, so that sums leave the range of a byte.
        for pixels in (noise, np.where(noise > 127, np.uint8(255), np.uint8(0)), np.full_like(noise, 255)):
            expected_pixels = np.asarray(Image.fromarray(pixels).resize(side, Image.Resampling.LANCZOS))
            assert np.array_equal(resize(pixels, *side), expected_pixels), (height, width)


@pytest.mark.parametrize("seed", range(60))
def test_drawn_images(seed):
    size = np.random.default_rng(seed).integers(8, 300, 2)
    pixels = np.ascontiguousarray(np.dstack([draw(seed, *map(int, size)), np.full(size[::-1], 9, np.uint8)]))
    assert hashes(pixels) == expected(pillow(pixels))


def low_content() -> dict[str, np.ndarray]:
    """Draw images whose coefficients tie: rounding decides their bits."""
    y, x = np.mgrid[0:96, 0:120]
    levels = {
        "ramp": x, "down": y, "diagonal": x + y, "split": x > 59, "stripes": x // 8 % 2, "bars": y // 3 % 2,
        "checkerboard": (x // 6 + y // 6) % 2, "circle": np.hypot(x - 59.5, y - 47.5) < 30,
        "rings": np.rint(100 + 90 * np.sin(np.hypot(x - 59.5, y - 47.5) / 3)) / 255,
    }  # fmt: skip
    images = {f"flat {level}": np.full((40, 30), level, np.uint8) for level in (0, 1, 77, 128, 255)}
    for name, level in levels.items():
        images[name] = np.rint(255 * level / np.max(level)).astype(np.uint8)
    return images


def test_low_content():
    """Where nothing can be seen, phash is the rounding noise of a transform: equal only where its compiler is."""
    for name, pixels in low_content().items():
        ours, theirs = hashes(pixels), expected(pillow(pixels))
        if not NOISE_IS_EQUAL:
            ours = {kind: one for kind, one in ours.items() if "phash" not in kind}
            theirs = {kind: one for kind, one in theirs.items() if "phash" not in kind}
        assert ours == theirs, name


def encoded(image: Image.Image, file_format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, file_format, **options)
    return stream.getvalue()


def files() -> dict[str, bytes]:
    colour = Image.fromarray(draw(3, 150, 110))
    exif = Image.Exif()
    exif[0x112] = 6
    return {
        "JPEG": jpeg(draw(1, 210, 90)),
        "grey JPEG": encoded(colour.convert("L"), "JPEG"),
        "turned JPEG": encoded(colour, "JPEG", exif=exif),
        "PNG": encoded(colour, "PNG"),
        "grey PNG": encoded(colour.convert("L"), "PNG"),
        "grey PNG with alpha": encoded(colour.convert("LA"), "PNG"),
        "PNG with alpha": encoded(colour.convert("RGBA"), "PNG"),
        "palette PNG": encoded(colour.convert("P"), "PNG"),
        "bilevel PNG": encoded(colour.convert("1"), "PNG"),
        "GIF": encoded(colour.convert("P"), "GIF"),
        "WebP": encoded(colour, "WEBP", lossless=True),
        "BMP": encoded(colour, "BMP"),
        "TIFF": encoded(colour, "TIFF"),
    }


@pytest.mark.parametrize("name", files())
def test_files(name):
    """The hashes of a file are those that ImageHash has of the file, turned as EXIF says."""
    data = files()[name]
    found = pl.DataFrame({"image": [data]}).imgmatch.visual_hash("image", hash_types=tuple(REFERENCES))
    with Image.open(io.BytesIO(data)) as image:
        assert {kind: text(kind, found[kind][0]) for kind in REFERENCES} == expected(ImageOps.exif_transpose(image))


def test_bits_are_in_the_order_of_imagehash():
    """So `to_hex` gives `str(hash)`, and `to_bits` the same in binary."""
    data = encoded(Image.fromarray(draw(8)), "PNG")
    found = pl.DataFrame({"image": [data]}).imgmatch.visual_hash("image", hash_types=tuple(REFERENCES))
    for kind, reference in REFERENCES.items():
        wanted = reference(Image.open(io.BytesIO(data)))
        assert found.select(imgmatch_df.to_hex(kind)).item() == str(wanted)
        assert found.select(imgmatch_df.to_bits(kind)).item() == "".join(map(str, wanted.hash.flatten().astype(int)))
        # The verbs take what a program with ImageHash has stored: the text, the array and its nested list.
        for given in ([str(wanted)], wanted.hash[np.newaxis], [wanted.hash.tolist()], [wanted.hash.flatten().tolist()]):
            frame = pl.DataFrame({"mine": pl.Series(given)})
            pairs = frame.imgmatch.match(found, 0, kind, column="mine")
            assert pairs.rows() == [(0, 0, 0)]


def test_constants():
    """What ImageHash 4.3 gives with Pillow 13. Stored hashes are of no use any more where these change."""
    y, x = np.mgrid[0:90, 0:120]
    planes = [x * 7 + y * 3, x * x // 9 + 5 * y, x * y // 11, 0 * x]
    assert hashes(np.dstack([plane % 256 for plane in planes]).astype(np.uint8)) == {
        "imagehash_phash": "811401077efb56bf",
        "imagehash_dhash": "d2d6b42d6dc9db92",
        "imagehash_ahash": "2a52d695b52d6bda",
        "imagehash_phash16": "81c4148901e603997e33f976023805e1ff87e817007f7ff0fe81002f0d7ffff4",
        "imagehash_dhash16": "f12cf13de35de351e650c6d3ceb39ca31ca73dadb9673b47735672d6e69ce6b8",
    }


def test_kinds_share_the_grey_image(monkeypatch):
    image, turned = HashInput(np.zeros((40, 50, 4), np.uint8), 6), []
    monkeypatch.setattr(imagehash_kernels, "upright", lambda *args: turned.append(args) or upright(*args))
    for kind, row in empty_row(KINDS[name] for name in REFERENCES).items():
        load_kernel(kind)(image, row)
    assert len(turned) == 1


def test_pillow_grey():
    image = HashInput(np.zeros((40, 50, 4), np.uint8), 6)
    assert image.pillow_grey() is image.pillow_grey()
    assert (image.pillow_grey().mode, image.pillow_grey().size) == ("L", (40, 50))
