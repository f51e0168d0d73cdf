"""The fast readers of GIF and of TIFF read what Pillow reads, and leave the rest to it: same pixels, same details."""

import random
import struct
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tiff_writer
from encoders import gif
from mutations import MUTATORS, corpus, mutate
from PIL import Image
from tiff_writer import Spec, file_of, tags_of, tiff

from imgmatch_df.errors import Failure
from imgmatch_df.images import gif as gif_reader
from imgmatch_df.images import tiff as tiff_reader
from imgmatch_df.images.decode import decode_image
from imgmatch_df.images.pixels import SCRATCH, widen
from imgmatch_df.images.tiff_streams import CheckedInflate, UncommonBlockError
from imgmatch_df.options import Options

OPTIONS = [Options(alpha=alpha, max_pixels=1 << 20) for alpha in ("drop", "white", "black")]
PALETTE = np.random.default_rng(5).integers(0, 256, 768, np.uint8).tobytes()


def outcome(data: bytes, options: Options) -> tuple:
    result = decode_image(data, options)
    if isinstance(result, Failure):
        return tuple(result)
    pixels = result.pixels if result.pixels.ndim == 2 else result.pixels[..., :3]
    return pixels.shape, pixels.tobytes(), *result[1:]


def slowly(data: bytes, options: Options) -> tuple:
    def refuse(*_: object) -> None:
        raise UncommonBlockError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gif_reader, "read_indices", lambda *_, **__: None)
        patch.setattr(tiff_reader, "CheckedInflate", refuse)
        return outcome(data, options)


