"""Making of a report: its radius, the pairs, the order of preference, the thumbnails, and the data of the page."""

from datetime import UTC, datetime
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import polars as pl

from imgmatch_df.columns import (
    DISTANCE,
    FEWEST_VOTES,
    N_PAIRS,
    N_UNRELATED,
    RADIUS_BITS,
    SIZE,
    UNRELATED_SHARE,
    VOTES,
)
from imgmatch_df.errors import ArgumentError, without_warnings
from imgmatch_df.frames import advice, clustering
from imgmatch_df.frames.advice import SideProfile
from imgmatch_df.frames.checks import Frame
from imgmatch_df.frames.keeping import RuledRows
from imgmatch_df.frames.reference import find_nearest
from imgmatch_df.frames.suggestions import MAX_SHARE, MOST_VOTES, RadiusSuggestion, VotesSuggestion, radius_of, votes_of
from imgmatch_df.frames.votes import MIN_VOTES
from imgmatch_df.hashes.kinds import BMH1
from imgmatch_df.matching.linkages import LINKAGES
from imgmatch_df.options import SourceOptions
from imgmatch_df.progress import steps
from imgmatch_df.report import nodes, payload
from imgmatch_df.report.counts import NodeClusters
from imgmatch_df.report.graph import (
    Graph,
    most_pairs,
    spanning_graph,
    spanning_part,
    too_many,
    whole_graph,
)
from imgmatch_df.report.inputs import Inputs, ReportRequest, read_inputs
from imgmatch_df.report.nodes import Names
from imgmatch_df.report.payload import PageNodes
from imgmatch_df.report.places import choose_places
from imgmatch_df.report.result import Counts, Report
from imgmatch_df.report.thumbnails import make_thumbnails

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

_MAX_RADIUS: Final = {BMH1.name: 96}  # of other kinds that up to which the verbs do not warn
_LEAST_VOTES: Final = 6  # that the slider shows


class Scale(NamedTuple):
    """The values of the slider.

    Parameters
    ----------
    chosen
        The radius, or the number of votes, that the page begins with.
    limit
        The largest radius, or the smallest number of votes.
    suggestion
        Where the call names no radius.
    profile
        Counts at each value, smallest first, for all pairs; None where they were not needed.
    joined
        The join that the profile is of; None for votes.
    """

    chosen: int
    limit: int
    suggestion: RadiusSuggestion | VotesSuggestion | None
    profile: pl.DataFrame | None
    joined: SideProfile | None = None


def make_report(frame: Frame, request: ReportRequest, options: SourceOptions) -> Report:
    """Return the report of a call of `report`, or of a command."""
    inputs = read_inputs(frame, request, options)
    scale = _choose_scale(inputs)
    inputs.side.flat.warn_of_unknown()
    found, scale = _pick_nodes(inputs, scale)
    return _assemble(inputs, scale, found)


def _choose_scale(inputs: Inputs) -> Scale:
    """Return the radius or the votes of a page, and how far its slider goes."""
    request, kind = inputs.request, inputs.kind
    if kind.by_votes:
        return _choose_votes(inputs)
    largest = request.max_radius
    if largest is None:
        largest = _MAX_RADIUS.get(kind.name, kind.max_honest_radius or min(kind.n_bits, 2 * kind.near_radius))
    joined = _join(inputs, largest, most_pairs(inputs.rows.height) if request.max_radius is None else None)
    limit, suggestion, chosen = joined.last_radius, None, request.radius
    if chosen is None:
        suggestion = radius_of(joined.table, kind, MAX_SHARE)
        chosen = suggestion.radius or min(kind.near_radius, largest)
    if chosen > limit:
        joined, limit = _join(inputs, chosen, None), chosen
    return Scale(chosen, limit, suggestion, joined.table.filter(pl.col(RADIUS_BITS) <= limit), joined)


