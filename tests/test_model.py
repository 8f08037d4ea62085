from __future__ import annotations

import ipaddress

import pytest

from qiyu.model import address_text, is_within, network_of


@pytest.mark.parametrize(
    ("address", "expected"),
    [("192.0.2.7", True), ("192.0.3.7", False), ("2001:db8:1::5", True), ("2001:db9::5", False)],
)
def test_an_address_is_known_by_its_network(address: str, expected: bool) -> None:
    networks = (ipaddress.ip_network("192.0.2.0/24"), ipaddress.ip_network("2001:db8::/32"))
    packed = ipaddress.ip_address(address).packed
    assert is_within(packed, networks) is expected
    assert is_within(network_of(packed), networks) is expected


def test_no_address_is_of_no_network() -> None:
    assert not is_within(b"", [ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")])
    assert not is_within(bytes(4), [])
    assert address_text(b"") == "nowhere"


def test_an_ipv6_address_counts_as_its_network() -> None:
    one, two, other = (
        ipaddress.ip_address(text).packed for text in ("2001:db8::1", "2001:db8::ffff:1", "2001:db8:0:1::1")
    )
    assert network_of(one) == network_of(two) != network_of(other)
    assert network_of(b"\xc0\0\2\1") == b"\xc0\0\2\1"
