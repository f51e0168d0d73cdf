"""Making of a report: its radius, the pairs, the order of preference, the thumbnails, and the data of the page."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import polars as pl

from imgmatch_df.columns import EXACT, HEIGHT, N_PAIRS, N_UNRELATED, RADIUS_BITS, SIZE, VOTES, WIDTH
from imgmatch_df.errors import ArgumentError
from imgmatch_df.frames import advice, clustering
from imgmatch_df.frames.advice import RadiusSuggestion
from imgmatch_df.frames.checks import Frame
from imgmatch_df.frames.reference import Nearest, find_nearest
from imgmatch_df.frames.votes import MIN_VOTES
from imgmatch_df.hashes.kinds import BMH1, SHA256
from imgmatch_df.options import SourceOptions
from imgmatch_df.progress import steps
from imgmatch_df.report import nodes
from imgmatch_df.report.counts import Grouping
from imgmatch_df.report.graph import Graph, most_pairs, spanning_graph, spanning_part, too_many, whole_graph
from imgmatch_df.report.inputs import Inputs, Request, read_inputs
from imgmatch_df.report.nodes import Names
from imgmatch_df.report.page import PAGE_SIZE, pack, to_json
from imgmatch_df.report.result import Counts, Report
from imgmatch_df.report.thumbnails import make_thumbnails

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

_MAX_RADIUS: Final = {BMH1.name: 96}  # of other kinds that up to which the verbs do not warn
_LEAST_VOTES: Final = 6  # that the slider shows
_MOST_VOTES: Final = 64
_PAGE_VERSION: Final = 1


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
        Counts at each radius, for all pairs and connected clusters; None for votes.
    """

    chosen: int
    limit: int
    suggestion: RadiusSuggestion | None
    profile: pl.DataFrame | None


class Picked(NamedTuple):
    """The nodes of a page.

    Parameters
    ----------
    rows
        (n,) int64: their rows in the frame, ascending.
    grouping
        How they are put into clusters.
    reference_ids
        Names of the nearest reference rows, null where there is none; None without a reference.
    """

    rows: "NDArray[np.int64]"  # noqa: F821
    grouping: Grouping
    reference_ids: pl.Series | None


def make_report(frame: Frame, request: Request, options: SourceOptions) -> Report:
    """Return the report of a call of `report`, or of a command."""
    inputs = read_inputs(frame, request, options)
    scale = _choose_scale(inputs)
    picked, scale = _pick_nodes(inputs, scale)
    return _assemble(inputs, scale, picked)
