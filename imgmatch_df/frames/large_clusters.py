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


def warn_of_large(
    labels: "NDArray[np.uint32]", distance: "NDArray[np.uint16]", radius: int, kind: HashKind, linkage: str
) -> None:
    """Warn where one cluster has so many of the rows that it is probably a mistake."""
    import numpy as np

    n_rows = len(labels)
    if n_rows <= _FEW_ROWS:
        return
    sizes = np.bincount(labels)
    largest = int(sizes.argmax())
    n_large = int(sizes[largest])
    if n_large * _LARGE_SHARE <= n_rows:
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
        "linkage='star' does not chain.": LINKAGES[linkage].chains,
        "near_duplicates gives the distance of every pair.": True,
    }
    warn(
        f"{n_large:,} of {n_rows:,} rows are one cluster, farthest {of_it.max()} bits: a radius of {radius} "
        f"of {kind.n_bits} bits may join unrelated images\n"
        f"Hint: {next(hint for hint, applies in hints.items() if applies)}"
    )
