"""The compiled reader of plain TIFF: the pixels and details of `tiff.decode`, to which it leaves all other files."""

import random
import struct
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import pytest
import tiff_writer
from mutations import mutate
from PIL import Image
from tiff_writer import Spec, file_of, packbits, tags_of, tiff

from imgmatch_df.errors import Failure
from imgmatch_df.images import tiff_plain
from imgmatch_df.images.decode import decode_image
from imgmatch_df.options import Options

OPTIONS = (Options(max_pixels=1 << 20), Options(alpha="white", max_pixels=1 << 20), Options(max_pixels=600))
KINDS = (
    *(Spec(0), Spec(1), Spec(2, 8, 3), Spec(1, kind=1), Spec(2, 8, 3, kind=1)),
    *(Spec(2, 8, 4, extra=extra) for extra in (None, (0,), (1,), (2,))),
)
SHAPES = ({}, {"rows": 7}, {"rows": 1}, {"tile": (16, 16)}, {"tile": (64, 32)}, {"tile": (32, 64)})
PLAIN = [
    kind._replace(compression=compression, order=order, **shape)
    for kind in KINDS
    for compression in (1, 32773)
    for order in "<>"
    for shape in SHAPES
]
OTHERS = (
    *(Spec(1, 16), Spec(1, 4), Spec(1, kind=2), Spec(1, 8, 2, extra=(2,)), Spec(3), Spec(5, 8, 4)),
    *(Spec(2, 8, 5, extra=(0, 0)), Spec(2, 8, 4, extra=(999,)), Spec(2, 8, 3, planes=True), Spec(2, 8, 3, big=True)),
    *(Spec(fill_order=2), Spec(2, 8, 3, compression=8), Spec(compression=5)),
)


def outcome(data: bytes, options: Options) -> tuple:
    result = decode_image(data, options)
    if isinstance(result, Failure):
        return tuple(result)
    pixels = result.pixels if result.pixels.ndim == 2 else result.pixels[..., :3]
    return pixels.shape, pixels.tobytes(), *result[1:]


def slowly(data: bytes, options: Options) -> tuple:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiff_plain, "decode_plain", lambda *_: None)
        return outcome(data, options)


def check(data: bytes) -> bool:
    """Compare the outcomes, and return whether the file is plain and read."""
    for options in OPTIONS:
        assert outcome(data, options) == slowly(data, options)
    return tiff_plain.decode_plain(data, OPTIONS[0]) is not None


@pytest.mark.parametrize("spec", PLAIN, ids=str)
def test_plain_files(spec):
    for size in ((37, 23), (1, 1), (16, 16), (64, 33), (5, 70)):
        data = tiff(spec, 1, *size)
        assert check(data)
        if spec.n_samples < 4:
            drawn = tiff_writer.draw(spec, 1, *size).astype(np.uint8)
            truth = 255 - drawn if spec.photometric == 0 else drawn
            assert outcome(data, OPTIONS[0])[1] == np.ascontiguousarray(truth).tobytes()


@pytest.mark.parametrize("spec", OTHERS, ids=str)
def test_other_kinds_are_left(spec):
    assert not check(tiff(spec))


@pytest.mark.parametrize("opaque", [0, 200, 255])
def test_alpha(opaque):
    drawn = tiff_writer.draw(Spec(2, 8, 4), 0)
    drawn[5:9, :, 3] = opaque
    for extra in ((0,), (1,), (2,)):
        for shape in SHAPES:
            spec = Spec(2, 8, 4, extra=extra, **shape)
            bodies, more = tiff_writer.blocks(spec, drawn)
            assert check(file_of(spec, bodies, tags_of(spec, 37, 23) | more))


def test_tags_that_decide():
    spec = Spec(2, 8, 3, rows=7)
    for orientation in range(1, 9):
        assert check(tiff(spec, tags={274: (3, [orientation])}))
        assert check(tiff(spec, tags={274: (4, [orientation])}))
    plain = ({256: (3, [37])}, {258: (3, [8])}, {284: None}, {266: (3, [1])}, {317: (3, [2])}, {700: (1, [1] * 99)})
    for tags in plain:
        assert check(tiff(spec, tags=tags))
    for tags in (
        *({274: (3, [0])}, {274: (3, [9])}, {274: (3, [1, 1])}, {284: (3, [2])}, {284: (3, [0])}, {266: (3, [2])}),
        *({256: (3, [0])}, {257: (4, [0])}, {257: (9, [23])}, {256: (1, [37])}, {256: None}, {258: None}, {262: None}),
        *({258: (3, [8, 8])}, {258: (3, [8, 8, 16])}, {258: (4, [8, 8, 8])}, {258: (3, [8, 8, 8, 8])}),
        *({273: None}, {279: None}, {324: (4, [8] * 4)}, {325: (4, [9] * 4)}, {322: (3, [16])}, {323: (3, [16])}),
        *({278: (4, [0])}, {278: (4, [6])}, {278: (4, [8])}, {278: (3, [7, 7])}, {338: (3, [0])}, {339: (3, [3])}),
        *({330: (4, [8])}, {330: (4, [8, 9])}, {32997: (3, [1])}, {32998: (3, [1])}, {50706: (1, [1, 4, 0, 0])}),
        *({259: (3, [5])}, {262: (3, [6])}, {277: (3, [0])}, {277: (3, [2])}, {259: (3, [32803])}),
    ):
        assert not check(tiff(spec, tags=tags)), tags
    assert check(tiff(spec, tags={278: None, 273: (4, [8]), 279: (4, [3 * 37 * 23])}))
    assert not check(tiff(spec, sort=False))


