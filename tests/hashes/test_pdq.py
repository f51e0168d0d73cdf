"""PDQ is that of pdqhash, bit for bit, at every size and where there is nothing to see."""

import hashlib
import io
import zlib

import numpy as np
import polars as pl
import pytest
from pdq_reference import pdq
from PIL import Image

import imgmatch_df
from imgmatch_df._kernels.importing import numba
from imgmatch_df.hashes.kernels.pdq import _lower_median, hash_pixels
from imgmatch_df.hashes.kernels.tiles import fill_colour
from imgmatch_df.hashes.kinds import PDQ, empty_row
from imgmatch_df.hashes.pdq import hash_image
from imgmatch_df.hashes.squares import HashInput

SIZES = [
    *((1, 1), (4, 300), (5, 5), (300, 5), (6, 64), (63, 63), (64, 64), (65, 127), (128, 129), (129, 257)),
    *((200, 300), (700, 6), (130, 1000)),
]
# Blocks of 16 x 16 pixels and of 256 columns, and windows of 1, 2, 9 and 33, each a little smaller and larger.
EDGES = [(16, 15), (17, 256), (128, 257), (256, 272), (33, 1030), (1040, 31), (5, 4100), (4110, 16), (300, 1153)]


def drawn(what, height, width):
    rng = np.random.default_rng(zlib.crc32(f"{what} {height} {width}".encode()))
    y, x = np.mgrid[:height, :width]
    if what == "noise":
        return rng.integers(0, 256, (height, width, 3), np.uint8)
    if what == "flat":
        return np.full((height, width, 3), rng.integers(0, 256, 3), np.uint8)
    if what == "grey":
        return np.dstack([rng.integers(0, 256, (height, width), np.uint8)] * 3)
    return np.dstack([x * 255 // width, y * 255 // height, (x + y) % 256]).astype(np.uint8)


def hashed(pixels):
    out = np.empty(32, np.uint8)
    quality = hash_pixels(np.ascontiguousarray(pixels), out)
    return out.tobytes(), quality


def rgbx(rgb):
    return np.dstack([rgb, np.full(rgb.shape[:2], 77, np.uint8)])


@pytest.mark.parametrize("what", ["noise", "flat", "grey", "gradient"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_kernel_is_the_reference(what, size):
    rgb = drawn(what, *size)
    assert hashed(rgbx(rgb)) == pdq(rgb)
    if what == "grey":
        assert hashed(rgb[:, :, 0]) == pdq(rgb)


@pytest.mark.parametrize("size", EDGES, ids=str)
def test_the_kernel_is_the_reference_at_edges(size):
    rgb = drawn("noise", *size)
    assert hashed(rgbx(rgb)) == pdq(rgb)
    grey = np.ascontiguousarray(rgb[:, :, 1])
    assert hashed(grey) == pdq(np.dstack([grey] * 3))


@numba.njit
def fill_colours(pixels, tile):
    for block in range(len(tile) // 256):
        fill_colour(tile, 256 * block, pixels, 1024 * block, 64)


def test_the_luma_of_every_colour():
    """The kernel multiplies whole numbers by two parts of 1/1000; the reference adds doubles and rounds once."""
    green, blue = np.indices((256, 256), np.uint8)
    for red in range(256):
        colours = np.dstack([np.full_like(green, red), green, blue, blue])
        tile = np.empty(256 * 256, np.float32)
        fill_colours(colours.reshape(-1), tile)
        luma = (0.299 * red + 0.587 * green + 0.114 * blue).astype(np.float32)
        assert (tile.reshape(-1, 16, 16).swapaxes(1, 2).reshape(256, 256) == luma).all()


def test_the_kernel_is_pdqhash():
    """The digest is that of the hashes and qualities which pdqhash 0.2.8 computes; it has no wheels to compare with."""
    digest = hashlib.sha256()
    for what in ("noise", "flat", "grey", "gradient"):
        for size in SIZES:
            bits, quality = hashed(rgbx(drawn(what, *size)))
            digest.update(bits + bytes([quality]))
    assert digest.hexdigest() == "3fba86cda1dedecb3b0e3bfe0c3da334722229b3155a5f8cec2c0149192feab9"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_hashed_as_it_is_seen(orientation):
    image = Image.fromarray(drawn("noise", 150, 200))
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = io.BytesIO()
    image.save(file, "PNG", exif=exif)
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    seen = np.asarray(image if orientation == 1 else image.transpose(turns[orientation]))
    out = empty_row([PDQ])[PDQ]
    hash_image(HashInput(rgbx(np.asarray(image)), orientation), out)
    assert out.tobytes() == pdq(seen)[0]
    frame = pl.DataFrame({"image": [file.getvalue()]})
    assert frame.select(imgmatch_df.perceptual_hash("image", "pdq")).item() == pdq(seen)[0]
    assert frame.select(pl.col("image").imgmatch.pdq()).item() == pdq(seen)[0]


@numba.njit
def medians(rows):
    out = np.empty(len(rows), np.float32)
    for i in range(len(rows)):
        out[i] = _lower_median(rows[i])
    return out


def test_the_median_is_the_lower_one_in_the_middle():
    rng = np.random.default_rng(31)
    rows = [
        rng.normal(size=(50, 256)),
        rng.integers(-3, 4, (50, 256)) * -0.5,  # ties, and zeros of both signs
        rng.normal(size=(20, 256)) * 10.0 ** rng.integers(-44, 38, (20, 256)),  # with numbers below the normal ones
        np.abs(rng.normal(size=(5, 256))),
        -np.abs(rng.normal(size=(5, 256))),
        np.repeat([[0.0], [-0.0], [3.4e38], [-3.4e38], [1e-45]], 256, axis=1),
        np.tile([[1.0, -1.0], [-0.0, 0.0], [-2.0, -3.0]], 128),
    ]
    values = np.concatenate(rows).astype(np.float32)
    assert np.array_equal(medians(values), np.sort(values, axis=1)[:, 127])
