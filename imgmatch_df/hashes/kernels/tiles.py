"""The inner steps of PDQ as LLVM vectors: a tile is 16 lines of an image side by side, float32[n, 16].

A running sum rounds by what came before it, so one sum cannot be computed by many lanes, but 16 sums can. LLVM does not
find that in loops: the lines lie in rows, and a tile needs them transposed. Vectors are portable: LLVM cuts them to
what the processor has.
"""

from collections.abc import Callable
from typing import Any, Final

from llvmlite import ir

from imgmatch_df._kernels.importing import cgutils, intrinsic, types

N_LINES: Final = 16

_i8, _i32, _i64, _float = ir.IntType(8), ir.IntType(32), ir.IntType(64), ir.FloatType()
_floats, _words = ir.VectorType(_float, N_LINES), ir.VectorType(_i32, N_LINES)
_BYTES: Final = types.Array(types.uint8, 1, "C", readonly=True)
_TILE: Final = types.float32[::1]


def _splat(builder: Any, value: Any) -> Any:
    lane = builder.insert_element(ir.Constant(_floats, ir.Undefined), value, _i32(0))
    return builder.shuffle_vector(lane, lane, ir.Constant(_words, [0] * N_LINES))


def _transpose(builder: Any, rows: list[Any]) -> list[Any]:
    """Transpose 16 vectors: first in squares of 4 x 4 lanes, then the squares."""

    def pick(left: Any, right: Any, *lanes: int) -> Any:
        return builder.shuffle_vector(left, right, ir.Constant(_words, list(lanes)))

    def in_quarters(left: Any, right: Any, *lanes: int) -> Any:
        """Pick 4 lanes of each quarter: 0 to 3 are those of the left vector, 4 to 7 of the right one."""
        return pick(left, right, *(4 * q + lane + (12 if lane > 3 else 0) for q in range(4) for lane in lanes))

    def quarters(left: Any, right: Any, first: int) -> Any:
        """Pick every other quarter of both vectors."""
        return pick(left, right, *(4 * q + i for q in (first, first + 1, first + 4, first + 5) for i in range(4)))

    def every_other(left: Any, right: Any, first: int) -> Any:
        return pick(left, right, *(4 * q + i for q in (first, first + 2, first + 4, first + 6) for i in range(4)))

    squares = []
    for k in range(0, N_LINES, 4):
        a, b, c, d = rows[k : k + 4]
        pairs = [(in_quarters(x, y, 0, 4, 1, 5), in_quarters(x, y, 2, 6, 3, 7)) for x, y in ((a, b), (c, d))]
        squares.append(
            [
                in_quarters(low, high, *half)
                for low, high in zip(*pairs, strict=True)
                for half in ((0, 1, 4, 5), (2, 3, 6, 7))
            ]
        )
    columns: list[Any] = [None] * N_LINES
    for i, (a, b, c, d) in enumerate(zip(*squares, strict=True)):
        for half in (0, 2):
            left, right = quarters(a, b, half), quarters(c, d, half)
            columns[4 * half + i], columns[4 * half + 4 + i] = every_other(left, right, 0), every_other(left, right, 1)
    return columns


class _Pointers:
    """Vectors in the array arguments of an intrinsic."""

    def __init__(self, context: Any, builder: Any, signature: Any, args: Any) -> None:
        self._context, self._builder, self._signature, self._args = context, builder, signature, args

    def at(self, argument: int, offset: Any, vector: Any = _floats) -> Any:
        array = self._context.make_array(self._signature.args[argument])(
            self._context, self._builder, self._args[argument]
        )
        return self._builder.bitcast(self._builder.gep(array.data, [offset]), vector.as_pointer())

    def load(self, argument: int, offset: Any) -> Any:
        return self._builder.load(self.at(argument, offset), align=4)

    def store(self, value: Any, argument: int, offset: Any) -> None:
        self._builder.store(value, self.at(argument, offset), align=4)

    def scalar(self, argument: int, offset: Any) -> Any:
        array = self._context.make_array(self._signature.args[argument])(
            self._context, self._builder, self._args[argument]
        )
        return self._builder.load(self._builder.gep(array.data, [offset]))


