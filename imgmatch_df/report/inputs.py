"""The arguments of a report, checked, and the hashed rows that it is about."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any, Final

import polars as pl

from imgmatch_df.errors import ArgumentError, without_warnings
from imgmatch_df.frames import expressions
from imgmatch_df.frames.checks import Frame, JoinSide, VerbCall
from imgmatch_df.frames.comparison import Comparison
from imgmatch_df.frames.criteria import check_comparison
from imgmatch_df.frames.flat import Flat, Guard
from imgmatch_df.frames.grouping import check_linkage, check_reference
from imgmatch_df.frames.keeping import Column, KeepBy, KeepRule, RuledRows
from imgmatch_df.frames.layout import free_name, without_bytes
from imgmatch_df.frames.reference import Reference
from imgmatch_df.frames.source_columns import checked_source
from imgmatch_df.hashes import forms
from imgmatch_df.hashes.kinds import BMH1, SHA256, HashKind, hash_kind
from imgmatch_df.image_columns import holds_bytes
from imgmatch_df.matching.linkages import LINKAGES
from imgmatch_df.options import Options, SourceOptions, make_options, shown, whole_number
from imgmatch_df.report import nodes
from imgmatch_df.store.base import Target

MAX_PICTURES: Final = 5_000


@dataclass(frozen=True)
class ReportRequest:
    """The arguments of `report`, and what only a command knows.

    Parameters
    ----------
    radius, hash_type, min_votes, linkage, keep, protect, across, within, not_duplicates, id, reference, reference_id
        As `report`. The reference may be a `Reference`.
    reference_column, column, source, flat, turns, max_radius, max_pictures, title
        As `report`.
    command
        The command that was called, for the page.
    decode
        How stored hashes were decoded; None if it is not known.
    left_out
        Numbers of files that are no rows of the frame, by reason.
    images, label
        Where the frame has not the column of images but was made of it: a frame that has it, with the same rows; and
        the column of the frame that has their paths.
    created
        Time of the report; None is now.
    """

    radius: int | None = None
    hash_type: str = BMH1.name
    min_votes: int | None = None
    linkage: str | None = None
    keep: KeepBy = "first"
    protect: Column | None = None
    across: Column | None = None
    within: Column | None = None
    not_duplicates: Frame | None = None
    id: str | None = None
    reference: Frame | Target | Reference | None = None
    reference_id: str | None = None
    reference_column: str | None = None
    column: str | None = None
    source: Column | None = None
    flat: Flat = "identical"
    turns: bool | None = None
    max_radius: int | None = None
    max_pictures: int = MAX_PICTURES
    title: str | None = None
    command: str | None = None
    decode: str | None = None
    left_out: Sequence[Mapping[str, Any]] = ()
    images: pl.LazyFrame | None = None
    label: str | None = None
    created: datetime | None = None


@dataclass(frozen=True)
class Inputs:
    """What a report is made of.

    Parameters
    ----------
    request
        The arguments.
    options
        How images are read.
    kind
        What is compared.
    linkage
        Name of the linkage.
    rows
        The rows with their hashes, which have the dtype of the kind.
    source
        Column of images, None if there is none.
    label
        Column with their paths or URLs, None if there is none.
    images
        Frame with the column of images, None if there is none.
    hash
        Column of hashes.
    guard
        Columns that show which images are flat, None where these are compared as others.
    rule
        Which row of a cluster is kept, and which pairs count.
    reference
        The reference side, None if there is none.
    decode
        How the hashes were made, None if it is not known.
    hidden
        Columns of `rows` that the user does not see.
    """

    request: ReportRequest
    options: Options
    kind: HashKind
    linkage: str
    rows: pl.DataFrame
    source: str | None
    label: str | None
    images: Frame | None
    hash: str
    guard: Guard | None
    rule: KeepRule
    reference: Reference | None
    decode: str | None
    hidden: tuple[str, ...] = ()

    @cached_property
    def side(self) -> JoinSide:
        """The rows to compare."""
        return JoinSide(self.rows, self.kind, self.hash, None, self.guard)

    @cached_property
    def ruled(self) -> RuledRows:
        """What the rule says about the rows."""
        return self.rule.of_frame(self.rows)

    def comparison(self, value: int) -> Comparison:
        """Return the comparison at a radius, or at a number of votes; without a warning of the radius."""
        with without_warnings():
            radius, votes = (None, value) if self.kind.by_votes else (value, None)
            return check_comparison(self.kind.name, radius, votes, self.request.turns)

    @property
    def is_plain(self) -> bool:
        """Whether the clusters of all radii are those of a forest, found without keeping pairs."""
        no_pairs = not self.kind.by_votes and not self.request.turns
        return no_pairs and LINKAGES[self.linkage].chains and self.reference is None and not self.rule.has_conditions


def read_inputs(frame: Frame, request: ReportRequest, options: SourceOptions) -> Inputs:
    """Return the checked arguments and the hashed rows.

    Raises
    ------
    ArgumentError, ColumnError, StoreError, RowError
        As `report`.
    """
    checked = make_options(**options)
    kind = hash_kind(request.hash_type)
    comparison = check_comparison(kind.name, request.radius, request.min_votes, request.turns, default_radius=0)
    linkage = check_linkage(request.linkage, comparison)
    request = _check_request(request, kind)
    own = frame.collect_schema() if isinstance(frame, pl.DataFrame | pl.LazyFrame) else {}
    frame, request = _with_images(frame, request)
    call, hashed = _hashed(frame, request, kind, checked, options)
    schema = hashed.collect_schema()
    reference = check_reference(request.reference, call, request.reference_id, request.reference_column)
    rule = KeepRule.check(
        schema,
        request.keep,
        protect=request.protect,
        across=request.across,
        within=request.within,
        not_duplicates=request.not_duplicates,
        id=request.id,
    )
    source = nodes.find_source(schema) if request.source is None else str(request.source)
    images: Frame | None = frame if request.images is None else request.images
    if source is not None and isinstance(frame, pl.LazyFrame) and holds_bytes(schema.get(source)):
        # Read again for the thumbnails, so that not all images are in memory.
        used = {name for expr in rule.expressions for name in expr.meta.root_names()} | {request.id}
        if source not in used:
            left = without_bytes(pl.col(source), schema[source])
            hashed = hashed.drop(source) if left is None else hashed.with_columns(left[0].alias(source))
    rows = hashed.lazy().collect(engine="streaming") if isinstance(hashed, pl.LazyFrame) else hashed
    if source is None or rows.schema.get(source) == schema.get(source) is not None:
        images = rows
    is_made = call.source is not None
    hash_name = kind.name if is_made else call.hash
    if rows.schema[hash_name] != kind.dtype:
        rows = rows.with_columns(forms.read_column(rows[hash_name], kind))
    return Inputs(
        request=request,
        options=checked,
        kind=kind,
        linkage=linkage,
        rows=rows,
        source=source,
        label=request.label or nodes.find_label(schema, source),
        images=images,
        hash=hash_name,
        guard=Guard.of(schema) if is_made and call.guard is not None else call.guard,
        rule=rule,
        reference=reference,
        decode=checked.recipe.text if is_made else request.decode,
        hidden=tuple({call.source_name or "", source or ""}.intersection(rows.columns).difference(own)),
    )


def _hashed(
    frame: Any, request: ReportRequest, kind: HashKind, checked: Options, options: SourceOptions
) -> tuple[VerbCall[Any], Any]:
    """Return the checked call, and the frame with its hashes."""
    progress: SourceOptions = {"progress": checked.progress}
    needs_images = request.source is not None and request.images is None
    if not isinstance(frame, pl.DataFrame | pl.LazyFrame) or not needs_images or request.source is None:
        call = VerbCall.check(frame, kind, None, progress, column=request.column, id=request.id, flat=request.flat)
        return call, frame
    schema, source = frame.collect_schema(), request.source
    if request.column is not None or kind.name in schema:
        call = VerbCall.check(frame, kind, None, progress, column=request.column, id=request.id, flat=request.flat)
        return call, frame
    call = VerbCall.check(frame, kind, source, options, id=request.id, flat=request.flat)
    with_digest = kind.is_perceptual and SHA256.name not in schema
    kinds = (kind.name, SHA256.name) if with_digest else (kind.name,)
    return call, call.named(expressions.visual_hash(frame, source, hash_types=kinds, **options))


def _with_images(frame: Any, request: ReportRequest) -> tuple[Any, ReportRequest]:
    """Return the frame with its images as a column, and the request with the name of that column."""
    if request.source is None or request.images is not None or not isinstance(frame, pl.DataFrame | pl.LazyFrame):
        return frame, request
    images, schema = checked_source(frame, request.source), frame.collect_schema()
    if images.column is not None:
        return frame, replace(request, source=images.column)
    name = images.name if images.name not in schema else free_name(schema)
    return frame.with_columns(images.expr.alias(name)), replace(request, source=name)


def _check_request(request: ReportRequest, kind: HashKind) -> ReportRequest:
    """Refuse what the verbs have no check for; return the request with its numbers as ints of Python."""
    number = whole_number(request.max_radius)
    if request.max_radius is not None and kind.by_votes:
        raise ArgumentError(
            f"{kind.name} is compared by votes and has no max_radius, got {shown(request.max_radius)}\n"
            "Hint: leave max_radius out."
        )
    if request.max_radius is not None and (number is None or not 0 <= number <= kind.n_bits):
        raise ArgumentError(
            f"max_radius must be a whole number of bits from 0 to {kind.n_bits}, got {shown(request.max_radius)}\n"
            "Hint: leave it out for the largest useful one."
        )
    most = whole_number(request.max_pictures)
    if most is None or most < 0:
        raise ArgumentError(
            f"max_pictures must be a whole number of at least 0, got {shown(request.max_pictures)}\n"
            "Hint: 0 makes a page without thumbnails."
        )
    if request.title is not None and not isinstance(request.title, str):
        raise ArgumentError(f"title must be a str, got {shown(request.title)}\nHint: leave it out for a plain one.")
    return replace(
        request,
        radius=whole_number(request.radius),
        min_votes=whole_number(request.min_votes),
        max_radius=number,
        max_pictures=most,
    )
