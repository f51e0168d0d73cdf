"""Points that very many images share: decided over all blocks of local hashes, and kept in files, one for each block.

The decision depends on all images (`matching.shared_points`). Each pass is a map-only job of one task a block, which
counts the hits of the points of its block with those of a sample of images. The driver has the sample, and adds the
counts.
"""

import json
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from imgmatch_df.frames.votes import ByVotes, points_of_words
from imgmatch_df.hashes import codec
from imgmatch_df.hashes.kinds import LOCAL
from imgmatch_df.spark.nodes import HASH, NODE, SIZE, Nodes, read_block
from imgmatch_df.spark.work import WorkFolder
from imgmatch_df.spark.workers import map_batches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame, SparkSession

    from imgmatch_df.frames.comparison import Comparison
    from imgmatch_df.matching.candidates import DistinctImages
    from imgmatch_df.matching.points import Points
    from imgmatch_df.matching.shared_points import KeptPoints, Limits, Sharing

MASK: Final = "mask"
_MIXED: Final = "mixed"
_COUNT: Final = "count"
_N_IMAGES: Final = "n_images"
_N_POINTS: Final = "n_points"
_ROWS_PER_GROUP: Final = 1024  # of a file that is read in part
_FURTHER: Final = 1024  # images of a block that are ready for the sample, beside twice its share


@dataclass(frozen=True)
class SharedPoints:
    """Which points of the images of one side are kept.

    Parameters
    ----------
    work
        Folder of the call.
    stage
        Name of the stage, a folder in `work`.
    sets_aside
        Whether any points are set aside: then there is a file ``masks/<block>.parquet`` for each block.
    """

    work: WorkFolder
    stage: str
    sets_aside: bool

    def masks(self, spark: "SparkSession") -> "DataFrame | None":
        """Return the columns `node` and `mask` (long) of the images that do not keep all points; None without any.

        Bit k of a mask is set if point k is kept.
        """
        if not self.sets_aside:
            return None
        return spark.read.parquet(self.work.uri_of(f"{self.stage}/masks")).select(NODE, MASK)

    def comparison(self, comparison: "Comparison", blocks: "set[int]") -> "Comparison":
        """Return the comparison of images of some blocks of this side, in a worker."""
        assert isinstance(comparison, ByVotes)
        return comparison.with_kept_points(self.of_blocks(blocks))

    def of_blocks(self, blocks: "set[int]") -> "KeptPoints":
        """Return the points that images of some blocks keep, in a worker."""
        import numpy as np

        from imgmatch_df.matching.shared_points import KeptPoints

        if not self.sets_aside:
            return KeptPoints.all()
        tables = [_read(self.work, f"{self.stage}/masks/{block}.parquet") for block in sorted(blocks)]
        mixed, masks = (
            np.concatenate([table[name].to_numpy().view(np.uint64) for table in tables]) for name in (_MIXED, MASK)
        )
        return KeptPoints.of_masks(mixed, masks)


def decide_shared_points(
    spark: "SparkSession",
    comparison: "Comparison",
    nodes: Nodes,
    other: Nodes | None = None,
    *,
    n_left: int,
    n_right: int | None = None,
    stage: str = "kept",
) -> SharedPoints | None:
    """Return which points of the images of one side are kept; goes on where a call before stopped.

    Parameters
    ----------
    comparison
        How images are compared. None is returned where it has no points.
    nodes
        Images whose points are set aside.
    other
        Those with whose points they are compared; None for those of `nodes`.
    n_left, n_right
        Maximum numbers of different images on both sides, such as those of rows: few images need no pass.
    stage
        Name of the stage, a folder in that of the call.
    """
    if not isinstance(comparison, ByVotes):
        return None
    from imgmatch_df.matching import shared_points

    limits, same = shared_points.LIMITS, other is None
    n_right = n_left if n_right is None or same else n_right
    if shared_points.Sharing.is_needless(n_left, n_right, limits, same=same):
        return SharedPoints(nodes.work, stage, sets_aside=False)
    return _Decision(spark, nodes, other, stage, limits).decide()


