"""One batch of sources in, one batch of visual hashes out: rows spread over the pool, each batch decoded once."""

import threading
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from operator import itemgetter
from struct import Struct
from time import monotonic
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import polars as pl

from imgmatch_df.errors import ColumnError, Failure, row_error
from imgmatch_df.options import Options
from imgmatch_df.progress import METER
from imgmatch_df.schema import BMH1, DETAIL, HEIGHT, OK, PHASH, STATUS, STATUS_DTYPE, STATUSES, WIDTH
from imgmatch_df.threads import n_threads, pool

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# How long a finished batch waits for the other expressions of its statement, and how many batches may wait. Polars
# starts the expressions of an eager statement together, so the second one comes within microseconds of the first.
_GRACE_S = 0.25
_MAX_WAITING = 4


class Field:
    """Take one field out of a batch of visual hashes: what an expression stacks on a `SharedBatches`.

    Each expression carries its own instance, so the instances alive tell how many expressions share one decode.
    """

    def __init__(self, batches: "SharedBatches", name: str) -> None:
        self.name = name
        batches.fields.add(self)

    def __call__(self, visual_hashes: pl.Series) -> pl.Series:
        """Return the field."""
        return visual_hashes.struct.field(self.name)


class Whole(Field):
    """Keep several fields of a batch of visual hashes, as a struct."""

    def __init__(self, batches: "SharedBatches", names: Iterable[str]) -> None:
        super().__init__(batches, "visual_hash")
        self.names = list(names)

    def __call__(self, visual_hashes: pl.Series) -> pl.Series:
        """Return a struct of the fields."""
        return visual_hashes.struct.unnest().select(self.names).to_struct(visual_hashes.name)


class _Flight:
    """A batch under way or just landed. Holds the input, so that its buffers' addresses stay its own."""

    def __init__(self, values: pl.Series, stamps: list[object], n_others: int) -> None:
        from concurrent.futures import Future

        self.values = values
        self.stamps = stamps
        self.n_others = n_others
        self.landed = float("inf")
        self.result: Future[pl.Series] = Future()


class SharedBatches:
    """The function under all expressions on one source column: hashes a batch once, whoever asks for it.

    Lazy queries merge equal subexpressions, so this is called once a batch. Eager ones do not: there each expression
    calls it with the same buffers, at the same time, and all but the first take the first one's result.
    """

    def __init__(self, options: Options) -> None:
        self.fields: WeakSet[Field] = WeakSet()
        self._options = options
        self._lock = threading.Lock()
        self._flights: dict[tuple[Any, ...], _Flight] = {}

    def __call__(self, values: pl.Series) -> pl.Series:
        """Return the `Struct` of visual hashes of `values`."""
        n_others = len(self.fields) - 1
        if values.is_empty() or n_others < 1:
            return hash_batch(values, self._options)
        # Files may be written again between two statements; what was hashed a moment ago is then another picture.
        stamps = _stamps(values, self._options)
        key = _addresses(values)
        with self._lock:
            self._drop_landed()
            flight = self._flights.get(key)
            owner = flight is None or flight.stamps != stamps
            if flight is None or owner:
                flight = self._flights[key] = _Flight(values, stamps, n_others)
            else:
                flight.n_others -= 1
                if not flight.n_others:
                    del self._flights[key]
        if owner:
            self._fly(flight)
        return flight.result.result().alias(values.name)

    def _fly(self, flight: _Flight) -> None:
        try:
            flight.result.set_result(hash_batch(flight.values, self._options))
        except BaseException as error:  # noqa: BLE001  # raised again in every expression that waits, this one included
            flight.result.set_exception(error)
        flight.landed = monotonic()
        sweeper = threading.Timer(_GRACE_S, self._sweep)
        sweeper.daemon = True
        sweeper.start()

    def _sweep(self) -> None:
        with self._lock:
            self._drop_landed()

    def _drop_landed(self) -> None:
        now = monotonic()
        landed = [(key, now - flight.landed) for key, flight in self._flights.items() if flight.landed <= now]
        landed.sort(key=itemgetter(1))
        for position, (key, age_s) in enumerate(landed):
            if position >= _MAX_WAITING or age_s >= _GRACE_S:
                del self._flights[key]


def _stamps(values: pl.Series, options: Options) -> list[object]:
    from imgmatch_df.fetch import file_stamp

    if values.dtype == pl.Binary:
        return []
    return [file_stamp(value, options) for value in _sources(values)]


