"""Whether clients should be sent here: when the database takes what is written.

To be read from says nothing: a disk may be full, or another process hold the lock.
"""

from __future__ import annotations

from typing import Final

import trio

from qiyu.errors import DatabaseUnavailable, Draining
from qiyu.services.cluster import Cluster
from qiyu.services.message_queue import MessageQueue
from qiyu.storage.database import Database
from qiyu.storage.instances import try_to_write

KNOWN_SECONDS: Final = 2.0
"""How long an answer is good for: whoever asks more often costs no more."""
WRITE_SECONDS: Final = 5.0


class Readiness:
    """Asks by writing something, for all who want to know."""

    def __init__(self, database: Database, queue: MessageQueue, cluster: Cluster | None = None) -> None:
        self._database = database
        self._queue = queue
        self._cluster = cluster
        self._asking = trio.Lock()
        self._known_until = -1.0
        self._failure: DatabaseUnavailable | None = None

    async def check(self) -> list[str]:
        """Raise DatabaseUnavailable where a write did not go through lately; return what else is amiss.

        That is nothing to send clients elsewhere for: what does not work here works nowhere, or for no longer than a
        lease.
        """
        if self._queue.failing:
            raise DatabaseUnavailable("messages cannot be stored")
        async with self._asking:
            if trio.current_time() >= self._known_until:
                await self._ask()
        if self._failure is not None:
            raise DatabaseUnavailable(str(self._failure)) from self._failure
        if self._cluster is None:
            return []
        if self._cluster.is_draining:
            raise Draining
        return self._cluster.reasons()

    async def _ask(self) -> None:
        self._failure = None
        try:
            await self._database.run_within(WRITE_SECONDS, try_to_write)
        except DatabaseUnavailable as exc:
            self._failure = exc
        self._known_until = trio.current_time() + KNOWN_SECONDS
