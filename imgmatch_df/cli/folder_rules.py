"""Keep rules by folders and pairs, as the command line names them, for the arguments of the verbs.

Folders are compared by their real paths, so that symbolic links, ``~``, relative paths and trailing slashes make no
difference, and ``Orig`` does not contain the files of ``Originals``.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, cast

import polars as pl

from imgmatch_df.cli.exit_codes import say
from imgmatch_df.cli.input_formats import INPUT_FORMATS, input_suffix, suffixes_shown
from imgmatch_df.cli.removed import path_of
from imgmatch_df.cli.table_files import scan_table
from imgmatch_df.columns import LEFT_ID, MODIFIED, RIGHT_ID, ROW_DTYPE, SIZE
from imgmatch_df.errors import ArgumentError, ColumnError
from imgmatch_df.frames.keeping import KeepBy
from imgmatch_df.naming import ROW

if TYPE_CHECKING:
    from imgmatch_df.matching.linkages import Keep

_NAME: Final = "name"
_COLUMNS_SHOWN: Final = 20


class FolderRules(NamedTuple):
    """The options --prefer, --protect and --across-folders.

    Parameters
    ----------
    prefer
        Folders, the most wanted first.
    protect
        Folders whose images are not removed.
    depth
        Level below a SOURCE of the folders between which images are compared; None for all pairs.
    """

    prefer: Sequence[str] = ()
    protect: Sequence[str] = ()
    depth: int | None = None

    @property
    def are_given(self) -> bool:
        """Whether the call has one of the options."""
        return bool(self.prefer or self.protect or self.depth is not None)

    def check(self, sources: pl.Series | None, roots: Sequence[str], base_dir: str | None) -> "_Places":
        """Return what the options say about images.

        Parameters
        ----------
        sources
            The sources of all images; None where they have no names.
        roots
            The values of SOURCE.
        base_dir
            Start of relative paths; None for the working directory.

        Raises
        ------
        ArgumentError
            If a folder does not exist, and no image is in it.
        ColumnError
            If there are options, and the images have no paths.
        """
        if not self.are_given:
            return _Places([], [], None, [], base_dir)
        if sources is None or sources.dtype != pl.String:
            raise ColumnError(
                "--prefer, --protect and --across-folders need a column of paths, the sources are none\n"
                "Hint: --source names one."
            )
        folders = set(real_folders(sources.unique(), base_dir).drop_nulls())
        named = {
            option: [_real(folder) for folder in given]
            for option, given in (("--prefer", self.prefer), ("--protect", self.protect))
        }
        for option, given in (("--prefer", self.prefer), ("--protect", self.protect)):
            for name, real in zip(given, named[option], strict=True):
                if not any(_is_within(folder, real) for folder in folders):
                    if not Path(real).is_dir():
                        raise ArgumentError(
                            f"{option} {name!r}: no such folder\nHint: the working directory is {str(Path.cwd())!r}."
                        )
                    say(f"{option} {name}: no image of SOURCE is in this folder")
        starts = [real for root in roots if Path(real := _real(root)).is_dir()]
        others = [folder for folder in folders if not any(_is_within(folder, start) for start in starts)]
        if others:
            starts.append(os.path.commonpath(others))
        return _Places(named["--prefer"], named["--protect"], self.depth, starts, base_dir)


class _Places(NamedTuple):
    """`FolderRules` with real paths.

    Parameters
    ----------
    prefer, protect, depth
        As of `FolderRules`.
    starts
        Folders from which `depth` counts.
    base_dir
        Start of relative paths.
    """

    prefer: list[str]
    protect: list[str]
    depth: int | None
    starts: list[str]
    base_dir: str | None

    def keep(self, keep: str, source: str | None, schema: pl.Schema) -> KeepBy:
        """Return the argument `keep` of the verbs: images of preferred folders first, then by the name `keep`."""
        if not self.prefer or source is None:
            return cast("Keep", keep)  # checked by the verbs
        rank = self._by_folder(source, self._rank, pl.UInt32())
        return [rank, *_sort_keys(keep, schema)]

    def protected(self, source: str | None) -> pl.Expr | None:
        """Return the argument `protect` of the verbs."""
        if not self.protect or source is None:
            return None
        return self._by_folder(source, lambda folder: _place(folder, self.protect) is not None, pl.Boolean())

    def across(self, source: str | None) -> pl.Expr | None:
        """Return the argument `across` of the verbs."""
        if self.depth is None or source is None:
            return None
        return self._by_folder(source, self._top, pl.String())

    def _by_folder(self, source: str, value: Callable[[str], object], dtype: pl.DataType) -> pl.Expr:
        def read(sources: pl.Series) -> pl.Series:
            folders = real_folders(sources, self.base_dir)
            values = {folder: value(folder) for folder in folders.unique().drop_nulls()}
            found = [None if folder is None else values[folder] for folder in folders]
            return pl.Series(sources.name, found, dtype)

        return pl.col(source).map_batches(read, return_dtype=dtype, is_elementwise=True)

    def _rank(self, folder: str) -> int:
        place = _place(folder, self.prefer)
        return len(self.prefer) if place is None else place

    def _top(self, folder: str) -> str:
        """Return the folder `depth` levels below the deepest start that contains `folder`."""
        start = max((one for one in self.starts if _is_within(folder, one)), key=len, default=os.sep)
        return str(Path(start, *Path(folder).relative_to(start).parts[: self.depth]))


def real_folders(sources: pl.Series, base_dir: str | None) -> pl.Series:
    """Return the real path of the folder of each file, null for sources that are not files.

    Links to folders are followed. A link to a file is in the folder of the link.
    """
    real: dict[str, str] = {}

    def folder(value: str | None) -> str | None:
        path = None if value is None else path_of(value, base_dir)
        if path is None:
            return None
        parent = os.path.dirname(path)  # noqa: PTH120  # half the time of a Path, a million times
        if parent not in real:
            real[parent] = os.path.realpath(parent)
        return real[parent]

    return pl.Series(sources.name, [folder(value) for value in sources], pl.String)


def check_within(within: str | None, columns: Sequence[str]) -> None:
    """Refuse a column of --within that a table with these columns does not have.

    Raises
    ------
    ColumnError
        If it is absent.
    """
    if within is not None and within not in columns:
        raise ColumnError(
            f"no column {within!r}, the table has {', '.join(columns[:_COLUMNS_SHOWN])}\n"
            "Hint: --within names one of these."
        )


def read_pairs(path: str) -> pl.DataFrame:
    """Return the pairs of a file of --not-duplicates, as text.

    Raises
    ------
    ArgumentError
        If there is no such file, or its suffix is unknown.
    ColumnError
        If it has no columns ``left_id`` and ``right_id``.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise ArgumentError(f"--not-duplicates {path!r}: no such file\nHint: imgmatch report writes one.")
    suffix = input_suffix(str(file))
    if suffix is None:
        known = ", ".join(suffixes_shown(INPUT_FORMATS))
        raise ArgumentError(f"--not-duplicates {path!r} must end in {known}\nHint: .csv has two columns of names.")
    pairs = scan_table([str(file)], suffix, "")
    schema = pairs.collect_schema()
    for name in (LEFT_ID, RIGHT_ID):
        if name not in schema or schema[name].is_nested() or schema[name] == pl.Binary:
            raise ColumnError(
                f"--not-duplicates {path!r} needs columns {LEFT_ID!r} and {RIGHT_ID!r}, it has {', '.join(schema)}\n"
                "Hint: each row names two images that are no duplicates."
            )
    return pairs.select(pl.col(LEFT_ID, RIGHT_ID).cast(pl.String)).drop_nulls().collect()


