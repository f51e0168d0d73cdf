"""Outputs of the commands: the formats that this package writes, and files that appear complete or not at all."""

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO, Any, Final, Literal, TypeAlias, TypeVar

import polars as pl

from imgmatch_df.atomic import NO_ROOM, real_path, written_file
from imgmatch_df.cli import runs
from imgmatch_df.cli.exit_codes import say
from imgmatch_df.cli.formats import OUTPUT_FORMATS, Format, byte_columns, register_format
from imgmatch_df.cli.input_formats import COMPRESSIONS, longest_suffix, suffixes_shown
from imgmatch_df.cli.interrupts import half_written
from imgmatch_df.cli.renaming import UNCHANGED, Naming
from imgmatch_df.columns import REMOVED_RECORDS
from imgmatch_df.documented.values import Json, to_json
from imgmatch_df.errors import ArgumentError, ImgMatchError
from imgmatch_df.frames.hash_text import to_bits, to_hex
from imgmatch_df.frames.hugging_face import Features, sink_features
from imgmatch_df.hashes.kinds import KINDS, HashKind, documented_kind
from imgmatch_df.store.base import is_store, store_suffixes
from imgmatch_df.store.locks import lock_path, sole_writer

T = TypeVar("T")
Compression: TypeAlias = Literal["uncompressed", "gzip", "zstd"]

# A row group is held in memory while it is written. Rows with images are kept to some tens of megabytes; without
# them a row is some hundred bytes, and long row groups compress better.
_IMAGES_PER_ROW_GROUP: Final = 256
_ROWS_PER_ROW_GROUP: Final = 65_536
# How soon Ctrl-C is noticed where the system cannot interrupt a lock (Windows).
_POLL_S: Final = 0.2
_PAGES: Final = (".html", ".htm")


def _write_parquet(frame: pl.LazyFrame, target: Path | IO[bytes], has_images: bool) -> None:
    frame.sink_parquet(target, row_group_size=_row_group_size(has_images))


def _row_group_size(has_images: bool) -> int:
    return _IMAGES_PER_ROW_GROUP if has_images else _ROWS_PER_ROW_GROUP


def _write_csv(
    frame: pl.LazyFrame,
    target: Path | IO[bytes],
    _has_images: bool,
    *,
    separator: str = ",",
    compression: Compression = "uncompressed",
) -> None:
    frame.sink_csv(target, separator=separator, compression=compression, check_extension=False)


def _write_ndjson(
    frame: pl.LazyFrame, target: Path | IO[bytes], _has_images: bool, *, compression: Compression = "uncompressed"
) -> None:
    frame.sink_ndjson(target, compression=compression, check_extension=False)


def _write_arrow(frame: pl.LazyFrame, target: Path | IO[bytes], has_images: bool) -> None:
    # Readers of other programs do not know the newest dtypes of Arrow, such as views of strings.
    oldest = pl.CompatLevel.oldest()
    frame.sink_ipc(target, compat_level=oldest, record_batch_size=_row_group_size(has_images))


PARQUET: Final = Format(".parquet", _write_parquet, holds_bytes=True)
CSV: Final = Format(".csv", _write_csv, nests=False)
TSV: Final = Format(".tsv", partial(_write_csv, separator="\t"), nests=False)
NDJSON: Final = Format(".ndjson", _write_ndjson, holds_nan=False)
ARROW: Final = Format(".arrow", _write_arrow, holds_bytes=True)
DOCUMENTED: Final = Format(".json", None)
_TEXTS: Final = (CSV, TSV, NDJSON, replace(NDJSON, suffix=".jsonl"))
for _output in (PARQUET, *_TEXTS):
    register_format(_output)
for _suffix in (".arrow", ".ipc", ".feather"):
    register_format(replace(ARROW, suffix=_suffix))
register_format(DOCUMENTED)
for _end, _compression in COMPRESSIONS.items():
    for _output in _TEXTS:
        _write: Any = _output.write  # of text formats, which has a parameter `compression`
        _compressed = partial(_write, compression=_compression)
        register_format(replace(_output, suffix=f"{_output.suffix}{_end}", write=_compressed))


