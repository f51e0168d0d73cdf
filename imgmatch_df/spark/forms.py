"""Hashes that other programs wrote, as text or lists, read on Spark.

One form is chosen for a whole column, see `hashes.forms`: a first pass finds the forms that all values have, and a
second one reads the values in the first of them.
"""

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from imgmatch_df.errors import ColumnError
from imgmatch_df.frames.layout import free_name
from imgmatch_df.hashes import forms
from imgmatch_df.hashes.kinds import HashKind
from imgmatch_df.spark.schemas import as_spark
from imgmatch_df.spark.workers import map_batches

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame

_VALUE: Final = "value"


def read_forms(df: "DataFrame", name: str, kind: HashKind, others: Iterable[str]) -> "tuple[DataFrame, str]":
    """Return a DataFrame with a column of hashes in the dtype of their kind, and the name of that column.

    Parameters
    ----------
    df
        DataFrame of Spark.
    name
        Column of hashes: whole numbers, binary, text or arrays. Numbers and binary stay as they are.
    kind
        The kind.
    others
        Further columns that the result needs.

    Raises
    ------
    ColumnError
        If a value is not a hash, or the values do not have one form. A first pass over text or arrays finds that.
    """
    from pyspark.sql import functions as F  # noqa: N812
    from pyspark.sql import types

    from imgmatch_df.spark.nodes import column

    dtype = df.schema[name].dataType
    if not isinstance(dtype, types.StringType | types.ArrayType):
        return df, name
    values = df.select(column(name).alias(_VALUE)).filter(F.col(_VALUE).isNotNull())
    found = (
        map_batches(values, _Forms(kind, name), "form string, error string")
        .groupBy("form")
        .agg(F.count(F.lit(1)).alias("n_batches"), F.max("error").alias("error"))
    )
    rows = found.collect()
    wrong = next((row["error"] for row in rows if row["error"] is not None), None)
    if wrong is not None:
        raise ColumnError(wrong)
    n_batches = sum(row["n_batches"] for row in rows if row["form"] == "")
    common = {row["form"] for row in rows if row["form"] and row["n_batches"] == n_batches}
    order = [str(form) for form in forms.patterns(kind)] if isinstance(dtype, types.StringType) else sorted(common)
    form = next((form for form in order if form in common), None)
    if form is None and n_batches:
        others = ", ".join(sorted({row["form"] for row in rows if row["form"]}))
        raise ColumnError(
            f"column {name!r} holds values of several forms: {others}; a {kind.name} is {forms.forms_text(kind)}\n"
            "Hint: one form in all rows; hash_type names the kind of hash."
        )
    hidden = f"{free_name(dict.fromkeys(df.columns))}_hash"
    kept = [column(one) for one in dict.fromkeys(others)]
    given = df.select(*kept, column(name).alias(hidden))
    # mapInArrow looks columns up by name, and reads "a.b" as a field.
    numbered = given.toDF(*(f"c{n}" for n in range(len(given.columns))))
    schema = types.StructType(
        [
            *[types.StructField(f"c{n}", one.dataType) for n, one in enumerate(given.schema.fields[:-1])],
            types.StructField("hash", types.LongType() if kind.is_number else types.BinaryType()),
        ]
    )
    return map_batches(numbered, _Read(kind, form), schema).toDF(*given.columns), hidden


class _Forms:
    """The function of the first pass: one row a batch with an empty form, and one for each form that it has."""

    def __init__(self, kind: HashKind, name: str) -> None:
        self._kind, self._name = kind, name

    def __call__(self, batches: "Iterator[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
        import pyarrow as pa

        for batch in batches:
            if not len(batch):
                continue
            values = pl.Series(self._name, pl.from_arrow(batch.column(0)))
            found, error = [""], None
            try:
                found += self._text_forms(values) if values.dtype == pl.String else self._width(values)
            except ColumnError as raised:
                error = re.sub(r" in row [0-9,]+ \(from 0\)", "", str(raised))  # of the batch
            errors = pa.array([error] * len(found), pa.string())
            yield pa.RecordBatch.from_arrays([pa.array(found, pa.string()), errors], ["form", "error"])

    def _text_forms(self, values: pl.Series) -> list[str]:
        text = values.alias(_VALUE).to_frame().select(forms.stripped(_VALUE))
        matches = text.select(
            have.all().alias(form) for form, have in forms.matches_of(pl.col(_VALUE), self._kind).items()
        )
        found = [form for form in matches.columns if matches[form].item()]
        if not found:
            forms.read_column(values, self._kind)  # raises the error that names the value
        return found

    def _width(self, values: pl.Series) -> list[str]:
        forms.read_column(values, self._kind)
        leaves, (one, *_) = 1, values
        while isinstance(one, pl.Series):
            leaves *= len(one)
            one = one[0]
        return [f"{leaves} values"]


class _Read:
    """The function of the second pass: each batch with its last column read."""

    def __init__(self, kind: HashKind, form: str | None) -> None:
        self._kind, self._form = kind, form

    def __call__(self, batches: "Iterator[pa.RecordBatch]") -> "Iterator[pa.RecordBatch]":
        import pyarrow as pa

        for batch in batches:
            values: Any = pl.Series(_VALUE, pl.from_arrow(batch.column(batch.num_columns - 1)))
            if values.dtype == pl.String and self._form is not None:
                text = values.to_frame().select(forms.stripped(_VALUE))[_VALUE]
                hashes = forms.from_text(text, self._kind, self._form)  # type: ignore[arg-type]  # one of patterns
            elif values.dtype == pl.String:
                hashes = pl.Series(_VALUE, [None] * len(values), dtype=self._kind.dtype)
            else:
                hashes = forms.read_column(values, self._kind)
            read = as_spark(hashes.alias("hash").to_frame()).combine_chunks().column(0)
            arrays = [*batch.columns[:-1], read.chunk(0) if read.num_chunks else pa.array([], read.type)]
            yield pa.RecordBatch.from_arrays(arrays, [*batch.schema.names[:-1], "hash"])
