"""Frames into stores: new and changed rows are hashed and stored in batches, and nothing is hashed twice."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, fields
from typing import Final, Literal, NamedTuple, Unpack

import polars as pl

from imgmatch_df.batch import run as batches
from imgmatch_df.columns import (
    ETAG,
    MODIFIED,
    OK,
    SIZE,
    SOURCE,
    STATUS,
)
from imgmatch_df.errors import ArgumentError, ColumnError, StoreError
from imgmatch_df.frames.checks import Frame
from imgmatch_df.frames.chunks import CHUNK_ROWS_OF_HASHES, chunks_of
from imgmatch_df.frames.expressions import HashTypes
from imgmatch_df.frames.interchange import as_stream
from imgmatch_df.frames.layout import free_name
from imgmatch_df.frames.seen import SeenKeys
from imgmatch_df.frames.source_columns import SourceColumn, checked_source
from imgmatch_df.frames.stored_columns import (
    IMAGE,
    find_key_column,
    given_columns,
    key_dtype,
    kinds_to_store,
    measures_to_store,
)
from imgmatch_df.image_columns import image_sources
from imgmatch_df.images.fingerprints import fingerprint, has_changed
from imgmatch_df.incomplete import n_unlisted
from imgmatch_df.options import Options, Recipe, SourceOptions, check_flag, check_name, make_options
from imgmatch_df.progress import METER
from imgmatch_df.sources import url_of
from imgmatch_df.store.base import HashStore, Target
from imgmatch_df.store.manifest import Manifest
from imgmatch_df.store.open import make_store, manifest_of, open_store

# Whether to drop stored rows whose key is not in the frame: no, if it is at most half of them, or however many.
Prune = Literal[False, True, "all"]

# Rows hashed and committed at a time: a second or two of work, which is what a killed run loses.
_BATCH_ROWS: Final = 1 << 11
_BATCH_ROWS_OF_URLS: Final = 1 << 13  # a batch ends with the response of its slowest server

_THEN: Final = "__imgmatch_then_"
_NOW: Final = "__imgmatch_now_"
_STATE: Final = "__imgmatch_state"


@dataclass(frozen=True, slots=True)
class WriteSummary:
    """Row counts of one `write_hashes` call.

    Parameters
    ----------
    n_new
        Rows whose key was not stored.
    n_changed
        Rows whose key was stored, of another image.
    n_retried
        Rows that had failed, tried again.
    n_skipped
        Rows that are stored, and have not changed.
    n_duplicates
        Rows whose key came before in the frame.
    n_pruned
        Stored rows that were dropped, because their key is not in the frame.
    n_failed
        Rows of the frame that have no hash now: of the new, changed, retried and skipped ones.
    n_failed_before
        Those of the skipped ones, which failed in an earlier call.
    status
        Number of rows of the frame by the status of their hash, without duplicates; ``"no_hash"`` for given rows
        without one.
    """

    n_new: int = 0
    n_changed: int = 0
    n_retried: int = 0
    n_skipped: int = 0
    n_duplicates: int = 0
    n_pruned: int = 0
    n_failed: int = 0
    n_failed_before: int = 0
    status: Mapping[str, int] = field(default_factory=Counter, compare=False, repr=False)

    @property
    def n_rows(self) -> int:
        """Rows of the frame, without duplicates."""
        return self.n_new + self.n_changed + self.n_retried + self.n_skipped

    def to_dict(self) -> dict[str, int | dict[str, int]]:
        """Return the counts as a dict that JSON can hold."""
        counts = {part.name: getattr(self, part.name) for part in fields(self) if part.name != "status"}
        return {"n_rows": self.n_rows, **counts, "status": dict(sorted(self.status.items()))}

    def __add__(self, other: "WriteSummary") -> "WriteSummary":
        return WriteSummary(*(getattr(self, part.name) + getattr(other, part.name) for part in fields(self)))


def write_hashes(
    frame: Frame,
    target: Target,
    *,
    source: SourceColumn | None = None,
    key: str | None = None,
    hash_types: HashTypes | None = None,
    retry_failed: bool = False,
    prune: Prune = False,
    **options: Unpack[SourceOptions],
) -> WriteSummary:
    """Store the hashes of a frame; of a column of images, hash what is new or changed.

    Call it again, with the same frame or a longer one, and it does what is left: rows that are stored and have not
    changed are neither read nor hashed. What is hashed is stored every second or two; in Parquet, and in DuckDB where
    the frame has the hashes of many new rows, every five seconds or more. So a run that is killed loses that much, and
    goes on there when it is called again.

    Parameters
    ----------
    frame
        Has a column `source`, or hash columns. A `LazyFrame` is streamed.
    target
        The store: ``.duckdb`` for a DuckDB file, ``.parquet`` for a Parquet file, or a folder for Parquet files. It is
        made where there is none.
    source
        Column of images to hash, as for `visual_hash`; None where the frame has the hashes. The path of a struct names
        its image in the store.
    key
        Column whose values identify rows, text or whole numbers, and its name in the store. None takes that of the
        store; in a new one it is ``source``, which holds `source`, or else the column ``source``, ``path`` or ``url``.
    hash_types
        Names of hash kinds; None takes those of the store, in a new one those of the frame, else bmh1, phash
        and sha256. Columns of the kinds that are named here may have the forms of `near_duplicates`: text or lists.
    retry_failed
        Whether to hash rows again that failed before.
    prune
        Whether to drop stored rows whose key is not in the frame. True refuses to drop more than half of them, or any
        by a frame without rows or by a listing that left out folders: such a frame is seldom whole. ``"all"`` drops
        them all the same.
    **options
        See `Options`; with hashes in the frame, only ``decode``, ``alpha``, ``trim`` and ``pdq_variant``, to say how
        they were made.

    Returns
    -------
    WriteSummary
        How many rows are new, changed, skipped …

    Raises
    ------
    ArgumentError, ColumnError
        If an argument is not allowed, a column absent or of a dtype that is not allowed, or a key null.
    StoreError
        If the store cannot be used, is in use, or holds hashes that were made in another way: then nothing is changed.
        If ``prune=True`` refuses: nothing is dropped, and of a `DataFrame` nothing is stored.
    RowError
        With ``on_error="raise"``, for the first row that fails; what came before it is stored.

    Notes
    -----
    A file has changed when its size or time of modification is another one; a image in the frame when its bytes are.
    Where the frame has the columns ``size`` and ``modified`` of `scan_images`, those count. A URL counts as unchanged:
    no request is made for what is stored. A deleted file keeps its hashes. Of rows with one key, the first counts.

    Examples
    --------
    >>> import imgmatch_df, polars as pl
    >>> photos = imgmatch_df.scan_images("photos")
    >>> imgmatch_df.write_hashes(photos, "hashes.duckdb", source="path").n_new
    0
    """
    frame = as_stream(frame)  # type: ignore[assignment]  # what is no frame is refused
    call = _WriteCall.make(frame, target, source, key, hash_types, make_options(**options))
    check_flag("retry_failed", retry_failed, "True hashes again what failed.")
    if not (isinstance(prune, str) and prune == "all"):
        check_flag("prune", prune, "True drops what is not in the frame, 'all' also more than half of what is stored.")
    if source is None and (idle := [name for name in options if name not in (*Recipe._fields, "progress")]):
        raise ArgumentError(f"{', '.join(idle)} has no effect without source=\nHint: name the column of images.")
    make_store(target, call.manifest)
    with open_store(target, write=True) as store:
        store.manifest.check_same(call.manifest, repr(str(target)))
        run = _WriteRun(call, store, repr(str(target)), retry_failed=retry_failed, prune=prune)
        for chunk in chunks_of(call.frame, hashes=not call.hashes):
            run.add(chunk)
        return run.finish()


def sink_hashes(
    frame: pl.LazyFrame,
    target: Target,
    *,
    source: SourceColumn | None = None,
    key: str | None = None,
    hash_types: HashTypes | None = None,
    retry_failed: bool = False,
    prune: Prune = False,
    **options: Unpack[SourceOptions],
) -> WriteSummary:
    """Run a query and store its hashes as they come, never all of them in memory.

    Parameters
    ----------
    frame, target, source, key, hash_types, retry_failed, prune, **options
        As `write_hashes`. With `source`, nothing is hashed twice; a query that hashes by itself has done so before its
        rows are looked up in the store.

    Returns
    -------
    WriteSummary
        As `write_hashes`.

    Raises
    ------
    ArgumentError, ColumnError, StoreError, RowError
        As `write_hashes`.

    Examples
    --------
    >>> import imgmatch_df, polars as pl
    >>> photos = imgmatch_df.scan_images("photos")
    >>> imgmatch_df.sink_hashes(photos, "hashes.duckdb", source="path").n_skipped
    0
    """
    return write_hashes(
        frame,
        target,
        source=source,
        key=key,
        hash_types=hash_types,
        retry_failed=retry_failed,
        prune=prune,
        **options,
    )


class _WriteCall(NamedTuple):
    """A call of `write_hashes`, checked: the frame with the columns of the store, and with the images to hash."""

    frame: Frame
    manifest: Manifest
    options: Options
    hashes: bool  # whether there are images to hash

    @classmethod
    def make(
        cls,
        frame: Frame,
        target: Target,
        source: SourceColumn | None,
        key: str | None,
        hash_types: HashTypes | None,
        options: Options,
    ) -> "_WriteCall":
        if not isinstance(frame, pl.DataFrame | pl.LazyFrame):
            raise ArgumentError(
                f"frame must be a Polars DataFrame or LazyFrame, got {type(frame).__name__}\n"
                "Hint: pl.from_arrow and pl.scan_parquet make one."
            )
        if key is not None:
            check_name("key", key)
            if not key:
                raise ArgumentError("key must be the name of a column, got ''\nHint: rename the column of keys.")
        schema = frame.collect_schema()
        images = None if source is None else checked_source(frame, source)
        stored = manifest_of(target, write=True)
        name = key or (SOURCE if stored is None else stored.key)
        kinds = kinds_to_store(schema, images, hash_types, stored, name)
        measures = measures_to_store(schema, kinds, images, name)
        # What names the image is kept beside another key: to see it, and to see that it is another one.
        own_source = SOURCE if images is None and schema.get(SOURCE) == pl.String else None
        label = None
        if images is not None:
            label, text = images.name, images.text
            if text is not None:
                label = own_source = images.text_column or free_name(schema)
                frame = frame.with_columns(text.alias(label)) if label not in schema else frame
            named = {label: pl.String() if own_source and label not in schema else images.dtype}
            schema = pl.Schema({**schema, **named})
        key_column = find_key_column(schema, label, name, None if images is None else images.name)
        names_other = key == SOURCE and SOURCE in schema and images is not None and images.name != SOURCE
        if names_other or (name == SOURCE and own_source not in (None, key_column)):
            shown = own_source if images is None else images.name
            raise ArgumentError(
                f"key {name!r} is the name of the column of images in a store, and {shown!r} is that\n"
                "Hint: rename the column of keys."
            )
        manifest = Manifest.make(
            name,
            key_dtype(schema, key_column, stored),
            (*kinds, *measures),
            options.recipe,
            has_source=own_source not in (None, key_column),
        )
        if stored is not None:
            stored.check_same(manifest, repr(str(target)))
            manifest = stored
        # A number that does not fit becomes null, which no key may be.
        columns = [pl.col(key_column).cast(manifest.columns[name], strict=False).alias(name)]
        if SOURCE in manifest.columns and name != SOURCE:
            text = pl.lit(None) if own_source is None else pl.col(own_source)
            columns.append(text.cast(pl.String).alias(SOURCE))
        columns += given_columns(frame, schema, kinds, measures, images)
        return cls(frame.select(columns), manifest, options, images is not None)


class _WriteRun:
    """A run of `write_hashes`: what became of the rows so far."""

    def __init__(self, call: _WriteCall, store: HashStore, shown: str, *, retry_failed: bool, prune: Prune) -> None:
        self._shown = shown
        self._call, self._store, self._retry_failed, self._prune = call, store, retry_failed, prune
        self._key = store.manifest.key
        self._beyond = "" if store.manifest.columns[self._key] == pl.String else " or does not fit into 64 bits"
        self._n_before = store.count()
        self._n_unlisted = n_unlisted()
        if prune is True and isinstance(call.frame, pl.DataFrame):
            self._check_prune(call.frame[self._key].drop_nulls().unique(), "nothing was changed")
        self._seen = SeenKeys(store.manifest.columns[self._key])
        self._summary = WriteSummary()

    def add(self, chunk: pl.DataFrame) -> None:
        """Store what is new or changed in a chunk."""
        n_null = chunk[self._key].null_count()
        if n_null:
            raise ColumnError(
                f"the key {self._key!r} is null{self._beyond} in {n_null:,} rows\n"
                "Hint: filter them, or give them a key of their own; text holds numbers of any size."
            )
        rows = self._without_duplicates(chunk)
        if self._call.hashes:
            rows = self._with_fingerprints(rows)
        states = self._states(rows)
        counts = dict(states[_STATE].value_counts().iter_rows())
        skipped = states.filter(pl.col(_STATE) == "skipped")[f"{_THEN}{STATUS}"]
        skipped_statuses = _count_statuses(skipped)
        n_lost = skipped_statuses.total() - skipped_statuses[OK]
        self._summary += WriteSummary(
            n_new=counts.get("new", 0),
            n_changed=counts.get("changed", 0),
            n_retried=counts.get("retried", 0),
            n_skipped=counts.get("skipped", 0),
            n_duplicates=chunk.height - rows.height,
            n_failed=n_lost,
            n_failed_before=n_lost,
            status=skipped_statuses,
        )
        is_open = pl.Series(states[_STATE] != "skipped")
        to_do = rows.filter(is_open).with_columns(states[_STATE].filter(is_open))
        for batch in self._hashed(to_do):
            is_new = batch[_STATE] == "new"
            stored = batch.select(list(self._store.manifest.columns))
            statuses = _count_statuses(stored[STATUS])
            self._summary += WriteSummary(n_failed=statuses.total() - statuses[OK], status=statuses)
            self._store.commit(stored.filter(is_new), stored.filter(~is_new))

    def finish(self) -> WriteSummary:
        """Write what waits, drop what is not in the frame, and return what became of all rows."""
        self._store.flush()
        if self._prune is not False:
            keys = self._seen.keys
            if self._prune is True:
                self._check_prune(keys, "nothing was dropped")
            self._summary += WriteSummary(n_pruned=self._store.prune(keys))
        return self._summary

    def _check_prune(self, keys: pl.Series, outcome: str) -> None:
        """Refuse to drop what is not among `keys` where the frame is probably not whole."""
        shown, hint = self._shown, f"prune='all' drops them all the same; {outcome}."
        if self._n_unlisted != n_unlisted():
            raise StoreError(
                f"prune=True drops nothing of {shown}, since the frame is of folders or archives that could "
                f"not all be listed\n"
                f"Hint: may they be read? {hint}"
            )
        n_dropped = self._store.count() - self._store.stored(keys, [self._key]).height
        if n_dropped and (2 * n_dropped > self._n_before or keys.is_empty()):
            raise StoreError(
                f"prune=True would drop {n_dropped:,} of the {self._n_before:,} rows stored in {shown}: the frame has "
                f"{len(keys):,} rows\nHint: is it whole? {hint}"
            )

    def _without_duplicates(self, chunk: pl.DataFrame) -> pl.DataFrame:
        rows = chunk
        if self._seen.may_repeat(chunk[self._key]):
            rows = chunk.unique(self._key, keep="first", maintain_order=True)
        is_seen = self._seen.find(rows[self._key])
        rows = rows.filter(~is_seen) if is_seen.any() else rows
        self._seen.add(rows[self._key])
        return rows

    def _with_fingerprints(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Add what is known of the sources, now: before they are read, so that a change while they are is seen."""
        if MODIFIED in rows.columns and not rows[MODIFIED].has_nulls():
            return rows.with_columns(pl.lit(None, pl.String).alias(ETAG))
        return rows.drop(SIZE, MODIFIED, strict=False).hstack(fingerprint(rows[IMAGE], self._call.options.base_dir))

    def _states(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Return, for each row, what is to be done, and what its status was."""
        columns = self._store.manifest.checked_columns
        if self._n_before:
            then = self._store.stored(rows[self._key], columns)
        else:  # what was stored since has a key that was seen
            then = pl.DataFrame(schema={name: self._store.manifest.columns[name] for name in columns})
        known = then.rename({name: f"{_THEN}{name}" for name in columns[1:]}).with_columns(
            pl.lit(value=True).alias(_STATE)
        )
        now = [pl.col(name) if name in rows.columns else pl.lit(None).alias(name) for name in (SIZE, MODIFIED, ETAG)]
        given = rows.select(self._key, *(name.name.prefix(_NOW) for name in now), *self._own_source(rows))
        if known[self._key].equals(given[self._key].head(known.height)):  # in the same order, as in most runs
            others = known.drop(self._key)
            sides = given.hstack(pl.concat([others, others.clear(given.height - known.height)]))
        else:
            sides = given.join(known, on=self._key, how="left", maintain_order="left")
        failed = pl.col(f"{_THEN}{STATUS}").ne_missing(OK)
        changed = has_changed(_NOW, _THEN, failed)
        if SOURCE in columns[1:]:
            changed = changed | pl.col(SOURCE).ne_missing(pl.col(f"{_THEN}{SOURCE}"))
        state = (
            pl.when(pl.col(_STATE).is_null())
            .then(pl.lit("new"))
            .when(changed)
            .then(pl.lit("changed"))
            .when(failed if self._retry_failed else pl.lit(value=False))
            .then(pl.lit("retried"))
            .otherwise(pl.lit("skipped"))
        )
        return sides.select(state.alias(_STATE), f"{_THEN}{STATUS}")

    def _own_source(self, rows: pl.DataFrame) -> list[str]:
        return [SOURCE] if SOURCE in rows.columns and self._key != SOURCE else []

    def _hashed(self, rows: pl.DataFrame) -> Iterator[pl.DataFrame]:
        """Yield the rows with all columns of the store, in batches to commit."""
        absent = {name: dtype for name, dtype in self._store.manifest.columns.items() if name not in rows.columns}
        if not self._call.hashes:
            filled = rows.with_columns(pl.lit(None, dtype).alias(name) for name, dtype in absent.items())
            yield from filled.iter_slices(CHUNK_ROWS_OF_HASHES) if not filled.is_empty() else ()
            return
        options = self._call.options
        with METER.run(rows.height) if options.progress and not rows.is_empty() else nullcontext():
            for batch in rows.iter_slices(self._batch_rows(rows[IMAGE])):
                if batch.is_empty():
                    continue
                hashed = batches.hash_batch(batch[IMAGE], options, self._store.manifest.image_columns).struct.unnest()
                known = [hashed.get_column(name) for name in hashed.columns if name in absent]
                yield batch.with_columns(*known, pl.coalesce(pl.col(ETAG), hashed.get_column(ETAG)))

    def _batch_rows(self, sources: pl.Series) -> int:
        has_urls = any(url_of(value) for value in image_sources(sources.head(64)))
        return _BATCH_ROWS_OF_URLS if has_urls else _BATCH_ROWS


def _count_statuses(statuses: pl.Series) -> Counter[str]:
    return Counter({status or "no_hash": n_rows for status, n_rows in statuses.value_counts().iter_rows()})
