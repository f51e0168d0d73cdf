"""One batch of sources in, one batch of visual hashes out: rows spread over the pool, each batch decoded once."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from struct import Struct
from typing import TYPE_CHECKING, Any, TypeAlias

import polars as pl

from imgmatch_df.batch.image_hashes import ImageHashes, hash_image
from imgmatch_df.batch.isolation import decoders
from imgmatch_df.columns import BMH1, DETAIL, ETAG, HEIGHT, OK, PHASH, STATUS, STATUS_DTYPE, STATUSES, WIDTH
from imgmatch_df.errors import ColumnError, Failure, row_error
from imgmatch_df.options import Options
from imgmatch_df.progress import METER
from imgmatch_df.sources import Fetched, url_of
from imgmatch_df.threads import n_threads, pool

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# As `image_hashes.hash_image`.
HashOne: TypeAlias = "Callable[[Any, Options, NDArray[np.uint8]], ImageHashes | Failure]"

# How soon Ctrl-C is noticed where no lock is interrupted by it: on Windows, and in the threads of Polars.
_POLL_S = 0.05
_ONE = pl.Series([1])


def hash_batch(values: pl.Series, options: Options) -> pl.Series:
    """Return the visual hashes of a batch of sources.

    Parameters
    ----------
    values
        `String` (paths, base64, data URIs, URLs, mixed), `Binary` (encoded pictures) or `Null`.
    options
        How to read and decode.

    Returns
    -------
    Series
        `Struct` of `columns.batch_fields()`, one row for each of `values`, in their order.

    Raises
    ------
    ColumnError
        If the dtype is no source dtype.
    RowError
        With ``on_error="raise"``, for the first row that fails.
    """
    from imgmatch_df.hashes.codec import bmh1_series, phash_series, size_series

    rows = hash_sources(_sources(values), options)
    valid = rows.valid
    # Without queries: they may need the threads of Polars, which may be waiting for this batch.
    return pl.DataFrame(
        {
            WIDTH: size_series(rows.width, valid),
            HEIGHT: size_series(rows.height, valid),
            BMH1.name: bmh1_series(rows.bmh1, valid),
            PHASH.name: phash_series(rows.phash, valid),
            STATUS: pl.Series([STATUSES[status] for status in rows.status.tolist()], dtype=STATUS_DTYPE),
            DETAIL: pl.Series(rows.detail, dtype=pl.String),
            ETAG: pl.Series(rows.etag, dtype=pl.String),
        }
    ).to_struct(values.name)


def hash_sources(sources: Sequence[Any], options: Options) -> "HashedRows":
    """Return the visual hashes of a batch of sources that are Python objects; see `hash_batch`.

    For few pictures at a time: making columns, and taking them apart again, costs as much as hashing one.

    Parameters
    ----------
    sources
        Text, bytes, anything else with the buffer protocol, or None, mixed.
    options
        As for `hash_batch`.
    """
    rows = HashedRows(len(sources))
    if sources:
        with METER.batch(len(sources)) if options.progress else nullcontext():
            _Run(sources, rows, options).run()
    return rows


def hash_source(source: Any, options: Options, hash_one: "HashOne | None" = None) -> dict[str, Any]:
    """Return the visual hashes of a source, of an address what it gave, as `HashedRows.row` does, in this thread.

    For callers with threads of their own: sharing out a batch of one row takes 0.1 ms. Such a caller may also have
    images hashed by `hash_one`.
    """
    rows = HashedRows(1, hash_one)
    failure = rows.read(0, source, options)
    if failure is not None:
        rows.fail(0, failure)
    return rows.row(0)


class HashedRows:
    """The columns of a batch; while it is under way, each row is written once, by the thread that has it."""

    def __init__(self, n_rows: int, hash_one: "HashOne | None" = None) -> None:
        import numpy as np

        self._hash_one = hash_one
        self.width = np.zeros(n_rows, np.uint32)
        self.height = np.zeros(n_rows, np.uint32)
        self.bmh1 = np.zeros((n_rows, BMH1.n_bytes), np.uint8)
        self.phash = np.zeros(n_rows, np.uint64)
        self.status = np.zeros(n_rows, np.uint32)
        self.detail: list[str | None] = [None] * n_rows
        self.etag: list[str | None] = [None] * n_rows

    def read(self, row: int, source: Any, options: Options) -> Failure | None:
        """Write the hashes of a source into a row, of an address what it gave; return why it has none."""
        from imgmatch_df.fetching.read import read_source

        if isinstance(source, Fetched):
            failure = self.fill(row, source.data, options)
            unlike = failure is not None and failure.status == "decode_failed" and not source.is_image
            return Failure("decode_failed", source.describe()) if unlike else failure
        try:
            data = read_source(source, options)
        except MemoryError:
            return Failure("fetch_failed", "not enough memory to read it")
        return data if isinstance(data, Failure) else self.fill(row, data, options)

    def fill(self, row: int, data: Any, options: Options) -> Failure | None:
        """Write the hashes of an encoded picture into a row; return why it has none."""
        hash_one = self._hash_one or (decoders().hash_image if options.isolate else hash_image)
        hashes = hash_one(data, options, self.bmh1[row])
        if isinstance(hashes, Failure):
            return hashes
        self.width[row], self.height[row], self.phash[row] = hashes
        return None

    def fail(self, row: int, failure: Failure) -> None:
        """Write into a row why it has no hashes."""
        self.status[row] = STATUSES.index(failure.status)
        self.detail[row] = failure.detail

    @property
    def valid(self) -> "NDArray[np.bool_]":
        """Which rows have hashes."""
        valid: NDArray[np.bool_] = self.status == STATUSES.index(OK)
        return valid

    def row(self, row: int) -> dict[str, Any]:
        """Return one row, by the names of `columns.visual_hash_fields`."""
        status = STATUSES[self.status[row]]
        if status != OK:
            nothing = dict.fromkeys((WIDTH, HEIGHT, BMH1.name, PHASH.name))
            return {**nothing, STATUS: status, DETAIL: self.detail[row]}
        return {
            WIDTH: int(self.width[row]),
            HEIGHT: int(self.height[row]),
            BMH1.name: self.bmh1[row].tobytes(),
            PHASH.name: int(self.phash[row]),
            STATUS: OK,
            DETAIL: None,
        }


def _sources(values: pl.Series) -> Sequence[Any]:
    if values.dtype == pl.Binary:
        return _Buffers(values)
    if values.dtype in (pl.String, pl.Null, pl.Categorical, pl.Enum):
        return values.cast(pl.String).to_list()
    raise ColumnError(
        f"column {values.name!r} has dtype {values.dtype}, sources are String (paths, URLs, base64) or "
        "Binary (pictures)\nHint: cast the column, or take the field of a struct that holds the source."
    )


class _Buffers(Sequence[Any]):
    """A `Binary` column as a sequence of memoryviews and None, by the layout of Arrow's binary view.

    0.4 microseconds a row, whatever its length; a scalar of pyarrow copies each picture while it holds the GIL, 30.
    """

    _VIEW = Struct("<i4xii")  # length; four bytes of the value; which buffer it lies in, and where

    def __init__(self, values: pl.Series) -> None:
        array = values.to_arrow(compat_level=pl.CompatLevel.newest())
        _, views, *data = array.buffers()
        self._n_rows = len(array)
        self._views = memoryview(views)[16 * array.offset :]
        self._data = [memoryview(buffer) for buffer in data]
        self._valid = array.is_valid().to_pylist() if values.null_count() else None

    def __len__(self) -> int:
        return self._n_rows

    def __getitem__(self, row: Any) -> Any:
        if self._valid is not None and not self._valid[row]:
            return None
        length, buffer, start = self._VIEW.unpack_from(self._views, 16 * row)
        if length > 12:
            return self._data[buffer][start : start + length]
        return self._views[16 * row + 4 : 16 * row + 4 + length]  # a short value lies in the view itself


class _Run:
    """The rows of a batch while they are hashed.

    The threads of the pool take the local rows, each the next that nobody has, and rows with addresses as they arrive,
    so that a slow server holds no thread; the same address in several rows is fetched and decoded once. When a strict
    run stops, every row before a failed one has been finished: which failure is the first depends neither on the
    threads nor on the network.
    """

    def __init__(self, sources: Sequence[Any], rows: HashedRows, options: Options) -> None:
        self._sources = sources
        self._rows = rows
        self._options = options
        local: Sequence[int] = range(len(sources))
        self._places: dict[str, list[int]] = {}
        if not isinstance(sources, _Buffers):
            local = []
            for row, value in enumerate(sources):
                if (url := url_of(value)) is None:
                    local.append(row)
                else:
                    self._places.setdefault(url, []).append(row)
        self._rows_of = list(self._places.values())
        self._local = iter(local)  # `next` is one step under the GIL
        self._fetched: deque[tuple[list[int], Fetched, Callable[[], None]]] = deque()
        self._lock = threading.Lock()
        self._n_workers = 0
        self._n_open = len(local) + len(self._places)
        self._ended = threading.Event()
        self._end = len(sources)  # what comes behind this row is not needed
        self._failure: Failure | None = None
        self._error: BaseException | None = None
        self._stop_download: Callable[[int], None] = lambda _: None

    def run(self) -> None:
        """Fill the rows; raise for the first that failed, where the options say so."""
        for _ in range(min(n_threads(), self._n_open - len(self._places))):
            self._call_worker()
        if self._places:
            from imgmatch_df.fetching.scheduler import Download, shared_scheduler

            download, scheduler = Download(list(self._places), self._options, self._arrived), shared_scheduler()
            self._stop_download = lambda after: scheduler.stop(download, after)
            scheduler.start(download)
            if self._end < len(self._sources):  # a local row has failed already
                self._stop_download(self._position_of(self._end))
        try:
            _running.add(self)
            while not self._ended.wait(_POLL_S):
                _ONE.sum()  # Polars keeps Ctrl-C until the batch is done, unless it is called: then it raises
        except KeyboardInterrupt:
            # The first batch to see it ends the query, and Polars takes it for dealt with: the others never see it.
            for run in list(_running):
                run._give_up(KeyboardInterrupt())
            raise
        finally:
            _running.discard(self)
        if self._error is not None:
            raise self._error
        if self._failure is not None:
            raise row_error(self._failure, self._end)

    def _call_worker(self) -> None:
        """Have one more thread work, unless all do: asking the pool costs 30 microseconds."""
        with self._lock:
            if self._n_workers == n_threads():
                return
            self._n_workers += 1
        try:
            pool().submit(self._work)
        except RuntimeError as error:  # the interpreter is shutting down
            self._give_up(error)

    def _next(self) -> tuple[list[int], Fetched | None, Callable[[], None]] | None:
        """Return what a worker is to do next; None ends it. What has been fetched takes memory, so it comes first."""
        with self._lock:
            if self._fetched:
                return self._fetched.popleft()
            row = next(self._local, None)
            if row is not None:
                return [row], None, _nothing
            self._n_workers -= 1
            return None

    def _work(self) -> None:
        """Hash, until there is nothing to hash just now."""
        try:
            while (task := self._next()) is not None:
                same, fetched, release = task
                try:
                    if same[0] <= self._end:
                        self._settle(same, self._hash_source(same[0], fetched))
                finally:
                    release()
                self._finish()
        except BaseException as error:  # noqa: BLE001  # raised again in the thread that waits for the batch
            self._give_up(error)

    def _arrived(self, position: int, answer: Any, release: Callable[[], None]) -> None:
        """Take what an address gave, in the thread of the network."""
        if isinstance(answer, BaseException):
            self._give_up(answer)
        elif isinstance(answer, Fetched):
            if self._options.progress:
                METER.fetch(len(answer.data))
            with self._lock:
                self._fetched.append((self._rows_of[position], answer, release))
            self._call_worker()
        else:
            if answer is not None:
                self._settle(self._rows_of[position], answer)
            self._finish()

    def _hash_source(self, row: int, fetched: Fetched | None) -> Failure | None:
        if fetched is not None:
            self._rows.etag[row] = fetched.etag or None
        return self._rows.read(row, self._sources[row] if fetched is None else fetched, self._options)

    def _settle(self, same: list[int], failure: Failure | None) -> None:
        """Write how the rows of one source ended; the first of them has its hashes already."""
        rows, first = self._rows, same[0]
        for row in same:
            if failure is not None:
                rows.fail(row, failure)
            elif row != first:
                for column in (rows.phash, rows.bmh1, rows.width, rows.height):
                    column[row] = column[first]
                rows.etag[row] = rows.etag[first]
            if self._options.progress:
                METER.advance(failed=failure is not None)
        if failure is not None and self._options.on_error == "raise":
            self._stop(first, failure)

    def _stop(self, row: int, failure: Failure | None = None) -> None:
        """Leave out what comes behind `row`."""
        with self._lock:
            if row >= self._end:
                return
            self._end, self._failure = row, failure
        self._stop_download(self._position_of(row))

    def _position_of(self, row: int) -> int:
        """Return the position of the last address that stands in `row` or before it, -1 where none does."""
        return sum(same[0] <= row for same in self._rows_of) - 1

    def _finish(self) -> None:
        """Count one source as done."""
        with self._lock:
            self._n_open -= 1
            if self._n_open:
                return
        self._ended.set()

    def _give_up(self, error: BaseException) -> None:
        """End the batch because of Ctrl-C, a bug, or the interpreter's end."""
        self._error = error
        self._stop(-1)
        self._ended.set()


def _nothing() -> None:
    pass


_running: set[_Run] = set()
