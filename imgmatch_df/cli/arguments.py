"""Arguments and options of the command line, each defined once for all commands."""

import inspect
import json
import os
import re
import sys
from collections.abc import Callable
from functools import wraps
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Final, TypedDict, get_args

import polars as pl
import typer
from typer.core import TyperCommand

from imgmatch_df.cli.exit_codes import reported
from imgmatch_df.cli.given_sources import GivenSources
from imgmatch_df.cli.outputs import suffixes_text
from imgmatch_df.cli.request_options import HeaderOption, ProxyOption, UserAgentOption, parse_headers, parse_proxy
from imgmatch_df.cli.runs import LOG_FORMATS, CommandRun, current, running
from imgmatch_df.errors import ArgumentError
from imgmatch_df.frames.flat import Flat
from imgmatch_df.frames.keeping import KeepBy
from imgmatch_df.hashes.kinds import DEFAULT_HASH_TYPES, KINDS
from imgmatch_df.matching.linkages import LINKAGES, Keep
from imgmatch_df.options import FORMATS, Options, SourceOptions, make_options
from imgmatch_df.store.base import store_suffixes

ACROSS_FOLDERS: Final = "--across-folders"
_HIDDEN: Final = "\0"  # cannot occur in an argument of a program


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"imgmatch {version('imgmatch-df')}")
        raise typer.Exit


def _in_home(path: str | None) -> str | None:
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
        callback=_in_home,
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
        callback=_in_home,
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

# The options about SOURCE, in the order of the help.
_GIVEN_OPTIONS: Final[dict[str, Any]] = {
    "files_from": Annotated[
        str | None,
        typer.Option(
            "--files-from",
            metavar="FILE",
            show_default=False,
            help="Read the sources from this list, a path or a URL on each line; - is standard input.",
        ),
    ],
    "null": Annotated[
        bool, typer.Option("--null", "-0", help="The sources of a list end with NUL, as find -print0 writes them.")
    ],
    "exclude": Annotated[
        list[str] | None,
        typer.Option(
            "--exclude",
            metavar="GLOB",
            show_default=False,
            help="Leave out files and folders, as in .gitignore: '*.png', previews, '2019/**/raw'; repeatable.",
        ),
    ],
    "hidden": Annotated[
        bool, typer.Option("--hidden", help="List hidden files and folders too, such as .thumbnails and @eaDir.")
    ],
    "follow_links": Annotated[bool, typer.Option("--follow-links", help="Follow links to folders, to each once.")],
}

# The options in ``**given`` of a command, in the order of its help.
_SOURCE_OPTIONS: Final[dict[str, Any]] = {
    "store": Annotated[
        str | None,
        typer.Option(
            "--store",
            callback=_in_home,
            metavar="FILE",
            show_default=False,
            help="Keep the hashes in this .duckdb, .parquet or folder, where the next command finds them.",
        ),
    ],
    "decode": Annotated[
        str, typer.Option("--decode", metavar="full|scaled", help="full is exact, scaled is faster on large JPEGs.")
    ],
    "alpha": Annotated[
        str,
        typer.Option("--alpha", metavar="drop|white|black", help="Ignore transparency, or show it over a colour."),
    ],
    "trim": Annotated[
        str | None,
        typer.Option(
            "--trim",
            metavar="borders",
            show_default="the whole image",
            help="Hash the inside of uniform borders, such as frames and letterbox bars.",
        ),
    ],
    "pdq_variant": Annotated[
        str,
        typer.Option(
            "--pdq-variant", metavar="full|512", help="Hash large images as pdqhash, or as the C++ program of PDQ."
        ),
    ],
    "max_pixels": Annotated[int, typer.Option("--max-pixels", metavar="N", help="Maximum width x height to decode.")],
    "max_bytes": Annotated[int, typer.Option("--max-bytes", metavar="N", help="Maximum size of a file, in bytes.")],
    "base_dir": Annotated[
        str | None,
        typer.Option(
            "--base-dir",
            callback=_in_home,
            metavar="DIR",
            show_default="working directory",
            help="Start of relative paths of a table; no path leaves it. A request needs it for paths.",
        ),
    ],
    "on_error": Annotated[
        str,
        typer.Option("--on-error", metavar="null|raise", help="Keep failed rows without hashes, or stop at the first."),
    ],
    "progress": Annotated[
        bool | None, typer.Option("--progress/--no-progress", show_default="on a terminal", help="Show a bar.")
    ],
    "timeout_s": Annotated[
        float, typer.Option("--timeout-s", metavar="S", help="Maximum time of one attempt, in seconds.")
    ],
    "attempts": Annotated[int, typer.Option("--attempts", metavar="N", help="Maximum attempts per URL.")],
    "n_connections": Annotated[int, typer.Option("--n-connections", metavar="N", help="Maximum concurrent requests.")],
    "n_connections_per_host": Annotated[
        int, typer.Option("--n-connections-per-host", metavar="N", help="Maximum concurrent requests per host.")
    ],
    "max_bytes_in_flight": Annotated[
        int, typer.Option("--max-bytes-in-flight", metavar="N", help="Maximum bytes fetched and not yet decoded.")
    ],
    "min_interval_s": Annotated[
        float,
        typer.Option("--min-interval-s", metavar="S", help="Minimum time between two requests to a host, in seconds."),
    ],
    "allow_private_networks": Annotated[
        bool,
        typer.Option("--allow-private-networks", help="Also fetch from loopback, private and link-local IP addresses."),
    ],
    "headers": HeaderOption,
    "user_agent": UserAgentOption,
    "proxy": ProxyOption,
    "storage_options": Annotated[
        str | None,
        typer.Option(
            "--storage-options",
            metavar="JSON",
            show_default=False,
            help="Options of s3://, gs://, az:// …, as fsspec has them; '{}' uses the credentials of this machine.",
        ),
    ],
    "formats": Annotated[
        str | None,
        typer.Option(
            "--formats", metavar="NAMES", show_default="all", help=f"Image formats to read, of {', '.join(FORMATS)}."
        ),
    ],
    "isolate": Annotated[
        bool,
        typer.Option("--isolate", help="Decode in separate processes: a broken image fails alone."),
    ],
    "schemes": Annotated[
        str | None,
        typer.Option(
            "--schemes",
            metavar="NAMES",
            show_default="all",
            help="Kinds of sources to read: http,https allows only URLs; file means paths, data means base64.",
        ),
    ],
}


