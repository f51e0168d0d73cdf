"""Kernels that read bytes of image files one after another, against slow and obvious readers in Python."""

import re
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgmatch_df.images.kernels import codecs
from imgmatch_df.images.kernels.codecs import as_bytes

pytestmark = pytest.mark.long

COMMENT = re.compile(rb"#[^\r\n]*")


def values_of(text, n_values, largest):
    """Return up to `n_values` numbers of plain text: all digits, and one byte behind them that does not count."""
    text, values, at = COMMENT.sub(b" ", text), [], 0
    while len(values) < n_values:
        found = re.compile(rb"\s*(\d+)[^\d]").match(text, at)
        if found is None:
            break
        value = min(int(found[1]), largest)
        values.append(value >> 8 if largest > 255 else value * 255 // largest)
        at = found.end()
    return values


TEXT = st.lists(
    st.one_of(
        st.integers(0, 70_000).map(lambda value: b"%d" % value),
        st.sampled_from(
            [b" ", b"\n", b"\t", b"\r", b"\f", b"\v", b"#", b"# 7\n", b"#\r", b"x", b"-1", b"0" * 12, b"9" * 40]
        ),
    ),
    max_size=30,
).map(b"".join)


@settings(deadline=None, max_examples=400)
@given(TEXT, st.integers(1, 8), st.sampled_from([1, 3]), st.sampled_from([1, 7, 255, 256, 65535]))
def test_values_of_plain_text(text, n_pixels, n_channels, largest):
    out = np.full((n_pixels, n_channels + 1), 77, np.uint8)
    n_values, at = codecs.parse_values(as_bytes(b"P3" + text), 2, largest, n_channels, out)
    expected = values_of(text, n_pixels * n_channels, largest)
    assert out[:, :n_channels].ravel()[:n_values].tolist() == expected
    assert (out[:, n_channels] == 77).all()
    assert at <= len(text) + 2


@settings(deadline=None)
@given(TEXT, st.integers(1, 20))
def test_bits_of_plain_text(text, n_pixels):
    out = np.zeros(n_pixels, np.uint8)
    n_values = codecs.parse_bits(as_bytes(b"P1" + text), 2, out)
    expected = [255 if digit == b"0" else 0 for digit in re.findall(rb"\d", COMMENT.sub(b" ", text))][:n_pixels]
    assert out[:n_values].tolist() == expected


def run_lengths(codes, width, height, has_nibbles, has_lines):
    """Return the indices that `codes` stand for, None where they end too early."""
    indices = bytearray(width * height)
    at = x = y = 0
    while at + 2 <= len(codes) and y < height:
        count, value = codes[at], codes[at + 1]
        at += 2
        if count or value > 2:
            stored = bytes([value]) * 255
            if not count:
                n_bytes = (value + 1) // 2 if has_nibbles else value
                stored = codes[at : at + n_bytes]
                if len(stored) < n_bytes:
                    return None
                at += n_bytes + n_bytes % 2
            run = b"".join(bytes([byte >> 4, byte & 15]) for byte in stored) if has_nibbles else stored
            start = y * width + x
            n_kept = min(count or value, width - x if has_lines else len(indices) - start)
            if n_kept > 0:
                indices[start : start + n_kept] = run[:n_kept]
            x += count or value
            if has_lines and x >= 2 * width and y == 0:
                return None
        elif value == 0:
            x, y = 0, y + 1
        elif value == 1:
            return indices
        elif at + 2 <= len(codes):
            x, y, at = x + codes[at], y + codes[at + 1], at + 2
    return indices if (y, x) >= (height - 1, width) or (not has_lines and x >= len(indices)) else None


CODES = st.lists(
    st.one_of(
        st.sampled_from([b"\0\0", b"\0\1", b"\0\2\1\0", b"\0\2\0\1", b"\0\2\3\2", b"\0"]),
        st.tuples(st.integers(1, 9), st.integers(0, 255)).map(bytes),
        st.binary(min_size=3, max_size=9).map(lambda body: bytes([0, len(body)]) + body + bytes(len(body) % 2)),
    ),
    max_size=20,
).map(b"".join)


@settings(deadline=None, max_examples=600)
@given(CODES, st.integers(1, 9), st.integers(1, 5), st.booleans(), st.booleans())
def test_run_lengths(codes, width, height, has_nibbles, has_lines):
    frame = np.full((height + 2, width), 77, np.uint8)
    is_whole = codecs.decode_run_lengths(as_bytes(b"BM" + codes), 2, has_nibbles, has_lines, frame[1:-1])
    expected = run_lengths(codes, width, height, has_nibbles, has_lines)
    assert is_whole == (expected is not None)
    if is_whole:
        assert frame[1:-1].tobytes() == expected
    assert (frame[[0, -1]] == 77).all()


@pytest.mark.parametrize("top_down", [True, False])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint32])
def test_look_up(top_down, dtype):
    rng = np.random.default_rng(1)
    rows, table = rng.integers(0, 256, (7, 12), np.uint8), rng.integers(0, 256, 256).astype(dtype)
    out = np.zeros((7, 9), dtype)
    codecs.look_up(as_bytes(rows.tobytes()).reshape(7, 12), table, top_down, out)
    np.testing.assert_array_equal(out, table[(rows if top_down else rows[::-1])[:, :9]])


