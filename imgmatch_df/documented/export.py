"""Stored hashes as the documented JSON, one record at a time, however many there are."""

from collections.abc import Iterable
from pathlib import Path
from time import monotonic
from typing import IO, Final, NamedTuple
from uuid import uuid4

import polars as pl

from imgmatch_df.columns import DETAIL, HEIGHT, SOURCE, STATUS, WIDTH
from imgmatch_df.documented import records
from imgmatch_df.documented.values import format_overall_status, to_json
from imgmatch_df.store.base import Target
from imgmatch_df.store.manifest import Manifest
from imgmatch_df.store.open import open_store

_ROWS: Final = 4096


class Exported(NamedTuple):
    """How many records were written, and how many of them have no hash."""

    n_rows: int
    n_failed: int


def export_response(store: Target, target: Path | IO[bytes]) -> Exported:
    """Write what is stored as the documented `visual_hash` response.

    Parameters
    ----------
    store
        What `write_hashes` wrote.
    target
        Where to.

    Returns
    -------
    Exported
        Memory does not grow with it.

    Raises
    ------
    StoreError
        If there is no such store, or it cannot be read.
    """
    if isinstance(target, Path):
        with target.open("wb") as file:
            return export_response(store, file)
    with open_store(store) as opened:
        about = opened.manifest
        names = (about.key, SOURCE, WIDTH, HEIGHT, *about.hash_types, STATUS, DETAIL)
        columns = [name for name in about.columns if name in names]
        batches = (_with_record(batch, about) for batch in opened.read(columns))
        return _write(batches, target, about.hash_types, SOURCE)


def export_table(frame: pl.LazyFrame, target: Path | IO[bytes], hash_types: tuple[str, ...], source: str) -> Exported:
    """Write a table that has hashes as the documented `visual_hash` response.

    Parameters
    ----------
    frame
        Columns as for `records.iter_records`.
    target
        Where to.
    hash_types
        The kinds to write.
    source
        The column of sources.

    Returns
    -------
    Exported
        Memory does not grow with it.
    """
    if isinstance(target, Path):
        with target.open("wb") as file:
            return export_table(frame, file, hash_types, source)
    names = (records.RECORD, records.ID, source, WIDTH, HEIGHT, *hash_types, STATUS, DETAIL)
    columns = [name for name in frame.collect_schema() if name in names]
    batches = frame.select(columns).collect_batches(chunk_size=_ROWS, maintain_order=True)
    return _write(batches, target, hash_types, source)


def _write(batches: Iterable[pl.DataFrame], target: IO[bytes], hash_types: tuple[str, ...], source: str) -> Exported:
    started, request_id, n_rows, n_failed = monotonic(), str(uuid4()), 0, 0
    target.write(b'{"records": [')
    for batch in batches:
        for record in records.iter_records(
            batch, "visual_hash", hash_types=hash_types, request_id=request_id, source=source
        ):
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
    """Return a batch with what names each record: its address, or where the key is another one, that for `_id`."""
    if about.key == SOURCE:
        return batch.with_columns(pl.col(SOURCE).cast(pl.String))
    named = batch.with_columns(pl.col(about.key).cast(pl.String).alias(records.ID))
    return named if SOURCE in batch.columns else named.with_columns(pl.lit("{}").alias(records.RECORD))
