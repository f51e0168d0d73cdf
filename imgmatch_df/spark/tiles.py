"""Tiles: comparisons of two blocks of nodes, each one task of Spark that writes one file.

A tile is compared by the single machine's `Comparison`, whatever the kind of hash. It is written whole or not at all,
and a call again computes only tiles that have no file.
"""

import json
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

import polars as pl

from imgmatch_df.columns import DISTANCE
from imgmatch_df.errors import TooManyPairsError
from imgmatch_df.frames.comparison import Comparison
from imgmatch_df.frames.flat import with_identical
from imgmatch_df.hashes import codec
from imgmatch_df.spark.nodes import BLOCK_BITS, HASH, ID, LAST_ID, NODE, SIZE, Nodes, read_block
from imgmatch_df.spark.schemas import as_spark
from imgmatch_df.spark.shared_points import SharedPoints
from imgmatch_df.spark.workers import map_batches

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray
    from pyspark.sql import SparkSession

Mode = Literal["pairs", "links"]

LEFT_NODE: Final = "left_node"
RIGHT_NODE: Final = "right_node"
_PAIRS_HELD: Final = 10_000_000  # of a tile that is compared in parts
_SUMMARY: Final = "tile long, n_found long, n_row_pairs long, seconds double, error string"
_N_ROW_PAIRS: Final = "n_row_pairs"


@dataclass(frozen=True)
class Tiles:
    """The tiles of one call, by its blocks. The files are in ``tiles/<mode>``.

    Parameters
    ----------
    nodes
        Rows in nodes.
    other
        Those of the right side, where two sides are compared: then each block of `nodes` with each of them. None
        compares all nodes with each other.
    comparison
        How they are compared.
    mode
        ``"pairs"``: `left_node`, `right_node` and the measures of the comparison. Two sides: each pair of a left and a
        right node. One side, and a comparison that is not directed: each pair of nodes once, and each node of several
        rows with itself. One side, and a directed comparison: each pair in those orders in which rows of these nodes
        can be, the row with the smaller id on the left; also of a node with itself.
        ``"links"``: `left_node` and `right_node` of a spanning forest of the graph of the pairs, one link a node that
        is not first in its component; a component of all tiles is one of the forests united.
    max_pairs
        Maximum number of pairs of rows, of one tile and of all; with `in_parts`, of nodes held at once.
    in_parts
        Of two sides: whether left nodes with very many pairs are compared in parts, so that only those of one node are
        limited.
    nearest
        Of two sides and `in_parts`: keep the pairs of each left node that are as near as the pair of this number,
        nearest first. None keeps all.
    shared
        Which points of the images of `nodes` are kept, where they are compared by votes.
    """

    nodes: Nodes
    comparison: Comparison
    mode: Mode
    max_pairs: int
    other: Nodes | None = None
    in_parts: bool = False
    nearest: int | None = None
    shared: SharedPoints | None = None

    @property
    def folder(self) -> str:
        """The folder of the files in that of the call."""
        return f"tiles/{self.mode}"

    def uri(self) -> str:
        """Return the URI of the folder, for Spark."""
        return self.nodes.work.uri_of(self.folder)

    def every(self) -> list[tuple[int, int]]:
        """Return the blocks of each tile."""
        n_left = self.nodes.n_blocks
        if self.other is not None:
            return [(i, j) for i in range(n_left) for j in range(self.other.n_blocks)]
        if self.comparison.equal_only and not self.comparison.directed:
            return [(i, i) for i in range(n_left)]  # equal hashes are in one block
        return [(i, j) for i in range(n_left) for j in range(i, n_left)]


