"""Keep rules: which row of a cluster is kept, which rows are never removed, and which pairs of rows do not count.

The verbs that cluster and the report read the arguments of a call with `KeepRule.check`, before anything is hashed, and
what they mean for the rows of a frame with `KeepRule.of_rows`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, get_args

import polars as pl

from imgmatch_df.columns import HEIGHT, LEFT_ID, MODIFIED, RIGHT_ID, ROW_DTYPE, SIZE, WIDTH
from imgmatch_df.errors import ArgumentError, ColumnError
from imgmatch_df.frames.checks import Frame, FrameT, check_id, shown_names
from imgmatch_df.frames.flat import PairsT
from imgmatch_df.frames.layout import free_name
from imgmatch_df.matching.linkages import Keep
from imgmatch_df.options import shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from imgmatch_df._kernels.arrays import BOOL, U32
    from imgmatch_df.matching.conditions import Conditions

# Not Sequence[str], which any text is.
KeepBy = Keep | pl.Expr | Sequence[pl.Expr] | list[str] | list[pl.Expr | str]
Column = str | pl.Expr

_ROW: Final = "row"


class RuledRows(NamedTuple):
    """What a keep rule says about the rows of a frame.

    Parameters
    ----------
    order
        (n,) uint32: row numbers in the order of preference as representatives, the best first: protected rows, then the
        others.
    protected
        (n,) bool: rows that are never removed.
    across
        (n,) uint32: codes, equal where the values of `across` are equal; only pairs with different codes count. None
        where there is no such condition.
    within
        (n,) uint32: codes, equal where the values of `within` are equal; only pairs with equal codes count. A null has
        a code of its own.
    excluded
        Pairs of rows that do not count, each once, the smaller row first, sorted: (m,) uint32 each. None where none are
        given.
    """

    order: "U32"
    protected: "BOOL"
    across: "U32 | None" = None
    within: "U32 | None" = None
    excluded: "tuple[U32, U32] | None" = None

    @property
    def conditions(self) -> "Conditions | None":
        """Which near-duplicates count as pairs; None for all."""
        from imgmatch_df.matching.conditions import Conditions

        found = Conditions(self.across, self.within, self.excluded)
        return None if found.hold_always else found

    def among(self, rows: "NDArray[Any]") -> "RuledRows":
        """Return what the rule says about some of the rows, given by their numbers, ascending, by their positions."""
        import numpy as np

        n = len(self.order)
        if len(rows) == n:
            return self
        place = np.full(n, -1, np.int64)
        place[rows] = np.arange(len(rows))
        order = place[self.order]
        conditions = (None, None, None) if self.conditions is None else self.conditions.among(rows, n)
        return RuledRows(order[order >= 0].astype(np.uint32), self.protected[rows], *conditions)

    def kept_beside(self, representative: "U32") -> "tuple[BOOL, BOOL]":
        """Return which rows have the value of `across` of their representative, and which are no duplicates of it."""
        import numpy as np

        is_same, is_declared = np.zeros((2, len(representative)), np.bool_)
        if self.across is not None:
            is_same = self.across == self.across[representative]
        if self.excluded is not None:
            for rows, others in (self.excluded, self.excluded[::-1]):
                is_declared[rows[representative[rows] == others]] = True
        return is_same, is_declared


class KeepRule(NamedTuple):
    """The arguments `keep`, `protect`, `across`, `within` and `not_duplicates` of a verb, checked.

    Parameters
    ----------
    name
        Of the rule: one of `Keep`, or ``"rule"`` for expressions.
    keys
        Columns of `expressions` by which rows are sorted, the best first, and whether each sorts descending.
    protect, across, within
        Columns of `expressions`; None where the call has no such argument.
    expressions
        What `of_rows` reads beside the column `id`, as aliased expressions of the frame, once it is hashed.
    not_duplicates
        Has the columns ``left_id`` and ``right_id``.
    id
        Column whose values these name; None for row numbers.
    """

    name: str
    keys: tuple[tuple[str, bool], ...] = ()
    protect: str | None = None
    across: str | None = None
    within: str | None = None
    expressions: tuple[pl.Expr, ...] = ()
    not_duplicates: pl.LazyFrame | None = None
    id: str | None = None

    @classmethod
    def check(
        cls,
        schema: Mapping[str, Any],
        keep: KeepBy = "first",
        *,
        protect: Column | None = None,
        across: Column | None = None,
        within: Column | None = None,
        not_duplicates: Frame | None = None,
        id: str | None = None,
        width: str = WIDTH,
        height: str = HEIGHT,
    ) -> "KeepRule":
        """Return the rule of a call.

        Parameters
        ----------
        schema
            Of the frame, once it is hashed.
        keep
            ``"first"`` or ``"last"`` in row order; ``"largest"`` or ``"smallest"`` by pixels, then bytes; ``"newest"``
            or ``"oldest"`` by the column ``modified``; or expressions, of which the row that ``frame.sort(keep,
            nulls_last=True)`` puts first is kept.
        protect
            Boolean column or expression; null does not protect.
        across, within
            Columns or expressions of any dtype.
        not_duplicates
            Frame with ``left_id`` and ``right_id``: values of `id`, or row numbers without `id`.
        id
            Column that names rows.
        width, height
            Columns of the sizes in pixels.

        Raises
        ------
        ArgumentError, ColumnError
            If an argument is not allowed, or a column is absent or has a dtype that is not allowed.
        """
        name, keys = _keep_keys(keep, schema, width, height)
        base = free_name(schema)
        made: list[pl.Expr] = []

        def add(argument: str, expr: pl.Expr) -> str:
            column = f"{base}_{argument}_{len(made)}"
            made.append(_checked(argument, expr.alias(column), schema))
            return column

        named = tuple((add("keep", expr), descending) for expr, descending in keys)
        columns = {
            argument: None if value is None else add(argument, _expression(argument, value))
            for argument, value in (("protect", protect), ("across", across), ("within", within))
        }
        if not_duplicates is not None:
            not_duplicates = _check_pairs(not_duplicates, schema, id)
        rule = cls(name, named, **columns, expressions=tuple(made), not_duplicates=not_duplicates, id=id)
        if rule.protect is not None:
            dtype = rule._schema(schema)[rule.protect]
            if dtype not in (pl.Boolean, pl.Null):
                raise ColumnError(
                    f"protect must be Boolean, got {dtype}\nHint: such as pl.col('path').str.starts_with('originals/')."
                )
        return rule

    @classmethod
    def of_pairs(
        cls,
        schema: Mapping[str, Any],
        across: Column | None,
        within: Column | None,
        not_duplicates: Frame | None,
        id: str | None,
    ) -> "KeepRule":
        """Return the rule of a call that keeps no rows, see `check`."""
        return cls.check(schema, across=across, within=within, not_duplicates=not_duplicates, id=id)

    def add_to(self, frame: FrameT) -> FrameT:
        """Return a hashed frame with the `expressions`."""
        return frame.with_columns(self.expressions) if self.expressions else frame

    def _schema(self, schema: Mapping[str, Any]) -> pl.Schema:
        return pl.LazyFrame(schema=schema).with_columns(self.expressions).collect_schema()

    @property
    def has_conditions(self) -> bool:
        """Whether some near-duplicates do not count as pairs."""
        return not (self.across is None and self.within is None and self.not_duplicates is None)

    @property
    def reason(self) -> str:
        """Why a representative is kept, one of `REASONS`."""
        return "kept_by_rule" if self.name == "rule" else f"kept_{self.name}"

    @property
    def columns(self) -> list[str]:
        """The columns that `of_rows` reads, once a frame has the `expressions`."""
        made = [expr.meta.output_name() for expr in self.expressions]
        return made if self.id_read is None else [*made, self.id_read]

    @property
    def id_read(self) -> str | None:
        """The column that `of_rows` reads beside the `expressions`, None if there is none."""
        return None if self.not_duplicates is None else self.id

    def of_frame(self, frame: pl.DataFrame) -> RuledRows:
        """Return what the rule says about the rows of a hashed frame."""
        return self.of_rows(frame.with_columns(self.expressions))

    def of_rows(self, rows: pl.DataFrame) -> RuledRows:
        """Return what the rule says about rows that have `columns`."""
        import numpy as np

        protected = np.zeros(rows.height, np.bool_)
        if self.protect is not None:
            protected = rows[self.protect].cast(pl.Boolean).fill_null(value=False).to_numpy()
        return RuledRows(
            self._order(rows, protected),
            protected,
            None if self.across is None else codes(rows[self.across]),
            None if self.within is None else codes(rows[self.within], nulls_equal=False),
            self._excluded(rows),
        )

    def _order(self, rows: pl.DataFrame, protected: "BOOL") -> "U32":
        import numpy as np

        if not self.keys and not protected.any():
            numbers = np.arange(rows.height, dtype=np.uint32)
            return numbers[::-1].copy() if self.name == "last" else numbers
        keys = [pl.Series("protected", ~protected), *(rows[column] for column, _ in self.keys)]
        descending = [False, *(descending for _, descending in self.keys)]
        if self.name == "last":
            keys.append(pl.int_range(rows.height, eager=True, dtype=ROW_DTYPE).alias(_ROW))
            descending.append(True)
        names = [key.name for key in keys]
        best = pl.DataFrame(keys).select(
            pl.arg_sort_by(names, descending=descending, nulls_last=True, maintain_order=True)
        )
        return best.to_series().cast(ROW_DTYPE).to_numpy()

    def filter_pairs(
        self, pairs: PairsT, rows: pl.DataFrame, others: pl.DataFrame | None = None, other_id: str | None = None
    ) -> PairsT:
        """Return the pairs of rows that count.

        Parameters
        ----------
        pairs
            A named tuple of arrays, first the left and right rows.
        rows
            Have what `of_rows` reads.
        others
            The rows on the right side, with the same columns; None if these are `rows`.
        other_id
            Column that names them.
        """
        import numpy as np

        if not self.has_conditions:
            return pairs
        counts = np.ones(len(pairs[0]), np.bool_)
        right = pairs[1].astype(np.int64) + (0 if others is None else rows.height)
        for column, is_across in ((self.across, True), (self.within, False)):
            if column is not None:
                values = rows[column]
                if others is not None:
                    sides = [rows.select(column), others.select(column)]
                    values = pl.concat(sides, how="vertical_relaxed").to_series()
                found = codes(values, nulls_equal=is_across)
                counts &= (found[pairs[0]] == found[right]) != is_across
        if self.not_duplicates is not None:
            left_names = _names(rows, self.id)
            right_names = left_names if others is None else _names(others, other_id)
            excluded = _read_pairs(self.not_duplicates, left_names, right_names, self.id)
            if others is None:
                excluded = _either_way(excluded)
            keys = excluded.select(pl.col("left") * (1 << 32) + pl.col("right")).to_series().to_numpy()
            counts &= ~np.isin(pairs[0].astype(np.int64) << 32 | pairs[1].astype(np.int64), keys)
        return type(pairs)(*(column[counts] for column in pairs))

    def _excluded(self, rows: pl.DataFrame) -> "tuple[U32, U32] | None":
        if self.not_duplicates is None:
            return None
        names = _names(rows, self.id)
        found = _read_pairs(self.not_duplicates, names, names, self.id)
        return _as_arrays(_either_way(found).filter(pl.col("left") < pl.col("right")))


def _names(rows: pl.DataFrame, id_column: str | None) -> pl.DataFrame:
    """Return the names of rows that have one, and the rows."""
    numbers = pl.int_range(rows.height, eager=True, dtype=pl.Int64)
    return pl.DataFrame({"name": numbers if id_column is None else rows[id_column], _ROW: numbers}).drop_nulls("name")


def _read_pairs(given: pl.LazyFrame, lefts: pl.DataFrame, rights: pl.DataFrame, id_column: str | None) -> pl.DataFrame:
    """Return the pairs of rows that a frame of pairs names: columns left and right."""
    pairs = given.select(LEFT_ID, RIGHT_ID).collect().drop_nulls()
    for column, names in ((LEFT_ID, lefts), (RIGHT_ID, rights)):
        dtype = names.schema["name"]
        try:
            pairs = pairs.with_columns(pl.col(column).cast(dtype))
        except pl.exceptions.PolarsError as error:
            raise ColumnError(
                f"not_duplicates names rows by {pairs.schema[column]}, the "
                f"{'row numbers' if id_column is None else f'values of {id_column!r}'} are {dtype}\n"
                "Hint: id= names the column with the same values."
            ) from error
    return (
        pairs.join(lefts.rename({_ROW: "left"}), left_on=LEFT_ID, right_on="name")
        .join(rights.rename({_ROW: "right"}), left_on=RIGHT_ID, right_on="name")
        .select("left", "right")
    )


def _either_way(pairs: pl.DataFrame) -> pl.DataFrame:
    """Return pairs of rows in both orders, each once, sorted."""
    other_way = pairs.select(pl.col("right").alias("left"), pl.col("left").alias("right"))
    return pl.concat([pairs, other_way]).unique().sort("left", "right")


def _keep_keys(
    keep: object, schema: Mapping[str, Any], width: str, height: str
) -> tuple[str, list[tuple[pl.Expr, bool]]]:
    """Return the name of a rule, and what rows are sorted by, each with whether it sorts descending."""
    if isinstance(keep, pl.Expr):
        return "rule", [(keep, False)]
    if isinstance(keep, Iterable) and not isinstance(keep, str):
        keys = [pl.col(one) if isinstance(one, str) else one for one in keep]
        if keys and all(isinstance(one, pl.Expr) for one in keys):
            return "rule", [(one, False) for one in keys]
    if not isinstance(keep, str) or keep not in get_args(Keep):
        raise ArgumentError(
            f"keep must be one of {', '.join(map(repr, get_args(Keep)))}, or expressions, got {shown(keep)}\n"
            "Hint: 'largest' needs the columns width and height; pl.col('priority') keeps the row with the smallest."
        )
    if keep in ("largest", "smallest"):
        for name in (width, height):
            # Null: every row failed, and the file that says so has no types.
            if name not in schema or not (schema[name].is_numeric() or schema[name] == pl.Null):
                raise ColumnError(
                    f"keep={keep!r} needs a numeric column {name!r}, the frame has {shown_names(schema)}\n"
                    "Hint: visual_hash makes width and height."
                )
        sizes = [pl.col(width).cast(pl.Float64) * pl.col(height).cast(pl.Float64)]
        # A column of the user's may be called size and hold "XL".
        sizes += [pl.col(SIZE)] if SIZE in schema and schema[SIZE].is_numeric() else []
        return keep, [(size, keep == "largest") for size in sizes]
    if keep in ("newest", "oldest"):
        dtype = schema.get(MODIFIED, pl.String)
        if not (dtype.is_temporal() or dtype.is_numeric() or dtype == pl.Null):
            raise ColumnError(
                f"keep={keep!r} needs a column {MODIFIED!r} of times, the frame has {shown_names(schema)}\n"
                "Hint: scan_images makes it; or keep=pl.col('time').str.to_datetime()."
            )
        return keep, [(pl.col(MODIFIED), keep == "newest")]
    return keep, []


def _expression(argument: str, value: object) -> pl.Expr:
    if isinstance(value, str):
        return pl.col(value)
    if isinstance(value, pl.Expr):
        return value
    raise ArgumentError(
        f"{argument} must be a column or an expression, got {shown(value)}\nHint: such as {argument}='folder'."
    )


def _checked(argument: str, expr: pl.Expr, schema: Mapping[str, Any]) -> pl.Expr:
    """Return an expression that has one column and reads columns of the schema."""
    try:
        pl.LazyFrame(schema=schema).with_columns(expr).collect_schema()
    except pl.exceptions.PolarsError as error:
        raise ColumnError(
            f"{argument} cannot be read from the frame, which has {shown_names(schema)}: {str(error).splitlines()[0]}\n"
            "Hint: use columns of the frame."
        ) from error
    return expr


def _check_pairs(pairs: object, schema: Mapping[str, Any], id_column: str | None) -> pl.LazyFrame:
    if not isinstance(pairs, pl.DataFrame | pl.LazyFrame):
        raise ArgumentError(
            f"not_duplicates must be a frame, got {shown(pairs)}\n"
            f"Hint: a frame of pairs has the columns {LEFT_ID} and {RIGHT_ID}."
        )
    check_id(pl.Schema(schema), id_column)
    pairs = pairs.lazy()
    dtypes = pairs.collect_schema()
    for name in (LEFT_ID, RIGHT_ID):
        if name not in dtypes:
            raise ColumnError(
                f"not_duplicates needs columns {LEFT_ID!r} and {RIGHT_ID!r}, it has {shown_names(dtypes)}\n"
                "Hint: each row is a pair that near_duplicates gives."
            )
        if id_column is None and not (dtypes[name].is_integer() or dtypes[name] == pl.Null):
            raise ColumnError(
                f"column {name!r} of not_duplicates has dtype {dtypes[name]}, row numbers are integers\n"
                "Hint: id= names the column whose values it has."
            )
    return pairs


def codes(values: pl.Series, *, nulls_equal: bool = True) -> "U32":
    """Return a code for each value, the same for equal values: the first row that has it.

    Without `nulls_equal`, a null has a code of its own, and so has a struct with a null field.
    """
    row, value = pl.col(_ROW), pl.col("value")
    code = row.first().over("value")
    if not nulls_equal:
        dtype = values.dtype
        parts = [value.struct.field(one.name) for one in dtype.fields] if isinstance(dtype, pl.Struct) else []
        code = pl.when(pl.any_horizontal(part.is_null() for part in [value, *parts])).then(row).otherwise(code)
    frame = pl.DataFrame({"value": values}).with_row_index(_ROW)
    return frame.select(code.cast(ROW_DTYPE)).to_series().to_numpy()


def _as_arrays(pairs: pl.DataFrame) -> "tuple[NDArray[Any], NDArray[Any]]":
    left, right = (column.cast(ROW_DTYPE).to_numpy() for column in pairs.get_columns())
    return left, right
