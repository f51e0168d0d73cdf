"""Writers for PNG, TIFF, BMP, GIF and PNM, because no library writes all of what their readers must understand."""

import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def exif_block(orientation: int, order: str = "<", kind: int = 3, count: int = 1) -> bytes:
    """Return a TIFF block with one entry, the orientation, without the ``Exif\\0\\0`` that JPEG puts before it."""
    magic = b"II*\0" if order == "<" else b"MM\0*"
    value = struct.pack(order + ("HH" if kind != 4 else "I"), *((orientation, 0) if kind != 4 else (orientation,)))
    return magic + struct.pack(order + "IHHHI", 8, 1, 0x0112, kind, count) + value + struct.pack(order + "I", 0)


def _pack_bits(samples: Array, bits: int) -> bytes:
    """Return rows of samples of 1, 2, 4 or 8 bits, each row filled up to a byte."""
    if bits == 8:
        return samples.astype(np.uint8).tobytes()
    spread = (samples[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(spread.reshape(len(samples), -1).astype(np.uint8), axis=1).tobytes()


_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def png(
    samples: Array,
    bits: int = 8,
    palette: bytes | None = None,
    transparency: bytes | None = None,
    orientation: int | None = None,
    interlaced: bool = False,
    chunks: Sequence[tuple[bytes, bytes]] = (),
    filters: Sequence[int] = (0,),
    chunk_bytes: int = 1 << 30,
) -> bytes:
    """Return a PNG of samples (rows, columns) or (rows, columns, 2 to 4), of 1 to 16 bits.

    Row i of each pass has filter i of `filters`, which is repeated.
    """
    samples = samples if samples.ndim == 3 else samples[..., None]
    height, width, channels = samples.shape
    colour = 3 if palette is not None else {1: 0, 2: 4, 3: 2, 4: 6}[channels]

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    def filtered(part: Array) -> bytes:
        if not part.size:
            return b""
        flat = part.reshape(len(part), -1)
        packed = flat.astype(">u2").tobytes() if bits == 16 else _pack_bits(flat, bits)
        rows = np.frombuffer(packed, np.uint8).reshape(len(part), -1)
        n_before = max(1, bits * channels // 8)
        kinds = [filters[i % len(filters)] for i in range(len(rows))]
        return b"".join(bytes([kind]) + _filter_row(rows, i, n_before, kind) for i, kind in enumerate(kinds))

    passes = [samples[y0::dy, x0::dx] for x0, y0, dx, dy in _ADAM7] if interlaced else [samples]
    parts = [
        b"\x89PNG\r\n\x1a\n",
        chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced)),
    ]
    parts += [chunk(name, body) for name, body in chunks]
    if palette is not None:
        parts.append(chunk(b"PLTE", palette))
    if transparency is not None:
        parts.append(chunk(b"tRNS", transparency))
    if orientation is not None:
        parts.append(chunk(b"eXIf", exif_block(orientation)))
    pixels = zlib.compress(b"".join(map(filtered, passes)))
    parts += [chunk(b"IDAT", pixels[i : i + chunk_bytes]) for i in range(0, len(pixels), chunk_bytes)]
    return b"".join([*parts, chunk(b"IEND", b"")])


def _filter_row(rows: Array, i: int, n_before: int, kind: int) -> bytes:
    """Return a row of bytes as a PNG stores it, by filter 0 to 4."""
    padded = np.pad(rows[max(0, i - 1) : i + 1].astype(np.int32), ((1 if i == 0 else 0, 0), (n_before, 0)))
    here, up, left, corner = padded[1, n_before:], padded[0, n_before:], padded[1], padded[0]
    left, corner = left[: len(here)], corner[: len(here)]
    distances = np.abs([up - corner, left - corner, left + up - 2 * corner])
    paeth = np.choose(distances.argmin(axis=0), [left, up, corner])
    prediction = (0 * here, left, up, (left + up) // 2, paeth)[kind]
    return (here - prediction & 255).astype(np.uint8).tobytes()


def tiff(
    samples: Array,
    bits: int | None = None,
    photometric: int = 1,
    order: str = "<",
    orientation: int | None = None,
    palette: Sequence[int] | None = None,
    extra: int | None = None,
    tile: int | None = None,
    planar: bool = False,
    deflate: bool = False,
    big: bool = False,
    pages: int = 1,
    tags: Sequence[tuple[int, int, Sequence[int]]] = (),
) -> bytes:
    """Return a TIFF of samples (rows, columns) or (rows, columns, channels), any dtype, in strips or tiles."""
    samples = samples if samples.ndim == 3 else samples[..., None]
    height, width, channels = samples.shape
    bits = bits or samples.dtype.itemsize * 8
    kind = {"u": 1, "i": 2, "f": 3}[samples.dtype.kind]

    def pack(part: Array) -> bytes:
        flat = part.reshape(len(part), -1)
        body = flat.astype(flat.dtype.newbyteorder(order)).tobytes() if bits >= 8 else _pack_bits(flat, bits)
        return zlib.compress(body) if deflate else body

    blocks = []
    for plane in np.moveaxis(samples, -1, 0)[..., None] if planar else [samples]:
        if tile:
            padded = np.pad(plane, ((0, -height % tile), (0, -width % tile), (0, 0)))
            blocks += [
                pack(padded[y : y + tile, x : x + tile]) for y in range(0, height, tile) for x in range(0, width, tile)
            ]
        else:
            blocks += [pack(plane[y : y + 16]) for y in range(0, height, 16)]

    out = bytearray(b"II" if order == "<" else b"MM")
    out += struct.pack(order + ("HHHQ" if big else "HI"), *((43, 8, 0, 0) if big else (42, 0)))
    link = len(out) - (8 if big else 4)
    for _ in range(pages):
        offsets = []
        for block in blocks:
            offsets.append(len(out))
            out += block + b"\0" * (len(block) % 2)
        entries = [
            (256, 4, [width]),
            (257, 4, [height]),
            (258, 3, [bits] * channels),
            (259, 3, [8 if deflate else 1]),
            (262, 3, [photometric]),
            (277, 3, [channels]),
            (284, 3, [2 if planar else 1]),
            (339, 3, [kind] * channels),
            *([(274, 3, [orientation])] if orientation is not None else []),
            *([(320, 3, palette)] if palette is not None else []),
            *([(338, 3, [extra])] if extra is not None else []),
            *(
                [(322, 3, [tile]), (323, 3, [tile]), (324, 4, offsets), (325, 4, [len(block) for block in blocks])]
                if tile
                else [(273, 4, offsets), (278, 4, [16]), (279, 4, [len(block) for block in blocks])]
            ),
            *tags,
        ]
        table = bytearray()
        inline = 8 if big else 4
        for tag, type_, values in sorted(entries):
            body = struct.pack(f"{order}{len(values)}{ {3: 'H', 4: 'I'}[type_] }", *values)
            if len(body) > inline:
                place = len(out)
                out += body + b"\0" * (len(body) % 2)
                body = struct.pack(order + ("Q" if big else "I"), place)
            table += struct.pack(order + ("HHQ" if big else "HHI"), tag, type_, len(values)) + body.ljust(inline, b"\0")
        struct.pack_into(order + ("Q" if big else "I"), out, link, len(out))
        out += struct.pack(order + ("Q" if big else "H"), len(entries)) + table
        link = len(out)
        out += b"\0" * inline
    return bytes(out)


def bmp(samples: Array, bits: int, palette: bytes = b"", top_down: bool = False, masks: Sequence[int] = ()) -> bytes:
    """Return a BMP of palette indices (1, 4, 8 bits), packed words (16) or blue, green, red (and x) bytes (24, 32)."""
    height, width = samples.shape[:2]
    rows = samples if top_down else samples[::-1]
    lines = []
    for row in rows:
        line = row.astype("<u2").tobytes() if bits == 16 else _pack_bits(row.reshape(1, -1), min(bits, 8))
        lines.append(line + b"\0" * (-len(line) % 4))
    body = b"".join(lines)
    extra = struct.pack(f"<{len(masks)}I", *masks) + palette
    size = -height if top_down else height
    info = struct.pack(
        "<IiiHHIIiiII", 40, width, size, 1, bits, 3 if masks else 0, len(body), 2835, 2835, len(palette) // 4, 0
    )
    start = 14 + len(info) + len(extra)
    return struct.pack("<2sIHHI", b"BM", start + len(body), 0, 0, start) + info + extra + body


def gif(
    frames: Sequence[tuple[Array, int, int]],
    canvas: tuple[int, int],
    palette: bytes,
    background: int = 0,
    transparent: int | None = None,
    local_palette: bytes | None = None,
    interlaced: bool = False,
    disposal: int = 0,
) -> bytes:
    """Return a GIF of frames (indices, left, top) of 7 bits on a canvas (width, height); palettes have 128 colours."""
    out = bytearray(b"GIF89a" + struct.pack("<HHBBB", *canvas, 0xF6, background, 0) + palette)
    for indices, left, top in frames:
        height, width = indices.shape
        flags = disposal << 2 | (transparent is not None)
        out += b"\x21\xf9\4" + struct.pack("<BHB", flags, 5, transparent or 0) + b"\0"
        out += b"\x2c" + struct.pack(
            "<HHHHB", left, top, width, height, (0x86 if local_palette else 0) | interlaced << 6
        )
        out += (local_palette or b"") + b"\7"
        if interlaced:
            order = [*range(0, height, 8), *range(4, height, 8), *range(2, height, 4), *range(1, height, 2)]
            indices = indices[order]
        # Codes of 8 bits: a clear code after every 100 pixels keeps the table from growing to 9 bits.
        codes = bytearray()
        for at in range(0, indices.size, 100):
            codes += b"\x80" + indices.reshape(-1)[at : at + 100].astype(np.uint8).tobytes()
        codes += b"\x81"
        for at in range(0, len(codes), 255):
            part = codes[at : at + 255]
            out += bytes([len(part)]) + part
        out += b"\0"
    return bytes(out + b"\x3b")


def pnm(samples: Array, kind: int, max_value: int = 255) -> bytes:
    """Return a PBM, PGM or PPM of `kind` 1 to 6."""
    height, width = samples.shape[:2]
    head = f"P{kind}\n# drawn\n{width} {height}\n" + ("" if kind in (1, 4) else f"{max_value}\n")
    if kind <= 3:
        return head.encode() + b"\n".join(b" ".join(b"%d" % v for v in row.reshape(-1)) for row in samples) + b"\n"
    if kind == 4:
        return head.encode() + _pack_bits(samples, 1)
    return head.encode() + samples.astype(">u2" if max_value > 255 else np.uint8).tobytes()
