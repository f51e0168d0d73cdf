"""Verbs that compare on Spark: pairs of near-duplicates, and pairs of a new row and a reference row."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Unpack

from imgmatch_df.columns import LEFT_ID, QUERY_ID, REFERENCE_ID, RIGHT_ID
from imgmatch_df.frames import pairs as single
from imgmatch_df.frames.flat import Flat
from imgmatch_df.frames.pairs import MAX_PAIRS
from imgmatch_df.hashes.kinds import BMH1
from imgmatch_df.options import SourceOptions
from imgmatch_df.spark import sizes
from imgmatch_df.spark.calls import check_blocks, check_row_names, empty_frame, result_schema
from imgmatch_df.spark.inputs import ACROSS, WITHIN, named_pairs, pairs_argument, with_expressions
from imgmatch_df.spark.joins import RIGHT, Join
from imgmatch_df.spark.nodes import write_nodes
from imgmatch_df.spark.sessions import check_frame
from imgmatch_df.spark.shared_points import decide_shared_points
from imgmatch_df.spark.tiles import Tiles, run_tiles
from imgmatch_df.spark.work import WorkFolder

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame


def near_duplicates(
    df: "DataFrame",
    radius: int | None = None,
    hash_type: str = BMH1.name,
    *,
    id: str | None = None,
    min_votes: int | None = None,
    across: "str | Column | None" = None,
    within: "str | Column | None" = None,
    not_duplicates: "DataFrame | None" = None,
    column: str | None = None,
    source: "str | Column | None" = None,
    flat: Flat = "identical",
    max_pairs: int = MAX_PAIRS,
    turns: bool | None = None,
    work_dir: str | None = None,
    n_blocks: int | None = None,
    **options: Unpack[SourceOptions],
) -> "DataFrame":
    """Return every pair of rows within `radius` bits of each other or with `min_votes` votes, on Spark.

    The pairs are those of `imgmatch_df.near_duplicates` for the rows in the order of `id`. The call compares: it writes
    files to a folder in `work_dir`, and returns a DataFrame over these files.

    Parameters
    ----------
    df
        DataFrame of a classic or a Connect session. It is read two or three times: write hashes to a table first.
    radius, hash_type, min_votes, column, flat, max_pairs, turns
        As `imgmatch_df.near_duplicates`.
    id
        Column whose values name the rows, text or whole numbers: not null, and each value once. The left row of a pair
        is the one with the smaller value.
    across, within
        As there; the name of a column or a Spark `Column`.
    not_duplicates
        DataFrame with columns ``left_id`` and ``right_id``, values of `id`. These pairs do not count, in either order.
    source
        Column of images to hash first, see `visual_hash`. The hashes are written to the folder of the call.
    work_dir
        Folder that all executors read and write: an absolute path, or a URI such as ``s3a://bucket/work``. A call again
        with the same input and arguments uses what is finished there. None: a temporary folder, where all executors are
        on this machine.
    n_blocks
        Number of parts into which the different hashes are divided; each task compares two parts. None chooses it from
        the number of rows: more where a task would need more than 1 GB.
    **options
        See `Options`. ``progress`` has no effect.

    Returns
    -------
    DataFrame
        ``left_id, right_id, distance``, and the other columns of `imgmatch_df.near_duplicates`. Its rows have no order.

    Raises
    ------
    ArgumentError
        If an argument is not allowed; if a value of `id` is null or repeated; if there are more than `max_pairs` pairs.
    ColumnError
        If a column is absent or has a type that is not allowed.

    Warns
    -----
    ImgMatchWarning
        As `imgmatch_df.near_duplicates`.
    """
    name = check_row_names(df, id)
    n_blocks = check_blocks(n_blocks)
    given = with_expressions(df, across=across, within=within, source=source)
    named = {"min_votes": min_votes, "turns": turns, "column": column, "flat": flat, "max_pairs": max_pairs}
    schema = result_schema(
        single.near_duplicates,
        given.df,
        radius,
        hash_type,
        id=name,
        not_duplicates=pairs_argument(not_duplicates),
        **given.arguments,
        **named,
        **options,
    )
    join = Join.of("near_duplicates", radius, hash_type, named, schema)
    further = _further(given.arguments)
    work = WorkFolder.of(work_dir, df.sparkSession)
    side = join.side(given.df, name, given.arguments["source"], column, further, work, work_dir, options)
    side.survey.warn_of_unknown()
    n_blocks = n_blocks or sizes.default_blocks(side.survey.n_hashes, join.comparison.kind)
    work = join.folder(work, n_blocks, [side], name)
    rows = write_nodes(side.rows, work, n_blocks, further=side.further)
    shared = decide_shared_points(df.sparkSession, join.comparison, rows, n_left=side.survey.n_hashes)
    tiles = Tiles(rows, join.comparison, "pairs", max_pairs, shared=shared)
    run_tiles(df.sparkSession, tiles)
    found = join.of_rows(tiles, side, None)
    if side.survey.n_flat > side.survey.n_unknown:
        found = found.unionByName(join.identical(work, [side], max_pairs))
    excluded = None if not_duplicates is None else named_pairs(not_duplicates, side.rows, side.rows)
    return join.result(join.counted(found, side.further, excluded, either_way=True), LEFT_ID, RIGHT_ID)


def match(
    df: "DataFrame",
    reference: "DataFrame",
    radius: int | None = None,
    hash_type: str = BMH1.name,
    *,
    id: str | None = None,
    reference_id: str | None = None,
    k: int | None = None,
    columns: Sequence[str] | None = None,
    min_votes: int | None = None,
    across: "str | Column | None" = None,
    within: "str | Column | None" = None,
    not_duplicates: "DataFrame | None" = None,
    reference_column: str | None = None,
    column: str | None = None,
    source: "str | Column | None" = None,
    flat: Flat = "identical",
    max_pairs: int = MAX_PAIRS,
    turns: bool | None = None,
    work_dir: str | None = None,
    n_blocks: int | None = None,
    **options: Unpack[SourceOptions],
) -> "DataFrame":
    """Return every pair of a row of `df` and one of `reference` within `radius` bits or with `min_votes`, on Spark.

    The pairs are those of `imgmatch_df.match` for the rows of both in the order of their ids. The call compares, as
    `near_duplicates`.

    Parameters
    ----------
    df, reference
        The query rows and the rows to compare with: DataFrames of one session. Both have the columns that `across` and
        `within` read.
    radius, hash_type, columns, min_votes, column, reference_column, flat, turns
        As `imgmatch_df.match`.
    id, reference_id
        Columns whose values name the rows of `df` and of `reference`, see `near_duplicates`.
    k
        Maximum number of reference rows for each row: the nearest ones, of those that are equally near the ones with
        the smallest `reference_id`. None keeps all.
    not_duplicates
        DataFrame with columns ``left_id`` and ``right_id``: values of `id` and of `reference_id`. These pairs do not
        count.
    max_pairs
        Maximum number of pairs to make; with `k`, of one query row.
    across, within, source, work_dir, n_blocks, **options
        As `near_duplicates`.

    Returns
    -------
    DataFrame
        ``query_id, reference_id, distance``, and the other columns of `imgmatch_df.match`. Its rows have no order.

    Raises
    ------
    ArgumentError, ColumnError
        As `near_duplicates`, for both DataFrames.

    Warns
    -----
    ImgMatchWarning
        As `near_duplicates`.
    """
    name = check_row_names(df, id)
    reference = check_frame(reference, "reference")
    reference_name = check_row_names(reference, reference_id, "reference_id")
    n_blocks = check_blocks(n_blocks)
    given = with_expressions(df, across=across, within=within, source=source)
    other = with_expressions(reference, across=across, within=within)
    # Hidden columns of both sides need one name for the verb of one machine.
    renamed = {other.arguments[one]: given.arguments[one] for one in other.arguments if other.arguments[one]}
    other_df = other.df.withColumnsRenamed({old: new for old, new in renamed.items() if old != new})
    named = {"min_votes": min_votes, "turns": turns, "column": column, "flat": flat, "max_pairs": max_pairs}
    schema = result_schema(
        single.match,
        given.df,
        empty_frame(other_df),
        radius,
        hash_type,
        k=k,
        columns=columns,
        id=name,
        reference_id=reference_name,
        reference_column=reference_column,
        not_duplicates=pairs_argument(not_duplicates),
        **given.arguments,
        **named,
        **options,
    )
    join = Join.of("match", radius, hash_type, named, schema)
    further = _further(given.arguments)
    work = WorkFolder.of(work_dir, df.sparkSession)
    if reference_column is None and source is None and column is not None and column in reference.columns:
        reference_column = column
    brought = {f"brought_{n}": one for n, one in enumerate(columns or ())}
    queries = join.side(given.df, name, given.arguments["source"], column, further, work, work_dir, options)
    references = join.side(
        other_df, reference_name, None, reference_column, {**further, **brought}, work, work_dir, {}, "reference_id"
    )
    queries.survey.warn_of_unknown()
    kind = join.comparison.kind
    n_blocks = n_blocks or sizes.default_blocks(max(queries.survey.n_hashes, references.survey.n_hashes), kind)
    nearest = k if k is not None and not further and not_duplicates is None else None
    work = join.folder(
        work, n_blocks, [queries, references], name, reference_name, k is None, nearest, list(columns or ())
    )
    sides = [
        write_nodes(side.rows, work, n_blocks, stage=stage, further=side.further)
        for side, stage in ((queries, "queries"), (references, "references"))
    ]
    shared = decide_shared_points(
        df.sparkSession,
        join.comparison,
        *sides,
        n_left=queries.survey.n_hashes,
        n_right=references.survey.n_hashes,
    )
    tiles = Tiles(
        sides[0],
        join.comparison,
        "pairs",
        max_pairs,
        sides[1],
        in_parts=k is not None,
        nearest=nearest,
        shared=shared,
    )
    run_tiles(df.sparkSession, tiles)
    found = join.of_rows(tiles, queries, references)
    known = [side.survey.n_flat - side.survey.n_unknown for side in (queries, references)]
    if all(known):
        limit = max_pairs if k is None else None
        found = found.unionByName(join.identical(work, [queries, references], limit))
    excluded = None if not_duplicates is None else named_pairs(not_duplicates, queries.rows, references.rows)
    found = join.counted(found, tuple(further), excluded, either_way=False)
    if k is not None:
        found = join.nearest(found, k)
    return join.result(found, QUERY_ID, REFERENCE_ID, [f"{RIGHT}{one}" for one in brought], columns or ())


def _further(arguments: dict[str, Any]) -> dict[str, str]:
    """Return the columns that `across` and `within` read, by their argument."""
    return {one: arguments[one] for one in (ACROSS, WITHIN) if arguments[one] is not None}
