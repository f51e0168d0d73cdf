"""Files into lazy frames of sources, and hashed lazy frames into files: what each ending means, said once."""

import glob
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from secrets import token_hex
from time import monotonic
from typing import IO, Final, TypeVar

import polars as pl
from polars.datatypes import DataTypeClass
from polars.io.plugins import register_io_source

from imgmatch_df import records
from imgmatch_df.documented import to_json
from imgmatch_df.errors import ArgumentError, ColumnError
from imgmatch_df.pipeline import to_bits
from imgmatch_df.scan import PICTURE_SUFFIXES, scan_images
from imgmatch_df.schema import DETAIL, HASH_KINDS, PATH, STATUS

T = TypeVar("T")

TABLE_SUFFIXES: Final = (".parquet", ".csv", ".ndjson", ".jsonl", ".json")

# Names that hold images in tables as people write them, the surest first.
_SOURCE_NAMES: Final = (
    *(records.SOURCE, PATH, "file", "image", "_url", "file_name", "filename", "file_path", "filepath"),
    *("image_path", "image_url", "img", "photo", "picture", "source", "src", "uri"),
)
_NOT_SOURCES: Final = (*HASH_KINDS, STATUS, DETAIL, records.ID, records.RECORD)
_PICTURE_FIELD: Final = "bytes"  # of Struct{bytes, path}, as Hugging Face writes images

# A row group is held in memory while it is written. Rows with pictures are kept to some tens of megabytes; without
# them a row is some hundred bytes, and long row groups compress better.
_ROW_GROUP_OF_PICTURES: Final = 256
_ROW_GROUP: Final = 65_536
# Rows hashed at a time. Polars ends a run only between batches: this many bound the wait after an error or a closed
# pipe to about a second, and cost nothing (the pool of threads is fed by several batches at once).
BATCH_ROWS: Final = 256
# How soon Ctrl-C is noticed where the system cannot interrupt a lock (Windows).
_POLL_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class SourceTable:
    """Sources read from files.

    Parameters
    ----------
    frame
        One row per source, with every column of the input.
    source
        Name of the column of sources.
    made
        Columns of `frame` that the input does not have, to be dropped before it is written.
    hash_types
        The hash kinds that a documented request asks for, else None.
    """

    frame: pl.LazyFrame
    source: str
    made: tuple[str, ...] = ()
    hash_types: tuple[str, ...] | None = None


def open_sources(sources: Sequence[str], source: str | None = None, *, base_dir: str | None = None) -> SourceTable:
    """Return the sources that files, folders or globs hold, as a lazy frame.

    Pictures are listed at once, so that nothing matching is known before anything is hashed; tables are read lazily.

    Parameters
    ----------
    sources
        Folders, pictures and globs of them; or tables of one kind (``.parquet``, ``.csv``, ``.ndjson``, ``.jsonl``,
        ``.json`` for documented requests), globs of them, or a folder with Parquet files and no pictures.
    source
        Name of the column of sources in a table; found by its name or dtype where None.
    base_dir
        Only to refuse it where there is no table that it could apply to.

    Raises
    ------
    ArgumentError
        If nothing matches, an ending is unknown, kinds are mixed, or an option does not apply.
    ColumnError
        If there is no such column, or none that is surely the one of sources.

    Notes
    -----
    Columns of a CSV stay text, so that ``007`` comes out as it went in and no late row fails for its type.
    """
    found = [_expand(given) for given in sources]
    kinds = sorted({kind for kind, _ in found})
    if len(kinds) > 1:
        raise ArgumentError(
            f"sources must be of one kind, got {', '.join(kinds)}\nHint: run one command for each kind."
        )
    paths = [path for _, part in found for path in part]
    if kinds == ["pictures"]:
        for option, value in (("--source", source), ("--base-dir", base_dir)):
            if value is not None:
                raise ArgumentError(f"{option} is for tables, the sources are pictures\nHint: leave {option} out.")
        return SourceTable(_list_pictures(paths), PATH)
    return _open_tables(kinds[0], paths, source)


def check_target(path: Path) -> None:
    """Refuse a target that could not be written, before hours are spent on what goes into it.

    Raises
    ------
    ArgumentError
        If the ending is unknown, the folder absent, or the target a folder.
    """
    if path.suffix.lower() not in TABLE_SUFFIXES:
        raise _unknown_ending(path, "output")
    if not path.parent.is_dir():
        raise ArgumentError(f"no such folder: {str(path.parent)!r}\nHint: make it first.")
    if path.is_dir():
        raise ArgumentError(f"{str(path)!r} is a folder\nHint: name a file in it.")


