"""IP addresses that are not on the public internet."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgmatch_df.fetching.private_networks import blocked_reason


@given(st.ip_addresses(v=4))
def test_private_ip_addresses_are_blocked_in_every_notation(address):
    reason = blocked_reason(str(address))
    if address.is_private or address.is_multicast or address.is_reserved or address.is_link_local:
        assert reason
    number = int(address)
    for network in ("::ffff:0:0", "64:ff9b::"):
        disguised = ipaddress.IPv6Address(int(ipaddress.IPv6Address(network)) + number)
        assert blocked_reason(str(disguised)) == reason
    assert blocked_reason(str(ipaddress.IPv6Address((0x2002 << 112) + (number << 80)))) == reason


@given(st.ip_addresses(v=6))
def test_ipv6_outside_of_the_global_networks_is_blocked(address):
    if not blocked_reason(str(address)):
        assert not (address.is_private and not address.ipv4_mapped and address.sixtofour is None)


@pytest.mark.parametrize("ip", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"])
def test_public_ip_addresses_pass(ip):
    assert blocked_reason(ip) is None
