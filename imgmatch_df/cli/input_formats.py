"""Registry of the formats of tables that the commands read."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import IO, Final, TypeAlias

import polars as pl

# Returns the rows of files of one format. The last argument is the folder of the files, or empty.
TableReader: TypeAlias = Callable[[Sequence[str], str], pl.LazyFrame]

# Suffixes of compressed text, and the name that pyarrow has for the compression.
COMPRESSIONS: Final = {".gz": "gzip", ".zst": "zstd"}


@dataclass(frozen=True, slots=True)
class InputFormat:
    """A format of tables.

    Parameters
    ----------
    suffix
        Suffix of its files, in lower case, with the dot; the name in messages where a table is a folder.
    scan
        Returns the rows of files of this format, lazily, with unchanged names of columns.
    is_text
        Whether its files are text, which must be UTF-8.
    is_table
        Whether a path is a table of this format, if that is known without its suffix, such as a folder.
    """

    suffix: str
    scan: TableReader
    is_text: bool = False
    is_table: Callable[[str], bool] | None = None


# The input formats by suffix; `table_files` and `lake_tables` register those of this package.
INPUT_FORMATS: Final[dict[str, InputFormat]] = {}


def register_input(form: InputFormat) -> None:
    """Let all commands read `form`, for every file that has its suffix."""
    INPUT_FORMATS[form.suffix] = form


def input_suffix(path: str) -> str | None:
    """Return the suffix of the format of a file; None if it is not that of a table."""
    return longest_suffix(path, INPUT_FORMATS)


def longest_suffix(path: str, suffixes: Iterable[str]) -> str | None:
    """Return the longest of `suffixes` that the name of a file ends with, in any case; None if there is none."""
    name = os.path.basename(path).lower()  # noqa: PTH119  # a tenth of the time of a Path
    found = [suffix for suffix in suffixes if suffix.startswith(".") and name.endswith(suffix) and name != suffix]
    return max(found, key=len, default=None)


def suffixes_shown(suffixes: Iterable[str]) -> list[str]:
    """Return suffixes for help and messages: without those of compressed text, which are its own and one of two."""
    return [suffix for suffix in suffixes if suffix.startswith(".") and not suffix.endswith(tuple(COMPRESSIONS))]


def open_bytes(path: str) -> IO[bytes]:
    """Open a file for reading, and decompress it if its suffix says so."""
    compression = COMPRESSIONS.get(os.path.splitext(path)[1].lower())  # noqa: PTH122
    if compression is None:
        return open(path, "rb")  # noqa: PTH123
    import pyarrow

    return pyarrow.input_stream(path, compression=compression)  # type: ignore[no-any-return]