def suffixes_text(*, tables_only: bool = False) -> str:
    """Return the suffixes of the output formats as a list in prose, without those of compressed text."""
    names = [one.suffix for one in OUTPUT_FORMATS.values() if one.is_table or not tables_only]
    names = suffixes_shown(names)
    return f"{', '.join(names[:-1])} or {names[-1]}"


def check_target(target: str | None, *, stores: bool = False) -> Format | None:
    """Return the output format of a target; refuse one that could not be written, before hours are spent on hashing.

    Parameters
    ----------
    target
        Path of a file; None for the screen or a pipe.
    stores
        Whether it may be a store of hashes.

    Returns
    -------
    Format or None
        None without a target, and for a store.

    Raises
    ------
    ArgumentError
        If the suffix is unknown, the folder does not exist, or the target is a folder or a store that must not be
        replaced.
    """
    if target is None or (stores and is_store(target)):
        return None
    path = Path(target)
    _check_name(path)
    output = OUTPUT_FORMATS.get(longest_suffix(path.name, OUTPUT_FORMATS) or "")
    if output is None:
        known = suffixes_shown((*(store_suffixes() if stores else ()), *OUTPUT_FORMATS))
        raise ArgumentError(
            f"unknown output ending {path.suffix!r} of {path.name!r}, known are {', '.join(known)}\n"
            f"Hint: {'.duckdb is continued by the next run' if stores else '.parquet keeps everything'}."
        )
    _check_place(path)
    return output


def check_page(target: str) -> None:
    """Refuse a target that could not be written as HTML, before hours are spent on hashing.

    Raises
    ------
    ArgumentError
        As `check_target`.
    """
    path = Path(target)
    _check_name(path)
    if path.suffix.lower() not in _PAGES:
        raise ArgumentError(
            f"unknown output ending {path.suffix!r} of {path.name!r}, known are {', '.join(_PAGES)}\n"
            "Hint: -o report.html."
        )
    _check_place(path)
    if path.is_file():
        say(f"{target} exists: it is replaced if this run succeeds")


def _check_name(path: Path) -> None:
    try:
        path.exists()
    except OSError as error:  # the name is too long, or the folder may not be read
        raise ArgumentError(
            f"cannot write {str(path)!r:.300}: {error.strerror}\nHint: choose another name or folder for the output."
        ) from error
    if path.is_file() and is_store(path):
        raise ArgumentError(
            f"{str(path)!r} is a store of hashes, which this command would replace\nHint: choose another name for the "
            "output."
        )


def _check_place(path: Path) -> None:
    folder = _final(path).parent
    if not folder.is_dir():
        raise ArgumentError(f"no such folder: {str(folder)!r}\nHint: make it first.")
    if path.is_dir():
        raise ArgumentError(f"{str(path)!r} is a folder\nHint: name a file in it.")


def open_target(target: str | None, *, stores: bool = False) -> Format | None:
    """Return the format of the output: that of `target`, CSV for a pipe, None for the screen and for a store.

    Parameters and errors as of `check_target`. Prints whether a file is replaced.
    """
    form = check_target(target, stores=stores)
    if target is None:
        if sys.stdout.isatty():
            return None
        if runs.current().summary == runs.STDOUT:
            raise ArgumentError(
                "the result and --summary-json - are both for standard output\nHint: -o writes the result to a file."
            )
        return CSV
    if form is not None and Path(target).is_file():
        say(f"{target} exists: it is replaced if this run succeeds")
    return form


@contextmanager
def written_whole(target: str | None, otherwise: IO[bytes]) -> Iterator[Path | IO[bytes]]:
    """Yield the path of a temporary file that replaces `target` when the block ends without an error.

    A run that fails or is interrupted leaves the old file. A file that is replaced keeps its owner and permissions, and
    a symbolic link stays a link. A temporary file that a killed run left is removed. Without `target`, `otherwise` is
    yielded.

    Raises
    ------
    ArgumentError
        If the folder cannot be written.
    StoreError
        If another process writes the same file.
    ImgMatchError
        If there is no room.
    """
    if target is None:
        with _room_explained("the output"):
            yield otherwise
        return
    final = _final(Path(target))
    temporary = final.with_name(f".{final.name}.partial")
    with ExitStack() as stack:
        stack.enter_context(sole_writer(final))
        stack.enter_context(half_written(temporary, lock_path(final)))
        stack.enter_context(_room_explained(repr(target)))
        try:
            # Now, so that missing permissions are noticed before anything is hashed.
            stack.enter_context(written_file(final, temporary, like=final))
        except OSError as error:
            raise ArgumentError(
                f"cannot write into {str(final.parent)!r}: {error.strerror}\n"
                "Hint: choose another folder for the output."
            ) from error
        yield temporary
    runs.current().add_output(str(target))


