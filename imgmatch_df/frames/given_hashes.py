"""Hash columns as other programs write them: signed or wide numbers, decimal text, hexadecimal, strings of 0 and 1.

One form is chosen for a whole column, by its dtype and all of its values, never value by value: the 16 characters
``1234567890123456`` are hexadecimal in one list and a decimal number in another.
"""

import re
from typing import Final, Literal, NamedTuple

import polars as pl

from imgmatch_df.errors import ColumnError
from imgmatch_df.frames.expressions import from_bits
from imgmatch_df.hashes.kinds import HashKind, is_whole

Form = Literal["bits", "hex", "decimal"]

_LOWEST: Final = -(1 << 63)
_HIGHEST: Final = (1 << 64) - 1
_MAX_CHARS: Final = 80


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


def form_of(text: str, kind: HashKind) -> Form | None:
    """Return the form in which one text is a hash of `kind`: 0/1, else hexadecimal, else decimal; None if in none."""
    text = text.strip()
    return next(
        (form for form, pattern in _patterns(kind).items() if re.search(pattern, text) and _fits(text, form)), None
    )


def parse_text(text: str, kind: HashKind) -> int | bytes | None:
    """Return the hash of `kind` that a text is, None if it is none."""
    text, form = text.strip(), form_of(text, kind)
    if form is None:
        return None
    number = int(text, {"bits": 2, "hex": 16, "decimal": 10}[form]) % (1 << 8 * kind.n_bytes)
    return number if kind.is_number else number.to_bytes(kind.n_bytes, "big")


def read_given(frame: pl.LazyFrame, kind: HashKind) -> GivenHashes | None:
    """Return how the column of `kind` is read; None where it has the dtype of its kind already.

    All values of a text column are looked at now, and of a column of numbers that may not fit.

    Raises
    ------
    ColumnError
        If the dtype is not one of hashes, or a value is not a hash; the message names the first such value and its row.
    """
    name, dtype = kind.name, frame.collect_schema()[kind.name]
    if dtype == kind.dtype:
        return None
    if dtype == pl.Null:  # every row failed, in a format that then has no type
        return GivenHashes(pl.col(name).cast(kind.dtype), is_ours=True)
    if dtype == pl.String:
        return _read_text(frame, kind)
    if kind.is_number and is_whole(dtype):
        return _read_numbers(frame, kind, dtype)
    what = "a Float has lost bits of the hash; write the column as text or whole numbers" if dtype.is_float() else None
    raise ColumnError(
        f"column {name!r} has dtype {dtype}, a {name} is {forms_text(kind)}\n"
        f"Hint: {what or '--hash-type names the other kind; or rename the column'}."
    )


def forms_text(kind: HashKind) -> str:
    """Return in words how a hash of `kind` may be written."""
    text = f"{kind.n_chars} characters of 0 and 1, or {2 * kind.n_bytes} hexadecimal digits"
    return f"{text}, or a whole number of 64 bits" if kind.is_number else text


def _read_text(frame: pl.LazyFrame, kind: HashKind) -> GivenHashes:
    text = _stripped(kind.name)
    matches = {form: _is_form(text, form, pattern) | text.is_null() for form, pattern in _patterns(kind).items()}
    found = frame.select(matching.all().alias(form) for form, matching in matches.items())
    row = found.collect(engine="streaming").row(0, named=True)
    form = next((form for form in matches if row[form]), None)
    if form is None:
        raise _bad_value(frame, kind, matches)
    if form == "bits":
        return GivenHashes(from_bits(text, kind.name).alias(kind.name), is_ours=True)
    digits = text.str.replace("^0[xX]", "")
    if form == "decimal":
        expr = _unsigned(text.cast(pl.Int128))
    else:
        expr = digits.str.to_integer(base=16, dtype=pl.UInt64) if kind.is_number else digits.str.decode("hex")
    return GivenHashes(expr.alias(kind.name), is_ours=False)


def _read_numbers(frame: pl.LazyFrame, kind: HashKind, dtype: pl.DataType) -> GivenHashes:
    column = pl.col(kind.name)
    if dtype.is_unsigned_integer() and dtype != getattr(pl, "UInt128", None):
        return GivenHashes(column.cast(pl.UInt64), is_ours=False)
    if dtype.is_integer() and dtype not in (pl.Int128, getattr(pl, "UInt128", None)):
        return GivenHashes(column.cast(pl.Int64).reinterpret(signed=False), is_ours=False)
    wide = column.cast(pl.Int128, strict=False)
    fits = wide.is_between(_LOWEST, _HIGHEST) | column.is_null()
    if not frame.select(fits.fill_null(value=False).all()).collect(engine="streaming").item():
        raise _bad_value(frame, kind, {"decimal": fits.fill_null(value=False)})
    return GivenHashes(_unsigned(wide).alias(kind.name), is_ours=False)


def _unsigned(wide: pl.Expr) -> pl.Expr:
    return pl.when(wide < 0).then(wide + pl.lit(1 << 64, dtype=pl.Int128)).otherwise(wide).cast(pl.UInt64)


def _is_form(text: pl.Expr, form: Form, pattern: str) -> pl.Expr:
    matches = text.str.contains(pattern)
    if form != "decimal":
        return matches
    return matches & text.cast(pl.Int128, strict=False).is_between(_LOWEST, _HIGHEST).fill_null(value=False)


def _fits(text: str, form: Form) -> bool:
    return form != "decimal" or _LOWEST <= int(text) <= _HIGHEST


def _stripped(name: str) -> pl.Expr:
    """Return a text column without the spaces around its values; what is empty has no hash."""
    text = pl.col(name).str.strip_chars()
    return pl.when(text != "").then(text).alias(name)


def _patterns(kind: HashKind) -> dict[Form, str]:
    patterns: dict[Form, str] = {
        "bits": f"^[01]{{{kind.n_chars}}}$",
        "hex": f"^(0[xX])?[0-9a-fA-F]{{{2 * kind.n_bytes}}}$",
    }
    return {**patterns, "decimal": "^[+-]?[0-9]{1,20}$"} if kind.is_number else patterns


def _bad_value(frame: pl.LazyFrame, kind: HashKind, matches: dict[Form, pl.Expr]) -> ColumnError:
    """Return the error for the first value in no form, or else in another form than those before it."""
    row, seen = "__imgmatch_row", frame.select(kind.name, pl.int_range(pl.len()).alias("__imgmatch_row"), **matches)
    wrong = seen.filter(~pl.any_horizontal(list(matches))).head(1).collect()
    if wrong.is_empty():
        # All values that come before the first of another form leave some form possible.
        wrong = seen.filter(~pl.any_horizontal(pl.col(form).cum_min() for form in matches)).head(1).collect()
        other = " in another form than the values before it"
    else:
        other = ""
    number, value = wrong[row].item(), wrong[kind.name].item()
    shown = repr(value) if isinstance(value, str) else str(value)
    length = f" ({len(value)} characters)" if isinstance(value, str) else ""
    return ColumnError(
        f"column {kind.name!r} holds {shown[:_MAX_CHARS]}{length} in row {number:,} (from 0){other}, "
        f"a {kind.name} is {forms_text(kind)}\n"
        f"Hint: one form in all rows; is it the other kind of hash? Rename the column to hash images instead."
    )
