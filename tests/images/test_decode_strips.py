"""Images converted a few rows at a time have the pixels that they have in one piece."""

import contextlib
import io
import lzma
import random
import zlib

import numpy as np
import pyarrow as pa
import pytest
from drawing import FORMATS, draw, every_file
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from tiff_writer import Spec, codecs, combined, file_of, kinds, layouts, lzw, packbits, tags_of, tiff

from imgmatch_df.images import decode, formats, pixels, rows, tiff_streams
from imgmatch_df.images import tiff as tiff_reader
from imgmatch_df.images.alpha import composite
from imgmatch_df.images.decode import decode_image
from imgmatch_df.images.guard import DecodedImage
from imgmatch_df.options import Options

pytestmark = pytest.mark.long

WHITE = Options(alpha="white")


def decoded(data, options):
    result = decode_image(data, options)
    if not isinstance(result, DecodedImage):
        return result
    # The fourth byte has no meaning.
    return result._replace(pixels=result.pixels[..., :3].copy() if result.pixels.ndim == 3 else result.pixels.copy())


def assert_same(got, expected, name):
    if isinstance(expected, DecodedImage):
        np.testing.assert_array_equal(got.pixels, expected.pixels, err_msg=str(name))
        assert got[1:] == expected[1:], name
    else:
        assert got == expected, name


@pytest.fixture
def in_strips(monkeypatch):
    """A function that decodes a file in strips of some bytes."""

    def decode_in_strips(data, options, n_bytes):
        with monkeypatch.context() as patch:
            patch.setattr(pixels, "_WHOLE_BYTES", 0)
            patch.setattr(pixels, "_STRIP_BYTES", n_bytes)
            patch.setattr(rows, "_PIXELS_AT_ONCE", n_bytes // 4)
            patch.setattr(tiff_reader, "_BAND_BYTES", n_bytes)
            patch.setattr(tiff_streams, "_PIECE", n_bytes // 7 + 1)
            return decoded(data, options)

    return decode_in_strips


@pytest.mark.parametrize("options", [Options(), WHITE], ids=["drop", "white"])
@pytest.mark.parametrize("kind", FORMATS)
def test_every_kind_of_file(kind, options, in_strips):
    for name, data in every_file(3, 41, 29, kind=f"{kind}/"):
        expected = decoded(data, options)
        for n_bytes in (1, 900):
            assert_same(in_strips(data, options, n_bytes), expected, name)


def tiffs(seed, n_files):
    rng = random.Random(seed)
    all_kinds, all_layouts = list(kinds()), list(layouts())
    specs = [combined(rng.choice(all_kinds), rng.choice(all_layouts)) for _ in range(n_files)]
    for spec in specs + rng.sample(list(codecs()), n_files // 8):
        yield spec, tiff(spec, seed=rng.randrange(99), width=rng.randint(1, 70), height=rng.randint(1, 50))


@pytest.mark.parametrize(("seed", "n_files"), [(1, 160), pytest.param(2, 700, marks=pytest.mark.slow)])
def test_every_layout_of_tiff(seed, n_files, in_strips):
    n_read = 0
    rng = random.Random(seed)
    for spec, data in tiffs(seed, n_files):
        options = WHITE if rng.random() < 0.4 else Options()
        expected = decoded(data, options)
        n_read += isinstance(expected, DecodedImage)
        assert_same(in_strips(data, options, rng.choice((1, 200, 3000))), expected, spec)
    assert n_read > n_files // 3


@settings(deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**32), st.integers(1, 500))
def test_ink(width, height, seed, at_once):
    ink = np.random.default_rng(seed).integers(0, 256, (height, width, 4), np.uint8)
    wide = ink.astype(int)
    expected = wide[..., 3:] - ((255 - wide[..., :3]) * wide[..., 3:] >> 8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "_PIXELS_AT_ONCE", at_once)
        pixels.ink_to_rgb(ink)
    np.testing.assert_array_equal(ink[..., :3], expected)


def test_ink_of_every_value():
    value, key = np.mgrid[0:256, 0:256].astype(np.uint8)
    ink = np.dstack([value, value, value, key])
    pixels.ink_to_rgb(ink)
    np.testing.assert_array_equal(ink[..., 0], key - ((255 - value.astype(int)) * key >> 8))


@settings(deadline=None)
@given(
    arrays.arrays(np.float32, arrays.array_shapes(min_dims=2, max_dims=2, max_side=20), elements=st.floats(width=32)),
    st.integers(1, 200),
)
def test_floats_are_stretched_from_the_least_of_all_strips(values, n_bytes):
    finite = np.where(np.isfinite(values), values, 0).astype(float)
    span = max(finite.max() - finite.min(), 1e-300)
    expected = np.rint((finite - finite.min()) * (255 / span))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pixels, "_WHOLE_BYTES", 0)
        patch.setattr(pixels, "_STRIP_BYTES", n_bytes)
        patch.setattr(tiff_reader, "_BAND_BYTES", n_bytes)
        np.testing.assert_array_equal(pixels.stored(Image.fromarray(values)), expected)
        spec = Spec(1, 32, 1, 3, rows=3, compression=8)
        bodies = [zlib.compress(values[top : top + 3].tobytes()) for top in range(0, len(values), 3)]
        data = file_of(spec, bodies, tags_of(spec, *values.shape[::-1]))
        np.testing.assert_array_equal(decode_image(data, Options()).pixels, expected)


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 255), st.integers(1, 300), st.sampled_from([1, 3, 4]))
def test_composite(width, height, background, at_once, channels):
    values = draw(width * height + background, width, height, channels).reshape(height, width, channels)
    alpha = draw(height, width, height, 1).reshape(height, width).astype(int)
    expected = values.astype(int)
    expected[..., :3] = (expected[..., :3] * alpha[..., None] + background * (255 - alpha[..., None]) + 127) // 255
    out = values[..., 0].copy() if channels == 1 else values.copy()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows, "_PIXELS_AT_ONCE", at_once)
        composite(out, alpha.astype(np.uint8), background)
    np.testing.assert_array_equal(out.reshape(values.shape), expected)


