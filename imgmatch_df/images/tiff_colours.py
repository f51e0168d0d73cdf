"""Conversion of the samples of a TIFF to grey or RGB, by the rules of libtiff's tif_getimage.c."""

from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from imgmatch_df.images.alpha import composite
from imgmatch_df.images.pixels import widen
from imgmatch_df.images.rows import block_slices, row_slices
from imgmatch_df.images.tiff_tags import Layout, Tags, UnsupportedTiffError

Pixels = npt.NDArray[np.uint8]
Samples = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]
Make = Callable[[Pixels, Layout, list[Samples]], None]  # fills rows of pixels from one array per sample

REVERSED: Final = np.packbits(np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)[:, ::-1], axis=1)[:, 0]
_PHOTOMETRIC: Final = {
    0: "grey",
    1: "grey",
    2: "RGB",
    3: "palette",
    4: "transparency mask",
    5: "CMYK",
    6: "YCbCr",
    8: "CIE L*a*b*",
    9: "ICC L*a*b*",
    10: "ITU L*a*b*",
    32803: "colour filter array",
    32844: "LogL",
    32845: "LogLuv",
    34892: "linear raw",
}
_SUBSAMPLINGS: Final = ((1, 1), (1, 2), (2, 1), (2, 2), (4, 1), (4, 2), (4, 4))


class RowBand(NamedTuple):
    """Several rows of an image.

    Parameters
    ----------
    rows
        Slice of the rows in the image.
    planes
        The stored rows, (rows, bytes): one plane, or one per sample. Pixels of three 8-bit samples may have 4 bytes.
        Rows of subsampled YCbCr are rows of blocks of pixels, and a band consists of complete strips or tiles.
    """

    rows: slice
    planes: list[Pixels]


def check(tags: Tags, layout: Layout) -> None:
    """Raise if the samples are of an unsupported kind."""
    bits, photometric, n_samples = layout.bits, layout.photometric, layout.n_samples
    kind = f"{bits}-bit {_PHOTOMETRIC.get(photometric, f'photometric interpretation {photometric}')}"
    planes = " in planes" if layout.planes else ""
    formats = {1: "", 2: "signed ", 3: "float ", 4: ""}
    if layout.sample_format not in formats:
        raise UnsupportedTiffError(f"{kind} of complex numbers")
    depths = {3: (16, 32, 64)}.get(layout.sample_format, (*range(1, 17), 32, 64))
    wide = photometric in (0, 1) or (photometric == 2 and (bits in (8, 16) or bits > 16))
    sound = {
        2: n_samples - len(layout.extra) >= 3,
        3: bits <= 8 and not layout.planes and (bits == 8 or n_samples == 1),
        5: n_samples >= 4 and tags.hint(332, 1) == 1,
        6: bits == 8 and n_samples == 3 and layout.subsampling in _SUBSAMPLINGS,
        8: bits in (8, 16) and n_samples == 3 and not layout.planes,
    }
    if bits not in depths or not (wide or (photometric in (3, 5, 6, 8) and bits <= 16 and layout.sample_format != 3)):
        raise UnsupportedTiffError(f"{formats[layout.sample_format]}{kind} of {n_samples} samples{planes}")
    if not sound.get(photometric, True) or (bits < 8 and layout.planes):
        raise UnsupportedTiffError(f"{formats[layout.sample_format]}{kind} of {n_samples} samples{planes}")
    if photometric == 6 and layout.planes and layout.subsampling != (1, 1):
        raise UnsupportedTiffError("subsampled YCbCr in planes")


def is_subsampled(layout: Layout) -> bool:
    """Return whether the rows consist of blocks of pixels."""
    return layout.photometric == 6 and not layout.planes and layout.subsampling != (1, 1)


def planes_wanted(layout: Layout, *, with_alpha: bool = False) -> int:
    """Return the number of planes with colours, or with an alpha that is used."""
    if layout.photometric == 5:
        return 4
    colours = 1 if layout.photometric in (0, 1) else 3
    return colours + (1 if layout.alpha == 2 or with_alpha else 0)


