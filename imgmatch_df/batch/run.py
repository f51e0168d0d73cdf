"""Hashing of a batch of sources in the thread pool."""

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias

import polars as pl

from imgmatch_df.batch.equal_images import EqualImages
from imgmatch_df.batch.image_hashes import HashBuffers, ImageSize, hash_image
from imgmatch_df.batch.isolation import decoders
from imgmatch_df.batch.known_images import KNOWN_IMAGES, KnownHashes
from imgmatch_df.columns import DETAIL, ETAG, HEIGHT, OK, STATUS, STATUS_DTYPE, STATUSES, WIDTH
from imgmatch_df.errors import ColumnError, Failure, row_error
from imgmatch_df.hashes.kinds import DEFAULT_HASH_TYPES, SHA256, ImageColumn, image_columns
from imgmatch_df.image_columns import Buffers, dtype_text, holds_sources, image_sources
from imgmatch_df.options import Options
from imgmatch_df.progress import METER
from imgmatch_df.sources import Fetched, url_of
from imgmatch_df.threads import n_threads, pool

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# As `image_hashes.hash_image`.
HashOne: TypeAlias = Callable[[Any, Options, HashBuffers], ImageSize | Failure]

# Seconds until Ctrl-C is noticed if it does not interrupt a lock: on Windows, and in the threads of Polars.
_POLL_S = 0.05
# Rows that a thread takes at a time: with one row, the locks of the batch took 1 % of the time for thumbnails.
_MAX_TAKEN = 16
_ONE = pl.Series([1])


def hash_batch(values: pl.Series, options: Options, hash_types: Sequence[str] = DEFAULT_HASH_TYPES) -> pl.Series:
    """Return the visual hashes of a batch of sources.

    Parameters
    ----------
    values
        `String` (paths, base64, data URIs, URLs, mixed), `Binary` (encoded images), `Null`, or what `image_columns`
        has besides.
    options
        How to read and decode.
    hash_types
        Names of the hash kinds, and of the measures, to compute.

    Returns
    -------
    Series
        `Struct` of `kinds.batch_fields(hash_types)`, one row for each of `values`, in their order.

    Raises
    ------
    ColumnError
        If the dtype is not a source dtype.
    RowError
        With ``on_error="raise"``, for the first row that fails.
    """
    from imgmatch_df.hashes.codec import size_series, to_series

    if not holds_sources(values.dtype):
        raise ColumnError(f"column {values.name!r} {dtype_text(values.dtype)}")
    rows = hash_sources(image_sources(values), options, hash_types)
    valid = rows.valid
    # No Polars query is used, because it may need the threads of Polars, which may wait for this batch.
    return pl.DataFrame(
        {
            WIDTH: size_series(rows.width, valid),
            HEIGHT: size_series(rows.height, valid),
            **{kind.name: to_series(kind, hashes, valid) for kind, hashes in rows.hashes.items()},
            STATUS: pl.Series([STATUSES[status] for status in rows.status.tolist()], dtype=STATUS_DTYPE),
            DETAIL: pl.Series(rows.detail, dtype=pl.String),
            ETAG: pl.Series(rows.etag, dtype=pl.String),
        }
    ).to_struct(values.name)


def hash_sources(
    sources: Sequence[Any], options: Options, hash_types: Sequence[str] = DEFAULT_HASH_TYPES
) -> "HashedRows":
    """Return the visual hashes of a batch of sources that are Python objects; see `hash_batch`.

    For few images at a time: converting them to columns and back takes as long as hashing one image.

    Parameters
    ----------
    sources
        Text, bytes, anything else with the buffer protocol, or None, mixed.
    options, hash_types
        As for `hash_batch`.
    """
    return read_images(sources, options, image_columns(hash_types))


