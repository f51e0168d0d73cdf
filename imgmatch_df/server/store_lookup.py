"""Look-up of stored hashes by URL, in memory, so that stored URLs are not fetched; and their ranking."""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from time import monotonic, sleep
from typing import Final

import polars as pl

from imgmatch_df.columns import SOURCE
from imgmatch_df.documented.values import Json
from imgmatch_df.errors import StoreError
from imgmatch_df.hashes.kinds import documented_kinds
from imgmatch_df.options import Recipe
from imgmatch_df.server.hash_queue import Row
from imgmatch_df.server.private_copy import BeingWrittenError, Identity, identify, private_copy
from imgmatch_df.server.snapshot import COLUMNS, Snapshot
from imgmatch_df.server.telemetry import log
from imgmatch_df.store.base import HashStore, locate
from imgmatch_df.store.manifest import Manifest
from imgmatch_df.store.open import open_store

_CHECK_EVERY_S: Final = 0.1
# A store that is written all the time is retried for this long: at the start, and before the log says so.
_MAX_RETRY_S: Final = 10.0
# A store that cannot be read is retried after this time, even if its files are the same: the disk may have room then.
_RETRY_AFTER_S: Final = 30.0
_MAX_REASONS: Final = 10


class StoredRows:
    """Looks URLs up in memory, and reloads the rows when their store changes.

    All rows are loaded at the start, and again in a separate thread when the store's files have changed. The old rows
    are used until then, and while the store is missing or cannot be read. The store is read from a private copy, so
    that it can be written at any time. 1,000,000 rows take 222 MB, and 0.5 to 0.8 seconds to load.

    Parameters
    ----------
    target
        A store whose key is the URL, as written by `imgmatch visual-hash urls.csv -o hashes.duckdb`. This process must
        not write it.
    recipe
        The options that the hashes of the service depend on. The store must have the same.
    needed
        Whether a store that cannot be loaded is an error. Otherwise the look-up is empty until it can be loaded.

    Raises
    ------
    StoreError
        If the store is missing or cannot be read, or the service would compute other hashes.
    """

    def __init__(self, target: str | PathLike[str], recipe: Recipe, *, needed: bool = True) -> None:
        self._path = _path(target)
        self._recipe = recipe
        self._loaded: Identity | None = None  # the files that the rows were loaded from
        self._failed: Identity | None = None  # files that could not be loaded, and are not retried before `_retry_at`
        self._retry_at = 0.0
        self._current_at = monotonic()  # when the rows were last known to equal the files
        self._reasons: set[str] = set()  # logged since the last rows were loaded
        self._snapshot = Snapshot((), SOURCE)
        self._closing = threading.Event()
        try:
            _load_with_retries(self._path, self._load)
        except StoreError as error:
            if needed:
                raise
            self._warn(error)
        self._thread = threading.Thread(target=self._watch, name="imgmatch-store", daemon=True)
        self._thread.start()

    def __call__(self, urls: Sequence[str]) -> Mapping[str, Row]:
        """Return the rows of the URLs that have hashes, with the columns of `visual_hash_fields`."""
        return self._snapshot.find(urls)

    def rank(self, value: int | bytes, hash_type: str, k: int) -> list[Json] | None:
        """Return the `k` stored rows nearest to a hash, see `Snapshot.rank`; None if no rows could be loaded yet."""
        return None if self._loaded is None else self._snapshot.rank(value, hash_type, k)

    def __len__(self) -> int:
        return len(self._snapshot)

    @property
    def n_bytes(self) -> int:
        """The size of the rows in memory, in bytes."""
        return self._snapshot.n_bytes

    def close(self) -> None:
        """Stop the thread that reloads the store."""
        self._closing.set()
        self._thread.join()

    def _watch(self) -> None:
        wait_s = _CHECK_EVERY_S
        while not self._closing.wait(wait_s):
            started = monotonic()
            try:
                self._reload()
            except Exception as error:  # noqa: BLE001  # logged; the thread must continue
                log("bug", level=logging.ERROR, exc_info=error)
                wait_s = _RETRY_AFTER_S
            else:
                # Loading takes at most half of the time, also if the store is written all the time.
                wait_s = max(_CHECK_EVERY_S, monotonic() - started)

    def _reload(self) -> None:
        """Load the store if its files have changed; log each reason once if it cannot be loaded."""
        now = monotonic()
        found: Identity | None = None
        try:
            found = _identify(self._path)
            if found == self._loaded:
                self._current_at, self._failed = now, None
                if self._reasons:
                    self._log_loaded(0.0)  # the files are as before
                return
            if found == self._failed and now < self._retry_at:
                return
            self._load(found)
        except BeingWrittenError as error:
            if now - self._current_at > _MAX_RETRY_S:
                self._warn(error)
        except StoreError as error:
            self._failed, self._retry_at = found, now + _RETRY_AFTER_S
            self._warn(error)

    def _load(self, found: Identity) -> None:
        started = monotonic()
        with _opened(self._path, found, self._recipe) as store:
            key = store.manifest.key
            self._snapshot = Snapshot(store.read([key, *COLUMNS]), key)
        is_first = self._loaded is None
        self._loaded, self._failed, self._current_at = found, None, monotonic()
        if is_first or self._reasons:
            self._log_loaded(monotonic() - started)

    def _log_loaded(self, seconds: float) -> None:
        self._reasons.clear()
        log("store loaded", rows=len(self._snapshot), bytes=self._snapshot.n_bytes, seconds=round(seconds, 3))

    def _warn(self, error: StoreError) -> None:
        reason = str(error).splitlines()[0]
        if reason not in self._reasons and len(self._reasons) < _MAX_REASONS:
            self._reasons.add(reason)
            log("store not read", level=logging.WARNING, reason=reason, rows=len(self._snapshot))


