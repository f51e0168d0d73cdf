"""The flat guard: images with too little to see for a hash match identical files only.

Any two flat areas, soft gradients or split areas have nearly equal hashes, of whatever kind.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeVar, get_args

import polars as pl

from imgmatch_df.columns import QUALITY
from imgmatch_df.errors import TooManyPairsError, warn
from imgmatch_df.hashes.kinds import MEASURES, SHA256, HashKind
from imgmatch_df.options import check_choice

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Rows = NDArray[np.int64]

Flat = Literal["identical", "match"]
PairsT = TypeVar("PairsT", bound="tuple[Any, ...]")

MIN_QUALITY: Final = 50  # of images that are compared by their hashes
_DIGEST: Final = "digest"
_HASH: Final = "hash"
_ROW: Final = "row"


class Guard(NamedTuple):
    """The columns that show which images are flat, and which of these are identical.

    Parameters
    ----------
    quality
        Column of qualities, `UInt8`. None where there is none: then `HashKind.flat_hashes` are flat.
    digest
        Column of digests, `Binary` or hexadecimal text. None where there is none: then a flat image matches nothing.
    """

    quality: str | None = None
    digest: str | None = None

    @classmethod
    def of(cls, schema: Mapping[str, Any]) -> "Guard":
        """Return the guard of a frame that has its hashes."""
        has_quality = schema.get(QUALITY) == MEASURES[QUALITY].dtype
        has_digest = schema.get(SHA256.name) in (pl.Binary, pl.String)
        return cls(QUALITY if has_quality else None, SHA256.name if has_digest else None)

    @property
    def columns(self) -> list[str]:
        """The columns that it reads."""
        return [name for name in self if name is not None]

    def find(self, frame: pl.DataFrame, hashes: pl.Series, kind: HashKind) -> "FlatRows":
        """Return the flat rows of a frame, whose `hashes` are in the dtype of their kind."""
        has_hash = pl.col(_HASH).is_not_null()
        is_flat = pl.col(_HASH).is_in(list(kind.flat_hashes)) if kind.flat_hashes else pl.lit(value=False)
        read = [hashes.alias(_HASH)]
        if self.quality is not None:
            read.append(frame[self.quality].alias(QUALITY))
            quality = pl.col(QUALITY)
            is_flat = pl.when(quality.is_not_null()).then(quality < MIN_QUALITY).otherwise(is_flat)
        # One query: a ranking by one hash takes 0.2 ms less than with a call for each step.
        rows = pl.DataFrame(read).select(pl.arg_where(is_flat & has_hash)).to_series()
        if self.digest is None:
            digests = pl.Series([None], dtype=pl.String).new_from_index(0, len(rows))
        else:
            digests = frame[self.digest].gather(rows)
            digests = digests.bin.encode("hex") if digests.dtype == pl.Binary else digests.str.to_lowercase()
        return FlatRows(rows.cast(pl.Int64).to_numpy(), digests)


class RowPairs(NamedTuple):
    """Pairs of rows, by their numbers, and their distances in bits."""

    left: "Rows"
    right: "Rows"
    distance: "NDArray[np.uint16]"


class FlatRows(NamedTuple):
    """The flat rows of a frame, in order, and their digests: hexadecimal text, null where unknown."""

    rows: Any  # (n,) int64
    digests: pl.Series

    def _known(self) -> pl.DataFrame:
        return pl.DataFrame({_ROW: self.rows, _DIGEST: self.digests}).drop_nulls(_DIGEST)

    def pairs(self, max_pairs: int) -> "tuple[Rows, Rows]":
        """Return the pairs of rows that are identical, the first row first; raise above `max_pairs`."""
        known = self._known()
        n_pairs = known.group_by(_DIGEST).len().select((pl.col("len").cast(pl.Int64) * (pl.col("len") - 1) // 2).sum())
        _check_n_pairs(int(n_pairs.item() or 0), max_pairs)
        found = known.join(known, on=_DIGEST).filter(pl.col(_ROW) < pl.col(f"{_ROW}_right"))
        return found[_ROW].to_numpy(), found[f"{_ROW}_right"].to_numpy()

    def pairs_with(self, other: "FlatRows", max_pairs: int) -> "tuple[Rows, Rows]":
        """Return the pairs of a row and a row of `other` that are identical; raise above `max_pairs`."""
        known, others = self._known(), other._known()
        counts = known.join(others.group_by(_DIGEST).len(), on=_DIGEST)
        _check_n_pairs(int(counts["len"].cast(pl.Int64).sum()), max_pairs)
        found = known.join(others, on=_DIGEST)
        return found[_ROW].to_numpy(), found[f"{_ROW}_right"].to_numpy()

    def first_of(self, other: "FlatRows") -> "tuple[Rows, Rows]":
        """Return the rows that are identical to rows of `other`, and the first of these for each."""
        firsts = other._known().unique(_DIGEST, keep="first", maintain_order=True)
        found = self._known().join(firsts, on=_DIGEST, maintain_order="left")
        return found[_ROW].to_numpy(), found[f"{_ROW}_right"].to_numpy()

    def among(self, is_there: "NDArray[np.bool_]") -> "FlatRows":
        """Return those of the rows for which `is_there`, one value for each row of the frame, is true."""
        kept = is_there[self.rows]
        return FlatRows(self.rows[kept], self.digests.filter(pl.Series(kept)))

    def representatives(self, order: "NDArray[np.uint32]") -> "Rows":
        """Return for each of these rows the best one of those that are identical to it.

        Parameters
        ----------
        order
            Positions among these rows in the order of preference, the best first.
        """
        ranks = pl.DataFrame({_ROW: self.rows, _DIGEST: self.digests})[order].with_columns(rank=pl.int_range(pl.len()))
        unknown = pl.format("row {}", _ROW)  # a digest of its own
        best = ranks.with_columns(
            pl.col(_ROW).sort_by("rank").first().over(pl.coalesce(_DIGEST, unknown)).alias("best")
        )
        return best.sort(_ROW)["best"].to_numpy()

    def warn_of_unknown(self) -> None:
        """Warn where several rows match nothing because their digests are not known."""
        n_unknown = self.digests.null_count()
        if n_unknown > 1:
            warn(
                f"{n_unknown:,} images show too little to be compared by their hashes, and match nothing: without a "
                f"column {SHA256.name!r} it is not known which files are identical\n"
                f"Hint: hash_types={SHA256.name!r} makes it, flat='match' compares their hashes."
            )


def nothing_flat() -> FlatRows:
    """Return no rows."""
    import numpy as np

    return FlatRows(np.zeros(0, np.int64), pl.Series([], dtype=pl.String))


def check_flat(flat: object) -> bool:
    """Return whether flat images match identical files only; raise `ArgumentError` for an unknown `flat`."""
    hint = "'match' also compares images with little to see by their hashes."
    check_choice("flat", flat, get_args(Flat), hint)
    return flat == "identical"


def _check_n_pairs(n_pairs: int, max_pairs: int) -> None:
    if n_pairs > max_pairs:
        raise TooManyPairsError(
            f"more than max_pairs={max_pairs:,} pairs: {n_pairs:,} are of identical images with little to see\n"
            "Hint: cluster() groups them without making pairs; or raise max_pairs."
        )


def guard_columns(guard: Guard | None) -> list[str]:
    """Return the columns that a guard reads, if there is one."""
    return [] if guard is None else guard.columns


def with_identical(pairs: PairsT, identical: "tuple[Rows, Rows]") -> PairsT:
    """Return pairs of rows with those of `identical`, sorted by left, then right.

    Parameters
    ----------
    pairs
        A named tuple of arrays: left and right rows, and what is 0 for identical images, such as their distance.
    identical
        The left and right rows of further pairs.
    """
    import numpy as np

    nothing = (np.zeros(len(identical[0]), column.dtype) for column in pairs[2:])
    columns = [np.concatenate(both) for both in zip(pairs, (*identical, *nothing), strict=True)]
    order = np.lexsort([columns[1], columns[0]])
    return type(pairs)(*(column[order] for column in columns))
