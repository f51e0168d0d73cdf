"""Files as lazy frames, with unchanged names of columns: Parquet, CSV, NDJSON, Arrow, and lists in JSON."""

import codecs
import csv
import glob
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from io import TextIOWrapper
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import unquote

import polars as pl
from polars.io.plugins import register_io_source

from imgmatch_df.cli.input_formats import COMPRESSIONS, INPUT_FORMATS, InputFormat, open_bytes, register_input
from imgmatch_df.errors import ArgumentError, ColumnError
from imgmatch_df.store.open import scan_hashes
from imgmatch_df.store.parquet_checksums import has_checksums

_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"

# Byte order marks of other encodings; that of UTF-32 begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
_SAMPLED_BYTES = 4096
_MAX_DEPTH = 100


def scan_table(paths: Sequence[str], suffix: str, root: str = "") -> pl.LazyFrame:
    """Return the rows of files of one kind.

    Parameters
    ----------
    paths
        Paths of the files, at least one.
    suffix
        Suffix of an input format, such as ``".parquet"``; ``".json"`` is a list of objects.
    root
        The folder of `paths`: folders below it, such as ``year=2024``, are columns of Parquet (Hive partitions).

    Raises
    ------
    ArgumentError, ColumnError
        If a CSV has two columns of one name, or a JSON file is not a list of objects.
    StoreError
        If a Parquet file of a store is damaged.

    Notes
    -----
    Columns of a CSV are text, so that ``007`` is written unchanged and no late row has another type.
    """
    return INPUT_FORMATS[suffix].scan(paths, root)


def check_encoding(path: str, suffix: str) -> None:
    """Refuse a text file in UTF-16 or UTF-32, which spreadsheets call "Unicode text".

    Raises
    ------
    ArgumentError
        If the file begins with the mark of another encoding, or has zero bytes where another encoding has them.
    """
    with open_bytes(path) as file:
        start = file.read(_SAMPLED_BYTES)
    check_text(start, repr(path), suffix)
    if suffix.startswith((".ndjson", ".jsonl")) and start.startswith(codecs.BOM_UTF8):
        raise ArgumentError(
            f"{path!r} begins with a byte order mark, which {suffix} must not have\n"
            "Hint: save the file as UTF-8 without it."
        )


def check_text(start: bytes, shown: str, what: str, *, by_zeros: bool = True) -> None:
    """Refuse text in UTF-16 or UTF-32.

    Parameters
    ----------
    start
        The first bytes of the text.
    shown, what
        Its name and its kind in messages.
    by_zeros
        Whether zero bytes show another encoding, too, and not only its mark.

    Raises
    ------
    ArgumentError
        If it is in another encoding.
    """
    name = next((name for mark, name in _MARKS if start.startswith(mark)), None)
    if name is None and by_zeros:
        name = _encoding_by_zeros(start)
    if name is not None:
        raise ArgumentError(f"{shown} is {name}, {what} is read as UTF-8\nHint: save the file as UTF-8.")


