"""`imgmatch serve`: its options, and nothing else; what needs the extra is imported when it runs."""

from pathlib import Path
from typing import Annotated, Any

import typer

from imgmatch_df.cli.arguments import split_names
from imgmatch_df.errors import MissingExtraError
from imgmatch_df.options import make_options
from imgmatch_df.server.settings import DEFAULT_FORMATS, Settings, read_tokens
from imgmatch_df.server.uvicorn_version import check_uvicorn

_DEFAULTS = Settings()
_OPTIONS = _DEFAULTS.options


def _number(text: str, metavar: str = "N") -> Any:
    return typer.Option(metavar=metavar, help=text)


def serve(
    host: Annotated[str, typer.Option(help="Where to listen; other than this machine's own only with a token.")] = (
        _DEFAULTS.host
    ),
    port: Annotated[int, _number("Port; 0 takes a free one.")] = _DEFAULTS.port,
    workers: Annotated[int, _number("Processes; one keeps all processors hashing.")] = _DEFAULTS.workers,
    token_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", show_default=False, help="Tokens, one a line; IMGMATCH_TOKEN is another one."),
    ] = None,
    allow_private_networks: Annotated[
        bool, typer.Option("--allow-private-networks", help="Also fetch from loopback, private, link-local addresses.")
    ] = False,
    decode: Annotated[
        str, typer.Option(metavar="full|scaled", help="full is exact, scaled is faster on large JPEGs.")
    ] = _OPTIONS.decode,
    alpha: Annotated[
        str, typer.Option(metavar="drop|white|black", help="Ignore transparency, or show it over a colour.")
    ] = _OPTIONS.alpha,
    formats: Annotated[str, typer.Option(metavar="NAMES", help="Which formats are read.")] = ",".join(DEFAULT_FORMATS),
    isolate: Annotated[
        bool,
        typer.Option(
            "--isolate/--no-isolate",
            help="Decode in processes of their own: an image that takes too long or too much memory fails alone.",
        ),
    ] = _OPTIONS.isolate,
    max_pixels: Annotated[int, _number("Largest width x height to decode.")] = _OPTIONS.max_pixels,
    max_bytes: Annotated[int, _number("Largest picture, in bytes.")] = _OPTIONS.max_bytes,
    timeout_s: Annotated[float, _number("Longest time of one attempt to fetch.", "S")] = _OPTIONS.timeout_s,
    attempts: Annotated[int, _number("How often to ask for an address in all.")] = _OPTIONS.attempts,
    n_connections: Annotated[int, _number("Most fetches at a time.")] = _OPTIONS.n_connections,
    n_connections_per_host: Annotated[int, _number("Most fetches from one host.")] = _OPTIONS.n_connections_per_host,
    store: Annotated[
        str | None,
        typer.Option(metavar="STORE", show_default=False, help="Stored hashes: URLs in it are not fetched."),
    ] = None,
    max_hashed_records: Annotated[int, _number("Most records for visual_hash.")] = _DEFAULTS.max_hashed_records,
    max_records: Annotated[int, _number("Most records for the other methods.")] = _DEFAULTS.max_records,
    max_body_bytes: Annotated[int, _number("Largest body.")] = _DEFAULTS.max_body_bytes,
    max_values: Annotated[int, _number("Most JSON values in a body.")] = _DEFAULTS.max_values,
    max_held_bytes: Annotated[int, _number("Bytes of bodies and unread responses.")] = _DEFAULTS.max_held_bytes,
    max_requests: Annotated[int, _number("Requests under way at a time.")] = _DEFAULTS.max_requests,
    max_connections: Annotated[int, _number("Open connections.")] = _DEFAULTS.max_connections,
    deadline_s: Annotated[float, _number("Longest time of a request.", "S")] = _DEFAULTS.deadline_s,
    body_timeout_s: Annotated[float, _number("Longest time of its body.", "S")] = _DEFAULTS.body_timeout_s,
    header_timeout_s: Annotated[float, _number("Longest time of its head.", "S")] = _DEFAULTS.header_timeout_s,
    keep_alive_s: Annotated[float, _number("How long idle connections stay.", "S")] = _DEFAULTS.keep_alive_s,
    response_timeout_s: Annotated[
        float, _number("Longest time to read a response.", "S")
    ] = _DEFAULTS.response_timeout_s,
    grace_s: Annotated[float, _number("How long a stop waits for requests.", "S")] = _DEFAULTS.grace_s,
    echo_base64: Annotated[
        bool, typer.Option("--echo-base64/--no-echo-base64", help="Whether answers repeat the photos.")
    ] = _DEFAULTS.echo_base64,
) -> None:
    """Answer the documented API over HTTP. Needs the extra "server".

    Example: IMGMATCH_TOKEN=secret imgmatch serve --host 0.0.0.0

    Limits are those of one worker. SIGTERM and Ctrl-C finish what is under way. Exit code 2: wrong call.
    """
    settings = Settings(
        host=host,
        port=port,
        workers=workers,
        tokens=read_tokens(token_file),
        options=make_options(
            decode=decode,  # type: ignore[arg-type]  # checked, with a hint
            alpha=alpha,  # type: ignore[arg-type]
            formats=split_names([formats]),
            isolate=isolate,
            max_pixels=max_pixels,
            max_bytes=max_bytes,
            timeout_s=timeout_s,
            attempts=attempts,
            n_connections=n_connections,
            n_connections_per_host=n_connections_per_host,
            allow_private_networks=allow_private_networks,
        ),
        store=store,
        max_hashed_records=max_hashed_records,
        max_records=max_records,
        max_body_bytes=max_body_bytes,
        max_values=max_values,
        max_held_bytes=max_held_bytes,
        max_requests=max_requests,
        max_connections=max_connections,
        deadline_s=deadline_s,
        body_timeout_s=body_timeout_s,
        header_timeout_s=header_timeout_s,
        keep_alive_s=keep_alive_s,
        response_timeout_s=response_timeout_s,
        grace_s=grace_s,
        echo_base64=echo_base64,
    )
    try:
        check_uvicorn()
        from imgmatch_df.server.process import run_service
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"imgmatch serve needs {error.name}, which is not installed\n"
            'Hint: pip install "imgmatch-df[server]" brings all that it needs.'
        ) from error
    if not settings.tokens:
        typer.echo(
            f"no token is set: listening on {settings.host} alone, and everybody on this machine may ask\n"
            "Hint: IMGMATCH_TOKEN or --token-file opens it to others.",
            err=True,
        )
    run_service(settings)
