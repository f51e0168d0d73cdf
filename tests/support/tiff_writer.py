"""A writer of TIFF in all its layouts, for its reader to be held against OpenCV's."""

import io
import itertools
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, TiffImagePlugin

Array = npt.NDArray[Any]
Tag = tuple[int, list[Any]]  # its type, its values

_KINDS = dict(zip((*range(1, 14), 16, 17, 18), "BBHIIbBhiifdIQqQ", strict=True))
BY_PILLOW = {2: "tiff_ccitt", 3: "group3", 4: "group4", 7: "jpeg", 34925: "lzma", 50000: "zstd"}


class Spec(NamedTuple):
    """What a file is like. Sizes in pixels."""

    photometric: int = 1
    bits: int = 8
    n_samples: int = 1
    kind: int | None = None  # SampleFormat
    extra: tuple[int, ...] | None = None
    planes: bool = False
    order: str = "<"
    big: bool = False
    tile: tuple[int, int] | None = None  # columns, rows
    rows: int = 1 << 20  # of a strip
    compression: int = 1
    predictor: int = 1
    fill_order: int = 1
    subsampling: tuple[int, int] = (1, 1)
    map_bits: int = 16

    def __str__(self) -> str:
        return ", ".join(f"{k}={v}" for k, v in self._asdict().items() if v != Spec._field_defaults[k]) or "plain"


def draw(spec: Spec, seed: int, width: int = 37, height: int = 23) -> Array:
    """Return samples (rows, columns, samples), smooth here and rough there, over the whole range of `spec`."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / rng.uniform(2, 9) + rng.uniform(0, 6)) * np.cos(y / rng.uniform(2, 9)) for _ in range(8)]
    values = (
        np.stack(waves[: spec.n_samples], axis=-1) * 0.6 + 0.5 + rng.normal(0, 0.05, (height, width, spec.n_samples))
    )
    values = np.clip(values, 0, 1)
    if spec.kind == 3:
        return (values * 300 - 20).astype({16: np.float16, 64: np.float64}.get(spec.bits, np.float32))
    top = (1 << spec.bits) - 1
    return (
        np.minimum((values * top).astype(object), top).astype(np.uint64)
        if spec.bits > 32
        else (values * top).astype(np.uint64)
    )


def _packed(block: Array, spec: Spec) -> bytes:
    """Return the bytes of rows of samples that are not compressed."""
    rows = block.reshape(len(block), -1)
    if spec.bits in (8, 16, 32, 64):
        letter = "f" if spec.kind == 3 else "u"
        values = rows.astype(np.dtype(f"{spec.order}{letter}{spec.bits // 8}"))
        step = block.shape[-1]
        if spec.predictor == 2:
            codes = values.view(np.dtype(f"{spec.order}u{spec.bits // 8}")).copy()
            codes[:, step:] -= codes[:, :-step].copy()
            return codes.tobytes()
        if spec.predictor == 3:
            parts = values.astype(values.dtype.newbyteorder(">")).view(np.uint8).reshape(*rows.shape, -1)
            flat = np.moveaxis(parts, -1, 1).reshape(len(rows), -1).copy()
            flat[:, step:] -= flat[:, :-step].copy()
            return flat.tobytes()
        return values.tobytes()
    bits = (rows[..., None] >> np.arange(spec.bits - 1, -1, -1, dtype=np.uint64)) & np.uint64(1)
    return np.packbits(bits.reshape(len(rows), -1).astype(np.uint8), axis=1).tobytes()


def _subsampled(block: Array, spec: Spec) -> bytes:
    across, down = spec.subsampling
    height, width = block.shape[:2]
    padded = np.pad(block, ((0, -height % down), (0, -width % across), (0, 0)), "edge")
    units = padded.reshape(padded.shape[0] // down, down, padded.shape[1] // across, across, 3).swapaxes(1, 2)
    luma = units[..., 0].reshape(*units.shape[:2], -1)
    return np.concatenate([luma, units[:, :, :1, 0, 1], units[:, :, :1, 0, 2]], axis=-1).astype(np.uint8).tobytes()


def lzw(data: bytes) -> bytes:
    """Return codes of nine bits, with a fresh table before it would need ten."""
    codes = []
    for at in range(0, len(data) or 1, 240):
        codes += [256, *data[at : at + 240]]
    codes.append(257)
    bits = (np.array(codes)[:, None] >> np.arange(8, -1, -1)) & 1
    return np.packbits(bits.astype(np.uint8).reshape(-1)).tobytes()


def packbits(data: bytes) -> bytes:
    """Return runs of equal bytes, and pieces of others."""
    out = bytearray()
    at = 0
    while at < len(data):
        run = 1
        while run < 128 and at + run < len(data) and data[at + run] == data[at]:
            run += 1
        if run > 2:
            out += bytes((257 - run, data[at]))
        else:
            run = min(50, len(data) - at)
            out += bytes((run - 1,)) + data[at : at + run]
        at += run
    return bytes(out)


def _by_pillow(block: Array, spec: Spec) -> tuple[bytes, dict[int, Tag]]:
    """Return a block as Pillow's libtiff compresses it, and the tags that go with it."""
    samples = block.shape[-1]
    mode = {
        1: "L",
        2: "LA",
        3: "YCbCr" if spec.photometric == 6 else "RGB",
        4: "CMYK" if spec.photometric == 5 else "RGBA",
    }[samples]
    values = block.astype(np.uint8)
    image = Image.frombytes(mode, (block.shape[1], block.shape[0]), values.tobytes())
    if spec.bits == 1:
        image = Image.fromarray(values[..., 0] * np.uint8(255)).convert("1")
    out = io.BytesIO()
    quality = {"quality": 90} if spec.compression == 7 else {}
    image.save(out, "TIFF", compression=BY_PILLOW[spec.compression], tiffinfo={278: block.shape[0]}, **quality)
    with TiffImagePlugin.TiffImageFile(io.BytesIO(out.getvalue())) as written:
        tags = written.tag_v2
        (offset,), (count,) = tags[273], tags[279]
        more: dict[int, Tag] = {tag: (4, [tags[tag]]) for tag in (292, 293) if tag in tags}
        if 347 in tags:
            more[347] = (7, list(tags[347]))
        if 530 in tags:
            more[530] = (3, list(tags[530]))
    return out.getvalue()[offset : offset + count], more