def test_directories_that_lead_to_others():
    spec = Spec(2, 8, 3)
    data = tiff(spec)
    (at,) = struct.unpack_from("<I", data, 4)
    (n_tags,) = struct.unpack_from("<H", data, at)
    end = at + 2 + 12 * n_tags
    for following in (1, 8, at, len(data), 0xFFFFFFFF):  # `at` is a loop
        assert not check(data[:end] + struct.pack("<I", following) + data[end + 4 :])
    for first in (0, 1, 4, 7, at + 1, end, len(data) - 2, len(data) - 1, len(data), 0x7FFFFFFF, 0xFFFFFFFF):
        assert not check(data[:4] + struct.pack("<I", first) + data[8:])
    for count in (0, 1, n_tags - 1, n_tags + 1, 64, 65, 4096, 65535):
        assert not check(data[:at] + struct.pack("<H", count) + data[at + 2 :])
    for start in (b"II*\0", b"MM\0*", b"II\0*", b"MM*\0", b"II+\0", b"IM*\0"):
        assert check(start + data[4:]) is (start == b"II*\0")
    assert not check(tiff(spec, lead=b"CR\2\0" + bytes(4)))
    for length in range(end + 4):
        assert not check(data[:length])


def test_offsets_and_counts_that_are_wrong():
    size = 3 * 37 * 7
    for compression in (1, 32773):
        spec = Spec(2, 8, 3, rows=7, compression=compression)
        bodies, more = tiff_writer.blocks(spec, tiff_writer.draw(spec, 0))
        offsets = [8 + sum(map(len, bodies[:i])) for i in range(4)]
        lengths = [*map(len, bodies)]
        tags = tags_of(spec, 37, 23) | more
        for which in range(4):
            for value in (0, 1, size - 1, size, size + 1, 1 << 20, 0x7FFFFFFF, 0xFFFFFFFF):
                for tag, values in ((273, offsets), (279, lengths)):
                    changed = [value if i == which else v for i, v in enumerate(values)]
                    check(file_of(spec, bodies, tags | {tag: (4, changed)}))
        for tag, values in ((273, offsets), (279, lengths)):
            for changed in (values[:3], [*values, 8], values[:1], [values[0]] * 4, [0] * 4):
                check(file_of(spec, bodies, tags | {tag: (4, changed)}))
            assert check(file_of(spec, bodies, tags | {tag: (3, values)}))
            check(file_of(spec, bodies, tags | {tag: (16, values)}))


def test_packbits_that_are_strange():
    spec = Spec(1, compression=32773, rows=7)
    drawn = tiff_writer.draw(spec, 0)
    bodies, more = tiff_writer.blocks(spec, drawn)
    tags = tags_of(spec, 37, 23) | more
    pixels = drawn[:7].astype(np.uint8).tobytes()
    for change in (
        lambda data: b"".join(b"\0" + bytes([byte]) for byte in data),
        lambda data: b"".join(b"\x80\0" + bytes([byte]) for byte in data),  # codes without bytes
        lambda data: packbits(data) + b"after",
        lambda data: packbits(data) + b"\x80\x80",
    ):
        assert check(file_of(spec, [change(pixels), *bodies[1:]], tags))
    for wrong in (
        *(packbits(pixels)[:-1], packbits(pixels)[:-40], packbits(pixels[:-1]), packbits(pixels[:-1]) + b"\xff\1"),
        *(b"", b"\x80" * 50, b"\x7f", b"\x81", packbits(pixels[:-1]) + b"\1ab", packbits(pixels[:-1]) + b"\0"),
    ):
        for blocks in ([wrong, *bodies[1:]], [*bodies[:-1], wrong]):
            assert not check(file_of(spec, blocks, tags))


