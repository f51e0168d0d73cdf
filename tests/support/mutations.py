"""Files of every format, drawn in code, and mutated in the ways that break decoders.

`corpus` draws, `make_file` mutates: a file follows from its seed and its number.
"""

import random
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from itertools import pairwise
from typing import Any

from drawing import draw, every_file, save
from oddities import KINDS, odd_files
from PIL import Image
from tiff_writer import Spec, codecs, kinds, layouts, tiff

MAX_SEED_BYTES = 20_000
MAX_FILE_BYTES = 1 << 18
# One file in so many says that it is as large as the default of `max_pixels` allows.
LARGE_EVERY = 499  # a prime, so that every format has its turn

JPEG2000_KINDS: tuple[dict[str, Any], ...] = (
    {"codeblock_size": (16, 16), "precinct_size": (64, 64)},
    {"tile_size": (16, 16)},
    {"num_resolutions": 1},
    {"quality_layers": [80, 40, 20, 10, 5], "quality_mode": "rates"},
    {"progression": "RPCL", "no_jp2": True},
    {"irreversible": True},
)


@cache
def corpus() -> dict[str, list[bytes]]:
    """Return sound and odd files of every format, mode, bit depth and compression, by format."""
    files: dict[str, list[bytes]] = {}
    for size in ((67, 45), (33, 17)):
        for name, data in every_file(1, *size):
            files.setdefault(name.partition("/")[0], []).append(data)
    rng = random.Random(1)
    for kind in KINDS:
        odd = [data for _, _, data in odd_files(kind) if len(data) <= MAX_SEED_BYTES]
        files[kind.upper().replace(" ", "")] += rng.sample(odd, min(len(odd), 150))
    for spec in rng.sample([*kinds(), *layouts(), *codecs()], 200):
        with suppress(KeyError, ValueError, OSError):  # no encoder writes it
            files["TIFF"].append(tiff(spec))
    files["TIFF"].append(tiff(Spec(2, 16, 4, big=True)))
    for options in JPEG2000_KINDS:
        files["JPEG2000"].append(save(Image.fromarray(draw(1)), "JPEG2000", **options))
    return {kind: [data for data in found if len(data) <= MAX_SEED_BYTES] for kind, found in files.items()}


def make_file(files: dict[str, list[bytes]], seed: int, number: int) -> tuple[str, bytes]:
    """Return the format and the bytes of a file."""
    rng = random.Random(seed << 40 | number)
    formats = sorted(files)
    kind = formats[number % len(formats)]
    data = rng.choice(files[kind])
    other = rng.choice(files[kind if rng.random() < 0.7 else rng.choice(formats)])
    if is_large(number):
        data = set_size(rng, data, all_sizes=True)
    for _ in range(rng.choice((1, 1, 2, 3))):
        data = mutate(rng, data, other)
    if data.startswith(b"\x89PNG") and rng.random() < 0.8:
        data = with_checksums(data)
    return kind, data


def is_large(number: int) -> bool:
    return number % LARGE_EVERY == LARGE_EVERY - 1


# --- where the parts and the numbers of a file are -------------------------------------------------------------------

BIG_ENDIAN = re.compile(rb"\x89PNG|\xff|MM|....ftyp|\0\0\0\x0cjP", re.DOTALL)
# Boxes that hold boxes, and the bytes before the first of them.
CONTAINERS = {b"meta": 4, **dict.fromkeys((b"iprp", b"ipco", b"jp2h", b"moov", b"trak", b"mdia", b"minf", b"stbl"), 0)}
NASTY = (
    *(0, 1, 2, 3, 7, 8, 15, 16, 32, 127, 128, 255, 256, 1000, 2000, 4096, 9400, 16383, 32767, 32768, 65535, 65536),
    *((1 << 24) - 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, (1 << 32) - 8, (1 << 63) - 1, (1 << 64) - 1),
)  # fmt: skip


def parts(data: bytes) -> list[tuple[int, int]]:
    """Return start and end of the chunks, segments, boxes, blocks, tags or words of a file."""
    if data.startswith(b"\x89PNG"):
        found = list(_chunks(data, 8, ">I", 12))
    elif data.startswith(b"RIFF"):
        found = list(_riff_chunks(data))
    elif data[4:8] in (b"ftyp", b"jP  "):
        found = list(_boxes(data, 0, len(data)))
    elif data[:2] in (b"II", b"MM"):
        found = list(_tags(data))
    else:
        mark = {
            b"\xff\xd8": rb"\xff[\xc0-\xfe]", b"\xff\x4f": rb"\xff[\x4f-\x93]",
            b"GI": rb"!(?=[\x01\xf9\xfe\xff])|,(?=\0\0)", b"BM": rb"(?s)(?<=....)....",
        }.get(data[:2], rb"(?<=\s)\S+")  # fmt: skip
        places = [match.start() for match in re.finditer(mark, data[:20_000])]
        found = list(zip(places, [*places, len(data)][1:], strict=False))
    return [(start, min(end, len(data))) for start, end in found if start < len(data)] or [(0, len(data))]


