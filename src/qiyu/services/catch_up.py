"""Catch-up: who comes back to a room is sent what it missed there, and then what is said from now on.

Both happen in one step, out of the room's ring (services/rings.py): the session becomes a member, and gets what the
ring has. Where the ring does not reach back far enough, the session waits outside until the database was read; so there
is no moment at which a message could be missed or come twice.

`recovered` is true only where it can be shown that nothing was left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias

from qiyu.metrics import Metrics
from qiyu.model import Instant
from qiyu.routing.msgid import MsgIds
from qiyu.routing.outbox import OutboxLimits
from qiyu.routing.publication import Publication
from qiyu.routing.session import Session
from qiyu.services.delivery import Delivery
from qiyu.services.lookups import Entries, LookUps
from qiyu.services.message_queue import MessageQueue
from qiyu.services.replay import publication_of
from qiyu.services.rings import CATCH_UP_MESSAGES, RING_MESSAGES, Ring, RingEntry, Rings
from qiyu.storage.messages import Stored

DELIVERY_WORK: Final = 3
"""What it costs to send one message to one session alone, in units of about a microsecond."""
BROUGHT_A_SECOND: Final = 1_000
"""Messages that one session may have brought in about a second, five times the most of one entry; then it waits."""
LOOK_UP: Final = 100
"""As many of them does it cost to have a room read."""

RoomKey: TypeAlias = tuple[int, int]
"""App and room."""
Loaded: TypeAlias = Callable[[Instant], None]
"""What a session does once its room has been read, or could not be."""


class Missed(NamedTuple):
    """What a member is to be sent, oldest first, and whether that is all."""

    messages: list[Publication]
    recovered: bool


@dataclass(slots=True)
class Wanted:
    """A room that is to be read."""

    barrier: int
    """Once all messages and ACKs up to this number of the message queue are settled."""
    ring: Ring
    floor: int
    """What comes after this msgId, the ring has."""
    entries: Entries[Loaded] = field(default_factory=list)
    """Who waits for it: known once it is read."""


class CatchUp:
    """What members missed. A session is sent no more of it at once than an outbox takes (the soft bound)."""

    def __init__(
        self,
        rings: Rings,
        delivery: Delivery,
        queue: MessageQueue,
        msg_ids: MsgIds,
        limits: OutboxLimits,
        metrics: Metrics,
    ) -> None:
        self._rings = rings
        self._delivery = delivery
        self._queue = queue
        self._msg_ids = msg_ids
        self._limits = limits
        self._metrics = metrics
        self._brought: dict[Session, int] = {}  # since the last sweep
        self.last_id: Callable[[RoomKey], int] = lambda _: msg_ids.last
        """Nothing said in the room so far has an id above this; to be replaced by whoever knows of other instances."""
        self._wanted: dict[RoomKey, Wanted] = {}  # one for each room in `lookups`
        self.lookups: LookUps[RoomKey, Loaded] = LookUps()
        """Rooms of which memory does not know enough."""

    def __repr__(self) -> str:
        return f"<CatchUp {self.lookups!r}>"

    def may_ask(self, session: Session) -> bool:
        """Whether the session may come back once more, or has asked for so much lately that it has to wait."""
        return self._brought.get(session, 0) < BROUGHT_A_SECOND

    def sweep(self) -> None:
        """About once a second: who had to wait may go on."""
        self._brought.clear()

    def knows(self, key: RoomKey, after: int) -> bool:
        """Whether memory has all that was said in the room after this msgId, or as much as reading would bring."""
        ring = self._rings.find(key)
        return ring is not None and (ring.floor <= after or ring.is_all or ring.is_full)

    def knows_newest(self, key: RoomKey) -> bool:
        """Whether memory has the msgId of the room's newest message, or that there is none."""
        ring = self._rings.find(key)
        return ring is not None and ring.newest is not None

    def newest(self, key: RoomKey) -> str:
        """The msgId of the room's newest message, "" where there is none.

        Where the database did not say, it is one of no message: all that is said from now on comes after it, too.
        """
        ring = self._rings.find(key)
        newest = None if ring is None else ring.newest
        if newest is None:
            newest = self.last_id(key) if ring is None else ring.floor
        return str(newest) if newest else ""

    def look_up(self, key: RoomKey, session: Session, loaded: Loaded) -> bool:
        """Have the room read, and `loaded` called for the session then; False if too many wait."""
        if not self.lookups.add(key, session, loaded):
            return False
        self._charge(session, LOOK_UP)
        if key not in self._wanted:
            ring = self._rings.open(key, self.last_id(key))
            ring.is_wanted = True
            self._wanted[key] = Wanted(self._queue.enqueued, ring, ring.floor)
        return True

    def missed(self, session: Session, key: RoomKey, after: int) -> Missed:
        """What the session is to be sent that saw `after` last."""
        ring = self._rings.find(key)
        if ring is None:
            return Missed([], recovered=False)
        found = ring.since(after, session.user_id)
        self._charge(session, len(found))
        newest: list[Publication] = []
        size = 0
        for publication in reversed(found[-CATCH_UP_MESSAGES:]):
            size += publication.packet_size
            if size > self._limits.soft:
                break
            newest.append(publication)
        # An id that nobody has been given says nothing about what its bearer has seen.
        known = after <= max(self._msg_ids.last, ring.floor, ring.items[-1].msg_id if ring.items else 0)
        # Before the first message there is none: who has seen nothing is left out nothing by having all that is kept.
        reaches_back = ring.floor <= after or (ring.is_all and not after)
        return Missed(newest[::-1], recovered=known and reaches_back and len(newest) == len(found))

    def send(self, session: Session, missed: Missed, now: Instant) -> None:
        """Send it."""
        if missed.messages:
            self._metrics.catch_up_replayed += len(missed.messages)
            self._metrics.work += DELIVERY_WORK * len(missed.messages)
            self._delivery.to_session(session, missed.messages, now)

    def _charge(self, session: Session, messages: int) -> None:
        self._brought[session] = self._brought.get(session, 0) + messages

    # What the driver calls

    def take(self) -> dict[RoomKey, Wanted]:
        """The rooms that can be read now; they are not given again."""
        settled = self._queue.settled
        ready = {key: wanted for key, wanted in self._wanted.items() if wanted.barrier <= settled}
        for key, wanted in ready.items():
            del self._wanted[key]
            wanted.entries = self.lookups.take(key)
        return ready

    def take_all(self) -> Entries[Loaded]:
        """All that wait, ready or not: the database does not answer, and they go on with what memory has."""
        self.give_up(self._wanted)
        self._wanted.clear()
        return [entry for entries in self.lookups.take_all().values() for entry in entries]

    def give_up(self, rooms: dict[RoomKey, Wanted]) -> None:
        """They were not read."""
        for wanted in rooms.values():
            wanted.ring.is_wanted = False

    def loaded(self, key: RoomKey, wanted: Wanted, rows: list[Stored], below: int) -> None:
        """The room was read: its newest RING_MESSAGES above `below`, which is as far back as anything is kept."""
        ring = wanted.ring
        ring.is_wanted = False
        if self._rings.find(key) is not ring or ring.floor != wanted.floor:
            return  # so much was said meanwhile, here or elsewhere, that what lies between is not known
        floor = below if len(rows) < RING_MESSAGES else rows[0].msg_id - 1
        self._rings.load(ring, [RingEntry(row.msg_id, row.user_id, publication_of(row)) for row in rows], floor)
        ring.is_all = len(rows) < RING_MESSAGES and ring.floor <= floor