def test_limits_and_formats():
    data = tiff(Spec(2, 8, 3), 0, 37, 23)
    assert outcome(data, Options(formats=("png",))) == slowly(data, Options(formats=("png",)))
    assert outcome(data, Options(formats=("tiff",)))[0] == (23, 37, 3)
    for max_pixels in (1, 37 * 23 - 1, 37 * 23):
        options = Options(max_pixels=max_pixels)
        assert outcome(data, options) == slowly(data, options)
    tiles = tiff(Spec(2, 8, 3, tile=(64, 64)), 0, 37, 23)
    for max_pixels in (37 * 23, 64 * 64 - 1, 64 * 64):
        options = Options(max_pixels=max_pixels)
        assert outcome(tiles, options) == slowly(tiles, options)


@pytest.mark.parametrize("spec", [Spec(), Spec(2, 8, 3), Spec(2, 8, 4), Spec(2, 8, 3, tile=(512, 512))], ids=str)
def test_large_files_ask_the_pixel_budget(spec, monkeypatch):
    asked: list[tuple] = []
    for module in ("tiff_plain", "formats"):
        monkeypatch.setattr(f"imgmatch_df.images.{module}.admit_bytes", lambda *a: asked.append(a) or None)
    bodies, more = tiff_writer.blocks(spec, np.full((1300, 1200, spec.n_samples), 77, np.uint8))
    data = file_of(spec, bodies, tags_of(spec, 1200, 1300) | more)
    options = Options()
    assert outcome(data, options) == slowly(data, options)
    assert len(asked) == 2
    assert asked[0] == asked[1]


@pytest.mark.parametrize("compression", ["raw", "packbits"])
def test_files_of_pillow(compression):
    rng = np.random.default_rng(3)
    for mode, shape in (("L", (300, 400)), ("RGB", (300, 400, 3)), ("RGBA", (300, 400, 4))):
        pixels = np.repeat(rng.integers(0, 256, shape, np.uint8), 3, axis=1)
        stream = BytesIO()
        Image.fromarray(pixels, mode).save(stream, "TIFF", compression=compression)
        assert check(stream.getvalue())


def test_any_buffer_and_any_thread():
    data = tiff(Spec(2, 8, 3, rows=7))
    truth = outcome(data, OPTIONS[0])
    for view in (memoryview(data), memoryview(bytearray(data)), memoryview(b"abc" + data)[3:]):
        assert outcome(view, OPTIONS[0]) == truth
    files = [tiff(Spec(2, 8, 3, compression=32773), seed, 200, 100) for seed in range(8)]
    truths = [slowly(file, OPTIONS[0]) for file in files]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda file: outcome(file, OPTIONS[0]), files * 20)) == truths * 20


# --- mutated files ---------------------------------------------------------------------------------------------------

NUMBERS = (0, 1, 2, 3, 4, 7, 8, 16, 23, 37, 255, 256, 259, 273, 279, 322, 330, 339, 4096, 32773, 65535, 1 << 31)


def change_entry(rng: random.Random, data: bytes) -> bytes:
    """Set the tag, the type, the count or the value of an entry to another number, or to one near it."""
    order = "<" if data[:1] == b"I" else ">"
    (at,) = struct.unpack_from(order + "I", data, 4)
    (n_tags,) = struct.unpack_from(order + "H", data, at)
    form, offset = rng.choice((("H", 0), ("H", 2), ("I", 4), ("H", 8), ("I", 8), ("I", 8)))
    place = at + 2 + 12 * rng.randrange(n_tags) + offset
    (before,) = struct.unpack_from(order + form, data, place)
    near = (before + rng.choice((-8, -2, -1, 1, 2, 8)), 2 * before, before // 2, len(data), len(data) - before)
    value = rng.choice((*near, rng.choice(NUMBERS)))
    out = bytearray(data)
    struct.pack_into(order + form, out, place, value % (1 << 16 if form == "H" else 1 << 32))
    return bytes(out)


def compare_mutated(seed: int, n_files: int) -> int:
    """Compare the outcomes of mutated files; return how many are plain."""
    rng = random.Random(seed)
    files = [tiff(spec, tags_first=number % 2 == 1) for number, spec in enumerate(PLAIN)]
    n_plain = 0
    for _ in range(n_files):
        data = rng.choice(files)
        data = change_entry(rng, data) if rng.random() < 0.6 else mutate(rng, data, rng.choice(files))
        if rng.random() < 0.2:
            data = mutate(rng, data, data)
        n_plain += check(data)
    return n_plain


def test_mutated_files():
    assert compare_mutated(1, 1500) > 50


@pytest.mark.slow
def test_30_000_mutated_files():
    assert compare_mutated(2, 30_000) > 1000
