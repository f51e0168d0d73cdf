"""The options of `imgmatch serve`. Packages of the extra "server" are imported when it runs."""

from pathlib import Path
from typing import Annotated, Any

import typer

from imgmatch_df._kernels import before_compiling
from imgmatch_df.cli.request_options import HeaderOption, ProxyOption, UserAgentOption, parse_headers, parse_proxy
from imgmatch_df.cli.source_options import split_names
from imgmatch_df.errors import MissingExtraError
from imgmatch_df.options import make_options
from imgmatch_df.server.settings import DEFAULT_FORMATS, Settings, read_tokens
from imgmatch_df.server.uvicorn_version import check_uvicorn

_DEFAULTS = Settings()
_OPTIONS = _DEFAULTS.options


def _number(text: str, metavar: str = "N") -> Any:
    return typer.Option(metavar=metavar, help=text)


def serve(
    host: Annotated[str, typer.Option(help="IP address to listen on; one that is not local needs a token.")] = (
        _DEFAULTS.host
    ),
    port: Annotated[int, _number("Port; 0 chooses a free one.")] = _DEFAULTS.port,
    workers: Annotated[int, _number("Processes; one uses all processors for hashing.")] = _DEFAULTS.workers,
    token_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", show_default=False, help="Tokens, one per line, besides IMGMATCH_TOKEN."),
    ] = None,
    allow_private_networks: Annotated[
        bool,
        typer.Option("--allow-private-networks", help="Also fetch from loopback, private and link-local IP addresses."),
    ] = False,
    header: HeaderOption = None,
    user_agent: UserAgentOption = None,
    proxy: ProxyOption = None,
    decode: Annotated[
        str, typer.Option(metavar="full|scaled", help="full is exact, scaled is faster on large JPEGs.")
    ] = _OPTIONS.decode,
    alpha: Annotated[
        str, typer.Option(metavar="drop|white|black", help="Ignore transparency, or show it over a colour.")
    ] = _OPTIONS.alpha,
    trim: Annotated[
        str | None,
        typer.Option(
            metavar="borders",
            show_default="the whole image",
            help="Hash the inside of uniform borders, such as frames and letterbox bars.",
        ),
    ] = _OPTIONS.trim,
    formats: Annotated[str, typer.Option(metavar="NAMES", help="Image formats to read.")] = ",".join(DEFAULT_FORMATS),
    isolate: Annotated[
        bool,
        typer.Option(
            "--isolate/--no-isolate",
            help="Decode in separate processes: an image that takes too long or too much memory fails alone.",
        ),
    ] = _OPTIONS.isolate,
    max_pixels: Annotated[int, _number("Maximum width x height to decode.")] = _OPTIONS.max_pixels,
    max_bytes: Annotated[int, _number("Maximum size of an image, in bytes.")] = _OPTIONS.max_bytes,
    timeout_s: Annotated[float, _number("Maximum time of one attempt to fetch.", "S")] = _OPTIONS.timeout_s,
    attempts: Annotated[int, _number("Maximum attempts per URL.")] = _OPTIONS.attempts,
    n_connections: Annotated[int, _number("Maximum concurrent fetches.")] = _OPTIONS.n_connections,
    n_connections_per_host: Annotated[
        int, _number("Maximum concurrent fetches per host.")
    ] = _OPTIONS.n_connections_per_host,
    store: Annotated[
        str | None,
        typer.Option(metavar="STORE", show_default=False, help="A store of hashes, whose URLs are not fetched."),
    ] = None,
    max_hashed_records: Annotated[
        int, _number("Maximum records of a visual_hash request.")
    ] = _DEFAULTS.max_hashed_records,
    max_records: Annotated[int, _number("Maximum records of other requests.")] = _DEFAULTS.max_records,
    max_body_bytes: Annotated[int, _number("Maximum size of a body, in bytes.")] = _DEFAULTS.max_body_bytes,
    max_values: Annotated[int, _number("Maximum JSON values in a body.")] = _DEFAULTS.max_values,
    max_held_bytes: Annotated[int, _number("Maximum bytes of bodies and unread responses.")] = _DEFAULTS.max_held_bytes,
    max_requests: Annotated[int, _number("Maximum concurrent requests.")] = _DEFAULTS.max_requests,
    max_connections: Annotated[int, _number("Maximum open connections.")] = _DEFAULTS.max_connections,
    deadline_s: Annotated[float, _number("Maximum time of a request.", "S")] = _DEFAULTS.deadline_s,
    body_timeout_s: Annotated[float, _number("Maximum time to receive a body.", "S")] = _DEFAULTS.body_timeout_s,
    header_timeout_s: Annotated[
        float, _number("Maximum time to receive the headers.", "S")
    ] = _DEFAULTS.header_timeout_s,
    keep_alive_s: Annotated[float, _number("Time until an idle connection is closed.", "S")] = _DEFAULTS.keep_alive_s,
    response_timeout_s: Annotated[
        float, _number("Maximum time to send a response.", "S")
    ] = _DEFAULTS.response_timeout_s,
    grace_s: Annotated[float, _number("Maximum time that a stop waits for requests.", "S")] = _DEFAULTS.grace_s,
    echo_base64: Annotated[
        bool, typer.Option("--echo-base64/--no-echo-base64", help="Whether responses repeat the images of a request.")
    ] = _DEFAULTS.echo_base64,
) -> None:
    """Serve the documented API over HTTP. Needs the extra "server".

    Example: IMGMATCH_TOKEN=secret imgmatch serve --host 0.0.0.0

    Limits are per worker. SIGTERM and Ctrl-C finish the requests in flight. Exit code 2: wrong call.
    """
    before_compiling.clear()  # standard error has log lines only
    settings = Settings(
        host=host,
        port=port,
        workers=workers,
        tokens=read_tokens(token_file),
        options=make_options(
            decode=decode,  # type: ignore[arg-type]  # checked, with a hint
            alpha=alpha,  # type: ignore[arg-type]
            trim=trim,  # type: ignore[arg-type]
            formats=split_names([formats]),
            isolate=isolate,
            max_pixels=max_pixels,
            max_bytes=max_bytes,
            timeout_s=timeout_s,
            attempts=attempts,
            n_connections=n_connections,
            n_connections_per_host=n_connections_per_host,
            allow_private_networks=allow_private_networks,
            headers=parse_headers(header),
            user_agent=user_agent,
            proxy=parse_proxy(proxy),
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
            'Hint: pip install "imgmatch-df[server]" installs it.'
        ) from error
    if not settings.tokens:
        typer.echo(
            f"no token is set: listening only on {settings.host}, for every user of this machine\n"
            "Hint: IMGMATCH_TOKEN or --token-file allows other IP addresses.",
            err=True,
        )
    run_service(settings)
