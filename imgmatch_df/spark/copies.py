"""The verb `find_copies` on Spark: the pairs that local hashes or PDQ find, with what each of them says."""

from typing import TYPE_CHECKING, Any, Unpack

from imgmatch_df.columns import (
    DISTANCE,
    EVIDENCE,
    EVIDENCES,
    LEFT_ID,
    QUALITY,
    QUERY_ID,
    REFERENCE_ID,
    RIGHT_ID,
    TURN,
    VOTES,
)
from imgmatch_df.errors import without_warnings
from imgmatch_df.frames import copies as single
from imgmatch_df.frames.flat import Flat
from imgmatch_df.frames.pairs import MAX_PAIRS
from imgmatch_df.hashes.kinds import LOCAL, PDQ, SHA256
from imgmatch_df.options import SourceOptions
from imgmatch_df.spark import nodes
from imgmatch_df.spark.calls import check_blocks, check_row_names, empty_frame, result_schema
from imgmatch_df.spark.hashing import visual_hash
from imgmatch_df.spark.inputs import ACROSS, WITHIN, Given, pairs_argument, with_expressions
from imgmatch_df.spark.pairs import match, near_duplicates
from imgmatch_df.spark.schemas import polars_schema
from imgmatch_df.spark.sessions import check_frame
from imgmatch_df.spark.work import WorkFolder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyspark.sql import Column, DataFrame

_SOURCE = "source"
_MADE = "made_"
_TURN_OF_PDQ = "turn_of_pdq"


def find_copies(
    df: "DataFrame",
    *,
    id: str | None = None,
    min_votes: int | None = None,
    radius: int = PDQ.near_radius,
    reference: "DataFrame | None" = None,
    reference_id: str | None = None,
    across: "str | Column | None" = None,
    within: "str | Column | None" = None,
    not_duplicates: "DataFrame | None" = None,
    source: "str | Column | None" = None,
    flat: Flat = "identical",
    max_pairs: int = MAX_PAIRS,
    work_dir: str | None = None,
    n_blocks: int | None = None,
    **options: Unpack[SourceOptions],
) -> "DataFrame":
    """Return every pair of images that are copies by their local hashes or by PDQ, with the evidence of both, on Spark.

    The pairs are those of `imgmatch_df.find_copies` for the rows in the order of `id`. The call compares, as
    `near_duplicates`, which it calls for each of the two kinds; parameters that are not described here are those of the
    two.

    Parameters
    ----------
    df
        DataFrame of a classic or a Connect session that has columns ``local`` and ``pdq``, or a column `source`.
    min_votes, radius
        As `imgmatch_df.find_copies`.
    reference
        DataFrame with both columns, to compare the rows of `df` with, in place of each other.
    reference_id
        Column whose values name the reference rows, as `id` names those of `df`. Needed with `reference`.
    source
        Column of images to make the columns ``local`` and ``pdq`` that `df` does not have. They are made once, and are
        written to the work folder.
    max_pairs
        Maximum number of pairs of each kind to make.

    Returns
    -------
    DataFrame
        ``left_id, right_id``, or with `reference` ``query_id, reference_id``, and the other columns of
        `imgmatch_df.find_copies`: ``votes`` (short), ``distance`` (integer), ``turn`` (string), ``scale``, ``shift_x``,
        ``shift_y``, ``coverage`` (float) and ``evidence`` (string). Its rows have no order.

    Raises
    ------
    ArgumentError, ColumnError
        As `imgmatch_df.find_copies`; and if a value of `id` or `reference_id` is null or repeated.

    Warns
    -----
    ImgMatchWarning
        As `near_duplicates`.

    Notes
    -----
    Which points of local hashes are set aside because very many images share them is decided over all images, before
    any two are compared: four short passes over all local hashes at most, and none for 1,024 images or fewer.
    """
    name = check_row_names(df, id)
    other_name = None
    if reference is not None:
        other_name = check_row_names(check_frame(reference, "reference"), reference_id, "reference_id")
    check_blocks(n_blocks)
    given = with_expressions(df, across=across, within=within, source=source)
    others = None if reference is None else _with_same_names(reference, given, across, within)
    with without_warnings():  # the verbs of both kinds warn
        schema = result_schema(
            single.find_copies,
            given.df,
            min_votes=min_votes,
            radius=radius,
            id=name,
            reference=None if others is None else empty_frame(others),
            reference_id=other_name,
            not_duplicates=pairs_argument(not_duplicates),
            flat=flat,
            max_pairs=max_pairs,
            **given.arguments,
            **options,
        )
    rows, id, further = given.df, name, {one: given.arguments[one] for one in (ACROSS, WITHIN)}
    if source is not None:
        work = WorkFolder.of(work_dir, df.sparkSession)
        rows = _hash_missing(given, name, work, options)
        id, renamed = nodes.ID, {one: column for one, column in further.items() if column is not None}
        if others is not None:
            others, other_name = others.select(*_needed(others, str(other_name), renamed)), nodes.ID
        further = {one: one if column is not None else None for one, column in further.items()}
    named: dict[str, Any] = {
        "id": id,
        "not_duplicates": not_duplicates,
        "max_pairs": max_pairs,
        "work_dir": work_dir,
        "n_blocks": n_blocks,
        **further,
    }
    by_votes = {"hash_type": LOCAL.name, "min_votes": min_votes, "flat": "match"}
    by_distance = {"radius": radius, "hash_type": PDQ.name, "turns": True, "flat": flat}
    if others is None:
        voted, near = (near_duplicates(rows, **how, **named) for how in (by_votes, by_distance))
        on = [LEFT_ID, RIGHT_ID]
    else:
        voted, near = (match(rows, others, reference_id=other_name, **how, **named) for how in (by_votes, by_distance))
        on = [QUERY_ID, REFERENCE_ID]
    return _merged(voted, near, on).select(*schema.names())