_CODECS: dict[int, Callable[[bytes], bytes]] = {
    1: bytes,
    5: lzw,
    8: zlib.compress,
    32946: zlib.compress,
    32773: packbits,
}


def _reversed(body: bytes) -> bytes:
    bits = np.unpackbits(np.frombuffer(body, np.uint8)[:, None], axis=1)
    return np.packbits(bits[:, ::-1], axis=1).tobytes()


def blocks(spec: Spec, samples: Array) -> tuple[list[bytes], dict[int, Tag]]:
    """Return the strips or tiles of an image, compressed, and the tags that its compression needs."""
    height, width = samples.shape[:2]
    across, down = spec.tile or (width, min(spec.rows, height))
    out: list[bytes] = []
    more: dict[int, Tag] = {}
    for plane in np.moveaxis(samples, -1, 0)[..., None] if spec.planes else [samples]:
        for top in range(0, height, down):
            for left in range(0, width, across):
                part = plane[top : top + down, left : left + across]
                if spec.tile:
                    part = np.pad(part, ((0, down - part.shape[0]), (0, across - part.shape[1]), (0, 0)), "edge")
                if spec.compression in BY_PILLOW:
                    body, more = _by_pillow(part, spec)
                    out.append(_reversed(body) if spec.fill_order == 2 and spec.compression != 7 else body)
                    continue
                plain = spec.photometric != 6 or spec.planes or spec.subsampling == (1, 1)
                body = _packed(part, spec) if plain else _subsampled(part, spec)
                body = {8: zlib.compress, 32946: zlib.compress, 5: lzw, 32773: packbits}.get(spec.compression, bytes)(
                    body
                )
                out.append(_reversed(body) if spec.fill_order == 2 else body)
    return out, more


def colour_map(spec: Spec, seed: int) -> list[int]:
    rng = np.random.default_rng(seed)
    n_colours = 1 << spec.bits
    values = np.sort(rng.integers(0, 1 << spec.map_bits, 3 * n_colours)) ^ 1
    return [int(v) for v in (values if spec.map_bits == 16 else np.minimum(values, 255))]


