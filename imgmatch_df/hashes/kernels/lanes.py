"""Steps with LLVM vectors that several kernels share."""

from collections.abc import Iterable
from typing import Any, Final

from llvmlite import ir

INT8: Final = ir.IntType(8)
INT16: Final = ir.IntType(16)
INT32: Final = ir.IntType(32)
INT64: Final = ir.IntType(64)


def constant(element: Any, values: Iterable[int]) -> Any:
    """Return a constant vector."""
    lanes = list(values)
    return ir.Constant(ir.VectorType(element, len(lanes)), lanes)


def select(builder: Any, vector: Any, lanes: Iterable[int]) -> Any:
    """Return the lanes of a vector with these numbers."""
    return builder.shuffle_vector(vector, vector, constant(INT32, lanes))


def splat(builder: Any, value: Any, n_lanes: int) -> Any:
    """Return a vector of `n_lanes` times a value."""
    lane = builder.insert_element(ir.Constant(ir.VectorType(value.type, n_lanes), ir.Undefined), value, INT32(0))
    return select(builder, lane, [0] * n_lanes)


def multiply_add_pairs(builder: Any, left: Any, right: Any) -> Any:
    """Multiply signed lanes of 16 bits and add neighbours, in lanes of 32: LLVM makes one pmaddwd of it."""
    n_lanes = left.type.count
    wide = ir.VectorType(INT32, n_lanes // 2)
    even, odd = (
        builder.mul(*(builder.sext(select(builder, side, range(parity, n_lanes, 2)), wide) for side in (left, right)))
        for parity in (0, 1)
    )
    return builder.add(even, odd)
