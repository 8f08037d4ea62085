"""How long a task waits before it tries again what failed, and that it says so once."""

from __future__ import annotations

from typing import Final

import trio

from qiyu.drivers.trouble import Trouble

RETRY_SECONDS: Final = (0.1, 1.0)  # the first wait, and the longest


class Retry:
    """Each wait is twice as long as the one before; `what` the task cannot do meanwhile."""

    def __init__(self, what: str) -> None:
        self._trouble = Trouble(what)
        self._seconds = 0.0

    async def failed(self, why: Exception) -> None:
        """It failed: wait."""
        self._trouble.failed(why)
        first, longest = RETRY_SECONDS
        self._seconds = min(2 * self._seconds, longest) or first
        await trio.sleep(self._seconds)

    def succeeded(self) -> None:
        """It did what it is for: the next wait is the first one again."""
        self._trouble.succeeded()
        self._seconds = 0.0
