"""Arguments and options of the command line, each defined once for all commands."""

import os
import re
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Final, TypedDict, get_args

import polars as pl
import typer
from typer.core import TyperCommand

from imgmatch_df.cli.outputs import suffixes_text
from imgmatch_df.frames.flat import Flat
from imgmatch_df.frames.keeping import KeepBy
from imgmatch_df.hashes.kinds import DEFAULT_HASH_TYPES, KINDS
from imgmatch_df.matching.linkages import LINKAGES, Keep
from imgmatch_df.store.base import store_suffixes

ACROSS_FOLDERS: Final = "--across-folders"
_HIDDEN: Final = "\0"  # cannot occur in an argument of a program


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"imgmatch {version('imgmatch-df')}")
        raise typer.Exit


def in_home(path: str | None) -> str | None:
    """Return a path with the home directory in the place of ``~``, which shells keep in ``--out=~/a.csv``."""
    return None if path is None else os.path.expanduser(path)  # noqa: PTH111  # it may be a URI


_NEAR_RADII: Final = ", ".join(f"{kind.near_radius} of {kind.name}" for kind in KINDS.values() if kind.is_perceptual)

Version = Annotated[
    bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version and exit.")
]
Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE...",
        show_default=False,
        help="Folder, image or glob; .duckdb, .parquet, .csv, .ndjson, .arrow …; a list .txt or - for standard input; "
        "documented request .json.",
    ),
]
OptionalSources = Annotated[
    list[str] | None,
    typer.Argument(metavar="[SOURCE...]", show_default=False, help="Images to rank, unless QUERY is a request."),
]
Out = Annotated[
    str | None,
    typer.Option(
        "--out",
        "-o",
        callback=in_home,
        metavar="OUT",
        show_default=False,
        help=f"{suffixes_text()}; else the screen.",
    ),
]
StoreOut = Annotated[
    str | None,
    typer.Option(
        "--out",
        "-o",
        callback=in_home,
        metavar="OUT",
        show_default=False,
        help=f"{', '.join(store_suffixes())}, continued by the next run; {suffixes_text()}; else the screen.",
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        "--key", metavar="COLUMN", show_default="that of images", help="Column of a table that identifies rows."
    ),
]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Hash the rows again that failed in an earlier run.")]
PruneOption = Annotated[
    bool, typer.Option("--prune", help="Delete rows from the .duckdb that are not in SOURCE, if they are at most half.")
]
PruneAll = Annotated[bool, typer.Option("--prune-all", help="Delete rows that are not in SOURCE, however many.")]
Store = Annotated[
    str, typer.Argument(metavar="STORE", show_default=False, help="A .duckdb or a table of visual-hash -o.")
]
SourceOption = Annotated[
    str | None,
    typer.Option("--source", metavar="COLUMN", show_default=False, help="Column of a table that holds the images."),
]
OnlyInputColumns = Annotated[
    bool,
    typer.Option(
        "--only-input-columns",
        help="Write the kept rows with the columns of SOURCE only, in its schema.",
    ),
]
Prefix = Annotated[
    str, typer.Option("--prefix", metavar="TEXT", show_default=False, help="Prefix of the name of each new column.")
]
Suffix = Annotated[
    str, typer.Option("--suffix", metavar="TEXT", show_default=False, help="Suffix of the name of each new column.")
]
HashTypeOption = Annotated[
    str | None,
    typer.Option(
        "--hash-type", metavar="|".join(KINDS), show_default="bmh1, or that of SOURCE", help="Hash to compare by."
    ),
]
HashColumn = Annotated[
    str | None,
    typer.Option(
        "--column",
        metavar="COLUMN",
        show_default="that of --hash-type",
        help="Column of a table that holds hashes of --hash-type: numbers, 0/1, hexadecimal, lists of bits.",
    ),
]
HashTypesOption = Annotated[
    list[str] | None,
    typer.Option(metavar="NAMES", show_default=",".join(DEFAULT_HASH_TYPES), help="Hashes to compute."),
]
Radius = Annotated[
    int | None,
    typer.Option(
        metavar="BITS",
        show_default="a request's range, else 0",
        help=f"Maximum distance of duplicates: 0 for equal hashes; for edited copies {_NEAR_RADII}.",
    ),
]
MinVotes = Annotated[
    int | None,
    typer.Option(
        "--min-votes",
        metavar="N",
        show_default="8",
        help="For local: minimum number of points that agree on one placement.",
    ),
]
CopiesRadius = Annotated[int, typer.Option("--radius", metavar="BITS", help="Maximum distance of the pdq hashes.")]
MaxPairs = Annotated[int, typer.Option("--max-pairs", metavar="N", help="Maximum number of pairs of each kind.")]
LinkageName = Annotated[
    str | None,
    typer.Option(
        metavar="|".join(LINKAGES),
        show_default="connected; star for local",
        help="Whether duplicates of duplicates are duplicates.",
    ),
]
KeepName = Annotated[str, typer.Option(metavar="|".join(get_args(Keep)), help="Which image of a cluster is kept.")]
PreferFolders = Annotated[
    list[str] | None,
    typer.Option(
        "--prefer",
        metavar="DIR",
        show_default=False,
        help="Keep images of this folder, if a cluster has any; repeat it, the most wanted folder first.",
    ),
]
ProtectFolders = Annotated[
    list[str] | None,
    typer.Option("--protect", metavar="DIR", show_default=False, help="Remove no image of this folder; repeatable."),
]
AcrossFolders = Annotated[
    int | None,
    typer.Option(
        ACROSS_FOLDERS,
        metavar="[=DEPTH]",
        min=0,
        show_default=False,
        help="Compare only images of different folders: those DEPTH levels below SOURCE, 1 by default.",
    ),
]
WithinColumn = Annotated[
    str | None,
    typer.Option(
        "--within",
        metavar="COLUMN",
        show_default=False,
        help="Compare only rows of a table with equal values in this column.",
    ),
]
NotDuplicates = Annotated[
    str | None,
    typer.Option(
        "--not-duplicates",
        metavar="FILE",
        show_default=False,
        help="Pairs that are no duplicates: a .csv, .json or .parquet with left_id and right_id.",
    ),
]
FlatOption = Annotated[
    str | None,
    typer.Option(
        metavar="|".join(get_args(Flat)),
        show_default="identical; match for documented .json",
        help="Whether images with little to see match identical files only, or by their hashes.",
    ),
]
ReferenceSource = Annotated[
    str | None,
    typer.Option(
        "--reference",
        metavar="SOURCE",
        show_default=False,
        help="Also remove rows that match this store, table or folder.",
    ),
]
ReferenceId = Annotated[
    str | None,
    typer.Option(
        "--reference-id",
        metavar="COLUMN",
        show_default="that of images",
        help="Column of --reference that names its rows.",
    ),
]
MatchReference = Annotated[
    str,
    typer.Argument(
        metavar="REFERENCE", show_default=False, help="List of hashes, table, store or folder to compare with."
    ),
]
ReferenceColumn = Annotated[
    str | None,
    typer.Option(
        "--reference-column",
        metavar="COLUMN",
        show_default="by name, or by values",
        help="Column of REFERENCE that holds hashes of --hash-type.",
    ),
]
MatchId = Annotated[
    str | None,
    typer.Option(
        "--reference-id",
        metavar="COLUMN",
        show_default="an id or a file name",
        help="Column of REFERENCE that names its rows.",
    ),
]
MatchK = Annotated[
    int | None,
    typer.Option("-k", metavar="N", show_default="all", help="Maximum number of matches of each image, the nearest."),
]
SplitSources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE...",
        show_default=False,
        help="The splits, as train.parquet test.parquet: folders, globs, .duckdb, .parquet, .csv, .ndjson; shards too.",
    ),
]
SplitNames = Annotated[
    str | None,
    typer.Option(
        "--names",
        metavar="NAMES",
        show_default="those of the files or folders",
        help="Names of the splits, separated by commas: one for each SOURCE, where equal names are one split.",
    ),
]
NearRadius = Annotated[
    int | None,
    typer.Option(
        "--radius",
        metavar="BITS",
        show_default=_NEAR_RADII,
        help="Maximum distance of near-duplicates; 0 for equal hashes.",
    ),
]
LabelColumn = Annotated[
    str | None,
    typer.Option(
        "--label",
        metavar="COLUMN",
        show_default=False,
        help="Column of classes, to count near-duplicates with different ones.",
    ),
]
MaxLeakage = Annotated[
    float,
    typer.Option("--max-leakage", metavar="SHARE", help="Maximum share of the rows of each split that leak, 0 to 1."),
]
WithinSplits = Annotated[
    bool, typer.Option("--within-splits", help="Also list near-duplicates within a split, which do not leak.")
]
Against = Annotated[str | None, typer.Option("--against", hidden=True)]  # the old name of --reference
Turns = Annotated[
    bool | None,
    typer.Option(
        "--turns/--no-turns",
        show_default="only for local",
        help="Compare also mirrored and turned copies: flips and quarter turns.",
    ),
]
ListRemoved = Annotated[
    bool, typer.Option("--list-removed", help="Print the paths of the removed files, one per line, and nothing else.")
]
MoveRemoved = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        show_default=False,
        help="Move the removed files into DIR, below which they keep their paths.",
    ),
]
Query = Annotated[
    str,
    typer.Argument(
        callback=lambda query: query.removeprefix(_HIDDEN),
        metavar="QUERY",
        show_default=False,
        help="An image or its base64; a hash as 0/1, hexadecimal or decimal; or a documented request .json.",
    ),
]
K = Annotated[int | None, typer.Option("-k", metavar="N", show_default="all", help="Number of rows to return.")]