def check_store(target: str | PathLike[str], recipe: Recipe) -> None:
    """Read all rows of a store once, without keeping them; raise as `StoredRows`."""
    path = _path(target)

    def read(found: Identity) -> None:
        with _opened(path, found, recipe) as store:
            for _ in store.read([store.manifest.key, *COLUMNS]):
                pass

    _load_with_retries(path, read)


def _path(target: str | PathLike[str]) -> Path:
    location = locate(target)
    if isinstance(location, str):  # only files can be copied
        raise StoreError(f"{location!r} is not a file or a folder\nHint: pass a .duckdb or .parquet store.")
    return location


def _load_with_retries(path: Path, load: Callable[[Identity], None]) -> None:
    """Call `load` with the files of the store at `path`, and retry while another process writes it."""
    ends = monotonic() + _MAX_RETRY_S
    while True:
        found = _identify(path)
        try:
            load(found)
        except StoreError as error:
            if monotonic() > ends or not (isinstance(error, BeingWrittenError) or _identify(path) != found):
                raise
            sleep(_CHECK_EVERY_S / 2)
        else:
            return


def _identify(path: Path) -> Identity:
    try:
        return identify(path)
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> StoreError:
    return StoreError(f"{str(path)!r} cannot be read: {error.strerror}\nHint: check its path and its permissions.")


@contextmanager
def _opened(path: Path, found: Identity, recipe: Recipe) -> Iterator[HashStore]:
    """Open a private copy of the store at `path`, if the service would compute the same hashes."""
    shown = repr(str(path))
    try:
        if not found or path.is_dir():
            with open_store(path):  # raises if it is not a store, before a folder is copied
                pass
        with private_copy(path) as copy:
            try:
                with open_store(copy) as store:
                    _check(store.manifest, recipe, shown)
                    yield store
            except StoreError as error:
                raise StoreError(str(error).replace(repr(str(copy)), shown).replace(str(copy), str(path))) from error
    except OSError as error:
        raise _unreadable(path, error) from error


def _check(manifest: Manifest, recipe: Recipe, shown: str) -> None:
    if manifest.has_source and manifest.key != SOURCE:
        raise StoreError(
            f"the key of {shown} is {manifest.key!r}, not the URL\n"
            "Hint: write the store without key=, so that the source is the key."
        )
    hash_types = (*documented_kinds(), *manifest.hash_types)
    # The service has no pdq, so that the variant does not matter.
    recipe = recipe._replace(pdq_variant=manifest.recipe.pdq_variant)
    wanted = Manifest.make(manifest.key, pl.String(), hash_types, recipe, has_source=manifest.has_source)
    manifest.check_same(wanted, shown)
