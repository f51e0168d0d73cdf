"""Choice of the images that a page shows, and their order in it."""

from typing import TYPE_CHECKING, Any, NamedTuple

from imgmatch_df.errors import Failure
from imgmatch_df.sources import parse_source

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from imgmatch_df.report.inputs import Inputs
    from imgmatch_df.report.payload import PageNodes

    Array = NDArray[Any]


class ThumbnailPlaces(NamedTuple):
    """The thumbnails of a page.

    Parameters
    ----------
    rows
        (m,) int64: the rows of the frame whose images come first, in their order.
    references
        The images of reference rows, which come after them.
    of_nodes
        (n,) int64: the position of the thumbnail of each node, -1 where it has none.
    of_references
        The positions of the thumbnails of reference rows, by their names.
    """

    rows: "Array"
    references: list[str]
    of_nodes: "Array"
    of_references: dict[str, int]

    @property
    def n_thumbnails(self) -> int:
        """Number of thumbnails."""
        return len(self.rows) + len(self.references)


def choose_places(inputs: "Inputs", found: "PageNodes", representative: "Array") -> ThumbnailPlaces:
    """Return the images to show: the kept and the farthest row of each cluster, reference rows, then all others.

    The largest clusters come first, as the page lists them: where there are more clusters than thumbnails, the first
    ones have both, and can be judged. Those of one cluster stand beside each other, because a browser reads some
    hundred thumbnails at a time.

    Parameters
    ----------
    inputs
        The rows.
    found
        The nodes.
    representative
        (n,): of each node, at the value that the page begins with.
    """
    import numpy as np

    n = len(found.rows)
    sizes = np.bincount(representative, minlength=n)[representative]
    nodes = np.arange(n)
    rank = np.empty(n, np.int64)
    rank[found.clusters.ruled.order] = nodes
    first = best_measures(found)
    away = distances_to(inputs, found, representative) if n else first
    is_alone = sizes == 1
    priority = np.where(is_alone, 3, 2)
    members = nodes[~is_alone & (representative != nodes)]
    by_distance = members[np.lexsort((rank[members], -away[members], representative[members]))]
    priority[by_distance[np.flatnonzero(np.diff(representative[by_distance].astype(np.int64), prepend=-1))]] = 1
    priority[~is_alone & (representative == nodes)] = 0
    known = np.zeros(n, np.bool_)
    if found.reference_ids is not None:
        known[list(found.reference_ids)] = True
        priority[known] = 0
    ids = [] if found.reference_ids is None else list(dict.fromkeys(found.reference_ids.values()))
    references = [one for one in ids if _is_image(one)]
    order = np.lexsort((rank, np.where(is_alone, first, representative), -sizes, np.maximum(priority, 1)))
    most = inputs.request.max_pictures
    n_references = min(len(references), most // 2)
    chosen = order[: most - n_references]
    chosen = chosen[np.lexsort((rank[chosen], priority[chosen] > 0, representative[chosen], -sizes[chosen]))]
    of_nodes = np.full(n, -1, np.int64)
    of_nodes[chosen] = np.arange(len(chosen))
    shown = references[:n_references]
    return ThumbnailPlaces(
        found.rows[chosen],
        shown,
        of_nodes,
        {one: len(chosen) + place for place, one in enumerate(shown)},
    )


def best_measures(found: "PageNodes") -> "Array":
    """Return how near the nearest other row of each node is, (n,) int64: smaller is nearer."""
    import numpy as np

    graph = found.clusters.graph
    measure = graph.measure.astype(np.int64)
    out = np.full(len(found.rows), 1 << 20, np.int64)
    key = 64 - measure if found.clusters.has_votes else measure
    for ends in (graph.left, graph.right):
        np.minimum.at(out, ends, key)
    return out


def distances_to(inputs: "Inputs", found: "PageNodes", representative: "Array") -> "Array":
    """Return how far each node is from its representative, (n,) int64; where that is not known, `best_measures`."""
    import numpy as np

    from imgmatch_df.hashes import codec
    from imgmatch_df.matching.clusters import representative_distances

    if inputs.kind.by_votes or inputs.request.turns:
        return best_measures(found)
    words = codec.hash_words(inputs.rows[inputs.hash].gather(found.rows), inputs.kind)
    return representative_distances(words, representative.astype(np.uint32)).astype(np.int64)


def _is_image(name: object) -> bool:
    """Return whether the name of a reference row is the path or the URL of its image."""
    source = parse_source(name) if isinstance(name, str) else Failure("missing", "")
    return not isinstance(source, Failure) and source.kind in ("path", "url")
