"""Exponential back-off with full jitter.

"Full jitter" (AWS Architecture Blog, "Exponential Backoff And Jitter", 2015) spreads clients that lost the same server
at the same moment over the whole wait, so that they do not come back at the same moment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

_MAX_DOUBLINGS: Final = 64  # 2**1024 no longer fits a float


class Backoff:
    """How long to wait before each retry, in seconds."""

    def __init__(self, base_seconds: float, cap_seconds: float, jitter: Callable[[], float]) -> None:
        self._base = base_seconds
        self._cap = cap_seconds
        self._jitter = jitter
        self._retries = 0

    def __repr__(self) -> str:
        return f"<Backoff retries={self._retries}>"

    def next_seconds(self) -> float:
        """The wait before the next retry."""
        longest = min(self._cap, self._base * 2.0 ** min(self._retries, _MAX_DOUBLINGS))
        self._retries += 1
        return longest * self._jitter()

    def reset(self) -> None:
        """A connection held: the next loss begins at the base again."""
        self._retries = 0
