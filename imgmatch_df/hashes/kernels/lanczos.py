"""Pillow's Lanczos resize of a grey image to a small one, bit for bit.

Pillow rounds the weights to 22 bits and each of the two passes to 8, so all sums are sums of integers, and their order
is free.

Source: Pillow src/libImaging/Resample.c.
"""

import math
from functools import lru_cache
from typing import Any, Final

import numpy as np
from llvmlite import ir

from imgmatch_df._kernels.compiled import kernel
from imgmatch_df._kernels.importing import cgutils, intrinsic, types

Array = np.ndarray[Any, Any]

_N_BITS: Final = 22  # of the fraction of a weight
_HALF: Final = 1 << (_N_BITS - 1)
_SUPPORT: Final = 3.0  # pixels of the small image on both sides
_N_ROWS: Final = 4  # that are summed side by side, because they share the weights
_N_VALUES: Final = 16  # in a vector: weights are zero up to a multiple
_BAND: Final = 1024  # columns whose sums stay in the cache

_inner: Final = kernel(no_cpython_wrapper=True, error_model="numpy")


@_inner
def _sinc(x: float) -> float:
    return 1.0 if x == 0.0 else math.sin(x * math.pi) / (x * math.pi)


@kernel(signatures=[types.void(types.intp, types.intp[:, ::1], types.int32[:, ::1])], error_model="numpy")
def _fill_weights(n: int, bounds: Array, weights: Array) -> None:
    """Find the weights of n values in m others: bounds intp[m, 2], first value and number; weights int32[m, k].

    Where k values from the first one on would pass the end, fewer values before are taken, with weights of zero.
    """
    scale = n / len(bounds)
    stretch = max(scale, 1.0)
    support = _SUPPORT * stretch
    exact = np.empty(weights.shape[1], np.float64)
    for i in range(len(bounds)):
        centre = (i + 0.5) * scale
        first = max(int(centre - support + 0.5), 0)
        count = min(int(centre + support + 0.5), n) - first
        total = 0.0
        for k in range(count):
            x = (k + first - centre + 0.5) * (1.0 / stretch)
            exact[k] = _sinc(x) * _sinc(x / 3.0) if -3.0 <= x < 3.0 else 0.0
            total += exact[k]
        begin = min(first, max(n - weights.shape[1], 0))
        shift = first - begin
        for k in range(count):
            weight = (exact[k] / total if total != 0.0 else exact[k]) * (1 << _N_BITS)
            weights[i, k + shift] = int(weight - 0.5 if weight < 0 else weight + 0.5)
        bounds[i, 0], bounds[i, 1] = begin, shift + count


@lru_cache(maxsize=64)  # up to 64 x 100 KB for photos of many sizes
def _weights(n: int, n_out: int) -> tuple[Array, Array]:
    bounds = np.zeros((n_out, 2), np.intp)
    n_weights = 2 * math.ceil(_SUPPORT * max(n / n_out, 1.0)) + 1
    weights = np.zeros((n_out, n_weights + -n_weights % _N_VALUES), np.int32)
    _fill_weights(n, bounds, weights)
    return bounds, weights


@_inner
def _rounded(total: int) -> Any:
    return np.uint8(min(max(total >> _N_BITS, 0), 255))


