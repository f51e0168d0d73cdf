"""Options of http and https requests that may hold secrets: headers and the proxy. Hashable, and shown without values.

They are pickled with their values, because an expression with them must work in another process.
"""

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

from imgmatch_df.errors import ArgumentError, warn

DEFAULT_PORTS: Final = {"http": 80, "https": 443}
PROXY_SCHEMES: Final = ("http", "https", "socks5h")

_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+\-.^_`|~]{1,256}")
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")  # latin-1 without control characters
_MAX_VALUE_CHARS: Final = 8192  # of one field; most servers accept 8 KB
_MAX_FIELDS: Final = 100
# The fields that a request has from its URL, its connection and the code that reads the response.
_RESERVED: Final = frozenset(
    ("host", "connection", "content-length", "transfer-encoding", "te", "trailer", "upgrade", "keep-alive", "expect",
     "accept-encoding", "range", "if-range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since",
     "content-encoding", "content-type", "content-range", "http2-settings")
)  # fmt: skip
_HOST_KEY: Final = re.compile(
    r"(?:(?P<scheme>[A-Za-z]+)://)?(?P<any>\*\.)?(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:/?#@\[\]*%\\]+)(?::(?P<port>[0-9]{1,5}))?/?"
)
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_\-]{0,61}[a-z0-9_])?")
_PROXY: Final = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]*)://(?:(?P<user>[^/?#]*)@)?"
    r"(?P<host>\[[^\]/?#@]*\]|[^:/?#@\[\]]*)(?::(?P<port>[^/?#@:]*))?(?P<rest>.*)",
    re.DOTALL,
)
_MAX_SOCKS_BYTES: Final = 255  # of a user name and of a password


class HostPattern(NamedTuple):
    """The hosts that headers are for.

    Parameters
    ----------
    scheme
        ``"http"``, ``"https"``, or empty for both.
    host
        Lower case, in Punycode; IPv6 without brackets.
    is_wildcard
        Whether it means the subdomains of `host`, and not `host` itself.
    port
        Port, or None for all ports.
    """

    scheme: str
    host: str
    is_wildcard: bool
    port: int | None

    def matches(self, scheme: str, host: str, port: int) -> bool:
        """Return whether an origin is among the hosts."""
        if self.scheme not in ("", scheme) or self.port not in (None, port):
            return False
        return host.endswith(f".{self.host}") if self.is_wildcard else host == self.host

    @property
    def text(self) -> str:
        """The pattern in normal form."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port is None else f":{self.port}"
        return f"{self.scheme and f'{self.scheme}://'}{'*.' * self.is_wildcard}{host}{port}"


class HeaderRule(NamedTuple):
    """One header field, and the hosts that it is for; None for all hosts."""

    pattern: HostPattern | None
    name: str
    value: str

    def __repr__(self) -> str:
        return f"<{self.name}{'' if self.pattern is None else f' for {self.pattern.text}'}>"


@dataclass(frozen=True, slots=True, repr=False)
class RequestHeaders:
    """Headers of requests.

    Parameters
    ----------
    rules
        The least specific first: a field replaces an earlier one of the same name.
    """

    rules: tuple[HeaderRule, ...]

    def __repr__(self) -> str:
        return f"<{', '.join(repr(rule)[1:-1] for rule in self.rules)}>"


@dataclass(frozen=True, slots=True, repr=False)
class Proxy:
    """A proxy.

    Parameters
    ----------
    scheme
        ``"http"``, ``"https"`` or ``"socks5h"``.
    host, port
        Where it listens; IPv6 without brackets.
    user, password
        Credentials, None for none.
    """

    scheme: str
    host: str
    port: int
    user: str | None = None
    password: str | None = None

    @property
    def origin(self) -> str:
        """Scheme, host and port, without credentials."""
        return f"{self.scheme}://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    def __repr__(self) -> str:
        return f"<{self.origin}>"


# --- headers ---------------------------------------------------------------------------------------------------------


def freeze_headers(given: object) -> RequestHeaders | None:
    """Return the option `headers`, checked. No message shows a value.

    Raises
    ------
    ArgumentError
        If it is not a mapping, or a name, value or host is not valid.
    """
    if given is None or isinstance(given, RequestHeaders):
        return given
    if not isinstance(given, Mapping):
        raise ArgumentError(
            f"headers must be a mapping, got {type(given).__name__}\n"
            'Hint: pass {"Referer": "https://example.com/"} for all hosts, '
            '{"images.example.com": {"Authorization": "Bearer …"}} for one.'
        )
    rules: list[HeaderRule] = []
    hosts: set[HostPattern] = set()
    for key, value in given.items():
        if isinstance(value, Mapping):
            pattern = _host_pattern(key)
            if pattern in hosts:
                raise ArgumentError(f"headers name the host {pattern.text} twice\nHint: merge its two mappings.")
            hosts.add(pattern)
            rules += _rules(pattern, value)
    rules += _rules(None, {key: value for key, value in given.items() if not isinstance(value, Mapping)})
    if not rules:
        return None
    if len(rules) > _MAX_FIELDS:
        raise ArgumentError(f"headers are at most {_MAX_FIELDS}, got {len(rules)}\nHint: leave out what no host needs.")
    return RequestHeaders(tuple(sorted(rules, key=_specificity)))


def check_user_agent(given: object) -> str | None:
    """Return the option `user_agent`, checked."""
    if given is None:
        return None
    if not isinstance(given, str) or not given.strip() or not _is_value(given):
        raise ArgumentError(
            f"user_agent must be one line of latin-1 text, at most {_MAX_VALUE_CHARS:,} characters, got "
            f"{repr(given[:80]) if isinstance(given, str) else type(given).__name__}\n"
            "Hint: name the program and a contact: 'my-crawler/1.0 (+https://example.com/bot)'."
        )
    return given.strip()


def check_one_user_agent(headers: RequestHeaders | None, user_agent: str | None) -> None:
    """Raise `ArgumentError` if both options set the User-Agent for all hosts."""
    rules = () if headers is None else headers.rules
    if user_agent is not None and any(rule.pattern is None and rule.name.lower() == "user-agent" for rule in rules):
        raise ArgumentError("user_agent and headers both set the User-Agent\nHint: leave out one of them.")


def _rules(pattern: HostPattern | None, fields: Mapping[Any, Any]) -> list[HeaderRule]:
    where = "" if pattern is None else f" of {pattern.text}"
    rules: dict[str, HeaderRule] = {}
    for name, value in fields.items():
        if not isinstance(name, str) or not _TOKEN.fullmatch(name):
            # A name with a colon may hold the value, so it is not shown.
            raise ArgumentError(
                f"headers{where} have a name that is not valid: a {type(name).__name__} that is not letters, digits "
                'and hyphens\nHint: pass the name without a colon: {"Authorization": "Bearer …"}.'
            )
        if name.lower() in _RESERVED or name.lower().startswith(("proxy-", "sec-websocket-")):
            hint = "pass proxy='http://user:password@host:port'." if name.lower() == "proxy-authorization" else (
                "leave it out; it is set for each request."
            )  # fmt: skip
            raise ArgumentError(f"headers{where} must not set {name}\nHint: {hint}")
        if not isinstance(value, str) or not value.strip() or not _is_value(value):
            what = "text that is not allowed" if isinstance(value, str) else f"a value of type {type(value).__name__}"
            raise ArgumentError(
                f"the value of the header {name}{where} must be one line of latin-1 text, at most "
                f"{_MAX_VALUE_CHARS:,} characters, got {what}\nHint: leave out the header to send none; "
                "percent-encode other characters."
            )
        if name.lower() in rules:
            raise ArgumentError(f"headers{where} name {name} twice\nHint: the case of letters makes no difference.")
        rules[name.lower()] = HeaderRule(pattern, name, value.strip())
    return list(rules.values())


def _is_value(text: str) -> bool:
    return len(text) <= _MAX_VALUE_CHARS and _VALUE.fullmatch(text) is not None


def _specificity(rule: HeaderRule) -> tuple[int, int, bool, bool]:
    pattern = rule.pattern
    if pattern is None:
        return 0, 0, False, False
    kind = 1 if pattern.is_wildcard else 2
    return kind, pattern.host.count("."), pattern.port is not None, bool(pattern.scheme)


def _host_pattern(key: object) -> HostPattern:
    found = _HOST_KEY.fullmatch(key) if isinstance(key, str) else None
    host = None if found is None else clean_host(found["host"])
    if found is None or host is None or (scheme := (found["scheme"] or "").lower()) not in ("", *DEFAULT_PORTS):
        shown = repr(key[:80]) if isinstance(key, str) and "@" not in key else f"a {type(key).__name__}"
        raise ArgumentError(
            f"headers by host must be named by hosts, got {shown}\n"
            "Hint: such as 'images.example.com', '*.example.com' for its subdomains, 'images.example.com:8080', "
            "'https://images.example.com'."
        )
    port = int(found["port"]) if found["port"] else DEFAULT_PORTS.get(scheme)
    if port is not None and not 0 < port < 1 << 16:
        raise ArgumentError(f"the port of a host is from 1 to 65535, got {port}\nHint: leave it out for all ports.")
    return HostPattern(scheme, host, found["any"] is not None, port)


def clean_host(text: str) -> str | None:
    """Return a host name or an IP address in normal form, None if it is neither."""
    if text.startswith("["):
        try:
            return str(ipaddress.IPv6Address(text[1:-1]))
        except ValueError:
            return None
    if not text.isascii():
        import idna

        try:
            text = idna.encode(text, uts46=True).decode()
        except (idna.IDNAError, UnicodeError):
            return None
    host = text.lower().removesuffix(".")
    if host.rpartition(".")[2].isdigit():
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            return None
    return host if len(host) <= 253 and all(map(_LABEL.fullmatch, host.split("."))) else None


# --- proxy -----------------------------------------------------------------------------------------------------------


def freeze_proxy(given: object) -> Proxy | None:
    """Return the option `proxy`, checked. No message shows it, because it may hold a password.

    Raises
    ------
    ArgumentError
        If it is not the URL of a proxy.
    """
    if given is None or isinstance(given, Proxy):
        return given
    found = _PROXY.fullmatch(given.strip()) if isinstance(given, str) else None
    if found is None:
        raise _wrong_proxy("text without a scheme" if isinstance(given, str) else f"a {type(given).__name__}")
    scheme, host = found["scheme"].lower(), clean_host(found["host"])
    if scheme not in PROXY_SCHEMES:
        also = ", which resolves names here; socks5h resolves them in the proxy" if scheme == "socks5" else ""
        raise _wrong_proxy(f"the scheme {scheme[:20]!r}{also}")
    if host is None:
        raise _wrong_proxy("a host that is not valid")
    if not (port := found["port"] or "").isdigit() or not port.isascii() or not 0 < int(port[:6]) < 1 << 16:
        raise _wrong_proxy("no port from 1 to 65535 after the host")
    if found["rest"] not in ("", "/"):
        raise _wrong_proxy("text after the port")
    user, password = _credentials(found["user"], scheme)
    if scheme == "https":
        _check_https_proxies()
    return Proxy(scheme, host, int(port), user, password)


def check_proxy_guard(proxy: Proxy | None, allow_private_networks: bool) -> None:
    """Warn, once per proxy, that the proxy resolves the host names, which are not checked then."""
    if proxy is not None and not allow_private_networks:
        _warn_of_names(proxy)


@cache
def _warn_of_names(proxy: Proxy) -> None:
    warn(
        f"the proxy {proxy.origin} resolves host names, so a name that resolves to a private IP address is not "
        "blocked; only private IP addresses in URLs and names such as localhost are\n"
        "Hint: deny private networks in the proxy. allow_private_networks=True blocks nothing, and does not warn."
    )


def _credentials(text: str | None, scheme: str) -> tuple[str | None, str | None]:
    if text is None:
        return None, None
    user, _, password = text.partition(":")
    # Bytes that are not UTF-8 become surrogates, which are not printable.
    user, password = unquote(user, errors="surrogateescape"), unquote(password, errors="surrogateescape")
    if not (user + password).isprintable() or (":" in user and scheme != "socks5h"):
        raise _wrong_proxy("credentials with a character that is not allowed")
    if any(len(part.encode()) > _MAX_SOCKS_BYTES for part in (user, password)):
        raise _wrong_proxy(f"credentials of more than {_MAX_SOCKS_BYTES} bytes")
    return (user, password) if user or password else (None, None)


def _wrong_proxy(what: str) -> ArgumentError:
    schemes = ", ".join(PROXY_SCHEMES)
    return ArgumentError(
        f"proxy must be the URL of a proxy, with scheme ({schemes}), host and port, got {what}\n"
        "Hint: such as 'http://user:password@proxy.example.com:3128'; percent-encode @, : and / of a password."
    )


def _check_https_proxies() -> None:
    import pycurl

    if not pycurl.version_info()[4] & pycurl.VERSION_HTTPS_PROXY:
        raise ArgumentError("libcurl of this installation has no https proxies\nHint: use a proxy of http or socks5h.")
