"""Text files of hashes as rows of fields with line numbers: CSV with or without a header, and the lines of PDQ's tools.

The programs of ThreatExchange write ``hash,quality,filename`` without quotes, ``hash=…,norm=…,quality=…,filename=…``,
and ``pdq hash``; sha256sum and others write ``hash  filename``. Blank lines, and lines that begin with ``#``, are no
rows.
"""

import codecs
import csv
import gzip
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import IO, Any, Final, Literal

import polars as pl

from imgmatch_df.cli.list_columns import is_known_name, names_any_kind
from imgmatch_df.cli.table_files import check_encoding
from imgmatch_df.errors import ArgumentError, ColumnError
from imgmatch_df.hashes.forms import form_of
from imgmatch_df.hashes.kinds import HashKind

LineLayout = Literal["csv", "hash first", "fields", "kind first", "hash and name"]

_DELIMITERS: Final = (",", "\t", ";", "|")
_HASH_LIKE: Final = re.compile(r"(0[xX])?[0-9a-fA-F]{16,}|[+-]?[0-9]+")
_KIND_FIRST: Final = re.compile(r"(\S+)[ \t]+(\S+)(?:[ \t]+(.*))?")
_HASH_AND_NAME: Final = re.compile(r"(\S+)(?:[ \t]+\*?(.*))?")
_SAMPLED_ROWS: Final = 50
_CHUNK_BYTES: Final = 1 << 20
_NO_DELIMITER: Final = "\x1f"
# Quotes, the delimiter of no list, and how blank lines and comments begin.
_NOT_PLAIN: Final = (b'"', _NO_DELIMITER.encode(), b"\n\n", b"\n\r", b"\n#", b"\n ", b"\n\t")
_MAX_FIELD: Final = 1 << 27  # characters, such as an image in base64


