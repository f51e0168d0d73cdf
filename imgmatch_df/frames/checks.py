"""What every frame verb does first: check the call, hash the source column, lay out the hashes for the kernels."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import polars as pl

from imgmatch_df.columns import QUALITY, ROW_DTYPE, TURN, TURN_DTYPE, TURNS
from imgmatch_df.errors import ArgumentError, ColumnError, warn
from imgmatch_df.frames import expressions
from imgmatch_df.frames.flat import Guard, check_flat, nothing_flat
from imgmatch_df.frames.layout import NO_AFFIXES, Affixes, arranged, free_name
from imgmatch_df.frames.source_columns import CheckedSource, SourceColumn, checked_source
from imgmatch_df.hashes import codec, forms
from imgmatch_df.hashes.kinds import (
    MEASURES,
    SHA256,
    HashKind,
    ImageColumn,
    hash_kind,
    visual_hash_fields,
    with_measures,
)
from imgmatch_df.image_columns import holds_bytes
from imgmatch_df.options import Recipe, SourceOptions, check_name, check_no_patterns, make_options, shown, whole_number

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Frame = pl.DataFrame | pl.LazyFrame
FrameT = TypeVar("FrameT", pl.DataFrame, pl.LazyFrame)


class JoinSide:
    """The rows of a frame to compare by their hashes: their words for the kernels, and what names them.

    Parameters
    ----------
    frame
        Has the columns.
    kind, hash_name
        Kind of the hashes, and their column.
    id_column
        Column that names rows; None names them by number.
    guard
        Columns that show which images are flat: their rows are in `flat` and have no words. None compares these too.
    """

    def __init__(
        self,
        frame: pl.DataFrame,
        kind: HashKind,
        hash_name: str,
        id_column: str | None = None,
        guard: Guard | None = None,
    ) -> None:
        column = forms.read_column(frame[hash_name], kind)
        self.n_rows = len(column)
        self.flat = nothing_flat() if guard is None else guard.find(frame, column, kind)
        if self.flat.rows.size:
            column = column.scatter(self.flat.rows, None)
        self.words = codec.hash_words(column.drop_nulls() if column.null_count() else column, kind)
        self._whole = len(self.words) == self.n_rows
        self._column = column
        self._ids = None if id_column is None else frame[id_column]

    @cached_property
    def rows(self) -> "NDArray[np.int64]":
        """The row numbers of the words."""
        import numpy as np

        return np.arange(self.n_rows) if self._whole else np.flatnonzero(self._column.is_not_null().to_numpy())

    def rows_of(self, words: "NDArray[Any]") -> "NDArray[Any]":
        """Return the row numbers of words, given by their positions."""
        return words if self._whole else self.rows[words]

    def ids(self, rows: "NDArray[Any]") -> pl.Series:
        """Return what names the rows, given by their numbers."""
        return pl.Series(rows, dtype=ROW_DTYPE) if self._ids is None else self._ids.gather(rows)


@dataclass(frozen=True)
class VerbCall(Generic[FrameT]):
    """A call of a frame verb, checked before anything is hashed.

    Parameters
    ----------
    frame
        As it was given.
    schema
        Of `frame`.
    kind
        What is compared.
    source
        Column of images to hash first, None where the frame has the hashes.
    source_name
        Column of the hashed frame that has the text of `source`, None where there is no text.
    options
        How to hash.
    affixes
        Of the columns that are added.
    names
        The columns that the result has beside those of `frame`, by their plain names.
    hash
        The column of hashes, once they are there.
    guard
        Columns that show which images are flat, None where these are compared as others.
    hidden
        Columns of the hashed frame that the result does not have.
    """

    frame: FrameT
    schema: pl.Schema
    kind: HashKind
    source: CheckedSource | None
    options: SourceOptions
    affixes: Affixes
    names: Mapping[str, str]
    hash: str
    guard: Guard | None = None
    hidden: tuple[str, ...] = ()
    source_name: str | None = None

    @classmethod
    def check(
        cls,
        frame: FrameT,
        kind: HashKind,
        source: SourceColumn | None,
        options: SourceOptions,
        *,
        column: str | None = None,
        id: str | None = None,
        adds: Sequence[str] | None = None,
        affixes: Affixes = NO_AFFIXES,
        flat: str = "identical",
        for_query: bool = False,
    ) -> "VerbCall[FrameT]":
        """Return a call, checked.

        Parameters
        ----------
        frame, kind, source, options, affixes
            As above.
        column
            The column of hashes; None for the one with the name of the kind.
        id
            A column that the frame must have.
        adds
            Columns that the verb adds, by their plain names; None where the result has no columns of `frame`.
        flat
            ``"identical"`` or ``"match"``, see `near_duplicates`.
        for_query
            Whether the options are for a query too, and so have an effect without `source`.
        """
        if not isinstance(frame, (pl.DataFrame, pl.LazyFrame)):
            raise ArgumentError(
                f"frame must be a Polars DataFrame or LazyFrame, got {type(frame).__name__}\n"
                "Hint: pl.from_arrow and pl.scan_parquet make one."
            )
        make_options(**options)
        idle = [name for name in options if name != "progress"]
        if source is None and idle and not for_query:
            raise ArgumentError(f"{', '.join(idle)} has no effect without source=\nHint: name the column of images.")
        if column is not None:
            check_name("column", column)
        images = None if source is None else checked_source(frame, source)
        if source is not None and column is not None:
            raise ArgumentError(
                "column has no effect with source=, whose images are hashed\n"
                "Hint: leave source= out to compare the hashes in the column."
            )
        hash_name = kind.name if column is None else column
        schema = frame.collect_schema() if source is not None else check_hash_columns(frame, kind, hash_name)
        check_id(schema, id)
        if adds is not None:
            check_no_patterns(schema)
        names = affixes.add(adds or (), schema)
        guard = Guard.of(schema) if check_flat(flat) and kind.is_perceptual else None
        call = cls(frame, schema, kind, images, options, affixes, names, hash_name, guard)
        if images is None:
            return call
        first = free_name(schema)
        if images.text is not None:
            call = replace(call, source_name=images.text_column or f"{first}_text")
        if adds is None:
            hidden = (first, f"{first}_{QUALITY}", f"{first}_{SHA256.name}") if guard else (first,)
            return replace(call, hash=first, guard=Guard(*hidden[1:]) if guard else None, hidden=hidden)
        hint = (
            f"leave source= out to compare the hashes in {kind.name!r}, or name the new columns with prefix=, suffix="
        )
        made = affixes.add(
            visual_hash_fields(with_measures((kind.name,))), schema, *([f"{hint}."] if kind.name in schema else [])
        )
        call = replace(call, names={**names, **made}, hash=made[kind.name])
        if guard is None:
            return call
        digest = affixes.name_of(SHA256.name)
        if guard.digest is None and digest not in schema:
            return replace(call, guard=Guard(made[QUALITY], digest), hidden=(digest,))
        return replace(call, guard=Guard(made[QUALITY], guard.digest))

    def column(self, name: str) -> str:
        """Return the column that is called `name` where there are no affixes."""
        return self.names.get(name, name)

    @property
    def recipe(self) -> Recipe | None:
        """The options that hashes depend on, None where the call hashes nothing."""
        return None if self.source is None else make_options(**self.options).recipe

    @property
    def progress(self) -> bool:
        """Whether to show a bar."""
        return self.options.get("progress", False)

    @property
    def hashed_schema(self) -> pl.Schema:
        """Schema of the frame with its hashes, before anything is hashed."""
        if self.source is None:
            return self.schema
        lazy: VerbCall[Any] = replace(self, frame=self.frame.lazy())  # type: ignore[arg-type]
        schema: pl.Schema = lazy.hashed().collect_schema()
        return schema

    def hashed(self) -> FrameT:
        """Return the frame with its hashes."""
        if self.source is None:
            return self.frame
        if self.hash in self.names.values():
            kinds = (self.kind.name, SHA256.name) if self.hidden else self.kind.name
            return self.named(
                expressions.visual_hash(
                    self.frame, self.source.expr, hash_types=kinds, **self.affixes._asdict(), **self.options
                )
            )
        computed: tuple[ImageColumn, ...] = (self.kind, MEASURES[QUALITY], SHA256)
        options = make_options(**self.options)
        return self.named(
            self.frame.with_columns(
                expressions.hash_column(self.source.expr, column, options).alias(name)
                for column, name in zip(computed, self.hidden, strict=False)
            )
        )

    @property
    def source_label(self) -> str | None:
        """The column of the hashed frame that has the text of the images, else that of the images."""
        return None if self.source is None else self.source_name or self.source.name

    @property
    def named_schema(self) -> pl.Schema:
        """Schema of the frame with the column `source_label`."""
        if self.source is None or self.source_label is None:
            return self.schema
        text = pl.String() if self.source_name not in (None, self.source.column) else self.source.dtype
        return pl.Schema({**self.schema, self.source_label: text})

    def named(self, frame: FrameT) -> FrameT:
        """Return a frame with the columns of this call and the text of its images."""
        if self.source is None or self.source.text is None or self.source_name in (None, self.source.column):
            return frame
        return frame.with_columns(self.source.text.alias(str(self.source_name)))

    def order(self, new: Sequence[str], schema: Mapping[str, Any]) -> list[str]:
        """Return the columns of the result, of which `new` are by their plain names, and `columns` has the others."""
        hidden = {*self.hidden, *([] if self.source_name in self.schema else [self.source_name])}
        shown = {name: dtype for name, dtype in schema.items() if name not in hidden}
        return arranged([self.names[name] for name in new], shown, (self.hash,))


def check_radius(radius: object, hash_type: str) -> tuple[HashKind, int]:
    """Return the hash kind, and `radius` as an int that is allowed for it; warn where it finds unrelated images."""
    kind, n_bits = hash_kind(hash_type), whole_number(radius)
    if n_bits is None or not 0 <= n_bits <= kind.n_bits:
        raise ArgumentError(
            f"radius must be a whole number of bits from 0 to {kind.n_bits}, got {shown(radius)}\n"
            f"Hint: 0 finds equal hashes; {kind.near_radius} of {kind.name} finds edited copies."
        )
    if kind.max_honest_radius is not None and n_bits > kind.max_honest_radius:
        warn(
            f"a radius of {n_bits} of {kind.n_bits} bits joins unrelated images: {kind.name} separates copies from "
            f"them up to {kind.max_honest_radius} bits\nHint: radius={kind.near_radius} finds edited copies."
        )
    return kind, n_bits


def check_hash_columns(frame: Frame, kind: HashKind, hash_name: str, id_column: str | None = None) -> pl.Schema:
    """Return the schema of `frame`, which has the hash column and the id column that a verb needs."""
    schema = frame.collect_schema()
    if hash_name not in schema:
        raise ColumnError(
            f"no column {hash_name!r} in the frame, it has {shown_names(schema)}\n"
            "Hint: column= names the column of hashes, source= a column of images to hash first, hash_type= another "
            "kind."
        )
    dtype = schema[hash_name]
    if not forms.holds_hashes(dtype, kind):
        raise ColumnError(
            f"column {hash_name!r} has dtype {dtype}, a {kind.name} is {kind.dtype}\n"
            f"Hint: {codec.dtype_hint(dtype, kind)}"
        )
    check_id(schema, id_column)
    return schema


def check_id(schema: pl.Schema, id_column: str | None) -> None:
    """Refuse a column of ids that is absent, or that Polars cannot gather."""
    if id_column is not None:
        check_name("id", id_column)
    if id_column is not None and id_column not in schema:
        raise ColumnError(
            f"no column {id_column!r} in the frame, it has {shown_names(schema)}\nHint: id=None names rows by number."
        )
    if id_column is not None and schema[id_column].is_nested() and holds_bytes(schema[id_column]):
        raise ColumnError(
            f"column {id_column!r} holds images, which cannot name rows\nHint: with_columns(path=pl.col("
            f"{id_column!r}).struct.field('path')) and id='path' name them by their paths; None by number."
        )
    if id_column is not None and schema[id_column] == pl.Object:
        raise ColumnError(
            f"column {id_column!r} has dtype Object, which Polars cannot gather\n"
            "Hint: an id is of any other dtype, such as text; None names rows by number."
        )


def shown_names(schema: Mapping[str, Any]) -> str:
    """Return the column names for a message, the first twelve of them."""
    return ", ".join(map(repr, list(schema)[:12])) + (", …" if len(schema) > 12 else "") or "no columns"


def needed_columns(hash_name: str, id_column: str | None, others: Iterable[str] = ()) -> list[str]:
    """Return the columns that a comparison reads."""
    return list(dict.fromkeys([hash_name, *([] if id_column is None else [id_column]), *others]))


def turn_series(numbers: "NDArray[np.uint8]", name: str = TURN) -> pl.Series:
    """Return numbers of turns as the column of turns."""
    return pl.Series(name, TURNS, dtype=TURN_DTYPE).gather(numbers)


def apply(
    frame: FrameT, columns: list[str], function: Callable[[pl.DataFrame], pl.DataFrame], schema: dict[str, Any]
) -> FrameT:
    """Return `function` of the named columns: at once for a `DataFrame`, when the query runs for a `LazyFrame`."""
    if isinstance(frame, pl.DataFrame):
        return function(frame[columns])  # a select would be a query: 0.2 ms, a tenth of a small join
    return frame.select(columns).map_batches(function, schema=schema)


def apply_to_both(
    frame: FrameT,
    columns: list[str],
    other: pl.LazyFrame,
    function: Callable[[pl.DataFrame, pl.DataFrame], pl.DataFrame],
    schema: dict[str, Any],
) -> FrameT:
    """Return `function` of the named columns and of another frame, as `apply`."""
    if isinstance(frame, pl.DataFrame):
        return function(frame[columns], other.collect())
    # One row with a list of each frame: a map function takes one frame, and the frames have different lengths.
    sides = (("l", frame.select(columns)), ("r", other))
    lists = [side.select(pl.struct(pl.all()).implode().alias(name)) for name, side in sides]
    return pl.concat(lists, how="horizontal").map_batches(
        lambda row: function(*(row[name][0].struct.unnest() for name in ("l", "r"))), schema=schema
    )
