"""Nouns that every floor of the house may use."""

from __future__ import annotations

import ipaddress
from typing import NamedTuple, TypeAlias

Address: TypeAlias = bytes
"""An IP address as its 4 or 16 bytes: a third of what the text takes. Empty where a connection comes from none."""


class Instant(NamedTuple):
    """A moment, told by two clocks. Whatever runs in the core is handed one; it never looks at a clock itself."""

    monotonic: float
    """Seconds on a clock that is never set: for timeouts, and only to be subtracted from another."""
    unix_ms: int
    """Milliseconds since 1970: for what people and other machines read."""


def address_text(address: Address) -> str:
    """As people write it."""
    return str(ipaddress.ip_address(address)) if address else "nowhere"


class InstanceId(NamedTuple):
    """One life of an instance: each start takes a number (0 to 1023), and raises the incarnation of that number."""

    number: int
    incarnation: int
