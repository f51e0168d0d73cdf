"""Warning of a cluster that is so large that it is probably a mistake."""

from typing import TYPE_CHECKING, Final

from imgmatch_df.errors import warn
from imgmatch_df.hashes.kinds import HashKind
from imgmatch_df.matching.linkages import LINKAGES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# A cluster of more than a tenth of the rows is probably a mistake, where there are enough rows to say so.
_FEW_ROWS: Final = 50
_LARGE_SHARE: Final = 10
_NO_CHAINS: Final = "linkage='star' does not chain."


def warn_of_near(
    labels: "NDArray[np.uint32]", distance: "NDArray[np.uint16]", radius: int, kind: HashKind, linkage: str
) -> None:
    """Warn where one cluster within a radius has so many of the rows that it is probably a mistake."""
    n_rows, largest, n_large = len(labels), *_largest(labels)
    if largest is None:
        return
    of_it = distance[labels == largest]
    n_equal = int((of_it == 0).sum())
    if n_equal * _LARGE_SHARE > n_rows:
        alike = "have equal hashes" if n_equal == n_large else f"are one cluster, {n_equal:,} with equal hashes"
        warn(
            f"{n_large:,} of {n_rows:,} rows {alike}: images with little to see, such as blank ones, or one image "
            "many times\nHint: look at some of them before you remove any."
        )
        return
    hints = {
        f"radius={kind.near_radius} finds edited copies.": radius > kind.near_radius,
        _NO_CHAINS: LINKAGES[linkage].chains,
        "near_duplicates gives the distance of every pair.": True,
    }
    warn(
        f"{n_large:,} of {n_rows:,} rows are one cluster, farthest {of_it.max()} bits: a radius of {radius} "
        f"of {kind.n_bits} bits may join unrelated images\n"
        f"Hint: {next(hint for hint, applies in hints.items() if applies)}"
    )


def warn_of_voted(labels: "NDArray[np.uint32]", votes: "NDArray[np.uint16]", min_votes: int, linkage: str) -> None:
    """Warn where one cluster of copies has so many of the rows that it is probably a mistake."""
    n_rows, largest, n_large = len(labels), *_largest(labels)
    if largest is None:
        return
    import numpy as np

    joined = votes[(labels == largest) & (labels != np.arange(n_rows))]
    hint = _NO_CHAINS if LINKAGES[linkage].chains else "near_duplicates gives the coverage of every pair."
    warn(
        f"{n_large:,} of {n_rows:,} rows are one cluster, fewest votes {joined.min()} at min_votes={min_votes}: images "
        f"that show one logo or interface, or one image many times\nHint: {hint}"
    )


def _largest(labels: "NDArray[np.uint32]") -> tuple[int | None, int]:
    """Return the label of the largest cluster and its number of rows; None where it is not too large."""
    import numpy as np

    n_rows = len(labels)
    if n_rows <= _FEW_ROWS:
        return None, 0
    sizes = np.bincount(labels)
    largest = int(sizes.argmax())
    n_large = int(sizes[largest])
    return (largest if n_large * _LARGE_SHARE > n_rows else None), n_large
