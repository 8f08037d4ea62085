"""The time of day, as far as it is believed by whoever does what cannot be undone.

A clock that is set wrong for a minute must not erase a month. So this clock goes with the one that is never set
(monotonic), and follows the wall's with care:

- back at once: to be late with removing harms nobody;
- forward not for a day after a jump, and then a day an hour. Whoever runs the server reads of the jump in the log, and
  has a day to set the clock right. A server that was off for a month takes a day and a bit to make up for it.

At the start the newest message stands in for the last look at the clock: where the wall's is more than a day later,
either nothing was said for so long or the clock is wrong, and nobody knows which.
"""

from __future__ import annotations

from typing import Final

import structlog

from qiyu.model import Instant

log = structlog.get_logger(__name__)

DAY_SECONDS: Final = 86_400
DAY_MS: Final = DAY_SECONDS * 1000
JUMP_MS: Final = 60_000  # what is set by less is a clock that is kept right
DISTRUST_SECONDS: Final = DAY_SECONDS
CATCH_UP: Final = 24  # times as fast as time goes


class TrustedClock:
    """Begins at `now`, or where that is more than a day after `newest_ms` (0: unknown), there."""

    def __init__(self, now: Instant, newest_ms: int = 0) -> None:
        self._last = now
        self._ms = float(now.unix_ms)
        self._distrusted_until = now.monotonic
        if newest_ms and now.unix_ms - newest_ms > DAY_MS:
            self._ms = float(newest_ms)
            self._distrust(now, now.unix_ms - newest_ms)

    def __repr__(self) -> str:
        return f"<TrustedClock {self._ms / 1000:.0f}, {(self._last.unix_ms - self._ms) / 1000:.0f} s behind>"

    def read(self, now: Instant) -> int:
        """Milliseconds since 1970, never later than the wall's clock."""
        elapsed_ms = max(now.monotonic - self._last.monotonic, 0.0) * 1000
        jumped_ms = (now.unix_ms - self._last.unix_ms) - elapsed_ms
        self._last = now
        self._ms += elapsed_ms
        if abs(jumped_ms) > JUMP_MS:
            self._distrust(now, round(jumped_ms))
        behind_ms = now.unix_ms - self._ms
        if (behind_ms <= JUMP_MS and now.monotonic >= self._distrusted_until) or behind_ms < 0:
            self._ms = float(now.unix_ms)
        elif now.monotonic >= self._distrusted_until:
            self._ms += min(behind_ms, (CATCH_UP - 1) * elapsed_ms)
        return int(self._ms)

    def _distrust(self, now: Instant, jumped_ms: int) -> None:
        self._distrusted_until = now.monotonic + DISTRUST_SECONDS
        log.warning(
            "the clock has jumped: for a day, nothing is removed because it is old",
            seconds=round(jumped_ms / 1000),
            now_ms=now.unix_ms,
        )
