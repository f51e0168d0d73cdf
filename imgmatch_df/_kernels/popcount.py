"""Bit counting as LLVM knows it: one word, and a block of words at once.

The vector forms are written as vector IR rather than left to the loop vectoriser: LLVM lowers them to ``vpopcntq`` on
AVX-512, to byte shuffles on AVX2 and to ``cnt`` on Arm, and short runs of a bucket are as fast as long ones.
"""

# The signatures of intrinsics and of their code generators are numba's.
# ruff: noqa: ARG001

from collections.abc import Callable
from typing import Any, Final

from llvmlite import ir

from imgmatch_df._kernels.importing import cgutils, intrinsic, types

LANES: Final = 16
"""Hashes that `near_mask` compares at once. Columns are padded by as many, because it reads past the end of a run."""
STRETCH: Final = 4 * LANES
"""Hashes that `next_stretch` passes at once."""

# Casts in compiled code. numba, not mypy, knows the types inside of kernels.
int64: Any = types.int64
uint8: Any = types.uint8
uint64: Any = types.uint64

_WORD = ir.IntType(64)
_EIGHT = ir.VectorType(_WORD, 8)

_cgutils: Any = cgutils  # it has no annotations


def _intrinsic(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return numba's intrinsic, typed as it is called: without the typing context."""
    return intrinsic(function)


@_intrinsic
def popcount(typingctx: Any, word: Any) -> Any:
    """Return the number of ones of `word` (uint64) as uint64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.uint64(types.uint64), codegen


@_intrinsic
def lowest_one(typingctx: Any, word: Any) -> Any:
    """Return the place of the lowest one of `word` (uint64) as uint64, 64 if there is none."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.uint64(types.uint64), codegen


@_intrinsic
def word_at(typingctx: Any, address: Any) -> Any:
    """Return the eight bytes at a memory address (int64), which need not be aligned, as uint64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(builder.inttoptr(args[0], _WORD.as_pointer()), align=1)

    return types.uint64(types.int64), codegen


@_intrinsic
def unlike_words(typingctx: Any, left: Any, i: Any, right: Any, j: Any) -> Any:
    """Return in how many bits the eight words of two arrays (uint64) from items i and j on differ, as uint64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        arrays = [context.make_array(signature.args[k])(context, builder, args[k]).data for k in (0, 2)]
        a, b = (_load_eight(builder, builder.gep(data, [at])) for data, at in zip(arrays, args[1::2], strict=True))
        return _count_eight(builder, builder.xor(a, b))

    return types.uint64(left, types.intp, right, types.intp), codegen


@_intrinsic
def unlike_sixteen(typingctx: Any, left: Any, i: Any, right: Any, j: Any) -> Any:
    """Return what `unlike_words` counts of sixteen words, with one sum over the items of a vector."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        arrays = [context.make_array(signature.args[k])(context, builder, args[k]).data for k in (0, 2)]
        total = None
        for start in (0, 8):
            places = (builder.add(at, ir.Constant(_WORD, start)) for at in args[1::2])
            a, b = (_load_eight(builder, builder.gep(data, [at])) for data, at in zip(arrays, places, strict=True))
            ones = _call_eight(builder, "ctpop", _EIGHT, builder.xor(a, b))
            total = ones if total is None else builder.add(total, ones)
        return _call_eight(builder, "vector.reduce.add", _WORD, total)

    return types.uint64(left, types.intp, right, types.intp), codegen


@_intrinsic
def unlike_masked(typingctx: Any, left: Any, i: Any, right: Any, j: Any, masks: Any, k: Any) -> Any:
    """Return in how many of the bits that eight words of masks from item k on select `unlike_words` differ."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        arrays = [context.make_array(signature.args[at])(context, builder, args[at]).data for at in (0, 2, 4)]
        places = zip(arrays, args[1::2], strict=True)
        a, b, mask = (_load_eight(builder, builder.gep(data, [at])) for data, at in places)
        return _count_eight(builder, builder.and_(builder.xor(a, b), mask))

    return types.uint64(left, types.intp, right, types.intp, masks, types.intp), codegen


@_intrinsic
def unlike_block(typingctx: Any, address: Any, words: Any, masks: Any, at: Any) -> Any:
    """Return in how many of the bits that ``masks[at : at + 8]`` selects the 64 bytes at an address differ from words.

    address int64, which need not be aligned, words, masks (>= at + 8,) uint64 -> uint64.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        arrays = [context.make_array(signature.args[k])(context, builder, args[k]).data for k in (1, 2)]
        ours, mask = (_load_eight(builder, builder.gep(data, [args[3]])) for data in arrays)
        there = _load_eight(builder, builder.inttoptr(args[0], _WORD.as_pointer()), align=1)
        return _count_eight(builder, builder.and_(builder.xor(there, ours), mask))

    return types.uint64(types.int64, words, masks, types.intp), codegen


@_intrinsic
def unlike_two_blocks(typingctx: Any, address: Any, words: Any, masks: Any, second: Any) -> Any:
    """Return what `unlike_block` counts of the 64 bytes at an address and of those ``address + second``.

    words, masks (16,) uint64. The items of both are added up as vectors: the sum of the items of one takes as long as
    counting both.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        arrays = [context.make_array(signature.args[k])(context, builder, args[k]).data for k in (1, 2)]
        total = None
        for at, offset in ((0, ir.Constant(_WORD, 0)), (8, args[3])):
            place = builder.inttoptr(builder.add(args[0], offset), _WORD.as_pointer())
            ours, mask = (_load_eight(builder, builder.gep(data, [ir.Constant(_WORD, at)])) for data in arrays)
            unlike = builder.and_(builder.xor(_load_eight(builder, place, align=1), ours), mask)
            ones = _call_eight(builder, "ctpop", _EIGHT, unlike)
            total = ones if total is None else builder.add(total, ones)
        return _call_eight(builder, "vector.reduce.add", _WORD, total)

    return types.uint64(types.int64, words, masks, types.intp), codegen


@_intrinsic
def prefetch_bytes(typingctx: Any, address: Any) -> Any:
    """Prefetch the 128 bytes at a memory address (int64), which need not be one of the process."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _prefetch(builder, args[0])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


def _load_eight(builder: Any, pointer: Any, align: int = 8) -> Any:
    return builder.load(builder.bitcast(pointer, _EIGHT.as_pointer()), align=align)


def _count_eight(builder: Any, words: Any) -> Any:
    return _call_eight(builder, "vector.reduce.add", _WORD, _call_eight(builder, "ctpop", _EIGHT, words))


def _call_eight(builder: Any, name: str, result: Any, words: Any) -> Any:
    kind = ir.FunctionType(result, [_EIGHT])
    return builder.call(_cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.v8i64"), [words])


def _prefetch(builder: Any, address: Any) -> None:
    pointer_type, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
    function_type = ir.FunctionType(ir.VoidType(), [pointer_type, flag, flag, flag])
    prefetch = _cgutils.get_or_insert_function(builder.module, function_type, "llvm.prefetch.p0")
    read, keep, data = ir.Constant(flag, 0), ir.Constant(flag, 3), ir.Constant(flag, 1)
    for offset in (0, 64):  # a line may lie beyond the array: a prefetch never faults
        place = builder.inttoptr(builder.add(address, ir.Constant(_WORD, offset)), pointer_type)
        builder.call(prefetch, [place, read, keep, data])


@_intrinsic
def prefetch_row(typingctx: Any, hashes: Any, row: Any) -> Any:
    """Prefetch the first 128 bytes of a row of hashes (n, n_words) uint64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, args[0])
        n_words = builder.extract_value(array.shape, 1)
        _prefetch(builder, builder.ptrtoint(builder.gep(array.data, [builder.mul(args[1], n_words)]), _WORD))
        return context.get_dummy_value()

    return types.void(hashes, types.intp), codegen


