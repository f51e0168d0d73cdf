"""Frames into files: what each ending of an output means, said once, and files that appear whole or not at all."""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from typing import IO, Final, TypeVar

import polars as pl

from imgmatch_df.cli.formats import byte_columns
from imgmatch_df.cli.interrupts import half_written
from imgmatch_df.cli.renaming import PLAIN, Naming
from imgmatch_df.columns import REMOVED_RECORDS
from imgmatch_df.documented.values import Json, to_json
from imgmatch_df.errors import ArgumentError, ImgMatchError
from imgmatch_df.frames.expressions import to_bits
from imgmatch_df.hashes.kinds import KINDS, documented_kind
from imgmatch_df.store.locks import NO_ROOM, copy_access, open_new, real_path
from imgmatch_df.store.open import DUCKDB_SUFFIX, is_store

T = TypeVar("T")

TARGET_SUFFIXES: Final = (".parquet", ".csv", ".ndjson", ".jsonl", ".json")

# A row group is held in memory while it is written. Rows with pictures are kept to some tens of megabytes; without
# them a row is some hundred bytes, and long row groups compress better.
_ROW_GROUP_OF_PICTURES: Final = 256
_ROW_GROUP: Final = 65_536
# How soon Ctrl-C is noticed where the system cannot interrupt a lock (Windows).
_POLL_S: Final = 0.2


def check_target(path: Path | None, *, stores: bool = False) -> None:
    """Refuse a target that could not be written, before hours are spent on what goes into it.

    Parameters
    ----------
    path
        None for the screen or a pipe.
    stores
        Whether it may be a store of hashes.

    Raises
    ------
    ArgumentError
        If the ending is unknown, the folder absent, the target a folder, or a store that is not to be continued.
    """
    if path is None:
        return
    try:
        path.exists()
    except OSError as error:  # too long a name, or a folder that may not be read
        raise ArgumentError(
            f"cannot write {str(path)!r:.300}: {error.strerror}\nHint: choose another name or folder for the output."
        ) from error
    if stores and is_store(path):
        return
    if path.is_file() and is_store(path):
        raise ArgumentError(
            f"{str(path)!r} is a store of hashes, which this command would replace\nHint: choose another name for the "
            "output."
        )
    if path.suffix.lower() not in TARGET_SUFFIXES:
        known = (*((DUCKDB_SUFFIX,) if stores else ()), *TARGET_SUFFIXES)
        raise ArgumentError(
            f"unknown output ending {path.suffix!r} of {path.name!r}, known are {', '.join(known)}\n"
            f"Hint: {'.duckdb is continued by the next run' if stores else '.parquet keeps everything'}."
        )
    folder = _final(path).parent
    if not folder.is_dir():
        raise ArgumentError(f"no such folder: {str(folder)!r}\nHint: make it first.")
    if path.is_dir():
        raise ArgumentError(f"{str(path)!r} is a folder\nHint: name a file in it.")


@contextmanager
def written_whole(path: Path | None, otherwise: IO[bytes]) -> Iterator[Path | IO[bytes]]:
    """Give a temporary path beside `path` that takes its place when the block ends well, and is removed if not.

    A run that fails or is interrupted leaves what was there before. A file that is replaced keeps its owner and its
    permissions, and a link stays a link. Where there is no `path`, it is `otherwise`.

    Raises
    ------
    ArgumentError
        If the folder cannot be written.
    ImgMatchError
        If there is no room.
    """
    if path is None:
        with _room_explained("the output"):
            yield otherwise
        return
    final = _final(path)
    temporary = final.with_name(f".imgmatch-{token_hex(4)}.partial")
    with half_written(temporary):
        try:
            # Now, so that a folder without permission is known before anything is hashed.
            open_new(temporary, like=final).close()
        except OSError as error:
            raise ArgumentError(
                f"cannot write into {str(final.parent)!r}: {error.strerror}\n"
                "Hint: choose another folder for the output."
            ) from error
        try:
            with _room_explained(repr(str(path))):
                yield temporary
                if final.exists():
                    copy_access(final, temporary)
                temporary.replace(final)
        finally:
            temporary.unlink(missing_ok=True)


def _final(path: Path) -> Path:
    try:
        return real_path(path)
    except OSError as error:
        raise ArgumentError(f"{str(path)!r} is a link that leads to itself\nHint: remove the link.") from error


@contextmanager
def _room_explained(shown: str) -> Iterator[None]:
    """Name what there is no room for, where the system or Polars says that a disk is full."""
    try:
        yield
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else ""
        if not any(words in reason for words in NO_ROOM):
            raise
        raise ImgMatchError(
            f"there is no room for {shown}: {reason}\nHint: make room, or choose another place, and run it again."
        ) from error


def write_table(frame: pl.LazyFrame, target: Path | IO[bytes], suffix: str, naming: Naming = PLAIN) -> None:
    """Write a frame as the table that `suffix` names, its rows streaming through.

    Parameters
    ----------
    frame
        Not yet computed; of columns that the format holds.
    target
        Where to; its own name does not matter.
    suffix
        ``".parquet"``; ``".csv"``, ``".ndjson"`` and ``".jsonl"`` have hashes as the documented strings of 0 and 1.
    naming
        How its columns are called in the output.
    """
    if suffix == ".parquet":
        n_rows = _ROW_GROUP_OF_PICTURES if byte_columns(frame.collect_schema()) else _ROW_GROUP
        interruptible(lambda: naming.restore(frame).sink_parquet(target, row_group_size=n_rows))
        return
    text = naming.restore(_hashes_as_text(frame))
    if suffix == ".csv":
        interruptible(lambda: text.sink_csv(target))
    else:
        interruptible(lambda: text.sink_ndjson(target))


def check_kinds(hash_types: Iterable[str], form: str) -> None:
    """Refuse, before anything is hashed, to write kinds as JSON that the image-matching API does not have."""
    if form == ".json":
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


def _hashes_as_text(frame: pl.LazyFrame) -> pl.LazyFrame:
    schema = frame.collect_schema()
    texts = [to_bits(name) for name, kind in KINDS.items() if schema.get(name) == kind.dtype]
    removed = schema.get(REMOVED_RECORDS)
    if isinstance(removed, pl.List) and isinstance(removed.inner, pl.Struct):
        fields = removed.inner.to_schema()
        nested = [to_bits(pl.field(name)) for name, kind in KINDS.items() if fields.get(name) == kind.dtype]
        texts.append(pl.col(REMOVED_RECORDS).list.eval(pl.element().struct.with_fields(nested)))
    return frame.with_columns(texts)
