"""The room directory: what this instance knows of living rooms without asking the database. Nothing here waits.

The lists are a snapshot that is read anew about once a second (drivers/living.py); a single room comes from a cache,
which remembers for a while that there is none as well. A start or a close by this instance is known at once.

A read that was under way meanwhile must not bring back what it still saw: each start and close counts `generation` up,
and whoever reads (living/rooms.py) throws away what it read under an older one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from enum import Enum
from typing import Final

from qiyu.living.events import RoomEvents
from qiyu.living.restrictions import Restrictions
from qiyu.model import Instant
from qiyu.protocol.packet import APP_ID
from qiyu.routing.hub import Hub
from qiyu.storage.living_rooms import LivingRoom, RoomCounts
from qiyu.storage.users import User

CACHED_SECONDS: Final = 30 * 60.0
ABSENT_SECONDS: Final = 60.0
CACHED_ROOMS: Final = 100_000
"""The most rooms, there or absent, that are remembered; beyond it the oldest are forgotten."""
LISTED_ROOMS: Final = 1_000
"""The most rooms of a type that a list has: the newest."""


class RoomType(Enum):
    """The types there are (t_living_room.type)."""

    NORMAL = 1
    PK = 2


class RoomDirectory:
    """The living rooms of app 10001. With `require_open_room` false any room of any app may be entered."""

    def __init__(self, hub: Hub, events: RoomEvents, restrictions: Restrictions, *, require_open_room: bool) -> None:
        self._hub = hub
        self._events = events
        self._restrictions = restrictions
        self._require_open_room = require_open_room
        self._cache: dict[int, tuple[LivingRoom | None, float]] = {}  # to the room, and when that is forgotten
        self._lists: dict[int, list[LivingRoom]] = {type_.value: [] for type_ in RoomType}
        self._anchors_seen: dict[int, float] = {}  # room number to when its anchor was last connected (monotonic)
        self.is_anchor_here: Callable[[int], bool] = lambda anchor_id: hub.find(APP_ID, anchor_id) is not None
        """Whether the anchor is connected, or live in another way; to be replaced by whoever knows of more ways."""
        self.is_on_air: Callable[[int], bool] = lambda _room_id: False
        """Whether a picture is pushed for the room: then its anchor is not away."""
        self.on_close: list[Callable[[int], None]] = []
        """Each is called with the number of a room that is open no more."""
        self.anchors: dict[int, User] = {}
        """The accounts of the anchors of listed rooms, by id; that of one started elsewhere comes within a second."""
        self.generation = 0
        """How many starts and closes there were here: what was read before the last one is out of date."""

    def __repr__(self) -> str:
        listed = sum(map(len, self._lists.values()))
        return f"<RoomDirectory listed={listed} cached={len(self._cache)}>"

    def is_open(self, app_id: int, room_id: int, now: Instant) -> bool | None:
        """Whether the room may be entered; None where only the database knows."""
        if not self._require_open_room:
            return True
        if app_id != APP_ID:
            return False
        known = self.find(room_id, now)
        return None if known is None else known[0] is not None

    def find(self, room_id: int, now: Instant) -> tuple[LivingRoom | None] | None:
        """The open room with this number, or that there is none; None where only the database knows."""
        entry = self._cache.get(room_id)
        if entry is None or entry[1] <= now.monotonic:
            return None
        return (entry[0],)

    def page(self, type_: int, page: int, page_size: int) -> tuple[list[LivingRoom], bool]:
        """One page of the open rooms of a type, newest first, with live counts; and whether there is a next one."""
        rooms = self._lists[type_]
        first = (page - 1) * page_size
        shown = rooms[first : first + page_size]
        return [self.with_counts(room) for room in shown], first + page_size < len(rooms)

    def with_counts(self, room: LivingRoom) -> LivingRoom:
        """The room with its members and likes of this moment; those last written, where another instance counts."""
        if not self._events.is_counted_here(APP_ID, room.id):
            return room
        return replace(room, **self.counts(room.id)._asdict())

    def counts(self, room_id: int) -> RoomCounts:
        """What is counted of the room, of this moment."""
        counts = self._events.counts(APP_ID, room_id)
        return RoomCounts(self._events.members(APP_ID, room_id), counts.likes, counts.peak, counts.visits)

    def counts_to_store(self, room: LivingRoom) -> RoomCounts:
        """What is to be written of a room that is closed: what is counted here, or what another instance wrote last."""
        counts = self.counts(room.id)
        if self._events.is_counted_here(APP_ID, room.id):
            return counts
        written = (room.watch_num, room.good_num, room.peak_num, room.visit_num)
        return RoomCounts(*map(max, written, counts))

    # What whoever asks the database tells it (living/rooms.py)

    def started(self, room: LivingRoom, now: Instant) -> None:
        """This instance has opened a room."""
        self.generation += 1
        self._lists[room.type] = [room, *self._lists[room.type]][:LISTED_ROOMS]
        self.remember(room.id, room, now)

    def changed(self, room: LivingRoom, now: Instant) -> None:
        """A room that is open already may have another name or picture now, by this instance."""
        known = self.find(room.id, now)
        if known and known[0] and (known[0].room_name, known[0].covert_img) == (room.room_name, room.covert_img):
            return
        self.generation += 1
        self._lists[room.type] = [room if listed.id == room.id else listed for listed in self._lists[room.type]]
        self.remember(room.id, room, now)

    def away(self, now: Instant, seconds: float) -> list[LivingRoom]:
        """The listed rooms whose anchor has not been connected for so long, by what was seen at each call of this.

        After a start of this instance, everybody has that long to come back.
        """
        rooms = [room for rooms in self._lists.values() for room in rooms]
        seen = self._anchors_seen
        self._anchors_seen = {
            room.id: now.monotonic if self._is_attended(room) else seen.get(room.id, now.monotonic) for room in rooms
        }
        return [room for room in rooms if now.monotonic - self._anchors_seen[room.id] >= seconds]

    def closed(self, room: LivingRoom, now: Instant) -> None:
        """This instance has closed a room: its members are told, and are in it no more."""
        self.generation += 1
        self._forget_room(room, now)

    def closed_elsewhere(self, room_id: int, now: Instant) -> None:
        """Another instance has closed a room, and says so: the lists would, within a second."""
        known = self.find(room_id, now)
        if known is not None and known[0] is not None:
            self.closed(known[0], now)
        else:
            self.generation += 1
            self.remember(room_id, None, now)
            self.dissolve(room_id)

    def looked_up(self, room_ids: Collection[int], found: Mapping[int, LivingRoom], now: Instant) -> None:
        """The database was asked for these rooms, and has `found` open."""
        for room_id in room_ids:
            self.remember(room_id, found.get(room_id), now)

    def listed(self, type_: int, rooms: list[LivingRoom], now: Instant) -> None:
        """The newest LISTED_ROOMS open rooms of a type, as the database has them."""
        if len(rooms) < LISTED_ROOMS:  # all there are: what is missing was closed by another instance
            open_ids = {room.id for room in rooms}
            for room in self._lists[type_]:
                if room.id not in open_ids:
                    self._forget_room(room, now)
        self._lists[type_] = rooms
        for room in rooms:
            self.remember(room.id, room, now)

    def unknown_anchors(self) -> set[int]:
        """The anchors of listed rooms whose accounts are to be read; the others, who are listed no more, are gone."""
        wanted = {room.anchor_id for rooms in self._lists.values() for room in rooms}
        self.anchors = {user_id: self.anchors[user_id] for user_id in wanted & self.anchors.keys()}
        return wanted - self.anchors.keys()

    def remember(self, room_id: int, room: LivingRoom | None, now: Instant) -> None:
        """There is this open room, or there is none of that number."""
        self._cache.pop(room_id, None)  # so that the oldest stand first
        seconds = ABSENT_SECONDS if room is None else CACHED_SECONDS
        self._cache[room_id] = (room, now.monotonic + seconds)
        if len(self._cache) > CACHED_ROOMS:
            del self._cache[next(iter(self._cache))]
        if room is not None:
            self.keep_counts(room)

    def keep_counts(self, room: LivingRoom) -> None:
        """The room had these counts when they were last written: what is counted here goes on from there."""
        self._events.keep_counts(APP_ID, room.id, likes=room.good_num, visits=room.visit_num, peak=room.peak_num)

    def take_unstored(self) -> dict[int, RoomCounts]:
        """The counts, by room number, that have changed since they were last written; they are not given again."""
        return {room_id: self.counts(room_id) for _, room_id in self._events.take_unstored()}

    def put_back_unstored(self, room_ids: Iterable[int]) -> None:
        """They could not be written."""
        self._events.put_back_unstored((APP_ID, room_id) for room_id in room_ids)

    def _forget_room(self, room: LivingRoom, now: Instant) -> None:
        self._lists[room.type] = [listed for listed in self._lists[room.type] if listed.id != room.id]
        self.remember(room.id, None, now)
        self._restrictions.forget(room.id)
        self.dissolve(room.id)

    def _is_attended(self, room: LivingRoom) -> bool:
        return self.is_anchor_here(room.anchor_id) or self.is_on_air(room.id)

    def dissolve(self, room_id: int) -> None:
        """The room is no more: its members are told, and are in no room."""
        self._events.closed(APP_ID, room_id)
        self._hub.empty(APP_ID, room_id)
        for tell in self.on_close:
            tell(room_id)
