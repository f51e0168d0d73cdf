"""Counts of a report at each value of its slider: clusters, removed rows and the largest cluster."""

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from imgmatch_df.report.graph import Graph

    Array = NDArray[Any]


class Found(NamedTuple):
    """The clusters of rows at one value: the representative of each row, and whether the row is in the reference."""

    representative: "Array"
    is_known: "Array"
