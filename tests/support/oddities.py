"""Files that are unusual or damaged outside their pixels, of every format, each in many places.

`odd_files` is the catalogue; `KNOWN` lists every class in which OpenCV 5 gives something else than we do, and why.
"""

import struct
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import cv2
import numpy as np
from drawing import draw, draw16, jpeg, palette_bytes, save, segments
from encoders import Array, exif_block, gif, png, pnm
from PIL import Image

Files = Iterator[tuple[str, str, bytes]]

READ, REFUSED, OTHER = "reads", "refuses", "reads other pixels"


class Known(NamedTuple):
    """A class of file in which OpenCV 5 and we differ.

    Parameters
    ----------
    opencv, here
        What each does with it: `READ` or `REFUSED`. Where both read, the pixels differ.
    why
        The reason, for the table in docs/formats.md.
    """

    opencv: str
    here: str
    why: str


KNOWN = {
    "PNG, checksum of the pixels wrong, or their end missing": Known(REFUSED, READ, "the pixels are whole"),
    "PNG, window of the compression too small": Known(REFUSED, READ, "the pixels are whole"),
    "PNG, a critical chunk or a palette after the pixels": Known(REFUSED, READ, "the pixels are whole"),
    "PNG, background damaged (`bKGD`)": Known(REFUSED, READ, "the pixels are whole"),
    "PNG of colours with an empty palette": Known(REFUSED, READ, "the pixels are whole"),
    "APNG whose default image is not a frame": Known(
        READ, READ, "OpenCV 5 shows the first frame, here the default image"
    ),
    "APNG, 16 bits": Known(READ, READ, "OpenCV 5 rounds where it cuts in PNG"),
    "JPEG, an image begins where the file should end": Known(READ, REFUSED, "libjpeg-turbo refuses it"),
    "WebP, EXIF orientation after `Exif\\0\\0`": Known(READ, READ, "OpenCV ignores it; here it is honoured"),
    "WebP, size in the header wrong, or the last byte missing": Known(REFUSED, READ, "the pixels are whole"),
    "WebP, animated, metadata damaged": Known(REFUSED, READ, "the first frame is whole"),
    "AVIF, orientation": Known(READ, READ, "OpenCV ignores it; here it is honoured"),
    "AVIF, grey, limited range": Known(READ, READ, "OpenCV does not stretch 16 to 235 to 0 to 255"),
    "AVIF, grey, 10 or 12 bits": Known(READ, READ, "OpenCV rounds where libavif cuts"),
    "BMP, 32 bits, masks in a header of 40 or 52 bytes": Known(READ, READ, "OpenCV ignores these masks"),
    "BMP, 32 bits, a mask of zero": Known(READ, READ, "OpenCV ignores such masks"),
    "BMP, 16 bits, masks in a header of 52 to 124 bytes": Known(REFUSED, READ, "OpenCV looks for them elsewhere"),
    "BMP, 16 bits, masks announced and not there": Known(REFUSED, READ, "read as 5 bits a colour"),
    "BMP, offset of the pixels 0": Known(READ, READ, "OpenCV takes the header for pixels"),
    "BMP, RLE8, coded bytes after the end of a row": Known(READ, READ, "OpenCV carries them over to the next row"),
    "BMP, RLE, absolute codes without line ends, jumps, or early ends": Known(REFUSED, READ, "OpenCV refuses most"),
    "GIF, unknown bytes, disposal or control between blocks": Known(REFUSED, READ, "the first frame is whole"),
    "GIF, no end after the first frame": Known(REFUSED, READ, "the first frame is whole"),
    "GIF, background index not in the palette": Known(REFUSED, READ, "such a background is black"),
    "GIF, frame beyond the canvas, or indices beyond the palette": Known(REFUSED, READ, "what is inside is shown"),
    "PFM": Known(READ, READ, "OpenCV gives floats, here they are stretched to 8 bits"),
    "PAM, Radiance HDR": Known(READ, REFUSED, "not read here"),
    "JPEG 2000, YCbCr": Known(READ, READ, "another formula for the colours"),
    "JPEG 2000, channels in another order (`cdef`)": Known(READ, READ, "OpenCV honours it, Pillow does not"),
    "JPEG 2000, grey palette": Known(READ, READ, "Pillow shows the indices"),
    "JPEG 2000, colours called grey": Known(READ, REFUSED, "Pillow refuses it"),
    "JPEG 2000, grey without boxes": Known(REFUSED, READ, "OpenCV needs the boxes"),
    "JPEG 2000, 16-bit colour": Known(READ, READ, "Pillow rounds to 8 bits where OpenCV cuts"),
}


def odd_files(kind: str, seed: int = 1, width: int = 40, height: int = 30) -> Files:
    """Yield (class, variant, file): one in `KNOWN`, or any other name where both sides must agree."""
    yield from _KINDS[kind](seed, width, height)


# --- PNG -------------------------------------------------------------------------------------------------------------


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _damaged(name: bytes, body: bytes) -> bytes:
    return _chunk(name, body)[:-4] + b"\1\2\3\4"


def _chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], 8
    while at < len(data):
        (n_bytes,) = struct.unpack_from(">I", data, at)
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + n_bytes]))
        at += 12 + n_bytes
    return found


def _join(*chunks: bytes | tuple[bytes, bytes]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(c if isinstance(c, bytes) else _chunk(*c) for c in chunks)


def _ancillary() -> dict[bytes, bytes]:
    return {
        b"tEXt": b"Comment\0hello",
        b"zTXt": b"Comment\0\0" + zlib.compress(b"hello"),
        b"iTXt": b"XML\0\1\0en\0k\0" + zlib.compress(b"hello"),
        b"iCCP": b"ICC\0\0" + zlib.compress(b"x" * 200),
        b"sRGB": b"\0",
        b"gAMA": struct.pack(">I", 45455),
        b"pHYs": struct.pack(">IIB", 2835, 2835, 1),
        b"cHRM": struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000),
        b"cLLI": bytes(8),
        b"mDCV": bytes(24),
        b"cICP": b"\x09\x10\0\1",
        b"tIME": struct.pack(">HBBBBB", 2020, 1, 1, 1, 1, 1),
        b"bKGD": b"\0\1\0\2\0\3",
        b"hIST": b"\0\1" * 4,
        b"sPLT": b"p\0\x08" + b"\1\2\3\4\0\5",
        b"sBIT": b"\5\6\5",
        b"oFFs": bytes(9),
        b"pCAL": b"x\0" + bytes(30),
        b"sCAL": b"\0011\0001",
        b"caBX": b"jumb" * 10,
        b"prVt": b"abc",
        b"iDOT": bytes(28),
    }


