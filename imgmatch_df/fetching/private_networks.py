"""Table of IP networks that are not on the public internet.

It is stricter than `ipaddress.is_global`: of an IPv6 address that contains an IPv4 address, the latter is checked, and
IPv6 networks that are not assigned are blocked.
"""

import ipaddress
from typing import Final

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
    # Teredo among others, whose addresses contain an IPv4 address of the sender's choice.
    ("2001::/23", "a reserved address"),
)
_BLOCKED: Final = [(ipaddress.ip_network(network), reason) for network, reason in (*_IPV4, *_IPV6)]
_GLOBAL_IPV6: Final = ipaddress.IPv6Network("2000::/3")
# Networks whose addresses contain an IPv4 address, and its distance from the right, in bits.
_CONTAINS_IPV4: Final = [
    (ipaddress.IPv6Network(network), shift)
    for network, shift in (("::ffff:0:0/96", 0), ("::/96", 0), ("64:ff9b::/96", 0), ("2002::/16", 80))
]


def blocked_reason(ip: str) -> str | None:
    """Return why the IP address `ip` is not on the public internet, None if it is.

    Of IPv6 addresses that contain an IPv4 address (mapped, compatible, NAT64, 6to4), the latter is checked.

    Parameters
    ----------
    ip
        IPv4 or IPv6 in the usual notation, with or without a zone.

    Examples
    --------
    >>> blocked_reason("10.0.0.7"), blocked_reason("64:ff9b::a00:7"), blocked_reason("8.8.8.8")
    ('a private address', 'a private address', None)
    """
    address = ipaddress.ip_address(ip.partition("%")[0])
    for network, reason in _BLOCKED:
        if address in network:
            return reason
    if isinstance(address, ipaddress.IPv4Address):
        return None
    for network, shift in _CONTAINS_IPV4:
        if address in network:
            return blocked_reason(str(ipaddress.IPv4Address(int(address) >> shift & 0xFFFF_FFFF)))
    return None if address in _GLOBAL_IPV6 else "a reserved address"