def has_alpha(layout: Layout) -> bool:
    """Return whether there is an alpha sample after the colours."""
    known = (0, 1, 2) if layout.planes else (0, 1, 2, 3)
    return layout.alpha != 0 and layout.photometric in known and layout.bits in (8, 16) and not _is_stretched(layout)


def put_over(pixels: Pixels, layout: Layout, bands: Iterable[RowBand], background: int) -> None:
    """Composite an image with alpha over a grey value, in place; see `alpha.composite`."""
    n_colours = 3 if layout.photometric == 2 else 1
    is_multiplied = layout.alpha == 1 or layout.photometric == 2 or (layout.photometric in (0, 1) and layout.planes)

    def put(out: Pixels, layout: Layout, samples: list[Samples]) -> None:
        alpha = _bytes_of(samples[n_colours], layout)
        if not is_multiplied:
            composite(out, alpha, background)
            return
        behind = ((255 - alpha.astype(np.uint16)) * background + 127) // 255
        for plane in [out] if out.ndim == 2 else [out[..., channel] for channel in range(3)]:
            plane[...] = np.minimum(plane + behind, 255)

    _fill(pixels, layout, bands, put)


def pixels_of(tags: Tags, layout: Layout, bands: Iterable[RowBand], take: Callable[[int], Pixels]) -> Pixels:
    """Return the pixels of stored rows.

    Parameters
    ----------
    tags, layout
        Tags and layout of the file.
    bands
        All rows, in order; iterated at most twice.
    take
        Returns a buffer of a number of bytes.
    """
    shape = (layout.height, layout.width)
    n_pixels = layout.height * layout.width
    if layout.photometric in (0, 1) and not (layout.planes and layout.alpha == 2):
        grey = take(n_pixels).reshape(shape)
        if layout.bits == 8:  # the only step for plain files
            for rows, planes in bands:
                stored = _eight_bits(planes[0], layout)[..., 0]
                if layout.photometric == 0 and not layout.planes:  # libtiff does not invert planes of grey
                    np.subtract(255, stored, out=grey[rows])
                else:
                    np.copyto(grey[rows], stored)
        else:
            _fill(grey, layout, bands, _grey_of(layout, bands))
        return grey
    pixels = take(4 * n_pixels).reshape(*shape, 4)
    if is_subsampled(layout):
        _fill_subsampled(pixels, layout, bands, _ycbcr_of(tags))
        return pixels
    if layout.photometric == 2 and layout.bits == 8 and not layout.planes:
        for rows, planes in bands:
            stored = _eight_bits(planes[0], layout)
            if layout.alpha == 2 and stored.shape[-1] > 3 and (stored[..., 3] != 255).any():
                _fill(pixels, layout, [RowBand(rows, planes)], _rgb)
            elif stored.shape[-1] == 4 and stored.flags.c_contiguous:
                pixels[rows] = stored
            elif stored.shape[-1] == 3 and stored.flags.c_contiguous:
                widen(stored, pixels[rows])
            else:
                for channel in range(3):
                    pixels[rows, :, channel] = stored[..., channel]
        return pixels
    if _is_stretched(layout):
        _fill(pixels, layout, bands, _stretch_of(layout, bands))
        return pixels
    make: Make
    match layout.photometric:
        case 0 | 1:
            make = _grey_alpha
        case 2:
            make = _rgb
        case 3:
            make = _palette_of(tags, layout)
        case 5:
            make = _cmyk
        case 6:
            make = _ycbcr_of(tags)
        case _:
            make = _lab_of(tags)
    _fill(pixels, layout, bands, make)
    return pixels


# --- stored bytes to samples -----------------------------------------------------------------------------------------


def _eight_bits(rows: Pixels, layout: Layout) -> Pixels:
    return rows.reshape(len(rows), layout.width, -1)


def _dtype(layout: Layout) -> np.dtype[Any]:
    kind = {2: "i", 3: "f"}.get(layout.sample_format, "u") if layout.bits > 16 or layout.sample_format == 3 else "u"
    return np.dtype(f"{layout.order}{kind}{layout.bits // 8}")