@intrinsic
def _sum_rows(
    typingctx: Any,  # noqa: ARG001
    pixels: Any,  # uint8[n]
    starts: Any,  # intp[4]: where the rows begin
    first: Any,  # noqa: ARG001
    weights: Any,  # int32[m, k]
    row: Any,  # noqa: ARG001  of the weights
    count: Any,  # noqa: ARG001
    totals: Any,  # int32[4]
) -> Any:
    """Weigh `count` values, and up to a multiple of 16, of each of 4 rows from their value `first` on.

    LLVM makes vectors of the plain loop, too, but too long ones: most values were left over.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def data(argument: int) -> Any:
            return context.make_array(signature.args[argument])(context, builder, args[argument])

        def vector_at(pointer: Any, offset: Any, vector: Any) -> Any:
            here = builder.bitcast(builder.gep(pointer, [offset]), vector.as_pointer())
            return builder.load(here, align=vector.element.width // 8)

        word, words = ir.IntType(64), ir.VectorType(ir.IntType(32), _N_VALUES)
        n_bytes = ir.VectorType(ir.IntType(8), _N_VALUES)
        _, _, first, _, row, count, _ = args
        pixels, weights = data(0).data, data(3)
        factors = builder.gep(weights.data, [builder.mul(row, builder.extract_value(weights.shape, 1))])
        rows = [builder.add(first, builder.load(builder.gep(data(1).data, [word(i)]))) for i in range(_N_ROWS)]
        sums = [cgutils.alloca_once_value(builder, ir.Constant(words, [0] * _N_VALUES)) for _ in rows]
        with cgutils.for_range_slice(builder, word(0), count, word(_N_VALUES), word) as (k, _):
            factor = vector_at(factors, k, words)
            for start, total in zip(rows, sums, strict=True):
                values = builder.zext(vector_at(pixels, builder.add(start, k), n_bytes), words)
                builder.store(builder.add(builder.load(total), builder.mul(values, factor)), total)
        kind = ir.FunctionType(ir.IntType(32), [words])
        add = cgutils.get_or_insert_function(builder.module, kind, f"llvm.vector.reduce.add.v{_N_VALUES}i32")
        for i, total in enumerate(sums):
            builder.store(builder.call(add, [builder.load(total)]), builder.gep(data(6).data, [word(i)]))
        return context.get_dummy_value()

    return types.void(pixels, starts, types.intp, weights, types.intp, types.intp, totals), codegen


_BYTES: Final = [types.Array(types.uint8, n_axes, "C", readonly=True) for n_axes in (1, 2)]
_WEIGHTS: Final = (types.intp[:, ::1], types.int32[:, ::1])


@kernel(signatures=[types.void(_BYTES[0], types.intp, *_WEIGHTS, types.uint8[:, ::1])], error_model="numpy")
def _resize_rows(pixels: Array, width: int, bounds: Array, weights: Array, out: Array) -> None:
    starts, totals = np.empty(_N_ROWS, np.intp), np.empty(_N_ROWS, np.int32)
    for top in range(0, out.shape[0], _N_ROWS):
        for i in range(_N_ROWS):
            starts[i] = min(top + i, out.shape[0] - 1) * width
        for x in range(out.shape[1]):
            _sum_rows(pixels, starts, bounds[x, 0], weights, x, bounds[x, 1], totals)
            for i in range(min(_N_ROWS, out.shape[0] - top)):
                out[top + i, x] = _rounded(totals[i] + _HALF)


@kernel(signatures=[types.void(_BYTES[1], *_WEIGHTS, types.uint8[:, ::1])], error_model="numpy")
def _resize_columns(pixels: Array, bounds: Array, weights: Array, out: Array) -> None:
    sums = np.empty(_BAND, np.int32)
    for left in range(0, pixels.shape[1], _BAND):
        width = min(_BAND, pixels.shape[1] - left)
        for y in range(out.shape[0]):
            for x in range(width):
                sums[x] = _HALF
            for k in range(bounds[y, 1]):
                row, factor = pixels[bounds[y, 0] + k, left : left + width], weights[y, k]
                for x in range(width):
                    sums[x] += np.int32(row[x]) * factor
            for x in range(width):
                out[y, left + x] = _rounded(sums[x])


def resize(pixels: Array, width: int, height: int) -> Array:
    """Return a grey image as Pillow 13 resizes it: pixels uint8[h, w], C-contiguous; uint8[height, width]."""
    n_rows, n_columns = pixels.shape
    # Pillow takes the pass first that leaves fewer pixels to the other one, as it counts them.
    columns_first = n_rows > height and n_rows - height > 2 * (n_columns - width)
    for axis in (0, 1) if columns_first else (1, 0):
        if axis == 0 and len(pixels) != height:
            out = np.empty((height, pixels.shape[1]), np.uint8)
            _resize_columns(pixels, *_weights(len(pixels), height), out)
            pixels = out
        elif axis == 1 and n_columns != width:
            out = np.empty((len(pixels), width), np.uint8)
            bounds, weights = _weights(n_columns, width)
            flat = pixels.reshape(-1)
            if n_columns < weights.shape[1]:  # vectors pass the end of the last rows
                flat = np.concatenate([flat, np.zeros(weights.shape[1], np.uint8)])
            _resize_rows(flat, n_columns, bounds, weights, out)
            pixels = out
    return pixels


_RED, _GREEN, _BLUE = np.uint32(19595), np.uint32(38470), np.uint32(7471)  # they sum to 2**16


@kernel(signatures=[types.void(types.Array(types.uint32, 1, "C", readonly=True), types.uint8[::1])])
def write_grey(pixels: Array, out: Array) -> None:
    """Weigh colours as Pillow's `convert("L")`: pixels uint32[n], each of them RGBX from the lowest byte on."""
    for i in range(len(out)):
        pixel = pixels[i]
        red, green, blue = pixel & np.uint32(255), (pixel >> np.uint32(8)) & np.uint32(255), pixel >> np.uint32(16)
        total = red * _RED + green * _GREEN + (blue & np.uint32(255)) * _BLUE + np.uint32(1 << 15)
        out[i] = np.uint8(total >> np.uint32(16))
