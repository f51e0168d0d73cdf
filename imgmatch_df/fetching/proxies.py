"""What is checked, and what failures mean, where a proxy connects in the place of this process."""

from typing import Final

import pycurl

from imgmatch_df.errors import Failure
from imgmatch_df.fetching.private_networks import blocked_reason
from imgmatch_df.fetching.retry import Retryable
from imgmatch_df.fetching.urls import HttpUrl, is_ip
from imgmatch_df.http_options import Proxy

# Names that lead to no server on the public internet: RFC 6761, 6762, 8375, ICANN's "internal", and usual ones.
_PRIVATE_SUFFIXES: Final = (
    "localhost", "localdomain", "local", "internal", "intranet", "private", "corp", "home", "lan", "home.arpa",
)  # fmt: skip
_ALLOW: Final = "pass allow_private_networks=True to allow it"
_SOCKS_TYPES: Final = {
    "http": pycurl.PROXYTYPE_HTTP,
    "https": 2,  # CURLPROXY_HTTPS, without a name in pycurl
    "socks5h": pycurl.PROXYTYPE_SOCKS5_HOSTNAME,
}


def refuse_private(url: HttpUrl) -> Failure | None:
    """Return why a URL is not sent to a proxy, None if it is.

    Only what the text says is checked: a name that the proxy resolves to a private IP address is not blocked.
    """
    if is_ip(url.host):
        reason = blocked_reason(url.host)
        return None if reason is None else Failure("fetch_blocked", f"blocked: {url.host} is {reason}; {_ALLOW}")
    if "." not in url.host or url.host.endswith(tuple(f".{suffix}" for suffix in _PRIVATE_SUFFIXES)):
        return Failure("fetch_blocked", f"blocked: {url.host[:60]} is a name of a private network; {_ALLOW}")
    return None


def curl_options(proxy: Proxy) -> dict[int, object]:
    """Return the options of libcurl for requests through a proxy."""
    options: dict[int, object] = {
        pycurl.PROXY: f"[{proxy.host}]" if ":" in proxy.host else proxy.host,
        pycurl.PROXYPORT: proxy.port,
        pycurl.PROXYTYPE: _SOCKS_TYPES[proxy.scheme],
        pycurl.PROXYAUTH: pycurl.HTTPAUTH_BASIC,
    }
    if proxy.user is not None:
        options[pycurl.PROXYUSERNAME] = proxy.user.encode()
        options[pycurl.PROXYPASSWORD] = (proxy.password or "").encode()
    return options


def no_connection_to(proxy: Proxy, why: str, *, in_time: bool = True) -> Retryable:
    """Return the outcome of an attempt that did not reach the proxy; it counts for the proxy."""
    status = "fetch_failed" if in_time else "fetch_timeout"
    failure = Failure(status, f"no connection to the proxy {proxy.origin}: {why}")
    return Retryable(failure, responded=False, host=proxy.origin)


def refused_by(proxy: Proxy, status: int) -> Failure | Retryable:
    """Return the outcome of an attempt that the proxy refused with an HTTP status, instead of connecting."""
    if status in (401, 407):  # tinyproxy sends 401 for wrong credentials
        return Failure("fetch_failed", f"the proxy {proxy.origin} does not accept the credentials: HTTP {status}")
    failure = Failure("fetch_failed", f"the proxy {proxy.origin} did not connect: HTTP {status}")
    # As for a host without a proxy: what the proxy may do is final, what it cannot reach is not.
    return Retryable(failure, responded=False) if status >= 500 or status == 429 else failure


def is_forwarded(proxy: Proxy, url: HttpUrl) -> bool:
    """Return whether the proxy forwards the request itself, so that a response may be its own."""
    return proxy.scheme != "socks5h" and url.scheme == "http"


def refused_by_socks(proxy: Proxy, code: int, message: str) -> Failure | Retryable:
    """Return the outcome of an attempt that a SOCKS proxy refused.

    Parameters
    ----------
    proxy
        The proxy.
    code
        `CURLINFO_PROXY_ERROR`.
    message
        Text of libcurl.
    """
    if code in _SOCKS_CREDENTIALS:
        return Failure("fetch_failed", f"the proxy {proxy.origin} does not accept the credentials")
    reason = _SOCKS_REPLIES.get(code)
    if reason is None:
        return no_connection_to(proxy, f"not a SOCKS5 proxy? {message}")
    failure = Failure("fetch_failed", f"the proxy {proxy.origin} did not connect: {reason}")
    return failure if code == _NOT_ALLOWED else Retryable(failure, responded=False)


# Of CURLproxycode, which has the replies of RFC 1928 and its own.
_NOT_ALLOWED: Final = 23
_SOCKS_CREDENTIALS: Final = (12, 33)
_SOCKS_REPLIES: Final = {
    19: "connection refused",
    20: "general failure",
    21: "host unreachable",
    22: "network unreachable",
    23: "not allowed by its rules",
    24: "time to live expired",
}
