"""The words of the command line: every argument and option, defined once for all commands."""

import inspect
import json
import re
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Final, TypedDict

import typer
from typer.core import TyperCommand

from imgmatch_df.columns import HASH_KINDS
from imgmatch_df.errors import ArgumentError
from imgmatch_df.frames.clustering import Keep, Linkage
from imgmatch_df.options import FORMATS, Options, SourceOptions, make_options

_HIDDEN: Final = "\0"  # no argument of a program holds it


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"imgmatch {version('imgmatch-df')}")
        raise typer.Exit


_NEAR_RADII: Final = ", ".join(f"{kind.near_radius} of {kind.name}" for kind in HASH_KINDS.values())

Version = Annotated[
    bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version and exit.")
]
Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE...",
        show_default=False,
        help="Folder, picture or glob; .duckdb, .parquet, .csv, .ndjson; documented request .json.",
    ),
]
OptionalSources = Annotated[
    list[str] | None,
    typer.Argument(metavar="[SOURCE...]", show_default=False, help="What to rank, unless QUERY is a request."),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out", "-o", metavar="OUT", show_default=False, help=".parquet, .csv, .ndjson or .json; else the screen."
    ),
]
StoreOut = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        metavar="OUT",
        show_default=False,
        help=".duckdb, continued by the next run; .parquet, .csv, .ndjson or .json; else the screen.",
    ),
]
Key = Annotated[
    str | None,
    typer.Option(
        "--key", metavar="COLUMN", show_default="that of images", help="Column of a table that tells rows apart."
    ),
]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Hash what failed in an earlier run again.")]
Prune = Annotated[
    bool, typer.Option("--prune", help="Drop from the .duckdb what is not in SOURCE, if that is at most half of it.")
]
PruneAll = Annotated[bool, typer.Option("--prune-all", help="Drop what is not in SOURCE, however much that is.")]
Store = Annotated[
    Path, typer.Argument(metavar="STORE", show_default=False, help="What visual-hash -o wrote: .duckdb, or a table.")
]
Source = Annotated[
    str | None,
    typer.Option("--source", metavar="COLUMN", show_default=False, help="Column of a table that holds the images."),
]
Prefix = Annotated[
    str, typer.Option("--prefix", metavar="TEXT", show_default=False, help="Before the name of each new column.")
]
Suffix = Annotated[
    str, typer.Option("--suffix", metavar="TEXT", show_default=False, help="Behind the name of each new column.")
]
HashType = Annotated[
    str | None,
    typer.Option(
        "--hash-type", metavar="bmh1|phash", show_default="bmh1, or what SOURCE says", help="Hash to compare by."
    ),
]
HashTypes = Annotated[
    list[str] | None, typer.Option(metavar="NAMES", show_default="bmh1,phash", help="Hashes to compute.")
]
Radius = Annotated[
    int | None,
    typer.Option(
        metavar="BITS",
        show_default="a request's range, else 0",
        help=f"Largest distance of duplicates: 0 for equal hashes; for edited copies {_NEAR_RADII}.",
    ),
]
LinkageName = Annotated[
    str, typer.Option(metavar="connected|star", help="Whether duplicates of duplicates are duplicates.")
]
KeepName = Annotated[str, typer.Option(metavar="first|last|largest", help="Which one of them is kept.")]
ReferenceSource = Annotated[
    str | None,
    typer.Option(
        "--reference", metavar="SOURCE", show_default=False, help="Also remove rows that match this table or folder."
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
Against = Annotated[str | None, typer.Option("--against", hidden=True)]  # the old name of --reference
ListRemoved = Annotated[
    bool, typer.Option("--list-removed", help="Print the path of what is removed, one a line, and nothing else.")
]
Query = Annotated[
    str,
    typer.Argument(
        callback=lambda query: query.removeprefix(_HIDDEN),
        metavar="QUERY",
        show_default=False,
        help="A picture or its base64; a hash as 0/1, hexadecimal or decimal; or a documented request .json.",
    ),
]
K = Annotated[int | None, typer.Option("-k", metavar="N", show_default="all", help="How many to rank.")]

# What a command takes as its ``**given``, in the order in which its help shows them.
_SOURCE_OPTIONS: Final[dict[str, Any]] = {
    "decode": Annotated[
        str, typer.Option("--decode", metavar="full|scaled", help="full is exact, scaled is faster on large JPEGs.")
    ],
    "alpha": Annotated[
        str,
        typer.Option("--alpha", metavar="drop|white|black", help="Ignore transparency, or show it over a colour."),
    ],
    "max_pixels": Annotated[int, typer.Option("--max-pixels", metavar="N", help="Largest width x height to decode.")],
    "max_bytes": Annotated[int, typer.Option("--max-bytes", metavar="N", help="Largest file to read, in bytes.")],
    "base_dir": Annotated[
        str | None,
        typer.Option(
            "--base-dir",
            metavar="DIR",
            show_default="working directory",
            help="Where relative paths of a table start; none leaves it. A request needs it for paths.",
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
        float, typer.Option("--timeout-s", metavar="S", help="Longest time of one attempt, in seconds.")
    ],
    "attempts": Annotated[int, typer.Option("--attempts", metavar="N", help="How often to ask for an address in all.")],
    "n_connections": Annotated[int, typer.Option("--n-connections", metavar="N", help="Most requests at a time.")],
    "n_connections_per_host": Annotated[
        int, typer.Option("--n-connections-per-host", metavar="N", help="Most requests to one host at a time.")
    ],
    "max_bytes_in_flight": Annotated[
        int, typer.Option("--max-bytes-in-flight", metavar="N", help="Most bytes fetched and not decoded yet.")
    ],
    "allow_private_networks": Annotated[
        bool,
        typer.Option("--allow-private-networks", help="Also fetch from loopback, private, link-local … addresses."),
    ],
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
            "--formats", metavar="NAMES", show_default="all", help=f"Which formats are read, of {', '.join(FORMATS)}."
        ),
    ],
    "isolate": Annotated[
        bool,
        typer.Option("--isolate", help="Decode in processes of their own: a broken image costs its own row."),
    ],
    "schemes": Annotated[
        str | None,
        typer.Option(
            "--schemes",
            metavar="NAMES",
            show_default="all",
            help="Which sources are read: http,https allows URLs only; file stands for paths, data for base64.",
        ),
    ],
}


def with_source_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options about pictures and how they are fetched, in the place of its ``**given``."""
    own = [parameter for name, parameter in inspect.signature(command).parameters.items() if name != "given"]
    defaults = {**Options.defaults(), "storage_options": None, "progress": None}
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=defaults[name], annotation=annotation)
        for name, annotation in _SOURCE_OPTIONS.items()
    ]

    command.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *added)}
    return command


class NegativeQuery(TyperCommand):
    """A command whose QUERY may be a negative number, which is no option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse; a hidden sign before the number keeps it from being taken for an option."""
        at = next((place for place, word in enumerate(args) if re.fullmatch("-[0-9]{1,19}", word)), None)
        if at is not None and "--" not in args and (at == 0 or not args[at - 1].startswith("-")):
            args = [*args[:at], f"{_HIDDEN}{args[at]}", *args[at + 1 :]]
        return super().parse_args(ctx, args)


class Call(TypedDict):
    """The arguments that `cluster` and `remove_duplicates` share, as the user gave them; the verbs check them."""

    radius: int
    hash_type: str
    linkage: Linkage
    keep: Keep


def source_options(given: dict[str, Any]) -> SourceOptions:
    """Return the options as given, once they are checked; a bar is shown on a terminal unless the user says."""
    options: SourceOptions = {**given}  # type: ignore[typeddict-item]  # checked by `make_options`, with a hint
    options["storage_options"] = _parse_storage_options(given["storage_options"])
    for name in ("schemes", "formats"):
        options[name] = None if given[name] is None else split_names([given[name]])
    if given["progress"] is None:
        options["progress"] = sys.stderr.isatty()
    make_options(**options)
    return options


def split_names(names: list[str] | None) -> tuple[str, ...]:
    """Return the names of an option that may be given several times, and hold several with commas between them."""
    return tuple(name.strip() for part in names or () for name in part.split(","))


def _parse_storage_options(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        parsed = json.loads(text)
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict):  # what was given is not shown: it may hold a key
        raise ArgumentError("--storage-options must be a JSON object\nHint: such as '{\"anon\": true}'.")
    return parsed
