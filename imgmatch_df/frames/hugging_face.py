"""Parquet files that Hugging Face `datasets` reads: their features, which say that a column holds images.

`datasets` finds the features in the key ``huggingface`` of the Arrow schema, and uses one only where the Arrow type of
its column is exactly that of the feature. Polars writes no key there, and other types (`large_binary` for `binary`), so
these files are written by pyarrow, a row group at a time.
"""

import json
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Final, NamedTuple

import polars as pl

from imgmatch_df.errors import StoreError
from imgmatch_df.image_columns import gathered

_KEY: Final = "huggingface"


class Features(NamedTuple):
    """The features of Parquet files.

    Parameters
    ----------
    schema
        Arrow schema of the first file, a `pyarrow.Schema`.
    info
        Value of its key ``huggingface``.
    others
        Files whose key has other features.
    """

    schema: Any
    info: Mapping[str, Any]
    others: tuple[str, ...]

    def schema_of(self, frame: pl.DataFrame) -> Any:
        """Return the Arrow schema to write a frame with, and its features.

        A column with the name and dtype of a column of the files has the Arrow type and the feature of that column.
        Other columns have no feature: `datasets` takes their Arrow type.
        """
        import pyarrow as pa

        fields = {field.name: _stored(field) for field in self.schema}
        plain = [field.remove_metadata() for field in fields.values()]
        known: Any = pl.from_arrow(pa.schema(plain).empty_table())
        own = {name: fields[name] for name, dtype in known.schema.items() if frame.schema.get(name) == dtype}
        found = frame.head(0).to_arrow().schema
        features = self.info["info"]["features"]
        kept = {name: feature for name, feature in features.items() if name in own}
        info = {**self.info, "info": {**self.info["info"], "features": kept}}
        written = [own[field.name].with_nullable(True) if field.name in own else field for field in found]
        return pa.schema(written, metadata={_KEY: json.dumps(info)})


def read_features(paths: Sequence[str]) -> Features | None:
    """Return the features of Parquet files, None where the first has none.

    Parameters
    ----------
    paths
        Paths of files, at least one.
    """
    infos = {path: _info_of(path) for path in paths}
    first = infos[paths[0]]
    if first is None:
        return None
    from pyarrow.parquet import read_schema

    features = first["info"]["features"]
    others = [path for path, info in infos.items() if info is None or info["info"]["features"] != features]
    return Features(read_schema(paths[0]), first, tuple(others))


def sink_features(frame: pl.LazyFrame, target: str | Path, features: Features, *, row_group_size: int) -> None:
    """Run a query and write its rows to a Parquet file with the features of other files, a row group at a time."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    frame = without_extensions(frame)
    empty = frame.collect_schema().to_frame()
    schema = features.schema_of(empty)
    batches = frame.collect_batches(chunk_size=row_group_size, maintain_order=True)
    with ParquetWriter(target, schema, compression="zstd") as writer:
        for group in _row_groups(chain([empty], batches), row_group_size):
            try:
                table = gathered(group).to_arrow().cast(schema)
            except pa.ArrowInvalid as error:
                raise StoreError(
                    f"a row group of {str(target)!r} cannot be written with the types of the input: {error}\n"
                    "Hint: write a .ndjson, or drop the column with the largest values."
                ) from error
            writer.write_table(table, row_group_size=row_group_size)


def without_extensions(frame: pl.LazyFrame) -> pl.LazyFrame:
    """Return a frame with columns of extension types, such as that of an `Array2D`, as columns of their storage.

    Polars converts them to Arrow arrays whose storage has another type than theirs: pyarrow crashes when it writes one.
    """
    names = [name for name, dtype in frame.collect_schema().items() if isinstance(dtype, pl.BaseExtension)]
    return frame.with_columns(pl.col(names).ext.storage()) if names else frame


def _row_groups(batches: Any, n_rows: int) -> Any:
    """Yield the rows of batches, `n_rows` at a time."""
    waiting = None
    for batch in batches:
        waiting = batch if waiting is None else waiting.vstack(batch)
        while waiting.height >= n_rows:
            yield waiting[:n_rows].rechunk()
            waiting = waiting[n_rows:]
    if waiting is not None and not waiting.is_empty():
        yield waiting.rechunk()


def _stored(field: Any) -> Any:
    """Return a field whose extension type, such as that of an `Array2D`, is in its metadata, as in a file."""
    if not hasattr(field.type, "storage_type"):
        return field
    about = {"ARROW:extension:name": field.type.extension_name}
    about["ARROW:extension:metadata"] = field.type.__arrow_ext_serialize__()
    return field.with_type(field.type.storage_type).with_metadata({**(field.metadata or {}), **about})


def _info_of(path: str) -> dict[str, Any] | None:
    """Return the value of the key ``huggingface``, None where there is none that has features."""
    text = pl.read_parquet_metadata(path).get(_KEY)
    try:
        found = None if text is None else json.loads(text)
    except ValueError:
        return None
    info = found.get("info") if isinstance(found, dict) else None
    return found if isinstance(info, dict) and isinstance(info.get("features"), dict) else None
