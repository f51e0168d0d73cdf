"""The manifest of a store, which prevents that hashes made in different ways are mixed.

It records the key, the columns, and how the hashes were made.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Final

import polars as pl

from imgmatch_df.columns import (
    DETAIL,
    ETAG,
    HEIGHT,
    MODIFIED,
    MODIFIED_DTYPE,
    SIZE,
    SOURCE,
    STATUS,
    STATUS_DTYPE,
    WIDTH,
)
from imgmatch_df.errors import ArgumentError, StoreError
from imgmatch_df.hashes.kinds import KINDS, MEASURES, PDQ, HashKind, image_columns
from imgmatch_df.options import Recipe, shown

FORMAT: Final = 1

_HASH: Final = "hash."
_TEXT: Final = "String"
_NUMBER: Final = "Int64"
_UNSIGNED: Final = "UInt64"
_KEY_DTYPES: Final[dict[str, pl.DataType]] = {_TEXT: pl.String(), _NUMBER: pl.Int64(), _UNSIGNED: pl.UInt64()}
# The columns of a store besides its key and its source.
_OTHERS: Final = (WIDTH, HEIGHT, STATUS, DETAIL, SIZE, MODIFIED, ETAG)  # and hashes and measures
# Prefixes of the temporary columns of SQL macros and of writers.
_OWN_NAMES: Final = ("imgmatch_row", "imgmatch_none", "__imgmatch_")


@cache
def made_by() -> str:
    """Return the name and version of this package."""
    return f"imgmatch-df {version('imgmatch-df')}"


@dataclass(frozen=True, slots=True)
class Manifest:
    """The manifest of a store.

    Parameters
    ----------
    key
        Name of the column that identifies rows.
    key_dtype
        ``"String"``, ``"Int64"`` or ``"UInt64"``.
    has_source
        Whether there is a column ``source``.
    recipe
        The options that the hashes were made with.
    versions
        Name and version of each hash kind, and of each measure.
    created_by
        Name and version of the program that created the store.
    """

    key: str
    key_dtype: str
    has_source: bool
    recipe: Recipe
    versions: tuple[tuple[str, str], ...]
    created_by: str = ""

    @classmethod
    def make(
        cls, key: str, dtype: pl.DataType, names: tuple[str, ...], recipe: Recipe, *, has_source: bool
    ) -> "Manifest":
        """Return the manifest of a new store.

        Parameters
        ----------
        key, dtype
            Name and dtype of the column that identifies rows.
        names
            Of the hash kinds and measures.
        recipe
            That of the `Options`.
        has_source
            Whether the rows name their images.

        Raises
        ------
        ArgumentError
            If `key` is the name of another column of a store, or not a valid name.
        """
        if "\0" in key or key.lower().startswith(_OWN_NAMES):
            raise ArgumentError(
                f"key must not contain NUL, or begin with {' or '.join(map(repr, _OWN_NAMES))}, got {shown(key)}\n"
                "Hint: rename it in the frame."
            )
        versions = tuple((column.name, column.version) for column in image_columns(_in_order(names)))
        manifest = cls(
            key=key,
            key_dtype=next((name for name, own in _KEY_DTYPES.items() if own == dtype), _NUMBER),
            has_source=has_source or key == SOURCE,
            recipe=recipe if PDQ.name in names else recipe._replace(pdq_variant="full"),
            versions=versions,
            created_by=made_by(),
        )
        if key.lower() in _taken(versions) or (key.lower() == SOURCE and key != SOURCE):
            raise ArgumentError(
                f"key must not be the name of another column of a store, got {key!r}\nHint: rename it in the frame."
            )
        return manifest

    @classmethod
    def parse(cls, entries: object, where: str) -> "Manifest":
        """Return the manifest with these `entries`, as a store holds them.

        Raises
        ------
        StoreError
            If the entries are invalid, or of a later format.
        """
        try:
            if not isinstance(entries, Mapping) or not all(map(_is_text, entries.values())):
                raise TypeError("not all entries are text")
            format_ = int(entries["format"])
            if format_ > FORMAT:
                made = shown(entries.get("created_by", "a later imgmatch-df"))[1:-1]
                raise StoreError(
                    f"{where} has format {format_}, made by {made}; this is {made_by()}, which reads formats up to "
                    f"{FORMAT}\n"
                    "Hint: install a newer imgmatch-df; nothing was changed."
                )
            made_in = {name.removeprefix(_HASH): entries[name] for name in entries if name.startswith(_HASH)}
            versions = tuple((name, made_in[name]) for name in _in_order(made_in))
            manifest = cls(
                key=entries["key"],
                key_dtype=entries["key_dtype"],
                has_source=entries["has_source"] == "true",
                recipe=Recipe.parse(entries["decode"]),
                versions=versions,
                created_by=entries["created_by"],
            )
            unknown = [name for name in manifest.hash_types if name not in KINDS]
            if unknown:
                raise StoreError(
                    f"{where} has hashes of a hash kind that is not registered in {made_by()}: {shown(unknown[0])}\n"
                    "Hint: call register_hash_kind before you open the store; nothing was changed."
                )
            if not manifest.hash_types or manifest.key_dtype not in _KEY_DTYPES:
                raise ValueError(manifest.key_dtype)
            if "\0" in manifest.key or manifest.key.lower() in _taken(versions):
                raise ValueError(manifest.key)
        except (KeyError, TypeError, ValueError) as error:
            raise _invalid_manifest(where, str(error)) from error
        return manifest

    @property
    def hash_types(self) -> tuple[str, ...]:
        """Names of the hash kinds in the store."""
        return tuple(name for name, _ in self.versions if name not in MEASURES)

    @property
    def image_columns(self) -> tuple[str, ...]:
        """Names of the hash kinds and of the measures in the store."""
        return tuple(name for name, _ in self.versions)

    @property
    def entries(self) -> dict[str, str]:
        """Text entries that the store keeps, for `parse`."""
        return {
            "format": str(FORMAT),
            "key": self.key,
            "key_dtype": self.key_dtype,
            "has_source": "true" if self.has_source else "false",
            # With all options, so that a release that does not know one of them rejects the store.
            "decode": self.recipe.text,
            **{f"{_HASH}{name}": made for name, made in self.versions},
            "created_by": self.created_by,
        }

    @property
    def columns(self) -> dict[str, pl.DataType]:
        """Names and dtypes of the columns, in order."""
        return {
            self.key: _KEY_DTYPES[self.key_dtype],
            **({SOURCE: pl.String()} if self.has_source and self.key != SOURCE else {}),
            WIDTH: pl.UInt32(),
            HEIGHT: pl.UInt32(),
            **{column.name: column.dtype for column in image_columns(self.image_columns)},
            STATUS: STATUS_DTYPE,
            DETAIL: pl.String(),
            SIZE: pl.UInt64(),
            MODIFIED: MODIFIED_DTYPE,
            ETAG: pl.String(),
        }

    @property
    def checked_columns(self) -> list[str]:
        """Columns that show whether to hash a row again, the key first."""
        own = [SOURCE] if self.has_source and self.key != SOURCE else []
        return [self.key, *own, STATUS, SIZE, MODIFIED, ETAG]

    def check_comparable(self, kind: HashKind, recipe: Recipe | None, where: str) -> None:
        """Raise if the hashes of the store cannot be compared with hashes of `kind`.

        Parameters
        ----------
        kind
            Kind of the hashes.
        recipe
            Options that the other hashes were made with; None if they are unknown.
        where
            Name of the store, for the message.

        Raises
        ------
        StoreError
            If the version of the hashes differs, or an option that they depend on.
        """
        made = dict(self.versions).get(kind.name, kind.version)
        if made != kind.version:
            raise StoreError(
                f"cannot compare with {where}: it has {kind.name} of version {made!r}, this package "
                f"{kind.version!r}\n"
                "Hint: hash the images again, into a new store."
            )
        if recipe is None:
            return
        # `sha256` is of the whole file, and `local` is always of the inside.
        unused = {"trim": not kind.is_perceptual, "pdq_variant": kind.name != PDQ.name}
        for name, ours, theirs in zip(Recipe._fields, self.recipe, recipe, strict=True):
            if ours != theirs and not unused.get(name):
                raise StoreError(
                    f"cannot compare with {where}: it has {name}={ours!r}, this call has {name}={theirs!r}, and equal "
                    f"images would be some bits apart\nHint: pass {name}={ours!r}."
                )

    def check_same(self, wanted: "Manifest", where: str) -> None:
        """Raise if rows of the manifest `wanted` cannot be added.

        Raises
        ------
        StoreError
            If their hashes cannot be compared with those of the store, or their keys differ in name or dtype.
        """
        pairs = [
            ("the key", self.key, wanted.key),
            ("the dtype of the key", self.key_dtype, wanted.key_dtype),
            *zip(Recipe._fields, self.recipe, wanted.recipe, strict=True),
            ("hash_types", ", ".join(self.hash_types), ", ".join(wanted.hash_types)),
            *((f"the version of {name}", dict(self.versions).get(name, made), made) for name, made in wanted.versions),
        ]
        differing = [
            f"{what} is {ours!r} in the store, {theirs!r} in this call"
            for what, ours, theirs in pairs
            if ours != theirs
        ]
        if differing:
            raise StoreError(
                f"cannot add to {where}: {'; '.join(differing)}\n"
                "Hint: pass the values of the store, or choose another target; nothing was changed."
            )


def _in_order(names: Collection[str]) -> list[str]:
    """Return names of hash kinds and measures in the order of columns, with unknown ones last."""
    known = (*KINDS, *MEASURES)
    return [*(name for name in known if name in names), *sorted(set(names).difference(known))]


def _taken(versions: Iterable[tuple[str, str]]) -> set[str]:
    """Return the names that a key cannot have, in a store with columns of these names."""
    perceptual = (kind.name for kind in KINDS.values() if kind.is_perceptual)
    return {*_OTHERS, *perceptual, *(name for name, _ in versions)}


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def parse_entries(text: str, where: str) -> object:
    """Return the entries in a JSON text, for `Manifest.parse`.

    Raises
    ------
    StoreError
        If it is not JSON.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _invalid_manifest(where, str(error)) from error


def check_table_columns(found: Mapping[str, object], wanted: Mapping[str, object], where: str) -> None:
    """Raise if the columns or dtypes of a table are not those of its manifest.

    Raises
    ------
    StoreError
        If they differ.
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


def _invalid_manifest(where: str, what: str) -> StoreError:
    return StoreError(
        f"cannot read the manifest of {where}, this is {made_by()}: {shown(what)}\n"
        "Hint: install the version that wrote it; nothing was changed."
    )
