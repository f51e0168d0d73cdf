"""Web addresses: what people write made into what a server understands, and which machines are not on the internet."""

import ipaddress
import re
from base64 import b64encode
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes, urljoin

from imgmatch_df.errors import Failure

_SPLIT: Final = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.\-]*)://(?P<place>[^/\\?#]*)(?P<rest>[^#]*)", re.DOTALL)
_INVISIBLE: Final = str.maketrans("", "", "\t\r\n")  # as browsers: an address broken over lines is one address
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_MAX_CHARS: Final = 1 << 16  # libcurl takes 8,000,000, servers 8,000 to 64,000
_MAX_PLACE_CHARS: Final = 1 << 12  # what comes before the path; the last ones are kept
_MAX_HOST_CHARS: Final = 253
_MAX_LABEL_CHARS: Final = 63
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_\-]*[a-z0-9_])?")
_NUMBER: Final = re.compile(r"0[xX][0-9a-fA-F]*|[0-9]+")

# What may stand in a path or a query as it is. A percent sign may only where two digits follow: what is encoded already
# stays as it is, letter for letter, since signed addresses are valid in one spelling alone.
_UNSAFE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})|[^A-Za-z0-9\-._~:/?\[\]@!$&'()*+,;=%]")

_SAFE: Final = re.compile(r"[A-Za-z0-9\-._~:/?\[\]@!$&'()*+,;=]*")

_IPV4: Final = (
    ("0.0.0.0/8", "an unspecified address"),
    ("10.0.0.0/8", "a private address"),
    ("100.64.0.0/10", "a private address (shared by a provider's customers)"),
    ("127.0.0.0/8", "a loopback address"),
    ("168.63.129.16/32", "a private address (cloud metadata)"),
    ("169.254.0.0/16", "a link-local address"),
    ("172.16.0.0/12", "a private address"),
    ("192.0.0.0/24", "a reserved address"),
    ("192.0.2.0/24", "an address for documentation"),
    ("192.88.99.0/24", "a reserved address"),
    ("192.168.0.0/16", "a private address"),
    ("198.18.0.0/15", "a reserved address"),
    ("198.51.100.0/24", "an address for documentation"),
    ("203.0.113.0/24", "an address for documentation"),
    ("224.0.0.0/4", "a multicast address"),
    ("240.0.0.0/4", "a reserved address"),
)
_IPV6: Final = (
    ("::/128", "an unspecified address"),
    ("::1/128", "a loopback address"),
    ("fc00::/7", "a private address"),
    ("fe80::/10", "a link-local address"),
    ("fec0::/10", "a private address"),
    ("ff00::/8", "a multicast address"),
    ("2001:db8::/32", "an address for documentation"),
    ("3fff::/20", "an address for documentation"),
    ("2001::/23", "a reserved address"),  # Teredo among others, which holds an IPv4 address of anyone's choice
)
_BLOCKED: Final = [(ipaddress.ip_network(network), words) for network, words in (*_IPV4, *_IPV6)]
_GLOBAL_IPV6: Final = ipaddress.IPv6Network("2000::/3")
# Networks whose addresses hold an IPv4 address, and how far from the right it stands, in bits.
_HOLDS_IPV4: Final = [
    (ipaddress.IPv6Network(network), shift)
    for network, shift in (("::ffff:0:0/96", 0), ("::/96", 0), ("64:ff9b::/96", 0), ("2002::/16", 80))
]


class Address(NamedTuple):
    """The address of a picture on the web, as it is sent.

    Parameters
    ----------
    url
        Percent-encoded ASCII; no credentials, no fragment.
    scheme
        ``"http"`` or ``"https"``.
    host
        Lower case, Punycode where it was not ASCII; IP addresses in their usual form, IPv6 without brackets.
    authorization
        The header that carries the address' credentials, or None. Never to be shown.
    """

    url: str
    scheme: str
    host: str
    authorization: str | None = None

    @property
    def origin(self) -> str:
        """The scheme, host and port, without a path."""
        return "/".join(self.url.split("/", 3)[:3])

    @property
    def port(self) -> int:
        """The port, 80 or 443 where the address names none."""
        port = self.origin.rpartition(":")[2]
        return int(port) if port.isdigit() else _DEFAULT_PORTS[self.scheme]


def clean_url(url: str) -> Address | Failure:
    """Return the address that the http or https `url` means, or what is wrong with it.

    Spaces, non-ASCII letters and stray percent signs are encoded, what is encoded already is kept; the host is mapped
    to Punycode, and number forms of IPv4 addresses (``0x7f.1``) to the usual one. The fragment is dropped.

    Parameters
    ----------
    url
        With scheme and host, as people write it.

    Examples
    --------
    >>> clean_url("HTTP://Bücher.example/ä b%20c.jpg?x=1#top").url
    'http://xn--bcher-kva.example/%C3%A4%20b%20c.jpg?x=1'
    >>> clean_url("http://2130706433/a.jpg").host
    '127.0.0.1'
    """
    if len(url) > _MAX_CHARS:
        return Failure("bad_source", f"an address of {len(url):,} characters, more than {_MAX_CHARS:,}")
    parts = _SPLIT.match(url.strip().translate(_INVISIBLE))
    if parts is None:
        return Failure("bad_source", "no address: scheme and host are needed")
    if len(parts["place"]) > _MAX_PLACE_CHARS:
        return Failure("bad_source", f"{len(parts['place']):,} characters before the path, more than any host has")
    origin = _clean_origin(parts["scheme"], parts["place"])
    if isinstance(origin, Failure):
        return origin
    path, mark, query = parts["rest"].partition("?")
    return origin._replace(url=f"{origin.url}{_encode(_clean_path(path))}{mark}{_encode(query)}")


def follow_redirect(address: Address, location: str) -> Address | Failure:
    """Return where a redirect from `address` leads, or why it is not followed.

    Parameters
    ----------
    address
        Where the answer came from. Its credentials go nowhere but to the same scheme, host and port.
    location
        The header of that name: absolute or relative.
    """
    location = location.strip().translate(_INVISIBLE)
    try:
        target = urljoin(address.url, location)
    except ValueError:
        return Failure("fetch_failed", "redirected to something that is no address")
    scheme = target.partition(":")[0].lower()
    if scheme not in _DEFAULT_PORTS:
        return Failure("fetch_blocked", f"blocked: redirected to another scheme, {scheme[:20]}:")
    if (address.scheme, scheme) == ("https", "http"):
        return Failure("fetch_blocked", "blocked: redirected from https to http, which anyone can read and change")
    found = clean_url(target)
    if isinstance(found, Failure):
        return Failure("fetch_failed", f"redirected to a bad address: {found.detail}")
    if found.authorization is None and found.origin == address.origin:
        return found._replace(authorization=address.authorization)
    return found


def origin_of(url: str) -> str:
    """Return what the connections for an http or https `url` are counted by: one origin, however it is written.

    Examples
    --------
    >>> origin_of("http://me:pw@127.1:80/a.jpg"), origin_of("HTTP://127.0.0.1")
    ('http://127.0.0.1', 'http://127.0.0.1')
    """
    parts = _SPLIT.match(url)
    if parts is None or len(parts["place"]) > _MAX_PLACE_CHARS:
        return ""
    origin = _clean_origin(parts["scheme"], parts["place"])
    return "" if isinstance(origin, Failure) else origin.url


def blocked_reason(ip: str) -> str | None:
    """Return what keeps the IP address `ip` from being on the public internet, None where nothing does.

    IPv4 addresses inside IPv6 ones (mapped, compatible, NAT64, 6to4) count as what they hold.

    Parameters
    ----------
    ip
        IPv4 or IPv6 in the usual form, with or without a zone.

    Examples
    --------
    >>> blocked_reason("10.0.0.7"), blocked_reason("64:ff9b::a00:7"), blocked_reason("8.8.8.8")
    ('a private address', 'a private address', None)
    """
    address = ipaddress.ip_address(ip.partition("%")[0])
    for network, words in _BLOCKED:
        if address in network:
            return words
    if isinstance(address, ipaddress.IPv4Address):
        return None
    for network, shift in _HOLDS_IPV4:
        if address in network:
            return blocked_reason(str(ipaddress.IPv4Address(int(address) >> shift & 0xFFFF_FFFF)))
    return None if address in _GLOBAL_IPV6 else "a reserved address"


def is_ip(host: str) -> bool:
    """Return whether a clean host is an IP address, not a name."""
    return ":" in host or host.rpartition(".")[2].isdigit()


@lru_cache(maxsize=1024)  # a column has few, and 4 of 6 microseconds an address go here
def _clean_origin(scheme: str, place: str) -> Address | Failure:
    """Return the address of what stands before the path, as far as that goes."""
    scheme = scheme.lower()
    if scheme not in _DEFAULT_PORTS:
        return Failure("bad_source", f"no address of the web: the scheme is {scheme[:20]}:")
    credentials, at, place = place.rpartition("@")
    host_text, port_text = _split_port(place)
    host = _clean_host(host_text)
    if isinstance(host, Failure):
        return host
    port = _port(port_text) if port_text else _DEFAULT_PORTS[scheme]
    if port is None:
        # What stands there is not shown: with an @ forgotten it is a password.
        return Failure("bad_source", "what follows the host's colon is no port, a number from 1 to 65535")
    shown_host = f"[{host}]" if ":" in host else host
    shown_port = "" if port == _DEFAULT_PORTS[scheme] else f":{port}"
    return Address(f"{scheme}://{shown_host}{shown_port}", scheme, host, _basic(credentials) if at else None)


def _split_port(place: str) -> tuple[str, str]:
    if place.startswith("["):
        host, bracket, port = place.partition("]")
        return host + bracket, port.removeprefix(":")
    host, _, port = place.partition(":")
    return host, port


def _port(text: str) -> int | None:
    digits = text.lstrip("0")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 5):
        return None
    port = int(digits)
    return port if port < 65_536 else None