class ListText:
    """The rows of a text file.

    Parameters
    ----------
    path
        The file, in UTF-8. A ``.gz`` is decompressed.
    kind
        The kind of hash that is looked for.

    Raises
    ------
    ArgumentError
        If the file is in another encoding, has no rows, or cannot be divided into fields.
    ColumnError
        If two columns have one name.
    """

    def __init__(self, path: str, kind: HashKind) -> None:
        self._path, self._kind = path, kind
        if not path.lower().endswith(".gz"):
            check_encoding(path, Path(path).suffix.lower() or "a list of hashes")
        start = [line for _, line in islice(self._data_lines(), _SAMPLED_ROWS)]
        if not start:
            raise ArgumentError(f"{path!r} has no rows\nHint: check that the file is complete.")
        first = start[0]
        self._delimiter = next((one for one in _DELIMITERS if one in first), ",")
        self.has_header = False
        self.layout = self._find_layout(first)
        self.columns = self._name_columns(first, start)

    @property
    def is_taken_for_header(self) -> bool:
        """Whether the first line is read as names of columns, and none of them is known."""
        return self.has_header and not any(map(is_known_name, self.columns))

    def rows(self) -> Iterator[tuple[int, list[str | None]]]:
        """Yield the number of the first line of each row, from 1, and its fields, None where there are too few.

        A field that would be too many is part of the last one.
        """
        n_columns = len(self.columns)
        rows = self._csv_rows() if self.layout == "csv" else self._line_rows()
        for line, fields in islice(rows, 1 if self.has_header else 0, None):
            whole: list[str | None] = [*fields]
            if len(fields) != n_columns:
                if len(fields) > n_columns:
                    whole = [*fields[: n_columns - 1], self._delimiter.join(fields[n_columns - 1 :])]
                whole += [None] * (n_columns - len(fields))
            yield line, whole

    def batches(self, n_rows: int, line: str) -> Iterator[pl.DataFrame]:
        """Yield the rows in frames of text, with the column `line` of the numbers of their first lines."""
        if self._is_plain:
            yield from self._plain_batches(n_rows, line)
            return
        rows = self.rows()
        schema = dict.fromkeys(self.columns, pl.String())
        while part := list(islice(rows, n_rows)):
            numbers, fields = zip(*part, strict=True)
            columns: list[Any] = list(zip(*fields, strict=True))
            frame = pl.DataFrame(dict(zip(self.columns, columns, strict=True)), schema=schema)
            yield frame.with_columns(pl.Series(line, numbers, dtype=pl.Int64))

    @cached_property
    def _is_plain(self) -> bool:
        """Whether each line is one row, which Polars can divide: without quotes, comments and blank lines."""
        if self.layout not in ("csv", "hash first") or self._path.lower().endswith(".gz"):
            return False
        decode = codecs.getincrementaldecoder("utf-8")().decode
        with Path(self._path).open("rb") as file:
            end = b"\n"
            while part := file.read(_CHUNK_BYTES):
                seen = end + part.removeprefix(codecs.BOM_UTF8)
                end = seen[-1:] if seen[-1:] in (b"\r", b"\n") else b""
                n_returns = seen.count(b"\r") - (end == b"\r")
                if n_returns != seen.count(b"\r\n") or any(mark in seen for mark in _NOT_PLAIN):
                    return False
                try:
                    decode(part)
                except UnicodeDecodeError:  # `rows` says where
                    return False
        return True

    def _plain_batches(self, n_rows: int, line: str) -> Iterator[pl.DataFrame]:
        lines = pl.scan_csv(
            self._path, has_header=False, separator=_NO_DELIMITER, quote_char=None, infer_schema=False, glob=False
        )
        text = pl.first().str.strip_prefix("\ufeff").str.strip_suffix("\r")
        if self.layout == "hash first":
            text = text.str.strip_chars()
        fields = text.str.splitn(self._delimiter, len(self.columns)).alias("fields")
        number = 1
        for part in lines.collect_batches(chunk_size=n_rows, maintain_order=True):
            rows = part.select(fields).unnest("fields")
            rows.columns = self.columns
            rows = rows.with_columns(pl.int_range(number, number + part.height, dtype=pl.Int64, eager=True).alias(line))
            if self.layout == "csv":  # a line of delimiters is blank
                is_row = part.select(text.str.replace_all(self._delimiter, "", literal=True).str.strip_chars() != "")
                rows = rows.filter(is_row.to_series())
            yield rows[1:] if number == 1 and self.has_header else rows
            number += part.height

    def _open(self) -> IO[str]:
        if self._path.lower().endswith(".gz"):
            return gzip.open(self._path, "rt", encoding="utf-8-sig", newline="")
        return Path(self._path).open(encoding="utf-8-sig", newline="")

    def _lines(self) -> Iterator[str]:
        with self._open() as file:
            number = 0
            try:
                for line in file:
                    number += 1
                    yield line
            except UnicodeDecodeError as error:
                raise ArgumentError(
                    f"{self._path!r} is not UTF-8 after line {number:,}: {error.reason}\nHint: save the file as UTF-8."
                ) from error
            except (EOFError, gzip.BadGzipFile) as error:
                raise ArgumentError(
                    f"{self._path!r} cannot be decompressed: {error}\nHint: check that the file is complete."
                ) from error

    def _data_lines(self) -> Iterator[tuple[int, str]]:
        for number, line in enumerate(self._lines(), 1):
            text = line.strip()
            if text and not text.startswith("#"):
                yield number, text

    def _line_rows(self) -> Iterator[tuple[int, list[str]]]:
        for number, text in self._data_lines():
            if self.layout in ("kind first", "hash and name"):
                found = (_KIND_FIRST if self.layout == "kind first" else _HASH_AND_NAME).fullmatch(text)
                yield number, [text] if found is None else [part for part in found.groups() if part is not None]
            elif self.layout == "fields":
                parts = _named_fields(text)
                yield number, [parts.get(name, "") for name in self.columns] if parts else [text]
            else:
                parts_of_line = text.split(self._delimiter, len(self.columns) - 1)
                yield number, [_unquoted(part) for part in parts_of_line]

    def _csv_rows(self) -> Iterator[tuple[int, list[str]]]:
        csv.field_size_limit(_MAX_FIELD)
        reader = csv.reader(self._lines(), delimiter=self._delimiter)
        line = 1
        try:
            for fields in reader:
                number = reader.line_num
                first = fields[0][:1] if fields else ""
                # Few rows begin so, and are looked at as a whole.
                if (first and first not in "# \t\r\n") or _is_row(fields):
                    if number > line:
                        self._check_quotes(line, fields)
                    yield line, fields
                line = number + 1
        except csv.Error as error:
            raise ArgumentError(
                f"line {line:,} of {self._path!r} cannot be read: {error}\nHint: check the quotes of that line."
            ) from error

    def _check_quotes(self, line: int, fields: Sequence[str]) -> None:
        """Refuse a field that contains lines with hashes: its quote is not closed, and they would be lost."""
        for field in fields:
            for part in field.splitlines()[1:] if "\n" in field or "\r" in field else ():
                if any(form_of(value, self._kind) in ("bits", "hex") for value in part.split(self._delimiter)):
                    raise ArgumentError(
                        f"line {line:,} of {self._path!r} has a quote that is not closed: {field[:40]!r}…\n"
                        "Hint: double a quote that is part of a value, and put the value in quotes."
                    )

    def _find_layout(self, first: str) -> LineLayout:
        if first.startswith("hash=") and _named_fields(first):
            return "fields"
        words = _KIND_FIRST.fullmatch(first)
        if words is not None and names_any_kind(words[1]) and not any(one in words[2] for one in _DELIMITERS):
            self._delimiter = " "
            return "kind first"
        start, space, rest = first.partition(" ")
        if space and self._is_value(start) and rest.lstrip()[:1] not in _DELIMITERS:
            return "hash and name"
        fields = _split(first, self._delimiter)
        self.has_header = not any(self._is_value(field) for field in fields) and not (
            len(fields) > 1 and names_any_kind(fields[0]) and not any(map(is_known_name, fields[1:]))
        )
        if self.has_header or not self._is_value(fields[0]):
            return "csv"
        return "hash first" if len(fields) <= 3 or _is_quality(fields[1]) else "csv"

    def _is_value(self, field: str) -> bool:
        return form_of(field, self._kind) is not None or _HASH_LIKE.fullmatch(field.strip()) is not None

    def _name_columns(self, first: str, start: Sequence[str]) -> list[str]:
        if self.layout == "fields":
            return list(_named_fields(first))
        if self.layout == "kind first":
            widths = [
                sum(part is not None for part in found.groups()) for found in map(_KIND_FIRST.fullmatch, start) if found
            ]
            return ["signal_type", "signal_str", "details"][: max(widths)]
        if self.layout == "hash and name":
            return ["hash", "filename"]
        if not self.has_header:
            return self._positional_names(_split(first, self._delimiter), start)
        names = [name.strip() or f"column_{place}" for place, name in enumerate(_split(first, self._delimiter), 1)]
        twice = [name for name, n_times in Counter(names).items() if n_times > 1]
        if twice:
            raise ColumnError(
                f"{self._path!r} has more than one column named {twice[0]!r}\n"
                "Hint: rename one of them in the first line."
            )
        return names

    def _positional_names(self, fields: Sequence[str], start: Sequence[str]) -> list[str]:
        """Return the names of columns without a header: those of PDQ's tools where the fields are theirs."""
        names = [f"column_{place}" for place in range(1, len(fields) + 1)]
        rows = [_split(line, self._delimiter) for line in start]
        is_quality = [all(len(row) <= place or _is_quality(row[place]) for row in rows) for place in range(len(fields))]
        hashes = [place for place, field in enumerate(fields) if form_of(field, self._kind) in ("bits", "hex")]
        if names_any_kind(fields[0]) and len(fields) > 1:
            return ["signal_type", "signal_str", *names[2:]]
        if hashes == [0] or (not hashes and len(fields) <= 3):
            names[0] = "hash"
            if len(fields) > 1 and is_quality[1]:  # the name of a file may have a comma, without quotes
                names = ["hash", "quality", "filename"][: max(map(len, rows))]
        elif hashes == [2] and len(fields) == 4 and is_quality[1]:  # vPDQ
            names = ["frame_number", "quality", "hash", "timestamp"]
        return names


def _is_row(fields: Sequence[str]) -> bool:
    """Return whether a line is neither blank nor a comment."""
    return any(map(str.strip, fields)) and not fields[0].lstrip().startswith("#")


def _split(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return line.split(delimiter)


def _named_fields(text: str) -> dict[str, str]:
    """Return the fields of a line such as ``hash=…,quality=100,filename=a,b.jpg``; no fields for another line."""
    fields: dict[str, str] = {}
    name = ""
    for part in text.split(","):
        key, sign, value = part.partition("=")
        if name == "filename" or (name and not sign):  # a comma of the value
            fields[name] += f",{part}"
        elif sign:
            name = key.strip()
            fields[name] = value
        else:
            return {}
    return fields


def _unquoted(text: str) -> str:
    inner = text[1:-1]
    return inner.replace('""', '"') if len(text) > 1 and text[0] == text[-1] == '"' else text


def _is_quality(text: str) -> bool:
    return text.strip().isdecimal() and len(text.strip()) <= 3 and int(text) <= 100