def _choose_votes(inputs: Inputs) -> Scale:
    chosen = inputs.request.min_votes
    if chosen is not None:
        return Scale(chosen, min(_LEAST_VOTES, chosen), None, None)
    with without_warnings():
        profile = advice.profile_radii(
            inputs.rows,
            inputs.kind.name,
            min_votes=_LEAST_VOTES,
            column=inputs.hash,
            flat=inputs.request.flat,
            progress=inputs.options.progress,
        )
    suggestion = votes_of(profile, MAX_SHARE)
    is_seen = suggestion.copies_seen and suggestion.min_votes < MOST_VOTES
    chosen = suggestion.min_votes if is_seen else MIN_VOTES
    return Scale(chosen, min(_LEAST_VOTES, chosen), suggestion, profile.sort(FEWEST_VOTES))


def _join(inputs: Inputs, max_radius: int, max_pairs: int | None) -> SideProfile:
    """Return what each radius finds; without `max_pairs`, the largest radius is joined whatever it takes."""
    with steps("joining", shown=inputs.options.progress) as step:
        return advice.profile_side(inputs.side, inputs.kind, max_radius, max_pairs, step)


def _pick_nodes(inputs: Inputs, scale: Scale) -> tuple[PageNodes, Scale]:
    """Return the nodes of a page, and the scale, whose limit is nearer where a page would have too many pairs."""
    import numpy as np

    graph, measures, limit = _find_graph(inputs, scale)
    scale = scale._replace(limit=limit)
    nearest = None
    is_node = np.zeros(inputs.rows.height, np.bool_)
    is_node[graph.left] = is_node[graph.right] = True
    if inputs.reference is not None:
        with without_warnings():
            nearest = find_nearest(
                inputs.rows,
                inputs.hash,
                inputs.reference,
                inputs.comparison(limit),
                guard=inputs.guard,
                progress=inputs.options.progress,
            )
        is_node[nearest.rows] = True
    rows = np.flatnonzero(is_node)
    number = np.zeros(len(is_node), np.int64)
    number[rows] = np.arange(len(rows))
    reference = None
    if nearest is not None:
        reference = np.full(len(rows), -1, np.int64)
        reference[number[nearest.rows]] = nearest.measure
    clusters = NodeClusters(
        graph._replace(left=number[graph.left], right=number[graph.right]),
        inputs.ruled.among(rows),
        inputs.linkage,
        VOTES if inputs.kind.by_votes else DISTANCE,
        reference,
    )
    ids = None if nearest is None else dict(zip(number[nearest.rows].tolist(), nearest.ids, strict=True))
    return PageNodes(rows, clusters, ids, measures), scale


def _find_graph(inputs: Inputs, scale: Scale) -> "tuple[Graph, Array | None, int]":
    """Return the pairs of rows of a page, the measures of all pairs, and the limit.

    The limit is nearer to the chosen value where there are too many pairs. The measures are None where pairs are not
    kept.
    """
    max_pairs, limit = most_pairs(inputs.rows.height), scale.limit
    if inputs.is_plain and scale.joined is not None:
        return spanning_graph(inputs.side, scale.joined), None, limit
    with without_warnings(), steps("joining", shown=inputs.options.progress) as step:
        while True:
            comparison = inputs.comparison(limit)
            try:
                graph = whole_graph(comparison, inputs.side, max_pairs, step)
            except ArgumentError as error:
                if limit == scale.chosen:
                    raise too_many(comparison, limit, max_pairs) from error
                limit = scale.chosen + (limit - scale.chosen) // 2 if limit > scale.chosen else scale.chosen
            else:
                break
    graph = graph.take(_is_allowed(graph, inputs.ruled))
    measures = graph.measure
    if inputs.reference is None and inputs.rule.not_duplicates is None and LINKAGES[inputs.linkage].chains:
        graph = spanning_part(graph, inputs.rows.height)
    return graph, measures, limit


