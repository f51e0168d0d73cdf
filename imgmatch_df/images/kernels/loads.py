"""Numbers in encoded files, as LLVM loads them: a few bytes of uint8[n] from an offset on, as a signed whole number.

They are intrinsics, because numba compiles each small function on its own, 0.02 to 0.1 s at the first command.
Offsets are signed, so the results are too. Nothing checks the offsets.
"""

# The signatures of intrinsics and of their code generators are numba's.
# ruff: noqa: ARG001

from collections.abc import Callable
from typing import Any, Final

from llvmlite import ir

from imgmatch_df._kernels.importing import intrinsic, types


def _loaded(context: Any, builder: Any, signature: Any, args: Any, n_bytes: int) -> Any:
    """Return the bytes at args[1] of the array args[0] as they are in memory: little endian."""
    data = context.make_array(signature.args[0])(context, builder, args[0]).data
    pointer = builder.bitcast(builder.gep(data, [args[1]]), ir.IntType(8 * n_bytes).as_pointer())
    return builder.load(pointer, align=1)


def _load(n_bytes: int, *, is_big: bool) -> Callable[..., Any]:
    def load(typingctx: Any, data: Any, at: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            number = _loaded(context, builder, signature, args, n_bytes)
            number = builder.bswap(number) if is_big else number
            return builder.zext(number, context.get_value_type(types.intp))

        return types.intp(data, types.intp), codegen

    return intrinsic(load)


def _load_either(n_bytes: int) -> Callable[..., Any]:
    """Make the intrinsic with a third argument: little endian if it is true, else big endian."""

    def load(typingctx: Any, data: Any, at: Any, is_little: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            number = _loaded(context, builder, signature, args, n_bytes)
            number = builder.select(args[2], number, builder.bswap(number))
            return builder.zext(number, context.get_value_type(types.intp))

        return types.intp(data, types.intp, types.boolean), codegen

    return intrinsic(load)


byte_at: Final = _load(1, is_big=False)
big_16: Final = _load(2, is_big=True)
big_32: Final = _load(4, is_big=True)
little_32: Final = _load(4, is_big=False)
either_16: Final = _load_either(2)
either_32: Final = _load_either(4)