def kept_points_of(hashes: pl.Series, masks: pl.Series) -> "KeptPoints":
    """Return the points that images keep, from their local hashes and their masks of `SharedPoints.masks`.

    Null is the mask of an image that keeps all points.
    """
    import numpy as np

    from imgmatch_df.matching.candidates import mixed_bits
    from imgmatch_df.matching.shared_points import KeptPoints

    some = masks.is_not_null() & hashes.is_not_null()
    mixed = mixed_bits(_points(hashes.filter(some)))
    return KeptPoints.of_masks(mixed, masks.filter(some).cast(pl.Int64).to_numpy().view(np.uint64))


class _Decision:
    """The passes of one decision, on the driver."""

    def __init__(self, spark: "SparkSession", nodes: Nodes, other: Nodes | None, stage: str, limits: "Limits") -> None:
        self._spark, self._nodes, self._stage, self._limits = spark, nodes, stage, limits
        self._right, self._same = (nodes, True) if other is None else (other, False)
        self._work = nodes.work

    def decide(self) -> SharedPoints:
        """Make the passes that are not finished."""
        name = f"{self._stage}/decided.json"
        if not self._work.exists(name):
            self._work.write(name, json.dumps(self._n_reduced()).encode())
        return SharedPoints(self._work, self._stage, sets_aside=json.loads(self._work.read(name)) > 0)

    def _n_reduced(self) -> int:
        """Return the number of images that do not keep all points, whose masks are then in files."""
        import numpy as np

        from imgmatch_df.matching.shared_points import KeptPoints, Sharing, count_shared

        n_least = self._limits.samples[-1]
        n_ready = min(n_least, 2 * n_least // self._right.n_blocks + _FURTHER)
        counts = rights = self._count(self._right, "right", n_ready)
        if not self._same:
            counts = self._count(self._nodes, "left", 0)
        n_images, n_points = (sum(one[name] for one in counts) for name in (_N_IMAGES, _N_POINTS))
        n_right = sum(one[_N_IMAGES] for one in rights)
        sharing = Sharing.of(n_images, n_points, n_right, self._limits, same=self._same)
        if not sharing.sizes:
            return 0
        sample, hashes = self._sample(sharing.sizes[-1], n_ready)
        kept = np.arange(len(sample.owners), dtype=np.uint32)
        limits: list[int] = []
        for step, size in enumerate(sharing.sizes):
            among = kept[: np.searchsorted(kept, sample.starts[min(size, sample.n_images)])]
            self._write_sample(step, sample, hashes, KeptPoints.of(sample, among), size)
            limits.append(self._limit(sharing, limits))
            if self._same and step < len(sharing.sizes) - 1:
                kept = kept[count_shared(sample, kept, sample, among, same=True) <= limits[-1]]
        write_masks = partial(_write_masks, self._nodes, self._stage, limits)
        return sum(self._run(self._nodes, write_masks))

    def _count(self, nodes: Nodes, name: str, n_ready: int) -> list[Any]:
        """Return the numbers of images and points of each block, after a pass over one side."""
        file = f"{self._stage}/{name}-{n_ready}.json"
        if not self._work.exists(file):
            folder = f"{self._stage}/least-{n_ready}" if n_ready else None
            found = self._run(nodes, partial(_survey_block, nodes, self._work, folder, n_ready))
            self._work.write(file, json.dumps(found).encode())
        counts: list[Any] = json.loads(self._work.read(file))
        return counts

    def _sample(self, size: int, n_ready: int) -> "tuple[DistinctImages, NDArray[np.object_]]":
        """Return the images of the right side whose mixed bits are the least, and the hash of each."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        folder = f"{self._stage}/least-{n_ready}"
        mixed = self._work.read_tables(folder, [_MIXED]).column(0).to_numpy()
        highest = int(np.partition(mixed, size - 1)[size - 1]) if len(mixed) >= size else None
        lasts = [one for one in self._count(self._right, "right", n_ready) if one[_N_IMAGES] > n_ready]
        if highest is None or any(int(one["last"]) < highest for one in lasts):
            # Mixed bits are random, so that a block has more than twice its share only where someone made it so.
            self._count(self._right, "right", size)
            return self._sample(size, size)
        table = self._work.read_tables(folder, filters=pc.field(_MIXED) <= pa.scalar(highest, pa.uint64()))
        return _distinct(table[HASH])

    def _write_sample(
        self, step: int, sample: "DistinctImages", hashes: "NDArray[np.object_]", kept: "KeptPoints", size: int
    ) -> None:
        """Write the hashes of the first images of the sample, and the masks of their points that are kept."""
        import numpy as np
        import pyarrow as pa

        masks = np.full(sample.n_images, (1 << 64) - 1, np.uint64)
        masks[np.searchsorted(sample.mixed, kept.mixed)] = kept.masks
        columns = {HASH: pa.array(hashes[:size], pa.binary()), MASK: pa.array(masks[:size].view(np.int64))}
        self._work.write_table(_sample_name(self._stage, step), pa.table(columns))

    def _limit(self, sharing: "Sharing", limits: list[int]) -> int:
        """Return the limit of a step, those before it given, after a pass over the left side."""
        import numpy as np

        step = len(limits)
        name = f"{self._stage}/limit-{step}.json"
        if not self._work.exists(name):
            histograms = self._run(self._nodes, partial(_count_block, self._nodes, self._stage, limits, self._same))
            found = np.zeros(1 + max((one[-1][0] for one in histograms if one), default=0), np.int64)
            for histogram in histograms:
                for n_hits, n_points in histogram:
                    found[n_hits] += n_points
            self._work.write(name, json.dumps(sharing.find_limit(step, found)).encode())
        limit: int = json.loads(self._work.read(name))
        return limit

    def _run(self, nodes: Nodes, function: "Callable[[int], Any]") -> list[Any]:
        """Return what a function of a block gives for each block, a task each."""
        blocks = self._spark.range(0, nodes.n_blocks, 1, nodes.n_blocks)
        rows = map_batches(blocks, partial(_each_block, function), "found string").collect()
        return [json.loads(row["found"]) for row in rows]


def _each_block(function: "Callable[[int], Any]", batches: "Iterator[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
    import pyarrow as pa

    for batch in batches:
        for block in batch.column(0).to_pylist():
            yield pa.RecordBatch.from_pydict({"found": [json.dumps(function(block))]})


def _read_images(nodes: Nodes, block: int) -> "tuple[pa.Table, DistinctImages] | None":
    """Return the nodes of a block, and the images of them that have points; None where there are none."""
    try:
        table = read_block(nodes, block, [NODE, HASH, SIZE])
    except FileNotFoundError:  # no hash is in this block
        return None
    from imgmatch_df.matching.candidates import collapse_images

    side = collapse_images(_points(pl.Series(table[HASH])))
    return (table, side) if side.n_images else None


def _points(hashes: pl.Series) -> "Points":
    return points_of_words(codec.hash_words(codec.as_hashes(hashes, LOCAL), LOCAL), LOCAL)


def _distinct(hashes: "pa.ChunkedArray") -> "tuple[DistinctImages, NDArray[np.object_]]":
    """Return the distinct images of hashes, and the hash of each."""
    from imgmatch_df.matching.candidates import collapse_images

    side = collapse_images(_points(pl.Series(hashes)))
    return side, hashes.take(_firsts(side)).to_numpy()


def _firsts(side: "DistinctImages") -> "NDArray[np.int64]":
    """Return the first row of each image."""
    return side.rows[side.row_starts[:-1]]


def _survey_block(nodes: Nodes, work: WorkFolder, folder: str | None, n_ready: int, block: int) -> dict[str, Any]:
    """Return the numbers of images and points of a block; write its hashes with the least mixed bits."""
    import pyarrow as pa

    found = _read_images(nodes, block)
    if found is None:
        return {_N_IMAGES: 0, _N_POINTS: 0}
    table, side = found
    counts = {_N_IMAGES: side.n_images, _N_POINTS: len(side.owners)}
    if folder is None:
        return counts
    mixed = side.mixed[:n_ready]
    least = pa.table({_MIXED: pa.array(mixed), HASH: table[HASH].take(_firsts(side)[:n_ready])})
    work.write_table(f"{folder}/{block}.parquet", least, rows_per_group=_ROWS_PER_GROUP)
    return {**counts, "last": str(mixed[-1])}


def _sample_name(stage: str, step: int) -> str:
    return f"{stage}/sample-{step}.parquet"


def _count_name(stage: str, step: int, block: int) -> str:
    return f"{stage}/counts-{step}/{block}.parquet"


def _count_block(nodes: Nodes, stage: str, limits: list[int], same: bool, block: int) -> list[tuple[int, int]]:
    """Write the hits of each kept point of a block with the sample of a step; return how many have how many."""
    import numpy as np
    import pyarrow as pa

    from imgmatch_df.matching.candidates import collapse_images, mixed_bits
    from imgmatch_df.matching.shared_points import KeptPoints, count_shared

    found = _read_images(nodes, block)
    if found is None:
        return []
    _, side = found
    step = len(limits)
    name = _count_name(stage, step, block)
    if nodes.work.exists(name):
        counts = _read(nodes.work, name)[_COUNT].to_numpy()
    else:
        table = _read(nodes.work, _sample_name(stage, step))
        points = _points(pl.Series(table[HASH]))
        sample = collapse_images(points)
        masks = KeptPoints.of_masks(mixed_bits(points), table[MASK].to_numpy().view(np.uint64))
        kept = _kept(nodes, stage, limits, block, side)
        counts = count_shared(side, kept, sample, masks.points_of(sample), same=same)
        nodes.work.write_table(name, pa.table({_COUNT: pa.array(counts)}))
    n_hits, n_points = np.unique(counts, return_counts=True)
    return list(zip(n_hits.tolist(), n_points.tolist(), strict=True))


def _kept(nodes: Nodes, stage: str, limits: list[int], block: int, side: "DistinctImages") -> "NDArray[np.uint32]":
    """Return the points of a block that are kept after some steps."""
    import numpy as np

    kept = np.arange(len(side.owners), dtype=np.uint32)
    for step, limit in enumerate(limits):
        counts = _read(nodes.work, _count_name(stage, step, block))[_COUNT].to_numpy()
        kept = kept[counts <= limit]
    return kept


def _write_masks(nodes: Nodes, stage: str, limits: list[int], block: int) -> int:
    """Write the masks of the images of a block that do not keep all points; return how many there are."""
    import numpy as np
    import pyarrow as pa

    from imgmatch_df.matching.shared_points import KeptPoints

    nodes_of, mixed, masks = (np.zeros(0, np.int64) for _ in range(3))
    found = _read_images(nodes, block)
    if found is not None:
        table, side = found
        kept = KeptPoints.of(side, _kept(nodes, stage, limits, block, side))
        of_row = np.repeat(np.arange(side.n_images), np.diff(side.row_starts))
        at = np.searchsorted(kept.mixed, side.mixed[of_row])
        at[at == len(kept.mixed)] = 0
        is_there = np.flatnonzero(kept.mixed[at] == side.mixed[of_row]) if len(kept.mixed) else at[:0]
        at = at[is_there]
        nodes_of = table[NODE].to_numpy()[side.rows[is_there]]
        mixed, masks = kept.mixed[at].view(np.int64), kept.masks[at].view(np.int64)
    columns = {NODE: nodes_of, _MIXED: mixed, MASK: masks}
    nodes.work.write_table(f"{stage}/masks/{block}.parquet", pa.table(columns))
    return len(masks)


def _read(work: WorkFolder, name: str) -> "pa.Table":
    return work.read_tables(name)