def _pngs(seed: int, w: int, h: int) -> Files:
    base = _chunks(png(draw(seed, w, h)))
    junk = np.random.default_rng(seed).integers(0, 256, 1 << 20, np.uint8).tobytes()
    bomb = zlib.compress(bytes(64 << 20))
    for name, body in _ancillary().items():
        bodies = {
            "good": body,
            "empty": b"",
            "one byte": b"\1",
            "junk": junk[:37],
            "cut": body[:-1],
            "long": body + b"xyz",
        }
        for what, inside in bodies.items():
            for where in (1, 2):
                word = f"{name!r} {what} at {where}"
                bad = name == b"bKGD" and what != "good" and where == 1
                twice = [(name, inside)] * 2
                class_ = "PNG, background damaged (`bKGD`)" if bad else "PNG, ancillary chunk"
                yield class_, word, _join(*base[:where], (name, inside), *base[where:])
                yield class_, f"{word}, twice", _join(*base[:where], *twice, *base[where:])
                yield class_, f"{word}, checksum wrong", _join(*base[:where], _damaged(name, inside), *base[where:])
        class_ = "PNG, background damaged (`bKGD`)" if name == b"bKGD" else "PNG, a megabyte"
        yield class_, f"{name!r}", _join(base[0], (name, junk), *base[1:])
        yield class_, f"{name!r}, checksum wrong", _join(base[0], _damaged(name, junk), *base[1:])
        if name in (b"zTXt", b"iTXt", b"iCCP"):
            inside = b"c\0\0" + bomb if name != b"iTXt" else b"c\0\1\0\0\0" + bomb
            yield "PNG, a bomb", f"{name!r}", _join(base[0], (name, inside), *base[1:])
    yield "PNG, profile of another method", "", _join(base[0], (b"iCCP", b"ICC\0\1" + zlib.compress(b"x")), *base[1:])
    indices = draw(seed, w, h, 1).astype(np.uint16) * 16 // 256
    colours = palette_bytes(seed, 16)
    bases = {
        "RGB": png(draw(seed, w, h)),
        "L": png(draw(seed, w, h, 1)),
        "LA": png(draw(seed, w, h, 2)),
        "RGBA": png(draw(seed, w, h, 4)),
        "L 16": png(draw16(seed, w, h, 1), 16),
        "RGB 16": png(draw16(seed, w, h), 16),
        "L 4": png(indices, 4),
        "L 1": png(indices // 8, 1),
        "P 8": png(indices, 8, colours),
        "P 4": png(indices, 4, colours, bytes(range(16))),
        "RGB interlaced": png(draw(seed, w, h), interlaced=True),
        "L 16 interlaced": png(draw16(seed, w, h, 1), 16, interlaced=True),
        "P 4 interlaced": png(indices, 4, colours, interlaced=True),
    }
    for mode, data in bases.items():
        for class_, what, file in _one_png(_chunks(data)):
            yield class_, f"{mode}, {what}", file
    yield from _apngs(seed, w, h)


def _one_png(cs: list[tuple[bytes, bytes]]) -> Files:
    whole = "PNG, checksum of the pixels wrong, or their end missing"
    after = "PNG, a critical chunk or a palette after the pixels"
    names = [name for name, _ in cs]
    k = names.index(b"IDAT")
    head, (_, z), end = cs[:k], cs[k], cs[k + 1 :]
    raw, header = zlib.decompress(z), cs[0][1]
    grey_or_colours = header[9]

    def with_pixels(*pixels: bytes | tuple[bytes, bytes]) -> bytes:
        return _join(*head, *pixels, *end)

    yield "PNG, whole", "as it is", _join(*cs)
    yield "PNG, bytes behind", "", _join(*cs) + b"x" * 1000
    yield whole, "no end", _join(*cs)[:-12]
    yield "PNG, end damaged", "", _join(*cs)[:-4] + b"abcd"
    yield whole, "checksum", with_pixels(_damaged(b"IDAT", z))
    yield whole, "no Adler", with_pixels((b"IDAT", z[:-4]))
    small = b"\x18\x19" + z[2:]
    yield "PNG, window of the compression too small", "", with_pixels((b"IDAT", small))
    yield "PNG, pixels in pieces", "of one byte", with_pixels(*((b"IDAT", z[i : i + 1]) for i in range(len(z))))
    pieces = [(b"IDAT", b""), (b"IDAT", z[:9]), (b"IDAT", b""), (b"IDAT", z[9:]), (b"IDAT", b"")]
    yield "PNG, pixels in pieces", "some empty", with_pixels(*pieces)
    yield "PNG, pixels in pieces", "apart", with_pixels((b"IDAT", z[:99]), (b"tEXt", b"a\0b"), (b"IDAT", z[99:]))
    yield "PNG, pixels with more behind", "", with_pixels((b"IDAT", z + b"junk"))
    yield "PNG, pixels with more behind", "in a chunk", with_pixels((b"IDAT", z), (b"IDAT", b"junk"))
    yield "PNG, wrong Adler", "", with_pixels((b"IDAT", z[:-4] + b"abcd"))
    yield "PNG, pixels cut", "half", with_pixels((b"IDAT", z[: len(z) // 2]))
    for n_missing in (1, len(raw) // struct.unpack_from(">I", header, 4)[0], len(raw) // 2, len(raw)):
        yield "PNG, pixels missing", f"{n_missing}", with_pixels((b"IDAT", zlib.compress(raw[:-n_missing])))
    yield "PNG, too many pixels", "", with_pixels((b"IDAT", zlib.compress(raw + b"x" * 100)))
    if not header[12]:
        for filter_ in range(5):
            yield "PNG, filter", f"{filter_}", with_pixels((b"IDAT", zlib.compress(_filtered(raw, header, filter_))))
    yield "PNG, unknown filter", "", with_pixels((b"IDAT", zlib.compress(b"\7" + raw[1:])))
    for at, value in ((10, 1), (11, 1), (12, 2), (8, 3), (9, 1), (9, 7), (0, 128)):
        bad = header[:at] + bytes([value]) + header[at + 1 :]
        yield "PNG, header wrong", f"{at} {value}", _join((b"IHDR", bad), *cs[1:])
    yield "PNG, header wrong", "long", _join((b"IHDR", header + b"x"), *cs[1:])
    yield "PNG, header wrong", "twice", _join(cs[0], *cs)
    taller = header[:4] + struct.pack(">I", struct.unpack_from(">I", header, 4)[0] + 1) + header[8:]
    yield "PNG, header wrong", "one row more", _join((b"IHDR", taller), *cs[1:])
    yield "PNG, chunk of Apple", "", _join((b"CgBI", b"\x30\0\x20\6"), *cs)
    yield "PNG, unknown critical chunk", "", _join(cs[0], (b"ABCD", b"x"), *cs[1:])
    yield after, "critical", _join(*cs[:-1], (b"ABCD", b"x"), cs[-1])
    without = [c for c in head if c[0] != b"PLTE"]
    for n_bytes in (0, 3, 15, 16, 768, 771, 900):
        colours = palette_bytes(2, 301)[:n_bytes]
        word = f"palette of {n_bytes} bytes"
        empty = n_bytes == 0 and grey_or_colours in (2, 6)
        class_ = "PNG of colours with an empty palette" if empty else "PNG, another palette"
        yield class_, word, _join(without[0], (b"PLTE", colours), *without[1:], *cs[k:])
        yield class_, f"{word}, damaged", _join(without[0], _damaged(b"PLTE", colours), *without[1:], *cs[k:])
        if grey_or_colours == 3:
            yield after, word, _join(*cs[:-1], (b"PLTE", colours), cs[-1])
    without = [c for c in head if c[0] != b"tRNS"]
    for body in (
        b"",
        b"\0",
        b"\0\x80",
        b"\0\x80" * 3,
        bytes(16),
        bytes(range(17)),
        bytes(256),
        bytes(257),
        b"\x80" * 6,
    ):
        for where in (1, len(without)):
            before, behind = without[:where], [*without[where:], *cs[k:]]
            yield "PNG, transparency", f"{len(body)} at {where}", _join(*before, (b"tRNS", body), *behind)
            yield (
                "PNG, transparency",
                f"{len(body)} at {where}, damaged",
                _join(*before, _damaged(b"tRNS", body), *behind),
            )
        yield "PNG, transparency", f"{len(body)} after the pixels", _join(*without, *cs[k:-1], (b"tRNS", body), cs[-1])
    for gamma in (0, 1, 45455, 100000, 1 << 31):
        yield "PNG, gamma", f"{gamma}", _join(cs[0], (b"gAMA", struct.pack(">I", gamma)), *cs[1:])
    for value in range(10):
        for order in "<>":
            for type_ in (1, 3, 4, 7):
                block = exif_block(value, order, type_)
                word = f"{value}{order}{type_}"
                yield "PNG, orientation", word, _join(cs[0], (b"eXIf", block), *cs[1:])
                if value == 6:
                    third = (b"eXIf", exif_block(3))
                    none = (b"eXIf", b"II*\0\x08\0\0\0\0\0\0\0\0\0")
                    yield "PNG, orientation", f"{word} behind", _join(*cs[:-1], (b"eXIf", block), cs[-1])
                    yield "PNG, orientation", f"{word} after the end", _join(*cs, (b"eXIf", block))
                    yield "PNG, orientation", f"{word} damaged", _join(cs[0], _damaged(b"eXIf", block), *cs[1:])
                    yield (
                        "PNG, orientation",
                        f"{word} as in JPEG",
                        _join(cs[0], (b"eXIf", b"Exif\0\0" + block), *cs[1:]),
                    )
                    yield "PNG, orientation", f"{word} first", _join(cs[0], (b"eXIf", block), third, *cs[1:])
                    yield "PNG, orientation", f"{word} second", _join(cs[0], third, (b"eXIf", block), *cs[1:])
                    yield "PNG, orientation", f"{word} after none", _join(cs[0], none, (b"eXIf", block), *cs[1:])
                    yield (
                        "PNG, orientation",
                        f"{word} after junk",
                        _join(cs[0], (b"eXIf", b"x"), (b"eXIf", block), *cs[1:]),
                    )
                    yield "PNG, orientation", f"{word} and behind", _join(*cs[:-1], third, (b"eXIf", block), cs[-1])


def _filtered(raw: bytes, header: bytes, filter_: int) -> bytes:
    """Return rows of filter 0 in another filter."""
    (height,) = struct.unpack_from(">I", header, 4)
    rows = np.frombuffer(raw, np.uint8).reshape(height, -1)[:, 1:].astype(np.int16)
    step = max(1, header[8] * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[header[9]] // 8)
    left = np.pad(rows, ((0, 0), (step, 0)))[:, : rows.shape[1]]
    above = np.pad(rows, ((1, 0), (0, 0)))[:height]
    corner = np.pad(above, ((0, 0), (step, 0)))[:, : rows.shape[1]]
    distances = [np.abs(left + above - corner - one) for one in (left, above, corner)]
    paeth = np.choose(np.argmin(distances, axis=0), [left, above, corner])
    guess = (np.zeros_like(rows), left, above, (left + above) // 2, paeth)[filter_]
    return np.pad((rows - guess).astype(np.uint8), ((0, 0), (1, 0)), constant_values=filter_).tobytes()


def _apngs(seed: int, w: int, h: int) -> Files:
    for mode, channels in (("LA", 2), ("RGB", 3), ("RGBA", 4)):
        for bits, artist in ((8, draw), (16, draw16)):
            a = _chunks(png(artist(seed, w, h, channels), bits))
            z = _chunks(png(artist(seed + 1, w, h, channels), bits))[1][1]

            def control(number: int, blend: int = 0, size: tuple[int, int] = (w, h)) -> tuple[bytes, bytes]:
                return b"fcTL", struct.pack(">5I2HBB", number, *size, 0, 0, 1, 10, 0, blend)

            for blend in (0, 1):
                frames = (control(0, blend), a[1], control(1, blend), (b"fdAT", b"\0\0\0\2" + z))
                class_ = "APNG, 16 bits" if bits == 16 else "APNG"
                yield (
                    class_,
                    f"{mode} {bits}, blend {blend}",
                    _join(a[0], (b"acTL", b"\0\0\0\2\0\0\0\0"), *frames, a[-1]),
                )
            one = (b"acTL", b"\0\0\0\1\0\0\0\0")
            yield "APNG", f"{mode} {bits}, one frame", _join(a[0], one, control(0), *a[1:])
            yield "APNG", f"{mode} {bits}, sequence wrong", _join(a[0], one, control(7), *a[1:])
            if bits == 8:
                frames = (a[1], control(0), (b"fdAT", b"\0\0\0\1" + z), control(2), (b"fdAT", b"\0\0\0\3" + a[1][1]))
                class_ = "APNG whose default image is not a frame"
                yield class_, mode, _join(a[0], (b"acTL", b"\0\0\0\2\0\0\0\0"), *frames, a[-1])


# --- JPEG ------------------------------------------------------------------------------------------------------------


def _segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


_BODIES = {
    "JFIF": (0xE0, b"JFIF\0\1\2\0\0\1\0\1\0\0"),
    "JFIF cut": (0xE0, b"JFIF\0"),
    "JFIF with a thumbnail that is not there": (0xE0, b"JFIF\0\1\2\0\0\1\0\1\xff\xff"),
    "JFXX": (0xE0, b"JFXX\0\x10abc"),
    "AVI1": (0xE0, b"AVI1\0"),
    "Exif junk": (0xE1, b"Exif\0\0" + bytes(range(99))),
    "Exif empty": (0xE1, b"Exif\0\0"),
    "XMP": (0xE1, b"http://ns.adobe.com/xap/1.0/\0<x"),
    "MPF junk": (0xE2, b"MPF\0" + bytes(range(60))),
    "MPF empty": (0xE2, b"MPF\0II*\0\x08\0\0\0"),
    "ICC of many pieces": (0xE2, b"ICC_PROFILE\0\2\5abc"),
    "ICC cut": (0xE2, b"ICC_PROFILE\0"),
    "Photoshop cut": (0xED, b"Photoshop 3.0\x008BIM"),
    "Photoshop long": (0xED, b"Photoshop 3.0\x008BIM\x03\xed\0\0\xff\xff\xff\xff"),
    "Adobe 0": (0xEE, b"Adobe\0\x64\0\0\0\0\0"),
    "Adobe 1": (0xEE, b"Adobe\0\x64\0\0\0\0\1"),
    "Adobe 2": (0xEE, b"Adobe\0\x64\0\0\0\0\2"),
    "Adobe 9": (0xEE, b"Adobe\0\x64\0\0\0\0\x09"),
    "Adobe cut": (0xEE, b"Adobe\0\x64"),
    "JUMBF": (0xEB, b"JP\0\1\0\0\0\1" + bytes(90)),
    "Ducky": (0xEC, b"Ducky\0\1\0\4\0\0\0<\0\0"),
    "comment": (0xFE, b"\xfe\xfe\xfe"),
}


def _jpegs(seed: int, w: int, h: int) -> Files:
    for name in ("411", "420", "422", "440", "444"):
        factor = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{name}")]
        for progressive in (0, 1):
            for size in ((w, h), (1, h), (w, 1), (1, 1), (17, 9), (16, 8), (33, 65)):
                options = [
                    *factor,
                    cv2.IMWRITE_JPEG_PROGRESSIVE,
                    progressive,
                    cv2.IMWRITE_JPEG_RST_INTERVAL,
                    size[0] % 3,
                ]
                file = cv2.imencode(".jpg", draw(seed, *size), options)[1].tobytes()
                yield "JPEG, sampling", f"{name} {progressive} {size}", file
    plain = jpeg(draw(seed, w, h))
    frame = next(at for marker, at in segments(plain) if marker == 0xC0)
    for bits in (0, 2, 7, 12, 16):
        yield "JPEG, precision", f"{bits}", plain[: frame + 4] + bytes([bits]) + plain[frame + 5 :]
    for marker in (0xC1, 0xC3, 0xC5, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD):
        yield "JPEG, coding", f"{marker:x}", plain[: frame + 1] + bytes([marker]) + plain[frame + 2 :]
    bases = {
        "RGB": jpeg(draw(seed, w, h)),
        "progressive": jpeg(draw(seed, w, h), progressive=True),
        "L": jpeg(draw(seed, w, h, 1)),
        "CMYK": jpeg(draw(seed, w, h, 4), mode="CMYK"),
        "restarts": jpeg(draw(seed, w, h), restart_marker_blocks=2),
    }
    for mode, data in bases.items():
        for class_, what, file in _one_jpeg(data):
            yield class_, f"{mode}, {what}", file


def _one_jpeg(base: bytes) -> Files:
    scan = segments(base)[-1][1]
    body = scan + 2 + int.from_bytes(base[scan + 2 : scan + 4], "big")
    for marker in (*range(0xE0, 0xF0), 0xFE, 0xC8, 0xDC, 0xDD, 0xDE, 0x01, 0xD0, 0xD9):
        for what, inside in (("empty", b""), ("junk", bytes(range(60))), ("64 KiB", bytes(65533))):
            yield "JPEG, segment", f"{marker:x} {what}", base[:2] + _segment(marker, inside) + base[2:]
        for n_bytes in (0, 1):
            wrong = bytes([0xFF, marker, 0, n_bytes])
            yield "JPEG, segment length wrong", f"{marker:x} {n_bytes}", base[:2] + wrong + base[2:]
    for name, (marker, inside) in _BODIES.items():
        one = _segment(marker, inside)
        yield "JPEG, metadata", name, base[:2] + one + base[2:]
        yield "JPEG, metadata", f"{name} 300 times", base[:2] + one * 300 + base[2:]
        yield "JPEG, metadata", f"{name} before the scan", base[:scan] + one + base[scan:]
        yield "JPEG, metadata", f"{name} behind", base + one
        yield "JPEG, metadata", f"{name} before the end", base[:-2] + one + base[-2:]
        for n_bytes in (2, max(2, len(inside) - 1), len(inside) + 7, 65535):
            wrong = one[:2] + struct.pack(">H", n_bytes) + one[4:]
            yield "JPEG, segment length wrong", f"{name} {n_bytes}", base[:2] + wrong + base[2:]
    for numbers in ((1, 2, 3), (1, 3), (3, 1, 2), (1, 1, 1), tuple(range(1, 256))):
        icc = b"".join(_segment(0xE2, b"ICC_PROFILE\0" + bytes([n, len(numbers)]) + bytes(9000)) for n in numbers)
        yield "JPEG, profile in pieces", f"{numbers[:4]}", base[:2] + icc + base[2:]
    for what, junk in (("fill bytes", b"\xff" * 100), ("zeros", bytes(100)), ("other bytes", b"ab" * 9)):
        for at in (2, segments(base)[1][1], scan):
            yield "JPEG, bytes between segments", f"{what} at {at}", base[:at] + junk + base[at:]
        yield "JPEG, bytes before the end", what, base[:-2] + junk + base[-2:]
    yield "JPEG, bytes behind", "a megabyte", base + bytes(1 << 20)
    yield "JPEG, bytes behind", "another JPEG", base + base
    yield "JPEG, no end", "", base[:-2]
    if b"\xff\xc2" not in base:
        yield "JPEG, an image begins where the file should end", "", base[:-2] + b"\xff\xd8"
    for share in (0, 0.1, 0.3, 0.5, 0.9):
        at = body + int((len(base) - body) * share)
        damages = {
            "cut": base[:at],
            "ends early": base[:at] + b"\xff\xd9",
            "restart": base[:at] + b"\xff\xd3" + base[at:],
            "marker": base[:at] + b"\xff\xe5" + base[at:],
            "zeros": base[:at] + bytes(8) + base[at + 8 :],
            "lost bytes": base[:at] + base[at + 5 :],
        }
        for what, data in damages.items():
            yield "JPEG, pixels damaged", f"{what} at {share}", data
    restarts = [at for at in range(body, len(base) - 2) if base[at] == 0xFF and 0xD0 <= base[at + 1] <= 0xD7]
    for at in restarts[::3]:
        yield "JPEG, restarts damaged", f"lost at {at}", base[:at] + base[at + 2 :]
        yield "JPEG, restarts damaged", f"wrong at {at}", base[: at + 1] + b"\xd7" + base[at + 2 :]
        yield "JPEG, restarts damaged", f"twice at {at}", base[:at] + base[at : at + 2] + base[at:]
        yield "JPEG, restarts damaged", f"a part lost at {at}", base[:at] + base[min([*restarts, len(base)][1:]) :]


# --- WebP ------------------------------------------------------------------------------------------------------------


def _riff(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def _riff_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], 12
    while at + 8 <= len(data):
        (n_bytes,) = struct.unpack_from("<I", data, at + 4)
        found.append((data[at : at + 4], data[at + 8 : at + 8 + n_bytes]))
        at += 8 + n_bytes + n_bytes % 2
    return found


def _webp(*chunks: bytes | tuple[bytes, bytes]) -> bytes:
    body = b"WEBP" + b"".join(c if isinstance(c, bytes) else _riff(*c) for c in chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _webps(seed: int, w: int, h: int) -> Files:
    rgb, rgba = Image.fromarray(draw(seed, w, h)), Image.fromarray(draw(seed, w, h, 4))
    bases = {
        "lossy": save(rgb, "WEBP"),
        "lossless": save(rgb, "WEBP", lossless=True),
        "lossy, alpha": save(rgba, "WEBP"),
        "lossless, alpha": save(rgba, "WEBP", lossless=True),
        "animated": save(rgb, "WEBP", save_all=True, append_images=[rgba]),
        "animated, alpha": save(rgba, "WEBP", save_all=True, append_images=[rgb], lossless=True),
    }
    turned = exif_block(6)
    extras = {
        "ICCP": (0x20, b"junk!"),
        "EXIF": (8, turned),
        "EXIF byte": (8, exif_block(6, kind=1)),
        "EXIF long": (8, exif_block(6, kind=4)),
        "EXIF big endian": (8, exif_block(6, ">")),
        "EXIF junk": (8, b"junk!"),
        "EXIF empty": (8, b""),
        "EXIF, a megabyte": (8, turned + bytes(1 << 20)),
        "XMP ": (4, b"<x"),
        "ABCD": (0, b"abc"),
    }
    short = "WebP, size in the header wrong, or the last byte missing"
    for mode, data in bases.items():
        cs = _riff_chunks(data)
        broken = "WebP, animated, metadata damaged" if "animated" in mode else "WebP, metadata damaged"
        for n_bytes in (1, 2, 3, 5000, 1 << 20):
            yield "WebP, bytes behind", f"{mode} {n_bytes}", data + b"x" * n_bytes
        for n_bytes in (0, 12, len(data) - 10, len(data) - 9, len(data) + 100, 0xFFFFFFFF, 0xFFFFFFF6):
            yield short, f"{mode} {n_bytes}", data[:4] + struct.pack("<I", n_bytes) + data[8:]
        for n_bytes in (1, 2, 10, len(data) // 2, len(data) - 30):
            yield (short if n_bytes == 1 else "WebP, cut"), f"{mode} {n_bytes}", data[:-n_bytes]
        size = (w - 1).to_bytes(3, "little") + (h - 1).to_bytes(3, "little")
        extended = (
            cs if cs[0][0] == b"VP8X" else [(b"VP8X", bytes([0x10 if "alpha" in mode else 0, 0, 0, 0]) + size), *cs]
        )
        (_, header), pixels = extended[0], extended[1:]

        def flagged(flag: int, header: bytes = header) -> tuple[bytes, bytes]:
            return b"VP8X", bytes([header[0] | flag]) + header[1:]

        yield broken, f"{mode} reserved flags", _webp(flagged(0xC1), *pixels)
        yield "WebP, flags", f"{mode} not there", _webp(flagged(0x2C), *pixels)
        yield "WebP, many chunks", mode, _webp(flagged(0), *[(b"abcd", b"x")] * 5000, *pixels)
        for name, (flag, body) in extras.items():
            word, tag = f"{mode} {name}", name[:4].encode()
            extra = (tag, body)
            yield "WebP, metadata", word, _webp(flagged(flag), *pixels, extra)
            yield "WebP, metadata", f"{word} before", _webp(flagged(flag), extra, *pixels)
            yield "WebP, metadata", f"{word} twice", _webp(flagged(flag), extra, *pixels, extra)
            yield "WebP, metadata", f"{word} without flag", _webp(flagged(0), *pixels, extra)
            yield "WebP, metadata", f"{word} without header", _webp(*cs, extra)
            yield "WebP, metadata", f"{word} behind", _webp(*extended) + _riff(*extra)
            yield broken, f"{word} cut", _webp(flagged(flag), *pixels, _riff(*extra)[:-2])
            for n_bytes in (len(body) + 50, 0xFFFFFFF0):
                wrong = tag + struct.pack("<I", n_bytes) + body
                yield broken, f"{word} {n_bytes}", _webp(flagged(flag), *pixels, wrong)
        class_ = "WebP, EXIF orientation after `Exif\\0\\0`"
        yield class_, mode, _webp(flagged(8), *pixels, (b"EXIF", b"Exif\0\0" + turned))


# --- GIF -------------------------------------------------------------------------------------------------------------


def _extension(label: int, *blocks: bytes) -> bytes:
    return bytes([0x21, label]) + b"".join(bytes([len(block)]) + block for block in blocks) + b"\0"


def _gifs(seed: int, w: int, h: int) -> Files:
    colours, indices = palette_bytes(seed, 128), draw(seed, w, h, 1) // 2
    base = gif([(indices, 0, 0)], (w, h), colours)
    start = 13 + len(colours)  # of the control extension, of 8 bytes
    between = "GIF, unknown bytes, disposal or control between blocks"
    extensions = {
        "comment": _extension(0xFE, b"hello"),
        "comment, empty": _extension(0xFE),
        "comment, a megabyte": _extension(0xFE, *[bytes(255)] * 4000),
        "comments, many": _extension(0xFE, b"x") * 5000,
        "loop": _extension(0xFF, b"NETSCAPE2.0", b"\1\0\0"),
        "loop, cut": _extension(0xFF, b"NETSCAPE2.0", b"\1"),
        "loop, empty": _extension(0xFF, b"NETSCAPE2.0"),
        "application, short": _extension(0xFF, b"NETS"),
        "application, empty": _extension(0xFF),
        "profile": _extension(0xFF, b"ICCRGBG1012", *[bytes(255)] * 400),
        "XMP": _extension(0xFF, b"XMP DataXMP")[:-1] + b"<x:xmpmeta/>" * 30 + b"\1" + bytes(range(255, -1, -1)) + b"\0",
        "plain text": _extension(1, bytes(12), b"hi"),
        "plain text, short": _extension(1, b"x"),
        "unknown": _extension(0x77, b"x" * 30),
        "control, of two blocks": _extension(0xF9, b"\1\0\0\5", b"ab"),
        "control, transparent": _extension(0xF9, b"\1\0\0\x3c"),
        "control, transparent beyond the palette": _extension(0xF9, b"\1\0\0\xc8"),
        "control, reserved bits": _extension(0xF9, b"\xe0\0\0\0"),
    }
    for name, extension in extensions.items():
        for at in (start, start + 8, len(base) - 1, len(base)):
            yield "GIF, extension", f"{name} at {at - start}", base[:at] + extension + base[at:]
        yield "GIF, extension", f"{name} alone", base[:start] + extension + base[start + 8 :]
    for name, odd in {
        "control, short": _extension(0xF9, b"\0\0"),
        "control, empty": _extension(0xF9),
        "zeros": bytes(5),
        "junk": b"\1\2\3",
        "control, long": _extension(0xF9, b"\1\0\0\5\0\0\0"),
        "disposal 4": _extension(0xF9, b"\x10\0\0\0"),
        "disposal 7": _extension(0xF9, b"\x1c\0\0\0"),
    }.items():
        yield between, f"{name} before", base[:start] + odd + base[start + 8 :]
    yield "GIF, no end after the first frame", "", base[:-1]
    yield "GIF, bytes behind", "", base + bytes(1 << 20)
    yield "GIF, version", "87a", b"GIF87a" + base[6:]
    yield "GIF, version", "88a", b"GIF88a" + base[6:]
    for n_bytes in (10, 50, len(base) // 2, len(base) - 20, len(base) - start):
        yield "GIF, cut", f"{n_bytes}", base[:-n_bytes]
        yield "GIF, cut", f"{n_bytes} with an end", base[:-n_bytes] + b"\x3b"
    for background in (0, 5, 127, 128, 255):
        class_ = "GIF, background index not in the palette" if background > 127 else "GIF, layout"
        for transparent in (None, 0, 60):
            for local in (None, palette_bytes(9, 128)):
                for interlaced in (False, True):
                    for disposal in range(4):
                        for frame in ((indices, 0, 0), (indices[: h // 2, : w // 2], w // 4, h // 5)):
                            frames = [frame] + [(indices, 0, 0)] * (disposal > 1)
                            word = f"{background} {transparent} {local is None} {interlaced} {disposal} {frame[1]}"
                            options = (background, transparent, local, interlaced, disposal)
                            yield class_, word, gif(frames, (w, h), colours, *options)
    outside = "GIF, frame beyond the canvas, or indices beyond the palette"
    yield outside, "beyond", gif([(indices, w // 4, 0)], (w, h), colours)
    for flags, n in ((0, 2), (3, 16)):
        few = base[:10] + bytes([0xF0 | flags]) + base[11:13] + colours[: 3 * n] + base[start:]
        yield outside, f"{n} colours", few
    bare = base[:10] + b"\x70" + base[11:13]
    yield "GIF, no palette", "", bare + base[start:]
    for transparent in (None, 60):
        for frame in ((indices, 0, 0), (indices[: h // 2, : w // 2], w // 4, h // 5)):
            local = gif([frame], (w, h), colours, 0, transparent, colours)[start:]
            yield "GIF, local palette only", f"{transparent} {frame[1]}", bare + local


# --- BMP, PNM, PFM, PAM ----------------------------------------------------------------------------------------------


def _bmp(
    rows: bytes,
    bits: int,
    size: tuple[int, int],
    header: int = 40,
    compression: int = 0,
    masks: tuple[int, ...] = (),
    palette: bytes = b"",
    gap: bytes = b"",
    n_used: int | None = None,
    offset: int | None = None,
    file_size: int | None = None,
) -> bytes:
    w, h = size
    fields = struct.pack(f"<{len(masks)}I", *masks)
    if header == 12:
        info = struct.pack("<IHHHH", 12, w, h, 1, bits)
    else:
        n_colours = len(palette) // 4 if n_used is None else n_used
        info = struct.pack("<IiiHHIIiiII", header, w, h, 1, bits, compression, len(rows), 2835, 2835, n_colours, 0)
        if header >= 52:
            info, fields = info + (fields + bytes(16))[: 16 if header >= 56 else 12], b""
        info = (info + bytes(max(0, header - len(info))))[:header]
    start = 14 + len(info) + len(fields) + len(palette) + len(gap)
    head = (start + len(rows) if file_size is None else file_size, 0, 0, start if offset is None else offset)
    return struct.pack("<2sIHHI", b"BM", *head) + info + fields + palette + gap + rows


def _rows(pixels: Array, bits: int) -> bytes:
    lines = []
    for row in pixels[::-1]:
        if bits in (16, 32):
            line = row.astype(f"<u{bits // 8}").tobytes()
        elif bits < 8:
            spread = row[:, None].astype(np.uint8) >> np.arange(bits - 1, -1, -1, dtype=np.uint8) & 1
            line = np.packbits(spread.reshape(-1)).tobytes()
        else:
            line = row.tobytes()
        lines.append(line + b"\0" * (-len(line) % 4))
    return b"".join(lines)


def _bmps(seed: int, w: int, h: int) -> Files:
    size, grey = (w, h), draw(seed, w, h, 1)
    words = {16: draw16(seed, w, h, 1), 24: draw(seed, w, h), 32: draw(seed, w, h, 4).copy().view("<u4")[..., 0]}
    for bits in (1, 4, 8):
        n = 1 << bits
        rows, colours = _rows(grey.astype(np.uint16) * n // 256, bits), palette_bytes(seed, n, 4)
        for header in (16, 36, 40, 52, 56, 64, 108, 124, 128, 200):
            yield "BMP, header", f"{bits} bits, {header}", _bmp(rows, bits, size, header, palette=colours)
        yield "BMP, header", f"{bits} bits, 12", _bmp(rows, bits, size, 12, palette=palette_bytes(seed, n))
        for n_used in (1, n // 2, n, n + 3):
            few = palette_bytes(seed, n_used, 4)
            yield "BMP, palette", f"{bits} bits, {n_used}", _bmp(rows, bits, size, palette=few, n_used=n_used)
        ramp = b"".join(bytes([value * 255 // (n - 1)] * 3) + b"\0" for value in range(n))
        yield "BMP, palette", f"{bits} bits, grey", _bmp(rows, bits, size, palette=ramp)
    for bits, pixels in words.items():
        rows = _rows(pixels, bits)
        for header in (36, 40, 52, 56, 64, 108, 124, 128) + (() if bits == 16 else (12,)):
            yield "BMP, header", f"{bits} bits, {header}", _bmp(rows, bits, size, header)
        for what, options in {
            "a gap": {"gap": b"x" * 99},
            "a palette": {"palette": palette_bytes(seed, 16, 4)},
            "file size 0": {"file_size": 0},
            "offset too large": {"offset": 64},
            "offset too small": {"offset": 44},
            "300 colours used": {"n_used": 300},
        }.items():
            yield "BMP, header wrong", f"{bits} bits, {what}", _bmp(rows, bits, size, **options)
        yield "BMP, offset of the pixels 0", f"{bits}", _bmp(rows, bits, size, offset=0)
        yield "BMP, bytes behind", f"{bits}", _bmp(rows, bits, size) + b"x" * 999
        yield "BMP, cut", f"{bits}", _bmp(rows, bits, size)[:-1]
        yield (
            ("BMP, 16 bits, masks announced and not there" if bits == 16 else "BMP, masks not there"),
            f"{bits}",
            _bmp(rows, bits, size, compression=3),
        )
    rows16, rows32 = _rows(words[16], 16), _rows(words[32], 32)
    for masks in ((0x7C00, 0x3E0, 0x1F), (0xF800, 0x7E0, 0x1F), (0xF00, 0xF0, 0xF), (0x1F, 0x7E0, 0xF800)):
        yield "BMP, 16 bits, masks", f"{masks}", _bmp(rows16, 16, size, 40, 3, masks)
        for header in (52, 56, 108, 124):
            read = masks[2] == 0x1F
            class_ = "BMP, 16 bits, masks in a header of 52 to 124 bytes" if read else "BMP, 16 bits, other masks"
            yield class_, f"{masks} {header}", _bmp(rows16, 16, size, header, 3, masks)
    for masks in (
        (0xFF0000, 0xFF00, 0xFF),
        (0xFF, 0xFF00, 0xFF0000),
        (0xFF000000, 0xFF0000, 0xFF00),
        (0xFF00, 0xFF0000, 0xFF000000),
        (0x3FF00000, 0xFFC00, 0x3FF),
        (0x7C00, 0x3E0, 0x1F),
        (0xFFE00000, 0x1FFC00, 0x3FF),
        (0x7, 0x38, 0xC0),
        (0xFF0000, 0xFF00, 0xFF, 0xFF000000),
        (0xFF, 0xFF00, 0xFF0000, 0xFF000000),
    ):
        for header in (56, 64, 108, 124):
            yield "BMP, 32 bits, masks", f"{masks} {header}", _bmp(rows32, 32, size, header, 3, masks)
        if masks[0] != 0xFF0000:
            for header in (40, 52) if len(masks) == 3 else (52,):
                class_ = "BMP, 32 bits, masks in a header of 40 or 52 bytes"
                yield class_, f"{masks} {header}", _bmp(rows32, 32, size, header, 3, masks)
    yield "BMP, 32 bits, a mask of zero", "", _bmp(rows32, 32, size, 56, 3, (0xFF0000, 0, 0xFF))
    for bits in (4, 8):
        yield from _rle(seed, size, bits)


def _codes(rows: Array, bits: int, absolute: bool, line_ends: bool = True, end: bytes = b"\0\1") -> bytes:
    out = bytearray()
    for row in rows:
        values = [int(value) for value in row]
        at = 0
        while at < len(values):
            if absolute and len(values) - at > 2:
                part = values[at : at + 250]
                pairs = zip(part[::2], [*part[1::2], 0], strict=False)
                body = bytes(part) if bits == 8 else bytes(a << 4 | b for a, b in pairs)
                out += bytes([0, len(part)]) + body + b"\0" * (len(body) % 2)
                at += len(part)
            else:
                stop = at
                while stop < len(values) and values[stop] == values[at] and stop - at < 255:
                    stop += 1
                out += bytes([stop - at, values[at] * (17 if bits == 4 else 1)])
                at = stop
        out += b"\0\0" * line_ends
    return bytes(out) + end


def _rle(seed: int, size: tuple[int, int], bits: int) -> Files:
    w, h = size
    rows = (draw(seed, w, h, 1).astype(np.uint16) * (1 << bits) // 256)[::-1].copy()
    rows[:, w // 4 : w // 2] = rows[:, w // 4 : w // 4 + 1]
    colours = palette_bytes(seed, 1 << bits, 4)
    odd = "BMP, RLE, absolute codes without line ends, jumps, or early ends"

    def file(codes: bytes, header: int = 40) -> bytes:
        return _bmp(codes, bits, size, header, 3 - bits // 4 if bits == 8 else 2, palette=colours)

    for absolute in (False, True):
        word = f"{bits} bits, {'absolute' if absolute else 'runs'}"
        whole = _codes(rows, bits, absolute)
        yield "BMP, RLE", word, file(whole)
        for header in (36, 108, 128):
            yield "BMP, RLE", f"{word}, {header}", file(whole, header)
        yield "BMP, RLE", f"{word}, no end", file(_codes(rows, bits, absolute, end=b""))
        yield "BMP, RLE", f"{word}, short rows", file(_codes(rows[:, : w - 7], bits, absolute))
        yield "BMP, RLE", f"{word}, too many rows", file(_codes(np.pad(rows, ((0, 3), (0, 0))), bits, absolute))
        yield "BMP, RLE", f"{word}, bytes behind", file(whole + b"junk" * 9)
        yield "BMP, RLE, cut", word, file(whole[: len(whole) // 2])
        few = _codes(rows[:-5], bits, absolute)
        yield ("BMP, RLE" if bits == 8 else odd), f"{word}, few rows", file(few)
        bare = _codes(rows, bits, absolute, line_ends=False)
        yield (odd if absolute or bits == 4 else "BMP, RLE"), f"{word}, no line ends", file(bare)
        wide = _codes(np.pad(rows, ((0, 0), (0, 3))), bits, absolute)
        late = "BMP, RLE8, coded bytes after the end of a row"
        yield (odd if absolute or bits == 4 else late), f"{word}, wide rows", file(wide)
    jump = _codes(rows[:10], bits, True, end=b"\0\2\5\3") + _codes(rows[13:14, 5:], bits, True, end=b"")
    yield ("BMP, RLE" if bits == 8 else odd), f"{bits} bits, jump", file(jump + _codes(rows[14:], bits, True))


def _pnms(seed: int, w: int, h: int) -> Files:
    grey, colours = draw(seed, w, h, 1), draw(seed, w, h)
    bit = (grey > 128).astype(np.uint8)
    for kind in range(1, 7):
        pixels = {1: bit, 4: bit, 2: grey, 5: grey, 3: colours, 6: colours}[kind]
        file = pnm(pixels, kind)
        lines = 3 if kind in (1, 4) else 4
        body = file.split(b"\n", lines)[lines]
        p, size, top = b"P%d" % kind, b"%d %d" % (w, h), b"" if kind in (1, 4) else b"255\n"
        for what, head in {
            "plain": p + b"\n" + size + b"\n" + top,
            "comments": p + b"\n# a\n#\n" + size.replace(b" ", b" # b\n ") + b"\n" + top,
            "comment behind the mark": p + b"# a\n" + size + b"\n" + top,
            "long comment": p + b"\n#" + b"x" * 100_000 + b"\n" + size + b"\n" + top,
            "many comments": p + b"\n" + b"# a\n" * 2000 + size + b"\n" + top,
            "CR": p + b"\r" + size + b"\r" + top.replace(b"\n", b"\r"),
            "tabs": p + b"\t" + size.replace(b" ", b"\t") + b"\t" + top.replace(b"\n", b"\t"),
            "zeros in front": p + b"\n00" + size.replace(b" ", b" 000000000000000") + b"\n" + top,
            "negative": p + b"\n-" + size + b"\n" + top,
            "nothing": p + b"\n0 0\n" + top,
        }.items():
            yield "PNM, header", f"P{kind} {what}", head + body
        yield "PNM, bytes behind", f"P{kind}", file + b" 12 13 14 " * 50
        yield "PNM, cut", f"P{kind}", file[: len(file) * 2 // 3]
        if kind in (4, 5, 6):
            yield "PNM, cut", f"P{kind} by one", file[:-1]
        if kind in (1, 2, 3):
            yield "PNM, comments between numbers", f"P{kind}", file[: -len(body)] + body.replace(b"\n", b" # c\n")
            yield "PNM, nothing after the last number", f"P{kind}", file[:-1]
        if kind not in (1, 4):
            for largest in (1, 2, 5, 100, 127, 254, 256, 300, 1000, 1023, 4095, 65534, 65535):
                values = pixels.astype(np.int64) * largest // 255
                yield "PNM, largest value", f"P{kind} {largest}", pnm(values, kind, largest)
            yield "PNM, values above the largest", f"P{kind}", file.replace(b"\n255\n", b"\n200\n", 1)
            for largest in (0, 65536):
                wrong = file.replace(b"\n255\n", b"\n%d\n" % largest, 1)
                yield "PNM, largest value", f"P{kind} {largest}", wrong
    floats = b"Pf\n%d %d\n-1.0\n" % (w, h) + grey[::-1].astype("<f4").tobytes()
    yield "PFM", "", floats
    pam = b"P7\nWIDTH %d\nHEIGHT %d\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n" % (w, h)
    yield "PAM, Radiance HDR", "PAM", pam + colours.tobytes()
    yield "PAM, Radiance HDR", "HDR", cv2.imencode(".hdr", colours.astype(np.float32) / 255)[1].tobytes()


# --- AVIF, JPEG 2000 -------------------------------------------------------------------------------------------------


def _box(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body) + 8) + name + body


def _avifs(seed: int, w: int, h: int) -> Files:
    rgb, rgba = Image.fromarray(draw(seed, w, h)), Image.fromarray(draw(seed, w, h, 4))
    grey = Image.fromarray(draw(seed, w, h, 1))
    bases = {
        "RGB": save(rgb, "AVIF", speed=10),
        "RGBA": save(rgba, "AVIF", speed=10),
        "4:4:4": save(rgb, "AVIF", speed=10, subsampling="4:4:4"),
        "4:2:2": save(rgb, "AVIF", speed=10, subsampling="4:2:2"),
        "4:0:0": save(rgb, "AVIF", speed=10, subsampling="4:0:0"),
        "L": save(grey, "AVIF", speed=10),
        "limited": save(rgb, "AVIF", speed=10, range="limited"),
        "XMP": save(rgb, "AVIF", speed=10, xmp=b"<x/>"),
        "profile": save(rgb, "AVIF", speed=10, icc_profile=b"x" * 300),
        "EXIF": save(rgb, "AVIF", speed=10, exif=exif_block(1).replace(b"\x12\1", b"\x0f\1")),  # the maker
        "animated": save(rgb, "AVIF", speed=10, save_all=True, append_images=[rgb.rotate(180)]),
    }
    for mode, data in bases.items():
        yield "AVIF, whole", mode, data
        (n_bytes,) = struct.unpack_from(">I", data)
        rest = data[n_bytes:]
        for what, tail in {
            "box": _box(b"free", bytes(100)),
            "a megabyte": _box(b"free", bytes(1 << 20)),
            "UUID": _box(b"uuid", bytes(40)),
            "junk": b"x" * 100,
            "zeros": bytes(64),
            "box too long": b"\x7f\xff\xff\xffABCD",
        }.items():
            yield "AVIF, bytes behind", f"{mode} {what}", data + tail
        for cut in (1, 10, len(rest) // 2, len(rest) - 20):
            yield "AVIF, cut", f"{mode} {cut}", data[:-cut]
        if mode == "RGB":
            for major in (b"avif", b"avis", b"mif1", b"msf1", b"miaf", b"MA1B", b"heic", b"isom"):
                for others in ((b"avif", b"mif1", b"miaf"), (b"mif1", b"avif", b"heic"), (b"heic", b"mif1", b"mif2")):
                    # The same size as before: places in the file count from its start.
                    brands = (others * 9)[: (n_bytes - 16) // 4]
                    head = _box(b"ftyp", major + bytes(4) + b"".join(brands))
                    yield "AVIF, brands", f"{major!r} {others}", head + rest
        if mode == "EXIF":
            at = data.rindex(b"II*\0")
            yield "AVIF, EXIF damaged", "junk", data[:at] + b"junkjunk" + data[at + 8 :]
            yield "AVIF, EXIF damaged", "offset", data[: at - 4] + b"\xff" * 4 + data[at:]
            yield "AVIF, EXIF damaged", "entries", data[: at + 8] + b"\xff\xff" + data[at + 10 :]
    for value in (2, 3, 6):
        yield "AVIF, orientation", f"{value}", save(rgb, "AVIF", speed=10, exif=exif_block(value))
    yield "AVIF, grey, limited range", "", save(grey, "AVIF", speed=10, range="limited")
    for bits in (10, 12):
        for channels in (1, 3, 4):
            samples = (draw16(seed, w, h, channels) >> (16 - bits)).astype(np.uint16)
            options = [cv2.IMWRITE_AVIF_DEPTH, bits, cv2.IMWRITE_AVIF_SPEED, 9]
            file = cv2.imencode(".avif", samples, options)[1].tobytes()
            class_ = "AVIF, grey, 10 or 12 bits" if channels == 1 else "AVIF, 10 or 12 bits"
            yield class_, f"{bits} {channels}", file


def _jp2s(seed: int, w: int, h: int) -> Files:
    bases = {
        "L": Image.fromarray(draw(seed, w, h, 1)),
        "LA": Image.fromarray(draw(seed, w, h, 2)),
        "RGB": Image.fromarray(draw(seed, w, h)),
        "RGBA": Image.fromarray(draw(seed, w, h, 4)),
        "I;16": Image.fromarray(draw16(seed, w, h, 1)),
    }
    extras = {
        "free": _box(b"free", bytes(50)),
        "XML": _box(b"xml ", b"<x/>"),
        "UUID": _box(b"uuid", bytes(60)),
        "a megabyte": _box(b"uuid", bytes(3 << 20)),
        "resolution": _box(b"res ", _box(b"resc", bytes(10))),
    }
    for mode, image in bases.items():
        data = save(image, "JPEG2000")
        at = data.index(b"jp2h") - 4
        behind = at + int.from_bytes(data[at : at + 4], "big")
        for what, box in extras.items():
            for where in (at, behind, len(data)):
                yield "JPEG 2000, box", f"{mode} {what} at {where}", data[:where] + box + data[where:]
            grown = struct.pack(">I", behind - at + len(box))
            yield (
                "JPEG 2000, box",
                f"{mode} {what} inside",
                data[:at] + grown + data[at + 4 : behind] + box + data[behind:],
            )
        yield "JPEG 2000, bytes behind", mode, data + b"\0\0\0\3abcd"
        yield "JPEG 2000, bytes behind", f"{mode} x", data + b"x" * 99
        for options in (
            {"irreversible": True},
            {"tile_size": (16, 16)},
            {"num_resolutions": 1},
            {"plt": True},
            {"mct": 0},
        ):
            yield "JPEG 2000, whole", f"{mode} {options}", save(image, "JPEG2000", **options)
        class_ = "JPEG 2000, without boxes" if mode.startswith("RGB") else "JPEG 2000, grey without boxes"
        yield class_, mode, save(image, "JPEG2000", no_jp2=True)
    yield "JPEG 2000, YCbCr", "", save(bases["RGB"].convert("YCbCr"), "JPEG2000")
    rgb = save(bases["RGB"], "JPEG2000")
    at = rgb.index(b"colr")
    yield "JPEG 2000, colours called grey", "", rgb[: at + 7] + struct.pack(">I", 17) + rgb[at + 11 :]
    yield from _jp2_palettes(seed, w, h, rgb)
    deep = cv2.imencode(".jp2", draw16(seed, max(w, 80), max(h, 80)), [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000])[
        1
    ].tobytes()
    yield "JPEG 2000, 16-bit colour", "", deep


def _jp2_palettes(seed: int, w: int, h: int, rgb: bytes) -> Files:
    pixels = save(Image.fromarray((draw(seed, w, h, 1) // 16).astype(np.uint8)), "JPEG2000", no_jp2=True)
    colours = palette_bytes(seed, 16)

    def file(*boxes: bytes, space: int = 16) -> bytes:
        header = _box(b"ihdr", struct.pack(">IIHBBBB", h, w, 1, 7, 7, 0, 0))
        header += _box(b"colr", b"\1\0\0" + struct.pack(">I", space)) + b"".join(boxes)
        start = b"\0\0\0\x0cjP  \r\n\x87\n" + _box(b"ftyp", b"jp2 \0\0\0\0jp2 ")
        return start + _box(b"jp2h", header) + _box(b"jp2c", pixels)

    def order(*triples: tuple[int, int, int]) -> bytes:
        return _box(b"cdef", struct.pack(">H", len(triples)) + b"".join(struct.pack(">HHH", *t) for t in triples))

    palette = _box(b"pclr", struct.pack(">HB", 16, 3) + b"\7\7\7" + colours)
    mapping = _box(b"cmap", b"".join(struct.pack(">HBB", 0, 1, k) for k in range(3)))
    turned = order((0, 0, 3), (1, 0, 2), (2, 0, 1))
    yield "JPEG 2000, palette", "", file(palette, mapping)
    yield "JPEG 2000, palette", "in order", file(palette, mapping, order((0, 0, 1), (1, 0, 2), (2, 0, 3)))
    another = "JPEG 2000, channels in another order (`cdef`)"
    yield another, "palette", file(palette, mapping, turned)
    at = rgb.index(b"jp2h") - 4
    behind = at + int.from_bytes(rgb[at : at + 4], "big")
    grown = struct.pack(">I", behind - at + len(turned))
    yield another, "RGB", rgb[:at] + grown + rgb[at + 4 : behind] + turned + rgb[behind:]
    grey = _box(b"pclr", struct.pack(">HB", 16, 1) + b"\7" + colours[:16])
    yield "JPEG 2000, grey palette", "", file(grey, _box(b"cmap", struct.pack(">HBB", 0, 1, 0)), space=17)


_KINDS: dict[str, Callable[[int, int, int], Files]] = {
    "PNG": _pngs,
    "JPEG": _jpegs,
    "WebP": _webps,
    "GIF": _gifs,
    "BMP": _bmps,
    "PNM": _pnms,
    "AVIF": _avifs,
    "JPEG 2000": _jp2s,
}
KINDS = tuple(_KINDS)
