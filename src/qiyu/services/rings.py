"""The recent messages of each room, in memory: who comes back to a room is served from here.

A ring knows all messages of its room above `floor`. One that was opened by the first message after a start knows
nothing older; then the database is read once for all who ask (services/catch_up.py) and the ring takes what it brings,
so a thousand members who come back at once make one query.

Within a room, messages are delivered in the order of their ids (services/message_queue.py): so whoever says which one
it saw last has seen all before it, or has been told that some were dropped.

The memory of all rings together is bounded: the room in which nothing was said for the longest time is forgotten first.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import Final

from qiyu.routing.hub import Hub
from qiyu.routing.publication import Publication

CATCH_UP_MESSAGES: Final = 200
"""The most that a member is sent who comes back (docs/protocol.md)."""
RING_MESSAGES: Final = 256
"""The most messages of one room that are kept. More than those, so that one's own do not push out others'."""


class RingEntry:
    """A message of a room."""

    __slots__ = ("_again", "_publication", "msg_id", "sender")

    def __init__(self, msg_id: int, sender: int, publication: Publication) -> None:
        self.msg_id = msg_id
        self.sender = sender
        self._publication = publication
        self._again: Publication | None = None

    @property
    def size(self) -> int:
        """Bytes, about."""
        return self._publication.size

    @property
    def biz(self) -> tuple[int, bytes]:
        """See `Publication.biz`."""
        return self._publication.biz

    @property
    def again(self) -> Publication:
        """The packet for those who missed it: with an account of its own, for its timers are others."""
        if self._again is None:
            self._again = self._publication.twin()
        return self._again


class Ring:
    """The newest messages of one room, oldest first."""

    __slots__ = ("floor", "is_all", "is_wanted", "items", "key", "newest", "size", "waiting")

    def __init__(self, key: tuple[int, int], floor: int) -> None:
        self.key = key
        self.floor = floor
        """Every message of the room that was delivered and has an id above this is in `items`."""
        self.is_all = False
        """The database was read, and has nothing older."""
        self.newest: int | None = None
        """The msgId of the room's newest message, 0 where it has none; None while only the database knows."""
        self.items: deque[RingEntry] = deque()
        self.is_wanted = False
        """The database is about to be read for it."""
        self.size = 0
        """Bytes, about."""
        self.waiting = 0
        """Messages of the room that wait to be stored; those that follow wait behind them."""

    def __repr__(self) -> str:
        return f"<Ring {self.key} {len(self.items)} messages above {self.floor}>"

    @property
    def is_full(self) -> bool:
        """There is no space for older ones."""
        return len(self.items) >= RING_MESSAGES

    def since(self, msg_id: int, reader: int) -> list[Publication]:
        """What others wrote after `msg_id`, oldest first, as far as it is here."""
        found = []
        for item in reversed(self.items):
            if item.msg_id <= msg_id:
                break
            if item.sender != reader:
                found.append(item.again)
        return found[::-1]


class Rings:
    """The rings of this instance; `max_bytes` bounds them all."""

    def __init__(self, hub: Hub, max_bytes: int) -> None:
        self._hub = hub
        self._max_bytes = max_bytes
        self._size = 0
        self._rings: OrderedDict[tuple[int, int], Ring] = OrderedDict()  # the most recently used one last
        self._empty: set[Ring] = set()

    def __repr__(self) -> str:
        return f"<Rings rooms={len(self._rings)} bytes={self._size}>"

    @property
    def held_bytes(self) -> int:
        """What all messages that are kept take, about (`Publication.size`)."""
        return self._size

    def find(self, key: tuple[int, int]) -> Ring | None:
        """The ring of a room, if there is one."""
        return self._rings.get(key)

    def open(self, key: tuple[int, int], last_msg_id: int) -> Ring:
        """The ring of a room; a new one knows what comes after `last_msg_id`, the last id that any message has."""
        ring = self._rings.get(key)
        if ring is None:
            ring = self._rings[key] = Ring(key, last_msg_id)
            self._empty.add(ring)
        return ring

    def replace(self, key: tuple[int, int], last_msg_id: int) -> Ring:
        """A new ring in the place of one that has not seen all that was said meanwhile."""
        ring = self._rings.pop(key, None)
        if ring is not None:
            self._size -= ring.size
            self._empty.discard(ring)
        return self.open(key, last_msg_id)

    def add(self, ring: Ring, message: RingEntry) -> None:
        """A message is delivered to the room."""
        self._empty.discard(ring)
        self._rings.move_to_end(ring.key)
        ring.items.append(message)
        ring.newest = message.msg_id
        ring.size += message.size
        self._size += message.size
        if len(ring.items) > RING_MESSAGES:
            self._forget_oldest(ring)
        self._keep_bound()

    def load(self, ring: Ring, older: Sequence[RingEntry], floor: int) -> None:
        """The database was read: `older` (oldest first) has all messages of the room from above `floor` to the ring's.

        It may have later ones as well, which are here already, or are about to be delivered.
        """
        older = [item for item in older if floor < item.msg_id <= ring.floor]
        if ring.newest is None:
            ring.newest = older[-1].msg_id if older else 0
        space = RING_MESSAGES - len(ring.items)
        if len(older) > space:
            floor = older[len(older) - space - 1].msg_id
            older = older[len(older) - space :]
        if floor >= ring.floor:
            return
        ring.floor = floor
        ring.items.extendleft(reversed(older))
        size = sum(item.size for item in older)
        ring.size += size
        self._size += size
        if older:
            self._empty.discard(ring)
            self._rings.move_to_end(ring.key)
            self._keep_bound()

    def sweep(self) -> None:
        """Forget the rings of rooms in which nobody is, and of which nothing is kept."""
        for ring in list(self._empty):
            if not ring.waiting and not ring.is_wanted and self._hub.find_room(*ring.key) is None:
                self._empty.discard(ring)
                del self._rings[ring.key]

    def _keep_bound(self) -> None:
        while self._size > self._max_bytes:
            ring = next(iter(self._rings.values()))
            if ring.items:
                self._forget_oldest(ring)
            if not ring.items:
                self._rings.move_to_end(ring.key)

    def _forget_oldest(self, ring: Ring) -> None:
        item = ring.items.popleft()
        ring.floor = item.msg_id
        ring.is_all = False
        ring.size -= item.size
        self._size -= item.size
        if not ring.items:
            self._empty.add(ring)