def orientation_of(exif):
    """Return what `parse_orientation` should: by `struct`, 0 where the block has none."""
    order = "<" if exif.startswith(b"II") else ">"
    try:
        mark, start = struct.unpack_from(order + "HI", exif, 2)
        (n_entries,) = struct.unpack_from(order + "H", exif, start)
        for at in range(start + 2, start + 2 + 12 * n_entries if mark == 42 else 0, 12):
            tag, _, _, value = struct.unpack_from(order + "HHIH", exif, at)
            if tag == 0x0112:
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 0


@settings(deadline=None, max_examples=400)
@given(st.data(), st.sampled_from(["<", ">"]), st.integers(0, 9))
def test_orientation(data, order, value):
    tags = data.draw(st.lists(st.sampled_from([0x0100, 0x0112, 0x1201, 0x8769]), max_size=4))
    start = data.draw(st.integers(6, 14))
    exif = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, start)
    exif = exif.ljust(start, b"\0") + struct.pack(order + "H", len(tags))
    exif += b"".join(struct.pack(order + "HHIHH", tag, 3, 1, value, 0) for tag in tags)
    block = bytearray(exif[: data.draw(st.integers(0, len(exif)))])
    if block and data.draw(st.booleans()):
        block[data.draw(st.integers(0, len(block) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert codecs.parse_orientation(as_bytes(b"xx" + block + b"xx"), 2, 2 + len(block)) == orientation_of(bytes(block))


SEGMENTS = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from([0xC0, 0xC2, 0xC4, 0xDB, 0xDD, 0xE0, 0xE1, 0xE2, 0xEE, 0xFE]),
            st.sampled_from([b"", b"x", b"JFIF\0" + b"j" * 9, b"Adobe" + b"a" * 9, b"Adobe", bytes(300)]),
        ).map(lambda one: bytes([0xFF, one[0]]) + struct.pack(">H", len(one[1]) + 2) + one[1]),
        st.sampled_from([b"\xff", b"\xff\0", b"j", b"\xff\xd0", b"\xff\x01", b"\xff\xe1\xff\xff"]),
    ),
    max_size=12,
).map(b"".join)


def segments_of(data):
    """Return the segments up to the first scan, and the place of that."""
    at, found = 2, []
    while True:
        start = re.compile(rb"\xff[^\0\xff]", re.DOTALL).search(data, at)
        if start is None or start.start() + 4 > len(data):
            return found, None
        at = start.start()
        marker = data[at + 1]
        if marker == 0xDA:
            return found, at
        is_alone = marker == 1 or 0xD0 <= marker <= 0xD7
        end = at + 2 + (0 if is_alone else max(2, int.from_bytes(data[at + 2 : at + 4], "big")))
        found.append((marker, at, end))
        at = end


