"""Nouns that every floor of the house may use."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final, NamedTuple, TypeAlias

Address: TypeAlias = bytes
"""An IP address as its 4 or 16 bytes: a third of what the text takes. Empty where a connection comes from none."""


Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

_IPV6_BYTES: Final = 16
_IPV6_NETWORK_BYTES: Final = 8  # what one customer gets at least: within it, a client picks its addresses as it likes


class Instant(NamedTuple):
    """A moment, told by two clocks. Whatever runs in the core is handed one; it never looks at a clock itself."""

    monotonic: float
    """Seconds on a clock that is never set: for timeouts, and only to be subtracted from another."""
    unix_ms: int
    """Milliseconds since 1970: for what people and other machines read."""


def address_text(address: Address) -> str:
    """As people write it."""
    return str(ipaddress.ip_address(address)) if address else "nowhere"


def network_of(address: Address) -> Address:
    """Whom a connection counts to: an IPv4 address, or the first 64 bits of one of IPv6."""
    return address[:_IPV6_NETWORK_BYTES] if len(address) == _IPV6_BYTES else address


def is_within(address: Address, networks: Iterable[Network]) -> bool:
    """Whether an address, or the first 64 bits of one, is of one of these networks."""
    if not address:
        return False
    ip = ipaddress.ip_address(address.ljust(_IPV6_BYTES, b"\0") if len(address) == _IPV6_NETWORK_BYTES else address)
    return any(ip in network for network in networks)


class InstanceId(NamedTuple):
    """One life of an instance: each start takes a number (0 to 1023), and raises the incarnation of that number."""

    number: int
    incarnation: int
