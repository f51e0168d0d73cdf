"""Options of a call, checked once, while the expression is built."""

import os
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, fields
from numbers import Integral, Number, Real
from os import PathLike, fspath
from typing import Any, Literal, NamedTuple, TypedDict, Unpack, get_args

from imgmatch_df.errors import NEEDS_COMPILER, ArgumentError, ColumnError
from imgmatch_df.http_options import (
    Proxy,
    RequestHeaders,
    check_one_user_agent,
    check_proxy_guard,
    check_user_agent,
    freeze_headers,
    freeze_proxy,
)
from imgmatch_df.schemes import is_scheme_name
from imgmatch_df.threads import max_threads

Decode = Literal["full", "scaled"]
Alpha = Literal["drop", "white", "black"]
Trim = Literal["borders"]
PdqVariant = Literal["full", "512"]
OnError = Literal["null", "raise"]

MAX_PIXELS = 201_326_592  # 16,384 x 12,288, the largest photos of phones; a JPEG of this size takes 1 GB to decode
MAX_BYTES = 1 << 28
TIMEOUT_S = 30.0
ATTEMPTS = 3
# With 20 ms per request, one server sends 32 / 0.02 s = 1,600 images per second, more than two processors hash.
# Browsers and well-behaved crawlers use fewer than 64 connections in total.
N_CONNECTIONS = 64
N_CONNECTIONS_PER_HOST = 32
MAX_BYTES_IN_FLIGHT = 1 << 27

FORMATS = ("jpeg", "png", "webp", "gif", "tiff", "bmp", "avif", "pnm", "jpeg2000", "heif", "jxl", "raw")
_MAX_SECONDS = 1_000_000  # libraries count milliseconds in 32 bits
_WHOLE_NUMBERS = (
    "max_pixels",
    "max_bytes",
    "attempts",
    "n_connections",
    "n_connections_per_host",
    "max_bytes_in_flight",
)


class SourceOptions(TypedDict, total=False):
    """The keyword options of every call that reads sources; they are documented in `Options`."""

    decode: Decode
    alpha: Alpha
    trim: Trim | None
    pdq_variant: PdqVariant
    max_pixels: int
    max_bytes: int
    base_dir: str | PathLike[str] | None
    timeout_s: float
    attempts: int
    n_connections: int
    n_connections_per_host: int
    max_bytes_in_flight: int
    min_interval_s: float
    allow_private_networks: bool
    headers: Mapping[str, str | Mapping[str, str]] | None
    user_agent: str | None
    proxy: str | None
    storage_options: Mapping[str, Any] | None
    schemes: Iterable[str] | None
    formats: Iterable[str] | None
    isolate: bool
    on_error: OnError
    progress: bool


