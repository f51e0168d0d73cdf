"""The interface of stores and the registry of their kinds, so that a new kind needs one file."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Final, Protocol, Self, TypeAlias

import polars as pl

from imgmatch_df.errors import ArgumentError, StoreError
from imgmatch_df.options import shown
from imgmatch_df.store.manifest import Manifest

# A store as callers pass it: a path, or a URI of a registered scheme.
Target: TypeAlias = str | PathLike[str]
# A store as its class receives it: the path of a file or folder, or the whole URI.
Location: TypeAlias = Path | str


class HashStore(Protocol):
    """An open store: one row per key, in the order in which the keys were first stored.

    One writer at a time, and any number of readers. A row has the columns of ``manifest.columns``.
    """

    manifest: Manifest

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def count(self) -> int:
        """Return the number of rows."""
        ...

    def read(
        self, columns: Sequence[str], n_rows: int | None = None, predicate: pl.Expr | None = None
    ) -> Iterator[pl.DataFrame]:
        """Yield rows in order, in batches: those of the first `n_rows` for which `predicate` is true."""
        ...

    def stored(self, keys: pl.Series, columns: Sequence[str]) -> pl.DataFrame:
        """Return `columns` of the rows with these keys, in any order."""
        ...

    def commit(self, new: pl.DataFrame, changed: pl.DataFrame) -> None:
        """Store rows with new keys behind the others, and replace the rows that have the keys of `changed`.

        A store may keep them in memory until `flush`. A killed run must leave whole rows, each of them once.
        """
        ...

    def flush(self) -> None:
        """Write all committed rows to the disk."""
        ...

    def prune(self, keys: pl.Series) -> int:
        """Delete the rows whose key is not in `keys`, and return how many."""
        ...

    def close(self) -> None:
        """Write all committed rows, and release the store."""
        ...


class Opener(Protocol):
    """A function or class that opens an existing store."""

    def __call__(self, location: Location, /, *, write: bool = False) -> HashStore:
        """Return the open store; with `write`, be its only writer.

        Raises
        ------
        MissingStoreError
            If there is no store. Not needed for paths: the caller has checked that they exist.
        RepairableError
            If a writer would repair it.
        StoreError
            If it cannot be used.
        """
        ...


class MissingStoreError(StoreError):
    """There is no store at a location."""


class RepairableError(StoreError):
    """A store is damaged in a way that its next writer repairs."""


@dataclass(frozen=True, slots=True)
class StoreKind:
    """How stores of one suffix or scheme are opened and created.

    Parameters
    ----------
    open
        Opens an existing store, usually the class of the store.
    create
        Creates an empty store. If something of that name exists, it raises FileExistsError or does nothing.
    is_store
        Returns whether a file or folder of this name is a store. None if all of them are: then the command line writes
        a store to each output of the suffix.
    """

    open: Opener
    create: Callable[[Location, Manifest], None]
    is_store: Callable[[Path], bool] | None = None


FOLDER: Final = ""

_kinds: Final[dict[str, StoreKind]] = {}


def register_store(name: str, kind: StoreKind) -> None:
    """Let all functions and commands use stores of `kind`.

    Parameters
    ----------
    name
        A suffix such as ``".duckdb"``; a scheme such as ``"postgresql:"``; or `FOLDER` for folders and names without
        a suffix.
    kind
        How such stores are opened and created.

    Raises
    ------
    ArgumentError
        If `name` is neither a suffix nor a scheme, in lower case.
    """
    is_name = name == FOLDER or (name.startswith(".") != name.endswith(":") and len(name) > 1)
    if not is_name or name != name.lower():
        raise ArgumentError(
            f"name must be a suffix or a scheme in lower case, got {shown(name)}\nHint: such as '.lance' or 'lance:'."
        )
    _kinds[name] = kind


def store_suffixes() -> tuple[str, ...]:
    """Return the suffixes of files that are always stores."""
    return tuple(name for name, kind in _kinds.items() if name.startswith(".") and kind.is_store is None)


def is_uri(target: Target) -> bool:
    """Return whether `target` is a URI of a registered scheme."""
    return _scheme(fspath(target)) is not None


def is_same_file(name: str, other: str) -> bool:
    """Return whether two names are those of one file or URI."""
    if is_uri(name) or is_uri(other):
        return name == other
    return os.path.realpath(os.path.expanduser(name)) == os.path.realpath(os.path.expanduser(other))  # noqa: PTH111


def is_store(target: Target) -> bool:
    """Return whether `target` names a store, existing or not."""
    text = fspath(target)
    if is_uri(text):
        return True
    path = Path(text)
    name = path.suffix.lower()
    try:
        kind = _kinds.get(FOLDER if path.is_dir() else name)
        return kind is not None and (kind.is_store is None or kind.is_store(path))
    except OSError:  # reported with its reason when the store is opened
        return name in store_suffixes()


def locate(target: object) -> Location:
    """Return the path of a store, or its URI where the scheme is registered.

    Raises
    ------
    ArgumentError
        If `target` is neither.
    """
    text = fspath(target) if isinstance(target, str | PathLike) else None
    if not isinstance(text, str) or not text or "\0" in text:
        raise ArgumentError(f"target must be a path, got {shown(target)}\nHint: such as 'hashes.duckdb'.")
    return Path(text).expanduser() if _scheme(text) is None else text


def kind_of(location: Location) -> StoreKind:
    """Return the kind of the store at `location`.

    Raises
    ------
    ArgumentError
        If no kind of store has this suffix.
    """
    if isinstance(location, str):
        return _kinds[_scheme(location) or FOLDER]
    name = FOLDER if location.is_dir() else location.suffix.lower()
    if name not in _kinds:
        known = [one for one in _kinds if one.startswith(".")]
        raise ArgumentError(
            f"target must end in {' or '.join(known)}, or be a folder, got {str(location)!r}\n"
            "Hint: .duckdb is one file that is also a database."
        )
    return _kinds[name]


def _scheme(text: str) -> str | None:
    scheme = text[: text.find(":") + 1].lower()
    return scheme if scheme in _kinds and scheme else None
