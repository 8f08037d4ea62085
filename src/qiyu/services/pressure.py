"""What is owed to all receivers together, kept within its bound (`[limits] queued_bytes`).

Each receiver has bounds of its own, but many slow ones together may still take all the memory there is. From three
quarters of the bound on, whoever is owed more than a little goes without room messages, and is told. Above the bound
the slowest end, one after the other, until it is kept: those that are owed most.
"""

from __future__ import annotations

from typing import Final

import structlog

from qiyu.metrics import Metrics
from qiyu.routing.endpoint import Endpoint
from qiyu.routing.hub import Hub
from qiyu.routing.outbox import Outboxes
from qiyu.services.viewers import Viewers

log = structlog.get_logger(__name__)

LEAST_BYTES: Final = 64 * 1024
"""Nobody is called slow who is owed less."""


class Pressure:
    """Looks after the sum, a few times a second."""

    def __init__(self, outboxes: Outboxes, hub: Hub, viewers: Viewers, metrics: Metrics) -> None:
        self._outboxes = outboxes
        self._hub = hub
        self._viewers = viewers
        self._metrics = metrics

    def __repr__(self) -> str:
        return f"<Pressure {self._outboxes.bytes} of {self._outboxes.limits.queued_bytes} bytes>"

    def tick(self) -> None:
        """See to it."""
        outboxes = self._outboxes
        bound = outboxes.limits.queued_bytes
        is_pressed = bound > 0 and outboxes.bytes > bound * 3 // 4
        if is_pressed is not outboxes.limits.is_pressed:
            outboxes.press(is_pressed)
            if is_pressed:
                log.warning("much is owed to slow clients", bytes=outboxes.bytes, queued_bytes=bound)
        if bound and outboxes.bytes > bound:
            self._end_slowest(bound)

    def _end_slowest(self, bound: int) -> None:
        endpoints: list[Endpoint] = [*self._hub, *self._viewers]
        slow = [(endpoint.outbox.size, endpoint.id, endpoint) for endpoint in endpoints]
        slow = sorted(each for each in slow if each[0] >= LEAST_BYTES)
        while slow and self._outboxes.bytes > bound:
            endpoint = slow.pop()[2]
            self._metrics.crowded_out += 1
            endpoint.outbox.overflow()
            endpoint.owner.overflowed(endpoint)