class StorageOptions(dict[str, Any]):
    """Options of an object store: a hashable mapping whose repr shows no values, because some are secrets."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(frozenset(self))

    def __repr__(self) -> str:
        return f"<{', '.join(map(str, self))}>"


@dataclass(frozen=True, slots=True)
class Options:
    """How sources are read and decoded. Hashable, so that expressions with equal options can share one decode.

    Parameters
    ----------
    decode
        ``"full"`` decodes exactly; ``"scaled"`` lets the JPEG decoder reduce large images first.
    alpha
        How transparency is removed: ``"drop"`` ignores it and uses the stored colours, as OpenCV does; ``"white"`` and
        ``"black"`` draw the image over that colour. With ``"drop"``, drawings in black on a transparent background are
        entirely black; ``"white"`` distinguishes them.
    trim
        ``"borders"`` hashes the inside of uniform borders that end at a straight edge, such as frames and letterbox
        bars. None hashes the whole image. ``local`` always leaves out borders, `sha256`, ``width`` and ``height`` are
        those of the whole image.
    pdq_variant
        How `pdq` reads an image with a side above 512 pixels: ``"full"`` reads all pixels, as PyPI's ``pdqhash``;
        ``"512"`` first takes 512 x 512 of them, as the C++ program of ThreatExchange.
    max_pixels
        Maximum width x height to decode, inclusive, checked from the header. It also limits the memory for one image:
        2 GB at the default, in proportion above it. That is enough for a JPEG of 200 megapixels, and for 108 megapixels
        in nearly every format; images that need more fail.
    max_bytes
        Maximum encoded size to read, in bytes, inclusive.
    base_dir
        Folder that relative paths are resolved against and that contains every path that may be read; None means the
        working directory, without that limit.
    timeout_s
        Maximum time of one attempt in seconds, from the name look-up to the last byte; at most a third of it for the
        connection. Time spent waiting for memory does not count.
    attempts
        Maximum attempts per source. Timeouts, lost connections, HTTP 429 and 5xx are retried after half a second, one,
        two …; `Retry-After` is honoured if it is at most `timeout_s`.
    n_connections
        Maximum concurrent requests of this process. On Windows at most 480.
    n_connections_per_host
        Maximum concurrent requests to one host.
    max_bytes_in_flight
        Maximum bytes of this process that were received but not decoded yet. Above half of it no request is started,
        above all of it no response is read; one source of up to `max_bytes` may exceed it.
    min_interval_s
        Minimum time between the starts of two requests to one host, in seconds, counted over all calls of the process,
        retries and redirects. 0 (default) means no wait. Waiting does not count as `timeout_s`, and does not delay
        other hosts.
    allow_private_networks
        Whether IP addresses outside of the public internet may be reached: loopback, private, link-local …
    headers
        Headers of http and https requests: ``{"Referer": "…"}`` for all hosts,
        ``{"images.example.com": {"Authorization": "…"}}`` for one host, ``{"*.example.com": {…}}`` for its subdomains;
        a host may have a scheme and a port. The most specific one counts. A redirect to another scheme, host or port
        gets only ``User-Agent``, ``Referer``, ``Accept``, ``Accept-Language`` and ``From`` of the headers for all
        hosts, and the headers of its own host if it is https or named with its port. Values are never shown or stored,
        but a pickled expression contains them.
    user_agent
        User-Agent of http and https requests; some servers require one with a contact, such as
        ``"my-crawler/1.0 (+https://example.com/bot)"``. None means ``imgmatch-df/VERSION``.
    proxy
        Proxy for http and https: ``"http://user:password@proxy.example.com:3128"``, ``"https://…"`` or
        ``"socks5h://…"``. The proxy resolves the names, so a name that resolves to a private IP address is not
        blocked; private IP addresses in URLs and names such as ``localhost`` are. None (default) means no proxy:
        ``http_proxy`` and other variables of the environment are not used.
    storage_options
        Arguments of the fsspec filesystem for ``s3://``, ``gs://``, ``az://`` and every other scheme of fsspec; copied.
        None (default) refuses these schemes, because they would use the credentials of this machine: pass ``{}`` to
        allow that, or ``{"anon": True}`` to read public buckets without credentials.
    schemes
        Allowed schemes: ``"http"``, ``"https"``, ``"s3"`` … for URLs, ``"file"`` for paths and file: URIs, ``"data"``
        for base64 and data: URIs. Other rows are `fetch_blocked`. None allows all.
    formats
        Formats to read: ``"jpeg"``, ``"png"``, ``"webp"``, ``"gif"``, ``"tiff"``, ``"bmp"``, ``"avif"``, ``"pnm"``,
        ``"jpeg2000"``, ``"heif"``, ``"jxl"``, ``"raw"``. None reads all; the last three need the extra of that name.
    isolate
        Whether images are decoded in separate processes, so that an image that crashes its decoder, or takes more than
        30 seconds or 2 GB, affects only its own row. Not on Windows.
    on_error
        ``"null"`` keeps failed rows as null, ``"raise"`` stops at the first one.
    progress
        Whether to show a progress bar, on the terminal (standard error) or in the cell of a notebook.
    """

    decode: Decode = "full"
    alpha: Alpha = "drop"
    trim: Trim | None = None
    pdq_variant: PdqVariant = "full"
    max_pixels: int = MAX_PIXELS
    max_bytes: int = MAX_BYTES
    base_dir: str | None = None
    timeout_s: float = TIMEOUT_S
    attempts: int = ATTEMPTS
    n_connections: int = N_CONNECTIONS
    n_connections_per_host: int = N_CONNECTIONS_PER_HOST
    max_bytes_in_flight: int = MAX_BYTES_IN_FLIGHT
    min_interval_s: float = 0.0
    allow_private_networks: bool = False
    headers: RequestHeaders | None = None
    user_agent: str | None = None
    proxy: Proxy | None = None
    storage_options: StorageOptions | None = None
    schemes: frozenset[str] | None = None
    formats: frozenset[str] | None = None
    isolate: bool = False
    on_error: OnError = "null"
    progress: bool = False

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Return the default of every option."""
        return {option.name: getattr(cls(), option.name) for option in fields(cls)}

    @property
    def recipe(self) -> "Recipe":
        """The options that hashes depend on."""
        return Recipe(*(getattr(self, name) for name in Recipe._fields))

    def __post_init__(self) -> None:
        check_choice("decode", self.decode, get_args(Decode), "pass 'full' to be exact, 'scaled' to be fast.")
        check_choice("alpha", self.alpha, get_args(Alpha), "pass 'drop' to hash as OpenCV does, 'white' for line art.")
        if self.trim is not None:
            check_choice("trim", self.trim, get_args(Trim), "pass None to hash the whole image, borders included.")
        check_choice("pdq_variant", self.pdq_variant, get_args(PdqVariant), "pass 'full' to hash as pdqhash does.")
        check_choice("on_error", self.on_error, get_args(OnError), "pass 'null' to keep failed rows.")
        for name in _WHOLE_NUMBERS:
            # Larger numbers have the same effect, and libraries do not accept them.
            limit = 1 << 62 if name.startswith("max_") else (1 << 31) - 1
            object.__setattr__(self, name, min(check_positive(name, getattr(self, name)), limit))
        object.__setattr__(self, "timeout_s", check_seconds("timeout_s", self.timeout_s))
        object.__setattr__(self, "min_interval_s", check_interval("min_interval_s", self.min_interval_s))
        check_flag("allow_private_networks", self.allow_private_networks, "leave it out for untrusted URLs.")
        check_flag("isolate", self.isolate, "pass True to decode in separate processes.")
        check_flag("progress", self.progress, "pass True to show a progress bar.")


