"""What the service may be told, checked before a socket is opened."""

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


# Those that are documented, and what browsers show and cameras write besides. JPEG 2000 and PNM are on request.
DEFAULT_FORMATS: Final = ("jpeg", "png", "tiff", "webp", "gif", "bmp", "avif")


@dataclass(frozen=True, slots=True)
class Settings:
    """How the service runs. Limits are those of one worker.

    Parameters
    ----------
    host, port
        Where it listens; port 0 takes a free one. Without `tokens`, `host` must be this machine's own.
    workers
        Processes. One keeps all processors busy with hashing; more help where parsing and sending are the limit.
    tokens
        Any of them opens the service. None: everybody who reaches it may use it.
    options
        How pictures are fetched and decoded: with `isolate`, the default, in decoder processes.
    store
        A store of hashes: addresses in it are not fetched. None for none.
    max_hashed_records, max_records
        Most records in a request for `visual_hash` (documented: 10), and for the other methods.
    max_body_bytes
        Largest body, counted while it arrives.
    max_values
        Most objects, lists and fields in a body: what bounds the time that parsing takes.
    max_held_bytes
        Bodies, and responses that clients have not read, that may be held at a time, in bytes; beyond that requests
        are answered with 503.
    max_requests
        Requests under way at a time, their bodies arrived; beyond that 503.
    max_connections
        Open connections; beyond that 503. Fewer where the system allows few open files.
    deadline_s
        Longest time from the first to the last byte of a request's life, in seconds.
    body_timeout_s, header_timeout_s, keep_alive_s
        Longest time that a body, and a head, may take to arrive, and that an idle connection stays, in seconds.
    response_timeout_s
        Longest time that a client may take to read a response, in seconds; then its connection is closed.
    grace_s
        How long a stop waits for what is under way, in seconds.
    echo_base64
        Whether answers repeat the `_base64` of their records, as documented for every field.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    workers: int = 1
    tokens: tuple[str, ...] = field(default=(), repr=False)
    options: Options = field(
        default_factory=lambda: Options(
            max_bytes=64 * MIB, timeout_s=10.0, formats=frozenset(DEFAULT_FORMATS), isolate=hasattr(os, "fork")
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
            raise ArgumentError(f"port must be a whole number from 0 to 65535, got {self.port!r}\nHint: 0 takes any.")
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
                f"host must be this machine's own (127.0.0.1, ::1, localhost) while no token is set, got {self.host!r}"
                f"\nHint: set {TOKEN_VARIABLE}, or --token-file with a token in each line."
            )


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach `host`, whatever it resolves to."""
    try:
        found = socket.getaddrinfo(host or "0.0.0.0", None, type=socket.SOCK_STREAM)  # noqa: S104
    except (OSError, UnicodeError):
        return False
    return all(ip_address(str(address[0]).partition("%")[0]).is_loopback for *_, address in found)


def read_tokens(file: str | os.PathLike[str] | None) -> tuple[str, ...]:
    """Return the tokens of a file, one in each line, and that of the environment.

    Raises
    ------
    ArgumentError
        If the file cannot be read or holds none, or a token cannot stand in a header. No token is ever shown.
    """
    lines: list[str] = []
    if file is not None:
        try:
            lines = Path(file).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            raise ArgumentError(
                f"--token-file {os.fspath(file)!r} cannot be read: {reason}\nHint: a text file, one token a line."
            ) from error
        if not any(line.strip() for line in lines):
            raise ArgumentError(f"--token-file {os.fspath(file)!r} holds no token\nHint: one token a line.")
    return _checked([*lines, os.environ.get(TOKEN_VARIABLE, "")])


def _checked(lines: Iterable[str]) -> tuple[str, ...]:
    tokens = tuple(dict.fromkeys(filter(None, (line.strip() for line in lines))))
    for number, token in enumerate(tokens, 1):
        if not token.isascii() or not token.isprintable() or " " in token:
            raise ArgumentError(
                f"token {number} has characters that no header can carry\nHint: letters and digits, such as those of "
                "python -c 'import secrets; print(secrets.token_urlsafe())'."
            )
    return tokens
