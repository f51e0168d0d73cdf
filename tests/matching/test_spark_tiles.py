"""Pairs of nodes of all tiles, expanded to rows, equal those of one machine. Needs no Spark."""

import numpy as np
import polars as pl
import pytest
from near_hashes import near_hashes

import imgmatch_df
from imgmatch_df.errors import TooManyPairsError
from imgmatch_df.frames.criteria import check_comparison
from imgmatch_df.hashes import codec
from imgmatch_df.hashes.kinds import KINDS
from imgmatch_df.spark import tiles
from imgmatch_df.spark.nodes import BLOCK_BITS, Nodes
from imgmatch_df.spark.work import WorkFolder

N_BLOCKS = 3


def near_rows(name: str, n_rows: int = 1_500) -> pl.DataFrame:
    """Return hashes of a kind, of which a half is up to 3 bits from others, some equal, by ids in any order."""
    rng, kind = np.random.default_rng(5), KINDS[name]
    hashes = near_hashes(kind, n_rows, rng)
    ids = [f"é{number:05}" for number in rng.permutation(n_rows)]
    return pl.DataFrame({"id": ids, name: pl.Series(values=hashes, dtype=kind.dtype)}).sort("id")


@pytest.mark.parametrize(
    ("name", "turns", "radius"),
    [("bmh1", True, 6), ("pdq", True, 0), ("pdq", None, 6), ("phash", None, 6), ("phash", None, 0)],
)
def test_pairs_of_all_tiles(name, turns, radius):
    frame, kind = near_rows(name), KINDS[name]
    block_of = pl.col(name).rank("dense").cast(pl.Int64) * 7919 % 31 % N_BLOCKS
    place = pl.col(name).rank("dense").over("block").cast(pl.Int64) - 1
    rows = frame.with_columns(block_of.alias("block")).with_columns(node=place + pl.col("block") * (1 << BLOCK_BITS))
    nodes = rows.group_by("node", maintain_order=True).agg(
        pl.col(name, "block", "id").first(), pl.len().cast(pl.Int64).alias("size"), pl.col("id").last().alias("last")
    )
    blocks = []
    for number in range(N_BLOCKS):
        one = nodes.filter(pl.col("block") == number).sort("node")
        last = one.select(pl.when(pl.col("size") > 1).then("last")).to_series()
        words = codec.hash_words(one[name], kind)
        blocks.append(tiles._Block(words, one["node"].to_numpy(), one["size"].to_numpy(), one["id"], last))
    comparison = check_comparison(name, radius, None, turns)
    joined = tiles.Tiles(Nodes(WorkFolder("/nowhere"), "rows", N_BLOCKS, ""), comparison, "pairs", 10**6)
    find = tiles._directed_pairs if comparison.directed else tiles._pairs
    found = [find(joined, [blocks[one] for one in dict.fromkeys(tile)]) for tile in joined.every()]

    lefts = rows.select(pl.col("node").alias("left_node"), pl.col("id").alias("left"))
    rights = rows.select(pl.col("node").alias("right_node"), pl.col("id").alias("right"))
    pairs = pl.concat([pairs for pairs, _ in found]).join(lefts, on="left_node").join(rights, on="right_node")
    is_ordered = pl.col("left") < pl.col("right")
    between = pl.col("left_node") != pl.col("right_node")
    pairs = pairs.filter(is_ordered if comparison.directed else is_ordered | between)
    wanted = imgmatch_df.near_duplicates(frame, radius, name, turns=turns, id="id", flat="match")
    pairs = pairs.select(
        pl.min_horizontal("left", "right").alias("left_id"),
        pl.max_horizontal("left", "right").alias("right_id"),
        *wanted.columns[2:],
    )
    assert pairs.sort(pairs.columns).equals(wanted.sort(wanted.columns))
    assert sum(n_pairs for _, n_pairs in found) == wanted.height


def test_nearest_in_parts(monkeypatch):
    """Left hashes with too many pairs to hold are compared in parts, and ties at the last place are kept."""
    words = np.arange(64, dtype=np.uint64)[:, None]
    block = tiles._Block(words, np.arange(64), np.ones(64, np.int64), None, None)
    nodes = Nodes(WorkFolder("/nowhere"), "rows", 1, "")
    comparison = check_comparison("phash", 3, None, None)
    every = tiles._nearest_pairs(
        tiles.Tiles(nodes, comparison, "pairs", 10**6, nodes, in_parts=True, nearest=2), block, block
    )
    monkeypatch.setattr(tiles, "_PAIRS_HELD", 100)
    parts = tiles._nearest_pairs(
        tiles.Tiles(nodes, comparison, "pairs", 10**6, nodes, in_parts=True, nearest=2), block, block
    )
    assert parts.sort(parts.columns).equals(every.sort(every.columns))
    assert len(every) == 64 * 7  # itself, and six others at one bit
    with pytest.raises(TooManyPairsError):
        tiles._nearest_pairs(tiles.Tiles(nodes, comparison, "pairs", 10, nodes, in_parts=True, nearest=2), block, block)
