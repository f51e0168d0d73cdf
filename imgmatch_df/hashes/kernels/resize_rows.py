"""The resize to a small grey square for images of a similar size, such as thumbnails.

There neighbouring pixels of the square have the same neighbours in the image. So each row of the image is stretched
once, for the two or three rows of the square that need it, and the neighbours of 16 pixels come from one or two vectors
by a permutation, not from 16 loads. A step of `resize` takes 60 instructions for 8 pixels; here both steps together
take 50 for 16.

As in `resize` the weights are steps of 1/256, and each channel is rounded once, after both steps.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from llvmlite import ir

from imgmatch_df._kernels.compiled import kernel
from imgmatch_df._kernels.importing import intrinsic, types
from imgmatch_df.hashes.kernels.lanes import INT8, INT16, INT32, INT64, constant, multiply_add_pairs, select, splat
from imgmatch_df.hashes.kernels.stack import stack_array

Array = np.ndarray[Any, Any]

N_PIXELS: Final = 16  # in a step
_ONE: Final = 256  # the weight 1.0
_TWICE: Final = 1 << 16 | 1  # both halves
_PIXEL_BITS: Final = 4  # of the number of a pixel in a step

# What the kernels need is in one array of uint32, the table, for which numba compiles one kind of array. It holds, from
# these multiples of the side of the square on:
# 0, 1: the upper neighbour of each row, and the weights of both, that of the upper one in the low half
# 2, 3: the same of the columns
_LANES: Final = 4  # in which lanes of the windows the 16 left neighbours of a step are, then the 16 right ones
FACTORS: Final = 6  # their weights; without windows, those of the columns
_BOTH: Final = 8  # the weights of a row, once for each column
_STRETCHED: Final = 9  # the last even and the last odd row
N_TABLE: Final = 13  # where the window of each step begins

_GREY: Final = (9798, 19235, 3735)  # of red, green and blue, as in `resize`

_inner: Final = kernel(no_cpython_wrapper=True, error_model="numpy")
_words, _halves = ir.VectorType(INT32, N_PIXELS), ir.VectorType(INT16, 2 * N_PIXELS)


def _all(value: int) -> Any:
    return constant(INT32, [value] * N_PIXELS)


def _all_halves(*values: int) -> Any:
    return constant(INT16, [*values] * (2 * N_PIXELS // len(values)))


def _register_lanes(context: Any) -> int:
    """Return how many lanes of 32 bits one instruction of this processor permutes, 0 if it has no such instruction."""
    features = context.codegen().magic_tuple()[-1].split(",")
    return 16 if "+avx512f" in features else 8 if "+avx2" in features else 0


@intrinsic
def _max_windows(typingctx: Any) -> Any:  # noqa: ARG001
    """Return in how many windows neighbours are found faster than by loads: where 8 lanes are permuted, in one."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
        return context.get_constant(types.intp, _register_lanes(context) // 8)

    return types.intp(), codegen


def _permuted(builder: Any, vector: Any, places: Any) -> Any:
    """Return the lanes of a vector at variable places: LLVM makes one vpermd of it."""
    out = ir.Constant(vector.type, ir.Undefined)
    for lane in range(vector.type.count):
        place = builder.zext(builder.extract_element(places, INT32(lane)), INT64)
        out = builder.insert_element(out, builder.extract_element(vector, place), INT32(lane))
    return out


def _looked_up(builder: Any, windows: list[Any], places: Any, n_lanes: int) -> Any:
    """Return the lanes of several vectors at variable places, where `n_lanes` are permuted at a time."""
    parts = range(0, N_PIXELS, n_lanes)
    pieces = [select(builder, window, range(i, i + n_lanes)) for window in windows for i in parts]
    found = []
    for i in parts:
        wanted = select(builder, places, range(i, i + n_lanes))
        inside = builder.and_(wanted, constant(INT32, [n_lanes - 1] * n_lanes))
        lanes = _permuted(builder, pieces[0], inside)
        for number, piece in enumerate(pieces[1:], 1):
            is_beyond = builder.icmp_unsigned(">=", wanted, constant(INT32, [number * n_lanes] * n_lanes))
            lanes = builder.select(is_beyond, _permuted(builder, piece, inside), lanes)
        found.append(lanes)
    return found[0] if len(found) == 1 else builder.shuffle_vector(*found, constant(INT32, range(N_PIXELS)))


class _Memory:
    """Vectors in the array arguments of an intrinsic."""

    def __init__(self, context: Any, builder: Any, signature: Any, args: Any) -> None:
        self._context, self._builder, self._signature, self._args = context, builder, signature, args

    def _pointer(self, argument: int, offset: Any, vector: Any) -> Any:
        array = self._context.make_array(self._signature.args[argument])(
            self._context, self._builder, self._args[argument]
        )
        return self._builder.bitcast(self._builder.gep(array.data, [offset]), vector.as_pointer())

    def load(self, argument: int, offset: Any, vector: Any = _words, align: int = 4) -> Any:
        return self._builder.load(self._pointer(argument, offset, vector), align=align)

    def store(self, value: Any, argument: int, offset: Any, align: int = 4) -> None:
        self._builder.store(value, self._pointer(argument, offset, value.type), align=align)


def _stretch(n_channels: int, n_windows: int) -> Callable[..., Any]:
    """Make the intrinsic that blends the neighbours of 16 pixels in one row of the image."""

    def stretch(
        typingctx: Any,  # noqa: ARG001  named by numba
        table: Any,  # uint32, written from position `target` on: two halves of 16 bits a lane
        target: Any,  # noqa: ARG001  intp, as is all that has no type here
        pixels: Any,  # uint8, the stored image
        start: Any,  # noqa: ARG001  of the first window, in bytes
        lanes: Any,  # noqa: ARG001  where in the table it is in which lanes of the windows the neighbours are
        weights: Any,  # noqa: ARG001  where in the table their weights are
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            memory = _Memory(context, builder, signature, args)
            _, target, _, start, lanes, weights = args
            stored = _words if n_channels == 4 else ir.VectorType(INT8, N_PIXELS)
            windows = []
            for number in range(n_windows):
                window = memory.load(2, builder.add(start, INT64(number * N_PIXELS * n_channels)), stored, 1)
                windows.append(window if n_channels == 4 else builder.zext(window, _words))
            sides, side_weights = [], []
            for side in range(2):
                places = memory.load(0, builder.add(lanes, INT64(side * N_PIXELS)))
                sides.append(_looked_up(builder, windows, places, _register_lanes(context) or N_PIXELS))
                side_weights.append(memory.load(0, builder.add(weights, INT64(side * N_PIXELS))))
            if n_channels == 1:
                pairs = builder.or_(sides[0], builder.shl(sides[1], _all(16)))
                both = builder.or_(builder.and_(side_weights[0], _all(0xFFFF)), builder.shl(side_weights[1], _all(16)))
                total = multiply_add_pairs(builder, builder.bitcast(pairs, _halves), builder.bitcast(both, _halves))
                memory.store(total, 0, target)
                return context.get_dummy_value()
            halves = [builder.bitcast(side, _halves) for side in sides]
            factors = [builder.bitcast(weight, _halves) for weight in side_weights]
            red_blue = [builder.and_(half, _all_halves(255)) for half in halves]
            green = [builder.lshr(half, _all_halves(8)) for half in halves]
            for number, channels in enumerate((red_blue, green)):
                total = builder.add(*(builder.mul(*both) for both in zip(channels, factors, strict=True)))
                memory.store(builder.bitcast(total, _words), 0, builder.add(target, INT64(number * N_PIXELS)))
            return context.get_dummy_value()

        return types.void(table, types.intp, pixels, types.intp, types.intp, types.intp), codegen

    return intrinsic(stretch)


def _blend(n_channels: int) -> Callable[..., Any]:
    """Make the intrinsic that blends 16 pixels of two stretched rows, and writes their grey levels."""

    def blend(
        typingctx: Any,  # noqa: ARG001
        small: Any,  # uint8[side, side], written from flat position `target` on
        target: Any,  # noqa: ARG001
        table: Any,  # uint32, as `stretch` writes it
        top: Any,  # noqa: ARG001  where the 16 pixels are
        bottom: Any,  # noqa: ARG001
        weights: Any,  # noqa: ARG001  where 16 equal ones are: that of the top in the low half, the bottom in the high
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            memory = _Memory(context, builder, signature, args)
            _, target, _, top, bottom, weights_at = args
            # From another place in each step: LLVM widens a value that all of them share once, before, and then finds
            # no pmaddwd.
            weights = builder.bitcast(memory.load(2, weights_at), _halves)

            def blended(above: Any, below: Any, *, is_high: bool = False) -> Any:
                """Blend the low or the high halves: 16.16 fixed point, rounded in the high half."""
                if is_high:
                    pairs = builder.or_(builder.lshr(above, _all(16)), builder.and_(below, _all(-1 << 16)))
                else:
                    pairs = builder.or_(builder.and_(above, _all(0xFFFF)), builder.shl(below, _all(16)))
                # Up to 255 * 256 needs 16 bits unsigned, and pmaddwd is signed: half of the range goes, and comes back.
                centred = builder.xor(builder.bitcast(pairs, _halves), _all_halves(-1 << 15))
                total = multiply_add_pairs(builder, centred, weights)
                return builder.add(total, _all((_ONE << 15) + (1 << 15)))

            def load(number: int) -> Any:
                return [memory.load(2, builder.add(place, INT64(number * N_PIXELS))) for place in (top, bottom)]

            first = load(0)
            low = blended(*first)
            if n_channels == 1:
                grey = builder.lshr(low, _all(16))
            else:
                high, green = blended(*first, is_high=True), blended(*load(1))
                # Red and green beside each other, then blue.
                pairs = builder.or_(builder.lshr(low, _all(16)), builder.and_(green, _all(-1 << 16)))
                grey = builder.add(
                    multiply_add_pairs(builder, builder.bitcast(pairs, _halves), _all_halves(*_GREY[:2])),
                    multiply_add_pairs(
                        builder, builder.bitcast(builder.lshr(high, _all(16)), _halves), _all_halves(_GREY[2], 0)
                    ),
                )
                grey = builder.lshr(builder.add(grey, _all(1 << 14)), _all(15))
            memory.store(builder.trunc(grey, ir.VectorType(INT8, N_PIXELS)), 0, target, 1)
            return context.get_dummy_value()

        return types.void(small, types.intp, table, types.intp, types.intp, types.intp), codegen

    return intrinsic(blend)


@intrinsic
def _repeat(typingctx: Any, table: Any, source: Any, target: Any) -> Any:  # noqa: ARG001
    """Write one value of a table 16 times."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        memory = _Memory(context, builder, signature, args)
        memory.store(splat(builder, memory.load(0, args[1], INT32), N_PIXELS), 0, args[2])
        return context.get_dummy_value()

    return types.void(table, types.intp, types.intp), codegen


_stretch_colour: Final = _stretch(4, 1)
_stretch_wide_colour: Final = _stretch(4, 2)
_stretch_grey: Final = _stretch(1, 1)
_stretch_wide_grey: Final = _stretch(1, 2)
_blend_colour: Final = _blend(4)
_blend_grey: Final = _blend(1)
_kept: Final = stack_array(types.intp, 2)


@_inner
def find_windows(width: int, side: int, table: Array) -> Any:
    """Find the windows of 16 pixels that hold the neighbours; return how many a step needs, 0 if too many.

    table uint32: has the columns and their weights, and receives starts, lanes and factors.
    """
    n_windows = np.intp(1)
    columns, weights = 2 * side, 3 * side
    lanes, factors, starts = _LANES * side, FACTORS * side, N_TABLE * side
    for step in range(side // N_PIXELS):
        first = columns + N_PIXELS * step
        low = high = np.intp(table[first])
        for i in range(first, first + N_PIXELS):
            column = np.intp(table[i])
            low = column if column < low else low
            high = column if column > high else high
        needed = ((high + 1 - low) >> _PIXEL_BITS) + 1
        n_windows = needed if needed > n_windows else n_windows
        table[starts + step] = low
        if n_windows * N_PIXELS > width or n_windows > _max_windows():
            return 0
    last = width - n_windows * N_PIXELS
    for step in range(side // N_PIXELS):
        first = N_PIXELS * step
        start = np.intp(table[starts + step])
        start = start if start < last else last
        table[starts + step] = start
        for i in range(N_PIXELS):
            lane, weight = np.intp(table[columns + first + i]) - start, np.intp(table[weights + first + i])
            left = 2 * first + i
            table[lanes + left] = lane
            table[lanes + left + N_PIXELS] = lane + 1
            table[factors + left] = (weight & 0xFFFF) * _TWICE
            table[factors + left + N_PIXELS] = (weight >> 16) * _TWICE
    return n_windows


@_inner
def empty_aligned(n: int) -> Array:
    """Return an array that begins at a cache line, because others took a fifth longer: uint32[n]."""
    memory = np.empty(n + N_PIXELS, np.uint32)
    first = (-memory.ctypes.data // 4) % N_PIXELS
    return memory[first : first + n]


@_inner
def resize_rows(pixels: Array, height: int, width: int, n_windows: int, table: Array, small: Array) -> None:
    """Resize a stored image to a small grey square: small uint8[side, side]; n_windows, table as of `find_windows`."""
    side = small.shape[0]
    n_channels, n_halves = (4, 2) if pixels.ndim == 3 else (1, 1)
    n_row = n_halves * side
    lanes, factors, starts = _LANES * side, FACTORS * side, N_TABLE * side
    stretched, both = _STRETCHED * side, _BOTH * side
    kept = _kept()  # the last even and the last odd row
    kept[0] = kept[1] = -1
    for row in range(side):
        top = np.intp(table[row])
        bottom = top + 1 if top + 1 < height else top
        for needed in range(top, bottom + 1):
            slot = needed & 1
            if kept[slot] == needed:
                continue
            kept[slot] = needed
            for step in range(side // N_PIXELS):
                target = stretched + slot * n_row + step * n_halves * N_PIXELS
                start = (needed * width + np.intp(table[starts + step])) * n_channels
                left, weight = lanes + step * 2 * N_PIXELS, factors + step * 2 * N_PIXELS
                if pixels.ndim == 3:
                    if n_windows == 1:
                        _stretch_colour(table, target, pixels, start, left, weight)
                    else:
                        _stretch_wide_colour(table, target, pixels, start, left, weight)
                elif n_windows == 1:
                    _stretch_grey(table, target, pixels, start, left, weight)
                else:
                    _stretch_wide_grey(table, target, pixels, start, left, weight)
        for step in range(side // N_PIXELS):
            _repeat(table, side + row, both + step * N_PIXELS)
        above, below = stretched + (top & 1) * n_row, stretched + (bottom & 1) * n_row
        for step in range(side // N_PIXELS):
            at, target, weights = step * n_halves * N_PIXELS, row * side + step * N_PIXELS, both + step * N_PIXELS
            if pixels.ndim == 3:
                _blend_colour(small, target, table, above + at, below + at, weights)
            else:
                _blend_grey(small, target, table, above + at, below + at, weights)
