"""Options of libcurl that all requests have in common."""

import os
import ssl
import sys
from typing import Any, Final

import pycurl

from imgmatch_df.fetching import proxies
from imgmatch_df.http_options import Proxy

_SUPPRESS_CONNECT_HEADERS: Final = 265  # CURLOPT_SUPPRESS_CONNECT_HEADERS, without a name in pycurl
_OPTIONS: Final[dict[int, Any]] = {
    pycurl.HTTP_VERSION: pycurl.CURL_HTTP_VERSION_1_1,  # in HTTP/2, a paused body blocks the others of its connection
    pycurl.PROTOCOLS: pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS,
    pycurl.FOLLOWLOCATION: 0,  # followed by the attempt, which checks the target
    pycurl.PATH_AS_IS: 1,  # `clean_url` has normalised it
    pycurl.PROXY: "",  # a proxy of the environment would connect to IP addresses that were not checked
    pycurl.NOPROXY: "",  # the variable no_proxy would connect without the proxy of the caller
    pycurl.NETRC: pycurl.NETRC_IGNORED,
    pycurl.HTTP_CONTENT_DECODING: 0,  # decompressed by `content_encoding`, piece by piece
    pycurl.SSLVERSION: pycurl.SSLVERSION_TLSv1_2,
    pycurl.BUFFERSIZE: 1 << 17,
    pycurl.NOSIGNAL: 1,
    _SUPPRESS_CONNECT_HEADERS: 1,  # the response of a proxy is not that of the server
}


def configure(curl: pycurl.Curl, proxy: Proxy | None) -> None:
    """Set the options of a handle that all its requests have in common."""
    certificates = _trusted_certificates()
    options = {**_OPTIONS, **certificates}
    if proxy is not None:
        options |= proxies.curl_options(proxy)
        options |= {_OF_PROXY[option]: value for option, value in certificates.items()}
    for option, value in options.items():
        if value is None:
            curl.unsetopt(option)
        else:
            curl.setopt(option, value)


_OF_PROXY: Final = {
    pycurl.CAINFO: pycurl.PROXY_CAINFO,
    pycurl.CAPATH: pycurl.PROXY_CAPATH,
    pycurl.SSL_OPTIONS: pycurl.PROXY_SSL_OPTIONS,
}


def _trusted_certificates() -> dict[int, Any]:
    """Return the options of libcurl for the certificates that Python trusts."""
    paths = ssl.get_default_verify_paths()  # SSL_CERT_FILE and SSL_CERT_DIR, else the paths of the system
    if sys.platform in ("win32", "darwin") and paths.cafile is None:
        return {pycurl.SSL_OPTIONS: pycurl.SSLOPT_NATIVE_CA}
    if paths.cafile is None:
        return {} if paths.capath is None else {pycurl.CAPATH: paths.capath}
    if paths.openssl_capath_env in os.environ and paths.capath is not None:
        return {pycurl.CAINFO: paths.cafile, pycurl.CAPATH: paths.capath}
    # CAPATH is unset, because with it libcurl reads the file again for each connection.
    return {pycurl.CAINFO: paths.cafile, pycurl.CAPATH: None}