@_intrinsic
def near_mask(typingctx: Any, columns: Any, at: Any, queries: Any, query: Any, n_words: Any, radius: Any) -> Any:
    """Return which of `LANES` hashes lie within `radius` of a query in `n_words` words: bit i for hash ``at + i``.

    columns (>= n_words, n), queries (>= n_words, n_queries), both uint64 or both uint32, C-contiguous -> uint64.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        blocks, words = _Columns(context, builder, signature, args, 0), _Columns(context, builder, signature, args, 2)
        near = _near(builder, blocks, words, blocks.block(args[1]), args)
        return builder.zext(builder.bitcast(near, ir.IntType(LANES)), _WORD)

    signature = types.uint64(columns, types.intp, queries, types.intp, types.intp, types.uint64)
    return signature, codegen


@_intrinsic
def near_stretch(typingctx: Any, columns: Any, at: Any, queries: Any, query: Any, n_words: Any, radius: Any) -> Any:
    """Return which of `STRETCH` hashes lie within `radius` of a query, as `near_mask` does of `LANES`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        blocks, words = _Columns(context, builder, signature, args, 0), _Columns(context, builder, signature, args, 2)
        radius = blocks.splat_radius(args[5])
        mask = ir.Constant(_WORD, 0)
        for k, of_block in enumerate(_stretch_distances(builder, blocks, words, args[1], args)):
            near = builder.bitcast(builder.icmp_unsigned("<=", of_block, radius), ir.IntType(LANES))
            mask = builder.or_(mask, builder.shl(builder.zext(near, _WORD), ir.Constant(_WORD, k * LANES)))
        return mask

    return types.uint64(columns, types.intp, queries, types.intp, types.intp, types.uint64), codegen


