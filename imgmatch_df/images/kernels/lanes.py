"""Four pixels of four bytes each as one vector, for the row filters of PNG: arithmetic on 16 bytes at once.

As vector IR, because LLVM's vectorisers do not find it. LLVM lowers it to SSE4 or AVX, and to NEON on Arm.
"""

# The signatures of intrinsics and of their code generators are numba's.
# ruff: noqa: ARG001

from collections.abc import Callable
from typing import Any, Final

from llvmlite import ir

from imgmatch_df._kernels.importing import PrimitiveModel, cgutils, intrinsic, register_model, types

_BYTE, _WORD = ir.IntType(8), ir.IntType(32)
_FOUR_WORDS, _BYTES = ir.VectorType(_WORD, 4), ir.VectorType(_BYTE, 16)

_cgutils: Any = cgutils  # it has no annotations


class _Lanes(types.Type):  # type: ignore[misc]
    """Type of the vectors in compiled code: 16 bytes, four for each pixel."""

    def __init__(self) -> None:
        super().__init__(name="imgmatch_df.lanes")


_LANES: Final = _Lanes()


@register_model(_Lanes)
class _Model(PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, type_: Any) -> None:
        super().__init__(manager, type_, _BYTES)


def _intrinsic(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return numba's intrinsic, typed as it is called: without the typing context."""
    return intrinsic(function)


@_intrinsic
def pixel_at(typingctx: Any, data: Any, at: Any) -> Any:
    """Return the four bytes of an array (uint8) from item `at` on as uint32."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, args[0])
        start = builder.gep(array.data, [args[1]])
        return builder.load(builder.bitcast(start, _WORD.as_pointer()), align=1)

    return types.uint32(data, types.intp), codegen


@_intrinsic
def copy_bytes(typingctx: Any, data: Any, at: Any, out: Any, target: Any, n_bytes: Any) -> Any:
    """Copy bytes of an array (uint8) from item `at` on to those of `out` (uint8) from item `target` on."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, aim = (_pointer_to(context, builder, signature, args, i) for i in (0, 2))
        _cgutils.raw_memcpy(builder, aim, source, args[4], 1)
        return context.get_dummy_value()

    return types.void(data, types.intp, out, types.intp, types.intp), codegen


@_intrinsic
def widen_four(typingctx: Any, data: Any, at: Any, out: Any, target: Any) -> Any:
    """Write four pixels of three bytes as four of four bytes, the last of which is 0; 16 bytes are read.

    data uint8, read from item `at` on; out uint8, written from item `target` on.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, aim = (
            builder.bitcast(_pointer_to(context, builder, signature, args, i), _BYTES.as_pointer()) for i in (0, 2)
        )
        order = [byte for pixel in range(4) for byte in (3 * pixel, 3 * pixel + 1, 3 * pixel + 2, 16)]
        mask, zeros = ir.Constant(ir.VectorType(_WORD, 16), order), ir.Constant(_BYTES, [0] * 16)
        pixels = builder.load(source, align=1)
        builder.store(builder.shuffle_vector(pixels, zeros, mask), aim, align=1)
        return context.get_dummy_value()

    return types.void(data, types.intp, out, types.intp), codegen


def _pointer_to(context: Any, builder: Any, signature: Any, args: Any, i: int) -> Any:
    """Return the pointer to an item: argument `i` is the array, the next one the index."""
    return builder.gep(context.make_array(signature.args[i])(context, builder, args[i]).data, [args[i + 1]])


@_intrinsic
def four_pixels(typingctx: Any, first: Any, second: Any, third: Any, fourth: Any) -> Any:
    """Return four pixels (uint32) as lanes."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        words = ir.Constant(_FOUR_WORDS, ir.Undefined)
        for i, word in enumerate(args):
            words = builder.insert_element(words, word, ir.Constant(_WORD, i))
        return builder.bitcast(words, _BYTES)

    return _LANES(*[types.uint32] * 4), codegen


@_intrinsic
def pixel_of(typingctx: Any, lanes: Any, i: Any) -> Any:
    """Return pixel `i` of lanes, a literal, as uint32."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.extract_element(builder.bitcast(args[0], _FOUR_WORDS), builder.trunc(args[1], _WORD))

    return types.uint32(_LANES, types.intp), codegen


@_intrinsic
def move_down(typingctx: Any, lanes: Any, first: Any) -> Any:
    """Return lanes with each pixel in the place of the next one, and `first` (uint32) before them."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        words = builder.bitcast(args[0], _FOUR_WORDS)
        order = ir.Constant(ir.VectorType(_WORD, 4), [0, 0, 1, 2])
        moved = builder.shuffle_vector(words, words, order)
        return builder.bitcast(builder.insert_element(moved, args[1], ir.Constant(_WORD, 0)), _BYTES)

    return _LANES(_LANES, types.uint32), codegen


@_intrinsic
def plus(typingctx: Any, a: Any, b: Any) -> Any:
    """Return the sums of the bytes of lanes, modulo 256."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.add(*args)

    return _LANES(_LANES, _LANES), codegen


@_intrinsic
def both(typingctx: Any, a: Any, b: Any) -> Any:
    """Return the common bits of lanes."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.and_(*args)

    return _LANES(_LANES, _LANES), codegen


@_intrinsic
def mean(typingctx: Any, a: Any, b: Any) -> Any:
    """Return the means of the bytes of lanes, rounded down."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        half = builder.lshr(builder.xor(*args), _repeat(1))
        return builder.add(builder.and_(*args), half)

    return _LANES(_LANES, _LANES), codegen


@_intrinsic
def nearest_bytes(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """Return which byte of three lanes is nearest to ``a + b - c``, the first one of equals: Paeth's predictor.

    With `low` and `high` of a and b, that is `low` where ``c - low >= 2 * (high - c)``, `high` where
    ``2 * (c - low) <= high - c``, and `c` else, if negative differences count as 0.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        a, b, c = args
        is_less = builder.icmp_unsigned("<", a, b)
        low, high = builder.select(is_less, a, b), builder.select(is_less, b, a)
        over, under = _saturated(builder, "usub", c, low), _saturated(builder, "usub", high, c)
        is_low = builder.icmp_unsigned("<=", _saturated(builder, "uadd", under, under), over)
        is_high = builder.icmp_unsigned("<=", _saturated(builder, "uadd", over, over), under)
        return builder.select(is_high, high, builder.select(is_low, low, c))

    return _LANES(_LANES, _LANES, _LANES), codegen


def _saturated(builder: Any, name: str, a: Any, b: Any) -> Any:
    type_ = ir.FunctionType(_BYTES, [_BYTES, _BYTES])
    return builder.call(_cgutils.get_or_insert_function(builder.module, type_, f"llvm.{name}.sat.v16i8"), [a, b])


def _repeat(value: int) -> ir.Constant:
    return ir.Constant(_BYTES, [value] * 16)
