"""The verb `report`: a page that shows the clusters of a frame, and takes decisions."""

from typing import Unpack

from imgmatch_df.frames.checks import Frame
from imgmatch_df.frames.flat import Flat
from imgmatch_df.frames.interchange import takes_tables
from imgmatch_df.frames.keeping import Column, KeepBy
from imgmatch_df.hashes.kinds import BMH1
from imgmatch_df.options import SourceOptions
from imgmatch_df.report.building import make_report
from imgmatch_df.report.inputs import MAX_PICTURES, ReportRequest
from imgmatch_df.report.result import Report
from imgmatch_df.store.base import Target


@takes_tables
def report(
    frame: Frame,
    radius: int | None = None,
    hash_type: str = BMH1.name,
    *,
    min_votes: int | None = None,
    linkage: str | None = None,
    keep: KeepBy = "first",
    protect: Column | None = None,
    across: Column | None = None,
    within: Column | None = None,
    not_duplicates: Frame | None = None,
    id: str | None = None,
    reference: Frame | Target | None = None,
    reference_id: str | None = None,
    reference_column: str | None = None,
    column: str | None = None,
    source: Column | None = None,
    flat: Flat = "identical",
    turns: bool | None = None,
    max_radius: int | None = None,
    max_pictures: int = MAX_PICTURES,
    title: str | None = None,
    **options: Unpack[SourceOptions],
) -> Report:
    """Return a report on the near-duplicates of a frame: a page that shows the clusters of every radius.

    Use it to see what a radius finds before you trust it, and to decide which rows to keep. The page is one HTML file
    that loads nothing, see `Report.write_html`; a notebook shows it.

    Parameters
    ----------
    frame
        Has a column named `hash_type`, or `column`, or `source`. A `LazyFrame` is collected.
    radius
        The radius that the page begins with, in bits; inclusive. None: what `suggest_radius` suggests, else the advised
        radius of the kind; the page says why. Not for ``"local"``.
    hash_type
        Kind of the hashes, such as ``"bmh1"``, ``"phash"``, or ``"local"``, which finds crops, frames and captions.
    min_votes
        For ``"local"``, in the place of a radius: the votes that the page begins with. None: what `suggest_min_votes`
        suggests, else 8.
    linkage, keep, protect, across, within, not_duplicates
        As `cluster`.
    reference, reference_id, reference_column, column, flat, turns
        As `cluster`.
    id
        Column whose values name the rows; None names them by row number.
    source
        Column of images: paths, URLs, base64, bytes, or structs of bytes and path. They are hashed where the frame has
        no hashes, and shown as thumbnails. None takes a column of text named ``source``, ``path`` or ``url``, if there
        is one.
    max_radius
        Largest radius of the slider, in bits. None: 96 for bmh1, 16 for phash, less where that has more than a million
        pairs and 20 pairs a row.
    max_pictures
        Maximum number of thumbnails. Those of the kept and the farthest row of each cluster come first, the largest
        clusters before the others.
    title
        Title of the page.
    **options
        See `Options`. They apply to images that are hashed, and to thumbnails.

    Returns
    -------
    Report
        With ``write_html(target)``; ``clusters``, as `cluster` returns them; ``profile``, as `profile_radii`; and
        ``counts``.

    Raises
    ------
    ArgumentError, ColumnError, StoreError
        As `cluster`. `ArgumentError` also where the radius has more pairs than a page holds; that cannot be with
        ``"connected"`` clusters without a reference and without turns.

    Warns
    -----
    ImgMatchWarning
        As `cluster`.

    Notes
    -----
    The page has the pairs, not the clusters: of ``"connected"`` clusters a minimum spanning forest, at most one pair a
    row, which gives the clusters of every radius exactly. Rows that are in no pair are counted, and not on the page. A
    thumbnail that cannot be read now is missing, without an error.

    Examples
    --------
    >>> import imgmatch_df, polars as pl
    >>> frame = pl.DataFrame({"phash": [8, 15, None, 9]}, schema={"phash": pl.UInt64})
    >>> imgmatch_df.report(frame, 1, "phash").counts.clusters
    1
    """
    request = ReportRequest(
        radius=radius,
        hash_type=hash_type,
        min_votes=min_votes,
        linkage=linkage,
        keep=keep,
        protect=protect,
        across=across,
        within=within,
        not_duplicates=not_duplicates,
        id=id,
        reference=reference,
        reference_id=reference_id,
        reference_column=reference_column,
        column=column,
        source=source,
        flat=flat,
        turns=turns,
        max_radius=max_radius,
        max_pictures=max_pictures,
        title=title,
    )
    return make_report(frame, request, options)