def _is_allowed(graph: Graph, ruled: RuledRows) -> "Array":
    """Return which pairs count, by the conditions of the keep rule."""
    import numpy as np

    allowed = np.ones(len(graph.left), np.bool_)
    if ruled.across is not None:
        allowed &= ruled.across[graph.left] != ruled.across[graph.right]
    if ruled.within is not None:
        allowed &= ruled.within[graph.left] == ruled.within[graph.right]
    if ruled.excluded is not None:
        n_rows = len(ruled.order)
        pairs, excluded = (
            np.minimum(left, right).astype(np.int64) * n_rows + np.maximum(left, right)
            for left, right in ((graph.left, graph.right), ruled.excluded)
        )
        allowed &= ~np.isin(pairs, excluded)
    return allowed


def _assemble(inputs: Inputs, scale: Scale, found: PageNodes) -> Report:
    """Return the report of the nodes."""
    import numpy as np

    request, clusters = inputs.request, found.clusters
    representative = clusters.representatives(scale.chosen)
    removed = clusters.removed(representative, scale.chosen)
    profile = _profile_of(inputs, scale, found)
    names = Names(inputs.rows, inputs.label, request.id, inputs.options.base_dir)
    places = choose_places(inputs, found, representative)
    with steps("thumbnails", shown=inputs.options.progress) as step:
        batches = nodes.images_of(inputs.images, inputs.source, places.rows)
        after = np.arange(len(places.rows), places.n_thumbnails), places.references
        thumbnails = make_thumbnails(chain(batches, [after]), places.n_thumbnails, inputs.options, step)
    columns = payload.columns_of(inputs, found, names, places)
    sizes = np.array([size or 0 for size in columns[SIZE]], np.int64)
    counts = Counts(
        images=inputs.rows.height,
        failed=inputs.rows[inputs.hash].null_count(),
        clusters=int((np.bincount(representative, minlength=1) > 1).sum()),
        copies=int(removed.sum()),
        n_bytes=int(sizes[removed].sum()),
        in_reference=int(clusters.known(scale.chosen).sum()),
        thumbnails=sum(map(bool, thumbnails)),
    )
    packed = payload.pack_all(inputs, found, columns)
    about = payload.about_of(inputs, found, names, counts, profile, scale.chosen, scale.limit, scale.suggestion)
    about = payload.finished(about, packed, len(thumbnails), request.created or datetime.now(UTC))

    def find_clusters() -> pl.DataFrame:
        return clustering.cluster(
            inputs.rows,
            None if inputs.kind.by_votes else scale.chosen,
            inputs.kind.name,
            min_votes=scale.chosen if inputs.kind.by_votes else None,
            linkage=inputs.linkage,
            keep=request.keep,
            protect=request.protect,
            across=request.across,
            within=request.within,
            not_duplicates=request.not_duplicates,
            id=request.id,
            reference=inputs.reference,  # type: ignore[arg-type]  # public callers have no such object
            column=None if inputs.hash == inputs.kind.name else inputs.hash,
            flat=request.flat,
            turns=request.turns,
        ).drop(inputs.hidden)

    return Report(
        title=about["title"],
        hash_type=inputs.kind.name,
        radius=None if inputs.kind.by_votes else scale.chosen,
        min_votes=scale.chosen if inputs.kind.by_votes else None,
        suggestion=scale.suggestion,
        profile=profile,
        counts=counts,
        _about=about,
        _packed=packed,
        _thumbnails=thumbnails,
        _find_clusters=find_clusters,
    )


def _profile_of(inputs: Inputs, scale: Scale, found: PageNodes) -> pl.DataFrame:
    """Return the counts at each value of the slider, of the clusters that the page shows."""
    if inputs.is_plain and scale.profile is not None:
        return scale.profile
    values = range(scale.limit, MOST_VOTES + 1) if inputs.kind.by_votes else range(scale.limit + 1)
    counted = found.clusters.profile(values, found.measures)
    if scale.profile is None or inputs.request.turns or inputs.rule.has_conditions:
        return counted
    first = counted.columns[0]
    estimate = counted.select(first).join(scale.profile, on=first, how="left", maintain_order="left")
    share = estimate[N_UNRELATED] / counted[N_PAIRS].clip(1)
    return counted.with_columns(estimate[N_UNRELATED], share.alias(UNRELATED_SHARE))
