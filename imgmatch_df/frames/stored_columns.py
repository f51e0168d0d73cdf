"""The columns of a frame that `write_hashes` stores: its key, its hashes and measures, and what describes an image."""

from typing import Final

import polars as pl

from imgmatch_df.columns import (
    DETAIL,
    ETAG,
    HEIGHT,
    MODIFIED,
    MODIFIED_DTYPE,
    OK,
    SIZE,
    STATUS,
    STATUS_DTYPE,
    WIDTH,
)
from imgmatch_df.errors import ColumnError
from imgmatch_df.frames.checks import Frame, shown_names
from imgmatch_df.frames.expressions import HashTypes, check_hash_types, hash_expr
from imgmatch_df.frames.given_hashes import read_given
from imgmatch_df.frames.layout import is_hash
from imgmatch_df.frames.reference import key_column
from imgmatch_df.frames.source_columns import CheckedSource
from imgmatch_df.hashes import forms
from imgmatch_df.hashes.codec import dtype_hint
from imgmatch_df.hashes.kinds import (
    DEFAULT_HASH_TYPES,
    KINDS,
    MEASURES,
    SHA256,
    STORED_HASH_TYPES,
    HashKind,
    hash_kind,
    with_measures,
)
from imgmatch_df.image_columns import holds_bytes, is_text_dtype
from imgmatch_df.store.manifest import Manifest

IMAGE: Final = "__imgmatch_image"  # the images to hash


def kinds_to_store(
    schema: pl.Schema, source: CheckedSource | None, hash_types: HashTypes | None, stored: Manifest | None, key: str
) -> tuple[str, ...]:
    """Return the hash kinds to store, which the frame has where nothing is to be hashed."""
    if hash_types is not None:
        names = check_hash_types(hash_types)
    elif stored is not None:
        names = stored.hash_types
    else:
        # A column called sha256 or local may be the key, or hold something else.
        given = (
            name
            for name, kind in KINDS.items()
            if name in schema and (kind.is_perceptual or is_hash(name, schema[name]))
        )
        names = tuple(name for name in (STORED_HASH_TYPES if source is not None else given) if name != key)
    if source is None:
        # A store that digests files may hold rows that others hashed, whose digests are not known.
        optional = {SHA256.name} if hash_types is None else set()
        absent = [name for name in names if name not in {*schema, *optional}]
        if absent or not names:
            raise ColumnError(
                f"no column {(absent or DEFAULT_HASH_TYPES)[0]!r} in the frame, it has {shown_names(schema)}\n"
                "Hint: source='column of images' hashes first."
            )
        for name in names:
            kind = hash_kind(name)
            # Text and lists are hashes where the call says so: the form of a column is not known without its values.
            holds = forms.holds_hashes if hash_types is not None else _holds
            if name in schema and not holds(schema[name], kind):
                raise ColumnError(
                    f"column {name!r} has dtype {schema[name]}, a {name} is {kind.dtype}\n"
                    f"Hint: {dtype_hint(schema[name], kind)}"
                )
    return names


def _holds(dtype: pl.DataType, kind: HashKind) -> bool:
    return kind.holds(dtype)


def find_key_column(schema: pl.Schema, source: str | None, name: str, images: str | None) -> str:
    """Return the column of the frame that holds the key called `name`, as `reference.key_column` finds it."""
    found = key_column(schema, source, name, images)
    if found is None:
        raise ColumnError(
            f"no column {name!r} in the frame, it has {shown_names(schema)}\n"
            "Hint: key= names the column that identifies rows."
        )
    return found


def key_dtype(schema: pl.Schema, column: str, stored: Manifest | None) -> pl.DataType:
    """Return the dtype of the key in the store for the dtype of its column in the frame."""
    dtype = schema[column]
    if dtype.is_integer() and stored is not None and stored.columns[stored.key].is_integer():
        return stored.columns[stored.key]
    if dtype == pl.UInt64:
        return pl.UInt64()
    if dtype in (pl.String, pl.Null, pl.Categorical, pl.Enum):
        return pl.String()
    if dtype.is_integer():
        return pl.Int64()
    raise ColumnError(
        f"column {column!r} has dtype {dtype}, a key is text or whole numbers\n"
        "Hint: key= names another column; images need one beside them."
    )


def measures_to_store(
    schema: pl.Schema, kinds: tuple[str, ...], source: CheckedSource | None, key: str
) -> tuple[str, ...]:
    """Return the measures to store with `kinds`, which the frame has where nothing is to be hashed."""
    return tuple(
        name
        for name in with_measures(kinds)[len(kinds) :]
        if name != key and (source is not None or schema.get(name) == MEASURES[name].dtype)
    )


def given_columns(
    frame: Frame, schema: pl.Schema, kinds: tuple[str, ...], measures: tuple[str, ...], source: CheckedSource | None
) -> list[pl.Expr]:
    """Return the columns to store: images or hashes, and the fingerprint if `scan_images` made it."""
    stamped = schema.get(SIZE) == pl.UInt64 and schema.get(MODIFIED) == MODIFIED_DTYPE
    given = [pl.col(SIZE), pl.col(MODIFIED)] if stamped and (source is None or not holds_bytes(source.dtype)) else []
    if source is not None:
        images = source.expr.cast(pl.String) if is_text_dtype(source.dtype) or source.dtype == pl.Null else source.expr
        return [images.alias(IMAGE), *given]
    rest = {WIDTH: pl.UInt32(), HEIGHT: pl.UInt32(), DETAIL: pl.String(), ETAG: pl.String()}
    for name in (STATUS, *rest):
        _check_given(name, schema.get(name, pl.Null()), is_number=name in (WIDTH, HEIGHT))
    given_kinds = [name for name in kinds if name in schema]
    has_hash = pl.all_horizontal(pl.col(name).is_not_null() for name in given_kinds)
    status = pl.col(STATUS).cast(STATUS_DTYPE, strict=False) if STATUS in schema else pl.lit(None, STATUS_DTYPE)
    return [
        *(_given_hashes(frame, schema, hash_kind(name)) for name in given_kinds),
        *(pl.lit(None, hash_kind(name).dtype).alias(name) for name in kinds if name not in schema),
        *map(pl.col, measures),
        pl.when(has_hash).then(pl.lit(OK, STATUS_DTYPE)).when(status != OK).then(status).alias(STATUS),
        *(
            (pl.col(name) if name in schema else pl.lit(None)).cast(dtype, strict=False).alias(name)
            for name, dtype in rest.items()
        ),
        *given,
    ]


def _given_hashes(frame: Frame, schema: pl.Schema, kind: HashKind) -> pl.Expr:
    """Return the hashes of the frame in the dtype of their kind; values in a foreign form are all looked at now."""
    found = None if kind.holds(schema[kind.name]) else read_given(frame.lazy(), kind)
    return hash_expr(kind.name, kind) if found is None else found.expr


def _check_given(name: str, dtype: pl.DataType, *, is_number: bool) -> None:
    """Refuse a column of the user's that only has the name of a column that describes a hashed image."""
    if dtype == pl.Null or (dtype.is_numeric() if is_number else dtype in (pl.String, pl.Categorical, pl.Enum)):
        return
    raise ColumnError(
        f"column {name!r} has dtype {dtype}, the {name} of a stored image is {'a number' if is_number else 'text'}\n"
        "Hint: rename or drop the column; a store keeps no column of that name but this one."
    )
