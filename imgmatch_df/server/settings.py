"""Settings of the service, checked before a socket is opened."""

import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from imgmatch_df.errors import ArgumentError
from imgmatch_df.options import Options, check_flag, check_positive, check_seconds

TOKEN_VARIABLE: Final = "IMGMATCH_TOKEN"  # noqa: S105  # the name of a variable
MIB: Final = 1 << 20


# The formats of the documented API, and others of browsers and cameras. JPEG 2000 and PNM must be enabled.
# The threshold of Pillow for a decompression bomb: a quarter of a GiB of RGB. Lower than for batches, whose images are
# one's own, because clients wait for each other's images.
DEFAULT_MAX_PIXELS: Final = 89_478_485
DEFAULT_FORMATS: Final = ("jpeg", "png", "tiff", "webp", "gif", "bmp", "avif")


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of the service. Limits apply to each worker.

    Parameters
    ----------
    host, port
        Where it listens; port 0 means a free port. Without `tokens`, `host` must be a loopback address.
    workers
        Number of processes. One uses all processors for hashing; more help if parsing and sending are the limit.
    tokens
        Clients must send one of them. Without tokens, every client that reaches the service may use it.
    options
        How images are fetched and decoded: by default in decoder processes (`isolate`).
    store
        A store of hashes, whose URLs are not fetched; None for no store.
    max_hashed_records, max_records
        Maximum number of records in a request for `visual_hash` (documented: 10), and for the other endpoints.
    max_body_bytes
        Maximum size of a body in bytes, counted while it arrives.
    max_values
        Maximum number of objects, lists and fields in a body, which limits the time of parsing.
    max_held_bytes
        Maximum size of all bodies and unread responses together, in bytes; above it, requests get 503.
    max_requests
        Maximum number of requests in flight whose bodies are complete; above it, requests get 503.
    max_connections
        Maximum number of open connections; above it, new ones get 503. Fewer if the system allows few open files.
    deadline_s
        Maximum time from the header of a request to the end of its response, in seconds.
    body_timeout_s, header_timeout_s, keep_alive_s
        Maximum time until a body and a header are complete, and of an idle connection, in seconds.
    response_timeout_s
        Maximum time in which a client must read a response, in seconds; then its connection is closed.
    grace_s
        Maximum time that a stop waits for requests in flight, in seconds.
    echo_base64
        Whether responses repeat the `_base64` of their records, as documented for every field.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    tokens: tuple[str, ...] = field(default=(), repr=False)
    options: Options = field(
        default_factory=lambda: Options(
            max_pixels=DEFAULT_MAX_PIXELS,
            max_bytes=64 * MIB,
            timeout_s=10.0,
            formats=frozenset(DEFAULT_FORMATS),
            isolate=hasattr(os, "fork"),
        )
    )
    store: str | None = None
    max_hashed_records: int = 10
    max_records: int = 1000
    max_body_bytes: int = 64 * MIB
    max_values: int = 100_000
    max_held_bytes: int = 512 * MIB
    max_requests: int = 1024
    max_connections: int = 4096
    deadline_s: float = 60.0
    body_timeout_s: float = 30.0
    header_timeout_s: float = 10.0
    keep_alive_s: float = 15.0
    response_timeout_s: float = 60.0
    grace_s: float = 30.0
    echo_base64: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.port, int) or not 0 <= self.port < 1 << 16:
            raise ArgumentError(
                f"port must be a whole number from 0 to 65535, got {self.port!r}\nHint: use 0 for a free port."
            )
        for name in ("workers", "max_hashed_records", "max_records", "max_body_bytes", "max_values", "max_held_bytes"):
            check_positive(name, getattr(self, name))
        for name in ("max_requests", "max_connections"):
            check_positive(name, getattr(self, name))
        for name in (
            "deadline_s",
            "body_timeout_s",
            "header_timeout_s",
            "keep_alive_s",
            "grace_s",
            "response_timeout_s",
        ):
            check_seconds(name, getattr(self, name))
        check_flag("echo_base64", self.echo_base64, "False saves the bandwidth.")
        if not self.tokens and not is_loopback(self.host):
            raise ArgumentError(
                f"without a token, host must be a loopback address (127.0.0.1, ::1, localhost), got {self.host!r}"
                f"\nHint: set {TOKEN_VARIABLE}, or --token-file with one token per line."
            )


def is_loopback(host: str) -> bool:
    """Return whether `host` resolves to loopback addresses only."""
    try:
        found = socket.getaddrinfo(host or "0.0.0.0", None, type=socket.SOCK_STREAM)  # noqa: S104
    except (OSError, UnicodeError):
        return False
    return all(ip_address(str(address[0]).partition("%")[0]).is_loopback for *_, address in found)


def read_tokens(file: str | os.PathLike[str] | None) -> tuple[str, ...]:
    """Return the tokens of a file, one per line, and the token of the environment.

    Raises
    ------
    ArgumentError
        If the file cannot be read or contains no token, or a token is not valid in a header. No message shows a token.
    """
    lines: list[str] = []
    if file is not None:
        try:
            lines = Path(file).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            raise ArgumentError(
                f"--token-file {os.fspath(file)!r} cannot be read: {reason}\n"
                "Hint: pass a text file with one token per line."
            ) from error
        if not any(line.strip() for line in lines):
            raise ArgumentError(f"--token-file {os.fspath(file)!r} contains no token\nHint: write one token per line.")
    return _checked([*lines, os.environ.get(TOKEN_VARIABLE, "")])


def _checked(lines: Iterable[str]) -> tuple[str, ...]:
    tokens = tuple(dict.fromkeys(filter(None, (line.strip() for line in lines))))
    for number, token in enumerate(tokens, 1):
        if not token.isascii() or not token.isprintable() or " " in token:
            raise ArgumentError(
                f"token {number} has characters that are not allowed in a header\n"
                "Hint: use letters and digits, such as those of "
                "python -c 'import secrets; print(secrets.token_urlsafe())'."
            )
    return tokens