def _chunks(data: bytes, at: int, length: str, more: int) -> Iterator[tuple[int, int]]:
    while at + 8 <= len(data):
        end = at + struct.unpack_from(length, data, at)[0] + more
        yield at, end
        at = end


def _riff_chunks(data: bytes) -> Iterator[tuple[int, int]]:
    at = 12
    while at + 8 <= len(data):
        n_bytes = struct.unpack_from("<I", data, at + 4)[0]
        yield at, at + 8 + n_bytes + n_bytes % 2
        at += 8 + n_bytes + n_bytes % 2


def _boxes(data: bytes, at: int, end: int) -> Iterator[tuple[int, int]]:
    while at + 8 <= end:
        n_bytes, name = struct.unpack_from(">I4s", data, at)
        n_bytes = n_bytes if n_bytes >= 8 else end - at
        yield at, at + n_bytes
        if name in CONTAINERS:
            yield from _boxes(data, at + 8 + CONTAINERS[name], min(at + n_bytes, end))
        if name == b"jp2c":
            codestream = data[at + 8 : at + n_bytes]
            marks = [match.start() for match in re.finditer(rb"\xff[\x4f-\x93]", codestream[:2000])]
            yield from ((at + 8 + a, at + 8 + b) for a, b in pairwise(marks))
        at += n_bytes


def _tags(data: bytes) -> Iterator[tuple[int, int]]:
    order = "<" if data[:2] == b"II" else ">"
    big = len(data) > 16 and data[2:4] in (b"+\0", b"\0+")
    with suppress(struct.error):
        at = struct.unpack_from(order + ("Q" if big else "I"), data, 8 if big else 4)[0]
        n_tags = struct.unpack_from(order + ("Q" if big else "H"), data, at)[0]
        start, step = at + (8 if big else 2), 20 if big else 12
        yield from ((start + step * i, start + step * (i + 1)) for i in range(min(n_tags, 100)))


def sizes(data: bytes) -> list[tuple[int, str]]:
    """Return the place and the form of each width and height."""
    if data.startswith(b"\x89PNG"):
        return [(16, ">I"), (20, ">I")]
    if data.startswith(b"\xff\xd8"):
        frames = [match.start() for match in re.finditer(rb"\xff[\xc0-\xc3\xc5-\xc7\xc9-\xcb\xcd-\xcf]\0", data)]
        return [(at + offset, ">H") for at in frames for offset in (5, 7)]
    if data.startswith(b"GIF"):
        images = [match.start() for match in re.finditer(rb",(?=\0\0)", data)]
        return [(6, "<H"), (8, "<H"), *((at + offset, "<H") for at in images for offset in (5, 7))]
    if data.startswith(b"RIFF"):
        return {b"VP8 ": [(26, "<H"), (28, "<H")], b"VP8L": [(21, "<I")]}.get(data[12:16], [(24, "<H"), (27, "<H")])
    if data.startswith(b"BM"):
        return [(18, "<i"), (22, "<i")]
    if data[:2] in (b"II", b"MM"):
        order = "<" if data[:2] == b"II" else ">"
        tags = [at for at, end in parts(data) if data[at : at + 2] in struct.pack(order + "HH", 256, 257)]
        return [(at + 8, order + "I") for at in tags]
    places = [
        (match.end() + offset, ">I") for match in re.finditer(rb"ispe....|ihdr", data, re.DOTALL) for offset in (0, 4)
    ]
    for match in re.finditer(rb"\xff\x51", data[:2000]):
        places += [(match.start() + offset, ">I") for offset in (6, 10, 22, 26)]
    return places


# --- mutators --------------------------------------------------------------------------------------------------------


def flip_bits(rng: random.Random, data: bytes, _other: bytes) -> bytes:
    out, head = bytearray(data), rng.choice((16, 64, 700, len(data)))
    for _ in range(rng.randint(1, 4)):
        out[rng.randrange(min(len(out), head))] ^= 1 << rng.randrange(8)
    return bytes(out)


def set_bytes(rng: random.Random, data: bytes, _other: bytes) -> bytes:
    out, head = bytearray(data), rng.choice((16, 64, 700, len(data)))
    for _ in range(rng.randint(1, 3)):
        out[rng.randrange(min(len(out), head))] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
    return bytes(out)


