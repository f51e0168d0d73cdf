"""Error codes of libcurl as outcomes of attempts."""

import os
from typing import Final

import pycurl

from imgmatch_df.errors import Failure
from imgmatch_df.fetching import proxies
from imgmatch_df.fetching.response import ResponseHeader
from imgmatch_df.fetching.retry import Retryable
from imgmatch_df.http_options import Proxy
from imgmatch_df.options import Options
from imgmatch_df.sources import describe

NOT_HTTP: Final = Failure("fetch_failed", "the response is not HTTP")
_MAX_HEADER_BYTES: Final = 1 << 16  # libcurl ends a header at 300 KB, with the code of a lost connection
_TLS_ERRORS: Final = (
    pycurl.E_SSL_CONNECT_ERROR,
    pycurl.E_SSL_CERTPROBLEM,
    pycurl.E_SSL_CIPHER,
    pycurl.E_SSL_CACERT,
    pycurl.E_SSL_CACERT_BADFILE,
    pycurl.E_SSL_ISSUER_ERROR,
)
_NOT_HTTP_ERRORS: Final = (pycurl.E_UNSUPPORTED_PROTOCOL, 8, 100)  # CURLE_WEIRD_SERVER_REPLY, CURLE_TOO_LARGE
_LOST_ERRORS: Final = (pycurl.E_PARTIAL_FILE, pycurl.E_GOT_NOTHING, pycurl.E_SEND_ERROR, pycurl.E_RECV_ERROR)
_SOCKS_ERROR: Final = 97  # CURLE_PROXY


def explain_code(
    curl: pycurl.Curl,
    code: int,
    message: str,
    *,
    options: Options,
    header: ResponseHeader | None,
    n_header_bytes: int,
    n_body_bytes: int,
) -> Failure | Retryable:
    """Return the outcome of a transfer that ended with an error code of libcurl.

    Parameters
    ----------
    curl
        Handle of the transfer.
    code, message
        Error of libcurl.
    options
        Options of the attempt.
    header
        Header of the response, None before it is complete.
    n_header_bytes, n_body_bytes
        Received so far.
    """
    if header is None and options.proxy is not None:
        outcome = _explain_proxy(curl, code, message, options.proxy, options)
        if outcome is not None:
            return outcome
    if code == pycurl.E_COULDNT_CONNECT:
        return no_connection(_system_error(curl, message))
    if code == pycurl.E_OPERATION_TIMEDOUT:
        return no_connection_in_time(options)
    if code in _TLS_ERRORS:
        return Failure("fetch_failed", f"no trusted connection: {describe(message.lower())}")
    if code in _NOT_HTTP_ERRORS:
        return NOT_HTTP
    if code not in _LOST_ERRORS:
        return libcurl_failure(message)
    if header is None:
        if n_header_bytes > _MAX_HEADER_BYTES:
            detail = f"the response is not HTTP: its header exceeds {_MAX_HEADER_BYTES:,} bytes"
            return Failure("fetch_failed", detail)
        return _lost("the connection ended before a response")
    of = "" if header.n_bytes is None else f" of {header.n_bytes:,}"
    return _lost(f"the connection ended after {n_body_bytes:,}{of} bytes")


def libcurl_failure(message: object) -> Failure:
    """Return the failure for an error without a meaning of its own."""
    return Failure("fetch_failed", f"libcurl: {describe(str(message))}")


def no_connection(error: OSError) -> Retryable:
    """Return the outcome of an attempt that did not connect."""
    return _lost(f"no connection: {describe(_reason(error))}")


def no_connection_in_time(options: Options, through: str = "") -> Retryable:
    """Return the outcome of an attempt that did not connect in a third of `timeout_s`."""
    failure = Failure("fetch_timeout", f"no connection{through} within {options.timeout_s / 3:g} s")
    return Retryable(failure, responded=False)


def _explain_proxy(
    curl: pycurl.Curl, code: int, message: str, proxy: Proxy, options: Options
) -> Failure | Retryable | None:
    """Return the outcome of an error of a proxy, None for an error of the server behind it."""
    status = curl.getinfo(pycurl.HTTP_CONNECTCODE)
    if status >= 300:
        return proxies.refused_by(proxy, status)
    if code == _SOCKS_ERROR:
        return proxies.refused_by_socks(proxy, curl.getinfo(pycurl.PROXY_ERROR), describe(message.lower()))
    if code in (pycurl.E_COULDNT_CONNECT, pycurl.E_COULDNT_RESOLVE_PROXY):
        return proxies.no_connection_to(proxy, describe(_reason(_system_error(curl, message))))
    if code == pycurl.E_OPERATION_TIMEDOUT:
        if curl.getinfo(pycurl.NUM_CONNECTS):  # the proxy accepted the connection, and its server may be slow
            return no_connection_in_time(options, f" through the proxy {proxy.origin}")
        return proxies.no_connection_to(proxy, f"none within {options.timeout_s / 3:g} s", in_time=False)
    return None


def _system_error(curl: pycurl.Curl, message: str) -> OSError:
    error_code = curl.getinfo(pycurl.OS_ERRNO)
    return OSError(error_code, os.strerror(error_code)) if error_code else OSError(message)


def _reason(error: OSError) -> str:
    return str(error.strerror or error).lower()


def _lost(detail: str) -> Retryable:
    return Retryable(Failure("fetch_failed", detail), responded=False)
