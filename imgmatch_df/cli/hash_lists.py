"""Lists of hashes that other programs wrote, as the reference side of a comparison.

A row without a readable hash stays a row: it matches nothing, and is reported with its line. The columns of the list
are read again for the rows that match, so that a list takes the memory of its hashes and ids.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

import polars as pl

from imgmatch_df.cli import list_columns
from imgmatch_df.cli.exit_codes import say
from imgmatch_df.cli.list_text import ListText
from imgmatch_df.cli.table_files import check_encoding, is_list, is_utf8_text, scan_table
from imgmatch_df.columns import HEIGHT, QUALITY, SOURCE, STATUS, WIDTH
from imgmatch_df.errors import ArgumentError, ColumnError, SourceError
from imgmatch_df.frames.checks import shown_names
from imgmatch_df.frames.flat import MIN_QUALITY
from imgmatch_df.frames.given_hashes import read_given
from imgmatch_df.frames.layout import is_hash
from imgmatch_df.hashes import forms
from imgmatch_df.hashes.kinds import MEASURES, PDQ, SHA256, HashKind
from imgmatch_df.images.folders import KNOWN_SUFFIXES
from imgmatch_df.store.base import is_store

_TABLES: Final = (".parquet", ".ndjson", ".jsonl", ".json")
_TEXTS: Final = (".csv", ".tsv", ".txt")
_ROWS_PER_BATCH: Final = 50_000
_SAMPLED_ROWS: Final = 1_000
_ROWS_SHOWN: Final = 10
_MAX_CHARS: Final = 80
_ID: Final = "__imgmatch_id"
_LINE: Final = "__imgmatch_line"
_TEXT: Final = "__imgmatch_text"


@dataclass(frozen=True)
class HashList:
    """A list of hashes.

    Parameters
    ----------
    rows
        One row per hash: the hashes under the name of their kind, `quality` and `sha256` where the list has them, and
        the column `id`.
    id
        Column of `rows` that names them; None where their numbers do.
    columns
        Names of the columns of the list.
    take
        Returns these columns of some rows, given by their numbers in any order.
    n_failed
        Number of rows without a readable hash.
    """

    rows: pl.DataFrame
    id: str | None
    columns: Sequence[str]
    take: Callable[[pl.Series], pl.DataFrame]
    n_failed: int = field(default=0)


class _FileRows(NamedTuple):
    """The rows of a file.

    Parameters
    ----------
    path
        The file.
    schema
        Its columns.
    batches
        Returns an iterator over its rows, with the column `_LINE`.
    has_lines
        Whether that column has the numbers of lines; otherwise those of rows, from 1.
    optional
        Columns that were fields of a struct: a row may lack a hash of this kind, and have one of another.
    """

    path: str
    schema: Mapping[str, Any]
    batches: Callable[[], Iterator[pl.DataFrame]]
    has_lines: bool
    optional: frozenset[str] = frozenset()

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return list(self.schema)


def open_hash_list(
    path: str, kind: HashKind, *, column: str | None, id_column: str | None, on_error: str
) -> HashList | None:
    """Return the list of hashes in a file, and print what of it is not compared; None where it is no such list.

    Parameters
    ----------
    path
        A file with lines of text, a CSV, a Parquet file, or a JSON list or lines of objects.
    kind
        The kind of hash to compare. Rows that name another kind are left out.
    column, id_column
        The column of hashes, and the one that names rows; None finds them by their names and values.
    on_error
        ``"raise"`` refuses a list with a row that cannot be read.

    Raises
    ------
    ArgumentError, ColumnError
        If the file cannot be read, the column of hashes is not clear, or no row has a hash of the kind.
    SourceError
        If a row cannot be read, with ``on_error="raise"``.
    """
    if not _may_be_list(path):
        return None
    shown = repr(path)
    found = _open(path, kind)
    named = {name: _different(found, name) for name in found.columns if list_columns.may_name_kinds(name)}
    kinds = list_columns.kind_column(found.columns, named)
    if kinds is not None and not any(list_columns.names_kind(value, kind) for value in named[kinds]):
        raise ColumnError(
            f"no row of {shown} is a {kind.name}: its column {kinds!r} has "
            f"{shown_names(dict.fromkeys(map(str, named[kinds])))}\nHint: --hash-type names the kind to compare."
        )
    sample = _sample(found, kinds, kind)
    name = list_columns.choose_hash_column(found.columns, sample, kind, column, shown)
    if name is None:
        return None
    if id_column is not None and id_column not in found.columns:
        raise ColumnError(
            f"no column {id_column!r} in {shown}, it has {shown_names(dict.fromkeys(found.columns))}\n"
            "Hint: --reference-id names one of these."
        )
    id_column = id_column or list_columns.id_column([one for one in found.columns if one not in (name, kinds)])
    is_ours = {WIDTH, HEIGHT, STATUS, QUALITY} <= set(found.columns)
    quality = list_columns.quality_column(found.columns) if kind is PDQ or is_ours else None
    if id_column is None and is_ours and SOURCE in found.columns:
        id_column = SOURCE
    digest = SHA256.name if SHA256.name in found.columns and name != SHA256.name else None
    rows, numbers = _read(found, kind, name, kinds, {_ID: id_column, QUALITY: quality, SHA256.name: digest})
    rows, failed = _parse(rows, kind)
    if rows.height and failed.height == rows.height:
        raise ColumnError(
            f"no value in column {name!r} of {shown} is a {kind.name}: {_shown_row(failed.row(0, named=True), found)}\n"
            f"Hint: a {kind.name} is {forms.forms_text(kind)}; --reference-column names another column."
        )
    _report(failed, rows, found, kind, shown, on_error)
    own = [
        one for one, dtype in found.schema.items() if not is_hash(one, dtype) and dtype not in (pl.Binary, pl.Object)
    ]
    lost = [one for one, dtype in found.schema.items() if not is_hash(one, dtype) and one not in own]
    if lost:
        say(f"left out of the list, which holds bytes there: {', '.join(lost)}")
    id_name = _ID if id_column is not None and rows[_ID].null_count() == 0 else None
    return HashList(
        rows.drop(_TEXT, _LINE, strict=False),
        id_name,
        own,
        lambda wanted: _take(found, own, numbers.gather(wanted)),
        failed.height,
    )


def list_columns_of(path: str) -> list[str]:
    """Return the names of the columns of a file that may be a list of hashes; none of other files."""
    return _open(path, PDQ, shown=False).columns if _may_be_list(path) else []


def _may_be_list(path: str) -> bool:
    if is_store(path) or not Path(path).is_file():
        return False
    suffix = _suffix(path)
    if suffix in _TABLES:
        return suffix != ".json" or is_list(path)
    if suffix in KNOWN_SUFFIXES:
        return False
    # Any other file may be text; an image may have no suffix.
    return suffix in _TEXTS or path.lower().endswith(".gz") or is_utf8_text(path)


def _suffix(path: str) -> str:
    return Path(path.lower().removesuffix(".gz")).suffix


def _open(path: str, kind: HashKind, *, shown: bool = True) -> _FileRows:
    suffix = _suffix(path)
    if suffix not in _TABLES:
        text = ListText(path, kind)
        if shown and text.is_taken_for_header:
            say(f"the first line of {path} is read as names of columns: {', '.join(text.columns)}")
        return _FileRows(
            path, dict.fromkeys(text.columns, pl.String()), lambda: text.batches(_ROWS_PER_BATCH, _LINE), has_lines=True
        )
    if suffix != ".parquet":
        check_encoding(path, suffix)
    try:
        table = scan_table([path], suffix)
        frame = _without_structs(table)
        schema = frame.collect_schema()
    except pl.exceptions.PolarsError as error:
        _check_lines(path, suffix, error)
        raise

    def batches() -> Iterator[pl.DataFrame]:
        line = 1
        for part in frame.collect_batches(chunk_size=_ROWS_PER_BATCH, maintain_order=True):
            yield part.with_columns(pl.int_range(line, line + part.height, eager=True).alias(_LINE))
            line += part.height

    return _FileRows(path, schema, batches, has_lines=False, optional=frozenset(schema) - set(table.collect_schema()))


def _without_structs(frame: pl.LazyFrame) -> pl.LazyFrame:
    """Return a frame whose columns of structs are one column per field: the hashes of a bank may be in ``signals``."""
    exprs = []
    schema = frame.collect_schema()
    for name, dtype in schema.items():
        fields = dtype.fields if isinstance(dtype, pl.Struct) else []
        names = [f"{name}.{one.name}" for one in fields]
        if not fields or any(one in schema for one in names):
            exprs.append(pl.col(name))
            continue
        exprs += [pl.col(name).struct.field(one.name).alias(new) for one, new in zip(fields, names, strict=True)]
    return frame.select(exprs)


def _check_lines(path: str, suffix: str, error: Exception) -> None:
    """Raise an error that names the first line that is not a JSON object, if there is one."""
    if suffix not in (".ndjson", ".jsonl"):
        return
    with Path(path).open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                is_object = not line.strip() or isinstance(json.loads(line), dict)
            except ValueError:
                is_object = False
            if not is_object:
                raise ArgumentError(
                    f"line {number:,} of {path!r} is not a JSON object: {line[:_MAX_CHARS]!r}\n"
                    "Hint: each line is one object; a list of objects is a .json."
                ) from error


def _line_of_object(path: str, number: int) -> int:
    """Return the line of an object, given by its number from 1; there may be blank lines between them."""
    with Path(path).open("rb") as file:
        lines = (line for line, text in enumerate(file, 1) if text.strip())
        return next(islice(lines, number - 1, None), number)


def _different(found: _FileRows, name: str) -> list[str | None]:
    """Return the different values of a column, the first ones."""
    values: dict[str | None, None] = {}
    for part in found.batches():
        if part.schema[name] != pl.String:
            return []
        values |= dict.fromkeys(part[name].unique(maintain_order=True).head(_SAMPLED_ROWS))
        if len(values) >= _SAMPLED_ROWS:
            break
    return list(values)


def _sample(found: _FileRows, kinds: str | None, kind: HashKind) -> dict[str, list[str | None]]:
    """Return the first values of the columns that may hold hashes, as text, of rows of the kind."""
    exprs = []
    for name, dtype in found.schema.items():
        if dtype == pl.String or (dtype.is_integer() and kind.is_number):
            exprs.append(pl.col(name).cast(pl.String))
        elif dtype == pl.Binary and not kind.is_number:
            is_hash = pl.col(name).bin.size() == kind.n_bytes
            exprs.append(pl.when(is_hash).then(pl.col(name).bin.encode("hex")).otherwise(pl.lit("other bytes")))
    sample = pl.DataFrame(schema={expr.meta.output_name(): pl.String() for expr in exprs})
    for part in found.batches():
        rows = _of_kind(part, kinds, kind).head(_SAMPLED_ROWS - sample.height).select(exprs)
        sample = pl.concat([sample, rows])
        if sample.height >= _SAMPLED_ROWS:
            break
    return {name: sample[name].to_list() for name in sample.columns}


def _is_of_kind(part: pl.DataFrame, kinds: str, kind: HashKind) -> pl.Series:
    values = part[kinds].unique()
    own = [value for value in values if list_columns.names_kind(value, kind)]
    return part[kinds].is_in(own).fill_null(value=False)


def _of_kind(part: pl.DataFrame, kinds: str | None, kind: HashKind) -> pl.DataFrame:
    return part if kinds is None else part.filter(_is_of_kind(part, kinds, kind))


def _read(
    found: _FileRows, kind: HashKind, name: str, kinds: str | None, others: Mapping[str, str | None]
) -> tuple[pl.DataFrame, pl.Series]:
    """Return the rows of the kind with what is compared, and their numbers in the file; print what is left out."""
    dtype = found.schema[name]
    columns = [pl.col(name).alias(_TEXT), pl.col(_LINE)]
    columns += [pl.col(one).alias(new) for new, one in others.items() if one is not None]
    parts, numbers, left_out, start = [], [], Counter[str](), 0
    for part in found.batches():
        places = pl.int_range(start, start + part.height, eager=True)
        start += part.height
        if kinds is not None:
            is_own = _is_of_kind(part, kinds, kind)
            left_out.update(str(value) for value in part[kinds].filter(~is_own))
            part, places = part.filter(is_own), places.filter(is_own)
        if name in found.optional:
            has_hash = part[name].is_not_null()
            left_out["other kinds"] += part.height - int(has_hash.sum())
            part, places = part.filter(has_hash), places.filter(has_hash)
        parts.append(part.select(columns))
        numbers.append(places)
    left_out += Counter()  # without zeros
    if left_out:
        counts = ", ".join(f"{value} {n:,}" for value, n in left_out.most_common(_ROWS_SHOWN))
        say(f"left out of the list, because they have no {kind.name}: {left_out.total():,} rows ({counts})")
    schema = {_TEXT: dtype, _LINE: pl.Int64()}
    if not parts:
        return pl.DataFrame(schema=schema), pl.Series([], dtype=pl.Int64)
    return pl.concat(parts, how="vertical_relaxed"), pl.concat(numbers)


def _parse(rows: pl.DataFrame, kind: HashKind) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the rows with hashes in the dtype of their kind, null where there is none, and the rows of these."""
    if rows.schema[_TEXT] == pl.String:
        text = rows.select(forms.stripped(_TEXT))
        matches = text.select(
            (matching & pl.col(_TEXT).is_not_null()).alias(form)
            for form, matching in forms.matches_of(pl.col(_TEXT), kind).items()
        )
        counts = {form: int(matches[form].sum()) for form in matches.columns}
        form: Any = max(counts, key=lambda one: counts[one])
        readable = text.select(pl.when(matches[form]).then(pl.col(_TEXT))).to_series()
        hashes = forms.from_text(readable, kind, form)
    else:
        given = read_given(rows.lazy().select(_TEXT), kind, _TEXT)
        hashes = rows[_TEXT] if given is None else rows.select(given.expr).to_series()
    rows = rows.with_columns(hashes.alias(kind.name), *_guarded(rows))
    return rows, rows.filter(pl.col(kind.name).is_null())


