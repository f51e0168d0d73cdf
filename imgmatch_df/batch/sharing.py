"""Functions of the expressions on a source column, which hash each batch once per statement."""

import os
import threading
from collections.abc import Iterable
from typing import Any, Final
from weakref import WeakSet, WeakValueDictionary

import polars as pl

from imgmatch_df.batch import run
from imgmatch_df.batch.statements import Running
from imgmatch_df.options import Options

# Batches that are kept for the other expressions of a statement: Polars computes one per thread of its pool.
_MAX_HELD: Final = 2 * pl.thread_pool_size() + 2

_lock = threading.Lock()
_local = threading.local()


class Field:
    """Function that takes one field of a batch of visual hashes; an expression calls it on a `SharedBatches`.

    Each expression has its own instance, so the number of live instances shows whether another expression may need the
    same batch.
    """

    def __init__(self, batches: "SharedBatches", name: str) -> None:
        self.name = name
        self._batches = batches
        batches.fields.add(self)

    def __call__(self, visual_hashes: pl.Series) -> pl.Series:
        """Return the field."""
        return visual_hashes.struct.field(self.name)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._batches, self.name)


class Whole(Field):
    """Function that takes several fields of a batch of visual hashes, as a struct."""

    def __init__(self, batches: "SharedBatches", names: Iterable[str]) -> None:
        super().__init__(batches, "visual_hash")
        self.names = list(names)

    def __call__(self, visual_hashes: pl.Series) -> pl.Series:
        """Return a struct of the fields."""
        return visual_hashes.struct.unnest()[self.names].to_struct(visual_hashes.name)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._batches, self.names)


class _Flight:
    """A batch in flight or finished. Keeps a reference to the input, so that its buffer addresses are not reused."""

    def __init__(self, values: pl.Series) -> None:
        from concurrent.futures import Future

        self.values = values
        self.result: Future[pl.Series] = Future()


class SharedBatches:
    """Function of the expressions on source columns, which hashes each batch once per statement.

    In a lazy query Polars merges expressions that have the same function object and are not nested, and calls the
    function once per batch. Otherwise it calls the function with the same buffers for each expression; the first of
    these calls hashes the batch, and the others return its result.

    Parameters
    ----------
    options
        How to read and decode.
    merged
        Whether Polars is known to merge all expressions on it: then no batch is held for a second call.
    """

    def __init__(self, options: Options, *, merged: bool = False) -> None:
        self.fields: WeakSet[Field] = WeakSet()
        self._options = options
        self._merged = merged

    def __call__(self, values: pl.Series) -> pl.Series:
        """Return the `Struct` of visual hashes of `values`."""
        # A thread that hashes a batch does not wait for another batch, so there is no deadlock.
        if self._merged or len(self.fields) < 2 or values.is_empty() or getattr(_local, "hashes", False):
            return run.hash_batch(values, self._options)
        running = Running()
        key = self, _buffer_addresses(values)
        with _lock:
            flight: _Flight | None = running.get(key)
            owner = flight is None
            if flight is None:
                flight = _Flight(values)
                running.put(key, flight, _MAX_HELD)
        if owner:
            self._fly(flight)
        return flight.result.result().alias(values.name)

    def __reduce__(self) -> tuple[Any, ...]:
        return shared_batches, (self._options,)  # Polars merges no expressions that it has deserialised

    def _fly(self, flight: _Flight) -> None:
        _local.hashes = True
        try:
            flight.result.set_result(run.hash_batch(flight.values, self._options))
        except BaseException as error:  # noqa: BLE001  # raised again in every expression that waits, this one included
            flight.result.set_exception(error)
        finally:
            _local.hashes = False


def shared_batches(options: Options) -> SharedBatches:
    """Return the function for these options; one object while it is in use."""
    with _lock:
        return _functions.setdefault(options, SharedBatches(options))


_functions: WeakValueDictionary[Options, SharedBatches] = WeakValueDictionary()


def _buffer_addresses(values: pl.Series) -> tuple[Any, ...]:
    """Return the memory addresses of the values; they are equal for two views of one column."""
    newest = pl.CompatLevel.newest()  # string and binary views, the layout of Polars, so nothing is copied
    arrays = [chunk.to_arrow(compat_level=newest) for chunk in values.get_chunks()]
    return tuple(
        (array.offset, len(array), *(None if buffer is None else buffer.address for buffer in array.buffers()))
        for array in arrays
    )


def _forget_threads_of_parent() -> None:
    global _lock, _local
    _lock, _local = threading.Lock(), threading.local()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads_of_parent)