def read_images(
    sources: Sequence[Any], options: Options, kinds: Sequence[ImageColumn], hash_one: HashOne | None = None
) -> "HashedRows":
    """Return what `kinds` compute of each image, as `hash_sources`; `hash_one` replaces the function that does it."""
    rows = HashedRows(len(sources), kinds, hash_one)
    if sources:
        with METER.batch(len(sources)) if options.progress else nullcontext():
            _Run(sources, rows, options).run()
    return rows


def hash_source(
    source: Any, options: Options, hash_one: HashOne | None = None, *, kinds: Sequence[ImageColumn]
) -> dict[str, Any]:
    """Return the visual hashes of one source, or of the response for a URL, as `HashedRows.row`, in this thread.

    For callers that have their own threads, because submitting a batch of one row to the pool takes 0.1 ms. `hash_one`
    replaces the function that hashes an image.
    """
    rows = HashedRows(1, kinds, hash_one)
    failure = rows.read(0, source, options)
    if failure is not None:
        rows.fail(0, failure)
    return rows.row(0)


class HashedRows:
    """The columns of a batch. Each row is written once, by the thread that hashes it."""

    def __init__(self, n_rows: int, kinds: Sequence[ImageColumn], hash_one: HashOne | None = None) -> None:
        import numpy as np

        self._hash_one = hash_one
        self.width = np.zeros(n_rows, np.uint32)
        self.height = np.zeros(n_rows, np.uint32)
        self.hashes = {kind: kind.empty_rows(n_rows) for kind in kinds}
        self._kinds = list(self.hashes)
        self._keeps_known = SHA256 in self.hashes and hash_one is None
        self.status = np.zeros(n_rows, np.uint32)
        self.detail: list[str | None] = [None] * n_rows
        self.etag: list[str | None] = [None] * n_rows

    def read(self, row: int, source: Any, options: Options) -> Failure | None:
        """Hash a source, or the response for a URL, into a row; return the failure, or None."""
        if isinstance(source, Fetched):
            failure = self.fill(row, source.data, options)
            is_other = failure is not None and failure.status == "decode_failed" and not source.is_image
            return Failure("decode_failed", source.describe()) if is_other else failure
        data = _read(source, options)
        return data if isinstance(data, Failure) else self.fill(row, data, options)

    def fill(self, row: int, data: Any, options: Options) -> Failure | None:
        """Hash an encoded image into a row; return the failure, or None."""
        out = {kind: hashes[row] for kind, hashes in self.hashes.items()}
        digest, kinds = b"", self._kinds
        if self._keeps_known:
            digest = hashlib.sha256(data).digest()
            if (known := KNOWN_IMAGES.find(digest, options, kinds)) is not None:
                for buffer, hashed in zip(out.values(), known.hashes, strict=True):
                    buffer[...] = hashed
                self.width[row], self.height[row], self.detail[row] = known.size
                return None
            out.pop(SHA256)[...] = bytearray(digest)  # not computed again: it takes 20 us for 40 KB
        hash_one = self._hash_one or (decoders().hash_image if options.isolate else hash_image)
        size = hash_one(data, options, out)
        if isinstance(size, Failure):
            return size
        self.width[row], self.height[row], self.detail[row] = size
        if digest:
            hashed = [self.hashes[kind][row].copy() for kind in kinds]
            KNOWN_IMAGES.add(digest, options, kinds, KnownHashes(hashed, size))
        return None

    def copy(self, row: int, first: int) -> None:
        """Write what a row has into another row."""
        for column in (*self.hashes.values(), self.width, self.height):
            column[row] = column[first]
        self.etag[row], self.detail[row] = self.etag[first], self.detail[first]

    def fail(self, row: int, failure: Failure) -> None:
        """Write a failure into a row."""
        self.status[row] = STATUSES.index(failure.status)
        self.detail[row] = failure.detail

    @property
    def valid(self) -> "NDArray[np.bool_]":
        """Which rows have hashes."""
        valid: NDArray[np.bool_] = self.status == STATUSES.index(OK)
        return valid

    def row(self, row: int) -> dict[str, Any]:
        """Return one row, by the names of its columns."""
        status = STATUSES[self.status[row]]
        if status != OK:
            nothing = dict.fromkeys((WIDTH, HEIGHT, *(kind.name for kind in self.hashes)))
            return {**nothing, STATUS: status, DETAIL: self.detail[row]}
        return {
            WIDTH: int(self.width[row]),
            HEIGHT: int(self.height[row]),
            **{kind.name: kind.value(hashes[row]) for kind, hashes in self.hashes.items()},
            STATUS: OK,
            DETAIL: self.detail[row],
        }