def _final(path: Path) -> Path:
    try:
        return real_path(path)
    except OSError as error:
        raise ArgumentError(f"{str(path)!r} is a link that leads to itself\nHint: remove the link.") from error


@contextmanager
def _room_explained(shown: str) -> Iterator[None]:
    """Raise an `ImgMatchError` that names `shown` where the system or Polars reports a full disk."""
    try:
        yield
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else ""
        if not any(words in reason for words in NO_ROOM):
            raise
        raise ImgMatchError(
            f"there is no room for {shown}: {reason}\nHint: make room, or choose another place, and run it again."
        ) from error


def write_table(
    frame: pl.LazyFrame,
    target: Path | IO[bytes],
    output: Format,
    naming: Naming = UNCHANGED,
    features: Features | None = None,
) -> None:
    """Write a frame as a table, streaming its rows.

    Parameters
    ----------
    frame
        A query with columns that the format holds.
    target
        File to write; its own suffix has no meaning.
    output
        A format of tables.
    naming
        Names of the columns in the output.
    features
        Hugging Face features of the input, which a Parquet file keeps; None if there are none.
    """
    write = output.write
    if write is None:
        raise ArgumentError(f"{output.suffix} is not a table\nHint: choose {PARQUET.suffix}.")
    has_images = bool(byte_columns(frame.collect_schema()))
    named = naming.restore(frame if output.holds_bytes else _hashes_as_text(frame))
    if features is not None and output is PARQUET and isinstance(target, Path):
        if features.others:
            say(f"{features.others[0]} has other Hugging Face features than the first file, whose features are kept")
        n_rows = _row_group_size(has_images)
        interruptible(lambda: sink_features(named, target, features, row_group_size=n_rows))
        return
    interruptible(lambda: write(named, target, has_images))


def check_kinds(hash_types: Iterable[str], output: Format | None) -> None:
    """Refuse, before anything is hashed, to write kinds as JSON that the image-matching API does not have."""
    if output is DOCUMENTED:
        for name in hash_types:
            documented_kind(name)


def write_response(response: Json, target: Path | IO[bytes]) -> None:
    """Write a documented response as one JSON document."""
    text = f"{to_json(response)}\n".encode()
    if isinstance(target, Path):
        target.write_bytes(text)
    else:
        target.write(text)


def interruptible(work: Callable[[], T]) -> T:
    """Return the result of `work`, which runs in a thread, so that Ctrl-C reaches the caller while Polars is computing.

    Polars checks for signals only between batches. A caller that is interrupted must end the process, because the
    thread keeps running.
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


def as_text(hashes: pl.Expr, kind: HashKind) -> pl.Expr:
    """Return hashes as a text file has them: 0 and 1, hexadecimal digits where bits have no meaning of their own."""
    return to_bits(hashes) if kind.is_perceptual else to_hex(hashes)


def _hashes_as_text(frame: pl.LazyFrame) -> pl.LazyFrame:
    schema = frame.collect_schema()
    texts = [as_text(pl.col(name), kind) for name, kind in KINDS.items() if schema.get(name) == kind.dtype]
    removed = schema.get(REMOVED_RECORDS)
    if isinstance(removed, pl.List) and isinstance(removed.inner, pl.Struct):
        fields = removed.inner.to_schema()
        nested = [as_text(pl.field(name), kind) for name, kind in KINDS.items() if fields.get(name) == kind.dtype]
        texts.append(pl.col(REMOVED_RECORDS).list.eval(pl.element().struct.with_fields(nested)))
    return frame.with_columns(texts)
