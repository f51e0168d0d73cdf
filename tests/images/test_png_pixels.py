"""The fast decoder of PNG reads what Pillow reads, and leaves the rest to it: same pixels, statuses and details."""

import itertools
import struct
import zlib

import cv2
import numpy as np
import pytest
from encoders import png

from imgmatch_df.errors import Failure
from imgmatch_df.images import png_pixels
from imgmatch_df.images.decode import decode_image
from imgmatch_df.images.kernels import filters
from imgmatch_df.images.kernels.codecs import as_bytes
from imgmatch_df.images.png import read_chunks
from imgmatch_df.options import Options

ALPHAS = [Options(alpha=alpha) for alpha in ("drop", "white", "black")]
ALL_FILTERS = (4, 3, 1, 2, 0, 4, 4, 4, 3, 1, 4, 2, 4, 0, 3, 3, 1, 2)


def taken(data: bytes, *, has_alpha: bool = False) -> bool:
    return png_pixels.read_pixels(read_chunks(data), has_alpha=has_alpha) is not None


def outcome(data: bytes, options: Options) -> tuple:
    result = decode_image(data, options)
    if isinstance(result, Failure):
        return tuple(result)
    return (
        result.pixels.shape,
        result.pixels[..., :3].tobytes() if result.pixels.ndim == 3 else result.pixels.tobytes(),
        *result[1:],
    )


def slowly(data: bytes, options: Options) -> tuple:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(png_pixels, "read_pixels", lambda *_, **__: None)
        return outcome(data, options)