def write_hashes(frame: pl.LazyFrame, path: Path, *, source: str, hash_types: Sequence[str]) -> list[str]:
    """Write a hashed frame to a file, in the form that the ending names, and return the columns left out.

    The rows stream through, except into ``.json``, which is one document. The file appears whole at the end; a run
    that fails or is interrupted leaves what was there before.

    Parameters
    ----------
    frame
        Hashed rows, not yet computed.
    path
        ``.parquet`` keeps every column; ``.csv`` and ``.ndjson`` have hashes as the documented strings of 0 and 1 and
        leave out what they cannot hold; ``.json`` is the documented response.
    source
        Name of the column of sources.
    hash_types
        Names of the hash kinds in `frame`.
    """
    with _written_whole(path) as temporary:
        match path.suffix.lower():
            case ".parquet":
                _write_parquet(frame, temporary)
            case ".csv":
                return write_csv(frame, temporary)
            case ".json":
                _write_response(frame, temporary, source, hash_types)
            case _:
                fitting, left_out = _fit(frame, holds_nested=True)
                interruptible(lambda: fitting.sink_ndjson(temporary))
                return left_out
    return []


def write_csv(frame: pl.LazyFrame, target: Path | IO[bytes]) -> list[str]:
    """Write a hashed frame as CSV, hashes as strings of 0 and 1, and return the columns left out."""
    fitting, left_out = _fit(frame, holds_nested=False)
    interruptible(lambda: fitting.sink_csv(target))
    return left_out


def interruptible(work: Callable[[], T]) -> T:
    """Return the result of `work`, done in a thread, so that Ctrl-C reaches the caller while Polars is computing.

    Polars waits for the running batch before it looks at signals. Who interrupts the call must end the process, since
    the thread goes on.
    """
    result: Future[T] = Future()

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as error:  # noqa: BLE001  # raised again in the caller's thread
            result.set_exception(error)

    threading.Thread(target=run, daemon=True, name="imgmatch-work").start()
    while not wait([result], timeout=_POLL_S).done:
        pass
    return result.result()


def _expand(given: str) -> tuple[str, list[str]]:
    """Return the kind of what the user gave, ``"pictures"`` or a table's ending, and the paths that it stands for."""
    path = Path(given)
    suffix = path.suffix.lower()
    if path.is_dir():
        parts = _sorted_glob(os.path.join(glob.escape(given), "**", "*.parquet"))  # noqa: PTH118  # glob takes a str
        if parts and _list_pictures([given], allow_none=True).select(pl.len()).collect().item() == 0:
            return ".parquet", parts
        return "pictures", [given]
    if suffix in TABLE_SUFFIXES:
        paths = [given] if path.is_file() else _sorted_glob(given)
        if not paths:
            raise _nothing_found(given)
        return suffix, paths
    if path.is_file() and suffix and suffix not in PICTURE_SUFFIXES:
        raise _unknown_ending(path, "input")
    return "pictures", [given]


def _sorted_glob(pattern: str) -> list[str]:
    return sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207  # Path.glob takes no absolute pattern


def _list_pictures(sources: Sequence[str], *, allow_none: bool = False) -> pl.LazyFrame:
    found = []
    # A shell makes thousands of files of one glob; they are listed together.
    for is_file, group in groupby(sources, key=lambda source: Path(source).is_file()):
        for part in [list(group)] if is_file else ([source] for source in group):
            found.append(scan_images(part).collect())
            if found[-1].is_empty() and not allow_none:
                raise _nothing_found(part[0])
    return pl.concat(found).lazy()


def _open_tables(suffix: str, paths: list[str], source: str | None) -> SourceTable:
    if suffix == ".json":
        return _open_requests(paths, source)
    if suffix == ".parquet":
        frame = pl.scan_parquet(paths, glob=False)
    elif suffix == ".csv":
        frame = _in_batches(pl.scan_csv(paths, glob=False, infer_schema=False))
    else:
        frame = _in_batches(pl.scan_ndjson(paths, infer_schema_length=None))
    schema = frame.collect_schema()
    name = _find_source(schema, source)
    if not _holds_pictures(schema[name]):
        return SourceTable(frame, name)
    made = f"{name}.{_PICTURE_FIELD}"
    return SourceTable(frame.with_columns(pl.col(name).struct.field(_PICTURE_FIELD).alias(made)), made, (made,))