class Recipe(NamedTuple):
    """The options that hashes depend on, as in `Options`. Hashes of different recipes are not comparable."""

    decode: str = "full"
    alpha: str = "drop"
    trim: str | None = None
    pdq_variant: str = "full"

    @classmethod
    def parse(cls, text: str) -> "Recipe":
        """Return the recipe that `text` gives; raise `ValueError` if it is of an unknown form."""
        decode, *others = text.split("+")
        recipe = cls(decode)
        for other in others:
            if other not in _PARTS:
                raise ValueError(f"unknown part {other!r} of the recipe {text!r}")
            recipe = recipe._replace(**_PARTS[other])
        return recipe

    @property
    def text(self) -> str:
        """The decode path, and after plus signs what is not the default, such as ``"full+white+borders"``."""
        options = self._asdict()
        return "+".join([self.decode, *(part for part, made in _PARTS.items() if made.items() <= options.items())])


# The parts of the text of a recipe behind the decode path, in order.
_PARTS: dict[str, dict[str, Any]] = {
    "white": {"alpha": "white"},
    "black": {"alpha": "black"},
    "borders": {"trim": "borders"},
    "pdq-512": {"pdq_variant": "512"},
}


def make_options(**options: Unpack[SourceOptions]) -> Options:
    """Return the options of a call, checked.

    Raises
    ------
    ArgumentError
        If an option is unknown or has a value that is not allowed.
    """
    # Errors of the environment are raised now, not after an hour of fetching.
    max_threads()
    if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
        raise ArgumentError(NEEDS_COMPILER)
    names = [field.name for field in fields(Options)]
    for name in options:
        if name not in names:
            from difflib import get_close_matches

            guess = get_close_matches(name, names, 1) or names
            raise ArgumentError(f"unknown option {name!r}, allowed are {', '.join(names)}\nHint: try {guess[0]!r}.")
    frozen = {
        "base_dir": _resolve_base_dir(options.get("base_dir")),
        "headers": freeze_headers(options.get("headers")),
        "user_agent": check_user_agent(options.get("user_agent")),
        "proxy": freeze_proxy(options.get("proxy")),
        "storage_options": _freeze_storage_options(options.get("storage_options")),
        "schemes": _freeze_schemes(options.get("schemes")),
        "formats": _freeze_formats(options.get("formats")),
    }
    made = Options(**{**options, **frozen})  # type: ignore[arg-type]
    check_one_user_agent(made.headers, made.user_agent)
    check_proxy_guard(made.proxy, made.allow_private_networks)
    return made


def _resolve_base_dir(base_dir: str | PathLike[str] | None) -> str | None:
    path = fspath(base_dir) if isinstance(base_dir, PathLike) else base_dir
    if path is not None and not isinstance(path, str):
        raise ArgumentError(f"base_dir must be a path, got {shown(base_dir)}\nHint: pass a str or a pathlib.Path.")
    path = None if path is None else os.path.expanduser(path)  # noqa: PTH111  # a Path drops a leading "./"
    if path is not None and not os.path.isdir(path):  # noqa: PTH112  # a Path of "" is the working directory
        hint = f"resolve it against the working directory, {os.getcwd()!r}."  # noqa: PTH109
        raise ArgumentError(f"base_dir is not a folder: {path!r}\nHint: {hint}")
    return path


