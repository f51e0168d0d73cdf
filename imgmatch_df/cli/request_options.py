"""The options of the command line about http requests: --header, --user-agent and --proxy."""

import re
from pathlib import Path
from typing import Annotated, Final

import typer

from imgmatch_df.errors import ArgumentError

HeaderOption = Annotated[
    list[str] | None,
    typer.Option(
        "--header",
        metavar="[HOST=]NAME: VALUE",
        show_default=False,
        help="Header of requests, to all hosts or to HOST; repeatable. @FILE reads one from each line of a file.",
    ),
]
UserAgentOption = Annotated[
    str | None,
    typer.Option(
        "--user-agent",
        metavar="TEXT",
        show_default="imgmatch-df/VERSION",
        help="User-Agent of requests; name a contact: 'my-crawler/1.0 (+https://example.com/bot)'.",
    ),
]
ProxyOption = Annotated[
    str | None,
    typer.Option(
        "--proxy",
        metavar="URL",
        show_default=False,
        help="Proxy for http and https: http://, https:// or socks5h:// USER:PASSWORD@HOST:PORT; @FILE reads it.",
    ),
]

# A host has a port of digits at most, so that `Cookie:a=b` is a header without a host.
_HEADER: Final = re.compile(
    r"(?:(?P<host>(?:[A-Za-z]+://)?(?:\[[^\]\s]*\]|[^\s=:/]+)(?::[0-9]+)?/?)=)?(?P<name>[^\s=:]+)[ \t]*:(?P<value>.*)"
)


def parse_headers(given: list[str] | None) -> dict[str, str | dict[str, str]] | None:
    """Return the option `headers` for the values of --header; None for none.

    Raises
    ------
    ArgumentError
        If a value is not a header, or a file cannot be read. No message shows a value.
    """
    if not given:
        return None
    headers: dict[str, str | dict[str, str]] = {}
    of_hosts: dict[str, dict[str, str]] = {}
    for number, text in enumerate(given, 1):
        where = f"--header {number}"
        lines = [(where, text)]
        if text.startswith("@"):
            read = _read(text[1:], "--header").splitlines()
            lines = [(f"line {n} of {text[1:]!r}", line) for n, line in enumerate(read, 1)]
            lines = [(place, line) for place, line in lines if line.strip() and not line.startswith("#")]
        for place, line in lines:
            found = _HEADER.fullmatch(line.strip())
            if found is None:
                raise ArgumentError(
                    f"{place} is not a header: no name with a colon after it\n"
                    "Hint: such as 'Referer: https://example.com/' or 'images.example.com=Authorization: Bearer …'."
                )
            fields = headers if found["host"] is None else of_hosts.setdefault(found["host"], {})
            if found["name"].lower() in {name.lower() for name in fields}:
                raise ArgumentError(f"{place} is given twice: {found['name'][:60]}\nHint: leave out one of them.")
            fields[found["name"]] = found["value"].strip()
    if both := headers.keys() & of_hosts.keys():
        raise ArgumentError(
            f"--header has {min(both)[:60]!r} as a header and as a host\n"
            "Hint: name the host with its scheme, such as 'https://HOST=NAME: VALUE'."
        )
    return {**headers, **of_hosts}


def parse_proxy(given: str | None) -> str | None:
    """Return the option `proxy` for the value of --proxy, which may name a file."""
    if given is None or not given.startswith("@"):
        return given
    return _read(given[1:], "--proxy").strip()


def _read(path: str, option: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise ArgumentError(
            f"{option} cannot read {path!r}: {reason}\nHint: pass @ and the path of a text file."
        ) from error