class _Run:
    """A batch that is being hashed.

    Each thread of the pool takes the next local row, and rows with URLs when their responses are complete, so a slow
    server blocks no thread. A URL in several rows is fetched once, equal bytes are decoded once. With
    ``on_error="raise"``, all rows
    before a failed one are hashed before the error is raised, so the first failure depends neither on the threads nor
    on the network.
    """

    def __init__(self, sources: Sequence[Any], rows: HashedRows, options: Options) -> None:
        self._sources = sources
        self._rows = rows
        self._options = options
        local: Sequence[int] = range(len(sources))
        self._rows_of_url: dict[str, list[int]] = {}
        if not isinstance(sources, Buffers):
            local = []
            for row, value in enumerate(sources):
                if (url := url_of(value)) is None:
                    local.append(row)
                else:
                    self._rows_of_url.setdefault(url, []).append(row)
        self._rows_of = list(self._rows_of_url.values())
        self._images = EqualImages(lambda row: _read(sources[row], options))
        self._local = iter(local)
        self._n_local = len(local)  # that no worker has taken
        self._n_shares = 4 * n_threads()  # of these rows, one of which a worker takes
        self._fetched: deque[tuple[list[int], Fetched, Callable[[], None]]] = deque()
        self._lock = threading.Lock()
        self._n_workers = 0
        self._n_open = len(local) + len(self._rows_of_url)
        self._ended = threading.Event()
        self._end = len(sources)  # rows after this one are not needed
        self._failure: Failure | None = None
        self._error: BaseException | None = None
        self._stop_download: Callable[[int], None] = lambda _: None

    def run(self) -> None:
        """Hash the rows; with ``on_error="raise"``, raise the error of the first row that failed."""
        for _ in range(min(n_threads(), self._n_open - len(self._rows_of_url))):
            self._start_worker()
        if self._rows_of_url:
            from imgmatch_df.fetching.scheduler import Download, shared_scheduler

            download, scheduler = Download(list(self._rows_of_url), self._options, self._receive), shared_scheduler()
            self._stop_download = lambda after: scheduler.stop(download, after)
            scheduler.start(download)
            if self._end < len(self._sources):  # a local row has failed already
                self._stop_download(self._position_of(self._end))
        try:
            _running.add(self)
            while not self._ended.wait(_POLL_S):
                _ONE.sum()  # Polars defers Ctrl-C until the batch is done, but raises it in any call
        except KeyboardInterrupt:
            # Polars delivers it to one batch only, so that batch stops the others.
            for run in list(_running):
                run._abort(KeyboardInterrupt())
            raise
        finally:
            _running.discard(self)
        if self._error is not None:
            raise self._error
        if self._failure is not None:
            raise row_error(self._failure, self._end)

    def _start_worker(self) -> None:
        """Start one more worker, unless all threads have one: submitting to the pool takes 30 microseconds."""
        with self._lock:
            if self._n_workers == n_threads():
                return
            self._n_workers += 1
        try:
            pool().submit(self._work)
        except RuntimeError as error:  # the interpreter is shutting down
            self._abort(error)

    def _next(self) -> tuple[list[int], Fetched | None, Callable[[], None]] | None:
        """Return the next task of a worker; None ends it. Responses come first, because they take memory."""
        with self._lock:
            if self._fetched:
                return self._fetched.popleft()
            if self._n_local:
                # Fewer at the end, so that the threads end together; one beside URLs, whose responses wait in memory.
                n_rows = 1 if self._rows_of_url else min(_MAX_TAKEN, self._n_local // self._n_shares) or 1
                self._n_local -= n_rows
                return list(islice(self._local, n_rows)), None, _nothing
            self._n_workers -= 1
            return None

    def _work(self) -> None:
        """Hash rows until none is ready."""
        try:
            while (task := self._next()) is not None:
                same, fetched, release = task
                if fetched is None:
                    self._finish(sum(map(self._hash_local, same)))
                    continue
                try:
                    if same[0] <= self._end:
                        self._rows.etag[same[0]] = fetched.etag or None
                        self._settle(same, self._rows.read(same[0], fetched, self._options))
                finally:
                    release()
                self._finish()
        except BaseException as error:  # noqa: BLE001  # raised again in the thread that waits for the batch
            self._abort(error)

    def _receive(self, position: int, result: Any, release: Callable[[], None]) -> None:
        """Receive the result of a URL, in the thread of the download scheduler."""
        if isinstance(result, BaseException):
            self._abort(result)
        elif isinstance(result, Fetched):
            if self._options.progress:
                METER.count_response(len(result.data))
            with self._lock:
                self._fetched.append((self._rows_of[position], result, release))
            self._start_worker()
        else:
            if result is not None:
                self._settle(self._rows_of[position], result)
            self._finish()

    def _hash_local(self, row: int) -> int:
        """Hash a row without a URL, or let it wait for an image with the same bytes; return how many rows are done."""
        if row > self._end:
            return 1
        data = _read(self._sources[row], self._options)
        if isinstance(data, Failure):
            self._settle([row], data)
            return 1
        image = self._images.find(row, data)
        if image.row == row:
            failure = self._rows.fill(row, data, self._options)
            same = [row, *self._images.finish(image, failure)]
        elif self._images.wait(image, row):
            return 0
        else:
            failure, same = image.failure, [row]
        self._settle(same, failure, image.row)
        return len(same)

    def _settle(self, same: list[int], failure: Failure | None, first: int | None = None) -> None:
        """Complete the rows of one source; the row `first`, by default the first of them, already has its hashes."""
        rows, first = self._rows, same[0] if first is None else first
        for row in same:
            if failure is not None:
                rows.fail(row, failure)
            elif row != first:
                rows.copy(row, first)
            if self._options.progress:
                METER.advance(failed=failure is not None)
        if failure is not None and self._options.on_error == "raise":
            self._stop(min(same), failure)

    def _stop(self, row: int, failure: Failure | None = None) -> None:
        """Cancel the rows after `row`."""
        with self._lock:
            if row >= self._end:
                return
            self._end, self._failure = row, failure
        self._stop_download(self._position_of(row))

    def _position_of(self, row: int) -> int:
        """Return the position of the last URL in `row` or before it, -1 if there is none."""
        return sum(same[0] <= row for same in self._rows_of) - 1

    def _finish(self, n_sources: int = 1) -> None:
        """Mark sources as done."""
        with self._lock:
            self._n_open -= n_sources
            if self._n_open:
                return
        self._ended.set()

    def _abort(self, error: BaseException) -> None:
        """End the batch with `error`, after Ctrl-C, a bug or the shutdown of the interpreter."""
        self._error = error
        self._stop(-1)
        self._ended.set()


def _read(source: Any, options: Options) -> Any:
    """Return the bytes of a source without a URL, or why they cannot be read."""
    try:
        return _reading().read_source(source, options)
    except MemoryError:
        return Failure("fetch_failed", "not enough memory to read it")


@cache
def _reading() -> Any:
    """Import what reads sources, once: a statement in a function takes half a microsecond each time."""
    from imgmatch_df.fetching import read

    return read


def _nothing() -> None:
    pass


_running: set[_Run] = set()