def _offset(builder: Any, start: Any, step: int) -> Any:
    return builder.add(start, _i64(step))


# Their sum is 1 / 1000. The product of the first one with up to 255,000 is exact, the error of the second one too small
# to matter: a test holds for all colours that the sum of both products is that of the reference.
_THOUSANDTH: Final = (65 / 2**16, 0.001 - 65 / 2**16)


def _colour_luma(builder: Any, pixels: Any) -> Any:
    """Weigh RGBX in lanes of 32 bits as the reference: 0.299 R + 0.587 G + 0.114 B in doubles, rounded to float32."""

    def words(value: int) -> Any:
        return ir.Constant(_words, [value] * N_LINES)

    total = words(0)
    for shift, weight in ((0, 299), (8, 587), (16, 114)):
        level = builder.and_(builder.lshr(pixels, words(shift)), words(255))
        total = builder.add(total, builder.mul(level, words(weight)))
    total = builder.sitofp(total, _floats)
    return builder.fadd(*(builder.fmul(total, ir.Constant(_floats, [part] * N_LINES)) for part in _THOUSANDTH))


def _grey_luma(builder: Any, pixels: Any) -> Any:
    return builder.uitofp(pixels, _floats)  # the weights sum to 1, and the sum of a grey pixel rounds to its level


def _fill(n_channels: int) -> Callable[..., Any]:
    """Make the intrinsic that writes the luma of 16 x 16 pixels to a tile."""
    vector = _words if n_channels == 4 else ir.VectorType(_i8, N_LINES)

    def fill(typingctx: Any, tile: Any, target: Any, pixels: Any, start: Any, pitch: Any) -> Any:  # noqa: ARG001
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            pointers = _Pointers(context, builder, signature, args)
            _, target, _, start, pitch = args
            rows = []
            for row in range(N_LINES):
                here = builder.add(start, builder.mul(pitch, _i64(row)))
                loaded = builder.load(pointers.at(2, here, vector), align=1)
                rows.append(_colour_luma(builder, loaded) if n_channels == 4 else _grey_luma(builder, loaded))
            for i, column in enumerate(_transpose(builder, rows)):
                pointers.store(column, 0, _offset(builder, target, N_LINES * i))
            return context.get_dummy_value()

        return types.void(tile, types.intp, pixels, types.intp, types.intp), codegen

    return intrinsic(fill)


fill_colour: Final = _fill(4)
fill_grey: Final = _fill(1)


@intrinsic
def slide(
    typingctx: Any,  # noqa: ARG001
    sums: Any,  # float32[16]
    tile: Any,  # float32[n * 16]
    first: Any,  # noqa: ARG001
    stop: Any,  # noqa: ARG001
    back: Any,  # noqa: ARG001
) -> Any:
    """Add the vectors first..stop of a tile to the sums, each time taking off the one `back` vectors before."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointers = _Pointers(context, builder, signature, args)
        _slide(builder, pointers, args[2], args[3], args[4])
        return context.get_dummy_value()

    return types.void(sums, tile, types.intp, types.intp, types.intp), codegen


@intrinsic
def slide_and_average(
    typingctx: Any,  # noqa: ARG001
    sums: Any,
    tile: Any,
    first: Any,  # noqa: ARG001
    stop: Any,  # noqa: ARG001
    back: Any,  # noqa: ARG001
    counts: Any,  # float32[n]
) -> Any:
    """As `slide`; replace each vector that was taken off by the sums, divided by the count of that step."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointers = _Pointers(context, builder, signature, args)

        def write(x: Any, total: Any) -> None:
            count = _splat(builder, pointers.scalar(5, x))
            pointers.store(builder.fdiv(total, count), 1, builder.mul(builder.sub(x, args[4]), _i64(N_LINES)))

        _slide(builder, pointers, args[2], args[3], args[4], write)
        return context.get_dummy_value()

    return types.void(sums, tile, types.intp, types.intp, types.intp, counts), codegen


