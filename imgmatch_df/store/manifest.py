"""What a store of hashes says about itself: its columns, and how the hashes in it were made."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Final

import polars as pl

from imgmatch_df.columns import (
    DETAIL,
    ETAG,
    HASH_KINDS,
    HEIGHT,
    MODIFIED,
    MODIFIED_DTYPE,
    SIZE,
    SOURCE,
    STATUS,
    STATUS_DTYPE,
    WIDTH,
    HashKind,
    hash_kind,
)
from imgmatch_df.errors import ArgumentError, StoreError
from imgmatch_df.options import make_recipe, shown

FORMAT: Final = 1

_HASH: Final = "hash."
_TEXT: Final = "String"
_NUMBER: Final = "Int64"
_UNSIGNED: Final = "UInt64"
_KEY_DTYPES: Final[dict[str, pl.DataType]] = {_TEXT: pl.String(), _NUMBER: pl.Int64(), _UNSIGNED: pl.UInt64()}
# The columns of a store besides its key and its source.
_OTHERS: Final = (*HASH_KINDS, WIDTH, HEIGHT, STATUS, DETAIL, SIZE, MODIFIED, ETAG)
# Columns that the SQL macros and the writers of stores add for a time begin with these.
_OWN_NAMES: Final = ("imgmatch_row", "imgmatch_none", "__imgmatch_")


@cache
def made_by() -> str:
    """Return the name and version of this package."""
    return f"imgmatch-df {version('imgmatch-df')}"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a store says about itself.

    Parameters
    ----------
    key
        Name of the column that tells rows apart.
    key_dtype
        ``"String"``, ``"Int64"`` or ``"UInt64"``.
    has_source
        Whether there is a column ``source``.
    decode
        The decode path of the hashes, ``"full"`` or ``"scaled"``.
    versions
        Name and version of each hash kind in it.
    alpha
        What became of transparency: ``"drop"``, ``"white"`` or ``"black"``.
    created_by
        What made the store; says nothing about what it holds.
    """

    key: str
    key_dtype: str
    has_source: bool
    decode: str
    versions: tuple[tuple[str, str], ...]
    alpha: str = "drop"
    created_by: str = ""

    @classmethod
    def make(
        cls, key: str, dtype: pl.DataType, hash_types: tuple[str, ...], recipe: str, *, has_source: bool
    ) -> "Manifest":
        """Return the manifest of a new store; `recipe` is that of the `Options`.

        Raises
        ------
        ArgumentError
            If `key` is the name of another column of a store, or cannot be the name of a column.
        """
        if "\0" in key or key.lower().startswith(_OWN_NAMES):
            raise ArgumentError(
                f"key must not contain NUL, or begin with {' or '.join(map(repr, _OWN_NAMES))}, got {shown(key)}\n"
                "Hint: rename it in the frame."
            )
        versions = tuple((name, hash_kind(name).version) for name in HASH_KINDS if name in hash_types)
        decode, _, alpha = recipe.partition("+")
        manifest = cls(
            key=key,
            key_dtype=next((name for name, own in _KEY_DTYPES.items() if own == dtype), _NUMBER),
            has_source=has_source or key == SOURCE,
            decode=decode,
            versions=versions,
            alpha=alpha or "drop",
            created_by=made_by(),
        )
        if key.lower() in _OTHERS or (key.lower() == SOURCE and key != SOURCE):
            raise ArgumentError(
                f"key must be the name of no other column of a store, got {key!r}\nHint: rename it in the frame."
            )
        return manifest

    @classmethod
    def parse(cls, entries: object, where: str) -> "Manifest":
        """Return the manifest that a store's own `entries` are.

        Raises
        ------
        StoreError
            If the store has another format than this version of imgmatch-df knows, or they are no entries at all.
        """
        try:
            if not isinstance(entries, Mapping) or not all(map(_is_text, entries.values())):
                raise TypeError("not all entries are text")
            format_ = int(entries["format"])
            if format_ > FORMAT:
                made = shown(entries.get("created_by", "a later imgmatch-df"))[1:-1]
                raise StoreError(
                    f"{where} has format {format_}, made by {made}; this is {made_by()}, which knows formats up to "
                    f"{FORMAT}\n"
                    "Hint: install a newer imgmatch-df; nothing was changed."
                )
            versions = tuple((name.removeprefix(_HASH), entries[name]) for name in entries if name.startswith(_HASH))
            decode, _, alpha = entries["decode"].partition("+")
            manifest = cls(
                key=entries["key"],
                key_dtype=entries["key_dtype"],
                has_source=entries["has_source"] == "true",
                decode=decode,
                versions=tuple(sorted(versions)),
                alpha=alpha or "drop",
                created_by=entries["created_by"],
            )
            unknown = [name for name in manifest.hash_types if name not in HASH_KINDS]
            if unknown or not versions or manifest.key_dtype not in _KEY_DTYPES:
                raise ValueError(unknown or manifest.key_dtype)
            if "\0" in manifest.key or manifest.key.lower() in _OTHERS:
                raise ValueError(manifest.key)
        except (KeyError, TypeError, ValueError) as error:
            raise _not_understood(where, str(error)) from error
        return manifest

    @property
    def recipe(self) -> str:
        """How images became pixels, as the `recipe` of the `Options` says it."""
        return make_recipe(self.decode, self.alpha)

    @property
    def hash_types(self) -> tuple[str, ...]:
        """The names of the hash kinds in the store."""
        return tuple(name for name, _ in self.versions)

    @property
    def entries(self) -> dict[str, str]:
        """What the store writes about itself."""
        return {
            "format": str(FORMAT),
            "key": self.key,
            "key_dtype": self.key_dtype,
            "has_source": "true" if self.has_source else "false",
            "decode": self.recipe,  # one entry, so that a version that does not know `alpha` refuses to mix
            **{f"{_HASH}{name}": made for name, made in self.versions},
            "created_by": self.created_by,
        }

    @property
    def columns(self) -> dict[str, pl.DataType]:
        """The columns of the store, in order, and their dtypes."""
        return {
            self.key: _KEY_DTYPES[self.key_dtype],
            **({SOURCE: pl.String()} if self.has_source and self.key != SOURCE else {}),
            WIDTH: pl.UInt32(),
            HEIGHT: pl.UInt32(),
            **{name: hash_kind(name).dtype for name in self.hash_types},
            STATUS: STATUS_DTYPE,
            DETAIL: pl.String(),
            SIZE: pl.UInt64(),
            MODIFIED: MODIFIED_DTYPE,
            ETAG: pl.String(),
        }

    @property
    def checked_columns(self) -> list[str]:
        """The columns that tell whether a row is to be hashed again, the key first."""
        own = [SOURCE] if self.has_source and self.key != SOURCE else []
        return [self.key, *own, STATUS, SIZE, MODIFIED, ETAG]

    def check_comparable(self, kind: HashKind, recipe: str | None, where: str) -> None:
        """Refuse to compare what the store holds with hashes of `kind` that are made in another way.

        Parameters
        ----------
        kind
            What is compared.
        recipe
            How the images of the others became pixels; None where it is not known.
        where
            The store, for the message.

        Raises
        ------
        StoreError
            If the store holds hashes of another version, or of pixels made in another way.
        """
        made = dict(self.versions).get(kind.name, kind.version)
        if made != kind.version:
            raise StoreError(
                f"the version of {kind.name} is {made!r} in {where} and {kind.version!r} here\n"
                "Hint: their distances mean nothing; hash the pictures again, into a new store."
            )
        if recipe is None:
            return
        decode, _, alpha = recipe.partition("+")
        for name, ours, theirs in (("decode", self.decode, decode), ("alpha", self.alpha, alpha or "drop")):
            if ours != theirs:
                raise StoreError(
                    f"{name} is {ours!r} in {where} and {theirs!r} here: equal pictures are some bits apart\n"
                    f"Hint: {name}={ours!r} makes hashes as the store has them."
                )

    def check_same(self, wanted: "Manifest", where: str) -> None:
        """Refuse to put what `wanted` describes into this store.

        Raises
        ------
        StoreError
            If hashes of the two cannot be compared, or their rows not told apart; it says what differs.
        """
        pairs = [
            ("the key", self.key, wanted.key),
            ("the dtype of the key", self.key_dtype, wanted.key_dtype),
            ("decode", self.decode, wanted.decode),
            ("alpha", self.alpha, wanted.alpha),
            ("hash_types", ", ".join(self.hash_types), ", ".join(wanted.hash_types)),
            *((f"the version of {name}", dict(self.versions).get(name, made), made) for name, made in wanted.versions),
        ]
        differing = [f"{what} is {ours!r} there and {theirs!r} here" for what, ours, theirs in pairs if ours != theirs]
        if differing:
            raise StoreError(
                f"{where} holds other hashes than these: {'; '.join(differing)}\n"
                "Hint: call with what it has, or write to another target; nothing was changed."
            )


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def parse_entries(text: str, where: str) -> object:
    """Return the entries that JSON holds, for `Manifest.parse`.

    Raises
    ------
    StoreError
        If it is not JSON.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _not_understood(where, str(error)) from error


def check_table_columns(found: Mapping[str, object], wanted: Mapping[str, object], where: str) -> None:
    """Refuse a table that has other columns than a store, or columns of other dtypes.

    Raises
    ------
    StoreError
        If it has.
    """
    if found.keys() != wanted.keys():
        raise StoreError(
            f"{where} has the columns {str(list(found))[:400]}, not those of a store\nHint: was it changed by hand?"
        )
    for name, dtype in wanted.items():
        if found[name] != dtype:
            raise StoreError(
                f"{where} has the column {name!r} of dtype {shown(str(found[name]))}, in a store it is {dtype}\n"
                "Hint: was it changed by hand?"
            )


def _not_understood(where: str, what: str) -> StoreError:
    return StoreError(
        f"{where} says of itself what {made_by()} does not understand: {shown(what)}\n"
        "Hint: was it written by another version, or changed by hand? Nothing was changed."
    )
