"""Tables of decisions: one row per image, with its cluster and whether it is kept, whatever program wrote the table."""

from typing import Final

import polars as pl

from imgmatch_df.columns import CLUSTER_ID, DECISION, KEPT, MODIFIED, MODIFIED_DTYPE, PATH, REMOVED_RECORDS, SIZE
from imgmatch_df.errors import ColumnError
from imgmatch_df.hashes.kinds import SHA256

KEEP: Final = "keep"
REMOVE: Final = "remove"
# What `read_decisions` returns.
SCHEMA: Final = pl.Schema(
    {
        PATH: pl.String(),
        CLUSTER_ID: pl.String(),
        KEPT: pl.Boolean(),
        SIZE: pl.UInt64(),
        MODIFIED: MODIFIED_DTYPE,
        SHA256.name: pl.Binary(),
    }
)
# A time as text: with or without a fraction of a second, and with or without an offset.
_TIME: Final = r"^(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d(?:\.\d+)?)(Z|[+-]\d\d:?\d\d)?$"


def read_decisions(frame: pl.LazyFrame, source: str | None = None) -> pl.DataFrame:
    """Return a table of decisions with the columns `SCHEMA`; values that are not known are null.

    Parameters
    ----------
    frame
        Rows with paths, ``cluster_id``, and ``decision`` (``keep``, ``remove``; null and empty text keep) or ``kept``.
        Or the kept rows with ``removed_records``. ``size``, ``modified`` and ``sha256`` are read where they are.
        Values may be text.
    source
        Column of the paths; None for ``path``.

    Raises
    ------
    ColumnError
        If a column is missing, or has a value that cannot be read.
    """
    source = PATH if source is None else source
    schema = frame.collect_schema()
    if source in schema and isinstance(schema.get(REMOVED_RECORDS), pl.List) and not {KEPT, DECISION} & set(schema):
        frame = _one_row_each(frame)
        schema = frame.collect_schema()
    shown = ", ".join(schema) or "no columns"
    if schema.get(source) != pl.String:
        raise ColumnError(
            f"the decisions have no paths in {source!r}, they have {shown}\nHint: --source names a column."
        )
    if CLUSTER_ID not in schema or not {KEPT, DECISION} & set(schema):
        raise ColumnError(
            f"the decisions need {CLUSTER_ID}, and {DECISION} or {KEPT}; they have {shown}\n"
            "Hint: imgmatch remove-duplicates SOURCE -o decisions.csv writes them."
        )
    wanted = (CLUSTER_ID, KEPT, DECISION, SIZE, MODIFIED, SHA256.name)
    rows = frame.select(pl.col(source).alias(PATH), *(name for name in wanted if name in schema)).collect()
    return pl.DataFrame(
        [
            rows[PATH],
            rows[CLUSTER_ID].cast(pl.String),
            _kept(rows),
            _read(rows, SIZE, pl.col(SIZE).cast(pl.UInt64, strict=False)),
            _read(rows, MODIFIED, _time(rows.schema.get(MODIFIED))),
            _read(rows, SHA256.name, _digest(rows.schema.get(SHA256.name))),
        ],
        schema=SCHEMA,
    )


def _one_row_each(frame: pl.LazyFrame) -> pl.LazyFrame:
    """Return the kept rows and their nested removed rows as one row each."""
    numbered = frame.drop(CLUSTER_ID, KEPT, strict=False).with_row_index(CLUSTER_ID)
    removed = numbered.select(CLUSTER_ID, REMOVED_RECORDS).explode(REMOVED_RECORDS).drop_nulls(REMOVED_RECORDS)
    return pl.concat(
        [
            numbered.drop(REMOVED_RECORDS).with_columns(pl.lit(value=True).alias(KEPT)),
            removed.unnest(REMOVED_RECORDS).with_columns(pl.lit(value=False).alias(KEPT)),
        ],
        how="diagonal_relaxed",
    )


def _kept(rows: pl.DataFrame) -> pl.Series:
    """Return whether each row is kept; the decision of a person precedes that of the command."""
    kept = pl.lit(None, pl.Boolean)
    if KEPT in rows.columns:
        words = _read(rows, KEPT, _word(KEPT).replace_strict({"true": True, "false": False}, default=None))
        rows = rows.with_columns(words.alias(KEPT))
        kept = pl.col(KEPT)
    if DECISION in rows.columns:
        decided = _read(rows, DECISION, _word(DECISION).replace_strict({KEEP: True, REMOVE: False}, default=None))
        kept = pl.coalesce(decided, kept)
    return rows.select(kept.fill_null(value=True).alias(KEPT)).to_series()


def _word(name: str) -> pl.Expr:
    return pl.col(name).cast(pl.String).str.strip_chars().str.to_lowercase()


def _time(dtype: pl.DataType | None) -> pl.Expr:
    time = pl.col(MODIFIED)
    if isinstance(dtype, pl.Datetime):
        zoned = time.dt.replace_time_zone("UTC") if dtype.time_zone is None else time.dt.convert_time_zone("UTC")
        return zoned.dt.cast_time_unit("us")
    parts = time.cast(pl.String).str.extract_groups(_TIME)
    offset = parts.struct.field("3").replace("Z", "+00:00").fill_null("+00:00")
    text = pl.concat_str(parts.struct.field("1"), pl.lit("T"), parts.struct.field("2"), offset)
    return text.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%z", time_unit="us", strict=False).dt.convert_time_zone("UTC")


def _digest(dtype: pl.DataType | None) -> pl.Expr:
    digest = pl.col(SHA256.name)
    found = digest if dtype == pl.Binary else digest.cast(pl.String).str.decode("hex", strict=False)
    return pl.when(found.bin.size() == SHA256.n_bits // 8).then(found)


def _read(rows: pl.DataFrame, name: str, read: pl.Expr) -> pl.Series:
    """Return a column in the dtype of `SCHEMA`; null where it is missing.

    Raises
    ------
    ColumnError
        If a value cannot be read.
    """
    if name not in rows.columns:
        return pl.Series(name, [None] * rows.height, SCHEMA[name])
    found = rows.select(read.alias(name)).to_series()
    given = rows[name]
    is_given = given.is_not_null() & (given != "" if given.dtype == pl.String else True)
    if (is_given & found.is_null()).any():
        row = (is_given & found.is_null()).arg_true()[0]
        raise ColumnError(
            f"{name} of row {row} is {given[row]!r:.80}, which cannot be read\n"
            f"Hint: write the table as remove-duplicates does, or leave the column {name} out."
        )
    return found
