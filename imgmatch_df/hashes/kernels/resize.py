"""The small grey squares that hash kinds are made of, bit for bit as OpenCV makes them.

OpenCV's INTER_LINEAR_EXACT keeps its weights in steps of 1/256 and rounds once, at the end. So the resized image is
a sum of integers, and the order of the passes is free: here the two rows are blended first, in lanes of 16 bits, then
the two columns, then the colours, for four pixels at a time and without leaving the registers. Only the pixels that
the small image needs are read, nothing of the image's size is copied, and an EXIF orientation costs nothing: the
neighbours are looked up in mirrored tables, and the small result is read by columns.

Source: OpenCV modules/imgproc/src/resize.cpp.
"""

from collections.abc import Callable
from threading import Lock
from typing import Any, Final

import numpy as np
from llvmlite import ir

from imgmatch_df._kernels.compiled import kernel
from imgmatch_df._kernels.importing import intrinsic, types
from imgmatch_df.hashes.kernels.lanes import INT8, INT16, INT32, INT64, constant, multiply_add_pairs, select, splat
from imgmatch_df.hashes.kernels.resize_rows import FACTORS, N_TABLE, empty_aligned, find_windows, resize_rows

Array = np.ndarray[Any, Any]

_ONE: Final = 256  # the weight 1.0 of OpenCV's 8.8 fixed point
_NO_FRACTIONS: Final = 2.0**52
_IS_TRANSPOSED: Final = 1
_ONE_PIXEL: Final = 2
_GREY_OF_RGBX: Final = (9798, 19235, 3735, 0)  # OpenCV's BGR2GRAY; they sum to 2**15, so a grey pixel stays what it is

# ---------------------------------------------------------------------------------------------------------------------
# The inner step as LLVM vectors, because LLVM does not vectorise the gather of neighbours: written as loops, this file
# took 0.56 ms for a 500 x 400 photo, now 0.07 ms. Vectors are portable: LLVM cuts them to what the processor has.

# Called from compiled code alone: without the wrapper for Python, the first call ever compiles 1.3 s less.
_inner: Final = kernel(no_cpython_wrapper=True, error_model="numpy")  # nothing is divided by zero


def _gather(builder: Any, row: Any, starts: Any, n_pixels: int, n_channels: int) -> Any:
    """Load the left and the right neighbour of each pixel, which are one unaligned load: uint8 lanes."""
    both = ir.IntType(16 * n_channels)
    vector = ir.Constant(ir.VectorType(both, n_pixels), ir.Undefined)
    for i in range(n_pixels):
        start = builder.zext(builder.load(builder.gep(starts, [INT64(i)])), INT64)
        pointer = builder.bitcast(builder.gep(row, [start]), both.as_pointer())
        vector = builder.insert_element(vector, builder.load(pointer, align=1), INT32(i))
    return builder.bitcast(vector, ir.VectorType(INT8, 2 * n_pixels * n_channels))


