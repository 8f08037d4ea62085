"""Ticks an instance among others, and fences those that it finds dead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog
import trio

from qiyu.errors import DatabaseUnavailable
from qiyu.living.directory import RoomDirectory
from qiyu.model import InstanceId, Instant
from qiyu.presence.presence import DropLease, Pin, User
from qiyu.protocol.packet import APP_ID
from qiyu.services.cluster import Cluster
from qiyu.storage.database import Database
from qiyu.storage.instances import fence

log = structlog.get_logger(__name__)

TICK_SECONDS: Final = 0.25
DRAINING_SECONDS: Final = 0.05
ANCHORS_SECONDS: Final = 10.0


async def run_membership(cluster: Cluster, database: Database, clock: Callable[[], Instant]) -> None:
    """Run until cancelled."""
    fencing: set[InstanceId] = set()

    async def fence_one(whom: InstanceId) -> None:
        try:
            was_first = await database.run(fence, whom)
        except DatabaseUnavailable as exc:
            log.warning("an instance that seems dead could not be fenced", number=whom.number, reason=str(exc))
            return
        finally:
            fencing.discard(whom)
        if was_first:
            cluster.metrics.instances_fenced += 1
            log.warning("fenced an instance that is dead, or cut off", number=whom.number, incarnation=whom.incarnation)
        cluster.leases.fenced(whom)
        cluster.presence.ask(DropLease(whom), lambda _: None)

    async with trio.open_nursery() as nursery:
        while True:
            now = clock()
            cluster.tick(now)
            if cluster.leases.row_check_is_due(now.monotonic):
                # Whoever watches this instance's row (drivers/instance.py) does so each second, and at once after a
                # pause; and no transaction of a fenced one writes anything.
                cluster.leases.row_checked(now.monotonic)
            for whom in cluster.leases.to_fence(now.monotonic):
                if whom not in fencing:
                    fencing.add(whom)
                    nursery.start_soon(fence_one, whom)
            await trio.sleep(DRAINING_SECONDS if cluster.is_draining else TICK_SECONDS)


class AnchorsElsewhere:
    """Which anchors are connected to other instances: their rooms are not closed for want of an anchor."""

    def __init__(self, cluster: Cluster, directory: RoomDirectory) -> None:
        self._cluster = cluster
        self._directory = directory
        self._here = directory.is_anchor_here
        self._elsewhere: set[int] | None = None
        """None while presence has not said: then nobody is away."""
        directory.is_anchor_here = self.is_connected

    def is_connected(self, anchor_id: int) -> bool:
        """Whether the anchor is connected anywhere, as far as is known."""
        return self._here(anchor_id) or self._elsewhere is None or anchor_id in self._elsewhere

    async def run(self) -> None:
        """Ask now and then, until cancelled."""
        while True:
            wanted = [User(APP_ID, anchor) for anchor in self._directory.anchors if not self._here(anchor)]
            if wanted:
                self._cluster.find_pins(wanted, self._found)
            await trio.sleep(ANCHORS_SECONDS)

    def _found(self, pins: dict[User, Pin | None] | None) -> None:
        self._elsewhere = None if pins is None else {user.user_id for user, pin in pins.items() if pin is not None}