def cut(rng: random.Random, data: bytes, _other: bytes) -> bytes:
    end = rng.randrange(1, len(data) + 1)
    return data[:end] + rng.choice((b"", b"", rng.randbytes(rng.randint(1, 60)), bytes(rng.randint(1, 2000))))


def splice(rng: random.Random, data: bytes, other: bytes) -> bytes:
    return data[: rng.randrange(1, len(data) + 1)] + other[rng.randrange(len(other)) :]


def insert_bytes(rng: random.Random, data: bytes, _other: bytes) -> bytes:
    at = rng.randrange(1, len(data) + 1)
    return data[:at] + rng.randbytes(rng.randint(1, 8)) + data[at:]


def delete_bytes(rng: random.Random, data: bytes, _other: bytes) -> bytes:
    at = rng.randrange(1, len(data) + 1)
    return data[:at] + data[at + rng.randint(1, 30) :]


def set_number(rng: random.Random, data: bytes, _other: bytes) -> bytes:
    """Set a number at the start of a part, such as its length, its count or its offset."""
    start, end = rng.choice(parts(data))
    width = rng.choice((1, 2, 4, 4, 8))
    at = start + rng.choice((0, 2, 4, 4, 8, 8, 12, rng.randrange(max(1, end - start))))
    order = "big" if BIG_ENDIAN.match(data) else "little"
    before = int.from_bytes(data[at : at + width], order)
    value = rng.choice((*NASTY, before + 1, before - 1, before * 2, len(data), len(data) - at))
    return data[:at] + (value % (1 << 8 * width)).to_bytes(width, order) + data[at + width :]


def set_size(rng: random.Random, data: bytes, _other: bytes = b"", *, all_sizes: bool = False) -> bytes:
    """Set widths and heights to large values, or to small ones that do not fit what follows."""
    large = rng.choice(((9400, 9400), (22_000_000, 4), (65_535, 1365), (4, 22_000_000), (3000, 4000)))
    usual = rng.choice(((1999, 2000), (65_535, 61), (61, 65_535), (4_000_000, 1), (1, 1), (16_383, 244), (1 << 31, 1)))
    size = large if all_sizes else usual
    if re.match(rb"P[1-6]\s", data):
        numbers = iter(size)
        return re.sub(rb"(?m)(?<=\s)\d+(?=\s)", lambda _: b"%d" % next(numbers), data, count=2)
    out = bytearray(data)
    for number, (at, form) in enumerate(sizes(data)):
        n_bytes = struct.calcsize(form)
        if (all_sizes or rng.random() < 0.8) and at + n_bytes <= len(out):
            order = "big" if form[0] == ">" else "little"
            out[at : at + n_bytes] = min(size[number % 2], (1 << 8 * n_bytes) - 1).to_bytes(n_bytes, order)
    return bytes(out)


def repeat_part(rng: random.Random, data: bytes, _other: bytes) -> bytes:
    start, end = rng.choice(parts(data))
    n_times = min(rng.choice((2, 3, 10, 100, 1000, 10_000)), MAX_FILE_BYTES // max(1, end - start))
    return data[:start] + data[start:end] * n_times + data[end:]


def drop_part(rng: random.Random, data: bytes, _other: bytes) -> bytes:
    start, end = rng.choice(parts(data))
    return data[:start] + data[end:]


def move_part(rng: random.Random, data: bytes, _other: bytes) -> bytes:
    start, end = rng.choice(parts(data))
    at = rng.choice(parts(data))[0]
    return data[:at] + data[start:end] + data[at:]


def borrow_part(rng: random.Random, data: bytes, other: bytes) -> bytes:
    start, end = rng.choice(parts(other))
    at = rng.choice(parts(data))[0]
    return data[:at] + other[start:end] + data[at:]


MUTATORS: tuple[Callable[[random.Random, bytes, bytes], bytes], ...] = (
    flip_bits, set_bytes, cut, splice, insert_bytes, delete_bytes,
    set_number, set_number, set_number, set_size, repeat_part, drop_part, move_part, borrow_part,
)  # fmt: skip


def with_checksums(data: bytes) -> bytes:
    """Return a PNG whose chunks have the right checksums: a reader that checks them sees the rest."""
    out = bytearray(data)
    for start, end in _chunks(data, 8, ">I", 12):
        if end <= len(out):
            out[end - 4 : end] = struct.pack(">I", zlib.crc32(out[start + 4 : end - 4]))
    return bytes(out)


def mutate(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Return a file as one of the mutators changes it; some of them put a part of `other` into it."""
    return rng.choice(MUTATORS)(rng, data, other)[:MAX_FILE_BYTES] or data
