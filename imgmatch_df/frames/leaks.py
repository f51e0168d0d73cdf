"""Frame verbs about leaks: images of one split of a data set that are near-duplicates of images of another split.

A model that is tested with images of its own training set gets better numbers than it deserves.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple, Unpack, cast

import polars as pl

from imgmatch_df.columns import (
    LABEL,
    LEAK_ID,
    OTHER_ID,
    OTHER_LABEL,
    OTHER_SPLIT,
    ROW_DTYPE,
    SPLIT,
)
from imgmatch_df.errors import ArgumentError, ColumnError, warn
from imgmatch_df.frames.checks import Frame, FrameT, JoinSide, VerbCall, needed_columns, shown_names
from imgmatch_df.frames.comparison import Comparison
from imgmatch_df.frames.criteria import check_comparison
from imgmatch_df.frames.flat import Flat, Guard, guard_columns
from imgmatch_df.frames.keeping import Column
from imgmatch_df.frames.layout import free_name
from imgmatch_df.frames.pairs import MAX_PAIRS, pairs_of_rows
from imgmatch_df.frames.source_columns import SourceColumn
from imgmatch_df.frames.splits import check_call, check_splits, naming_split
from imgmatch_df.hashes.kinds import BMH1
from imgmatch_df.options import SourceOptions, check_flag, check_positive, shown
from imgmatch_df.progress import steps

_NUMBER: Final = "number"
_ROW: Final = "row"
_OTHER_NUMBER: Final = "other number"
_OTHER_ROW: Final = "other row"
_ENDS: Final = ((_NUMBER, _ROW), (_OTHER_NUMBER, _OTHER_ROW))


def find_leaks(
    splits: Mapping[str, FrameT],
    radius: int | None = None,
    hash_type: str = BMH1.name,
    *,
    min_votes: int | None = None,
    id: str | None = None,
    label: Column | None = None,
    within_splits: bool = False,
    column: str | None = None,
    source: SourceColumn | None = None,
    flat: Flat = "identical",
    max_pairs: int = MAX_PAIRS,
    turns: bool | None = None,
    **options: Unpack[SourceOptions],
) -> FrameT:
    """Return every pair of rows of two splits of a data set within `radius` bits or with `min_votes` votes.

    Use it before training: a test image that is a copy of a training image measures memory. `count_leaks` counts the
    rows, `drop_leaks` takes them out of a split, `assign_split` makes splits without leaks.

    Parameters
    ----------
    splits
        Frames by the names of the splits, two or more. Each has a column named `hash_type`, or `column`, or `source`.
    radius
        Maximum Hamming distance, in bits. Inclusive. 0 finds equal hashes only; 24 of bmh1 or 4 of phash finds
        edited copies. Not for ``"local"``.
    hash_type
        Kind of the hashes, such as ``"bmh1"``, ``"phash"``, or ``"local"``, which finds crops, frames and captions.
    min_votes
        For ``"local"``, in the place of a radius, see `near_duplicates`.
    id
        Column whose values name the rows of each split, of any dtype; None names them by row number.
    label
        Column or expression of each split: the class of the image, which the result has for both rows.
    within_splits
        Whether to return also the pairs of two rows of one split.
    column
        Column of hashes of the kind `hash_type`, also in other forms, see `near_duplicates`. None takes the one with
        the name of the kind.
    source
        Column of images, to hash the splits that have no column of hashes.
    flat
        ``"identical"`` or ``"match"``, as `near_duplicates`.
    max_pairs
        Maximum number of pairs to make of two splits, or of one with itself.
    turns
        Whether to compare in all eight turns, mirrored, flipped and by quarter turns. None: only with ``"local"``.
    **options
        See `Options`. Only ``progress`` has an effect without `source`.

    Returns
    -------
    DataFrame or LazyFrame
        ``split: Enum, id, other_split: Enum, other_id``, then ``distance: UInt16``, or the columns of ``"local"``, and
        with `turns` ``turn``, as `near_duplicates`; with `label` also ``label, other_label``. Each pair is one row, and
        its `split` comes later in `splits` than its `other_split`: with ``{"train": ..., "test": ...}`` rows of test
        come first, and `turn` is what is done to their images. Of one split, the first row comes first. Sorted by
        split, row number, other split and other row number. Rows without a hash are in no pair. A DataFrame where all
        splits are such, a LazyFrame where one is.

    Raises
    ------
    ArgumentError
        If an argument is not allowed; if there are more than `max_pairs` pairs, when the query runs.
    ColumnError
        If a column is absent or has a dtype that is not allowed, or ids or labels of two splits have no common dtype.

    Warns
    -----
    ImgMatchWarning
        As `near_duplicates`; and if rows of pairs have equal ids in one split, so that they cannot be counted by them.

    Notes
    -----
    Exact: each two splits are joined as by `match`.

    Examples
    --------
    >>> import imgmatch_df, polars as pl
    >>> train = pl.DataFrame({"phash": [8, 255]}, schema={"phash": pl.UInt64})
    >>> test = pl.DataFrame({"phash": [6, 9]}, schema={"phash": pl.UInt64})
    >>> imgmatch_df.find_leaks({"train": train, "test": test}, 1, "phash").rows()
    [('test', 1, 'train', 0, 1)]
    """
    comparison = check_comparison(hash_type, radius, min_votes, turns)
    max_pairs = check_positive("max_pairs", max_pairs)
    check_flag("within_splits", within_splits, "True finds also copies within a split.")
    frames = check_splits(splits, at_least=1 if within_splits else 2)
    if any(isinstance(frame, pl.LazyFrame) for frame in frames.values()):
        frames = {name: frame.lazy() for name, frame in frames.items()}
    sides: list[_SplitSide] = []
    rows: list[Frame] = []
    for name, frame in frames.items():
        with naming_split(f"split {name!r}"):
            call = check_call(frame, comparison.kind, source, options, column=column, id=id, flat=flat)
            side, with_label = _SplitSide.of(call, id, label)
        sides.append(side)
        rows.append(with_label)
    labels = [] if label is None else [side.label_dtype for side in sides]
    dtypes: dict[str, Any] = {
        SPLIT: pl.Enum(list(frames)),
        LEAK_ID: ROW_DTYPE if id is None else _common_dtype("id", [side.id_dtype for side in sides]),
        **({LABEL: _common_dtype("label", labels)} if labels else {}),
    }
    join = _Join(comparison, sides, dtypes, max_pairs, within_splits=within_splits, progress=call.progress)
    return cast("FrameT", _apply_to_all(rows, [side.columns for side in sides], join, join.schema))


class _SplitSide(NamedTuple):
    """What a join reads of one split.

    Parameters
    ----------
    hash, id, label
        Columns of the hashed frame; None where the call has no such argument.
    guard
        Columns that show which images are flat.
    id_dtype, label_dtype
        Of these columns.
    """

    hash: str
    id: str | None
    label: str | None
    guard: Guard | None
    id_dtype: pl.DataType
    label_dtype: pl.DataType

    @classmethod
    def of(cls, call: VerbCall[Any], id_column: str | None, label: object) -> "tuple[_SplitSide, Frame]":
        """Return the side of a call, and its hashed frame with the label."""
        id_dtype = ROW_DTYPE if id_column is None else call.schema[id_column]
        if label is None:
            return cls(call.hash, id_column, None, call.guard, id_dtype, pl.Null()), call.hashed()
        name = f"{free_name(call.hashed_schema)}_label"
        expr = _label_expression(label).alias(name)
        try:
            label_dtype = pl.LazyFrame(schema=call.schema).with_columns(expr).collect_schema()[name]
        except pl.exceptions.PolarsError as error:
            raise ColumnError(
                f"label cannot be read from the frame, which has {shown_names(call.schema)}: "
                f"{str(error).splitlines()[0]}\nHint: use columns of the frame."
            ) from error
        if label_dtype == pl.Object:
            raise ColumnError("label has dtype Object, which Polars cannot compare\nHint: cast it to text.")
        # Before the hashes are made: an expression may then read all columns that the caller sees.
        frame = replace(call, frame=call.frame.with_columns(expr)).hashed()
        return cls(call.hash, id_column, name, call.guard, id_dtype, label_dtype), frame

    @property
    def columns(self) -> list[str]:
        """The columns that the join reads."""
        return needed_columns(self.hash, self.id, [*([self.label] if self.label else []), *guard_columns(self.guard)])


class _Join:
    """The join of all splits, as a function of their rows.

    A lazy query pickles it: it holds no frames.
    """

    def __init__(
        self,
        comparison: Comparison,
        sides: Sequence[_SplitSide],
        dtypes: Mapping[str, Any],
        max_pairs: int,
        *,
        within_splits: bool,
        progress: bool,
    ) -> None:
        self.comparison, self.sides, self.dtypes = comparison, sides, dtypes
        self.max_pairs, self.within_splits, self.progress = max_pairs, within_splits, progress

    @property
    def schema(self) -> dict[str, Any]:
        """The columns of the result."""
        split, name, label = self.dtypes[SPLIT], self.dtypes[LEAK_ID], self.dtypes.get(LABEL)
        labels = {} if label is None else {LABEL: label, OTHER_LABEL: label}
        return {SPLIT: split, LEAK_ID: name, OTHER_SPLIT: split, OTHER_ID: name, **self.comparison.dtypes, **labels}

    def __call__(self, *parts: pl.DataFrame) -> pl.DataFrame:
        """Return the leaks of the rows of the splits."""
        kind = self.comparison.kind
        sides = [
            JoinSide(part, kind, side.hash, guard=side.guard) for part, side in zip(parts, self.sides, strict=True)
        ]
        found = [
            self._pairs(sides, number, other)
            for number in range(len(sides))
            for other in range(number + self.within_splits)
        ]
        pairs = pl.concat(found).sort(_NUMBER, _ROW, _OTHER_NUMBER, _OTHER_ROW)
        self._warn_of_equal_ids(pairs, parts)
        columns: dict[str, pl.Series] = {}
        names = pl.Series(self.dtypes[SPLIT].categories, dtype=self.dtypes[SPLIT])
        for number, row, split, name, label in (
            (_NUMBER, _ROW, SPLIT, LEAK_ID, LABEL),
            (_OTHER_NUMBER, _OTHER_ROW, OTHER_SPLIT, OTHER_ID, OTHER_LABEL),
        ):
            columns[split] = names.gather(pairs[number])
            columns[name] = self._values(
                parts, [side.id for side in self.sides], self.dtypes[LEAK_ID], pairs[number], pairs[row]
            )
            if LABEL in self.dtypes:
                labels = [side.label for side in self.sides]
                columns[label] = self._values(parts, labels, self.dtypes[LABEL], pairs[number], pairs[row])
        measures = pairs.select(list(self.comparison.dtypes)).to_dict()
        return pl.DataFrame({name: columns.get(name, measures.get(name)) for name in self.schema})

    def _pairs(self, sides: list[JoinSide], number: int, other: int) -> pl.DataFrame:
        """Return the pairs of one split and another, or of a split with itself, by the numbers of splits and rows."""
        with steps("joining", shown=self.progress) as step:
            right = None if number == other else sides[other]
            pairs = pairs_of_rows(self.comparison, sides[number], right, self.max_pairs, step)
        rows = {_ROW: pl.Series(pairs.left, dtype=ROW_DTYPE), _OTHER_ROW: pl.Series(pairs.right, dtype=ROW_DTYPE)}
        numbers = (pl.lit(at, ROW_DTYPE).alias(name) for name, at in ((_NUMBER, number), (_OTHER_NUMBER, other)))
        return pl.DataFrame({**rows, **self.comparison.measures(pairs)}).with_columns(*numbers)

    @staticmethod
    def _values(
        parts: Sequence[pl.DataFrame], names: list[str | None], dtype: Any, numbers: pl.Series, rows: pl.Series
    ) -> pl.Series:
        """Return the values of columns of the splits, by the numbers of splits and rows; without names the rows."""
        if names[0] is None:
            return rows
        starts = pl.Series([0, *(part.height for part in parts[:-1])], dtype=pl.Int64).cum_sum()
        values = pl.concat([part[str(name)].cast(dtype) for part, name in zip(parts, names, strict=True)])
        return values.gather(starts.gather(numbers) + rows)

    def _warn_of_equal_ids(self, pairs: pl.DataFrame, parts: Sequence[pl.DataFrame]) -> None:
        """Warn where rows of pairs have equal ids in one split."""
        if self.sides[0].id is None or pairs.is_empty():
            return
        ends = [pairs.select(pl.col(number).alias(_NUMBER), pl.col(row).alias(_ROW)) for number, row in _ENDS]
        rows = pl.concat(ends).unique()
        names = self._values(parts, [side.id for side in self.sides], self.dtypes[LEAK_ID], rows[_NUMBER], rows[_ROW])
        n_equal = rows.height - pl.DataFrame([rows[_NUMBER], names.alias(LEAK_ID)]).n_unique()
        if n_equal:
            warn(
                f"column {self.sides[0].id!r} names {n_equal:,} rows of leaks as another row of their split, so that "
                "they cannot be counted\nHint: id=None names rows by number."
            )


def _label_expression(label: object) -> pl.Expr:
    if isinstance(label, str):
        return pl.col(label)
    if isinstance(label, pl.Expr):
        return label
    raise ArgumentError(f"label must be a column or an expression, got {shown(label)}\nHint: such as label='label'.")


def _common_dtype(name: str, dtypes: Sequence[pl.DataType]) -> pl.DataType:
    """Return the dtype that values of all splits have in one column; that of text for different categories."""
    if all(dtype == dtypes[0] for dtype in dtypes):
        return dtypes[0]
    named = [pl.String() if dtype in (pl.Categorical, pl.Enum) else dtype for dtype in dtypes]
    try:
        empty = [pl.DataFrame({name: pl.Series([], dtype=dtype)}) for dtype in named]
        common = pl.concat(empty, how="vertical_relaxed").schema[name]
    except pl.exceptions.PolarsError as error:
        raise _no_common(name, dtypes) from error
    # A Float64 does not hold all whole numbers, and a list of one value is not that value.
    if any((common.is_float() and dtype.is_integer()) or common.is_nested() != dtype.is_nested() for dtype in named):
        raise _no_common(name, dtypes)
    return common


def _no_common(name: str, dtypes: Sequence[pl.DataType]) -> ColumnError:
    found = ", ".join(dict.fromkeys(map(str, dtypes)))
    return ColumnError(
        f"{name} has dtypes without a common one in the splits: {found}\nHint: cast the column in all splits to one."
    )


def _apply_to_all(
    frames: Sequence[Frame],
    columns: Sequence[list[str]],
    function: Callable[..., pl.DataFrame],
    schema: dict[str, Any],
) -> Frame:
    """Return `function` of the named columns of each frame: at once for DataFrames, else when the query runs."""
    parts = [frame.select(names) for frame, names in zip(frames, columns, strict=True)]
    if all(isinstance(part, pl.DataFrame) for part in parts):
        return function(*parts)
    # One row with a list of each frame, as `apply_to_both`.
    lists = [part.lazy().select(pl.struct(pl.all()).implode().alias(f"{at}")) for at, part in enumerate(parts)]

    def run(row: pl.DataFrame) -> pl.DataFrame:
        return function(*(values[0].struct.unnest() for values in row.get_columns()))

    return pl.concat(lists, how="horizontal").map_batches(run, schema=schema)
