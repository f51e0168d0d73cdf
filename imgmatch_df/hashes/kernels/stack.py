"""Arrays of a fixed length on the stack of a kernel, and what numba compiles slowly for any array.

numba takes 0.03 to 0.2 s to compile `np.empty` for each number of axes and each type, and these arrays none.
"""

from typing import Any, Final

from llvmlite import ir

from imgmatch_df._kernels.importing import cgutils, intrinsic, types

_LINE: Final = 64  # bytes of a cache line


def stack_array(element: Any, length: int) -> Any:
    """Make the intrinsic that returns `element` [length], not initialised, until the kernel returns.

    A second call in one kernel returns the same memory, also in a loop.
    """

    def allocate(typingctx: Any) -> Any:  # noqa: ARG001  named by numba
        kind = types.Array(element, 1, "C")

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:  # noqa: ARG001
            stored = context.get_data_type(element)
            # Not `alloca_once`, which also stores zeros as one value: LLVM takes 0.3 s for one of 4,096 numbers.
            with builder.goto_entry_block():
                memory = builder.alloca(ir.ArrayType(stored, length))
            memory.align = _LINE
            n_bytes = context.get_abi_sizeof(stored)
            array = context.make_array(kind)(context, builder)
            array.data = builder.bitcast(memory, stored.as_pointer())
            n_items, step = (context.get_constant(types.intp, value) for value in (length, n_bytes))
            array.shape = cgutils.pack_array(builder, [n_items])
            array.strides = cgutils.pack_array(builder, [step])
            array.nitems, array.itemsize = n_items, step
            array.meminfo = cgutils.get_null_value(array.meminfo.type)  # nothing to free
            array.parent = cgutils.get_null_value(array.parent.type)
            return array._getvalue()

        return kind(), codegen

    return intrinsic(allocate)


@intrinsic
def word_of(typingctx: Any, array: Any, number: Any) -> Any:  # noqa: ARG001
    """Return the eight bytes from 8 * `number` on of an array of any type, as uint64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        words = builder.bitcast(data, ir.IntType(64).as_pointer())
        return builder.load(builder.gep(words, [args[1]]), align=1)

    return types.uint64(array, types.intp), codegen


@intrinsic
def zero_items(typingctx: Any, array: Any, first: Any, stop: Any) -> Any:  # noqa: ARG001
    """Write zeros to the items first..stop of an array; first <= stop."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        n_bytes = context.get_abi_sizeof(data.type.pointee)
        n_cleared = builder.mul(builder.sub(args[2], args[1]), context.get_constant(types.intp, n_bytes))
        cgutils.memset(builder, builder.gep(data, [args[1]]), n_cleared, 0)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp), codegen
