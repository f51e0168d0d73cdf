"""The forms in which other programs write hashes: text of three forms, numbers, bytes, and lists of bits or bytes.

One form is chosen for a whole column, by its dtype and all of its values, never value by value: the 16 characters
``1234567890123456`` are hexadecimal in one list and a decimal number in another.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

import polars as pl

from imgmatch_df.errors import ArgumentError, ColumnError
from imgmatch_df.hashes import codec
from imgmatch_df.hashes.kinds import DEFAULT_HASH_TYPES, KINDS, MAX_WIDTH_BYTES, HashKind, hash_kind
from imgmatch_df.options import whole_number

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TextForm = Literal["bits", "hex", "decimal"]

LOWEST: Final = -(1 << 63)
HIGHEST: Final = (1 << 64) - 1
_BASES: Final[dict[TextForm, int]] = {"bits": 2, "hex": 16, "decimal": 10}  # in the order in which they are tried
_MAX_CHARS: Final = 80


def forms_text(kind: HashKind) -> str:
    """Return in words how a hash of `kind` may be written."""
    text = f"{kind.n_chars} characters of 0 and 1, or {2 * kind.n_bytes} hexadecimal digits"
    return f"{text}, or a whole number of 64 bits" if kind.is_number else text


def patterns(kind: HashKind) -> dict[TextForm, str]:
    """Return the regular expressions of the forms that text of `kind` may have, the first to try first."""
    found: dict[TextForm, str] = {
        "bits": f"^[01]{{{kind.n_chars}}}$",
        "hex": f"^(0[xX])?[0-9a-fA-F]{{{2 * kind.n_bytes}}}$",
    }
    return {**found, "decimal": "^[+-]?[0-9]{1,20}$"} if kind.is_number else found


def form_of(text: str, kind: HashKind) -> TextForm | None:
    """Return the form in which one text is a hash of `kind`: 0/1, else hexadecimal, else decimal; None if in none."""
    text = text.strip()
    return next(
        (form for form, pattern in patterns(kind).items() if re.search(pattern, text) and _fits(text, form)), None
    )


def parse_text(text: str, kind: HashKind) -> int | bytes | None:
    """Return the hash of `kind` that a text is, None if it is none."""
    text, form = text.strip(), form_of(text, kind)
    if form is None:
        return None
    number = int(text, _BASES[form]) % (1 << 8 * kind.n_bytes)
    return number if kind.is_number else number.to_bytes(kind.n_bytes, "big")


def parse_value(value: object, kind: HashKind) -> int | bytes | None:
    """Return one hash of `kind` as it stands in a column, None if `value` is none.

    Parameters
    ----------
    value
        Text in one of the three forms; bytes of the width of the kind; or an int of -2**63 to 2**64 - 1, of numpy too,
        for a kind of 64 bits: a negative one stands for the same bits.
    kind
        The kind. An int is a hash if the kind is `UInt64`, else bytes.
    """
    if isinstance(value, str):
        return parse_text(value, kind)
    if isinstance(value, bytes | bytearray | memoryview):
        data = bytes(value)
        if len(data) != kind.n_bytes:
            return None
        return int.from_bytes(data, "big") if kind.is_number else data
    number = whole_number(value)
    return number % (1 << 64) if kind.is_number and number is not None and LOWEST <= number <= HIGHEST else None


def parse_hash(value: object, kind: HashKind) -> int | bytes:
    """Return one hash of `kind` as it stands in a column, as `parse_value` reads it.

    Raises
    ------
    ArgumentError
        If `value` is not such a hash.
    """
    found = parse_value(value, kind)
    if found is None:
        raise ArgumentError(
            f"a hash value is an int of -2**63 to 2**64 - 1, bytes or text, and a {kind.name} is "
            f"{'' if kind.is_number else f'{kind.n_bytes} bytes, '}{forms_text(kind)}; got {f'{value!r:.80}'}\n"
            "Hint: for a column, pass pl.col(name); hash_type= names another kind."
        )
    return found


def parse_any(value: object) -> list[int | bytes]:
    """Return the hashes that `value` is in the registered kinds, in their order; the column to compare decides.

    Bytes may have any width of a hash.

    Raises
    ------
    ArgumentError
        If it is a hash of no kind.
    """
    found = [one for one in (parse_value(value, kind) for kind in KINDS.values()) if one is not None]
    if isinstance(value, bytes | bytearray | memoryview) and 1 <= memoryview(value).nbytes <= MAX_WIDTH_BYTES:
        found.append(bytes(value))
    if not found:
        lengths = sorted({kind.n_chars for kind in KINDS.values()})
        raise ArgumentError(
            "a hash value is an int of -2**63 to 2**64 - 1, bytes, a 0/1 string of "
            f"{_either(lengths)} characters, or {_either([n_chars // 4 for n_chars in lengths])} hexadecimal digits, "
            f"got {f'{value!r:.80}'}\nHint: for a column, pass pl.col(name)."
        )
    return list(dict.fromkeys(found))


def fitting_hash(values: Sequence[int | bytes], column: pl.Series) -> pl.Series:
    """Return the one of several hashes that a hash column may hold, else the first, as a column of one row."""
    is_binary = column.dtype == pl.Binary
    width = len(column.drop_nulls()[0]) if is_binary and column.null_count() < len(column) else None
    fitting = [one for one in values if isinstance(one, bytes) == is_binary]
    value = next((one for one in fitting if isinstance(one, bytes) and len(one) == width), [*fitting, *values][0])
    return pl.Series("the given hash", [value], dtype=pl.UInt64 if isinstance(value, int) else pl.Binary)


def kind_of_value(value: object, available: Collection[str]) -> HashKind | None:
    """Return the kind of hash that `value` is, None if it is no hash.

    The kinds in `available` come first, then those that are computed by default, then all. Among these, 0/1 comes
    before hexadecimal, and that before decimal.

    Raises
    ------
    ArgumentError
        If several kinds are left.
    """
    for names in (available, DEFAULT_HASH_TYPES, KINDS):
        kinds = [hash_kind(name) for name in names if name in KINDS]
        fitting = [kind for kind in kinds if parse_value(value, kind) is not None]
        if isinstance(value, str):
            forms = {kind.name: form_of(value, kind) for kind in fitting}
            first = next((form for form in _BASES if form in forms.values()), None)
            fitting = [kind for kind in fitting if forms[kind.name] == first]
        if len(fitting) > 1:
            raise ArgumentError(
                f"{f'{value!r:.80}'} may be a hash of several kinds: {', '.join(kind.name for kind in fitting)}\n"
                f"Hint: hash_type names the kind, such as {fitting[0].name!r}."
            )
        if fitting:
            return fitting[0]
    return None


def holds_hashes(dtype: pl.DataType, kind: HashKind) -> bool:
    """Return whether `read_column` can read hashes of `kind` from a column of this dtype, depending on its values."""
    if isinstance(dtype, pl.List | pl.Array):
        leaf = _leaf(dtype)
        return leaf == pl.Boolean or leaf.is_integer()
    return dtype == pl.String or kind.holds(dtype)


def read_column(column: pl.Series, kind: HashKind) -> pl.Series:
    """Return a column of hashes in the dtype of their kind, from any form; null stays null.

    Parameters
    ----------
    column
        Hashes of `kind` in a dtype that holds them; `String`, where all values have one form; or lists or arrays, also
        nested, of `n_bits` (or `n_chars`) booleans or numbers 0 and 1, or of `n_bytes` numbers 0 to 255: the bits are
        in the order of `codec.to_bits`, those of rows first.
    kind
        The kind.

    Raises
    ------
    ColumnError
        If a value is not a hash. The message contains the first such value and its row.
    """
    if column.dtype == pl.String:
        return _read_text(column, kind)
    if column.dtype in (pl.List, pl.Array):
        return _read_lists(column, kind)
    return codec.as_hashes(column, kind)


def from_text(text: pl.Series, kind: HashKind, form: TextForm) -> pl.Series:
    """Return the hashes of a column whose values, without spaces around them, all have one form; null stays null."""
    if form == "bits":
        return codec.from_bits(text, kind)
    if form == "hex":
        return codec.from_hex(text, kind)
    return codec.unsigned(text.cast(pl.Int128))


def stripped(name: str) -> pl.Expr:
    """Return a text column without the spaces around its values; empty text is null."""
    text = pl.col(name).str.strip_chars()
    return pl.when(text != "").then(text).alias(name)


def matches_of(text: pl.Expr, kind: HashKind) -> dict[TextForm, pl.Expr]:
    """Return for each form whether values of a text column have it; null has each."""
    return {form: _has_form(text, form, pattern) | text.is_null() for form, pattern in patterns(kind).items()}


def bad_value(
    frame: pl.LazyFrame,
    name: str,
    kind: HashKind,
    matches: dict[TextForm, pl.Expr],
    hint: str = "hash_type names the kind of hash.",
) -> ColumnError:
    """Return the error for the first value in no form, or else in another form than those before it."""
    row, seen = "__imgmatch_row", frame.select(name, pl.int_range(pl.len()).alias("__imgmatch_row"), **matches)
    wrong = seen.filter(~pl.any_horizontal(list(matches))).head(1).collect()
    if wrong.is_empty():
        # All values that come before the first of another form leave some form possible.
        wrong = seen.filter(~pl.any_horizontal(pl.col(form).cum_min() for form in matches)).head(1).collect()
        other = " in another form than the values before it"
    else:
        other = ""
    number, value = wrong[row].item(), wrong[name].item()
    shown = repr(value) if isinstance(value, str) else str(value)
    length = f" ({len(value)} characters)" if isinstance(value, str) else ""
    return ColumnError(
        f"column {name!r} holds {shown[:_MAX_CHARS]}{length} in row {number:,} (from 0){other}, "
        f"a {kind.name} is {forms_text(kind)}\n"
        f"Hint: one form in all rows; {hint}"
    )


def _fits(text: str, form: TextForm) -> bool:
    return form != "decimal" or LOWEST <= int(text) <= HIGHEST


def _has_form(text: pl.Expr, form: TextForm, pattern: str) -> pl.Expr:
    matches = text.str.contains(pattern)
    if form != "decimal":
        return matches
    return matches & text.cast(pl.Int128, strict=False).is_between(LOWEST, HIGHEST).fill_null(value=False)


def _either(numbers: Iterable[int]) -> str:
    return " or ".join(map(str, numbers))


def _read_text(column: pl.Series, kind: HashKind) -> pl.Series:
    name, column = column.name, column.alias("hash")  # Polars takes some names for patterns
    given = column.to_frame()
    text = given.select(stripped("hash"))
    for form, matches in matches_of(pl.col("hash"), kind).items():
        if text.select(matches.all()).item():
            return from_text(text["hash"], kind, form).alias(name)
    found = matches_of(stripped("hash"), kind)
    message = str(bad_value(given.lazy(), "hash", kind, found))
    raise ColumnError(message.replace("column 'hash'", f"column {name!r}", 1))


def _read_lists(column: pl.Series, kind: HashKind) -> pl.Series:
    import numpy as np

    valid = column.is_not_null().to_numpy()
    leaves, n_leaves = _flattened(column.drop_nulls(), np.flatnonzero(valid), kind)
    n_rows = len(n_leaves)
    width = int(n_leaves[0]) if n_rows else kind.n_bytes
    fail = partial(_bad_list, column, np.flatnonzero(valid), kind)
    is_bits = leaves.dtype == pl.Boolean or width in (kind.n_bits, kind.n_chars)
    if n_rows and width not in ((kind.n_bits, kind.n_chars) if leaves.dtype == pl.Boolean else _widths(kind)):
        raise fail(0, f"{width:,} values")
    other = np.flatnonzero(n_leaves != width)
    if len(other):
        raise fail(int(other[0]), f"{n_leaves[other[0]]:,} values, and {width:,} in the rows before it")
    if leaves.dtype != pl.Boolean:
        outside = (~leaves.is_between(0, 1 if is_bits else 255)).arg_true()
        if len(outside):
            raise fail(int(outside[0]) // width, f"the number {leaves[int(outside[0])]}")
    values = leaves.cast(pl.UInt8).to_numpy().reshape(n_rows, width)
    rows = np.zeros((len(column), kind.n_bytes), np.uint8)
    packed = np.packbits(values, axis=1) if is_bits else values
    rows[valid] = packed
    hashes: Any = rows.view(">u8").astype(np.uint64) if kind.is_number else rows
    return codec.to_series(kind, hashes, valid).alias(column.name)


def _flattened(column: pl.Series, rows: "NDArray[np.int64]", kind: HashKind) -> "tuple[pl.Series, NDArray[np.int64]]":
    """Return the innermost values of a column of lists without nulls, and how many each row has."""
    import numpy as np

    level, counts = column, np.ones(len(column), np.int64)
    while level.dtype in (pl.List, pl.Array):
        lists = level.arr.to_list() if level.dtype == pl.Array else level
        lengths = lists.list.len().fill_null(0).to_numpy().astype(np.int64)
        ends = np.cumsum(counts)
        empty = np.flatnonzero(lengths == 0)
        if len(empty):
            raise _bad_list(column, rows, kind, int(np.searchsorted(ends, empty[0], "right")), "an empty list or null")
        counts = np.add.reduceat(lengths, ends - counts) if len(lengths) else counts
        level = lists.explode()
    if level.null_count():
        at = int(level.is_null().arg_true()[0])
        raise _bad_list(column, rows, kind, int(np.searchsorted(np.cumsum(counts), at, "right")), "null")
    return level if len(column) else level.clear(), counts


def _bad_list(column: pl.Series, rows: "NDArray[np.int64]", kind: HashKind, place: int, what: str) -> ColumnError:
    return ColumnError(
        f"column {column.name!r} ({column.dtype}) holds {what} in row {rows[place]:,} (from 0), "
        f"a {kind.name} is a list of {kind.n_bits} bits, or of {kind.n_bytes} numbers from 0 to 255\n"
        "Hint: one length in all rows; hash_type names the kind of this length."
    )


def _widths(kind: HashKind) -> tuple[int, ...]:
    return kind.n_bytes, kind.n_bits, kind.n_chars


def _leaf(dtype: Any) -> Any:
    while isinstance(dtype, pl.List | pl.Array):
        dtype = dtype.inner
    return dtype