@_intrinsic
def close_places(typingctx: Any, places: Any, at: Any, x: Any, y: Any, limit: Any) -> Any:
    """Return which of 64 places have a squared distance of at most `limit`, up to 63, from x, y: bit i for place i.

    places (>= at + 2, 64) uint8, C-contiguous: the rows `at` and ``at + 1`` have x and y; x, y, limit uint8 -> uint64.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        byte = ir.IntType(8)
        block = ir.VectorType(byte, 64)
        empty = ir.Constant(block, ir.Undefined)
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), 64), None)
        kind = ir.FunctionType(block, [block, block])
        umin, umax = (
            _cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.v64i8") for name in ("umin", "umax")
        )

        def splat(value: Any) -> Any:
            return builder.shuffle_vector(
                builder.insert_element(empty, value, ir.Constant(ir.IntType(32), 0)), empty, lanes
            )

        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        total = None
        for axis, value in enumerate(args[2:4]):
            row = builder.mul(builder.add(args[1], ir.Constant(_WORD, axis)), ir.Constant(_WORD, 64))
            there = builder.load(builder.bitcast(builder.gep(data, [row]), block.as_pointer()), align=1)
            here = splat(value)
            off = builder.sub(builder.call(umax, [here, there]), builder.call(umin, [here, there]))
            off = builder.call(umin, [off, splat(ir.Constant(byte, 8))])  # two squares fit a byte
            square = builder.mul(off, off)
            total = square if total is None else builder.add(total, square)
        return builder.bitcast(builder.icmp_unsigned("<=", total, splat(args[4])), _WORD)

    return types.uint64(places, types.intp, types.uint8, types.uint8, types.uint8), codegen


@_intrinsic
def next_near(
    typingctx: Any, columns: Any, at: Any, queries: Any, query: Any, n_words: Any, radius: Any, stop: Any
) -> Any:
    """Return the first query of ``query..stop`` for which `near_mask` is not 0, or `stop`.

    The block stays in registers while the queries pass by: 0.1 ns a pair where a call for each query takes 0.3.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        blocks, words = _Columns(context, builder, signature, args, 0), _Columns(context, builder, signature, args, 2)
        first = blocks.block(args[1])  # stays in registers: the loop would load it again for each query

        def near_at(index: Any) -> Any:
            return _near(builder, blocks, words, first, (*args[:3], index, *args[4:]))

        return _first_hit(builder, args[3], args[6], 1, near_at)

    signature = types.intp(columns, types.intp, queries, types.intp, types.intp, types.uint64, types.intp)
    return signature, codegen


@_intrinsic
def next_stretch(
    typingctx: Any, columns: Any, at: Any, queries: Any, query: Any, n_words: Any, radius: Any, stop: Any
) -> Any:
    """Return the first of ``at, at + STRETCH, …`` below `stop` where one of `STRETCH` hashes is near, or `stop`.

    What `next_near` is for many queries, this is for few: the query stays in a register while the hashes pass by. Only
    the least distance of four blocks is compared with the radius.
    """

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        blocks, words = _Columns(context, builder, signature, args, 0), _Columns(context, builder, signature, args, 2)
        kind = ir.FunctionType(blocks.type, [blocks.type, blocks.type])
        umin = _cgutils.get_or_insert_function(builder.module, kind, f"llvm.umin.{blocks.name}")

        def near_at(index: Any) -> Any:
            least, *others = _stretch_distances(builder, blocks, words, index, args)
            for other in others:
                least = builder.call(umin, [least, other])
            return builder.icmp_unsigned("<=", least, blocks.splat_radius(args[5]))

        return _first_hit(builder, args[1], args[6], STRETCH, near_at)

    signature = types.intp(columns, types.intp, queries, types.intp, types.intp, types.uint64, types.intp)
    return signature, codegen