def _slide(
    builder: Any, pointers: _Pointers, first: Any, stop: Any, back: Any, after: Callable[[Any, Any], None] | None = None
) -> None:
    total = cgutils.alloca_once_value(builder, pointers.load(0, _i64(0)))
    with cgutils.for_range_slice(builder, first, stop, _i64(1), _i64) as (x, _):
        here = pointers.load(1, builder.mul(x, _i64(N_LINES)))
        there = pointers.load(1, builder.mul(builder.sub(x, back), _i64(N_LINES)))
        sums = builder.fsub(builder.fadd(builder.load(total), here), there)
        builder.store(sums, total)
        if after is not None:
            after(x, sums)
    pointers.store(builder.load(total), 0, _i64(0))


@intrinsic
def average_columns(
    typingctx: Any,  # noqa: ARG001
    tile: Any,
    source: Any,  # noqa: ARG001  where 16 columns begin
    sums: Any,
    at: Any,  # noqa: ARG001
    kept: Any,
    begin: Any,  # noqa: ARG001  where the rows of these columns are kept
    places: Any,  # intp[16]: where each row is, after that
    counts: Any,
    y: Any,  # noqa: ARG001
) -> Any:
    """Go on with the sums of 16 columns by 16 rows; replace the columns by means, and old rows by new ones."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointers = _Pointers(context, builder, signature, args)
        _, source, _, at, _, begin, _, _, y = args
        columns = [pointers.load(0, _offset(builder, source, N_LINES * i)) for i in range(N_LINES)]
        total, means = pointers.load(2, at), []
        for i, row in enumerate(_transpose(builder, columns)):
            place = builder.add(begin, pointers.scalar(6, _i64(i)))
            old = pointers.load(4, place)
            pointers.store(row, 4, place)
            total = builder.fsub(builder.fadd(total, row), old)
            means.append(builder.fdiv(total, _splat(builder, pointers.scalar(7, _offset(builder, y, i)))))
        pointers.store(total, 2, at)
        for i, column in enumerate(_transpose(builder, means)):
            pointers.store(column, 0, _offset(builder, source, N_LINES * i))
        return context.get_dummy_value()

    return types.void(tile, types.intp, sums, types.intp, kept, types.intp, places, counts, types.intp), codegen


@intrinsic
def transpose_block(typingctx: Any, source: Any, start: Any, target: Any, to: Any) -> Any:  # noqa: ARG001
    """Transpose 16 x 16 values."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointers = _Pointers(context, builder, signature, args)
        rows = [pointers.load(0, _offset(builder, args[1], N_LINES * i)) for i in range(N_LINES)]
        for i, column in enumerate(_transpose(builder, rows)):
            pointers.store(column, 2, _offset(builder, args[3], N_LINES * i))
        return context.get_dummy_value()

    return types.void(source, types.intp, target, types.intp), codegen


_N_ROWS: Final = 4  # of a product, at a time: as many chains of additions hide their latency


@intrinsic
def multiply_rows(
    typingctx: Any,  # noqa: ARG001
    factors: Any,
    at: Any,  # noqa: ARG001
    n: Any,  # noqa: ARG001
    tile: Any,
    start: Any,  # noqa: ARG001
    product: Any,
    target: Any,  # noqa: ARG001
) -> Any:
    """Multiply 4 rows of n factors by n vectors of a tile; add the products one by one, rounding twice each time."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointers = _Pointers(context, builder, signature, args)
        _, at, n, _, start, _, target = args
        totals = [cgutils.alloca_once_value(builder, ir.Constant(_floats, [0.0] * N_LINES)) for _ in range(_N_ROWS)]
        with cgutils.for_range_slice(builder, _i64(0), n, _i64(1), _i64) as (k, _):
            vector = pointers.load(3, builder.add(start, builder.mul(k, _i64(N_LINES))))
            for i, total in enumerate(totals):
                factor = pointers.scalar(0, builder.add(builder.add(at, k), builder.mul(n, _i64(i))))
                step = builder.fmul(_splat(builder, factor), vector)
                builder.store(builder.fadd(builder.load(total), step), total)
        for i, total in enumerate(totals):
            pointers.store(builder.load(total), 5, _offset(builder, target, N_LINES * i))
        return context.get_dummy_value()

    return types.void(factors, types.intp, types.intp, tile, types.intp, product, types.intp), codegen