def _samples(rows: Pixels, layout: Layout, n_samples: int, columns: slice) -> Samples:
    """Return the samples of some columns of stored rows, (rows, columns, samples)."""
    bits, n_columns = layout.bits, columns.stop - columns.start
    shape = (len(rows), n_columns, -1)
    n_bits = rows.shape[1] // layout.width * 8 if bits == 8 else bits * n_samples  # per pixel
    rows = rows[:, columns.start * n_bits // 8 : -(-columns.stop * n_bits // 8)]
    if bits == 8:
        return rows.reshape(shape)
    if bits in (16, 32, 64):
        return rows.view(_dtype(layout)).reshape(shape)
    each = np.unpackbits(rows, axis=1, count=n_columns * n_samples * bits).reshape(*shape[:2], n_samples, bits)
    values = np.zeros(each.shape[:3], np.uint16)
    for bit in range(bits):
        values <<= 1
        values |= each[..., bit]
    return values


def _fill(out: Pixels, layout: Layout, bands: Iterable[RowBand], make: Make) -> None:
    """Fill the rows of an image with `make`, a few at a time, from lists of one array per sample."""
    n_samples = 1 if layout.planes else layout.n_samples
    for band in bands:
        target = out[band.rows]
        for rows, columns in block_slices(len(target), layout.width):
            some = [_samples(plane[rows], layout, n_samples, columns) for plane in band.planes]
            each = [plane[..., 0] for plane in some] if layout.planes else list(np.moveaxis(some[0], -1, 0))
            make(target[rows, columns], layout, each)


def undo_differences(rows: Pixels, layout: Layout, step: int) -> None:
    """Add the sample of the previous pixel to each sample, in place."""
    values = rows.view(np.dtype(f"{layout.order}u{layout.bits // 8}"))
    pixels = values.reshape(len(values), -1, step)
    for some in row_slices(*values.shape):
        part = pixels[some]
        part[...] = np.cumsum(part, axis=1, dtype=part.dtype.newbyteorder("="))


def undo_float_differences(rows: Pixels, layout: Layout, step: int) -> None:
    """Undo predictor 3, in place: differences of bytes; a row has the first bytes of all samples first."""
    size = layout.bits // 8
    for some in row_slices(*rows.shape):
        part = rows[some]
        sums = np.cumsum(part.reshape(len(part), -1, step), axis=1, dtype=np.uint8).reshape(len(part), size, -1)
        part[...] = (sums if layout.order == ">" else sums[:, ::-1]).swapaxes(1, 2).reshape(part.shape)


# --- samples to colours ----------------------------------------------------------------------------------------------


def _bytes_of(values: Samples, layout: Layout) -> Pixels:
    """Return samples scaled to 0 to 255 as libtiff does for colours: 16 bits are rounded, fewer bits are spread."""
    if layout.bits == 8:
        return values
    if layout.bits == 16:
        return ((values.astype(np.uint32) + 128) * 65281 >> 24).astype(np.uint8)  # divided by 257
    return (values.astype(np.uint32) * 255 // ((1 << layout.bits) - 1)).astype(np.uint8)


def _grey_of(layout: Layout, bands: Iterable[RowBand]) -> Make:
    white_is_zero = layout.photometric == 0 and not layout.planes
    if _is_stretched(layout):
        return _stretch_of(layout, bands)

    def fill(out: Pixels, layout: Layout, samples: list[Samples]) -> None:
        high = layout.bits == 16 and not layout.planes  # libtiff rounds grey in planes only
        values = samples[0] >> 8 if high else _bytes_of(samples[0], layout)
        if white_is_zero:
            np.subtract(255, values, out=out, casting="unsafe")
        else:
            out[...] = values

    return fill


def _is_stretched(layout: Layout) -> bool:
    return layout.bits > 16 or layout.sample_format == 3


def _stretch_of(layout: Layout, bands: Iterable[RowBand]) -> Make:
    """Return the conversion of numbers without a defined white: the smallest is 0, the largest 255."""
    low, high = np.inf, -np.inf

    def look(_: Pixels, layout: Layout, samples: list[Samples]) -> None:
        nonlocal low, high
        for values in samples[: 1 if layout.photometric in (0, 1) else 3]:
            floats = _finite(values)
            low, high = min(low, float(floats.min())), max(high, float(floats.max()))

    def fill(out: Pixels, layout: Layout, samples: list[Samples]) -> None:
        for channel, values in enumerate(samples[:3] if out.ndim == 3 else samples[:1]):
            grey = np.rint((_finite(values) - low) * scale)
            target = out[..., channel] if out.ndim == 3 else out
            target[...] = 255 - grey if layout.photometric == 0 else grey

    _fill(np.empty((layout.height, 0), np.uint8), layout, bands, look)
    scale = 255 / max(high - low, 1e-300)  # avoids a division by zero
    return fill


def _finite(values: Samples) -> npt.NDArray[np.float64]:
    floats = values.astype(np.float64)
    floats[~np.isfinite(floats)] = 0
    return floats


def _grey_alpha(out: Pixels, layout: Layout, samples: list[Samples]) -> None:
    """Convert grey and an unassociated alpha, in planes."""
    _rgb(out, layout, [samples[0], samples[0], samples[0], samples[1]])


def _rgb(out: Pixels, layout: Layout, samples: list[Samples]) -> None:
    alpha = _bytes_of(samples[3], layout).astype(np.uint16) if layout.alpha == 2 and len(samples) > 3 else None
    for channel in range(3):
        values = _bytes_of(samples[channel], layout)
        out[..., channel] = values if alpha is None else (values * alpha + 127) // 255


def _palette_of(tags: Tags, layout: Layout) -> Make:
    colours = np.array(tags.hints(320, 3 << layout.bits), np.int64)
    if not colours.size:
        raise ValueError(f"no colour map of {1 << layout.bits} colours")
    if (colours >= 256).any():  # else an old colour map of 8 bits
        colours >>= 8
    table = np.zeros((1 << layout.bits, 4), np.uint8)
    table[:, :3] = colours.reshape(3, -1).T

    def fill(out: Pixels, _: Layout, samples: list[Samples]) -> None:
        out.view(np.uint32)[..., 0] = table.view(np.uint32)[:, 0][samples[0]]

    return fill


def _cmyk(out: Pixels, layout: Layout, samples: list[Samples]) -> None:
    paper = 255 - _bytes_of(samples[3], layout).astype(np.uint16)
    for channel in range(3):
        out[..., channel] = paper * (255 - _bytes_of(samples[channel], layout)) // 255


def _ycbcr_of(tags: Tags) -> Make:
    """Return the conversion by the coefficients and ranges of the file, in the integers of libtiff's tif_color.c."""
    one, two = np.float32(1), np.float32(2)
    red, green, blue = tags.floats(529, (0.299, 0.587, 0.114))
    reference = tags.floats(532, (0, 255, 128, 255, 128, 255))
    if green == 0 or not (np.isfinite((red, green, blue)).all() and (np.abs(reference) < 0x7FFFFFFF).all()):
        raise ValueError("coefficients or ranges of YCbCr are not finite numbers")

    def fixed(factor: Any) -> int:
        return int(float(np.clip(factor, 0, 2)) * 65536 + 0.5)

    def spread(values: Floats, low: Any, high: Any, largest: int) -> npt.NDArray[np.int32]:
        divisor = one if high == low else np.float32(high - low)
        scaled = (values - np.float32(int(low))) * np.float32(largest) / divisor
        codes: npt.NDArray[np.int32] = np.clip(scaled, -4096, 4096).astype(np.int32)
        return codes

    f1, f3 = two - two * red, two - two * blue
    codes = np.arange(256, dtype=np.float32)
    half = np.float32(128)
    cb = spread(codes - half, reference[2] - half, reference[3] - half, 127)
    cr = spread(codes - half, reference[4] - half, reference[5] - half, 127)
    luma = spread(codes, reference[0], reference[1], 255)
    to_red, to_blue = fixed(f1) * cr + 32768 >> 16, fixed(f3) * cb + 32768 >> 16
    to_green_r, to_green_b = -fixed(red * f1 / green) * cr, -fixed(blue * f3 / green) * cb + 32768

    def fill(out: Pixels, _: Layout, samples: list[Samples]) -> None:
        y, b, r = luma[samples[0]], samples[1], samples[2]
        out[..., 0] = np.clip(y + to_red[r], 0, 255)
        out[..., 1] = np.clip(y + (to_green_b[b] + to_green_r[r] >> 16), 0, 255)
        out[..., 2] = np.clip(y + to_blue[b], 0, 255)

    return fill


def _fill_subsampled(out: Pixels, layout: Layout, bands: Iterable[RowBand], make: Make) -> None:
    across, down = layout.subsampling
    tile_x, in_x = np.divmod(np.arange(layout.width), layout.block_width)
    column = tile_x * -(-layout.block_width // across) + in_x // across
    for band in bands:
        blocks = band.planes[0].reshape(len(band.planes[0]), -1, across * down + 2)
        target = out[band.rows]
        tile_y, in_y = np.divmod(np.arange(len(target)), layout.block_height)
        row = tile_y * -(-layout.block_height // down) + in_y // down
        for some in row_slices(len(target), layout.width):
            inside = (in_y[some, None] % down) * across + in_x % across
            at = row[some, None], column
            make(target[some], layout, [blocks[(*at, inside)], blocks[(*at, -2)], blocks[(*at, -1)]])


_SRGB: Final = np.array([[3.2410, -1.5374, -0.4986], [-0.9692, 1.8760, 0.0416], [0.0556, -0.2040, 1.0570]], np.float32)
_GAMMA: Final = 1500  # steps of libtiff's table


def _lab_of(tags: Tags) -> Make:
    """Return libtiff's conversion from CIE L*a*b*, in single precision."""
    f = np.float32
    d50 = f(96.425) + f(100) + f(82.468)
    x, y = tags.floats(318, (f(96.425) / d50, f(100) / d50))
    if y == 0:
        raise ValueError("a white point without brightness")
    white_x, white_y, white_z = x / y * f(100), f(100), (f(1) - x - y) / y * f(100)
    table = (f(255) * ((np.arange(_GAMMA + 1) / _GAMMA) ** (1 / np.float64(f(2.4)))).astype(f)).astype(f)
    step = (f(100) - f(1)) / f(_GAMMA)

    def cube(values: Floats, white: Any) -> Floats:
        low, high = white * (values - f(0.13793)) / f(7.787), white * values * values * values
        out: Floats = np.where(values < f(0.2069), low, high)
        return out

    def fill(out: Pixels, layout: Layout, samples: list[Samples]) -> None:
        if layout.bits == 8:
            light = samples[0].astype(np.int32) * 257
            a, b = (values.view(np.int8).astype(np.int32) * 256 for values in (samples[1].copy(), samples[2].copy()))
        else:
            light = samples[0].astype(np.int32)
            a, b = (values.astype(np.uint16).view(np.int16).astype(np.int32) for values in samples[1:3])
        light_f = light.astype(f) * f(100) / f(65535)
        dark = light_f < f(8.856)
        low_y = light_f * white_y / f(903.292)
        root = np.where(dark, f(7.787) * (low_y / white_y) + f(16) / f(116), (light_f + f(16)) / f(116))
        big_y = np.where(dark, low_y, white_y * root * root * root)
        big_x = cube(a.astype(f) / f(256) / f(500) + root, white_x)
        big_z = cube(root - b.astype(f) / f(256) / f(200), white_z)
        for channel, (mx, my, mz) in enumerate(_SRGB):
            linear = np.clip(mx * big_x + my * big_y + mz * big_z, f(1), f(100))
            at = np.minimum(((linear - f(1)) / step).astype(np.int64), _GAMMA)
            out[..., channel] = (table[at] + f(0.5)).astype(np.uint8)

    return fill
