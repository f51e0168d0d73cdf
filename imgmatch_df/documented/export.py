"""Export of stores and tables as the documented JSON, one record at a time."""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from os import PathLike
from pathlib import Path
from secrets import token_hex
from time import monotonic
from typing import IO, Final, NamedTuple
from uuid import uuid4

import polars as pl

from imgmatch_df.atomic import real_path, written_file
from imgmatch_df.columns import DETAIL, HEIGHT, SOURCE, STATUS, WIDTH
from imgmatch_df.documented.responses import iter_records
from imgmatch_df.documented.values import ID, RECORD, format_overall_status, to_json
from imgmatch_df.hashes.kinds import documented_kinds
from imgmatch_df.store.base import Target
from imgmatch_df.store.manifest import Manifest
from imgmatch_df.store.open import open_store

_ROWS: Final = 4096


class Exported(NamedTuple):
    """Number of written records, and number of those without a hash."""

    n_rows: int
    n_failed: int


def export_response(store: Target, target: str | PathLike[str] | IO[bytes]) -> Exported:
    """Write the rows of a store as the documented `visual_hash` response.

    Parameters
    ----------
    store
        Path of a store, see `write_hashes`.
    target
        Path of a file, which appears complete or not at all; or a binary stream.

    Returns
    -------
    Exported
        Numbers of records. The use of memory does not grow with them.

    Raises
    ------
    StoreError
        If there is no store, or it cannot be read.
    """
    if isinstance(target, str | PathLike):
        with _file(target) as file:
            return export_response(store, file)
    with open_store(store) as opened:
        about = opened.manifest
        kinds = tuple(name for name in about.hash_types if name in documented_kinds()) or about.hash_types
        names = (about.key, SOURCE, WIDTH, HEIGHT, *kinds, STATUS, DETAIL)
        columns = [name for name in about.columns if name in names]
        batches = (_with_record(batch, about) for batch in opened.read(columns))
        return _write(batches, target, kinds, SOURCE)


def export_table(
    frame: pl.LazyFrame, target: str | PathLike[str] | IO[bytes], hash_types: tuple[str, ...], source: str
) -> Exported:
    """Write a table that has hashes as the documented `visual_hash` response.

    Parameters
    ----------
    frame
        Columns as for `iter_records`.
    target
        Path of a file, which appears complete or not at all; or a binary stream.
    hash_types
        Names of the hash kinds to write.
    source
        Column of sources.

    Returns
    -------
    Exported
        Numbers of records. The use of memory does not grow with them.
    """
    if isinstance(target, str | PathLike):
        with _file(target) as file:
            return export_table(frame, file, hash_types, source)
    names = (RECORD, ID, source, WIDTH, HEIGHT, *hash_types, STATUS, DETAIL)
    columns = [name for name in frame.collect_schema() if name in names]
    batches = frame.select(columns).collect_batches(chunk_size=_ROWS, maintain_order=True)
    return _write(batches, target, hash_types, source)


def _file(target: str | PathLike[str]) -> AbstractContextManager[IO[bytes]]:
    path = real_path(Path(target))
    return written_file(path, path.with_name(f".{path.name}-{token_hex(4)}.partial"), like=path)


def _write(batches: Iterable[pl.DataFrame], target: IO[bytes], hash_types: tuple[str, ...], source: str) -> Exported:
    started, request_id, n_rows, n_failed = monotonic(), str(uuid4()), 0, 0
    target.write(b'{"records": [')
    for batch in batches:
        for record in iter_records(batch, "visual_hash", hash_types=hash_types, request_id=request_id, source=source):
            target.write(b", " if n_rows else b"")
            target.write(to_json(record).encode())
            n_rows += 1
            n_failed += "_status" in record
    rest = {
        "statistics": {"processing time": monotonic() - started},
        "status": format_overall_status(n_failed > 0),
    }
    target.write(b"], " + to_json(rest)[1:].encode() + b"\n")
    return Exported(n_rows, n_failed)


def _with_record(batch: pl.DataFrame, about: Manifest) -> pl.DataFrame:
    """Return a batch with the columns of the documented JSON; if the key is not the source, it becomes `_id`."""
    if about.key == SOURCE:
        return batch.with_columns(pl.col(SOURCE).cast(pl.String))
    named = batch.with_columns(pl.col(about.key).cast(pl.String).alias(ID))
    return named if SOURCE in batch.columns else named.with_columns(pl.lit("{}").alias(RECORD))
