"""The data of a page, as Python objects of JSON and as packed text."""

import base64
import hashlib
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import polars as pl

from imgmatch_df.columns import N_CLUSTERS, N_LARGEST, N_PAIRS, N_REMOVED, N_UNRELATED
from imgmatch_df.frames.keeping import KeepRule
from imgmatch_df.hashes.kinds import SHA256
from imgmatch_df.report import nodes
from imgmatch_df.report.nodes import Names, path_and_link
from imgmatch_df.report.page import PAGE_SIZE, pack, page_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from imgmatch_df.frames.suggestions import RadiusSuggestion, VotesSuggestion
    from imgmatch_df.report.counts import NodeClusters
    from imgmatch_df.report.inputs import Inputs
    from imgmatch_df.report.places import ThumbnailPlaces
    from imgmatch_df.report.result import Counts

    Array = NDArray[Any]

_VERSION: Final = 1
_TITLE: Final = "Near-duplicate images"
_REASONS: Final = {"rule": "first by the keep rule"}  # of other rules: their name
_PROTECTED: Final = "protected"
_COUNTS: Final = (N_PAIRS, N_CLUSTERS, N_REMOVED, N_LARGEST)


class PageNodes(NamedTuple):
    """The nodes of a page: the rows that are in a pair, or match a reference row.

    Parameters
    ----------
    rows
        (n,) int64: their rows in the frame, ascending.
    clusters
        How they are put into clusters.
    reference_ids
        Names of the nearest reference rows by node; None without a reference.
    measures
        Of all pairs; None where only a spanning forest was kept.
    """

    rows: "NDArray[Any]"
    clusters: "NodeClusters"
    reference_ids: dict[int, Any] | None
    measures: "Array | None"


def columns_of(inputs: "Inputs", found: PageNodes, names: Names, places: "ThumbnailPlaces") -> dict[str, Any]:
    """Return the columns of the nodes."""
    import numpy as np

    ruled = found.clusters.ruled
    paths, links = names.paths(found.rows)
    rank = np.empty(len(found.rows), np.int64)
    rank[ruled.order] = np.arange(len(rank))
    columns: dict[str, Any] = {
        "row": found.rows.tolist(),
        "id": names.ids(found.rows),
        "path": paths,
        "link": links,
        **nodes.facts_of(inputs.rows, found.rows),
        "rank": rank.tolist(),
        "protected": ruled.protected.astype(int).tolist(),
        "group": None if ruled.across is None else np.unique(ruled.across, return_inverse=True)[1].tolist(),
        "place": places.of_nodes.tolist(),
        "reason_kept": _reasons(inputs.rule, ruled.protected),
        "reference": _references(inputs, found, places),
    }
    if ruled.excluded is not None:
        columns["apart"] = np.stack(ruled.excluded, axis=1).tolist()
    if (identical := _identical(inputs, found.rows)) is not None:
        columns["identical_files"] = identical
    return columns


def _reasons(rule: KeepRule, is_protected: "Array") -> list[str]:
    plain = _REASONS.get(rule.name, f"{rule.name} of its cluster")
    return [_PROTECTED if one else plain for one in is_protected.tolist()]


def _references(inputs: "Inputs", found: PageNodes, places: "ThumbnailPlaces") -> list[dict[str, Any] | None] | None:
    """Return the nearest reference row of each node, None for a node that has none."""
    if found.reference_ids is None or found.clusters.reference is None:
        return None
    out: list[dict[str, Any] | None] = [None] * len(found.rows)
    measures = found.clusters.reference.tolist()
    for node, name in found.reference_ids.items():
        path, link = path_and_link(name, inputs.options.base_dir) if isinstance(name, str) else (None, None)
        place = places.of_references.get(name, -1)
        out[node] = {"id": path or str(name), "measure": measures[node], "link": link, "place": place}
    return out


