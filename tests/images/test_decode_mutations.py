"""Thousands of broken files of every format: no crash, no hang, no leak, no warning, a status for each."""

import random
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from drawing import FORMATS, every_file

from imgmatch_df.columns import STATUSES
from imgmatch_df.errors import Failure
from imgmatch_df.images import decode, formats
from imgmatch_df.images.decode import decode_image
from imgmatch_df.images.guard import DecodedImage
from imgmatch_df.images.jpeg import read_segments
from imgmatch_df.options import Options

OPTIONS = Options(max_pixels=4_000_000)  # so that a header gone wrong costs no seconds
SIZES = ((67, 45), (33, 17))
NASTY = (
    b"\xff\xff\xff\xff",
    b"\0\0\0\0",
    b"\xff\xff\xff\x7f",
    b"\x7f\xff\xff\xff",
    b"\0\0\1\0",
    b"\xff\xd9",
    b"\xff\xd8",
)


def mutate(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Return `data` with a few bits flipped, cut, or with parts of itself or of `other` in the wrong place."""
    out = bytearray(data)
    head = min(len(out), rng.choice((16, 64, 700, len(out))))
    at = rng.randrange(head)
    match rng.randrange(9):
        case 0:
            for _ in range(rng.randint(1, 4)):
                out[rng.randrange(head)] ^= 1 << rng.randrange(8)
        case 1:
            del out[rng.randrange(len(out)) :]
        case 2:
            for _ in range(rng.randint(1, 3)):
                out[rng.randrange(head)] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
        case 3:
            out[rng.randrange(len(out)) :] = rng.randbytes(rng.randint(1, 60))
        case 4:
            del out[at : at + rng.randint(1, 30)]
        case 5:
            out[at:at] = rng.choice((*NASTY, rng.randbytes(rng.randint(1, 5))))
        case 6:
            out = out[:at] + other[rng.randrange(len(other)) :]
        case 7:
            nasty = rng.choice(NASTY)
            out[at : at + len(nasty)] = nasty
        case 8:
            n_bytes = rng.choice((4, 8, 16, 32))
            out[:n_bytes] = other[:n_bytes]
    return bytes(out)


def corpus(seed: int) -> dict[str, list[bytes]]:
    return {kind: [data for size in SIZES for _, data in every_file(seed, *size, kind=f"{kind}/")] for kind in FORMATS}


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def try_out(seed: int, n_files: int) -> Counter[str]:
    """Decode `n_files` mutated files, every format as often as the others, and count their statuses."""
    rng = random.Random(seed)
    files = corpus(seed)
    statuses: Counter[str] = Counter()
    settled = 0
    for number in range(n_files):
        data = mutate(rng, rng.choice(files[FORMATS[number % len(FORMATS)]]), rng.choice(files[rng.choice(FORMATS)]))
        started = time.process_time()
        result = decode_image(data, OPTIONS)
        assert time.process_time() - started < 5, number
        if isinstance(result, DecodedImage):
            assert result.pixels.dtype == np.uint8
            assert result.width * result.height <= OPTIONS.max_pixels
            stored = result.pixels.shape[:2]
            assert stored == (
                (result.width, result.height) if result.orientation > 4 else (result.height, result.width)
            )
            statuses["ok"] += 1
        else:
            assert isinstance(result, Failure)
            assert result.status in STATUSES
            assert 10 < len(result.detail) < 250
            assert result.detail.isprintable()
            statuses[result.status] += 1
        if number == n_files // 3:
            settled = resident_bytes() if sys.platform == "linux" else 0
    if settled and n_files > 5000:
        assert resident_bytes() - settled < 64 << 20
    return statuses


def test_300_mutated_files():
    assert set(try_out(1, 300)) == {"ok", "decode_failed", "too_many_pixels"}


@pytest.mark.slow
def test_10_000_mutated_files():
    statuses = try_out(2, 10_000)  # `test_fuzz_decoders.py` has more files, and more ways to break them
    assert statuses.total() == 10_000
    assert min(statuses.values()) > 100


def fast_path_keeps_its_promise(seed: int, n_files: int) -> int:
    """Check that what the fast path accepts, Pillow accepts, with the same pixels; return how often it did."""
    rng = random.Random(seed)
    files = corpus(seed)
    jpegs = files["JPEG"] + files["MPO"]
    accepted = 0
    for _ in range(n_files):
        data = mutate(rng, rng.choice(jpegs), rng.choice(jpegs))
        orientation = read_segments(data).orientation
        fast = decode._decode_jpeg(data, OPTIONS, orientation) if data.startswith(b"\xff\xd8\xff") else None
        if fast is None:
            continue
        if isinstance(fast, DecodedImage):
            fast = fast._replace(pixels=fast.pixels.copy())
        slow = formats.decode_with_pillow(data, formats.JPEG, OPTIONS)
        assert fast[1:] == slow[1:]
        if isinstance(fast, DecodedImage):
            assert fast.pixels.shape == slow.pixels.shape
            np.testing.assert_array_equal(fast.pixels[..., :3], slow.pixels[..., :3])
            accepted += 1
    return accepted


def test_fast_path_and_pillow_agree_on_mutated_jpegs():
    assert fast_path_keeps_its_promise(1, 300) > 30


@pytest.mark.slow
def test_fast_path_and_pillow_agree_on_10_000_mutated_jpegs():
    assert fast_path_keeps_its_promise(2, 10_000) > 1000