def _encoding_by_zeros(start: bytes) -> str | None:
    """Return the encoding of text without a mark, None where it may be UTF-8.

    Each character has two zero bytes of four in UTF-32, and each ASCII character one zero byte in UTF-16.
    """
    start = start[: len(start) // 4 * 4]
    places = [start[place::4] for place in range(4)]
    is_zero = [bool(part) and not any(part) for part in places]
    if (is_zero[0] and is_zero[1]) or (is_zero[2] and is_zero[3]):
        return "UTF-32"
    even, odd = start[::2].count(0), start[1::2].count(0)
    few, many = sorted((even, odd))
    return "UTF-16" if few * 8 < many and (many > len(start) // 4 or not _is_utf8(start)) else None


def _is_utf8(start: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(start)  # the last character may be incomplete
    except UnicodeDecodeError:
        return False
    return True


def is_list(path: str) -> bool:
    """Return whether a JSON file is a list, and not a documented request."""
    try:
        with open_bytes(path) as file:
            return file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"["
    except OSError:
        return False


def is_utf8_text(path: str) -> bool:
    """Return whether the start of a file is text in UTF-8."""
    with Path(path).open("rb") as file:
        start = file.read(_SAMPLED_BYTES)
    return b"\0" not in start and _is_utf8(start)


def read_csv_header(path: str, separator: str = ",") -> list[str]:
    """Return the names of the columns of a CSV, whose columns are separated by `separator`.

    Raises
    ------
    ColumnError
        If two names are equal, because Polars would rename one, or they cannot be read.
    """
    with TextIOWrapper(open_bytes(path), encoding="utf-8-sig", errors="replace", newline="") as file:
        try:
            names = next(csv.reader(file, delimiter=separator), [])
        except csv.Error as error:
            raise ColumnError(
                f"the first line of {path!r} cannot be read: {error}\nHint: check that the file is a CSV."
            ) from error
    twice = [name for name, n_times in Counter(names).items() if n_times > 1]
    if twice:
        raise ColumnError(
            f"{path!r} has more than one column named {twice[0]!r}\nHint: rename one of them in the first line."
        )
    return names


def _scan_csv(paths: Sequence[str], _root: str, separator: str = ",") -> pl.LazyFrame:
    headers = [read_csv_header(path, separator) for path in paths]
    frame = pl.scan_csv(list(paths), glob=False, infer_schema=False, separator=separator)
    # Polars does not unescape doubled quotes in the names of columns.
    names = dict(zip(frame.collect_schema(), headers[0], strict=False))
    return frame.rename({name: own for name, own in names.items() if name != own})


def _scan_ndjson(paths: Sequence[str], _root: str) -> pl.LazyFrame:
    # It has no option glob=.
    return pl.scan_ndjson([glob.escape(path) for path in paths], infer_schema_length=None)


def _scan_lists(paths: Sequence[str], _root: str) -> pl.LazyFrame:
    return pl.concat([_read_list(path) for path in paths], how="diagonal_relaxed").lazy()


def _scan_arrow(paths: Sequence[str], _root: str) -> pl.LazyFrame:
    """Return the rows of Arrow files, or of files that hold an Arrow stream."""
    parts = []
    for path in paths:
        with open_bytes(path) as file:
            start = file.read(6)
        if start[:4] == b"FEA1":
            raise ArgumentError(
                f"{path!r} is Feather version 1, which is not read\n"
                "Hint: pyarrow.feather.read_feather reads it, and write_feather writes version 2."
            )
        is_file = start == b"ARROW1"
        parts.append(pl.scan_ipc(path, glob=False, hive_partitioning=False) if is_file else _scan_stream(path))
    return pl.concat(parts)


def _scan_stream(path: str) -> pl.LazyFrame:
    import pyarrow
    from pyarrow import ipc

    try:
        with open_bytes(path) as file, ipc.open_stream(file) as reader:
            schema = pl.DataFrame(reader.schema.empty_table()).schema
    except pyarrow.ArrowInvalid as error:
        raise ArgumentError(
            f"{path!r} is neither an Arrow file nor an Arrow stream: {str(error).splitlines()[0]}\n"
            "Hint: check that the file is complete."
        ) from error

    def batches(
        with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, _batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        n_left = n_rows
        with open_bytes(path) as file, ipc.open_stream(file) as reader:
            for batch in reader:
                part = pl.DataFrame(batch)
                part = part if n_left is None else part.head(n_left)
                found = part if predicate is None else part.filter(predicate)
                yield found if with_columns is None else found.select(with_columns)
                if n_left is not None:
                    n_left -= part.height
                    if n_left <= 0:
                        return

    return register_io_source(batches, schema=schema, is_pure=True)


def _scan_parquet(given: Sequence[str], root: str) -> pl.LazyFrame:
    paths = list(given)
    parts = [_partitions(path, root) for path in paths]
    if not any(parts):
        if all(map(has_checksums, paths)):  # files of stores have checksums, which `scan_hashes` checks
            return pl.concat(map(scan_hashes, paths))
        return pl.scan_parquet(paths, glob=False, hive_partitioning=False)
    _check_partitions(paths, parts, root)
    frame = pl.scan_parquet(paths, glob=False, hive_partitioning=True)
    schema = frame.collect_schema()
    dtypes = {name: schema[name] for path in paths for name in _partitions(path, "") if name in schema}
    # 007 is not a number, because it would be written as 7.
    text = {
        name: pl.String()
        for name, dtype in dtypes.items()
        if dtype.is_integer() and not all(_is_number(part[name]) for part in parts if name in part)
    }
    if not text:
        return frame
    return pl.scan_parquet(paths, glob=False, hive_partitioning=True, hive_schema={**dtypes, **text})


def _partitions(path: str, root: str) -> dict[str, str | None]:
    """Return the values of the partitions of a file by name; None is a null."""
    pairs = [folder.partition("=") for folder in _folders(path, root)]
    return {key: None if value == _NO_VALUE else unquote(value) for key, sign, value in pairs if key and sign}


def _folders(path: str, root: str) -> tuple[str, ...]:
    return (PurePath(path).relative_to(root) if root else PurePath(path)).parts[:-1]


def _check_partitions(paths: Sequence[str], parts: Sequence[Mapping[str, str | None]], root: str) -> None:
    """Refuse partitions that Polars would drop, or that would replace a column of the files.

    Raises
    ------
    ColumnError
        If there are such partitions.
    """
    names = set(parts[0])
    for path, part in zip(paths, parts, strict=True):
        if any(folder.count("=") > 1 for folder in _folders(path, root)):
            raise ColumnError(
                f"a folder of {path!r} has more than one =, so it is not a partition\nHint: write = in a value as %3D."
            )
        if set(part) != names:
            one, other = (", ".join(sorted(found)) or "none" for found in (names, part))
            raise ColumnError(
                f"the partitions of {path!r} are {other}, those of {paths[0]!r} are {one}\n"
                "Hint: run one command for each kind, such as a glob of the folders that are alike."
            )
        frame = pl.scan_parquet(path, glob=False, hive_partitioning=False)
        for name in names.intersection(frame.collect_schema()):
            same = pl.col(name).cast(pl.String, strict=False).eq_missing(pl.lit(part[name], pl.String))
            if not frame.select(same.all()).collect().item():
                raise ColumnError(
                    f"{path!r} has a column {name!r} with other values than the partition of that name\n"
                    "Hint: rename the folders or the column."
                )


def _is_number(text: str | None) -> bool:
    """Return whether the value of a partition is the text of a whole number."""
    try:
        return text is None or str(int(text)) == text
    except ValueError:
        return False


def _is_deep(records: list[Any]) -> bool:
    """Return whether values are nested so deeply that Polars needs minutes to infer their dtype."""
    level: list[Any] = [records]
    for _ in range(_MAX_DEPTH):
        values = (value for one in level for value in (one.values() if isinstance(one, dict) else one))
        level = [value for value in values if isinstance(value, dict | list)]
    return bool(level)


def _read_list(path: str) -> pl.DataFrame:
    with open_bytes(path) as file:
        data = file.read()
    try:
        records = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ArgumentError(
            f"{path!r} cannot be read as JSON: {error}\nHint: check that the file is complete."
        ) from error
    if _is_deep(records):
        raise ArgumentError(
            f"{path!r} is nested more than {_MAX_DEPTH} levels deep\nHint: remove the fields that are not needed."
        )
    if not all(isinstance(record, dict) for record in records):
        raise ArgumentError(f"{path!r} is not a list of objects only\nHint: a table is a list of objects.")
    return pl.read_json(data, infer_schema_length=None) if records else pl.DataFrame()


register_input(InputFormat(".parquet", _scan_parquet))
for _compression in ("", *COMPRESSIONS):
    register_input(InputFormat(f".csv{_compression}", _scan_csv, is_text=True))
    register_input(InputFormat(f".tsv{_compression}", partial(_scan_csv, separator="\t"), is_text=True))
    for _suffix in (".ndjson", ".jsonl"):
        register_input(InputFormat(f"{_suffix}{_compression}", _scan_ndjson, is_text=True))
    register_input(InputFormat(f".json{_compression}", _scan_lists, is_text=True))
for _suffix in (".arrow", ".arrows", ".ipc", ".feather"):
    register_input(InputFormat(_suffix, _scan_arrow))
