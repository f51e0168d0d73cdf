"""Formats that are read byte by byte, against slow and obvious readers and against OpenCV."""

import struct

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgmatch_df._kernels.codecs import as_bytes, decode_run_lengths, parse_numbers


def numbers(text, n, max_value=65535, one_digit=False, start=0):
    out = np.full(n, 9999, np.uint16)
    return out[: parse_numbers(as_bytes(text), start, max_value, one_digit, out)].tolist()


@settings(deadline=None)
@given(st.lists(st.integers(0, 65535), max_size=20), st.data())
def test_numbers_come_back(values, data):
    gaps = st.lists(st.sampled_from([b" ", b"\n", b"\r\n", b"\t", b"#x 1\n", b"\f#\r"]), min_size=1, max_size=3)
    text = b"".join(b"%d" % value + b"".join(data.draw(gaps)) for value in values)
    assert numbers(text, len(values)) == values
    assert numbers(text, len(values) + 1) == values


def test_numbers_at_the_edges():
    assert numbers(b"1 x 2", 3) == [1]
    assert numbers(b"1 -2", 3) == [1]
    assert numbers(b"1 # no end", 3) == [1]
    assert numbers(b"", 3) == []
    assert numbers(b"10 300 256", 3, max_value=255) == [10, 255, 255]
    assert numbers(b"9" * 1000, 1) == [65535]
    assert numbers(b"101\n0#1\n1", 5, one_digit=True) == [1, 0, 1, 0, 1]
    assert numbers(b"P3 7 8", 2, start=2) == [7, 8]


def bmp(codes, width, height, bits):
    palette = bytes(value for i in range(1 << bits) for value in (i * 7 % 256, i * 31 % 256, i * 3 % 256, 0))
    start = 54 + len(palette)
    head = struct.pack("<2sIHHI", b"BM", start + len(codes), 0, 0, start)
    head += struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, 2 if bits == 4 else 1, len(codes), 0, 0, 0, 0)
    return head + palette + codes, np.frombuffer(palette, np.uint8).reshape(-1, 4)[:, :3]


@st.composite
def run_lengths(draw, bits):
    """A picture of some rows of runs; for OpenCV's reader of RLE4 every row has its end, and none is skipped."""
    width, height = draw(st.integers(1, 20)), draw(st.integers(1, 6))
    codes, y = b"", 0
    while y < height:
        left = width
        while left and draw(st.integers(0, 5)):
            n = draw(st.integers(1, left))
            if n >= 3 and draw(st.booleans()):
                n_data = n if bits == 8 else (n + 1) // 2
                codes += bytes([0, n]) + draw(st.binary(min_size=n_data, max_size=n_data)) + bytes(n_data % 2)
            else:
                codes += bytes([n, draw(st.integers(0, 255))])
            left -= n
        if bits == 8 and left and draw(st.integers(0, 3)) == 0:
            dx, dy = draw(st.integers(0, left)), draw(st.integers(0, height))
            codes += bytes([0, 2, dx, dy])
            y += dy
        codes += b"\0\0"
        y += 1
    return width, height, codes + b"\0\1"


@pytest.mark.parametrize("bits", [4, 8])
def test_run_lengths_are_those_of_opencv(bits):
    @settings(max_examples=300, deadline=None)
    @given(run_lengths(bits))
    def check(drawn):
        width, height, codes = drawn
        data, palette = bmp(codes, width, height, bits)
        expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        out = np.full((height, width), 255, np.uint8)
        is_sound = decode_run_lengths(as_bytes(data), len(data) - len(codes), bits == 4, out)
        assert is_sound == (expected is not None)
        if is_sound:
            np.testing.assert_array_equal(palette[out[::-1]], expected)

    check()


@pytest.mark.parametrize("bits", [4, 8])
@settings(deadline=None)
@given(st.binary(max_size=200), st.integers(1, 9), st.integers(1, 9))
def test_no_codes_write_outside(bits, codes, width, height):
    frame = np.full((height + 2, width), 7, np.uint8)
    decode_run_lengths(as_bytes(codes), 0, bits == 4, frame[1:-1])
    assert (frame[[0, -1]] == 7).all()