def _identical(inputs: "Inputs", rows: "Array") -> list[list[int]] | None:
    """Return pairs of nodes whose files are equal: of each file its first node and another one."""
    if inputs.rows.schema.get(SHA256.name) not in (pl.Binary, pl.String):
        return None
    digests = pl.DataFrame([inputs.rows[SHA256.name].gather(rows).alias("digest")]).with_row_index("node").drop_nulls()
    first = digests.with_columns(pl.col("node").first().over("digest").alias("first"))
    return [list(pair) for pair in first.filter(pl.col("first") != pl.col("node")).select("first", "node").rows()]


def pack_all(inputs: "Inputs", found: PageNodes, columns: dict[str, Any]) -> dict[str, str]:
    """Return the packed elements of a page."""
    graph = found.clusters.graph
    placement = {
        name: [round(one, 4) for one in column.tolist()] if column.dtype.kind == "f" else column.tolist()
        for name, column in graph.placement.items()
    }
    pairs = {"a": graph.left.tolist(), "b": graph.right.tolist(), "measure": graph.measure.tolist(), **placement}
    return {
        "rows": pack(page_json(columns).encode("ascii")),
        "pairs": pack(page_json(pairs).encode("ascii")),
        "hashes": base64.b64encode(_hashes(inputs, found.rows)).decode("ascii"),
    }


def _hashes(inputs: "Inputs", rows: "Array") -> bytes:
    """Return the hashes of the nodes, equally many bytes each; empty where their distance is not that of bits."""
    if inputs.kind.by_votes or inputs.request.turns:
        return b""
    column = inputs.rows[inputs.hash].gather(rows)
    if inputs.kind.is_number:
        return bytes(column.to_numpy().astype(">u8").tobytes())
    return b"".join(column.to_list())


def about_of(
    inputs: "Inputs",
    found: PageNodes,
    names: Names,
    counts: "Counts",
    profile: pl.DataFrame,
    chosen: int,
    limit: int,
    suggestion: "RadiusSuggestion | VotesSuggestion | None",
) -> dict[str, Any]:
    """Return what a page says about itself, without its digest and its time."""
    import numpy as np

    request, kind, rows = inputs.request, inputs.kind, inputs.rows
    failed = np.flatnonzero(rows[inputs.hash].is_null().to_numpy())
    flat = inputs.side.flat.rows
    first = profile.columns[0]
    n_pairs = profile[N_PAIRS][0 if kind.by_votes else -1]
    return {
        "version": _VERSION,
        "title": _TITLE if request.title is None else _valid(request.title),
        "program": f"imgmatch-df {version('imgmatch-df')}",
        "command": None if request.command is None else _valid(request.command),
        "hash_type": kind.name,
        "hash_bits": None if kind.by_votes else kind.n_bits,
        "measure": found.clusters.measure,
        "decode": inputs.decode,
        "linkage": inputs.linkage,
        "keep": inputs.rule.name,
        "across": inputs.rule.across is not None,
        "chosen": chosen,
        "limit": limit,
        "suggestion": None if suggestion is None else suggestion.reason,
        "counts": {
            "rows": counts.images,
            "hashed": counts.images - counts.failed,
            "failed": counts.failed,
            "flat": len(flat),
            "pairs": n_pairs,
        },
        "left_out": [dict(one) for one in request.left_out],
        "profile": {name: profile[name].to_list() for name in (first, *_COUNTS, N_UNRELATED)},
        "failed": nodes.failed_rows(rows, failed, names),
        "flat": names.labels(flat[: nodes.MAX_LISTED]),
    }


def _valid(text: str) -> str:
    """Return text that UTF-8 can hold: an argument of a command may have bytes that are not UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def finished(about: dict[str, Any], packed: dict[str, str], n_thumbnails: int, created: datetime) -> dict[str, Any]:
    """Return `about` with the digest of what the page shows, the time, and the number of thumbnails."""
    options = {name: value for name, value in about.items() if name not in ("title", "program", "command")}
    text = "\n".join([page_json(options), *packed.values()])
    return {
        **about,
        "digest": hashlib.sha256(text.encode("ascii")).hexdigest(),
        "created": created.astimezone(UTC).isoformat(timespec="seconds"),
        "thumbnails": {"count": n_thumbnails, "page_size": PAGE_SIZE},
    }