def _addresses(values: pl.Series) -> tuple[Any, ...]:
    """Return where the values lie in memory: equal for two views of one column, whatever made the views."""
    newest = pl.CompatLevel.newest()  # string and binary views, as Polars holds them: nothing is copied
    arrays = [chunk.to_arrow(compat_level=newest) for chunk in values.get_chunks()]
    return tuple(
        (array.offset, len(array), *(None if buffer is None else buffer.address for buffer in array.buffers()))
        for array in arrays
    )


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
        `Struct` of `schema.visual_hash_fields()`, one row for each of `values`, in their order.

    Raises
    ------
    ColumnError
        If the dtype is no source dtype.
    RowError
        With ``on_error="raise"``, for the first row that fails.
    """
    from imgmatch_df.hashing import bmh1_series, phash_series

    sources = _sources(values)
    rows = _Rows(len(values))
    if sources:
        with METER.batch(len(values)) if options.progress else nullcontext():
            _hash_rows(sources, rows, options)
    return pl.DataFrame(
        {
            WIDTH: _where(rows.valid, rows.width),
            HEIGHT: _where(rows.valid, rows.height),
            BMH1.name: bmh1_series(rows.bmh1, rows.valid),
            PHASH.name: phash_series(rows.phash, rows.valid),
            STATUS: pl.Series(STATUSES, dtype=STATUS_DTYPE).gather(rows.status),
            DETAIL: pl.Series(rows.detail, dtype=pl.String),
        }
    ).to_struct(values.name)


class _Rows:
    """The columns of a batch while it is under way; each row is written once, by the thread that has it."""

    def __init__(self, n_rows: int) -> None:
        import numpy as np

        self.width = np.zeros(n_rows, np.uint32)
        self.height = np.zeros(n_rows, np.uint32)
        self.bmh1 = np.zeros((n_rows, BMH1.n_bytes), np.uint8)
        self.phash = np.zeros(n_rows, np.uint64)
        self.status = np.zeros(n_rows, np.uint32)
        self.detail: list[str | None] = [None] * n_rows

    @property
    def valid(self) -> "NDArray[np.bool_]":
        valid: NDArray[np.bool_] = self.status == STATUSES.index(OK)
        return valid


def _where(valid: "NDArray[np.bool_]", numbers: "NDArray[np.uint32]") -> pl.Series:
    return pl.select(pl.when(pl.Series(valid)).then(pl.Series(numbers))).to_series()


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
        self._valid = values.is_not_null().to_list() if values.null_count() else None

    def __len__(self) -> int:
        return self._n_rows

    def __getitem__(self, row: Any) -> Any:
        if self._valid is not None and not self._valid[row]:
            return None
        length, buffer, start = self._VIEW.unpack_from(self._views, 16 * row)
        if length > 12:
            return self._data[buffer][start : start + length]
        return self._views[16 * row + 4 : 16 * row + 4 + length]  # a short value lies in the view itself


def _hash_rows(sources: Sequence[Any], rows: _Rows, options: Options) -> None:
    """Fill `rows`; each thread of the pool takes the next row that nobody has, so slow rows hold up nothing."""
    from imgmatch_df._kernels.pictures import hash_picture
    from imgmatch_df.decode import decode_picture
    from imgmatch_df.fetch import read_source

    strict = options.on_error == "raise"
    failures: list[tuple[int, Failure]] = []
    # `next` on a range iterator is one step under the GIL. Rows are taken in order, so when a strict run stops, every
    # row before a failed one has been taken and is finished: the first failure does not depend on the threads.
    remaining = iter(range(len(sources)))

    def hash_row(row: int) -> Failure | None:
        data = read_source(sources[row], options)
        if isinstance(data, Failure):
            return data
        picture = decode_picture(data, options)
        if isinstance(picture, Failure):
            return picture
        rows.phash[row] = hash_picture(picture.pixels, picture.orientation, rows.bmh1[row])
        rows.width[row], rows.height[row] = picture.width, picture.height
        return None

    def work() -> None:
        for row in remaining:
            failure = hash_row(row)
            if failure is not None:
                rows.status[row] = STATUSES.index(failure.status)
                rows.detail[row] = failure.detail
            if options.progress:
                METER.advance(failed=failure is not None)
            if failure is not None and strict:
                failures.append((row, failure))
                return
            if failures:
                return

    for task in [pool().submit(work) for _ in range(min(n_threads(), len(sources)))]:
        task.result()
    if failures:
        row, failure = min(failures)
        raise row_error(failure, row)