def _guarded(rows: pl.DataFrame) -> list[pl.Series]:
    """Return the columns of qualities and digests as they are compared, if all of their values can be."""
    columns = []
    if QUALITY in rows.columns:
        quality = rows[QUALITY]
        stripped = quality.str.strip_chars() if quality.dtype == pl.String else quality
        present = stripped.replace("", None) if quality.dtype == pl.String else stripped
        numbers = present.cast(pl.Float64, strict=False)
        if (
            present.is_null() | (numbers.is_between(0, 100) & (numbers == numbers.floor())).fill_null(value=False)
        ).all():
            columns.append(numbers.cast(MEASURES[QUALITY].dtype).alias(QUALITY))
        else:
            say("the column of qualities is not used, because its values are not whole numbers from 0 to 100")
            columns.append(pl.repeat(None, rows.height, dtype=MEASURES[QUALITY].dtype, eager=True).alias(QUALITY))
    return columns


def _report(
    failed: pl.DataFrame, rows: pl.DataFrame, found: _FileRows, kind: HashKind, shown: str, on_error: str
) -> None:
    """Print which rows cannot be read, and how many show too little."""
    if failed.height:
        lines = [_shown_row(row, found) for row in failed.head(_ROWS_SHOWN).iter_rows(named=True)]
        if on_error == "raise":
            raise SourceError(f"{shown} has a row without a {kind.name}: {lines[0]}\nHint: --on-error null keeps it.")
        say(f"{failed.height:,} of {rows.height:,} rows of the list have no readable {kind.name}, and match nothing")
        for line in lines:
            say(line, indent=2)
        if failed.height > len(lines):
            say(f"and {failed.height - len(lines):,} more", indent=2)
    if not rows.height:
        say(f"{shown} has no rows, so that nothing can match")


