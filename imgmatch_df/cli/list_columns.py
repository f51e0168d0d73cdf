"""Columns of a list of hashes that another program wrote: which of them has the hashes, their kinds, and their quality.

Names are compared in lower case and without punctuation: ``Signal-Value`` is ``signal_value``.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from imgmatch_df.errors import ColumnError
from imgmatch_df.frames.checks import shown_names
from imgmatch_df.hashes.forms import TextForm, form_of
from imgmatch_df.hashes.kinds import KINDS, HashKind

# Names of columns that hold hashes of any kind.
_HASH_NAMES: Final = (
    *("signalvalue", "signalval", "signalstr", "signal", "hashvalue", "hash", "hashes", "hashhex", "hexhash"),
    *("fingerprint", "fingerprintvalue", "indicator", "value", "hex", "digest"),
)
_KIND_NAMES: Final = (
    *("signaltype", "hashtype", "indicatortype", "fingerprinttype", "hashalgorithm", "algorithm", "algo", "type"),
    "kind",
)
_QUALITY_NAMES: Final = ("quality", "pdqquality", "hashquality", "qualityscore")
_ID_NAMES: Final = (
    *("contentid", "referenceid", "signalid", "hashid", "indicatorid", "entryid", "uuid", "guid", "id"),
    *("filename", "file", "path", "filepath", "url", "name"),
)
_OTHER_NAMES: Final = ("category", "label", "labels", "tags", "tag", "collab", "source", "url", "bank", "comment")
# Kinds of hashes that lists of hashes name and this package does not have.
_OTHER_KINDS: Final = ("md5", "sha1", "sha512", "crc32", "photodna", "pdna", "tmk", "vpdq", "ssdeep", "tlsh")
_OTHER_TYPES: Final = ("videomd5", "videotmk", "videovpdq", "rawtext", "trend_query", "trendquery", "url", "urlmd5")
_PREFIXES: Final = ("hash", "photo", "image")
_LETTERS: Final = re.compile("[a-fA-F]")


def plain(name: str) -> str:
    """Return a name in lower case without punctuation."""
    return re.sub(r"[\W_]+", "", name.lower())


def names_kind(text: str | None, kind: HashKind) -> bool:
    """Return whether a value such as ``"HASH_PDQ"`` names a kind."""
    found, own = plain(text or ""), plain(kind.name)
    return found == own or any(found == prefix + own for prefix in _PREFIXES)


def names_any_kind(text: str | None) -> bool:
    """Return whether a value names any kind of hash, also one that this package does not have."""
    found = plain(text or "")
    known = (*map(plain, KINDS), *_OTHER_KINDS)
    names = {*known, *_OTHER_TYPES, *(prefix + name for prefix in _PREFIXES for name in known)}
    return found in names


def is_known_name(name: str) -> bool:
    """Return whether a column of this name is one of those that lists of hashes have."""
    found = plain(name)
    return (
        found in (*_HASH_NAMES, *_KIND_NAMES, *_QUALITY_NAMES, *_ID_NAMES, *_OTHER_NAMES) or _kind_in(found) is not None
    )


def kind_column(columns: Sequence[str], sample: Mapping[str, Sequence[str | None]]) -> str | None:
    """Return the column that names the kind of each hash, by its name and values; None without one.

    Parameters
    ----------
    columns
        Names of the columns.
    sample
        Different values of the columns that may be it.
    """
    for wanted in _KIND_NAMES:
        for name in columns:
            if plain(name) == wanted and any(map(names_any_kind, sample.get(name, ()))):
                return name
    return None


def may_name_kinds(name: str) -> bool:
    """Return whether a column may name kinds of hashes, by its name."""
    return plain(name) in _KIND_NAMES


def quality_column(columns: Sequence[str]) -> str | None:
    """Return the column of qualities, by its name; None without one."""
    return next((name for wanted in _QUALITY_NAMES for name in columns if plain(name) == wanted), None)


def id_column(columns: Sequence[str]) -> str | None:
    """Return the column that names the rows, by its name; None without one."""
    return next((name for wanted in _ID_NAMES for name in columns if plain(name) == wanted), None)


def choose_hash_column(
    columns: Sequence[str],
    sample: Mapping[str, Sequence[str | None]],
    kind: HashKind,
    wanted: str | None,
    shown: str,
) -> str | None:
    """Return the column with hashes of a kind: by its name, else by its values; None without one.

    Parameters
    ----------
    columns
        Names of the columns.
    sample
        Values of the columns of text, of rows that have a hash of the kind.
    kind
        The kind.
    wanted
        The column that the call names, or None.
    shown
        The list, for messages.

    Raises
    ------
    ColumnError
        If `wanted` is not there, or several columns may have the hashes.
    """
    if wanted is not None:
        if wanted not in columns:
            raise ColumnError(
                f"no column {wanted!r} in {shown}, it has {shown_names(dict.fromkeys(columns))}\n"
                "Hint: --reference-column names one of these."
            )
        return wanted
    if kind.name in columns:
        return kind.name
    own = [name for name in columns if _kind_in(plain(name)) == kind.name]
    if len(own) == 1:
        return own[0]
    fitting = [name for name in columns if name in sample and _fits(sample[name], kind)]
    if not any(sample.values()):  # a header without rows
        fitting = [name for name in columns if plain(name) in _HASH_NAMES]
    named = [name for name in fitting if plain(name) in _HASH_NAMES]
    others = [name for name in fitting if _kind_in(plain(name)) is None and _fits(sample[name], kind, is_named=False)]
    found = own or named or others
    if len(found) > 1:
        raise ColumnError(
            f"several columns of {shown} may have the {kind.name}: {shown_names(dict.fromkeys(found))}\n"
            "Hint: --reference-column names the one to compare."
        )
    return found[0] if found else None


def _kind_in(name: str) -> str | None:
    """Return the kind in a plain name such as ``pdqhash``, None without one."""
    for kind in (*KINDS, *_OTHER_KINDS):
        own = plain(kind)
        if name == own or name in (f"{own}hash", f"hash{own}", f"{own}hex", f"{own}value", f"signals{own}"):
            return kind
    return None


def _fits(values: Iterable[str | None], kind: HashKind, *, is_named: bool = True) -> bool:
    """Return whether values are hashes of a kind: one of them where the column `is_named`, else at least half.

    Whole numbers are only hashes where the column `is_named`: an id is a whole number, too.
    """
    present = [value.strip() for value in values if value is not None and value.strip()]
    forms: list[TextForm | None] = [form_of(value, kind) for value in present]
    if is_named:
        return any(forms)
    has_letters = any(_LETTERS.search(value) for value in present)
    if kind.is_number:
        forms = [form if form == "bits" or (form == "hex" and has_letters) else None for form in forms]
    n_fitting = sum(form is not None for form in forms)
    return n_fitting > 0 and 2 * n_fitting >= len(forms)