def _freeze_formats(given: Iterable[str] | None) -> frozenset[str] | None:
    if given is None:
        return None
    names = list(given) if isinstance(given, Iterable) and not isinstance(given, str | bytes) else []
    if not names or not all(isinstance(name, str) and name.lower() in FORMATS for name in names):
        raise ArgumentError(
            f"formats must be a list of {', '.join(FORMATS)}, got {given!r}\nHint: leave it out for all."
        )
    return frozenset(name.lower() for name in names)


def _freeze_schemes(given: Iterable[str] | None) -> frozenset[str] | None:
    if given is None:
        return None
    names = list(given) if isinstance(given, Iterable) and not isinstance(given, str | bytes) else []
    if not names or not all(isinstance(name, str) and is_scheme_name(name) for name in names):
        raise ArgumentError(
            f"schemes must be a list of names of schemes, got {given!r}\n"
            'Hint: pass ("http", "https") to allow URLs only; "file" stands for paths, "data" for base64.'
        )
    return frozenset(name.lower() for name in names)


def _freeze_storage_options(given: Mapping[str, Any] | None) -> StorageOptions | None:
    if given is None:
        return None
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise ArgumentError(
            f"storage_options must be a mapping of names to values, got {type(given).__name__}\n"
            'Hint: pass the arguments of the fsspec filesystem, such as {"anon": True} for s3fs.'
        )
    return StorageOptions(deepcopy(dict(given)))


def check_choice(name: str, value: object, allowed: tuple[str, ...], hint: str) -> None:
    """Raise `ArgumentError` unless `value` is one of `allowed`."""
    if not isinstance(value, str) or value not in allowed:
        raise ArgumentError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {shown(value)}\nHint: {hint}")


def check_name(name: str, value: object) -> None:
    """Raise `ArgumentError` unless `value` can be the name of a column."""
    if not isinstance(value, str):
        raise ArgumentError(
            f"{name} must be the name of a column, got {shown(value)}\n"
            "Hint: use with_columns to name an expression or values."
        )
    check_no_patterns((value,))


def check_no_patterns(names: Iterable[str]) -> None:
    """Raise `ColumnError` if Polars would read the name of a column as a pattern of names."""
    patterns = [name for name in names if name == "*" or (name.startswith("^") and name.endswith("$"))]
    if patterns:
        raise ColumnError(
            f"Polars reads the column name {shown(patterns[0])} as a pattern of names, not as one column\n"
            "Hint: rename the column: not *, and not ^ at the start with $ at the end."
        )


def shown(value: object) -> str:
    """Return an argument as shown in messages: its value if that is short, else its type."""
    if value is None or isinstance(value, str | bytes | bool | Number):
        text = repr(value)
        return text if len(text) <= 80 else f"{text[:80]}…"
    return f"{'an' if type(value).__name__[0] in 'AEIOUaeiou' else 'a'} {type(value).__name__}"


def check_positive(name: str, value: object) -> int:
    """Return `value` as an int; raise `ArgumentError` unless it is a whole number of at least 1."""
    number = whole_number(value)
    if number is None or number < 1:
        raise ArgumentError(
            f"{name} must be a whole number of at least 1, got {shown(value)}\nHint: leave it out for the default."
        )
    return number


def whole_number(value: object) -> int | None:
    """Return `value` as an int if it is a whole number, of Python or numpy; None otherwise, also for True and False."""
    return int(value) if isinstance(value, Integral) and not isinstance(value, bool) else None


def check_seconds(name: str, value: object) -> float:
    """Return `value` as a float; raise `ArgumentError` unless it is a positive number of seconds."""
    number: Any = value
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < number <= _MAX_SECONDS:
        raise ArgumentError(
            f"{name} must be a positive number of seconds, at most {_MAX_SECONDS:,}, got {shown(value)}\n"
            "Hint: leave it out for the default."
        )
    return float(number)


def check_interval(name: str, value: object) -> float:
    """Return `value` as a float; raise `ArgumentError` unless it is a number of seconds, which may be 0."""
    number: Any = value
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= number <= _MAX_SECONDS:
        raise ArgumentError(
            f"{name} must be a number of seconds from 0 to {_MAX_SECONDS:,}, got {shown(value)}\n"
            "Hint: leave it out for no wait."
        )
    return float(number)


def check_flag(name: str, value: object, hint: str) -> None:
    """Raise `ArgumentError` unless `value` is a bool."""
    if not isinstance(value, bool):
        raise ArgumentError(f"{name} must be True or False, got {shown(value)}\nHint: {hint}")
