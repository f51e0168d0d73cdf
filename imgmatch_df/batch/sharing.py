"""Functions of the expressions on a source column, which hash each batch once per statement."""

import os
import threading
from collections.abc import Iterable
from typing import Any, Final
from weakref import WeakSet, WeakValueDictionary

import polars as pl

from imgmatch_df.batch import run
from imgmatch_df.batch.statements import Running
from imgmatch_df.columns import DETAIL, ETAG, HEIGHT, STATUS, WIDTH
from imgmatch_df.options import Options

# Batches that are kept for the other expressions of a statement: Polars computes one per thread of its pool.
_MAX_HELD: Final = 2 * pl.thread_pool_size() + 2
# The fields of a batch that are not hashes.
_NO_KINDS: Final = frozenset((WIDTH, HEIGHT, STATUS, DETAIL, ETAG))

_lock = threading.Lock()
_local = threading.local()


class Field:
    """Function that takes one field of a batch of visual hashes; an expression calls it on a `SharedBatches`.

    Each expression has its own instance, so the number of live instances shows whether another expression may need the
    same batch.
    """

    def __init__(self, batches: "SharedBatches", name: str, names: Iterable[str] = ()) -> None:
        self.name = name
        self.names = list(names) or [name]
        self._batches = batches
        with _lock:
            batches.fields.add(self)

    def __call__(self, visual_hashes: pl.Series) -> pl.Series:
        """Return the field."""
        return visual_hashes.struct.field(self.name)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._batches, self.name)


class Whole(Field):
    """Function that takes several fields of a batch of visual hashes, as a struct."""

    def __init__(self, batches: "SharedBatches", names: Iterable[str]) -> None:
        super().__init__(batches, "visual_hash", names)

    def __call__(self, visual_hashes: pl.Series) -> pl.Series:
        """Return a struct of the fields."""
        return visual_hashes.struct.unnest()[self.names].to_struct(visual_hashes.name)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._batches, self.names)


class _Flight:
    """A batch in flight or finished. Refers to the input, so that the memory addresses of its buffers stay in use."""

    def __init__(self, values: pl.Series) -> None:
        from concurrent.futures import Future

        self.values = values
        self.result: Future[pl.Series] = Future()


class SharedBatches:
    """Function of the expressions on source columns, which hashes each batch once per statement.

    In a lazy query Polars merges expressions that have the same function object and are not nested, and calls the
    function once per batch. Otherwise it calls the function with the same buffers for each expression; the first of
    these calls hashes the batch, and the others return its result.

    Only hashes that some `Field` takes are computed; the others are null.

    Parameters
    ----------
    options
        How to read and decode.
    dtype
        Of the result: a `Struct` with the fields of `kinds.batch_fields`.
    source
        Identity of the source column: expressions on different columns share no batches. None if it has none.
    """

    def __init__(self, options: Options, dtype: pl.Struct, source: bytes | None = None) -> None:
        self.fields: WeakSet[Field] = WeakSet()
        self.dtype = dtype
        self.names = tuple(field.name for field in dtype.fields)  # they stand for the dtype, whose hash takes 0.1 ms
        self._options = options
        self._source = source

    def __call__(self, values: pl.Series) -> pl.Series:
        """Return the `Struct` of visual hashes of `values`."""
        # A thread that hashes a batch does not wait for another batch, so there is no deadlock.
        if len(self.fields) < 2 or values.is_empty() or getattr(_local, "hashes", False):
            return self._hash(values, self._hash_types())
        running = Running()
        # After `Running`, so that the fields of all statements that it found exist.
        hash_types = self._hash_types()
        key = self, hash_types, _buffer_addresses(values)
        with _lock:
            flight: _Flight | None = running.get(key)
            owner = flight is None
            if flight is None:
                flight = _Flight(values)
                running.put(key, flight, _MAX_HELD)
        if owner:
            self._complete(flight, hash_types)
        return flight.result.result().alias(values.name)

    def __reduce__(self) -> tuple[Any, ...]:
        # Polars merges no expressions that it has deserialised.
        return shared_batches, (self._options, self.dtype, self._source)

    def _hash_types(self) -> tuple[str, ...]:
        """Return the names of the hash kinds that the fields take."""
        with _lock:
            fields = list(self.fields)
        taken = {name for field in fields for name in field.names}
        return tuple(field.name for field in self.dtype.fields if field.name in taken and field.name not in _NO_KINDS)

    def _hash(self, values: pl.Series, hash_types: tuple[str, ...]) -> pl.Series:
        hashed = run.hash_batch(values, self._options, hash_types)
        if hashed.dtype == self.dtype:
            return hashed
        columns = {column.name: column for column in hashed.struct.unnest()}
        return pl.DataFrame(
            [
                columns.get(field.name, pl.Series(field.name, [None], dtype=field.dtype).new_from_index(0, len(values)))
                for field in self.dtype.fields
            ]
        ).to_struct(values.name)

    def _complete(self, flight: _Flight, hash_types: tuple[str, ...]) -> None:
        _local.hashes = True
        try:
            flight.result.set_result(self._hash(flight.values, hash_types))
        except BaseException as error:  # noqa: BLE001  # raised again in every expression that waits, this one included
            flight.result.set_exception(error)
        finally:
            _local.hashes = False


def shared_batches(options: Options, dtype: pl.Struct, source: bytes | None) -> SharedBatches:
    """Return the function for these options and this source: the same object while it is in use."""
    made = SharedBatches(options, dtype, source)
    if source is None:
        return made
    with _lock:
        return _functions.setdefault((options, made.names, source), made)


_functions: WeakValueDictionary[tuple[Options, tuple[str, ...], bytes], SharedBatches] = WeakValueDictionary()


def _buffer_addresses(values: pl.Series) -> tuple[Any, ...]:
    """Return the memory addresses of the values; they are equal for two views of one column."""
    newest = pl.CompatLevel.newest()  # string and binary views, the layout of Polars, so nothing is copied
    return tuple(_array_addresses(chunk.to_arrow(compat_level=newest)) for chunk in values.get_chunks())


def _array_addresses(array: Any) -> tuple[Any, ...]:
    kind = str(array.type)
    parts: list[Any] = []  # which have offsets of their own
    if kind.startswith("struct"):
        parts = [array.field(place) for place in range(array.type.num_fields)]
    elif kind.startswith(("list", "large_list", "fixed_size_list")):
        parts = [array.values]
    buffers = [None if buffer is None else buffer.address for buffer in array.buffers()]
    return array.offset, len(array), *buffers, *map(_array_addresses, parts)


def _forget_threads_of_parent() -> None:
    global _lock, _local
    _lock, _local = threading.Lock(), threading.local()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads_of_parent)