def _split(builder: Any, neighbours: Any, n_channels: int) -> list[Any]:
    """Widen bytes to lanes of 16 bits that pair left and right: one vector, or red and blue apart from green and X."""
    n_bytes = neighbours.type.count
    if n_channels == 1:
        return [builder.zext(neighbours, ir.VectorType(INT16, n_bytes))]
    # R G B X, R G B X -> RG RG BX BX. Masking and shifting these words is cheaper than widening bytes by shuffles.
    order = (0, 1, 4, 5, 2, 3, 6, 7)
    paired = select(builder, neighbours, [base + i for base in range(0, n_bytes, 8) for i in order])
    words = builder.bitcast(paired, ir.VectorType(INT16, n_bytes // 2))
    return [
        builder.and_(words, constant(INT16, [255] * (n_bytes // 2))),
        builder.lshr(words, constant(INT16, [8] * (n_bytes // 2))),
    ]


def _grey(builder: Any, red_blue: Any, green_x: Any) -> Any:
    """Weigh colours in 16.16 fixed point, two lanes a pixel, to grey levels in the low byte of lanes of 64 bits."""
    n_lanes = red_blue.type.count
    low = builder.lshr(red_blue, constant(INT32, [16] * n_lanes))
    high = builder.and_(green_x, constant(INT32, [-1 << 16] * n_lanes))
    levels = builder.bitcast(builder.or_(low, high), ir.VectorType(INT16, 2 * n_lanes))
    pairs = multiply_add_pairs(builder, levels, constant(INT16, _GREY_OF_RGBX * (n_lanes // 2)))
    # Both halves of a pixel meet in the low half of its 64 bits; what is above them is cut off with the byte.
    pixels = builder.bitcast(pairs, ir.VectorType(INT64, n_lanes // 2))
    total = builder.add(pixels, builder.lshr(pixels, constant(INT64, [32] * (n_lanes // 2))))
    rounded = builder.add(total, constant(INT64, [1 << 14] * (n_lanes // 2)))
    return builder.lshr(rounded, constant(INT64, [15] * (n_lanes // 2)))


def _resize_step(n_channels: int, n_pixels: int) -> Callable[..., Any]:
    """Make the intrinsic that writes `n_pixels` bytes of one row of the small grey image."""

    def step(
        typingctx: Any,  # noqa: ARG001  named by numba
        small: Any,  # uint8[side, side], written from flat position `target` on
        target: Any,  # noqa: ARG001  intp, as is all that has no type here
        pixels: Any,  # uint8, the stored image
        top: Any,  # noqa: ARG001  where the two rows begin, in bytes
        bottom: Any,  # noqa: ARG001
        table: Any,  # uint32: weights are two halves of 16 bits, the upper or left one is low
        row_weights: Any,  # noqa: ARG001  uint32
        starts: Any,  # noqa: ARG001  where in the table it is in which byte of a row the left neighbours begin
        weights: Any,  # noqa: ARG001  where in the table the weights of the columns are, twice for colours
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            def pointer_in(i: int, offset: Any) -> Any:
                data = context.make_array(signature.args[i])(context, builder, args[i]).data
                return builder.gep(data, [offset])

            _, target, _, top, bottom, _, row_weights, starts, weights = args
            n_lanes = 2 * max(1, n_channels // 2) * n_pixels
            starts_here = pointer_in(5, starts)
            rows = [
                _split(builder, _gather(builder, pointer_in(2, row), starts_here, n_pixels, n_channels), n_channels)
                for row in (top, bottom)
            ]
            vector = ir.VectorType(INT16, n_lanes)
            column_weights = builder.load(builder.bitcast(pointer_in(5, weights), vector.as_pointer()), align=4)
            halves = (row_weights, builder.lshr(row_weights, INT32(16)))
            factors = [splat(builder, builder.trunc(half, INT16), n_lanes) for half in halves]
            sums = []
            for lanes in zip(*rows, strict=True):
                blended = builder.add(*(builder.mul(*pair) for pair in zip(lanes, factors, strict=True)))
                # Up to 255 * 256 needs 16 bits unsigned, and pmaddwd is signed: half of the range goes, and comes back.
                centred = builder.sub(blended, constant(INT16, [-1 << 15] * n_lanes))
                total = multiply_add_pairs(builder, centred, column_weights)
                sums.append(builder.add(total, constant(INT32, [(_ONE << 15) + (1 << 15)] * (n_lanes // 2))))
            is_grey = n_channels == 1
            grey = builder.lshr(sums[0], constant(INT32, [16] * n_pixels)) if is_grey else _grey(builder, *sums)
            out = ir.VectorType(INT8, n_pixels)
            pointer = builder.bitcast(pointer_in(0, target), out.as_pointer())
            builder.store(builder.trunc(grey, out), pointer, align=1)
            return context.get_dummy_value()

        places = [types.intp, types.intp]
        return types.void(small, types.intp, pixels, *places, table, types.uint32, *places), codegen

    return intrinsic(step)


_COLOUR_STEP: Final = 8  # pixels: 512 bits of either kind; steps of 4 colour pixels took a seventh longer
_GREY_STEP: Final = 16
_resize_colour: Final = _resize_step(4, _COLOUR_STEP)
_resize_grey: Final = _resize_step(1, _GREY_STEP)

# ---------------------------------------------------------------------------------------------------------------------


@_inner
def _find_neighbours(length: int, is_mirrored: bool, side: int, table: Array, at: int) -> None:
    """Find the stored neighbours of every pixel along one axis.

    table uint32: from `at` on the first neighbours, and from ``at + side`` on the weights, that of the first in the low
    half. The second neighbour follows the first. Both lie inside the axis, but on one of length 1 the second has no
    weight.
    """
    scale = 1.0 / (side / length)  # rounded twice, as OpenCV does
    last = length - 2 if length > 1 else 0
    for i in range(side):
        position = scale * (i + 0.5) - 0.5
        floor = np.intp(position)
        if position < floor:
            floor -= 1
        first = floor if floor < last else last
        first = first if first > 0 else 0
        second_weight: Any = 0
        if 0 <= floor < length - 1:
            # To the nearest whole number, and halves to even ones: doubles from 2**52 on have no fractions.
            second_weight = np.intp((position - floor) * _ONE + _NO_FRACTIONS - _NO_FRACTIONS)
        elif floor > last:
            second_weight = _ONE
        if length == 1:
            second_weight = 0
        elif is_mirrored:
            first, second_weight = last - first, _ONE - second_weight
        table[at + i] = first
        table[at + side + i] = _ONE - second_weight | second_weight << 16


# One for each number of axes and no others: read-only and writable arrays share it, and a strided one is refused.
_SIGNATURES: Final = {
    n_axes: types.intp(types.Array(types.uint8, n_axes, "C", readonly=True), types.intp, types.uint8[:, ::1])
    for n_axes in (3, 2)
}
_kernels: dict[int, Any] = {}
_lock: Final = Lock()


def resize_to_square(pixels: Array, orientation: int, square: Array) -> bool:
    """Write an image as a small grey square; return whether it is as the image is seen only when read by columns.

    pixels uint8[h, w, 4] RGBX (the fourth byte is ignored) or uint8[h, w] grey, C-contiguous, h and w >= 1;
    orientation 1 to 8 as in EXIF; square uint8[side, side], side a multiple of 16.
    """
    compiled = _kernels.get(pixels.ndim) or _compile(pixels.ndim)
    found = compiled(pixels, orientation, square)
    if found == _ONE_PIXEL:
        square[:] = _grey_of_one(pixels)
    return bool(found == _IS_TRANSPOSED)


def _grey_of_one(pixels: Array) -> int:
    """Return the grey level of the one pixel."""
    levels = pixels.ravel().tolist()
    if len(levels) == 1:
        return int(levels[0])
    return sum(weight * level for weight, level in zip(_GREY_OF_RGBX, levels, strict=True)) + (1 << 14) >> 15


def _compile(n_axes: int) -> Any:
    """Return the kernel for arrays of `n_axes`, compiled when the first such image comes, by one thread."""
    with _lock:
        if n_axes not in _kernels:
            _kernels[n_axes] = kernel(_resize_to_square, signatures=[_SIGNATURES[n_axes]], error_model="numpy")
        return _kernels[n_axes]


def _resize_to_square(pixels: Array, orientation: int, square: Array) -> int:
    """Resize a stored image to a small grey square, or return `_ONE_PIXEL`."""
    height, width = pixels.shape[0], pixels.shape[1]
    is_transposed = orientation >= 5
    mirrors_x = orientation == 2 or orientation == 3 or orientation == 7 or orientation == 8
    mirrors_y = orientation == 3 or orientation == 4 or orientation == 6 or orientation == 7
    if width == 1:  # two neighbours are loaded at once; in memory a single column is a single row, transposed
        if height == 1:
            return _ONE_PIXEL
        height, width = width, height
        mirrors_y, mirrors_x = mirrors_x, mirrors_y
        is_transposed = not is_transposed
    side = square.shape[0]
    n_channels, n_pairs = (4, 2) if pixels.ndim == 3 else (1, 1)
    # One array for all: numba takes 0.05 s to compile each kind of array, and 0.03 s each kind of slice.
    table = empty_aligned((N_TABLE + 1) * side)
    columns, weights, lane_weights = 2 * side, 3 * side, FACTORS * side
    _find_neighbours(height, mirrors_y, side, table, np.intp(0))
    _find_neighbours(width, mirrors_x, side, table, columns)
    n_windows = find_windows(width, side, table)
    if n_windows and height < 2 * side:
        resize_rows(pixels, height, width, n_windows, table, square)
        return is_transposed
    for column in range(side):
        table[columns + column] *= n_channels
        for pair in range(n_pairs):
            table[lane_weights + n_pairs * column + pair] = table[weights + column]
    pitch = width * n_channels
    for row in range(side):
        first = np.intp(table[row])
        top, bottom = first * pitch, first * pitch
        if first + 1 < height:
            bottom += pitch
        target, both = row * side, table[side + row]
        if pixels.ndim == 3:
            for x in range(0, side, _COLOUR_STEP):
                at = lane_weights + 2 * x
                _resize_colour(square, target + x, pixels, top, bottom, table, both, columns + x, at)
        else:
            for x in range(0, side, _GREY_STEP):
                at = lane_weights + x
                _resize_grey(square, target + x, pixels, top, bottom, table, both, columns + x, at)
    return is_transposed
