"""Options that all commands about images have: how sources are listed and read, and what a run leaves for others."""

import inspect
import json
import sys
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, Final

import typer

from imgmatch_df.cli.arguments import in_home
from imgmatch_df.cli.exit_codes import reported
from imgmatch_df.cli.given_sources import GivenSources
from imgmatch_df.cli.request_options import HeaderOption, ProxyOption, UserAgentOption, parse_headers, parse_proxy
from imgmatch_df.cli.runs import LOG_FORMATS, CommandRun, current, running
from imgmatch_df.errors import ArgumentError
from imgmatch_df.options import FORMATS, Options, SourceOptions, make_options

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
            callback=in_home,
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
            callback=in_home,
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
    own = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own]  # others need no default behind SOURCE
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
            command_run.prepare(values.get("out"), values["store"], values.get("reference"))
            with running(command_run):
                command(**values)

    run.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *added)}
    return run


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
