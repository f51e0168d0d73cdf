"""Tables of files as lazy frames, with every column under its own name: Parquet, CSV, NDJSON, and lists in JSON."""

import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from glob import escape
from pathlib import Path, PurePath
from urllib.parse import unquote

import polars as pl

from imgmatch_df.errors import ArgumentError, ColumnError

_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"


def scan_table(paths: Sequence[str], suffix: str, root: str = "") -> pl.LazyFrame:
    """Return the rows of files of one kind.

    Parameters
    ----------
    paths
        At least one.
    suffix
        ``".parquet"``, ``".csv"``, ``".ndjson"``, ``".jsonl"``, or ``".json"`` for a list of objects.
    root
        The folder that `paths` are in: what stands behind it in a path, as ``year=2024``, is a column (Hive's
        partitions) of Parquet.

    Raises
    ------
    ArgumentError, ColumnError
        If a CSV has two columns of one name, or a JSON is no list of objects.

    Notes
    -----
    Columns of a CSV are text, so that ``007`` comes out as it went in, and no late row fails for its type.
    """
    if suffix == ".parquet":
        return _scan_parquet(list(paths), root)
    if suffix == ".csv":
        headers = [read_header(path) for path in paths]
        frame = pl.scan_csv(list(paths), glob=False, infer_schema=False)
        # Polars leaves doubled quotes in the names of columns as they are.
        names = dict(zip(frame.collect_schema(), headers[0], strict=False))
        return frame.rename({name: own for name, own in names.items() if name != own})
    if suffix == ".json":
        return pl.concat([_read_list(path) for path in paths], how="diagonal_relaxed").lazy()
    return pl.scan_ndjson([escape(path) for path in paths], infer_schema_length=None)


def is_list(path: str) -> bool:
    """Return whether a JSON file holds a list, and so no documented request."""
    try:
        with Path(path).open("rb") as file:
            return file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"["
    except OSError:
        return False


def count_nulls(paths: Sequence[str], column: str) -> int | None:
    """Return how many values of a column of Parquet files are null; None where the files do not say.

    Parameters
    ----------
    paths
        At least one.
    column
        A field of a struct is ``struct.field``.
    """
    from pyarrow.parquet import ParquetFile

    n_nulls = 0
    for path in paths:
        with ParquetFile(path) as file:
            about = file.metadata
        places = [place for place in range(about.num_columns) if about.schema.column(place).path == column]
        for group in range(about.num_row_groups) if places else ():
            statistics = about.row_group(group).column(places[0]).statistics
            if statistics is None or not statistics.has_null_count:
                return None
            n_nulls += statistics.null_count
    return n_nulls


def read_header(path: str) -> list[str]:
    """Return the names of the columns of a CSV.

    Raises
    ------
    ColumnError
        If two are equal: one of them would get another name.
    """
    with Path(path).open(encoding="utf-8-sig", errors="replace", newline="") as file:
        names = next(csv.reader(file), [])
    twice = [name for name, n_times in Counter(names).items() if n_times > 1]
    if twice:
        raise ColumnError(
            f"{path!r} has more than one column named {twice[0]!r}\nHint: rename one of them in the first line."
        )
    return names


def _scan_parquet(paths: list[str], root: str) -> pl.LazyFrame:
    parts = [_partitions(path, root) for path in paths]
    if not any(parts):
        return pl.scan_parquet(paths, glob=False, hive_partitioning=False)
    _check_partitions(paths, parts, root)
    frame = pl.scan_parquet(paths, glob=False, hive_partitioning=True)
    schema = frame.collect_schema()
    dtypes = {name: schema[name] for path in paths for name in _partitions(path, "") if name in schema}
    # 007 is a name, and not a number.
    text = {
        name: pl.String()
        for name, dtype in dtypes.items()
        if dtype.is_integer() and not all(_is_number(part[name]) for part in parts if name in part)
    }
    if not text:
        return frame
    return pl.scan_parquet(paths, glob=False, hive_partitioning=True, hive_schema={**dtypes, **text})


def _partitions(path: str, root: str) -> dict[str, str | None]:
    """Return the values of a file's partitions, by name; None is no value."""
    pairs = [folder.partition("=") for folder in _folders(path, root)]
    return {key: None if value == _NO_VALUE else unquote(value) for key, sign, value in pairs if key and sign}


def _folders(path: str, root: str) -> tuple[str, ...]:
    return (PurePath(path).relative_to(root) if root else PurePath(path)).parts[:-1]


def _check_partitions(paths: Sequence[str], parts: Sequence[Mapping[str, str | None]], root: str) -> None:
    """Refuse partitions that Polars would drop, or that would replace a column of the files.

    Raises
    ------
    ColumnError
        Before anything is read but the columns of such names.
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
    """Return whether a partition's value comes out of a number as it went in."""
    try:
        return text is None or str(int(text)) == text
    except ValueError:
        return False


def _read_list(path: str) -> pl.DataFrame:
    data = Path(path).read_bytes()
    try:
        records = json.loads(data)
    except ValueError as error:
        raise ArgumentError(f"{path!r} is not JSON: {error}\nHint: is the file whole?") from error
    if not all(isinstance(record, dict) for record in records):
        raise ArgumentError(f"{path!r} is a list of other things than objects\nHint: a table is a list of objects.")
    return pl.read_json(data, infer_schema_length=None) if records else pl.DataFrame()
