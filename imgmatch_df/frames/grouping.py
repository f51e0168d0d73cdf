"""How the verbs that cluster put rows into clusters, and which rows of each cluster they keep."""

from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from imgmatch_df.columns import REASON, REASON_DTYPE, REASONS
from imgmatch_df.errors import ArgumentError
from imgmatch_df.frames.checks import Frame, FrameT, JoinSide, VerbCall, needed_columns
from imgmatch_df.frames.comparison import Comparison
from imgmatch_df.frames.flat import FlatRows, guard_columns
from imgmatch_df.frames.keeping import KeepRule, RuledRows, codes
from imgmatch_df.frames.reference import Reference, find_nearest
from imgmatch_df.hashes import forms
from imgmatch_df.matching.linkages import LINKAGES
from imgmatch_df.options import check_choice
from imgmatch_df.progress import steps
from imgmatch_df.store.base import Target

if TYPE_CHECKING:
    from imgmatch_df._kernels.arrays import BOOL, U8, U16, U32


def check_linkage(linkage: str | None, comparison: Comparison) -> str:
    """Return the name of a linkage that the comparison has; None is its default."""
    linkage = comparison.default_linkage if linkage is None else linkage
    what_each_does = ", ".join(f"{name!r} {each.summary}" for name, each in LINKAGES.items())
    check_choice("linkage", linkage, tuple(LINKAGES), f"{what_each_does}.")
    comparison.check_linkage(linkage)
    return linkage


def check_reference(
    reference: Frame | Target | Reference | None,
    call: VerbCall[pl.DataFrame] | VerbCall[pl.LazyFrame],
    id_column: str | None,
    hash_column: str | None,
) -> Reference | None:
    """Return the checked reference side of a call, None if it has none."""
    if reference is not None:
        return Reference.of(reference, call, id_column, hash_column)
    for name, value in (("reference_id", id_column), ("reference_column", hash_column)):
        if value is not None:
            raise ArgumentError(f"{name} has no effect without reference=\nHint: pass the reference rows.")
    return None


class Clusters(NamedTuple):
    """Clusters as arrays, one value a row: uint32 numbers and rows, uint16 measures, and whether there are such.

    A row that matches a reference row is not new: `reference` names that row, `measure` is that to it, and the numbers
    have no meaning. `reason` has positions in `REASONS`.
    """

    cluster: "U32"
    representative: "U32"
    measure: "U16"
    joined: "U16"
    diameter: "U16"
    has_hash: "BOOL"
    has_measure: "BOOL"
    kept: "BOOL"
    reason: "U8"
    is_new: "BOOL"
    reference: pl.Series | None = None

    @property
    def reasons(self) -> pl.Series:
        """Why each row is kept or removed."""
        return pl.Series(REASON, REASONS, dtype=REASON_DTYPE).gather(self.reason)