def run_tiles(spark: "SparkSession", tiles: Tiles) -> int:
    """Compute the tiles that have no file, one task each, and return their number.

    Raises
    ------
    TooManyPairsError
        If there are more than `max_pairs` pairs of rows, in the mode ``"pairs"``.
    """
    work, folder = tiles.nodes.work, tiles.folder
    totals = f"{folder}/_totals.json"
    if work.exists(totals):
        _check_total(json.loads(work.read(totals))[_N_ROW_PAIRS], tiles)
        return 0
    there = set(work.names(folder))
    every = tiles.every()
    todo = [tile for tile in every if _name(*tile) not in there]
    n_row_pairs = sum(_row_pairs_of(tiles, tile) for tile in every if _name(*tile) in there)
    if todo:
        numbers = spark.range(0, len(todo), 1, len(todo))
        for row in map_batches(numbers, _ComputeTiles(tiles, todo), _SUMMARY).collect():
            if row["error"] is not None:
                raise TooManyPairsError(row["error"])
            n_row_pairs += row[_N_ROW_PAIRS]
    if missing := {_name(*tile) for tile in every}.difference(work.names(folder)):
        raise FileNotFoundError(
            f"{len(missing):,} of {len(every):,} tiles, such as {min(missing)}, are not in {work.uri}/{folder}\n"
            "Hint: do the driver and all executors have the same folder under this name?"
        )
    _check_total(n_row_pairs, tiles)
    work.write(totals, json.dumps({_N_ROW_PAIRS: n_row_pairs}).encode())
    return len(todo)


def _check_total(n_row_pairs: int, tiles: Tiles) -> None:
    if tiles.mode == "pairs" and not tiles.in_parts and n_row_pairs > tiles.max_pairs:
        from imgmatch_df.matching.join import too_many_pairs

        raise too_many_pairs(tiles.max_pairs)


def _name(i: int, j: int) -> str:
    return f"{i}-{j}.parquet"


def _row_pairs_of(tiles: Tiles, tile: tuple[int, int]) -> int:
    """Return the number of pairs of rows that a finished tile stands for."""
    import io

    import pyarrow.parquet as pq

    schema = pq.read_schema(io.BytesIO(tiles.nodes.work.read(f"{tiles.folder}/{_name(*tile)}")))
    return int(schema.metadata[_N_ROW_PAIRS.encode()])


