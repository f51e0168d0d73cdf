"""The images in an archive, as rows of a listing."""

from collections import Counter
from collections.abc import Iterator
from typing import Final, NamedTuple

import polars as pl

from imgmatch_df.archives.contents import LOST_LINK, UnreadableError
from imgmatch_df.archives.paths import join_member, sample_key
from imgmatch_df.archives.reading import open_contents
from imgmatch_df.columns import MODIFIED, PATH, SAMPLE_KEY, SIZE
from imgmatch_df.images.folders import OTHER_FILE, Finder, LeftOut, listed_suffixes, suffix_of, unread_reason
from imgmatch_df.sources import path_as_text

_SCHEMA: Final = {PATH: pl.String(), SIZE: pl.UInt64(), MODIFIED: pl.Int64(), SAMPLE_KEY: pl.String()}


class Members(NamedTuple):
    """The images in an archive.

    Parameters
    ----------
    frames
        Their rows in the order of the archive, `modified` in microseconds.
    left_out
        Numbers of other files in the archive, by reason and suffix.
    unlisted
        The archive and why not all of it is listed; None if it is.
    """

    frames: Iterator[pl.DataFrame]
    left_out: Counter[LeftOut]
    unlisted: str | None


def list_members(archive: str, n_rows: int, *, has_keys: bool, finder: Finder) -> Members:
    """List the members of an archive that have an image suffix.

    Parameters
    ----------
    archive
        Its path.
    n_rows
        Maximum number of rows in one frame.
    has_keys
        Whether the column of keys is computed; else it is null.
    finder
        Has the rules of the listing, which apply to the folders and files in the archive too.
    """
    shown = path_as_text(archive)
    left_out: Counter[LeftOut] = Counter()
    try:
        contents, modified = open_contents(archive)
    except UnreadableError as error:
        return Members(iter(()), left_out, f"{shown!r} ({error})")
    chosen, listed = [], listed_suffixes()
    for at, text in enumerate(contents.texts):
        suffix = suffix_of(text.rpartition("/")[2])
        if suffix in listed and (reason := finder.member_reason(archive, text)) is not None:
            left_out[reason, suffix] += 1
        elif suffix in listed:
            chosen.append(at)
        else:
            left_out[unread_reason(suffix) or OTHER_FILE, suffix] += 1
    if contents.n_others:
        left_out[OTHER_FILE, ""] += contents.n_others

    def frames() -> Iterator[pl.DataFrame]:
        for start in range(0, len(chosen), n_rows):
            part = chosen[start : start + n_rows]
            sizes = [None if contents.kind[at] == LOST_LINK else contents.size[at] for at in part]
            keys = [sample_key(contents.names[at]) for at in part] if has_keys else [None] * len(part)
            columns = {
                PATH: [join_member(shown, contents.texts[at]) for at in part],
                SIZE: sizes,
                MODIFIED: [modified] * len(part),
                SAMPLE_KEY: keys,
            }
            yield pl.DataFrame(columns, _SCHEMA)

    return Members(frames(), left_out, contents.note and f"the rest of {shown!r} ({contents.note})")
