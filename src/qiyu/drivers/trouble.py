"""A task that fails again and again says so once, and once more when that is over."""

from __future__ import annotations

import structlog

from qiyu.errors import DatabaseUnavailable

log = structlog.get_logger(__name__)


class Trouble:
    """What one task has to tell of its failures; `what` it cannot do meanwhile."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._failing = False

    def failed(self, why: Exception) -> None:
        """It failed: the database is away, or there is a bug, and people go on talking to each other all the same."""
        if not self._failing and isinstance(why, DatabaseUnavailable):
            log.warning("the database does not answer", so_cannot=self._what, reason=str(why))
        elif not self._failing:
            log.error("a task failed because of a bug", so_cannot=self._what, exc_info=why)
        self._failing = True

    def succeeded(self) -> None:
        """It did what it is for."""
        if self._failing:
            log.info("the database answers again", so_can=self._what)
        self._failing = False