def is_read_fast(data: bytes) -> bool:
    """Return whether a file is read without a decoder of Pillow."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "_getdecoder", lambda *_: pytest.fail("Pillow decodes"))
        try:
            return len(outcome(data, OPTIONS[0])) > 2
        except pytest.fail.Exception:
            return False


def check(data: bytes, *, is_fast: bool | None = None) -> None:
    for options in OPTIONS:
        assert outcome(data, options) == slowly(data, options)
    if is_fast is not None:
        assert is_read_fast(data) is is_fast


# --- GIF -------------------------------------------------------------------------------------------------------------


def codes_of(indices: bytes, n_bits: int, *, has_clear: bool = True, clears: bool = True) -> list[tuple[int, int]]:
    """Return the codes of LZW, each with its number of bits; with `clears`, the table is emptied when it is full."""
    clear = 1 << n_bits
    table = {bytes([i]): i for i in range(clear)}
    n_codes, bits = clear + 2, n_bits + 1
    codes = [(clear, bits)] if has_clear else []
    string = b""
    for index in indices:
        longer = string + bytes([index])
        if longer in table:
            string = longer
            continue
        codes.append((table[string], bits))
        if n_codes < 4096:
            table[longer] = n_codes
            bits = min(12, max(bits, n_codes.bit_length()))
            n_codes += 1
        elif clears:
            codes.append((clear, bits))
            table = {bytes([i]): i for i in range(clear)}
            n_codes, bits = clear + 2, n_bits + 1
        string = bytes([index])
    codes.append((table[string], bits))
    # The reader adds a code for the last one, too.
    return [*codes, (clear + 1, min(12, max(bits, n_codes.bit_length())) if n_codes < 4096 else bits)]


def packed(codes: list[tuple[int, int]]) -> bytes:
    value = n_bits = 0
    for code, bits in codes:
        value |= code << n_bits
        n_bits += bits
    return value.to_bytes(-(-n_bits // 8), "little")


def blocks(data: bytes, length: int = 255) -> bytes:
    parts = [data[at : at + length] for at in range(0, len(data), length)]
    return b"".join(bytes([len(part)]) + part for part in parts) + b"\0"


def gif_of(body: bytes, width: int, height: int, n_bits: int, *, flags: int = 0) -> bytes:
    """Return a GIF with a palette of 256 colours and one frame, whose blocks are `body`."""
    frame = b"\x2c" + struct.pack("<HHHHBB", 0, 0, width, height, flags, n_bits)
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0xF7, 3, 0) + PALETTE + frame + body + b"\x3b"


def noise(width: int, height: int, n_bits: int, seed: int = 1) -> bytes:
    """Return indices, some of them random, some in long runs."""
    rng = np.random.default_rng(seed)
    runs = np.repeat(rng.integers(0, 1 << n_bits, width * height), rng.choice([1, 1, 1, 40], width * height))
    return runs[: width * height].astype(np.uint8).tobytes()


@pytest.mark.parametrize("flags", [0, 0x40])
@pytest.mark.parametrize("clears", [True, False])
@pytest.mark.parametrize("n_bits", range(2, 9))
def test_gif_of_every_depth(n_bits, clears, flags):
    indices = noise(300, 120, n_bits)
    body = blocks(packed(codes_of(indices, n_bits, clears=clears)))
    data = gif_of(body, 300, 120, n_bits, flags=flags)
    check(data, is_fast=True)
    if not flags:
        colours = np.frombuffer(PALETTE, np.uint8).reshape(-1, 3)[np.frombuffer(indices, np.uint8)]
        assert outcome(data, OPTIONS[0])[1] == colours.tobytes()


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (2, 2), (3, 4), (4, 5), (5, 8), (7, 3)])
def test_gif_of_few_pixels(size):
    indices = noise(*size, 2)
    for flags in (0, 0x40):
        check(gif_of(blocks(packed(codes_of(indices, 2))), *size, 2, flags=flags), is_fast=True)


def test_gif_whose_codes_are_strange():
    indices = noise(40, 30, 4)
    codes = codes_of(indices, 4)
    clear, end = 16, 17

    def file(codes: list[tuple[int, int]], n_bits: int = 4, length: int = 255) -> bytes:
        return gif_of(blocks(packed(codes), length), 40, 30, n_bits)

    check(file(codes, length=1), is_fast=True)
    check(file(codes_of(indices, 4, has_clear=False)), is_fast=True)
    check(file([(clear, 5)] * 3 + codes), is_fast=True)
    check(file(codes[:-1]), is_fast=True)  # no end
    check(file([*codes, *codes]), is_fast=True)  # codes after the end
    check(file([(clear, 5), (15, 5), (18, 5), (19, 5), *codes]), is_fast=True)  # codes that are used as they arise
    check(file(codes[:-9]), is_fast=False)  # too few
    check(file([*codes[:50], (end, codes[50][1])]), is_fast=False)
    for code in (clear, end, 18, 19, 30, 31):
        for at in (1, 2, 3, 60):
            check(file([*codes[:at], (code, codes[at][1]), *codes[at:]]))
    for n_bits in (0, 1, 3, 5, 8, 9, 12, 13, 200):
        check(file(codes, n_bits))
    body = blocks(packed(codes))
    for wrong in (body[:-1], body[:-2], body[:80], body[:256] + b"\0" + body[256:], b"\0" + body, b"", b"\0"):
        check(gif_of(wrong, 40, 30, 4))


def test_gif_of_one_long_string():
    for n_bits in (2, 8):
        check(gif_of(blocks(packed(codes_of(bytes(3000 * 300), n_bits))), 3000, 300, n_bits), is_fast=True)


@pytest.mark.parametrize("box", [(0, 0, 31, 22), (5, 3, 20, 10), (5, 3, 26, 19), (5, 3, 40, 10), (5, 3, 4, 40)])
@pytest.mark.parametrize("interlaced", [False, True])
def test_gif_whose_frame_is_not_its_canvas(box, interlaced):
    left, top, width, height = box
    indices = np.frombuffer(noise(width, height, 7), np.uint8).reshape(height, width)
    ramp = bytes(i for i in range(128) for _ in range(3))
    for transparent in (None, 3):
        for palette, local in ((PALETTE[:384], None), (PALETTE[:384], ramp), (ramp, None), (ramp, PALETTE[:384])):
            options = {"background": 7, "local_palette": local, "interlaced": interlaced}
            check(gif([(indices, left, top)], (31, 22), palette, transparent=transparent, **options), is_fast=True)


# --- TIFF ------------------------------------------------------------------------------------------------------------


SAMPLES = (
    *(Spec(), Spec(0), Spec(3), Spec(2, 8, 3), Spec(2, 16, 3)),
    *(Spec(2, 8, 4, extra=(2,)), Spec(2, 8, 4, extra=(1,))),
)
SPECS = [
    spec._replace(compression=compression, predictor=predictor, **shape)
    for spec in (
        Spec(),
        Spec(0),
        Spec(2, 8, 3),
        Spec(2, 8, 4, extra=(2,)),
        Spec(2, 8, 4, extra=(1,)),
        Spec(3),
        Spec(2, 16, 3),
    )
    for compression, predictor in ((8, 1), (8, 2), (32946, 1))
    for shape in ({}, {"rows": 7}, {"tile": (16, 16)})
] + [
    Spec(2, 8, 3, planes=True, compression=8, rows=16),
    Spec(2, 8, 3, fill_order=2, compression=8, rows=7),
    Spec(1, 1, compression=8, rows=7),
    Spec(6, 8, 3, subsampling=(2, 2), compression=8, rows=8),
    Spec(1, 32, 1, 3, compression=8, predictor=3, tile=(16, 16)),
    Spec(2, 8, 3, order=">", big=True, compression=8),
]


def changed(spec: Spec, change: Callable[[bytes], bytes], which: int = 0) -> bytes:
    """Return a file with one of its blocks changed."""
    bodies, more = tiff_writer.blocks(spec, tiff_writer.draw(spec, 0))
    bodies[which] = change(bodies[which])
    return file_of(spec, bodies, tags_of(spec, 37, 23) | more)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_deflated_tiff(spec):
    for size in ((37, 23), (16, 16), (1, 1), (5, 70)):
        check(tiff(spec, 0, *size), is_fast=True)


def test_deflated_tiff_with_damage():
    rng = random.Random(1)
    changes: dict[str, Callable[[bytes], bytes]] = {
        "checksum": lambda body: body[:-1] + bytes([body[-1] ^ 1]),
        "no checksum": lambda body: body[:-4],
        "cut": lambda body: body[: len(body) // 2],
        "one byte": lambda body: body[:1],
        "no stream": lambda body: bytes(len(body)),
        "window": lambda body: b"\x88\x1c" + body[2:],
        "dictionary": lambda body: b"\x78\xbb\0\0\0\1" + body[2:],
        "fewer bytes": lambda body: zlib.compress(zlib.decompress(body)[:-1]),
        "more bytes": lambda body: zlib.compress(zlib.decompress(body) + b"1"),
        "many more bytes": lambda body: zlib.compress(zlib.decompress(body) + bytes(1 << 22)),
        "bytes after it": lambda body: body + b"after",
        "two streams": lambda body: body + body,
        "stored": lambda body: zlib.compress(zlib.decompress(body), 0),
        "raw": lambda body: body[2:-4],
    }
    for spec in SPECS[3::9]:
        sound = ("bytes after it", "two streams", "stored")
        for name, change in changes.items():
            if spec.fill_order == 1:
                check(changed(spec, change), is_fast=True if name in sound else None)
                check(changed(spec, change, -1))
        for _ in range(10):
            check(changed(spec, lambda body: rng.choice(MUTATORS)(rng, body, body) or body, -1))


def test_deflated_tiff_of_more_than_one_band():
    samples = np.zeros((1500, 2000, 3), np.uint8)
    samples[:, :200] = np.random.default_rng(1).integers(0, 256, (1500, 200, 3), np.uint8)
    for options in ({}, {"tile": (2000, 1504)}):
        spec = Spec(2, 8, 3, compression=8, **options)
        bodies, more = tiff_writer.blocks(spec, samples)
        tags = tags_of(spec, 2000, 1500) | more
        data = file_of(spec, bodies, tags)
        options = Options()
        assert outcome(data, options)[1] == np.ascontiguousarray(samples).tobytes()
        cut = file_of(spec, [bodies[0][:-1] + b"1"], tags)  # the checksum, after the last band
        assert outcome(cut, options) == slowly(cut, options)
        for n_bytes in (len(bodies[0]) - 40, len(bodies[0]) // 3):
            cut = file_of(spec, [bodies[0][:n_bytes]], tags)
            assert outcome(cut, options) == slowly(cut, options)
        assert outcome(cut, options)[0] == "decode_failed"


def test_many_small_blocks_are_left_to_libtiff():
    for n_rows, is_fast in ((16, True), (17, False)):
        check(tiff(Spec(2, 8, 3, compression=8, rows=1), 0, 37, n_rows), is_fast=is_fast)
    check(tiff(Spec(2, 8, 3, compression=8, rows=1), 0, 3000, 17), is_fast=True)


def test_bytes_are_read_in_any_portions():
    data = np.random.default_rng(1).integers(0, 9, 100_000, np.uint8).tobytes()
    coded = np.frombuffer(zlib.compress(data), np.uint8)
    for portions in ([100_000], [1] * 5 + [99_995], [99_999, 1], [50_000, 50_000]):
        stream = CheckedInflate(coded, len(data))
        assert b"".join(stream.read(n).tobytes() for n in portions) == data
    stream = CheckedInflate(coded, len(data))
    stream.read(10)
    stream.check()
    for wrong in (coded[:-1], np.append(coded[:-1], coded[-1] ^ 1)):
        stream = CheckedInflate(wrong, len(data))
        stream.read(10)
        with pytest.raises(UncommonBlockError):
            stream.check()
    with pytest.raises(UncommonBlockError):
        CheckedInflate(coded, len(data) - 1).read(len(data) - 1)
    with pytest.raises(UncommonBlockError):
        CheckedInflate(coded, len(data) + 1).read(len(data) + 1)


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (3, 1), (4, 7)])
def test_pixels_are_widened_within_their_bytes(shape):
    rows = np.random.default_rng(2).integers(0, 256, (*shape, 3), np.uint8)
    out = np.zeros((*shape, 4), np.uint8)
    widen(rows, out)
    np.testing.assert_array_equal(out[..., :3], rows)


@pytest.mark.parametrize("compression", [1, 8])
def test_opaque_alpha_of_a_tiff_is_no_factor(compression):
    samples = tiff_writer.draw(Spec(2, 8, 4), 0)
    for alpha in (255, 0, None):
        drawn = samples.copy()
        drawn[..., 3] = drawn[..., 3] if alpha is None else alpha
        for shape in ({}, {"rows": 7}, {"tile": (16, 16)}):
            spec = Spec(2, 8, 4, extra=(2,), compression=compression, **shape)
            bodies, more = tiff_writer.blocks(spec, drawn)
            data = file_of(spec, bodies, tags_of(spec, 37, 23) | more)
            truth = (drawn[..., :3] * drawn[..., 3:] + 127) // 255
            assert outcome(data, OPTIONS[0])[1] == truth.astype(np.uint8).tobytes()


def test_pixels_of_24_megapixels_reuse_the_memory_of_the_thread():
    def take_twice() -> bool:
        return np.shares_memory(SCRATCH.take(4 * 6000 * 4000), SCRATCH.take(4 * 6016 * 4016))

    with ThreadPoolExecutor(1) as pool:
        pool.submit(SCRATCH.take, 4 * 6016 * 4016).result()
        assert pool.submit(take_twice).result()


# --- mutated files ---------------------------------------------------------------------------------------------------


def compare_mutated(seed: int, n_files: int) -> int:
    """Compare the outcomes of mutated files; return how many are read fast and well."""
    rng = random.Random(seed)
    gifs = corpus()["GIF"] + [gif_of(blocks(packed(codes_of(noise(60, 40, n), n))), 60, 40, n) for n in range(2, 9)]
    tiffs = [tiff(spec) for spec in SPECS]
    n_fast = 0
    for number in range(n_files):
        data = rng.choice(gifs if number % 2 else tiffs)
        for _ in range(rng.choice((1, 1, 2))):
            data = mutate(rng, data, rng.choice(gifs if number % 2 else tiffs))
        options = OPTIONS[number % 3]
        found = outcome(data, options)
        assert found == slowly(data, options), number
        n_fast += len(found) > 2 and number % 3 == 0 and is_read_fast(data)
    return n_fast


def test_mutated_files():
    assert compare_mutated(1, 400) > 5


@pytest.mark.slow
def test_20_000_mutated_files():
    assert compare_mutated(2, 20_000) > 200