def count_flat(rows: pl.DataFrame) -> int:
    """Return the number of rows whose quality is so low that only identical files match."""
    if rows.schema.get(QUALITY) != MEASURES[QUALITY].dtype:
        return 0
    return int((rows[QUALITY] < MIN_QUALITY).sum())


def _shown_row(row: Mapping[str, Any], found: _FileRows) -> str:
    place = f"line {row[_LINE]:,}" if found.has_lines else f"row {row[_LINE] - 1:,} (from 0)"
    if _suffix(found.path) in (".ndjson", ".jsonl"):
        place = f"line {_line_of_object(found.path, row[_LINE]):,}"
    value = row[_TEXT]
    if value is None or (isinstance(value, str) and not value.strip()):
        return f"{place}: no value"
    length = f" ({len(value)} characters)" if isinstance(value, str) else ""
    return f"{place}: {value!r:.{_MAX_CHARS}}{length}"


def _take(found: _FileRows, columns: Sequence[str], numbers: pl.Series) -> pl.DataFrame:
    """Return columns of rows of the file, in the order of `numbers`, which may repeat."""
    wanted = numbers.unique().sort()
    parts, start = [], 0
    for part in found.batches():
        if not len(wanted) or start > wanted[-1]:
            break
        here = wanted.filter((wanted >= start) & (wanted < start + part.height)) - start
        parts.append(part.select(columns)[here])
        start += part.height
    if not parts:
        return pl.DataFrame(schema={name: found.schema[name] for name in columns})
    return pl.concat(parts, how="vertical_relaxed")[wanted.search_sorted(numbers)]
