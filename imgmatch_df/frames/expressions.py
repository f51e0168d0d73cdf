"""Expressions that hash and compare, and the frame verb `visual_hash`.

The namespaces and the command line call these functions.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from hashlib import blake2b
from typing import Unpack, overload

import polars as pl

from imgmatch_df.batch import run
from imgmatch_df.batch.sharing import Field, SharedBatches, Whole, shared_batches
from imgmatch_df.columns import DISTANCE, DISTANCE_DTYPE
from imgmatch_df.errors import ArgumentError
from imgmatch_df.frames.interchange import takes_tables
from imgmatch_df.frames.layout import NO_AFFIXES, Affixes, arranged, free_name
from imgmatch_df.frames.source_columns import SourceColumn, checked_source
from imgmatch_df.hashes import codec, forms
from imgmatch_df.hashes.kinds import (
    BMH1,
    DEFAULT_HASH_TYPES,
    KINDS,
    MEASURES,
    PDQ,
    PHASH,
    HashKind,
    ImageColumn,
    batch_fields,
    hash_kind,
    visual_hash_fields,
    with_measures,
)
from imgmatch_df.options import Options, SourceOptions, check_no_patterns, make_options, shown

HashTypes = str | Iterable[str]

# Polars merges equal subexpressions only when they carry the same function *object*, so expressions on the same source
# and options share one base expression. Few are in use at once; an evicted one costs a second decode, nothing else.
_MAX_SHARED = 16
_shared: OrderedDict[tuple[bytes, Options, tuple[str, ...]], tuple[SharedBatches, pl.Expr]] = OrderedDict()
_lock = threading.Lock()


def phash(source: pl.Expr | str, **options: Unpack[SourceOptions]) -> pl.Expr:
    """Return the 64-bit perceptual hash of each image.

    Compact, and fast to join; `bmh1` separates near-duplicates better. Equal, bit for bit, to OpenCV's `PHash` of the
    image that `imdecode` gives. A row that fails is null; `visual_hash` says why.

    Parameters
    ----------
    source
        Column of images, by name or expression: paths, URLs, base64 or data URIs (`String`), encoded images
        (`Binary`), structs of both as Hugging Face writes them, or lists of these, of which the first is hashed.
    **options
        See `Options`.

    Returns
    -------
    Expr
        ``phash: UInt64``. ``f"{value:064b}"`` is the documented string.

    Raises
    ------
    ArgumentError
        If an option is unknown or has a value that is not allowed.

    Notes
    -----
    `phash`, `bmh1` and `visual_hash` of one column in one statement read and decode each image once.
    Source: Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions (2010); OpenCV `phash.cpp`.

    Examples
    --------
    >>> import imgmatch_df, polars as pl
    >>> pl.select(imgmatch_df.phash(pl.lit("no-such-file.jpg"))).to_series().to_list()
    [None]
    """
    return perceptual_hash(source, PHASH.name, **options)


def pdq(source: pl.Expr | str, **options: Unpack[SourceOptions]) -> pl.Expr:
    """Return the 256-bit PDQ hash of each image.

    Equal, bit for bit, to `pdqhash.compute` of the image as seen (ThreatExchange, `pdq/cpp`). Images of less than 5
    rows or columns have zeros. A row that fails is null; `visual_hash` reports why.

    Parameters
    ----------
    source
        Column of images, by name or expression: paths, URLs, base64 or data URIs (`String`), encoded images
        (`Binary`), structs of both as Hugging Face writes them, or lists of these, of which the first is hashed.
    **options
        See `Options`.

    Returns
    -------
    Expr
        ``pdq: Binary``, 32 bytes in the order in which pdqhash prints them.

    Raises
    ------
    ArgumentError
        If an option is unknown or its value is not allowed.

    Examples
    --------
    >>> import imgmatch_df, polars as pl
    >>> pl.select(imgmatch_df.pdq(pl.lit("no-such-file.jpg"))).to_series().to_list()
    [None]
    """
    return perceptual_hash(source, PDQ.name, **options)


def bmh1(source: pl.Expr | str, **options: Unpack[SourceOptions]) -> pl.Expr:
    """Return the 961-bit block mean hash of each image.

    The one to find near-duplicates with: a 31 x 31 grid that marks the blocks lighter than the mean. Equal, bit for
    bit, to OpenCV's `BlockMeanHash` mode 1. A row that fails is null; `visual_hash` says why.

    Parameters
    ----------
    source
        Column of images, by name or expression: paths, URLs, base64 or data URIs (`String`), encoded images
        (`Binary`), structs of both as Hugging Face writes them, or lists of these, of which the first is hashed.
    **options
        See `Options`.

    Returns
    -------
    Expr
        ``bmh1: Binary`` of 121 bytes: 961 bits and 7 of padding.

    Raises
    ------
    ArgumentError
        If an option is unknown or has a value that is not allowed.

    Notes
    -----
    `phash`, `bmh1` and `visual_hash` of one column in one statement read and decode each image once.
    Source: Yang, Gu, Niu, Block Mean Value Based Image Perceptual Hashing (2006); OpenCV `block_mean_hash.cpp`.

    Examples
    --------
    >>> import imgmatch_df, polars as pl
    >>> pl.select(imgmatch_df.bmh1(pl.lit("no-such-file.jpg"))).to_series().to_list()
    [None]
    """
    return perceptual_hash(source, BMH1.name, **options)


def perceptual_hash(source: pl.Expr | str, hash_type: str, **options: Unpack[SourceOptions]) -> pl.Expr:
    """Return the perceptual hash of one kind of each image.

    For a kind that is chosen by a variable, or has no function of its own, such as one of `register_hash_kind`. A row
    that fails is null; `visual_hash` says why.

    Parameters
    ----------
    source
        Column of images, by name or expression: paths, URLs, base64 or data URIs (`String`), encoded images
        (`Binary`), structs of both as Hugging Face writes them, or lists of these, of which the first is hashed.
    hash_type
        Name of a hash kind: ``"bmh1"``, ``"phash"`` or a registered one.
    **options
        See `Options`.

    Returns
    -------
    Expr
        A column of the kind's name and dtype.

    Raises
    ------
    ArgumentError
        If there is no such hash kind, or an option is unknown or has a value that is not allowed.

    Notes
    -----
    The kinds of one column in one statement read and decode each image once. No other kinds are computed.

    Examples
    --------
    >>> import imgmatch_df, polars as pl
    >>> pl.select(imgmatch_df.perceptual_hash(pl.lit("no-such-file.jpg"), "phash")).to_series().to_list()
    [None]
    """
    kind = hash_kind(hash_type)
    return hash_column(source, kind, make_options(**options))


@overload
def visual_hash(
    data: pl.DataFrame,
    source: SourceColumn = "url",
    *,
    hash_types: HashTypes = DEFAULT_HASH_TYPES,
    prefix: str = "",
    suffix: str = "",
    **options: Unpack[SourceOptions],
) -> pl.DataFrame: ...


@overload
def visual_hash(
    data: pl.LazyFrame,
    source: SourceColumn = "url",
    *,
    hash_types: HashTypes = DEFAULT_HASH_TYPES,
    prefix: str = "",
    suffix: str = "",
    **options: Unpack[SourceOptions],
) -> pl.LazyFrame: ...


@overload
def visual_hash(
    data: pl.Expr | str,
    *,
    hash_types: HashTypes = DEFAULT_HASH_TYPES,
    prefix: str = "",
    suffix: str = "",
    **options: Unpack[SourceOptions],
) -> pl.Expr: ...


@takes_tables
def visual_hash(
    data: pl.DataFrame | pl.LazyFrame | pl.Expr | str,
    source: SourceColumn = "url",
    *,
    hash_types: HashTypes = DEFAULT_HASH_TYPES,
    prefix: str = "",
    suffix: str = "",
    **options: Unpack[SourceOptions],
) -> pl.DataFrame | pl.LazyFrame | pl.Expr:
    """Return the hashes of each image, its size, and what went wrong where it failed.

    Parameters
    ----------
    data
        A frame that has a source column; or the source column itself, by name or expression.
    source
        The source column when `data` is a frame: its name, or any expression for one column, such as
        ``pl.col("images").list.last()``. It has the dtypes of `phash`.
    hash_types
        Names of hash kinds, ``"bmh1"`` and ``"phash"`` unless given. No other kinds are computed.
    prefix, suffix
        Put before and after the names of the new columns, or of the fields.
    **options
        See `Options`.

    Returns
    -------
    DataFrame, LazyFrame or Expr
        A frame comes back with the new columns ``width: UInt32``, ``height: UInt32`` (pixels, as seen),
        ``status: Enum``, ``detail: String`` (null where ok) and ``quality: UInt8`` (how much there is to see, 0 to 100)
        before its own, and with the hashes last, rows in order. With ``"pdq"`` also ``pdq_quality: UInt8``.
        An expression gives them as one ``visual_hash: Struct``.

    Raises
    ------
    ArgumentError
        If a hash type or an option is unknown or has a value that is not allowed.
    ColumnError
        If the frame has no such column, its dtype is not a source dtype, or the frame already has a column with the
        name of a new one.

    Examples
    --------
    >>> import imgmatch_df, polars as pl
    >>> frame = imgmatch_df.visual_hash(pl.DataFrame({"url": ["no-such-file.jpg"]}))
    >>> frame.columns
    ['width', 'height', 'status', 'detail', 'quality', 'url', 'bmh1', 'phash']
    >>> frame.select("phash", "status", "detail").row(0)
    (None, 'not_found', 'no such file: no-such-file.jpg')
    """
    hash_types = check_hash_types(hash_types)
    computed = with_measures(hash_types)
    fields = visual_hash_fields(computed)
    checked, affixes = make_options(**options), Affixes.make(prefix, suffix)
    if isinstance(data, (pl.DataFrame, pl.LazyFrame)):
        images = checked_source(data, source)
        schema = data.collect_schema()
        check_no_patterns(schema)
        names = affixes.add(fields, schema)
        # One expression hashes, so nothing is shared. `unnest` would hash even if no new column is selected.
        struct = free_name({**schema, **fields})
        hash_batch = partial(_hash_batch, options=checked, hash_types=computed)
        base = map_column(images.expr, hash_batch, pl.Struct(batch_fields(computed))).alias(struct)
        columns = [pl.col(struct).struct.field(name).alias(names[name]) for name in fields]
        new = [names[name] for name in fields if name not in hash_types]
        hashes = {names[name]: fields[name] for name in hash_types}
        order = arranged(new, {**schema, **hashes}, hashes)
        return data.with_columns(base).with_columns(columns).select(order)
    batches, base = _shared_base(column_expr(data), checked)
    whole = _stack(base, Whole(batches, fields), pl.Struct(fields))
    names = affixes.add(fields, {})
    return (
        whole
        if affixes == NO_AFFIXES
        else whole.struct.rename_fields(list(names.values())).alias(whole.meta.output_name())
    )


def hash_expr(hashes: pl.Expr | str, kind: HashKind) -> pl.Expr:
    """Return a column of hashes in the dtype of their kind; see `codec.as_hashes`."""
    return map_column(column_expr(hashes), partial(codec.as_hashes, kind=kind), kind.dtype)


def hash_column(source: pl.Expr | str, kind: ImageColumn, options: Options) -> pl.Expr:
    """Return the hashes of one kind, or one measure, of each image, as the expression of that name does."""
    batches, base = _shared_base(column_expr(source), options)
    return _stack(base, Field(batches, kind.name), kind.dtype)


def hamming(
    hashes: pl.Expr | str, other: pl.Expr | pl.Series | int | bytes | str, *, hash_type: str | None = None
) -> pl.Expr:
    """Return the Hamming distance between hashes, in bits.

    Parameters
    ----------
    hashes
        Hash column, `Binary` or whole numbers, by name or expression. Signed numbers stand for the same 64 bits.
    other
        A hash column, as an expression or a series; or one hash value, as `rank_images` takes it: a whole number
        (phash), bytes (bmh1), hexadecimal digits or a 0/1 string.
    hash_type
        Name of the kind of both sides, whose columns may then also be text or lists, see `near_duplicates`; the whole
        column is read first. None takes columns of hashes only, and a value of the kind that the column may hold.

    Returns
    -------
    Expr
        ``distance: UInt16``, 0 to the number of bits, null where either hash is null.

    Raises
    ------
    ArgumentError
        If `other` is not a hash value, or there is no such hash type.
    ColumnError
        When the query runs, if the two sides are not hash columns or of different kinds.

    Examples
    --------
    >>> import imgmatch_df, polars as pl
    >>> frame = pl.DataFrame({"phash": [0, 255, None]}, schema={"phash": pl.UInt64})
    >>> frame.select(imgmatch_df.hamming("phash", 1)).to_series().to_list()
    [1, 7, None]
    """
    kind = None if hash_type is None else hash_kind(hash_type)
    if isinstance(other, pl.Series):
        other = pl.lit(other)
    values: list[int | bytes] = []
    sides = [column_expr(hashes)]
    if isinstance(other, pl.Expr):
        sides.append(other)
    else:
        values = forms.parse_any(other) if kind is None else [forms.parse_hash(other, kind)]
    distances = partial(_distances, kind=kind, values=values)
    # All values of a column of text decide about its form.
    return pl.map_batches(sides, distances, return_dtype=DISTANCE_DTYPE, is_elementwise=kind is None).alias(DISTANCE)


# Functions of a module and not lambdas: expressions that hold them can be pickled.
def _hash_batch(values: pl.Series, options: Options, hash_types: tuple[str, ...]) -> pl.Series:
    return run.hash_batch(values, options, hash_types)


def _distances(sides: Sequence[pl.Series], kind: HashKind | None, values: Sequence[int | bytes]) -> pl.Series:
    left, *others = sides if kind is None else [forms.read_column(side, kind) for side in sides]
    return codec.distances(left, others[0] if others else forms.fitting_hash(values, left))


def _shared_base(source: pl.Expr, options: Options) -> tuple[SharedBatches, pl.Expr]:
    """Return the expression under every hash of `source`: one object for equal sources and options."""
    fingerprint = _fingerprint(source)
    batches = shared_batches(options, pl.Struct(batch_fields((*KINDS, *MEASURES))), fingerprint)
    made = batches, map_column(source, batches, batches.dtype)
    if fingerprint is None:
        return made
    key = fingerprint, options, batches.names
    with _lock:
        shared = _shared.setdefault(key, made)
        _shared.move_to_end(key)
        if len(_shared) > _MAX_SHARED:
            _shared.popitem(last=False)
    return shared


def _fingerprint(source: pl.Expr) -> bytes | None:
    from pickle import PicklingError

    try:
        serialized = source.meta.serialize()
    except (pl.exceptions.PolarsError, PicklingError, TypeError, AttributeError):
        return None  # the user's own function cannot be pickled: the expression shares with no other
    return blake2b(serialized, digest_size=16).digest()  # a literal may be long


def _stack(base: pl.Expr, field: Field, dtype: pl.DataType) -> pl.Expr:
    # Another map, not `.struct.field`: that one would clone the base and end the sharing.
    return map_column(base, field, dtype).alias(field.name)


def map_column(expr: pl.Expr, function: Callable[[pl.Series], pl.Series], dtype: pl.DataType) -> pl.Expr:
    """Return the expression that applies `function` to each batch of a column, row by row."""
    return expr.map_batches(function, return_dtype=dtype, is_elementwise=True)


def column_expr(column: pl.Expr | str) -> pl.Expr:
    """Return a column that is given by name or as an expression, as an expression."""
    if isinstance(column, pl.Expr):
        return column
    if isinstance(column, str):
        return pl.col(column)
    raise ArgumentError(
        f"a column is needed, got {type(column).__name__}\n"
        "Hint: pass a column name or an expression; a Series has the namespace series.imgmatch."
    )


def check_hash_types(hash_types: HashTypes) -> tuple[str, ...]:
    """Return the names of the hash kinds, each of which there is, and once."""
    if not isinstance(hash_types, Iterable) or isinstance(hash_types, bytes | pl.Series | pl.DataFrame):
        raise ArgumentError(f"hash_types must be names of kinds, got {shown(hash_types)}\nHint: leave it out for both.")
    names = (hash_types,) if isinstance(hash_types, str) else tuple(hash_types)
    for name in names:
        hash_kind(name)
    if not names or len(set(names)) < len(names):
        raise ArgumentError(f"hash_types must name each kind once, got {names!r}\nHint: leave it out for both.")
    return names


def _forget_lock_of_parent() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_lock_of_parent)