def _in_batches(frame: pl.LazyFrame) -> pl.LazyFrame:
    """Return the same rows in batches of `BATCH_ROWS`: text is read in megabytes, which may be 100,000 paths."""

    def batches(
        with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, _batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        query = frame if n_rows is None else frame.head(n_rows)
        for part in query.collect_batches(chunk_size=BATCH_ROWS, maintain_order=True):
            for batch in part.iter_slices(BATCH_ROWS):
                found = batch if predicate is None else batch.filter(predicate)
                yield found if with_columns is None else found.select(with_columns)

    return register_io_source(batches, schema=frame.collect_schema(), is_pure=True)


def _open_requests(paths: list[str], source: str | None) -> SourceTable:
    if source is not None:
        raise ArgumentError("--source is for tables, a request names its images itself\nHint: leave --source out.")
    requests = [records.read_request(Path(path)) for path in paths]
    hash_types = tuple(dict.fromkeys(name for request in requests for name in request.hash_types))
    frame = pl.concat([request.frame for request in requests])
    return SourceTable(frame.lazy(), records.SOURCE, hash_types=hash_types)


def _find_source(schema: pl.Schema, source: str | None) -> str:
    if source is not None:
        if source not in schema:
            raise ColumnError(
                f"no column {source!r}, the table has {_shown(schema)}\nHint: --source names one of them."
            )
        return source
    usable = [
        name
        for name, dtype in schema.items()
        if name not in _NOT_SOURCES and (dtype in (pl.String, pl.Binary) or _holds_pictures(dtype))
    ]
    named = [name for name in _SOURCE_NAMES if name in usable]
    if named:
        return named[0]
    if len(usable) == 1:
        return usable[0]
    raise ColumnError(
        f"which column holds the images is not clear, the table has {_shown(schema)}\nHint: name it with --source."
    )


def _shown(schema: pl.Schema, n_columns: int = 20) -> str:
    shown = [f"{name} ({dtype})" for name, dtype in list(schema.items())[:n_columns]]
    return ", ".join(shown) + ", …" * (len(schema) > n_columns) if shown else "no columns"


def _holds_pictures(dtype: pl.DataType) -> bool:
    return isinstance(dtype, pl.Struct) and dtype.to_schema().get(_PICTURE_FIELD) == pl.Binary


def _write_parquet(frame: pl.LazyFrame, path: Path) -> None:
    with_pictures = any(
        name not in HASH_KINDS and _holds_binary(dtype) for name, dtype in frame.collect_schema().items()
    )
    rows = _ROW_GROUP_OF_PICTURES if with_pictures else _ROW_GROUP
    interruptible(lambda: frame.sink_parquet(path, row_group_size=rows))


def _write_response(frame: pl.LazyFrame, path: Path, source: str, hash_types: Sequence[str]) -> None:
    started = monotonic()
    hashed = interruptible(lambda: frame.collect(engine="streaming"))
    response = records.visual_hash_response(hashed, seconds=monotonic() - started, hash_types=hash_types, source=source)
    path.write_text(to_json(response) + "\n", encoding="utf-8")


def _fit(frame: pl.LazyFrame, *, holds_nested: bool) -> tuple[pl.LazyFrame, list[str]]:
    """Return `frame` as a text format holds it, and the columns that it cannot."""
    schema = frame.collect_schema()
    hashes = [name for name, kind in HASH_KINDS.items() if schema.get(name) == kind.dtype]
    left_out = [
        name
        for name, dtype in schema.items()
        if name not in hashes and (_holds_binary(dtype) or (dtype.is_nested() and not holds_nested))
    ]
    return frame.drop(left_out).with_columns([to_bits(name) for name in hashes]), left_out


def _holds_binary(dtype: pl.DataType | DataTypeClass) -> bool:
    if isinstance(dtype, pl.Struct):
        return any(_holds_binary(field.dtype) for field in dtype.fields)
    if isinstance(dtype, pl.List | pl.Array):
        return _holds_binary(dtype.inner)
    return dtype in (pl.Binary, pl.Object)


@contextmanager
def _written_whole(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` that takes its place when the block ends well, and is removed if not."""
    final = Path(os.path.realpath(path))  # a link stays a link
    temporary = final.with_name(f".imgmatch-{token_hex(4)}.partial")
    try:
        temporary.open("xb").close()  # now, so that a folder without permission is known before anything is hashed
    except OSError as error:
        raise ArgumentError(
            f"cannot write into {str(final.parent)!r}: {error.strerror}\nHint: choose another folder for the output."
        ) from error
    try:
        yield temporary
        temporary.replace(final)
    finally:
        temporary.unlink(missing_ok=True)


def _nothing_found(source: str) -> ArgumentError:
    if Path(source).is_dir():
        return ArgumentError(
            f"no pictures in {source!r}\n"
            f"Hint: known endings are {' '.join(PICTURE_SUFFIXES)}; a glob takes files of any ending."
        )
    return ArgumentError(f"nothing matches {source!r}\nHint: the working directory is {str(Path.cwd())!r}.")


def _unknown_ending(path: Path, what: str) -> ArgumentError:
    known = ", ".join(TABLE_SUFFIXES) + (", folders, globs and pictures" if what == "input" else "")
    return ArgumentError(
        f"unknown {what} ending {path.suffix!r} of {path.name!r}, known are {known}\n"
        + ("Hint: a glob takes pictures of any ending." if what == "input" else "Hint: .parquet keeps everything.")
    )
