"""Headers of requests: which fields go to which server, so that no credential reaches another one."""

import re
from base64 import b64decode
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import version
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from imgmatch_df.fetching.urls import HttpUrl
from imgmatch_df.http_options import RequestHeaders
from imgmatch_df.options import Options
from imgmatch_df.sources import SECRET_NAME

_DEFAULTS: Final = {
    "accept": ("Accept", "image/*,*/*;q=0.8"),
    # Image formats are compressed already. A server may compress nevertheless, and `content_encoding` decompresses.
    "accept-encoding": ("Accept-Encoding", "identity"),
    "user-agent": ("User-Agent", f"imgmatch-df/{version('imgmatch-df')}"),
}
# Fields for all hosts that a redirect to another origin gets too. Any other may be a credential, such as X-API-Key.
_SENT_ON: Final = frozenset(("user-agent", "referer", "accept", "accept-language", "from"))
# Fields whose values are no secrets: they may appear in the text of a server.
_PUBLIC: Final = frozenset(("user-agent", "accept", "accept-language", "from"))
_HTTPS: Final = ("https", 443)
_PARTS: Final = re.compile(r'[\s=;,:"]+')
_MIN_CHARS: Final = 4
_AUTH_SCHEMES: Final = frozenset(("basic", "bearer", "digest", "token", "apikey"))


def request_lines(url: HttpUrl, first: HttpUrl, options: Options) -> tuple[bytes, ...]:
    """Return the header lines of a request.

    Parameters
    ----------
    url
        URL of the request.
    first
        URL of the column; another one if `url` is the target of a redirect.
    options
        `headers` and `user_agent` apply.
    """
    if options.headers is None and options.user_agent is None and url.authorization is None:
        return _DEFAULT_LINES
    return _lines(
        options.headers, options.user_agent, url.scheme, url.host, url.port, url.authorization, _is_trusted(url, first)
    )


def secrets_of(url: HttpUrl, options: Options) -> tuple[str, ...]:
    """Return the texts that a server may repeat and that must not be shown: header values and credentials.

    Parameters
    ----------
    url
        URL of the column.
    options
        `headers` and `proxy` apply.
    """
    credentials = "" if url.authorization is None else url.authorization
    proxy = options.proxy
    given = () if proxy is None else (proxy.user or "", proxy.password or "")
    query = urlsplit(url.text).query
    return _secrets(options.headers, credentials, query, given)


def hide(text: str, secrets: tuple[str, ...]) -> str:
    """Return `text` with an ellipsis in the place of each secret."""
    return _pattern(secrets).sub("…", text) if secrets else text


def _is_trusted(url: HttpUrl, first: HttpUrl) -> bool:
    """Return whether the server of `url` is that of the column, or the same one over https."""
    if url is first or url.origin == first.origin:
        return True
    return url.host == first.host and (first.scheme, first.port) == ("http", 80) and (url.scheme, url.port) == _HTTPS


@lru_cache(maxsize=1024)
def _lines(
    headers: RequestHeaders | None,
    user_agent: str | None,
    scheme: str,
    host: str,
    port: int,
    authorization: str | None,
    is_trusted: bool,
) -> tuple[bytes, ...]:
    fields = dict(_DEFAULTS)
    if user_agent is not None:
        fields["user-agent"] = ("User-Agent", user_agent)
    for pattern, name, value in () if headers is None else headers.rules:
        if pattern is None:
            is_sent = is_trusted or name.lower() in _SENT_ON
        else:
            is_named = is_trusted or (scheme, port) == _HTTPS or pattern.port is not None
            is_sent = is_named and pattern.matches(scheme, host, port)
        if is_sent:
            fields[name.lower()] = (name, value)
    if authorization is not None:  # of the URL, which is more specific than any option
        fields["authorization"] = ("Authorization", authorization)
    return tuple(f"{name}: {value}".encode("latin-1") for name, value in fields.values())


_DEFAULT_LINES: Final = _lines(None, None, "", "", 0, None, True)


@lru_cache(maxsize=1024)
def _secrets(headers: RequestHeaders | None, authorization: str, query: str, given: tuple[str, ...]) -> tuple[str, ...]:
    rules = [rule for rule in headers.rules if rule.name.lower() not in _PUBLIC] if headers else []
    found = {rule.value for rule in rules if len(rule.value) >= _MIN_CHARS}
    values = [rule.value for rule in rules if SECRET_NAME.search(rule.name) or rule.name.lower() == "cookie"]
    values += [authorization, *given, *(value for name, value in parse_qsl(query) if SECRET_NAME.search(name))]
    for value in values:
        found.update(_parts(value))
    return tuple(sorted(found, key=len, reverse=True))


def _parts(value: str) -> Iterable[str]:
    """Return a value, and its parts that may be secrets of their own: a token, a password, a cookie."""
    scheme, _, rest = value.partition(" ")
    words = [value, unquote(value), *_PARTS.split(value)]
    if scheme.lower() == "basic":
        with suppress(ValueError):  # not base64, so there is nothing in it
            words += b64decode(rest, validate=True).decode("utf-8", "replace").split(":", 1)
    return (word for word in words if len(word) >= _MIN_CHARS and word.lower() not in _AUTH_SCHEMES)


@lru_cache(maxsize=1024)
def _pattern(secrets: tuple[str, ...]) -> re.Pattern[str]:
    spellings = {form for secret in secrets for form in (secret, quote(secret), quote(secret, safe=""))}
    return re.compile("|".join(map(re.escape, sorted(spellings, key=len, reverse=True))), re.IGNORECASE)