def declared_pairs(
    pairs: pl.DataFrame, rows: pl.DataFrame, name: str | None, id_column: str | None, base_dir: str | None
) -> pl.DataFrame:
    """Return pairs of a file with the ids of rows, and print how many pairs name other rows.

    Parameters
    ----------
    pairs
        Result of `read_pairs`. Paths are compared as files, also relative with absolute ones.
    rows
        The rows.
    name
        Column that `pairs` names rows by; None for row numbers.
    id_column
        Column of the ids of the result; None for row numbers.
    base_dir
        Start of relative paths; None for the working directory.
    """
    numbers = pl.int_range(rows.height, dtype=ROW_DTYPE, eager=True)
    names = numbers.cast(pl.String) if name is None else _file_names(rows[name].cast(pl.String), base_dir)
    ids = pl.DataFrame({_NAME: names, "id": numbers if id_column is None else rows[id_column], ROW: numbers})
    named = pairs.with_row_index(ROW)
    if name is not None:
        named = named.with_columns(_file_names(named[side], base_dir) for side in (LEFT_ID, RIGHT_ID))
    ids = ids.drop_nulls().unique([_NAME, "id"], maintain_order=True).drop(ROW)
    found = (
        named.join(ids.rename({"id": "left"}), left_on=LEFT_ID, right_on=_NAME)
        .join(ids.rename({"id": "right"}), left_on=RIGHT_ID, right_on=_NAME)
        .select(ROW, pl.col("left").alias(LEFT_ID), pl.col("right").alias(RIGHT_ID))
    )
    n_found = found[ROW].n_unique()
    if n_found < pairs.height:
        n_other = pairs.height - n_found
        say(f"{n_other:,} of {pairs.height:,} pairs of --not-duplicates name images that are not in SOURCE")
    return found.drop(ROW)


def _file_names(names: pl.Series, base_dir: str | None) -> pl.Series:
    """Return the real folder and the name of each file, other sources unchanged."""
    folders = real_folders(names, base_dir)
    full = [
        name if folder is None else f"{folder}{os.sep}{os.path.basename(path_of(name, base_dir) or '')}"  # noqa: PTH119
        for name, folder in zip(names, folders, strict=True)
    ]
    return pl.Series(names.name, full, pl.String)


def _sort_keys(keep: str, schema: pl.Schema) -> list[pl.Expr]:
    """Return the expressions whose smallest row is that of the keep rule `keep`."""
    if keep in ("largest", "smallest"):
        sizes = [pl.col("width").cast(pl.Float64) * pl.col("height").cast(pl.Float64)]
        sizes += [pl.col(SIZE).cast(pl.Int64)] if SIZE in schema and schema[SIZE].is_numeric() else []
        return sizes if keep == "smallest" else [-size for size in sizes]
    if keep in ("newest", "oldest"):
        dtype = schema.get(MODIFIED, pl.Null())
        time = pl.col(MODIFIED).cast(pl.Int64 if dtype.is_temporal() else pl.Float64)
        return [time if keep == "oldest" else -time]
    return [-pl.int_range(pl.len(), dtype=pl.Int64)] if keep == "last" else []


def _real(folder: str) -> str:
    return os.path.realpath(os.path.expanduser(folder))  # noqa: PTH111


def _is_within(folder: str, other: str) -> bool:
    """Return whether a real path is another one, or below it."""
    return folder == other or folder.startswith(other if other.endswith(os.sep) else other + os.sep)


def _place(folder: str, folders: Sequence[str]) -> int | None:
    """Return the number of the first of `folders` that contains `folder`."""
    return next((place for place, one in enumerate(folders) if _is_within(folder, one)), None)