# The options for the program that runs a command, in the order of its help.
_RUN_OPTIONS: Final[dict[str, Any]] = {
    "max_failed": Annotated[
        str,
        typer.Option("--max-failed", metavar="N|P%", help="Number or percentage of failed rows that is no failure."),
    ],
    "strict": Annotated[
        bool,
        typer.Option("--strict", help="Count also rows as failed that failed in an earlier run and have not changed."),
    ],
    "summary_json": Annotated[
        str | None,
        typer.Option("--summary-json", metavar="FILE|-", show_default=False, help="Write what was done as JSON."),
    ],
    "log_format": Annotated[
        str | None,
        typer.Option(
            "--log-format",
            metavar="|".join(LOG_FORMATS),
            show_default="a bar on a terminal",
            help="Write messages, and the progress every ten seconds, as lines with time and level.",
        ),
    ],
}
_RUN_DEFAULTS: Final = {"max_failed": "0", "strict": False, "summary_json": None, "log_format": None}


def with_source_options(command: Callable[..., None]) -> Callable[..., None]:
    """Replace ``**given`` of a command by the options about images and downloads, about SOURCE, and about its run.

    The command gets `GivenSources` in the place of the values of SOURCE.
    """
    own = [parameter for name, parameter in inspect.signature(command).parameters.items() if name != "given"]
    # SOURCE is checked where it is opened, because --files-from may replace it.
    own = [one.replace(default=None) if one.name == "sources" else one for one in own]
    flags = {"null": False, "hidden": False, "follow_links": False}
    nothing = {"storage_options": None, "progress": None, "store": None}
    defaults = {**Options.defaults(), **nothing, **flags, **_RUN_DEFAULTS}
    options = {**_GIVEN_OPTIONS, **_SOURCE_OPTIONS, **_RUN_OPTIONS}
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=defaults.get(name), annotation=annotation)
        for name, annotation in options.items()
    ]

    @wraps(command)
    def run(*, max_failed: str, strict: bool, summary_json: str | None, log_format: str | None, **values: Any) -> None:
        about = {name: values.pop(name) for name in _GIVEN_OPTIONS}
        about["exclude"] = about["exclude"] or ()
        values["sources"] = GivenSources(values.pop("sources") or (), **about)
        with reported():
            name = command.__name__.replace("_", "-")
            command_run = CommandRun(
                name, max_failed=max_failed, strict=strict, summary=summary_json, log_format=log_format
            )
            command_run.prepare(values.get("out"), values["store"])
            with running(command_run):
                command(**values)

    run.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *added)}
    return run


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


def source_options(given: dict[str, Any]) -> SourceOptions:
    """Return the checked options that say how sources are read; by default, a progress bar is shown on a terminal."""
    options: SourceOptions = {**given}  # type: ignore[typeddict-item]  # checked by `make_options`, with a hint
    options.pop("store", None)  # type: ignore[typeddict-item]
    options["headers"] = parse_headers(given["headers"])
    options["proxy"] = parse_proxy(given["proxy"])
    options["storage_options"] = _parse_storage_options(given["storage_options"])
    for name in ("schemes", "formats"):
        options[name] = None if given[name] is None else split_names([given[name]])
    if given["progress"] is None:
        options["progress"] = sys.stderr.isatty() or current().log is not None
    make_options(**options)
    return options


def split_names(names: list[str] | None) -> tuple[str, ...]:
    """Return the names of an option that may be repeated, and hold several names separated by commas."""
    return tuple(name.strip() for part in names or () for name in part.split(","))


def _parse_storage_options(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        parsed = json.loads(text)
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict):  # the value is not shown, because it may contain a key
        raise ArgumentError("--storage-options must be a JSON object\nHint: such as '{\"anon\": true}'.")
    return parsed