class NegativeQuery(TyperCommand):
    """A command whose QUERY may be a negative number, which is not an option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse, with a hidden character before the number, so that it is not parsed as an option."""
        at = next((place for place, word in enumerate(args) if re.fullmatch("-[1-9][0-9]{0,18}", word)), None)
        if at is not None and "--" not in args and (at == 0 or not args[at - 1].startswith("-")):
            args = [*args[:at], f"{_HIDDEN}{args[at]}", *args[at + 1 :]]
        return super().parse_args(ctx, args)


class OptionalDepth(TyperCommand):
    """A command whose option --across-folders has a value only after an equals sign."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse, with the default depth where there is none; words behind ``--`` are no options."""
        end = args.index("--") if "--" in args else len(args)
        options = [f"{word}=1" if word == ACROSS_FOLDERS else word for word in args[:end]]
        return super().parse_args(ctx, [*options, *args[end:]])


class VerbArguments(TypedDict):
    """Arguments of both `cluster` and `remove_duplicates`, which check them."""

    radius: int | None
    hash_type: str
    min_votes: int | None
    linkage: str | None
    turns: bool | None
    keep: KeepBy
    protect: pl.Expr | None
    across: pl.Expr | None
    within: str | None
    not_duplicates: pl.DataFrame | None
    flat: Flat


class RankArguments(TypedDict):
    """Arguments of `rank_images` beside the query, which it checks."""

    hash_type: str
    min_votes: int | None
    k: int | None
    flat: Flat
    turns: bool | None