class Grouping:
    """How rows are put into clusters: the arguments of `cluster`, checked.

    Parameters
    ----------
    call
        The call of the verb.
    comparison
        How rows are compared.
    linkage
        Name of a linkage; None for that of the comparison.
    rule
        Which rows are kept, and which pairs count.
    diameter
        Whether to compute diameters.
    with_joined
        Whether to compute where each row joins its representative.
    """

    def __init__(
        self,
        call: VerbCall[FrameT],
        comparison: Comparison,
        linkage: str | None,
        rule: KeepRule,
        *,
        diameter: bool,
        with_joined: bool,
    ) -> None:
        linkage = check_linkage(linkage, comparison)
        if rule.has_conditions and LINKAGES[linkage].grows is None:
            raise ArgumentError(
                f"linkage={linkage!r} takes no across, within and not_duplicates\nHint: linkage='connected' does."
            )
        # Names, and not the call: what a lazy query keeps is pickled with it, and must not hold the frame.
        self.kind, self.hash, self.progress, self.guard = call.kind, call.hash, call.progress, call.guard
        self.comparison, self.linkage, self.rule = comparison, linkage, rule
        self.diameter, self.with_joined = diameter, with_joined
        if diameter and not comparison.has_diameters:
            raise ArgumentError(
                f"diameter=True needs distances, and {call.kind.name} is compared by votes\nHint: leave diameter out."
            )

    def needs(self, id_column: str | None, reference: Reference | None) -> list[str | pl.Expr]:
        """Return the columns and expressions that clustering reads."""
        others = [] if reference is None else reference.own
        if self.rule.id_read is not None:
            others = [*others, self.rule.id_read]
        return [
            *needed_columns(self.hash, id_column, [*others, *guard_columns(self.guard)]),
            *self.rule.expressions,
        ]

    def find(self, rows: pl.DataFrame, reference: Reference | None) -> Clusters:
        """Return the clusters of `rows`, which have what `needs` names."""
        import numpy as np

        if rows.schema[self.hash] != self.kind.dtype:  # read once: a part of a column may have another form
            rows = rows.with_columns(forms.read_column(rows[self.hash], self.kind))
        ruled = self.rule.of_rows(rows)
        if reference is None:
            return self._cluster(rows, ruled)
        nearest = find_nearest(rows, self.hash, reference, self.comparison, guard=self.guard, progress=self.progress)
        is_new = np.ones(rows.height, np.bool_)
        is_new[nearest.rows] = False
        new = np.flatnonzero(is_new)
        among = self._cluster(rows.filter(pl.Series(is_new)), ruled.among(new))
        places = np.zeros(rows.height, np.uint32)
        places[nearest.rows] = np.arange(1, len(nearest.rows) + 1)
        is_protected = ruled.protected & ~is_new
        cluster, representative = np.zeros((2, rows.height), np.uint32)
        measure, joined, diameter = np.zeros((3, rows.height), np.uint16)
        whole = Clusters(
            cluster,
            representative,
            measure,
            joined,
            diameter,
            has_hash=np.ones(rows.height, np.bool_),
            has_measure=np.ones(rows.height, np.bool_),
            kept=is_protected,
            reason=np.where(is_protected, _number("protected"), _number("in_reference")).astype(np.uint8),
            is_new=is_new,
            reference=pl.Series([None], dtype=reference.id_dtype).extend(nearest.ids).gather(places),
        )
        columns: Any = zip(whole[:9], among[:9], strict=True)
        for column, part in columns:
            column[new] = part
        whole.representative[new] = new[among.representative]
        whole.measure[nearest.rows] = nearest.measure
        return whole

    def _cluster(self, rows: pl.DataFrame, ruled: RuledRows) -> Clusters:
        """Return the clusters of rows among themselves."""
        import numpy as np

        from imgmatch_df.matching import clusters

        side = JoinSide(rows, self.kind, self.hash, guard=self.guard)
        hashed = ruled.among(side.rows)
        with steps("clustering", shown=self.progress) as step:
            linked = self.comparison.link(
                side.words, self.linkage, hashed.order, hashed.conditions, step, with_joined=self.with_joined
            )
        labels = linked.representative
        # From positions among the rows that have a hash to rows; a row without one is its own cluster.
        representative = np.arange(side.n_rows, dtype=np.uint32)
        representative[side.rows] = side.rows[labels]
        flat = side.flat
        if flat.rows.size:
            flat.warn_of_unknown()
            representative[flat.rows] = flat.rows[self._link_flat(flat, ruled.among(flat.rows))]
        _, cluster = np.unique(clusters.first_rows(representative), return_inverse=True)
        self.comparison.warn_of_large(linked, self.linkage)
        measure, joined, diameter = np.zeros((3, side.n_rows), np.uint16)
        measure[side.rows] = linked.measure
        if linked.joined is not None:
            joined[side.rows] = linked.joined
        if self.diameter:
            together = hashed.conditions is None
            diameter[side.rows] = self.comparison.diameters(side.words, labels, equal_together=together)
        has_hash = np.zeros(side.n_rows, np.bool_)
        has_hash[side.rows] = has_hash[flat.rows] = True
        is_joined = representative != np.arange(side.n_rows)
        return Clusters(
            cluster.astype(np.uint32),
            representative,
            measure,
            joined,
            diameter,
            has_hash,
            has_hash if self.comparison.measures_itself else is_joined,
            *self._keep(representative, has_hash, ruled),
            np.ones(side.n_rows, np.bool_),
        )

    def _link_flat(self, flat: FlatRows, ruled: RuledRows) -> "U32":
        """Return the representative of each flat row among those that are identical to it, by their positions."""
        import numpy as np

        from imgmatch_df.matching import clusters
        from imgmatch_df.matching.conditions import link_rows

        digests = codes(flat.digests, nulls_equal=False)
        if ruled.conditions is None:
            return clusters.representatives(digests, ruled.order)
        words = np.zeros((len(digests), 1), np.uint64)
        chains = LINKAGES[self.linkage].grows == "chains"
        return link_rows(words, digests, digests, ruled.order, 0, ruled.conditions, chains=chains)[0]

    def _keep(self, representative: "U32", has_hash: "BOOL", ruled: RuledRows) -> "tuple[BOOL, U8]":
        """Return which rows are kept, and why."""
        import numpy as np

        is_best = representative == np.arange(len(representative))
        has_others = np.bincount(representative, minlength=len(representative))[representative] > 1
        is_same, is_declared = ruled.kept_beside(representative)
        reason = np.full(len(representative), _number("copy"), np.uint8)
        for rows, name in (
            (is_declared, "not_duplicate"),
            (is_same, "same_value"),
            (is_best, self.rule.reason),
            (ruled.protected, "protected"),
            (~has_others, "single"),
            (~has_hash, "no_hash"),
        ):
            reason[rows] = _number(name)
        return is_best | ruled.protected | is_same | is_declared, reason


def _number(reason: str) -> int:
    return REASONS.index(reason)
