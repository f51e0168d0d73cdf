"""Distances of boxes of bytes from one box, 64 at once.

A box has a lowest and a highest byte on each axis; a point is a box whose two are equal. The distance is the sum over
the axes of what lies between the two boxes. It is written as vector IR: one instruction for each step on 64 bytes with
AVX-512, two with AVX2, four with SSE2 and on Arm.
"""

# The signatures of intrinsics and of their code generators are numba's.
# ruff: noqa: ARG001

from typing import Any, Final

from llvmlite import ir

from imgmatch_df._kernels.importing import cgutils, intrinsic, types

BOXES: Final = 64
"""Boxes that are compared at once."""
MAX_GAP: Final = 254
"""Maximum distance that can be compared with: larger sums end at 255."""

_BYTE = ir.IntType(8)
_WORD = ir.IntType(64)
_BLOCK = ir.VectorType(_BYTE, BOXES)

_cgutils: Any = cgutils  # it has no annotations


@intrinsic
def near_points(
    typingctx: Any, points: Any, block: Any, lows: Any, highs: Any, other: Any, lane: Any, limit: Any
) -> Any:
    """Return which points of a block lie within `limit`, at most `MAX_GAP`, of a box: bit i for point i.

    points (n_blocks, n_axes, 64) uint8; lows, highs (n, n_axes, 64) uint8: the box is that of lane `lane` of block
    `other`; limit uint8 -> uint64.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        ours = _Blocks(context, builder, signature, args, 0)
        low, high = (_Blocks(context, builder, signature, args, position) for position in (2, 3))
        return _near(builder, ours, ours, args[1], low, high, args[4], args[5], args[6])

    kinds = points, types.intp, lows, highs, types.intp, types.intp, types.uint8
    return types.uint64(*kinds), codegen


@intrinsic
def near_boxes(
    typingctx: Any,
    lows: Any,
    highs: Any,
    block: Any,
    other_lows: Any,
    other_highs: Any,
    other: Any,
    lane: Any,
    limit: Any,
) -> Any:
    """Return which boxes of a block lie within `limit` of a box, as `near_points` does of points."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        blocks = [_Blocks(context, builder, signature, args, position) for position in (0, 1, 3, 4)]
        return _near(builder, blocks[0], blocks[1], args[2], blocks[2], blocks[3], args[5], args[6], args[7])

    kinds = lows, highs, types.intp, other_lows, other_highs, types.intp, types.intp, types.uint8
    return types.uint64(*kinds), codegen


@intrinsic
def near_points_each(
    typingctx: Any, points: Any, block: Any, lows: Any, highs: Any, other: Any, lane: Any, limits: Any
) -> Any:
    """Return which points of a block lie within their own limit of a box, as `near_points`; limits (64,) uint8."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        ours = _Blocks(context, builder, signature, args, 0)
        low, high = (_Blocks(context, builder, signature, args, position) for position in (2, 3))
        total = _gaps(builder, ours, ours, args[1], low, high, args[4], args[5])
        data = context.make_array(signature.args[6])(context, builder, args[6]).data
        limit = builder.load(builder.bitcast(data, _BLOCK.as_pointer()), align=1)
        return builder.bitcast(builder.icmp_unsigned("<=", total, limit), _WORD)

    kinds = points, types.intp, lows, highs, types.intp, types.intp, limits
    return types.uint64(*kinds), codegen


@intrinsic
def write_gaps(
    typingctx: Any, lows: Any, highs: Any, block: Any, other_lows: Any, other_highs: Any, other: Any, gaps: Any
) -> Any:
    """Write the distances of the boxes of a block from a box, the first of block `other`, at most 255 each.

    Arrays as in `near_boxes`; gaps (64 * n_blocks,) uint8: receives the items ``64 * block`` to ``64 * block + 63``.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        ours = [_Blocks(context, builder, signature, args, position) for position in (0, 1)]
        box = [_Blocks(context, builder, signature, args, position) for position in (3, 4)]
        total = _gaps(builder, ours[0], ours[1], args[2], box[0], box[1], args[5], ir.Constant(_WORD, 0))
        data = context.make_array(signature.args[6])(context, builder, args[6]).data
        place = builder.gep(data, [builder.mul(args[2], ir.Constant(_WORD, BOXES))])
        builder.store(total, builder.bitcast(place, _BLOCK.as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(lows, highs, types.intp, other_lows, other_highs, types.intp, gaps), codegen


class _Blocks:
    """A (n_blocks, n_axes, 64) argument."""

    def __init__(self, context: Any, builder: Any, signature: Any, args: Any, position: int) -> None:
        array = context.make_array(signature.args[position])(context, builder, args[position])
        self.builder, self.data, self.n_axes = builder, array.data, builder.extract_value(array.shape, 1)

    def _pointer(self, block: Any, axis: Any, lane: Any) -> Any:
        row = self.builder.add(self.builder.mul(block, self.n_axes), axis)
        return self.builder.gep(self.data, [self.builder.add(self.builder.mul(row, ir.Constant(_WORD, BOXES)), lane)])

    def load(self, block: Any, axis: Any) -> Any:
        pointer = self._pointer(block, axis, ir.Constant(_WORD, 0))
        return self.builder.load(self.builder.bitcast(pointer, _BLOCK.as_pointer()), align=1)

    def splat(self, block: Any, axis: Any, lane: Any) -> Any:
        return _splat(self.builder, self.builder.load(self._pointer(block, axis, lane)))


def _splat(builder: Any, byte: Any) -> Any:
    empty = ir.Constant(_BLOCK, ir.Undefined)
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), BOXES), None)
    return builder.shuffle_vector(builder.insert_element(empty, byte, ir.Constant(ir.IntType(32), 0)), empty, lanes)


def _near(
    builder: Any,
    lows: _Blocks,
    highs: _Blocks,
    block: Any,
    other_lows: _Blocks,
    other_highs: _Blocks,
    other: Any,
    lane: Any,
    limit: Any,
) -> Any:
    """Return which boxes lie within a limit of another box, as a 64-bit mask."""
    total = _gaps(builder, lows, highs, block, other_lows, other_highs, other, lane)
    return builder.bitcast(builder.icmp_unsigned("<=", total, _splat(builder, limit)), _WORD)


def _gaps(
    builder: Any,
    lows: _Blocks,
    highs: _Blocks,
    block: Any,
    other_lows: _Blocks,
    other_highs: _Blocks,
    other: Any,
    lane: Any,
) -> Any:
    kind = ir.FunctionType(_BLOCK, [_BLOCK, _BLOCK])
    add, subtract = (
        _cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.sat.v{BOXES}i8")
        for name in ("uadd", "usub")
    )
    total = _cgutils.alloca_once_value(builder, ir.Constant(_BLOCK, None))
    zero, one = ir.Constant(_WORD, 0), ir.Constant(_WORD, 1)
    with _cgutils.for_range_slice(builder, zero, lows.n_axes, one, _WORD) as (axis, _):
        low = lows.load(block, axis)
        high = low if highs is lows else highs.load(block, axis)
        above = builder.call(subtract, [low, other_highs.splat(other, axis, lane)])
        below = builder.call(subtract, [other_lows.splat(other, axis, lane), high])
        gap = builder.or_(above, below)  # one of the two is 0
        builder.store(builder.call(add, [builder.load(total), gap]), total)
    return builder.load(total)
