"""The local hash is that of its slow, obvious version at every size, and of the image as it is seen."""

import hashlib
import zlib

import numpy as np
import polars as pl
import pytest
from local_reference import local_hash, luma
from PIL import Image

from imgmatch_df.errors import ColumnError
from imgmatch_df.hashes.local import N_BYTES, hash_image, unpack, unpack_points
from imgmatch_df.hashes.squares import HashInput, upright
from imgmatch_df.turns import EVERY_TURN

pytestmark = pytest.mark.long

# How an upright image is stored for each orientation, so that `upright` gives it back.
STORED = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}
SIZES = [(230, 311), (224, 224), (96, 150), (60, 1000), (1000, 60), (800, 1100), (47, 900), (769, 40), (13, 17)]


def drawn(height, width, seed="picture"):
    """Return rectangles of random grey and colour, a gradient and some noise: uint8 (h, w, 4)."""
    rng = np.random.default_rng(zlib.crc32(f"{seed} {height} {width}".encode()))
    y, x = np.mgrid[:height, :width]
    image = np.stack([x * 120 // width, y * 90 // height, (x + y) * 60 // (height + width), y % 256], -1)
    for _ in range(120):
        top, left = rng.integers(-height // 8, height), rng.integers(-width // 8, width)
        bottom, right = top + rng.integers(1, 3 + height // 4), left + rng.integers(1, 3 + width // 4)
        image[max(0, top) : bottom, max(0, left) : right, :3] += rng.integers(-90, 90, 3)
    return np.clip(image + rng.integers(0, 6, image.shape), 0, 255).astype(np.uint8)


def hashed(pixels, orientation=1):
    out = np.full(N_BYTES, 7, np.uint8)
    hash_image(HashInput(np.ascontiguousarray(pixels), orientation), out)
    return out.tobytes()


def points(value):
    """Return the points of a hash as a set of (hash, x, y, level), and the size of the base image."""
    hashes, places, _, boxes = unpack(np.frombuffer(value, np.uint8)[None])
    return {(int(bits), *map(int, place)) for bits, place in zip(hashes, places, strict=True)}, boxes[0, 4:].tolist()


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_kernel_is_the_slow_version(size):
    assert hashed(drawn(*size)) == local_hash(drawn(*size))


@pytest.mark.parametrize("what", ["noise", "steps", "stripes", "dots"])
def test_the_kernel_is_the_slow_version_where_responses_are_equal(what):
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:224, :200]
    grey = {
        "noise": rng.integers(0, 256, (224, 200)),
        "steps": (y // 16 + x // 16) % 2 * 200,
        "stripes": x // 8 % 2 * 255,
        "dots": np.where((y % 25 < 2) & (x % 25 < 2), 255, 0),
    }[what].astype(np.uint8)
    assert hashed(grey) == local_hash(grey)


def test_every_small_size():
    for height in range(1, 41):
        for width in range(1, 41, 1 if height in (1, 2, 3, 16, 40) else 9):
            value = hashed(drawn(height, width))
            assert len(value) == N_BYTES
            assert min(value[8:10]) >= 48
            assert max(value[8:10]) == 224


@pytest.mark.slow
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (2, 3), (16, 16), (17, 31), (39, 40), (3, 500)], ids=str)
def test_small_sizes_are_those_of_the_slow_version(size):
    assert hashed(drawn(*size)) == local_hash(drawn(*size))


@pytest.mark.parametrize("size", [(1, 20000), (20000, 1), (20000, 7), (9, 8193)], ids=str)
def test_extreme_shapes(size):
    rng = np.random.default_rng(3)
    grey = rng.integers(0, 256, size, np.uint8)
    value = hashed(grey)
    assert value == local_hash(grey)
    assert sorted(value[8:10]) == [48, 224]


@pytest.mark.slow
def test_large_images():
    y, x = np.ogrid[:9000, :7000]
    grey = ((y // 97 * 31 + x // 83 * 57) % 256).astype(np.uint8)
    value = hashed(grey)
    assert value == local_hash(grey)
    assert value[10] == 64
    assert hashed(np.broadcast_to(grey[:, :, None], (9000, 7000, 4))) == value


@pytest.mark.parametrize("size", [(300, 401), (1001, 775), (90, 31), (1539, 2306)], ids=str)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(size, orientation):
    pixels = drawn(*size)
    framed = np.pad(pixels, ((31, 12), (7, 0), (0, 0)))
    for image in (pixels, framed):
        stored = upright(image, STORED[orientation])
        assert hashed(stored, orientation) == hashed(image)


def test_grey_is_equal_colour():
    grey = luma(drawn(150, 260))
    assert hashed(np.dstack([grey] * 4)) == hashed(grey)


def test_grey_is_that_of_pillow():
    pixels = np.random.default_rng(1).integers(0, 256, (200, 220, 4), np.uint8)
    grey = np.asarray(Image.fromarray(pixels[:, :, :3]).convert("L"))
    assert np.array_equal(luma(pixels), grey)
    assert hashed(pixels) == hashed(grey)


@pytest.mark.parametrize("tone", [0, 1, 128, 255])
@pytest.mark.parametrize("size", [(1, 1), (100, 100), (333, 1500)], ids=str)
def test_a_flat_image_has_no_points(size, tone):
    value = hashed(np.full((*size, 4), tone, np.uint8))
    assert value[10] == 0
    assert not any(value[11:])


def test_straight_edges_have_no_points():
    y, x = np.mgrid[:240, :320]
    for grey in (np.where(x < 150, 20, 220), np.where(y < 90, 255, 0), (x * 255 // 319)):
        assert hashed(grey.astype(np.uint8))[10] == 0


def test_borders_are_trimmed():
    pixels = drawn(400, 500)
    framed = np.pad(pixels, ((60, 20), (100, 50), (0, 0)), constant_values=255)
    value = hashed(framed)
    left, top, right, bottom = (int.from_bytes(value[i : i + 2], "big") for i in range(0, 8, 2))
    assert (left, top) == (round(65535 * 100 / 650), round(65535 * 60 / 480))
    assert (right, bottom) == (round(65535 * 600 / 650), round(65535 * 460 / 480))
    assert value[8:] == hashed(pixels)[8:]


@pytest.mark.parametrize("turn", EVERY_TURN[1:], ids=str)
def test_points_of_the_turned_image_are_turned(turn):
    """Hashes by swapped and inverted bits, places by swapped and mirrored ones; rounding moves a few by one pixel."""
    pixels = drawn(448, 336)
    found, (width, height) = points(hashed(pixels))
    expected = set()
    for bits, x, y, level in found:
        grid = np.array([[bits >> (8 * k + m) & 1 for m in range(8)] for k in range(8)])
        across, down = width, height
        if turn.swaps:
            grid, x, y, across, down = grid.T, y, x, height, width
        grid = grid.copy()
        if turn.reverses_rows:
            grid[1::2] ^= 1
            y = down - y
        if turn.reverses_columns:
            grid[:, 1::2] ^= 1
            x = across - x
        grid[0, 0] = 0
        expected.add((sum(int(bit) << i for i, bit in enumerate(grid.ravel())), x, y, level))
    turned = pixels.swapaxes(0, 1) if turn.swaps else pixels
    turned = turned[:: -1 if turn.reverses_rows else 1, :: -1 if turn.reverses_columns else 1]
    agreeing = sum(
        any(
            bits == other[0] and level == other[3] and max(abs(x - other[1]), abs(y - other[2])) <= 1 for other in found
        )
        for found in [points(hashed(turned))[0]]
        for bits, x, y, level in expected
    )
    assert agreeing >= 0.95 * len(expected)


def test_a_crop_keeps_many_points():
    pixels = drawn(600, 800)
    whole, part = points(hashed(pixels))[0], points(hashed(pixels[60:540, 80:720]))[0]
    near = sum(any((bits ^ other[0]).bit_count() <= 10 for other in part) for bits, *_ in whole)
    strange = points(hashed(drawn(600, 800, "another")))[0]
    far = sum(any((bits ^ other[0]).bit_count() <= 10 for other in strange) for bits, *_ in whole)
    assert near >= 16
    assert far <= 4


# Of `drawn`: changed bits mean that stored hashes are no longer comparable.
GOLDENS = {
    ("colour", 240, 320): "819c7c2be94510bd",
    ("grey", 240, 320): "819c7c2be94510bd",
    ("colour", 500, 375): "684204593b849c03",
    ("colour", 60, 90): "76d9356ce3240d48",
    ("grey", 100, 900): "f8eb08ad1a1d4edf",
    ("colour", 1100, 1500): "d295529f61bd7b53",
    ("colour", 2304, 1728): "1a6e36254423b39d",
    ("grey", 30, 30): "07e985c025addaba",
}


@pytest.mark.parametrize("what", GOLDENS, ids=str)
def test_goldens(what):
    kind, *size = what
    pixels = drawn(*size)
    if kind == "grey":
        pixels = luma(pixels)
    assert hashlib.sha256(hashed(pixels)).hexdigest()[:16] == GOLDENS[what]


def test_unpack():
    values = [hashed(drawn(200, 300)), hashed(np.zeros((9, 9), np.uint8)), hashed(drawn(300, 200, "second"))]
    rows = np.frombuffer(b"".join(values), np.uint8).reshape(3, N_BYTES)
    hashes, places, starts, boxes = unpack(rows)
    assert (hashes.dtype, places.dtype, starts.dtype, boxes.dtype) == (np.uint64, np.uint8, np.int64, np.uint16)
    assert starts.tolist() == [0, values[0][10], values[0][10], values[0][10] + values[2][10]]
    assert len(hashes) == len(places) == starts[-1]
    for i, value in enumerate(values):
        assert boxes[i].tolist() == [0, 0, 65535, 65535, value[8], value[9]]
        for point in range(value[10]):
            record = value[11 * (point + 1) : 11 * (point + 2)]
            assert int(hashes[starts[i] + point]) == int.from_bytes(record[:8], "big")
            assert places[starts[i] + point].tolist() == list(record[8:])
    assert len(unpack(rows[:0])[0]) == 0


def test_unpack_points():
    value = hashed(drawn(200, 300))
    listed = unpack_points(pl.Series("local", [value, None, hashed(np.zeros((9, 9), np.uint8))]))
    struct = pl.Struct({"hash": pl.UInt64, "x": pl.UInt8, "y": pl.UInt8, "level": pl.UInt8})
    assert (listed.name, listed.dtype) == ("local", pl.List(struct))
    hashes, places, _, _ = unpack(np.frombuffer(value, np.uint8)[None])
    first, second, third = listed.to_list()
    assert [tuple(point.values()) for point in first] == [
        (int(bits), *map(int, place)) for bits, place in zip(hashes, places, strict=True)
    ]
    assert second is None
    assert third == []
    for column in (listed[:0].cast(pl.Null), pl.Series("local", [None], pl.Binary), pl.Series("local", [], pl.Binary)):
        assert unpack_points(column).dtype == listed.dtype


def test_unpack_points_of_other_values():
    with pytest.raises(ColumnError, match="holds values of 32 bytes, a local hash has 715"):
        unpack_points(pl.Series("pdq", [bytes(32)]))
