"""Rooms as they are on one instance among others: members, rings and what they say, wherever the room is at home.

This is the `RoomSide` of `Homes`. A room can be entered while it is *ready*: it has a home that can be reached, and its
ring here has all that was said since it was opened. Whoever comes earlier waits (`lookups`) and begins anew then.

Where members are here and have missed something while the home moved, it is read from the database: all of it was
committed before the new home said a word. For a home here that is done together with the claim (`behind`, `bring`); for
one elsewhere afterwards, while what is said meanwhile is not delivered but read as well (`Fill`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from qiyu.errors import EndReason
from qiyu.metrics import Metrics
from qiyu.model import Instant
from qiyu.protocol.links import StoredMessage, Subscribed
from qiyu.routing.endpoint import Endpoint
from qiyu.routing.hub import Hub
from qiyu.routing.msgid import MsgIds
from qiyu.routing.publication import Kind, Publication
from qiyu.services.catch_up import CatchUp
from qiyu.services.delivery import Delivery
from qiyu.services.forwarding import Forwarding
from qiyu.services.homes import Homes, RoomKey, State
from qiyu.services.lookups import LookUps
from qiyu.services.message_queue import MessageQueue
from qiyu.services.rings import CATCH_UP_MESSAGES, RING_MESSAGES, Rings
from qiyu.services.room_reports import RoomReports
from qiyu.services.sessions import Sessions
from qiyu.storage.messages import Stored

MISSED_BYTES: Final = 256 * 1024
"""The most of a ring that goes into one answer to a subscriber; one that misses more reads the database."""

Ready: TypeAlias = Callable[[bool, Instant], None]
"""What to do once a room is ready; False where it will not be soon."""


@dataclass(eq=False, slots=True)
class Fill:
    """What members here have missed, on its way from the database."""

    after: int
    up_to: int
    is_under_way: bool = False


@dataclass(slots=True)
class RoomsHere:
    """`now` is the moment at which the core was last told one: whoever drives it keeps it."""

    hub: Hub
    rings: Rings
    delivery: Delivery
    queue: MessageQueue
    catch_up: CatchUp
    sessions: Sessions
    msg_ids: MsgIds
    metrics: Metrics
    now: Instant
    wake: Callable[[], None] = lambda: None
    """Called when there is a `Fill` to be read, or somebody may go on."""

    homes: Homes = field(init=False)
    forwarding: Forwarding = field(init=False)
    reports: RoomReports = field(init=False)
    lookups: LookUps[RoomKey, Ready] = field(default_factory=LookUps)
    """Who waits until a room is ready."""
    _going_on: list[tuple[Endpoint, Callable[[Instant], None]]] = field(default_factory=list)
    _barriers: dict[RoomKey, int] = field(default_factory=dict)
    _fills: dict[RoomKey, Fill] = field(default_factory=dict)
    _brought: dict[RoomKey, list[Stored]] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<RoomsHere {self.lookups!r} fills={len(self._fills)}>"

    def is_ready(self, key: RoomKey) -> bool:
        """Whether it may be entered now."""
        home = self.homes.find(key)
        return home is not None and home.has_home and key not in self._fills

    def when_ready(self, key: RoomKey, session: Endpoint, then: Ready) -> bool:
        """Have `then` called for the session; False if too many wait."""
        self.homes.want(key, self.now.monotonic)
        return self.lookups.add(key, session, then)

    def last_id(self, key: tuple[int, int]) -> int:
        """See `CatchUp.last_id`."""
        home = self.homes.find(RoomKey(*key))
        return home.last if home is not None and home.state is not State.HOME else self.msg_ids.last

    # What drivers call

    def take_going_on(self) -> list[tuple[Endpoint, Callable[[Instant], None]]]:
        """Who may go on; they are not given again."""
        taken, self._going_on = self._going_on, []
        return taken

    def behind(self, keys: Iterable[RoomKey]) -> dict[RoomKey, int]:
        """Of these rooms, whose homes are about to be claimed, those with members here: what those have seen last."""
        found = {}
        for key in keys:
            home = self.homes.find(key)
            if home is not None and self.members(key):
                fill = self._fills.get(key)
                found[key] = home.last if fill is None else fill.after
        return found

    def bring(self, pages: dict[RoomKey, list[Stored]]) -> None:
        """What was read together with claims: the newest after what members have seen. `Homes.claimed` follows."""
        self._brought = pages

    def take_fills(self) -> dict[RoomKey, tuple[Fill, int]]:
        """What is to be read, of each room RING_MESSAGES at most with msgIds above `Fill.after` and up to this one."""
        wanted = {key: (fill, fill.up_to) for key, fill in self._fills.items() if not fill.is_under_way}
        for fill, _ in wanted.values():
            fill.is_under_way = True
        return wanted

    def filled(self, key: RoomKey, fill: Fill, up_to: int, rows: Sequence[Stored]) -> None:
        """It was read."""
        if self._fills.get(key) is not fill:
            return
        fill.is_under_way = False
        self._deliver_rows(key, fill.after, rows)
        fill.after = up_to
        if fill.up_to > up_to:
            self.wake()
            return
        del self._fills[key]
        self._let_in(key)

    def fill_failed(self, fills: Iterable[Fill]) -> None:
        """It could not be read: once more."""
        for fill in fills:
            fill.is_under_way = False

    # See `RoomSide`

    def became_home(self, key: RoomKey, after: int, last_msg_id: int) -> None:
        self.msg_ids.start_above(last_msg_id)
        rows = self._brought.pop(key, [])
        fill = self._fills.pop(key, None)
        if not self.members(key):
            self.rings.replace(key, last_msg_id)
        elif last_msg_id > after or fill is not None:
            self._deliver_rows(key, after if fill is None else fill.after, rows)
        self._let_in(key)
        self.forwarding.has_home(key)

    def joined(self, key: RoomKey, after: int, answer: Subscribed) -> None:
        fill = self._fills.get(key)
        if not self.members(key):
            self._fills.pop(key, None)
            self.rings.replace(key, answer.last_msg_id)
        elif fill is not None:
            fill.up_to = max(fill.up_to, answer.last_msg_id)
        elif not answer.is_complete and answer.last_msg_id > after:
            self._fills[key] = Fill(after, answer.last_msg_id)
            self.wake()
        else:
            for message in answer.missed:
                self._deliver(key, message)
        self._let_in(key)
        self.reports.joined(key, answer)
        self.forwarding.has_home(key)

    def deliver(self, key: RoomKey, message: StoredMessage) -> None:
        fill = self._fills.get(key)
        if fill is not None:
            fill.up_to = message.msg_id
        else:
            self._deliver(key, message)

    def interrupted(self, key: RoomKey) -> None:
        home = self.homes.find(key)
        if home is not None and home.state is State.LEAVING:
            self._barriers[key] = self.queue.enqueued
        self.forwarding.interrupted(key)

    def lost(self, key: RoomKey) -> None:
        for session, then in self.lookups.take(key):
            self._go_on(session, then, is_ready=False)
        room = self.hub.find_room(*key)
        if room is None:
            return
        self.metrics.rooms_lost += 1
        for session in list(room.members):
            self.sessions.end(session, EndReason.LOST)

    def is_wanted(self, key: RoomKey) -> bool:
        return (
            self.hub.find_room(*key) is not None
            or key in self.lookups
            or key in self.catch_up.lookups
            or self.forwarding.has_pending(key)
        )

    def members(self, key: RoomKey) -> int:
        room = self.hub.find_room(*key)
        return len(room.members) if room is not None else 0

    def is_settled(self, key: RoomKey) -> bool:
        barrier = self._barriers.get(key, 0)
        if self.queue.settled < barrier:
            return False
        self._barriers.pop(key, None)
        return True

    def counts(self, key: RoomKey) -> tuple[int, int]:
        return self.members(key) + self.reports.others(key), self.reports.events.likes(*key)

    def since(self, key: RoomKey, after: int) -> Sequence[StoredMessage] | None:
        ring = self.rings.find(key)
        home = self.homes.find(key)
        if ring is None or home is None or ring.floor > after:
            return None
        found: list[StoredMessage] = []
        size = 0
        for item in reversed(ring.items):
            if item.msg_id <= after:
                break
            if item.msg_id > home.last:  # delivered here, and not stored yet: it is sent on when it is
                continue
            biz_code, data = item.biz
            size += len(data) + 100
            if size > MISSED_BYTES:
                return None
            found.append(StoredMessage(item.msg_id, item.sender, biz_code, data))
        return found[::-1]

    # Within

    def _let_in(self, key: RoomKey) -> None:
        if self.is_ready(key):
            for session, then in self.lookups.take(key):
                self._go_on(session, then, is_ready=True)

    def _go_on(self, session: Endpoint, then: Ready, *, is_ready: bool) -> None:
        self._going_on.append((session, lambda now: then(is_ready, now)))
        self.wake()

    def _deliver_rows(self, key: RoomKey, after: int, rows: Sequence[Stored]) -> None:
        """The newest after `after`, RING_MESSAGES at most: so many, and there may be more that nobody is sent."""
        if len(rows) >= RING_MESSAGES:
            rows = rows[-CATCH_UP_MESSAGES:]
            self.metrics.room_gaps += 1
            self.rings.replace(key, rows[0].msg_id - 1)
            room = self.hub.find_room(*key)
            for session in room.members if room is not None else ():
                session.tell_gap()
        for row in rows:
            if row.msg_id > after:
                self._deliver(key, StoredMessage(row.msg_id, row.user_id, row.biz_code, row.data.encode()))

    def _deliver(self, key: RoomKey, message: StoredMessage) -> None:
        publication = Publication(
            app_id=key.app_id,
            biz_code=message.biz_code,
            data=message.data,
            msg_id=str(message.msg_id),
            kind=Kind.DROPPABLE,
        )
        ring = self.rings.open(key, message.msg_id - 1)
        self.delivery.to_room(ring, message.msg_id, message.sender, publication, self.now)
