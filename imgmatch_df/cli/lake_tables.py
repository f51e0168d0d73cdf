"""Tables that are folders: Delta and Iceberg tables, and Lance datasets, read by their own packages."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import polars as pl
from polars.io.plugins import register_io_source

from imgmatch_df.cli.input_formats import InputFormat, register_input
from imgmatch_df.errors import ArgumentError, MissingExtraError

DELTA: Final = "a Delta table"
ICEBERG: Final = "an Iceberg table"
LANCE: Final = "a Lance dataset"

_METADATA: Final = ".metadata.json"
_BATCH_ROWS: Final = 256  # rows may hold images


def _is_delta(path: str) -> bool:
    return os.path.isdir(os.path.join(path, "_delta_log"))  # noqa: PTH112, PTH118


def _is_iceberg(path: str) -> bool:
    """Return whether a path is the folder of a table, or one of its metadata files."""
    if path.endswith(_METADATA):
        return Path(path).is_file() and Path(path).absolute().parent.name == "metadata"
    return os.path.isdir(path) and any(Path(path, "metadata").glob(f"*{_METADATA}"))  # noqa: PTH112


def _is_lance(path: str) -> bool:
    return os.path.isdir(os.path.join(path, "_versions")) and os.path.isdir(path)  # noqa: PTH112, PTH118


def _scan_delta(paths: Sequence[str], _root: str) -> pl.LazyFrame:
    try:
        import deltalake  # noqa: F401  # Polars imports it
    except ImportError as error:
        raise _missing(paths[0], DELTA, "deltalake") from error
    parts = []
    for path in paths:
        full = Path(path).absolute()
        # Polars 2.1 looks for the files of "a b" in "a%20b", while pyarrow finds them.
        parts.append(pl.scan_delta(str(full), use_pyarrow=full.as_uri() != f"file://{full.as_posix()}"))
    return pl.concat(parts, how="diagonal_relaxed")


def _scan_iceberg(paths: Sequence[str], _root: str) -> pl.LazyFrame:
    try:
        import pyiceberg  # noqa: F401  # Polars imports it
    except ImportError as error:
        raise _missing(paths[0], ICEBERG, "pyiceberg") from error
    # A location of Iceberg is not escaped.
    parts = [pl.scan_iceberg(f"file://{Path(_newest_metadata(path)).absolute().as_posix()}") for path in paths]
    return pl.concat(parts, how="diagonal_relaxed")


def _newest_metadata(path: str) -> str:
    """Return the metadata file of the newest version: the hint of the table names it, or the largest number does."""
    if path.endswith(_METADATA):
        return path
    folder = Path(path, "metadata")
    found = sorted(folder.glob(f"*{_METADATA}"), key=_version)
    hint = folder / "version-hint.text"
    if hint.is_file():
        version = hint.read_text().strip()
        for name in (version, f"v{version}{_METADATA}", f"{version}{_METADATA}"):
            if (folder / name) in found:
                return str(folder / name)
    versions = [_version(one) for one in found]
    if versions.count(versions[-1]) > 1:
        raise ArgumentError(
            f"{path!r} has several metadata files of version {versions[-1][0]}\n"
            f"Hint: name one of them as SOURCE, such as {str(found[-1])!r}."
        )
    return str(found[-1])


def _version(path: Path) -> tuple[int]:
    """Return the number of a metadata file: ``v3.metadata.json`` or ``00003-<uuid>.metadata.json``."""
    number = re.match(r"v?(\d+)", path.name)
    return (-1 if number is None else int(number[1]),)


def _scan_lance(paths: Sequence[str], _root: str) -> pl.LazyFrame:
    return pl.concat([_scan_dataset(path) for path in paths], how="diagonal_relaxed")


def _scan_dataset(path: str) -> pl.LazyFrame:
    try:
        import lance
    except ImportError as error:
        raise _missing(path, LANCE, "pylance") from error
    dataset: Any = lance.dataset(path)
    schema = pl.DataFrame(dataset.schema.empty_table()).schema

    def batches(
        with_columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, _batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        # The columns of the predicate are among `with_columns`.
        found = dataset.to_batches(columns=with_columns, limit=n_rows, batch_size=_BATCH_ROWS, scan_in_order=True)
        for batch in found:
            part = pl.DataFrame(batch)
            yield part if predicate is None else part.filter(predicate)

    return register_io_source(batches, schema=schema, is_pure=True)


def _missing(path: str, what: str, package: str) -> MissingExtraError:
    return MissingExtraError(
        f"{path!r} is {what}, and the package {package} is not installed\n"
        "Hint: pip install 'imgmatch-df[lakes]' installs it."
    )


register_input(InputFormat(DELTA, _scan_delta, is_table=_is_delta))
register_input(InputFormat(ICEBERG, _scan_iceberg, is_table=_is_iceberg))
register_input(InputFormat(LANCE, _scan_lance, is_table=_is_lance))
