"""WebSockets that were not let in, for the log: a browser tells its page nothing but the close code 1006.

So many a second have a line each; of what is more than that, one line says how many they were.
"""

from __future__ import annotations

from typing import Final

import structlog

from qiyu.model import Address, address_text

log = structlog.get_logger(__name__)

LINES: Final = 10
"""From one sweep to the next, which is about a second."""
_SHOWN_CHARS: Final = 200


class Refusals:
    """Counts the lines."""

    def __init__(self) -> None:
        self._told = 0
        self._untold = 0

    def __repr__(self) -> str:
        return f"<Refusals told={self._told} untold={self._untold}>"

    def upgrade(self, address: Address, status: int, reason: str, origin: str | None = None) -> None:
        """An upgrade was answered with an HTTP status; `reason` has nothing secret in it."""
        if self._told >= LINES:
            self._untold += 1
            return
        self._told += 1
        page = {} if origin is None else {"origin": origin[:_SHOWN_CHARS]}
        log.info("websocket refused", status=status, reason=reason, address=address_text(address), **page)

    def sweep(self) -> None:
        """About once a second: say how many had no line, and begin anew."""
        if self._untold:
            log.info("more websockets were refused", refused=self._untold)
        self._told = self._untold = 0
