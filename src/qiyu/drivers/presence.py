"""Asks presence, in a thread: whatever has gathered, in one round trip, and what came meanwhile in the next."""

from __future__ import annotations

from collections.abc import Sequence

import structlog
import trio

from qiyu.errors import PresenceUnavailable
from qiyu.presence.presence import Answer, Presence, Request
from qiyu.services.cluster import Cluster

log = structlog.get_logger(__name__)


class PresenceAsker:
    """Between an instance's requests and presence."""

    def __init__(self, cluster: Cluster, presence: Presence) -> None:
        self._cluster = cluster
        self._presence = presence
        self._to_ask = trio.Event()
        self._is_failing = False
        self._slots = trio.CapacityLimiter(1)
        cluster.presence.wake = self._wake

    async def run(self) -> None:
        """Run until cancelled."""
        queue = self._cluster.presence
        try:
            while True:
                self._cluster.before_asking()
                asked = queue.take()
                if not asked:
                    self._to_ask = trio.Event()
                    await self._to_ask.wait()
                    continue
                outcomes = await self._ask([one.request for one in asked])
                queue.answered(asked, outcomes)
        finally:
            self._presence.close()

    def _wake(self) -> None:
        self._to_ask.set()

    async def _ask(self, requests: Sequence[Request]) -> Sequence[Answer | PresenceUnavailable]:
        try:
            outcomes = await trio.to_thread.run_sync(
                self._presence.execute, requests, abandon_on_cancel=True, limiter=self._slots
            )
        except Exception as bug:
            log.exception("asking Redis failed because of a bug")
            outcomes = [PresenceUnavailable(f"a bug: {bug!r}")] * len(requests)
        failures = [outcome for outcome in outcomes if isinstance(outcome, PresenceUnavailable)]
        if failures and not self._is_failing:
            log.warning("Redis does not answer: users of other instances may not be found", reason=str(failures[0]))
        elif self._is_failing and not failures:
            log.info("Redis answers again")
        self._is_failing = bool(failures)
        return outcomes
