"""Hash columns as other programs write them, read as a lazy query without holding the column in memory.

See `hashes.forms` for the forms.
"""

from functools import partial
from typing import Final, NamedTuple

import polars as pl

from imgmatch_df.errors import ColumnError
from imgmatch_df.frames.expressions import map_column
from imgmatch_df.hashes import codec, forms
from imgmatch_df.hashes.kinds import HashKind, is_whole

_HINT: Final = "is it the other kind of hash? Rename the column to hash images instead."


class GivenHashes(NamedTuple):
    """How a column is read as hashes.

    Parameters
    ----------
    expr
        The hashes in the dtype of their kind, under the column's name.
    is_ours
        Whether the column has a form of this package, so that its hashes may take its place.
    """

    expr: pl.Expr
    is_ours: bool


def read_given(frame: pl.LazyFrame, kind: HashKind, column: str | None = None) -> GivenHashes | None:
    """Return how the column of `kind` is read; None where it has the dtype of its kind already.

    The column has the name of the kind, or that of `column`.

    All values of a text column are looked at now, and of a column of numbers that may not fit.

    Raises
    ------
    ColumnError
        If the dtype is not one of hashes, or a value is not a hash; the message names the first such value and its row.
    """
    name = kind.name if column is None else column
    dtype = frame.collect_schema()[name]
    if dtype == kind.dtype:
        return None
    if dtype == pl.Null:  # every row failed, in a format that then has no type
        return GivenHashes(pl.col(name).cast(kind.dtype), is_ours=True)
    if dtype == pl.String:
        return _read_text(frame, name, kind)
    if dtype.is_nested() and forms.holds_hashes(dtype, kind):
        forms.read_column(frame.select(name).collect().to_series(), kind)  # an error is raised before the query
        return GivenHashes(map_column(pl.col(name), partial(forms.read_column, kind=kind), kind.dtype), is_ours=True)
    if kind.is_number and is_whole(dtype):
        return _read_numbers(frame, name, kind, dtype)
    what = "a Float has lost bits of the hash; write the column as text or whole numbers" if dtype.is_float() else None
    raise ColumnError(
        f"column {name!r} has dtype {dtype}, a {kind.name} is {forms.forms_text(kind)}\n"
        f"Hint: {what or '--hash-type names the other kind; or rename the column'}."
    )


def _read_text(frame: pl.LazyFrame, name: str, kind: HashKind) -> GivenHashes:
    text = forms.stripped(name)
    matches = forms.matches_of(text, kind)
    found = frame.select(matching.all().alias(form) for form, matching in matches.items())
    row = found.collect(engine="streaming").row(0, named=True)
    form = next((form for form in matches if row[form]), None)
    if form is None:
        raise forms.bad_value(frame, name, kind, matches, _HINT)
    read = partial(forms.from_text, kind=kind, form=form)
    return GivenHashes(map_column(text, read, kind.dtype).alias(name), is_ours=form == "bits")


def _read_numbers(frame: pl.LazyFrame, name: str, kind: HashKind, dtype: pl.DataType) -> GivenHashes:
    column = pl.col(name)
    if not dtype.is_integer() or dtype in (pl.Int128, getattr(pl, "UInt128", None)):
        fits = column.cast(pl.Int128, strict=False).is_between(forms.LOWEST, forms.HIGHEST) | column.is_null()
        fits = fits.fill_null(value=False)
        if not frame.select(fits.all()).collect(engine="streaming").item():
            raise forms.bad_value(frame, name, kind, {"decimal": fits}, _HINT)
    return GivenHashes(map_column(column, codec.unsigned, kind.dtype), is_ours=False)