def _clean_host(text: str) -> str | Failure:
    if text.startswith("["):
        try:
            return str(ipaddress.IPv6Address(text[1:-1] if text.endswith("]") and "%" not in text else ""))
        except ValueError:
            return Failure("bad_source", f"no IPv6 address: {text[:60]!r}")
    host = unquote_to_bytes(text).decode("utf-8", "replace") if "%" in text else text
    if not host.isascii():
        import idna

        try:
            host = idna.encode(host, uts46=True).decode()
        except (idna.IDNAError, UnicodeError) as error:
            return Failure("bad_source", f"no host name: {host[:60]!r} ({str(error)[:60]})")
    host = host.lower().removesuffix(".")
    labels = host.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        return _clean_ipv4(labels, host)
    if len(host) > _MAX_HOST_CHARS or not all(_LABEL.fullmatch(x) and len(x) <= _MAX_LABEL_CHARS for x in labels):
        return Failure("bad_source", f"no host name: {host[:60]!r}")
    return host


def _clean_ipv4(labels: list[str], host: str) -> str | Failure:
    # As browsers and the C library: each part decimal, 0 octal or 0x hexadecimal; the last one fills what is left.
    try:
        *first, last = (_number(label) for label in labels)
        if len(first) <= 3 and all(part < 256 for part in first) and last < 256 ** (4 - len(first)):
            value = sum(part << 24 - 8 * position for position, part in enumerate(first)) + last
            return str(ipaddress.IPv4Address(value))
    except ValueError:
        pass
    return Failure("bad_source", f"no IPv4 address: {host[:60]!r}")


def _number(text: str) -> int:
    if text.startswith("0x"):
        return int(text[2:] or "0", 16)
    return int(text, 8 if text.startswith("0") and len(text) > 1 else 10)


def _clean_path(path: str) -> str:
    path = path.replace("\\", "/") or "/"
    if "/." not in path:
        return path
    kept: list[str] = []
    segments = path.split("/")[1:]
    for position, segment in enumerate(segments):
        if segment in (".", ".."):
            if segment == "..":
                del kept[-1:]
            if position == len(segments) - 1:
                kept.append("")
        else:
            kept.append(segment)
    return "/" + "/".join(kept)


def _encode(text: str) -> str:
    if _SAFE.fullmatch(text):
        return text
    return _UNSAFE.sub(lambda found: b"%%%02X" % ord(found[0]), text.encode("utf-8", "replace")).decode("ascii")


def _basic(credentials: str) -> str | None:
    user, _, password = credentials.partition(":")
    pair = unquote_to_bytes(user) + b":" + unquote_to_bytes(password)
    return None if pair == b":" else f"Basic {b64encode(pair).decode()}"