@_intrinsic
def copy_lanes(typingctx: Any, target: Any, to: Any, source: Any, at: Any) -> Any:
    """Copy the items ``at..at + LANES`` of an array to ``to..to + LANES`` of another of its dtype."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        there, here = (context.make_array(signature.args[k])(context, builder, args[k]).data for k in (0, 2))
        pointer = ir.VectorType(ir.IntType(signature.args[2].dtype.bitwidth), LANES).as_pointer()
        items = builder.load(builder.bitcast(builder.gep(here, [args[3]]), pointer), align=4)
        builder.store(items, builder.bitcast(builder.gep(there, [args[1]]), pointer), align=4)
        return context.get_dummy_value()

    return types.void(target, types.intp, source, types.intp), codegen


class _Columns:
    """A (n_words, n) argument: the block of a word's column that begins at a row, or one word of it."""

    def __init__(self, context: Any, builder: Any, signature: Any, args: Any, position: int) -> None:
        array = context.make_array(signature.args[position])(context, builder, args[position])
        self.builder, self.data, self.n_rows = builder, array.data, builder.extract_value(array.shape, 1)
        self.word = ir.IntType(signature.args[position].dtype.bitwidth)
        self.type, self.name = ir.VectorType(self.word, LANES), f"v{LANES}i{self.word.width}"

    def pointer(self, row: Any, word: Any) -> Any:
        return self.builder.gep(self.data, [self.builder.add(self.builder.mul(word, self.n_rows), row)])

    def block(self, row: Any, word: Any = ir.Constant(_WORD, 0)) -> Any:  # noqa: B008  # an immutable constant
        pointer = self.builder.bitcast(self.pointer(row, word), self.type.as_pointer())
        return self.builder.load(pointer, align=self.word.width // 8)

    def splat(self, row: Any, word: Any = ir.Constant(_WORD, 0)) -> Any:  # noqa: B008
        return self._splat(self.builder.load(self.pointer(row, word)))

    def splat_radius(self, radius: Any) -> Any:
        return self._splat(self.builder.trunc(radius, self.word) if self.word.width < 64 else radius)

    def _splat(self, word: Any) -> Any:
        empty = ir.Constant(self.type, ir.Undefined)
        lanes = ir.Constant(ir.VectorType(ir.IntType(32), LANES), None)
        first = self.builder.insert_element(empty, word, ir.Constant(ir.IntType(32), 0))
        return self.builder.shuffle_vector(first, empty, lanes)


def _first_hit(builder: Any, start: Any, stop: Any, step: int, near_at: Callable[[Any], Any]) -> Any:
    """Return the first of ``start, start + step, …`` below `stop` of which `near_at` gives a near lane, or `stop`."""
    result = _cgutils.alloca_once_value(builder, stop)
    with _cgutils.for_range_slice(builder, start, stop, ir.Constant(_WORD, step), _WORD) as (index, _):
        lanes = builder.bitcast(near_at(index), ir.IntType(LANES))
        hit = builder.icmp_unsigned("!=", lanes, ir.Constant(ir.IntType(LANES), 0))
        with _cgutils.if_unlikely(builder, hit):
            builder.store(index, result)
            builder.branch(done := builder.append_basic_block("done"))
    builder.branch(done)
    builder.position_at_end(done)
    return builder.load(result)


def _near(builder: Any, blocks: _Columns, words: _Columns, first: Any, args: Any) -> Any:
    """Return the <LANES x i1> of hashes within the radius; `first` is the block of word 0, already loaded."""
    (distances,) = _distances(builder, blocks, words, [args[1]], [first], args)
    return builder.icmp_unsigned("<=", distances, blocks.splat_radius(args[5]))


def _stretch_distances(builder: Any, blocks: _Columns, words: _Columns, at: Any, args: Any) -> list[Any]:
    """Return the distances of the `STRETCH` hashes from `at` on from the query, a vector for each block."""
    places = [builder.add(at, ir.Constant(_WORD, start)) for start in range(0, STRETCH, LANES)]
    return _distances(builder, blocks, words, places, list(map(blocks.block, places)), args)


def _distances(
    builder: Any, blocks: _Columns, words: _Columns, places: list[Any], firsts: list[Any], args: Any
) -> list[Any]:
    """Return the distances of the blocks at some places from the query, a vector each; `firsts` are those of word 0."""
    kind = ir.FunctionType(blocks.type, [blocks.type])
    ctpop = _cgutils.get_or_insert_function(builder.module, kind, f"llvm.ctpop.{blocks.name}")
    query, n_words, one = args[3], args[4], ir.Constant(_WORD, 1)

    def distances(ours: Any, theirs: list[Any]) -> list[Any]:
        return [builder.call(ctpop, [builder.xor(block, ours)]) for block in theirs]

    totals = [_cgutils.alloca_once_value(builder, ones) for ones in distances(words.splat(query), firsts)]
    with _cgutils.for_range_slice(builder, one, n_words, one, _WORD) as (word, _):
        theirs = [blocks.block(place, word) for place in places]
        for total, ones in zip(totals, distances(words.splat(query, word), theirs), strict=True):
            builder.store(builder.add(builder.load(total), ones), total)
    return [builder.load(total) for total in totals]