def smooth(height: int, width: int, channels: int, bits: int, seed: int = 1) -> np.ndarray:
    """Return samples that are near their neighbours in places, and anything in others."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    base = (np.sin(x / 5) + np.cos(y / 7) + 2)[..., None] / 4 + np.arange(channels) / 9
    noise = rng.random((height, width, channels)) * np.where(x // 8 % 2, 0.02, 1)[..., None]
    return ((base + noise) % 1 * (1 << bits)).astype(np.uint16)


KINDS = {
    **{f"grey, {bits} bits": (1, bits, {}) for bits in (1, 2, 4, 8, 16)},
    **{f"grey with a key, {bits} bits": (1, bits, {"transparency": b"\0\1"}) for bits in (1, 2, 4, 8, 16)},
    **{f"{channels} channels, {bits} bits": (channels, bits, {}) for channels in (2, 3, 4) for bits in (8, 16)},
    "RGB with a key": (3, 8, {"transparency": b"\0\1\0\2\0\3"}),
    "RGB with a key, 16 bits": (3, 16, {"transparency": bytes(6)}),
    "RGB with a damaged key": (3, 8, {"transparency": b"\0"}),
    "RGBA with a key": (4, 8, {"transparency": bytes(6)}),
    "turned": (3, 8, {"orientation": 6}),
    "with a suggested palette": (3, 8, {"chunks": [(b"PLTE", bytes(30))]}),
    **{
        f"palette of {bits} bits": (1, bits, {"palette": np.arange(3 << bits).astype(np.uint8).tobytes()})
        for bits in (1, 2, 4, 8)
    },
    "palette with transparency": (1, 8, {"palette": bytes(range(256)) * 3, "transparency": bytes(range(100, 200))}),
    "palette of 4 bits with transparency": (1, 4, {"palette": bytes(range(48)), "transparency": b"\0\x80"}),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_as_pillow_and_opencv_read_it(name):
    channels, bits, more = KINDS[name]
    for height, width in [(1, 1), (1, 7), (2, 2), (3, 1), (5, 3), (4, 4), (9, 5), (21, 40)]:
        samples = smooth(height, width, channels, bits)
        if channels > 1:
            samples[0, 0, :3] = (1, 2, 3)[: min(3, channels)]  # the key
        for turn in range(0, len(ALL_FILTERS), 5):
            data = png(samples, bits, filters=ALL_FILTERS[turn:] + ALL_FILTERS[:turn], **more)
            assert taken(data)
            for options in ALPHAS:
                assert outcome(data, options) == slowly(data, options)
            ours = decode_image(data, Options()).pixels
            if "orientation" not in more:
                theirs = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
                np.testing.assert_array_equal(np.dstack([ours] * 3) if ours.ndim == 2 else ours[..., :3], theirs)
    key = "a key, 16 bits" in name or name == "grey with a key, 16 bits"
    assert taken(data, has_alpha=True) == (not key)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("kind", range(5))
def test_one_filter_in_all_rows(channels, kind):
    rng = np.random.default_rng(kind)
    samples = rng.integers(0, 256, (13, 50, channels))
    data = png(samples, filters=(kind,))
    assert taken(data)
    assert outcome(data, ALPHAS[1]) == slowly(data, ALPHAS[1])
    assert (decode_image(data, Options()).pixels.reshape(13, 50, -1)[..., :channels] == samples).all()


def test_the_prediction_from_all_neighbours():
    steps = np.array([0, 1, 2, 3, 5, 63, 64, 65, 84, 85, 86, 126, 127, 128, 129, 170, 171, 191, 192, 253, 254, 255])
    triples = np.array([*itertools.product(steps, repeat=3)], np.uint8)  # corner, up, left
    values = np.arange(len(triples), dtype=np.uint8) * 37
    for channels in (3, 4):
        rows = np.zeros((2, 2 * len(triples), channels), np.uint8)
        rows[0, ::2], rows[0, 1::2] = triples[:, :1], triples[:, 1:2]
        rows[1, ::2], rows[1, 1::2] = triples[:, 2:], values[:, None]
        for kind in range(5):
            data = png(rows, filters=(0, kind))
            pixels = decode_image(data, Options()).pixels
            assert (pixels[..., :channels] == rows).all()


def test_strips_and_chunks(monkeypatch):
    samples = smooth(60, 33, 3, 8)
    for chunk_bytes in (1, 7, 100, 1 << 20):
        data = png(samples, filters=ALL_FILTERS, chunk_bytes=chunk_bytes)
        for input_bytes, row_bytes in [(1, 1), (50, 250), (4096, 1000), (1 << 20, 6000), (1 << 20, 6001)]:
            monkeypatch.setattr(png_pixels, "_INPUT_BYTES", input_bytes)
            monkeypatch.setattr(png_pixels, "_ROW_BYTES", row_bytes)
            assert taken(data)
            assert (decode_image(data, Options()).pixels[..., :3] == samples).all()


def replaced(data: bytes, stream: bytes) -> bytes:
    """Return a PNG of one chunk of pixels with another body of it."""
    start = data.index(b"IDAT") - 4
    length = int.from_bytes(data[start : start + 4], "big")
    body = struct.pack(">I", len(stream)) + b"IDAT" + stream + struct.pack(">I", zlib.crc32(b"IDAT" + stream))
    return data[:start] + body + data[start + 12 + length :]


def streams(rows: bytes) -> dict[str, bytes]:
    whole = zlib.compress(rows)
    dictionary = zlib.compressobj(zdict=b"a dictionary")
    raw = zlib.compressobj(wbits=-15)
    return {
        "a byte more than the rows": zlib.compress(rows + b"\0"),
        "a row more": zlib.compress(rows + rows[-91:]),
        "a byte less": zlib.compress(rows[:-1]),
        "a row less": zlib.compress(rows[:-91]),
        "no rows": zlib.compress(b""),
        "nothing": b"",
        "one byte": whole[:1],
        "no checksum": whole[:-4],
        "half a checksum": whole[:-2],
        "a wrong checksum": whole[:-1] + bytes([whole[-1] ^ 1]),
        "bytes after the checksum": whole + b"more",
        "a second stream": whole + whole,
        "a dictionary": dictionary.compress(rows) + dictionary.flush(),
        "no header": raw.compress(rows) + raw.flush(),
        "an invalid header": b"\x78\x9d" + whole[2:],
        "another method": b"\x79\x9a" + whole[2:],
        "a window too large": b"\x88\x1c" + whole[2:],
        "an invalid filter": zlib.compress(b"\5" + rows[1:]),
        "an invalid filter in the last row": zlib.compress(rows[:-91] + b"\xff" + rows[-90:]),
    }


@pytest.mark.parametrize("kind", streams(bytes(91)))
def test_streams_that_pillow_decides(kind):
    samples = smooth(12, 30, 3, 8)
    good = png(samples)
    data = replaced(good, streams(b"".join(b"\0" + row.astype(np.uint8).tobytes() for row in samples))[kind])
    assert not taken(data)
    for options in ALPHAS:
        assert outcome(data, options) == slowly(data, options)
    assert outcome(good, ALPHAS[0])[0] == (12, 30, 4)


def test_a_window_smaller_than_the_distances_is_read_as_before():
    rng = np.random.default_rng(1)
    samples = np.tile(rng.integers(0, 256, (10, 200, 3)), (2, 1, 1))
    stream = bytearray(zlib.compress(b"".join(b"\0" + row.astype(np.uint8).tobytes() for row in samples)))
    stream[0], stream[1] = 0x08, 0x1D
    data = replaced(png(samples), bytes(stream))
    assert outcome(data, ALPHAS[0]) == slowly(data, ALPHAS[0])


UNCOMMON = {
    "interlaced": lambda: png(smooth(9, 9, 3, 8), interlaced=True),
    "an index without a colour": lambda: png(np.full((3, 3), 2), 8, palette=bytes(6)),
    "an index of 4 bits without a colour": lambda: png(np.full((3, 3), 2), 4, palette=bytes(6)),
}


@pytest.mark.parametrize("kind", UNCOMMON)
def test_files_that_pillow_reads(kind):
    data = UNCOMMON[kind]()
    assert not taken(data)
    for options in ALPHAS:
        assert outcome(data, options) == slowly(data, options)


SMALL = {
    "RGB": png(smooth(7, 9, 3, 8), filters=ALL_FILTERS),
    "RGBA in chunks": png(smooth(5, 6, 4, 8), filters=ALL_FILTERS, chunk_bytes=40),
    "palette": png(smooth(6, 9, 1, 4), 4, palette=bytes(range(48)), transparency=b"\0\7", filters=ALL_FILTERS),
    "grey": png(smooth(7, 9, 1, 8), filters=ALL_FILTERS),
}


@pytest.mark.parametrize("name", SMALL)
def test_a_file_cut_after_every_byte(name):
    data = SMALL[name]
    for end in range(len(data)):
        assert outcome(data[:end], ALPHAS[0]) == slowly(data[:end], ALPHAS[0]), end


@pytest.mark.parametrize("name", SMALL)
def test_a_bit_flipped_in_every_byte(name):
    data = SMALL[name]
    for at in range(len(data)):
        for bit in ((at * 5) % 8, (at * 3 + 1) % 8):
            flipped = bytearray(data)
            flipped[at] ^= 1 << bit
            for options in ALPHAS[:2]:
                assert outcome(bytes(flipped), options) == slowly(bytes(flipped), options), (at, bit)


@pytest.mark.parametrize("name", SMALL)
def test_bytes_inserted_and_removed(name):
    data = SMALL[name]
    rng = np.random.default_rng(1)
    for _ in range(200):
        at, n = rng.integers(8, len(data)), rng.integers(1, 9)
        for broken in (data[:at] + rng.bytes(n) + data[at:], data[:at] + data[at + n :]):
            assert outcome(broken, ALPHAS[1]) == slowly(broken, ALPHAS[1])


def test_a_bomb_is_inflated_up_to_the_rows_of_its_header():
    data = replaced(png(smooth(7, 9, 3, 8)), zlib.compress(bytes(200_000_000), 1))
    sizes = []

    class Counting:
        eof, needs_input, unused_data = False, True, b""

        def __init__(self) -> None:
            self._stream = zlib.decompressobj()

        def decompress(self, block: bytes, n_bytes: int) -> bytes:
            sizes.append(n_bytes)
            return self._stream.decompress(block, n_bytes)

    with pytest.raises(png_pixels._UncommonError):
        list(png_pixels._inflate(Counting(), read_chunks(data), 28))
    assert sum(sizes) == 7 * 28 + 1
    assert not taken(data)
    assert outcome(data, ALPHAS[0]) == slowly(data, ALPHAS[0])


def test_without_isal(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "isal", None)
    data = SMALL["RGB"]
    assert not taken(data)
    assert (decode_image(data, Options()).pixels[..., :3] == smooth(7, 9, 3, 8)).all()


@pytest.mark.parametrize("n_channels", [3, 4])
def test_the_kernel_reads_nothing_outside_of_its_rows(n_channels):
    rng = np.random.default_rng(1)
    for width, height in itertools.product((1, 2, 3, 4, 5, 9), (1, 2, 3, 4, 5, 7)):
        n_bytes = 1 + n_channels * width
        data = rng.integers(0, 256, height * n_bytes, np.uint8)
        data[::n_bytes] %= 5
        results = []
        for around in (0, 255):
            held = np.full(len(data) + 128, around, np.uint8)
            held[64:-64] = data
            out = np.full((height + 2, width), 0xABCDEF, np.uint32)
            assert filters.unfilter_pixels(as_bytes(held[64:-64].data), 0, out, n_channels)
            assert (out[height:] == 0xABCDEF).all()
            results.append(out)
        assert (results[0] == results[1]).all()