def _with_same_names(
    reference: "DataFrame", given: Given, across: "str | Column | None", within: "str | Column | None"
) -> "DataFrame":
    """Return the reference rows with the columns that expressions make, in the names of those of the other side."""
    others = with_expressions(reference, across=across, within=within)
    names = {column: given.arguments[one] for one, column in others.arguments.items() if column is not None}
    return others.df.withColumnsRenamed({old: new for old, new in names.items() if old != new})


def _needed(df: "DataFrame", id: str, further: "Mapping[str, str]", without: tuple[str, ...] = ()) -> "list[Column]":
    """Return the columns that both comparisons read, by the names that they look for."""
    there = [one for one in (LOCAL.name, PDQ.name, QUALITY, SHA256.name) if one in df.columns and one not in without]
    columns = {nodes.ID: id, **further, **{one: one for one in there}}
    return [nodes.column(column).alias(name) for name, column in columns.items()]


def _hash_missing(given: Given, id: str, work: WorkFolder, options: SourceOptions) -> "DataFrame":
    """Return the columns that both comparisons read, after the hashes that are not there were made and written."""
    df = given.df
    schema = polars_schema(df.select(*[nodes.column(one) for one in _kinds_in(df)]).schema)
    missing = [kind for kind in (LOCAL, PDQ) if kind.name not in schema or not kind.holds(schema[kind.name])]
    made = [kind.name for kind in missing]
    if PDQ in missing:
        made += [SHA256.name, QUALITY]
    further = {one: given.arguments[one] for one in (ACROSS, WITHIN) if given.arguments[one] is not None}
    source = nodes.column(given.arguments[_SOURCE]).alias(_SOURCE)
    rows = df.select(*_needed(df, id, further, tuple(made)), source)
    shown = {name: value for name, value in options.items() if name != "progress"}
    versions = [kind.version for kind in missing]
    stage = f"hashes-copies-{nodes.fingerprint(made, versions, shown, nodes.checksum_of(rows))}"
    if missing and not work.is_finished(stage):
        hash_types = [one for one in made if one != QUALITY]
        hashed = visual_hash(rows, _SOURCE, hash_types=hash_types, prefix=_MADE, **options)
        columns = [nodes.column(one) for one in rows.columns if one != _SOURCE]
        written = hashed.select(*columns, *[nodes.column(f"{_MADE}{one}").alias(one) for one in made])
        written.write.mode("overwrite").parquet(work.uri_of(stage))
    return df.sparkSession.read.parquet(work.uri_of(stage)) if missing else rows.drop(_SOURCE)


def _kinds_in(df: "DataFrame") -> list[str]:
    return [kind.name for kind in (LOCAL, PDQ) if kind.name in df.columns]


def _merged(voted: "DataFrame", near: "DataFrame", on: list[str]) -> "DataFrame":
    """Return the pairs of both, with their evidence."""
    from pyspark.sql import functions as F  # noqa: N812

    by_local, by_pdq, by_both = map(F.lit, EVIDENCES)
    evidence = (
        F.when(F.col(DISTANCE).isNull(), by_local)
        .when(F.col(VOTES).isNull(), by_pdq)
        .otherwise(by_both)
        .alias(EVIDENCE)
    )
    return (
        voted.join(near.withColumnRenamed(TURN, _TURN_OF_PDQ), on, "full_outer")
        .withColumn(TURN, F.coalesce(TURN, _TURN_OF_PDQ))
        .withColumn(EVIDENCE, evidence)
    )