def tags_of(spec: Spec, width: int, height: int, seed: int = 0) -> dict[int, Tag]:
    """Return every tag but those of the blocks."""
    n = spec.n_samples
    return {
        256: (4, [width]),
        257: (4, [height]),
        258: (3, [spec.bits] * n),
        259: (3, [spec.compression]),
        262: (3, [spec.photometric]),
        277: (3, [n]),
        **({284: (3, [2])} if spec.planes else {}),
        **({266: (3, [2])} if spec.fill_order == 2 else {}),
        **({317: (3, [spec.predictor])} if spec.predictor != 1 else {}),
        **({339: (3, [spec.kind] * n)} if spec.kind is not None else {}),
        **({338: (3, list(spec.extra))} if spec.extra is not None else {}),
        **({320: (3, colour_map(spec, seed))} if spec.photometric == 3 and spec.bits <= 8 else {}),
        **({530: (3, list(spec.subsampling))} if spec.photometric == 6 else {}),
        **({322: (3, [spec.tile[0]]), 323: (3, [spec.tile[1]])} if spec.tile else {}),
        **({} if spec.tile else {278: (4, [min(spec.rows, height)])}),
    }


def file_of(
    spec: Spec,
    bodies: list[bytes],
    tags: Mapping[int, Tag],
    *,
    lead: bytes = b"",
    tags_first: bool = False,
    sort: bool = True,
    following: int = 0,
) -> bytes:
    """Return a file of blocks and tags.

    Parameters
    ----------
    lead
        Bytes before everything that has an offset.
    tags_first
        Whether the tags stand before the blocks, else after them.
    sort
        Whether the tags stand in order.
    following
        Offset of the next image.
    """
    order = spec.order
    place, count, entry, inline = ("Q", "Q", "HHQ", 8) if spec.big else ("I", "H", "HHI", 4)
    version = (43, 8, 0) if spec.big else (42,)
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}{len(version)}H", *version)
    start = len(head) + inline + len(lead)
    lengths = [len(body) for body in bodies]

    def table(at: int, offsets: list[int]) -> bytes:
        whole: dict[int, Tag] = {
            324 if spec.tile else 273: (16 if spec.big else 4, offsets),
            325 if spec.tile else 279: (4, lengths),
        }
        whole |= tags  # which may say other things of the blocks
        whole = {tag: value for tag, value in whole.items() if value[1] is not None}
        rest = at + struct.calcsize("<" + count) + len(whole) * (struct.calcsize("<" + entry) + inline) + inline
        out, after = struct.pack(order + count, len(whole)), b""
        for tag in sorted(whole) if sort else sorted(whole, reverse=True):
            kind, values = whole[tag]
            body = struct.pack(f"{order}{len(values)}{_KINDS[kind]}", *values)
            out += struct.pack(order + entry, tag, kind, len(values) // (2 if kind in (5, 10) else 1))
            if len(body) > inline:
                out += struct.pack(order + place, rest + len(after))
                after += body + bytes(len(body) % 2)
            else:
                out += body.ljust(inline, b"\0")
        return out + struct.pack(order + place, following) + after

    size = len(table(start, [0] * len(bodies))) if tags_first else 0
    at = start + size
    offsets = []
    for length in lengths:
        offsets.append(at)
        at += length
    where = start if tags_first else at
    middle = [table(where, offsets), *bodies] if tags_first else [*bodies, table(where, offsets)]
    return b"".join((head, struct.pack(order + place, where), lead, *middle))


def tiff(
    spec: Spec,
    seed: int = 0,
    width: int = 37,
    height: int = 23,
    tags: Mapping[int, Tag | None] = {},
    **how: Any,
) -> bytes:
    """Return a drawn image; `tags` stand in place of those that it has, None for none."""
    bodies, more = blocks(spec, draw(spec, seed, width, height))
    whole: dict[int, Any] = tags_of(spec, width, height, seed) | more | dict(tags)
    dropped = {tag: (1, None) for tag, value in whole.items() if value is None}
    return file_of(spec, bodies, {tag: value for tag, value in whole.items() if value is not None} | dropped, **how)


# --- the space of files ----------------------------------------------------------------------------------------------


def kinds() -> Iterator[Spec]:
    """Yield every kind of samples."""
    for photometric in (0, 1):
        for bits in (1, 2, 4, 6, 8, 10, 12, 14, 16, 24, 32, 64):
            for kind in (None, 1, 2, 4, 5):
                yield Spec(photometric, bits, 1, kind)
            for n_samples in (2, 3, 4, 5) if bits in (8, 16) else (2,):
                for extra in (None, (0,), (1,), (2,), (2, 0), (0, 2), (1, 2)):
                    if extra is None or len(extra) < n_samples:
                        yield Spec(photometric, bits, n_samples, None, extra)
        for bits in (16, 32, 64):
            yield Spec(photometric, bits, 1, 3)
            yield Spec(photometric, bits, 1, 6)
    for bits in (1, 2, 4, 8, 12, 16, 32):
        for n_samples, extras in (
            (2, (None,)),
            (3, (None, (0,), (2,))),
            (4, (None, (0,), (1,), (2,), (999,), (3,))),
            (5, (None, (0, 0), (1, 0), (2, 0), (0, 2))),
        ):
            for extra in extras:
                yield Spec(2, bits, n_samples, None, extra)
        for kind in (1, 2, 4, 5):
            yield Spec(2, bits, 3, kind)
    for bits in (16, 32, 64):
        yield Spec(2, bits, 3, 3)
        yield Spec(2, bits, 4, 3, (2,))
    for bits in (1, 2, 4, 8, 16):
        for map_bits in (8, 16):
            yield Spec(3, bits, 1, map_bits=map_bits)
            yield Spec(3, bits, 2, map_bits=map_bits, extra=(2,))
        yield Spec(3, bits, 1, 2)
    for bits in (8, 16):
        for n_samples, extras in ((3, (None,)), (4, (None,)), (5, (None, (0,), (1,), (2,)))):
            for extra in extras:
                yield Spec(5, bits, n_samples, None, extra)
        yield Spec(5, bits, 4, 2)
        yield Spec(6, bits, 3)
        yield Spec(6, bits, 3, 2)
        yield Spec(6, bits, 4, None, (2,))
        for photometric in (8, 9, 10, 4, 32803, 34892, 32844, 32845):
            yield Spec(photometric, bits, 3)
        yield Spec(8, bits, 3, 2)
        yield Spec(8, bits, 1)
        yield Spec(8, bits, 4, None, (2,))
    for subsampling in ((1, 2), (2, 1), (2, 2), (4, 1), (4, 2), (4, 4), (2, 4), (3, 1)):
        yield Spec(6, 8, 3, subsampling=subsampling)


SHAPES: tuple[dict[str, Any], ...] = (
    {},
    {"rows": 7},
    {"rows": 8},
    {"rows": 1},
    {"tile": (16, 16)},
    {"tile": (64, 32)},
    {"tile": (32, 64)},
)


def layouts() -> Iterator[Spec]:
    """Yield every way to lay samples out; their kind is that of `Spec()`."""
    packings = ((1, 1), (5, 1), (5, 2), (8, 1), (8, 2), (8, 3), (32946, 1), (32946, 2), (32773, 1))
    for planes, order, big, shape, packing, fill_order in itertools.product(
        (False, True), "<>", (False, True), SHAPES, packings, (1, 2)
    ):
        yield Spec(planes=planes, order=order, big=big, fill_order=fill_order, **shape)._replace(
            compression=packing[0], predictor=packing[1]
        )


def codecs() -> Iterator[Spec]:
    """Yield what only other encoders write: fax, JPEG, LZMA, Zstandard."""
    samples = (Spec(), Spec(0), Spec(2, 8, 3), Spec(6, 8, 3), Spec(5, 8, 4), Spec(3), Spec(8, 8, 3))
    more = (
        Spec(2, 8, 4, extra=(2,)),
        Spec(2, 8, 4, extra=(1,)),
        Spec(1, 8, 2, extra=(2,)),
        Spec(1, 8, 2, extra=(1,)),
        Spec(0, 8, 2, extra=(2,)),
        Spec(2, 8, 3, planes=True),
        Spec(6, 8, 3, planes=True),
    )
    bilevel = (Spec(1, 1), Spec(0, 1), Spec(3, 1))
    for compression, shape, fill_order, order in itertools.product(BY_PILLOW, SHAPES[:5], (1, 2), "<>"):
        for spec in bilevel if compression in (2, 3, 4) else (*samples, *more):
            yield spec._replace(compression=compression, fill_order=fill_order, order=order, **shape)


def combined(kind: Spec, layout: Spec) -> Spec:
    """Return samples of `kind`, laid out as `layout`, with a predictor that such samples can have."""
    names = ("photometric", "bits", "n_samples", "kind", "extra", "subsampling", "map_bits")
    spec = layout._replace(**{name: getattr(kind, name) for name in names})
    differences = spec.bits in (8, 16, 32, 64) and spec.subsampling == (1, 1)
    floats = spec.kind == 3 and spec.bits != 24
    sound = {2: differences, 3: floats}.get(spec.predictor, True)
    return spec if sound else spec._replace(predictor=1)
