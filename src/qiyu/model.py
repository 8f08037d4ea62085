"""Nouns that every floor of the house may use."""

from __future__ import annotations

from typing import NamedTuple


class Instant(NamedTuple):
    """A moment, told by two clocks. Whatever runs in the core is handed one; it never looks at a clock itself."""

    monotonic: float
    """Seconds on a clock that is never set: for timeouts, and only to be subtracted from another."""
    unix_ms: int
    """Milliseconds since 1970: for what people and other machines read."""
