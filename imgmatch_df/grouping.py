"""Frame verbs that group: every row with its cluster of near-duplicates, or one row of each cluster.

Each takes a frame that has a hash column, or hashes its ``source=`` column first. A `DataFrame` is answered at once, a
`LazyFrame` by a `LazyFrame`; the answers are equal, whatever the chunks, the number of threads and the engine.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Unpack, get_args

import polars as pl

from imgmatch_df.errors import ArgumentError, ColumnError
from imgmatch_df.frames import (
    Frame,
    FrameT,
    Side,
    apply,
    check_columns,
    check_radius,
    decode_of,
    free_name,
    hash_source,
    shown_names,
)
from imgmatch_df.known import Stored, find_nearest
from imgmatch_df.options import SourceOptions, check_choice, check_flag
from imgmatch_df.progress import steps
from imgmatch_df.schema import (
    BMH1,
    CLUSTER_ID,
    DIAMETER,
    DISTANCE,
    DISTANCE_DTYPE,
    HEIGHT,
    KEPT,
    REFERENCE_ID,
    REMOVED_RECORDS,
    REPRESENTATIVE_ID,
    ROW_DTYPE,
    SIZE,
    WIDTH,
    HashKind,
)
from imgmatch_df.store import Target

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Linkage = Literal["connected", "star"]
Keep = Literal["first", "last", "largest"]


def cluster(
    frame: FrameT,
    radius: int = 0,
    hash_type: str = BMH1.name,
    *,
    linkage: Linkage = "connected",
    keep: Keep = "first",
    id: str | None = None,
    against: Frame | Target | None = None,
    stored_id: str | None = None,
    source: str | None = None,
    diameter: bool = False,
    **options: Unpack[SourceOptions],
) -> FrameT:
    """Return every row with the cluster of near-duplicates that it belongs to.

    Parameters
    ----------
    frame
        Has a column named `hash_type`, or `source`.
    radius
        Largest Hamming distance between two rows that are near-duplicates, in bits. Inclusive.
    hash_type
        ``"bmh1"`` or ``"phash"``.
    linkage
        ``"connected"``: near-duplicates of near-duplicates are in one cluster, whose ends may be farther apart than
        the radius (`diameter` shows it). ``"star"``: row by row, a row joins the first representative within the
        radius or becomes one itself, so that no row is farther than the radius from its representative.
    keep
        Which row of a cluster is its representative: the ``"first"``, the ``"last"``, or the ``"largest"``: most
        pixels (columns ``width`` and ``height``), then most bytes (column ``size``, where there is one), then first.
        With ``"star"``, the order in which rows become representatives.
    id
        Column whose values name the representatives; None names them by row number.
    against
        Rows that are known: the path of a store, of which only hashes and keys are read; or a frame that has a column
        named `hash_type`. A row within the radius of a known row is not kept and takes no part in clusters; the others
        are clustered among themselves, as without it.
    stored_id
        Column whose values name the known rows; None names them by row number, those of a store by its key.
    source
        Column of pictures to hash first; None where the frame has the hashes.
    diameter
        Whether to add the largest distance between two rows of each cluster.
    **options
        See `Options`; only with `source`, but for `progress`.

    Returns
    -------
    DataFrame or LazyFrame
        All rows, in order, and ``cluster_id: UInt32`` (clusters are numbered from 0 by their first row),
        ``representative_id``, ``distance: UInt16`` to the representative, ``kept: Boolean`` (is the representative),
        and with `diameter` ``diameter: UInt16``. A row without a hash is a cluster of its own, kept, with null
        distance. With `against` also ``reference_id``, null but for a row that matches a known one: it names the
        nearest known row (the first of several), ``distance`` is the one to that, ``kept`` is false, and the other
        columns are null. Columns of these names are replaced.

    Raises
    ------
    ArgumentError, ColumnError
        If an argument is not allowed, or a column absent or of a dtype that is not allowed.
    StoreError
        If a store cannot be read, or its hashes are made in another way than those of `source`.

    Notes
    -----
    Exact. Memory grows with rows, not with pairs: equal hashes count once, and pairs are never kept. `diameter` takes
    longest: at worst quadratic in the different hashes of a cluster.

    Examples
    --------
    >>> import imgmatch_df, polars as pl
    >>> frame = pl.DataFrame({"phash": [0, 255, 1, None]}, schema={"phash": pl.UInt64})
    >>> imgmatch_df.cluster(frame, 1, "phash").select("cluster_id", "representative_id", "distance", "kept").rows()
    [(0, 0, 0, True), (1, 1, 0, True), (0, 0, 1, False), (2, 3, None, True)]
    """
    kind, radius = check_radius(radius, hash_type)
    grouping = _Grouping(radius, kind, linkage, keep, diameter=diameter, progress=options.get("progress", False))
    known = grouping.stored(against, stored_id, decode_of(source, options))
    hashed = hash_source(frame, kind, source, options)
    schema = check_columns(hashed, kind, id)
    fields: dict[str, Any] = {
        CLUSTER_ID: ROW_DTYPE,
        REPRESENTATIVE_ID: ROW_DTYPE if id is None else schema[id],
        DISTANCE: DISTANCE_DTYPE,
        KEPT: pl.Boolean(),
        **({DIAMETER: DISTANCE_DTYPE} if diameter else {}),
        **({} if known is None else {REFERENCE_ID: known.id_dtype}),
    }

    def describe(part: pl.Series) -> pl.Series:
        rows = part.struct.unnest()
        found = grouping.find(rows, known)
        ids = pl.Series(found.representative, dtype=ROW_DTYPE) if id is None else rows[id].gather(found.representative)
        numbers = pl.DataFrame(
            {
                CLUSTER_ID: pl.Series(found.cluster, dtype=ROW_DTYPE),
                REPRESENTATIVE_ID: ids,
                DISTANCE: pl.Series(found.distance, dtype=DISTANCE_DTYPE),
                DIAMETER: pl.Series(found.diameter, dtype=DISTANCE_DTYPE),
                KEPT: found.kept,
                **({} if found.reference is None else {REFERENCE_ID: found.reference}),
            }
        )
        has_hash, is_new = pl.when(pl.Series(found.has_hash)), pl.when(pl.Series(found.is_new))
        described = numbers.with_columns(
            has_hash.then(DISTANCE),
            pl.when(pl.Series(found.has_hash & found.is_new)).then(DIAMETER),
            is_new.then(CLUSTER_ID),
            is_new.then(REPRESENTATIVE_ID),
        )
        return described.select(list(fields)).to_struct(part.name)

    made = free_name(schema)
    answer = pl.struct(grouping.needs(schema, id)).map_batches(describe, return_dtype=pl.Struct(fields)).alias(made)
    replaced = [name for name in fields if name in schema]
    return hashed.with_columns(answer).drop(replaced).unnest(made)


def remove_duplicates(
    frame: FrameT,
    radius: int = 0,
    hash_type: str = BMH1.name,
    *,
    linkage: Linkage = "connected",
    keep: Keep = "first",
    against: Frame | Target | None = None,
    source: str | None = None,
    **options: Unpack[SourceOptions],
) -> FrameT:
    """Return one row of each cluster of near-duplicates, with the others of its cluster.

    Parameters
    ----------
    frame, radius, hash_type, linkage, keep, against, source, **options
        As `cluster`. With `against`, what is left is new: rows near a known one are in no row of the answer.

    Returns
    -------
    DataFrame or LazyFrame
        The kept rows, in order, and ``removed_records: List(Struct)``, the other rows of the cluster with all their
        columns, in order; an empty list where there are none. Rows without a hash are kept.

    Raises
    ------
    ArgumentError, ColumnError, StoreError
        As `cluster`.

    Examples
    --------
    >>> import imgmatch_df, polars as pl
    >>> frame = pl.DataFrame({"phash": [0, 255, 1, None]}, schema={"phash": pl.UInt64})
    >>> imgmatch_df.remove_duplicates(frame, 1, "phash").rows()
    [(0, [{'phash': 1}]), (255, []), (None, [])]
    """
    kind, radius = check_radius(radius, hash_type)
    grouping = _Grouping(radius, kind, linkage, keep, diameter=False, progress=options.get("progress", False))
    known = grouping.stored(against, None, decode_of(source, options))
    hashed = hash_source(frame, kind, source, options)
    schema = check_columns(hashed, kind, None)
    columns = grouping.needs(schema)
    kept_names = [name for name in schema if name != REMOVED_RECORDS]
    removed_dtype = pl.List(pl.Struct({name: schema[name] for name in kept_names}))

    label = free_name(schema)

    def remove(rows: pl.DataFrame) -> pl.DataFrame:
        found = grouping.find(rows.select(columns), known)
        kept = found.kept
        numbered = rows.select(kept_names).with_columns(pl.Series(label, found.representative))
        removed = (
            numbered.filter(~kept & pl.Series(found.is_new))
            .group_by(label, maintain_order=True)
            .agg(pl.struct(kept_names).alias(REMOVED_RECORDS))
        )
        return (
            numbered.filter(kept)
            .join(removed, on=label, how="left", maintain_order="left")
            .drop(label)
            .with_columns(pl.col(REMOVED_RECORDS).fill_null(pl.lit([], dtype=removed_dtype)))
        )

    answer = {**{name: schema[name] for name in kept_names}, REMOVED_RECORDS: removed_dtype}
    return apply(hashed, list(schema), remove, answer)


class _Grouping:
    """How rows are put into clusters: the arguments of `cluster`, checked."""

    def __init__(
        self, radius: int, kind: HashKind, linkage: Linkage, keep: Keep, *, diameter: bool, progress: bool
    ) -> None:
        check_choice("linkage", linkage, get_args(Linkage), "'connected' chains near-duplicates, 'star' does not.")
        check_choice("keep", keep, get_args(Keep), "'largest' needs the columns width and height.")
        check_flag("diameter", diameter, "True adds the largest distance in each cluster.")
        self.radius, self.kind, self.linkage, self.keep = radius, kind, linkage, keep
        self.diameter, self.progress = diameter, progress

    def needs(self, schema: Mapping[str, Any], id_column: str | None = None) -> list[str]:
        """Return the columns that clustering reads, of those that there are."""
        names = [self.kind.name] if id_column is None else [self.kind.name, id_column]
        if self.keep == "largest":
            for name in (WIDTH, HEIGHT):
                # Null: every row failed, and the file that says so has no types.
                if name not in schema or not (schema[name].is_numeric() or schema[name] == pl.Null):
                    raise ColumnError(
                        f"keep='largest' needs a numeric column {name!r}, the frame has {shown_names(schema)}\n"
                        "Hint: visual_hash makes width and height."
                    )
            names += [WIDTH, HEIGHT, *([SIZE] if SIZE in schema and schema[SIZE].is_numeric() else [])]
        return list(dict.fromkeys(names))

    def stored(self, against: Frame | Target | None, id_column: str | None, decode: str | None) -> Stored | None:
        """Return the known rows of a call, checked, if it has some."""
        if against is None:
            if id_column is not None:
                raise ArgumentError("stored_id has no effect without against=\nHint: name the known rows.")
            return None
        return Stored.of(against, self.kind, id_column, decode)

    def find(self, rows: pl.DataFrame, known: Stored | None) -> "_Clusters":
        """Return the clusters of the rows, given the columns that it needs; what is known takes no part in them."""
        import numpy as np

        if known is None:
            return self._cluster(rows)
        nearest = find_nearest(rows, known, self.radius, self.kind, progress=self.progress)
        is_new = np.ones(rows.height, np.bool_)
        is_new[nearest.rows] = False
        new = np.flatnonzero(is_new)
        among = self._cluster(rows.filter(pl.Series(is_new)))
        places = np.zeros(rows.height, np.uint32)
        places[nearest.rows] = np.arange(1, len(nearest.rows) + 1)
        whole = _Clusters(
            np.zeros(rows.height, np.uint32),
            np.zeros(rows.height, np.uint32),
            np.zeros(rows.height, np.uint16),
            np.zeros(rows.height, np.uint16),
            has_hash=np.ones(rows.height, np.bool_),
            is_new=is_new,
            reference=pl.Series([None], dtype=known.id_dtype).extend(nearest.ids).gather(places),
        )
        whole.cluster[new], whole.representative[new] = among.cluster, new[among.representative]
        whole.distance[new], whole.diameter[new], whole.has_hash[new] = among.distance, among.diameter, among.has_hash
        whole.distance[nearest.rows] = nearest.distance
        return whole

    def _cluster(self, rows: pl.DataFrame) -> "_Clusters":
        """Return the clusters of rows among themselves."""
        import numpy as np

        from imgmatch_df import clusters, join

        side = Side(rows, self.kind, None)
        order = clusters.preference(len(side.rows), self.keep, self._sizes(rows, side))
        with steps("clustering", shown=self.progress) as step:
            labels = join.connect(side.words, self.radius, self.kind.n_bits, progress=step)
        if self.linkage == "star":
            labels = clusters.star(side.words, self.radius, labels, order)
        else:
            labels = clusters.representatives(labels, order)
        # From positions among the rows that have a hash to rows; a row without one is its own cluster.
        representative = np.arange(side.n_rows, dtype=np.uint32)
        representative[side.rows] = side.rows[labels]
        _, cluster = np.unique(clusters.first_rows(representative), return_inverse=True)
        distance = np.zeros(side.n_rows, np.uint16)
        distance[side.rows] = clusters.distances(side.words, labels)
        diameter = np.zeros(side.n_rows, np.uint16)
        if self.diameter:
            diameter[side.rows] = clusters.diameters(side.words, labels, join.first_equal(side.words))
        has_hash = np.zeros(side.n_rows, np.bool_)
        has_hash[side.rows] = True
        every = np.ones(side.n_rows, np.bool_)
        return _Clusters(cluster.astype(np.uint32), representative, distance, diameter, has_hash, every)

    def _sizes(self, rows: pl.DataFrame, side: Side) -> "list[NDArray[np.float64]]":
        if self.keep != "largest":
            return []
        columns = [rows[WIDTH].cast(pl.Float64) * rows[HEIGHT].cast(pl.Float64)]
        if SIZE in rows.columns:
            columns.append(rows[SIZE].cast(pl.Float64))
        return [column.to_numpy()[side.rows] for column in columns]


class _Clusters(NamedTuple):
    """Clusters as arrays, one value a row: uint32 numbers and rows, uint16 bits, and whether there is a hash at all.

    What matches a known row is not new: `reference` names that, `distance` is the one to it, and the rest is nothing.
    """

    cluster: "NDArray[np.uint32]"
    representative: "NDArray[np.uint32]"
    distance: "NDArray[np.uint16]"
    diameter: "NDArray[np.uint16]"
    has_hash: "NDArray[np.bool_]"
    is_new: "NDArray[np.bool_]"
    reference: pl.Series | None = None

    @property
    def kept(self) -> pl.Series:
        """Whether the row is the representative of its cluster."""
        rows = pl.Series(self.representative)
        return (rows == pl.int_range(len(rows), dtype=ROW_DTYPE, eager=True)) & pl.Series(self.is_new)