def counts(marker, segment):
    if 0xE0 <= marker <= 0xEF:
        names = {0xE0: b"JFIF\0", 0xEE: b"Adobe"}
        return len(segment) >= 16 and segment[4:9] == names.get(marker)
    return len(segment) > 2 and marker != 0xFE


@settings(deadline=None, max_examples=400)
@given(SEGMENTS, st.booleans())
def test_segments_of_a_jpeg(middle, has_scan):
    data = b"\xff\xd8" + middle + (b"\xff\xda\0\x08\1\1\0\0\x3f\0pixels" if has_scan else b"")
    marked, scan = segments_of(data)
    out = np.zeros(len(data), np.uint8)
    n_kept, place = codecs.keep_jpeg_segments(as_bytes(data), out)
    kept = [data[at:end] for marker, at, end in marked if counts(marker, data[at:end])]
    assert out[:n_kept].tobytes() == b"\xff\xd8" + b"".join(kept)
    assert place + 4 > len(data) if scan is None else place == scan
    end, n_segments, n_components, is_progressive, _, height, width = codecs.read_jpeg_segments(as_bytes(data))
    assert (end, n_segments) == (place, len(kept))
    heads = [at for marker, at, _ in marked if marker in (0xC0, 0xC2) and at + 9 < len(data)]
    assert is_progressive == any(data[at + 1] == 0xC2 for at in heads)
    assert n_components == (data[heads[-1] + 9] if heads else 0)
    assert (height, width) == (struct.unpack_from(">HH", data, heads[-1] + 5) if heads else (0, 0))


PIECES = st.lists(
    st.one_of(
        st.sampled_from(
            [b"!\xf9\4abcd\0", b"!\xf9\3abc\0", b"!\xfe\0", b"!\xfe\2ab\1c\0", b"j", b"\0", b"!", b"!\xfe\xff"]
        ),
        st.binary(max_size=3),
    ),
    max_size=10,
).map(b"".join)


@settings(deadline=None, max_examples=300)
@given(PIECES, st.booleans())
def test_first_frame_of_a_gif(middle, has_frame):
    data = bytes(13) + middle + (b"," if has_frame else b"")
    at, control, frame = 13, -1, None
    while (found := re.compile(rb"[!,;]").search(data, at)) is not None and found[0] == b"!":
        at = found.start()
        if data[at + 1 : at + 3] == b"\xf9\4":
            control = at
        at += 2
        while at < len(data) and data[at]:
            at += 1 + data[at]
        at += 1
    frame = found.start() if found is not None and found[0] == b"," else -1
    assert codecs.first_gif_frame(as_bytes(data), 13) == (frame, control)


def chunk(name, body=b""):
    return struct.pack(">I", len(body)) + name + body + b"crc!"


CHUNKS = st.lists(
    st.tuples(
        st.sampled_from([b"IDAT", b"PLTE", b"tRNS", b"eXIf", b"tEXt", b"zzzz", b"ab1d", b"a\xe1bc", b"Abcd"]),
        st.binary(max_size=5),
    ).map(lambda one: chunk(*one)),
    max_size=8,
).map(b"".join)


@settings(deadline=None, max_examples=300)
@given(CHUNKS, st.integers(0, 40))
def test_chunks_of_a_png(body, n_cut):
    data = body[: len(body) - n_cut] if n_cut < len(body) else body
    at = 0
    while at + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        if at + 12 + length > len(data) or not name.isalpha() or name[:1].isupper() or name in (b"tRNS", b"eXIf"):
            break
        at += 12 + length
    assert codecs.skip_png_chunks(as_bytes(data), 0) == at
    bodies = []
    start = at
    while at + 8 <= len(data) and data[at + 4 : at + 8] == b"IDAT":
        (length,) = struct.unpack_from(">I", data, at)
        bodies.append(data[at + 8 : at + 8 + length])
        at += 12 + length
    out = np.zeros(len(data) + 1, np.uint8)
    end, n_chunks, n_bytes = codecs.join_png_pixels(as_bytes(data), start, out)
    assert (end, n_chunks) == (at, len(bodies))
    assert out[: len(b"".join(bodies))].tobytes() == b"".join(bodies)
    assert n_bytes >= len(b"".join(bodies))
