"""The rows of a DataFrame that `write_hashes` stores: their key, their image or hashes, and the manifest they need."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from imgmatch_df.columns import DETAIL, ETAG, HEIGHT, MODIFIED, OK, SIZE, SOURCE, STATUS, WIDTH
from imgmatch_df.errors import ArgumentError, ColumnError
from imgmatch_df.frames.expressions import HashTypes
from imgmatch_df.frames.layout import free_name
from imgmatch_df.frames.source_columns import CheckedSource, checked_source
from imgmatch_df.frames.stored_columns import IMAGE, find_key_column, key_dtype, kinds_to_store, measures_to_store
from imgmatch_df.hashes.kinds import hash_kind
from imgmatch_df.options import Recipe, check_name, make_options, shown
from imgmatch_df.spark.nodes import column
from imgmatch_df.spark.schemas import polars_schema, spark_schema
from imgmatch_df.store.manifest import Manifest

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame
    from pyspark.sql.types import StructType

# Columns that show whether a file has changed; a lake of URLs has none.
_UNUSED = (SIZE, MODIFIED, ETAG)


@dataclass(frozen=True)
class TableRows:
    """Rows to store, checked.

    Parameters
    ----------
    df
        Has the key, ``source`` if the table has it, and the column `IMAGE` or the other columns of the table.
    manifest
        How the hashes are made.
    has_images
        Whether there are images to hash.
    """

    df: "DataFrame"
    manifest: Manifest
    has_images: bool

    @classmethod
    def of(
        cls,
        df: "DataFrame",
        stored: Manifest | None,
        label: str,
        source: "str | Column | None",
        key: str | None,
        hash_types: HashTypes | None,
        options: dict[str, Any],
    ) -> "TableRows":
        """Return the rows of a call, for the table whose manifest is `stored` or for a new one.

        Raises
        ------
        ArgumentError, ColumnError
            As `imgmatch_df.write_hashes`.
        """
        from pyspark.sql import functions as F  # noqa: N812

        made = make_options(**options)
        if source is None and (idle := [name for name in options if name not in Recipe._fields]):
            raise ArgumentError(f"{', '.join(idle)} has no effect without source=\nHint: name the column of images.")
        if key is not None:
            check_name("key", key)
            if not key:
                raise ArgumentError("key must be the name of a column, got ''\nHint: rename the column of keys.")
        df, image_column = _with_source(df, source)
        schema = polars_schema(df.schema)
        images = None if image_column is None else checked_source(pl.LazyFrame(schema=schema), image_column)
        name = key or (SOURCE if stored is None else stored.key)
        kinds = kinds_to_store(schema, images, hash_types, stored, name)
        measures = measures_to_store(pl.Schema(schema), kinds, images, name)
        named, text = _text(df, schema, images)
        known = schema if named is None or named in schema else pl.Schema({**schema, named: pl.String()})
        key_column = find_key_column(known, named or image_column, name, None if images is None else images.name)
        if name != key_column and name == SOURCE and SOURCE in schema:
            raise ArgumentError(
                f"key {name!r} is the name of the column of images in a table, and {image_column!r} is that\n"
                "Hint: rename the column of keys."
            )
        manifest = Manifest.make(
            name,
            key_dtype(known, key_column, stored),
            (*kinds, *measures),
            made.recipe,
            has_source=text is not None and named != key_column,
        )
        if manifest.key_dtype == "UInt64":
            raise ColumnError(f"column {key_column!r} has more than 63 bits\nHint: cast it to a string.")
        if stored is not None:
            stored.check_same(manifest, label)
            manifest = stored
        columns = table_schema(manifest)
        chosen = [column(key_column) if key_column in df.columns else text]
        chosen = [chosen[0].cast(columns[name].dataType).alias(name)]  # type: ignore[union-attr]
        if SOURCE in columns.names and name != SOURCE:
            chosen.append(F.lit(None).cast("string").alias(SOURCE) if text is None else text.alias(SOURCE))
        if image_column is not None:
            return cls(df.select(*chosen, column(image_column).alias(IMAGE)), manifest, has_images=True)
        _check_given(df, columns, name)
        given = [column(one) if one in df.columns else F.lit(None) for one in columns.names[len(chosen) :]]
        rest = [
            (_status(df, kinds) if field.name == STATUS else one).cast(field.dataType).alias(field.name)
            for one, field in zip(given, columns.fields[len(chosen) :], strict=True)
        ]
        return cls(df.select(*chosen, *rest), manifest, has_images=False)


def table_schema(manifest: Manifest) -> "StructType":
    """Return the columns of a table of hashes: those of a store, without what shows that a file has changed."""
    columns = {name: dtype for name, dtype in manifest.columns.items() if name not in _UNUSED}
    return spark_schema(pl.Schema(columns))


def _with_source(df: "DataFrame", source: Any) -> "tuple[DataFrame, str | None]":
    """Return the DataFrame with the images as a column, and the name of that column."""
    from pyspark.sql import Column

    if source is None or isinstance(source, str):
        return df, source
    if not isinstance(source, Column):
        raise ArgumentError(
            f"source must be the name of a column, a Spark Column or None, got {shown(source)}\n"
            "Hint: such as 'path' or F.col('image.bytes')."
        )
    hidden = free_name(dict.fromkeys(df.columns))
    return df.withColumn(hidden, source), hidden


def _text(df: "DataFrame", schema: pl.Schema, images: CheckedSource | None) -> "tuple[str | None, Column | None]":
    """Return the name and the values of the text that names the images, if there is one."""
    if images is None:
        return (SOURCE, column(SOURCE)) if schema.get(SOURCE) == pl.String else (None, None)
    if images.text is None:
        return None, None
    value = column(images.name)
    dtype: Any = images.dtype
    while isinstance(dtype, pl.List | pl.Array):
        from pyspark.sql import functions as F  # noqa: N812

        value, dtype = F.get(value, F.lit(0)), dtype.inner
    if isinstance(dtype, pl.Struct):
        value = value.getField("path")
    return images.text_column or free_name(dict.fromkeys(df.columns)), value


def _status(df: "DataFrame", kinds: tuple[str, ...]) -> "Column":
    """Return ok where there are all hashes, and else the status of the row if it says what failed."""
    from pyspark.sql import functions as F  # noqa: N812

    has_hash = F.lit(True)
    for kind in kinds:
        if kind in df.columns:
            has_hash = has_hash & column(kind).isNotNull()
    failed = F.when(column(STATUS) != OK, column(STATUS)) if STATUS in df.columns else F.lit(None)
    return F.when(has_hash, F.lit(OK)).otherwise(failed)


def _check_given(df: "DataFrame", columns: "StructType", key: str) -> None:
    """Refuse hashes, and columns that describe an image, of other types than those of a table."""
    from pyspark.sql import types

    for wanted in columns.fields:
        if wanted.name == key or wanted.name not in df.columns:
            continue
        found = df.schema[wanted.name].dataType
        number = wanted.name in (WIDTH, HEIGHT) or isinstance(wanted.dataType, types.ShortType)
        alike = (
            isinstance(found, types.IntegralType) if number else found.simpleString() == wanted.dataType.simpleString()
        )
        if not (alike or isinstance(found, types.NullType)):
            text = wanted.name in (STATUS, DETAIL, SOURCE)
            what = "number" if number else "text" if text else f"hash, {hash_kind(wanted.name).dtype}"
            raise ColumnError(
                f"column {wanted.name!r} has type {found.simpleString()}, in a table it is "
                f"{wanted.dataType.simpleString()}, a {what}\n"
                "Hint: cast it, or rename the column if it is something else."
            )