COMPRESS = {8: zlib.compress, 34925: lzma.compress, 50000: pa.Codec("zstd").compress, 32773: packbits}


def lzw_by_pillow(data):
    out = io.BytesIO()
    pixels = Image.frombytes("L", (len(data), 1), data)
    pixels.save(out, "TIFF", compression="tiff_lzw")
    with Image.open(io.BytesIO(out.getvalue())) as written:
        (offset,), (count,) = written.tag_v2[273], written.tag_v2[279]
    return out.getvalue()[offset : offset + count]


@settings(max_examples=60, deadline=None)
@given(
    st.binary(min_size=1, max_size=300),
    st.integers(1, 200),
    st.lists(st.integers(1, 9000)),
    st.sampled_from((5, *COMPRESS)),
)
def test_a_stream_gives_what_it_is_asked_for(part, times, steps, compression):
    data = part * times
    compressed = np.frombuffer(bytes(COMPRESS.get(compression, lzw_by_pillow)(data)), np.uint8)
    read = tiff_streams.open_stream(compression, compressed)
    got = 0
    for step in steps:
        if got + step > len(data):
            with pytest.raises(ValueError, match=r"its compressed data (end early|are damaged)"):
                read(step)
            break
        assert read(step).tobytes() == data[got : got + step]
        got += step
    cut = tiff_streams.open_stream(compression, compressed[: len(compressed) // 2])
    with pytest.raises(ValueError, match=r"its compressed data (end early|are damaged)"):
        cut(len(data) + 1)


@pytest.mark.parametrize("compression", [5, *COMPRESS])
def test_damaged_streams_fail_or_give_as_many_bytes(compression):
    rng = random.Random(compression)
    data = rng.randbytes(3000) + bytes(9000) + rng.randbytes(300) * 9
    compressed = bytes(COMPRESS.get(compression, lzw_by_pillow)(data))
    for _ in range(300):
        damaged = np.frombuffer(compressed, np.uint8).copy()
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        read = tiff_streams.open_stream(compression, damaged)
        with contextlib.suppress(ValueError):
            assert read is None or len(read(len(data))) == len(data)


def test_old_lzw_is_left_to_libtiff():
    assert tiff_streams.open_stream(5, np.array([0, 1, 2], np.uint8)) is None
    assert tiff_streams.open_stream(7, np.array([0xFF, 0xD8], np.uint8)) is None


@pytest.mark.parametrize("predictor", [1, 2, 3])
@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("order", "<>")
def test_a_predictor_counts_over_whole_tiles(predictor, bits, order, in_strips):
    spec = Spec(1, bits, 1, 3, tile=(16, 16), compression=8, order=order)
    expected = decoded(tiff(spec), Options())
    for n_bytes in (1, 1 << 20):
        assert_same(in_strips(tiff(spec._replace(predictor=predictor)), Options(), n_bytes), expected, spec)


def test_strips_that_share_their_bytes(in_strips):
    spec = Spec(2, 8, 3, rows=3, compression=8)
    expected = decoded(tiff(spec), Options())
    data = tiff(spec, tags={279: (4, [5000] * 8)}) + bytes(5000)
    for n_bytes in (1, 1000, 1 << 20):
        assert_same(in_strips(data, Options(), n_bytes), expected, spec)


@pytest.mark.parametrize("compression", [1, 8])
def test_blocks_of_few_pixels_are_refused(compression):
    tags = {256: (4, [4000]), 257: (4, [4000]), 322: (3, [1]), 323: (3, [1])}
    failure = decode_image(tiff(Spec(compression=compression), tags=tags), Options())
    assert failure.status == "decode_failed"
    assert "16,000,000 tiles of 1x1 pixels" in failure.detail


def test_webp_without_what_is_not_public_in_pillow(monkeypatch):
    for _, data in every_file(1, 40, 30, kind="WEBP/"):
        expected = decoded(data, WHITE)
        with monkeypatch.context() as patch:
            patch.setattr(decode, "PILLOW_FORMATS", [f._replace(load=formats._load) for f in formats.PILLOW_FORMATS])
            assert_same(decoded(data, WHITE), expected, "WebP")


def test_old_lzw_is_read_in_small_strips_alone(monkeypatch):
    data = bytearray(tiff(Spec(1, 16, rows=23, compression=5)))
    offset = data.index(lzw(b"")[:1])  # the code that clears the table comes first
    data[offset : offset + 2] = b"\0\1"
    monkeypatch.setattr(tiff_reader, "_BAND_BYTES", 100)
    assert "damaged" in decode_image(bytes(data), Options()).detail
    monkeypatch.setattr(tiff_reader, "_MAX_OLD_LZW_BYTES", 100)
    assert "LZW of before TIFF 5 in a strip or tiles of 1,702 bytes" in decode_image(bytes(data), Options()).detail


@pytest.mark.parametrize("width", [9_000_000, 30_000_000])
def test_one_row_may_be_as_long_as_an_image(width):
    row = np.arange(width, dtype=np.uint64).astype(np.uint16)
    spec = Spec(2, 16, 3, compression=8)
    body = zlib.compress(np.repeat(row, 3).tobytes(), 1)
    data = file_of(spec, [body], tags_of(spec, width, 1))
    if 6 * width > 64 << 20:
        assert "rows of 180,000,000 bytes" in decode_image(data, Options()).detail
        return
    found = decode_image(data, Options()).pixels[0, :, 2]
    np.testing.assert_array_equal(found, (row.astype(np.uint32) + 128) // 257)
