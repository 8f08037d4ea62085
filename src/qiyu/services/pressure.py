"""What is owed to all clients and held for them, kept within its bound (`[limits] queued_bytes`).

Each client has bounds of its own, but many slow ones together may still take all the memory there is; so may those who
begin packets and do not end them. From three quarters of the bound on, whoever is owed more than a little goes without
room messages, and is told. Above the bound the slowest end, one after the other, until it is kept: those for whom most
is held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import structlog

from qiyu.metrics import Metrics
from qiyu.routing.endpoint import Endpoint
from qiyu.routing.outbox import Outboxes
from qiyu.services.holdings import Holdings, held_by

log = structlog.get_logger(__name__)

LEAST_BYTES: Final = 64 * 1024
"""Nobody is called slow for whom less is held."""


class Pressure:
    """Looks after the sum, a few times a second. `everybody` is all connections there are."""

    def __init__(
        self,
        outboxes: Outboxes,
        holdings: Holdings,
        everybody: Callable[[], Iterable[Endpoint]],
        metrics: Metrics,
    ) -> None:
        self._outboxes = outboxes
        self.holdings = holdings
        self._everybody = everybody
        self._metrics = metrics

    def __repr__(self) -> str:
        return f"<Pressure {self.holdings.total} of {self._outboxes.limits.queued_bytes} bytes: {self.holdings!r}>"

    def tick(self) -> None:
        """See to it."""
        outboxes = self._outboxes
        self.holdings.tick()
        total, bound = self.holdings.total, outboxes.limits.queued_bytes
        is_pressed = bound > 0 and total > bound * 3 // 4
        if is_pressed is not outboxes.limits.is_pressed:
            outboxes.press(is_pressed)
            if is_pressed:
                log.warning("much is owed to slow clients", bytes=total, queued_bytes=bound, held=repr(self.holdings))
        if bound and total > bound:
            self._end_slowest(total - bound)

    def _end_slowest(self, surplus: int) -> None:
        sizes = ((one.outbox.size + held_by(one), one.id, one) for one in self._everybody() if not one.ended)
        slow = sorted((each for each in sizes if each[0] >= LEAST_BYTES), key=lambda each: each[:2])
        while slow and surplus > 0:
            size, _, endpoint = slow.pop()
            surplus -= size
            self._metrics.crowded_out += 1
            endpoint.outbox.overflow()
            endpoint.owner.overflowed(endpoint)