class _ComputeTiles:
    """The function of a task: computes the tiles whose numbers it gets."""

    def __init__(self, tiles: Tiles, todo: list[tuple[int, int]]) -> None:
        self._tiles, self._todo = tiles, todo

    def __call__(self, batches: "Iterator[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
        import pyarrow as pa

        for batch in batches:
            for number in batch.column(0).to_pylist():
                start = time.perf_counter()
                n_found = n_row_pairs = 0
                error = None
                try:
                    n_found, n_row_pairs = _compute(self._tiles, *self._todo[number])
                except TooManyPairsError as raised:
                    error = str(raised)
                yield pa.RecordBatch.from_pydict(
                    {
                        "tile": pa.array([number], pa.int64()),
                        "n_found": pa.array([n_found], pa.int64()),
                        _N_ROW_PAIRS: pa.array([n_row_pairs], pa.int64()),
                        "seconds": pa.array([time.perf_counter() - start], pa.float64()),
                        "error": pa.array([error], pa.string()),
                    }
                )


def _compute(tiles: Tiles, i: int, j: int) -> tuple[int, int]:
    """Write one tile; return its number of rows, and the number of pairs of rows that these stand for."""
    if tiles.shared is not None:
        blocks_of_left = {i, j} if tiles.other is None else {i}
        tiles = replace(tiles, comparison=tiles.shared.comparison(tiles.comparison, blocks_of_left))
    if tiles.other is not None:
        found, n_row_pairs = _pairs_of_sides(tiles, _block(tiles.nodes, i, tiles), _block(tiles.other, j, tiles))
    else:
        blocks = [_block(tiles.nodes, one, tiles) for one in dict.fromkeys((i, j))]
        if tiles.mode == "links":
            found, n_row_pairs = _links(tiles, blocks), 0
        elif tiles.comparison.directed:
            found, n_row_pairs = _directed_pairs(tiles, blocks)
        else:
            found, n_row_pairs = _pairs(tiles, blocks)
    table = as_spark(found).replace_schema_metadata({_N_ROW_PAIRS: str(n_row_pairs)})
    tiles.nodes.work.write_table(f"{tiles.folder}/{_name(i, j)}", table)
    return found.height, n_row_pairs


@dataclass(frozen=True)
class _Block:
    """Nodes of one block in their order, and of each the words of its hash, its first and last id, and its size."""

    words: "NDArray[np.uint64]"
    nodes: "NDArray[np.int64]"
    sizes: "NDArray[np.int64]"
    ids: pl.Series | None
    last_ids: pl.Series | None


_kept: dict[tuple[str, str, int, bool], _Block] = {}  # the last two blocks of a worker


def _block(nodes: Nodes, number: int, tiles: Tiles) -> _Block:
    """Return a block, which a worker keeps for its next tile."""
    with_ids = tiles.other is None and tiles.mode == "pairs" and tiles.comparison.directed
    key = (nodes.work.uri, nodes.stage, number, with_ids)
    found = _kept.pop(key, None)
    if found is None:
        found = _read_block(nodes, number, tiles.comparison, with_ids=with_ids)
    while len(_kept) > 1:
        del _kept[next(iter(_kept))]
    _kept[key] = found
    return found


def _read_block(nodes: Nodes, number: int, comparison: Comparison, *, with_ids: bool) -> _Block:
    import numpy as np

    kind = comparison.kind
    columns = [NODE, HASH, SIZE, *([ID, LAST_ID] if with_ids else [])]
    try:
        rows = pl.DataFrame(read_block(nodes, number, columns))
    except FileNotFoundError:
        if not nodes.work.is_finished(nodes.stage):
            raise  # this executor has another folder under the name of the work folder
        # no hash is in this block
        none = np.zeros(0, np.int64)
        words = codec.hash_words(pl.Series([], dtype=kind.dtype), kind)
        return _Block(words, none, none, None, None)
    return _Block(
        codec.hash_words(codec.as_hashes(rows[HASH], kind), kind),
        rows[NODE].to_numpy(),
        rows[SIZE].to_numpy(),
        rows[ID] if with_ids else None,
        rows[LAST_ID] if with_ids else None,
    )


def _pairs_of_sides(tiles: Tiles, left: _Block, right: _Block) -> tuple[pl.DataFrame, int]:
    """Return the pairs of a left and a right node."""
    if tiles.in_parts:
        return _nearest_pairs(tiles, left, right), 0
    pairs = tiles.comparison.cross_pairs(left.words, right.words, tiles.max_pairs, None)
    n_row_pairs = int(left.sizes[pairs.left] @ right.sizes[pairs.right])
    return _frame(tiles, pairs, left.nodes, right.nodes), n_row_pairs


def _nearest_pairs(tiles: Tiles, left: _Block, right: _Block) -> pl.DataFrame:
    """Return the pairs of a left and a right node, found in parts of the left nodes where there are too many."""
    parts, found = [(0, len(left.nodes))], []
    while parts:
        first, end = parts.pop()
        limit = tiles.max_pairs if end - first < 2 else min(tiles.max_pairs, _PAIRS_HELD)
        try:
            pairs = tiles.comparison.cross_pairs(left.words[first:end], right.words, limit, None)
        except TooManyPairsError:
            if end - first < 2:
                raise
            middle = (first + end) // 2
            parts += [(middle, end), (first, middle)]
            continue
        if tiles.nearest is not None:
            pairs = _as_near(tiles.comparison, pairs, tiles.nearest)
        found.append(_frame(tiles, pairs, left.nodes[first:end], right.nodes))
    return pl.concat(found)


def _as_near(comparison: Comparison, pairs: Any, k: int) -> Any:
    """Return the pairs of each left position that are as near as its pair of the number `k`, nearest first."""
    import numpy as np

    far = pairs.distance if comparison.measure == DISTANCE else -pairs.votes.astype(np.int16)
    order = np.lexsort((far, pairs.left))
    left, sorted_far = pairs.left[order], far[order]
    _, starts, counts = np.unique(left, return_index=True, return_counts=True)
    limits = sorted_far[starts + np.minimum(counts, k) - 1]
    kept = order[sorted_far <= np.repeat(limits, counts)]
    return type(pairs)(*(column[kept] for column in pairs))


def _pairs(tiles: Tiles, blocks: list[_Block]) -> tuple[pl.DataFrame, int]:
    """Return the pairs of nodes of two blocks, or of one, in any order."""
    import numpy as np

    if len(blocks) == 2:
        return _pairs_of_sides(tiles, *blocks)
    (block,) = blocks
    pairs = tiles.comparison.self_pairs(block.words, tiles.max_pairs, None)
    n_row_pairs = int(block.sizes[pairs.left] @ block.sizes[pairs.right])
    several = np.flatnonzero(block.sizes > 1)
    sizes = block.sizes[several]
    n_row_pairs += int(sizes @ (sizes - 1)) // 2
    return _frame(tiles, with_identical(pairs, (several, several)), block.nodes, block.nodes), n_row_pairs


def _directed_pairs(tiles: Tiles, blocks: list[_Block]) -> tuple[pl.DataFrame, int]:
    """Return the pairs of nodes in the orders in which their rows can be: those of the first and last row of each."""
    import numpy as np

    nodes, sizes, words = (
        np.concatenate([getattr(block, name) for block in blocks]) for name in ("nodes", "sizes", "words")
    )
    places = np.arange(len(nodes))
    several = np.flatnonzero(sizes > 1)
    ids = [block.ids for block in blocks if block.ids is not None]
    last_ids = [block.last_ids for block in blocks if block.last_ids is not None]
    if not ids:
        return _frame(tiles, tiles.comparison.self_pairs(words, tiles.max_pairs, None), nodes, nodes), 0
    entries = pl.concat([*ids, pl.concat(last_ids).gather(several)])
    order = entries.arg_sort().to_numpy()
    place = np.concatenate([places, several])[order]
    pairs = tiles.comparison.self_pairs(words[place], tiles.max_pairs, None)
    pairs = pairs._replace(left=place[pairs.left], right=place[pairs.right])
    key = pairs.left.astype(np.int64) * len(nodes) + pairs.right
    _, first = np.unique(key, return_index=True)
    if len(blocks) == 2:
        between = nodes[pairs.left[first]] >> BLOCK_BITS != nodes[pairs.right[first]] >> BLOCK_BITS
        first = first[between]
    pairs = type(pairs)(*(values[first] for values in pairs))
    ends = np.unique(np.sort(np.stack([pairs.left, pairs.right], axis=1), axis=1), axis=0)
    same = ends[:, 0] == ends[:, 1]
    counts = sizes[ends[:, 0]] * (sizes[ends[:, 1]] - same) // np.where(same, 2, 1)
    return _frame(tiles, pairs, nodes, nodes), int(counts.sum())


def _links(tiles: Tiles, blocks: list[_Block]) -> pl.DataFrame:
    """Return a spanning forest of the pairs of the nodes of blocks."""
    import numpy as np

    nodes, words = (np.concatenate([getattr(block, name) for block in blocks]) for name in ("nodes", "words"))
    first = tiles.comparison.components(words, None)
    linked = np.flatnonzero(first != np.arange(len(first)))
    return pl.DataFrame({LEFT_NODE: nodes[first[linked]], RIGHT_NODE: nodes[linked]})


def _frame(tiles: Tiles, pairs: Any, left: "NDArray[np.int64]", right: "NDArray[np.int64]") -> pl.DataFrame:
    return pl.DataFrame(
        {LEFT_NODE: left[pairs.left], RIGHT_NODE: right[pairs.right], **tiles.comparison.measures(pairs)}
    )
