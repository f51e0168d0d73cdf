"""The SOURCE arguments of a command that compares splits: which of them are one split, and its name."""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Final

from imgmatch_df.errors import ArgumentError
from imgmatch_df.images.folders import KNOWN_SUFFIXES
from imgmatch_df.options import shown
from imgmatch_df.sources import path_as_text
from imgmatch_df.store.base import is_uri

# What the names of the shards of one split differ in: 00000-of-00002, with a digest behind it, or a number.
_SHARDS: Final = re.compile(r"(^|[-_. ])(\d+[-_]of[-_]\d+([-_.][0-9a-f]{8,})?|\d+([-_. ]\d+)*)$")
_WILDCARDS: Final = re.compile(r"\[[^]]*\]|[*?]")
_SEPARATORS: Final = "-_. "


def group_sources(sources: Sequence[str], names: Sequence[str]) -> dict[str, list[str]]:
    """Return the sources of each split by its name, in the order of the arguments.

    Files of one folder whose names differ only in numbers at the end are the shards of one split, which has the name
    without them: ``train-00000-of-00002.parquet`` is of ``train``. Images, and files that have only a number as name,
    are of the split of their folder. A folder is a split. Splits of equal names get the names of their folders too.

    Parameters
    ----------
    sources
        The arguments.
    names
        The value of --names: one name for each argument, where equal names are one split, or one for each split.

    Raises
    ------
    ArgumentError
        If there are fewer than two splits, or another number of names.
    """
    places: dict[str, list[str]] = {}
    for given in sources:
        places.setdefault(path_as_text(_place(given)).replace(os.sep, "/"), []).append(given)
    if any(not name for name in names):
        raise ArgumentError(f"--names has an empty name, got {shown(','.join(names))}\nHint: --names train,test.")
    if not names:
        groups = dict(zip(_short_names(list(places)), places.values(), strict=True))
    elif len(names) == len(sources):
        groups = _merged(names, [[given] for given in sources])
    elif len(names) == len(places):
        groups = _merged(names, list(places.values()))
    else:
        found = dict(zip(_short_names(list(places)), places.values(), strict=True))
        raise ArgumentError(
            f"--names {','.join(names)!r:.80} names neither each of the {len(sources)} SOURCE arguments nor each of "
            f"the {len(places)} splits: {_shown_groups(found)}\n"
            "Hint: pass one name for each argument, or one for each split."
        )
    if len(groups) < 2:
        raise ArgumentError(
            f"leaks are between two splits or more, got {_shown_groups(groups)}\n"
            "Hint: --names train,test names the split of each SOURCE."
        )
    return groups


def _place(given: str) -> str:
    """Return the path that the sources of one split have in common."""
    if is_uri(given):
        folder, _, name = given.rstrip("/").rpartition("/")
        return f"{folder}/{_split_name(name) or name}"
    path = os.path.abspath(os.path.expanduser(given))  # noqa: PTH100, PTH111  # it may be a glob
    folder, name = os.path.split(path)
    if os.path.isdir(path):  # noqa: PTH112
        return path
    while os.path.basename(folder).strip("*") == "" and os.path.dirname(folder) != folder:  # noqa: PTH119, PTH120
        folder = os.path.dirname(folder)  # noqa: PTH120  # train/** is train
    is_image = os.path.splitext(name)[1].lower() in KNOWN_SUFFIXES  # noqa: PTH122
    stem = "" if is_image else _split_name(name)
    return f"{folder}/{stem}" if stem else folder


def _split_name(name: str) -> str:
    """Return the name of a file without its suffix, wildcards and the numbers of shards."""
    stem = _WILDCARDS.sub("", os.path.splitext(name)[0]).strip(_SEPARATORS)  # noqa: PTH122
    return _SHARDS.sub("", stem).strip(_SEPARATORS)


def _short_names(places: Sequence[str]) -> list[str]:
    """Return the last part of each path, with as many folders before it as make the names differ."""
    parts = [[part for part in place.split("/") if part] or ["/"] for place in places]
    lengths = [1] * len(places)
    while True:
        names = ["/".join(part[-length:]) for part, length in zip(parts, lengths, strict=True)]
        equal = [at for at, name in enumerate(names) if names.count(name) > 1 and lengths[at] < len(parts[at])]
        if not equal:
            return names
        for at in equal:
            lengths[at] += 1


def _merged(names: Sequence[str], groups: Sequence[list[str]]) -> dict[str, list[str]]:
    merged: dict[str, list[str]] = {}
    for name, group in zip(names, groups, strict=True):
        merged.setdefault(name, []).extend(group)
    return merged


def _shown_groups(groups: Mapping[str, Sequence[str]]) -> str:
    return ", ".join(f"{name} ({group_text(group)})" for name, group in groups.items())


def group_text(sources: Sequence[str]) -> str:
    """Return the sources of a split for a message."""
    return sources[0] if len(sources) == 1 else f"{sources[0]} and {len(sources) - 1:,} more"
