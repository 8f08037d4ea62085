"""Living rooms: opened, listed, entered, liked and closed.

What is asked often is answered from memory. The lists come from a snapshot that is read anew about once a second; a
single room from a cache, which remembers for a while that there is none as well. A start or a close by this instance
is known at once.

A read that was under way meanwhile must not bring back what it still saw: each start and close counts `_generation` up,
and what was read under an older one is thrown away.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from enum import Enum
from typing import Final, TypeAlias

from sqlalchemy import Connection

from qiyu.errors import CallRefused
from qiyu.living.events import RoomEvents
from qiyu.model import Instant
from qiyu.protocol.packet import APP_ID
from qiyu.routing.hub import Hub
from qiyu.routing.session import Session
from qiyu.storage.database import Database
from qiyu.storage.living_rooms import (
    LivingRoom,
    close_room,
    find_room,
    find_rooms,
    newest_rooms,
    start_room,
    update_counts,
)

CACHED_SECONDS: Final = 30 * 60.0
ABSENT_SECONDS: Final = 60.0
CACHED_ROOMS: Final = 100_000
"""The most rooms, there or absent, that are remembered; beyond it the oldest are forgotten."""
LISTED_ROOMS: Final = 1_000
"""The most rooms of a type that a list has: the newest."""
WAITING_ENTRIES: Final = 10_000
"""The most sessions that wait to learn whether a room is open; further ones are told to try again."""


class RoomType(Enum):
    """The types there are (t_living_room.type)."""

    NORMAL = 1
    PK = 2


Found: TypeAlias = Callable[[bool | None, Instant], None]
"""What to do once it is known whether a room is open; None where it could not be found out."""
Waiting: TypeAlias = dict[int, list[tuple[Session, Found]]]
"""Room number to who waits to learn whether it is open."""


class LivingRooms:
    """The living rooms of app 10001. With `require_open_room` false any room of any app may be entered."""

    def __init__(self, database: Database, hub: Hub, events: RoomEvents, *, require_open_room: bool) -> None:
        self._database = database
        self._hub = hub
        self._events = events
        self._require_open_room = require_open_room
        self._cache: dict[int, tuple[LivingRoom | None, float]] = {}  # to the room, and when that is forgotten
        self._lists: dict[int, list[LivingRoom]] = {type_.value: [] for type_ in RoomType}
        self._generation = 0
        self._waiting: Waiting = {}
        self._waiting_entries = 0
        self.wake: Callable[[], None] = lambda: None
        """Called when `take_waiting` has something to give."""

    def __repr__(self) -> str:
        listed = sum(map(len, self._lists.values()))
        return f"<LivingRooms listed={listed} cached={len(self._cache)} waiting={self._waiting_entries}>"

    # What the home page asks

    async def start(self, anchor_id: int, type_: int, room_name: str, covert_img: str, now: Instant) -> LivingRoom:
        """Open a room; an anchor who has one open gets that."""
        while True:
            generation = self._generation
            room, is_new = await self._database.run(
                start_room,
                anchor_id=anchor_id,
                type_=type_,
                room_name=room_name,
                covert_img=covert_img,
                now_ms=now.unix_ms,
            )
            if is_new:
                self._generation += 1
                self._lists[room.type] = [room, *self._lists[room.type]][:LISTED_ROOMS]
                break
            if generation == self._generation:
                break  # else it may be the one that was closed meanwhile
        self._remember(room.id, room, now)
        return room

    async def close(self, anchor_id: int, room_id: int, now: Instant) -> None:
        """Close a room of this anchor: it becomes a record, and its members are told and are in it no more.

        Raises `CallRefused`: 404 where no such room is open, 403 where it is somebody else's.
        """
        room = await self._database.read(find_room, room_id)
        if room is None:
            raise CallRefused(404, f"roomId = {room_id}: there is no such open room")
        if room.anchor_id != anchor_id:
            raise CallRefused(403, f"roomId = {room_id}: only its anchor may close it")
        self._events.keep_likes(APP_ID, room.id, room.good_num)  # memory may never have heard of it
        counts = self._with_counts(room)
        closed = await self._database.run(
            close_room,
            room_id=room_id,
            anchor_id=anchor_id,
            watch_num=counts.watch_num,
            good_num=counts.good_num,
            now_ms=now.unix_ms,
        )
        if closed is None:  # another call was faster
            raise CallRefused(404, f"roomId = {room_id}: there is no such open room")
        self._generation += 1
        self._forget_room(room, now)

    async def find(self, room_id: int, now: Instant) -> LivingRoom | None:
        """The open room with this number, with live counts."""
        known = self._known(room_id, now)
        room = (await self._read([room_id], now)).get(room_id) if known is None else known[0]
        return None if room is None else self._with_counts(room)

    def page(self, type_: int, page: int, page_size: int) -> tuple[list[LivingRoom], bool]:
        """One page of the open rooms of a type, newest first, with live counts; and whether there is a next one."""
        rooms = self._lists[type_]
        first = (page - 1) * page_size
        shown = rooms[first : first + page_size]
        return [self._with_counts(room) for room in shown], first + page_size < len(rooms)

    # What packets ask

    def is_open(self, app_id: int, room_id: int, now: Instant) -> bool | None:
        """Whether the room may be entered; None where only the database knows (see `look_up`)."""
        if not self._require_open_room:
            return True
        if app_id != APP_ID:
            return False
        known = self._known(room_id, now)
        return None if known is None else known[0] is not None

    def look_up(self, room_id: int, session: Session, found: Found) -> bool:
        """Have `found` called for `session` once it is known whether the room is open; False if too many wait."""
        if self._waiting_entries >= WAITING_ENTRIES:
            return False
        self._waiting.setdefault(room_id, []).append((session, found))
        self._waiting_entries += 1
        self.wake()
        return True

    # What the driver calls

    def take_waiting(self) -> Waiting:
        """The sessions that wait to learn whether a room is open, by room; they are not given again."""
        waiting, self._waiting = self._waiting, {}
        self._waiting_entries = 0
        return waiting

    async def find_open(self, room_ids: Collection[int], now: Instant) -> Collection[int]:
        """Which of the rooms are open, by one query. Raises `DatabaseUnavailable`."""
        return await self._read(room_ids, now)

    async def refresh(self, now: Instant) -> None:
        """Read the lists anew. Raises `DatabaseUnavailable`: then those of before stand."""
        generation = self._generation
        lists = await self._database.read(_read_lists)
        if generation != self._generation:
            return  # the next one is a second away
        for type_, rooms in lists.items():
            self._take_list(type_, rooms, now)

    async def store_counts(self) -> None:
        """Write the counts of the rooms in which something changed."""
        changed = self._events.take_unstored()
        if not changed:
            return
        counts = {room_id: self._counts(room_id) for _, room_id in changed}
        try:
            await self._database.run(update_counts, counts)
        except BaseException:  # cancelled as well: at the stop, they are written once more
            self._events.put_back_unstored(changed)
            raise

    def _known(self, room_id: int, now: Instant) -> tuple[LivingRoom | None] | None:
        entry = self._cache.get(room_id)
        if entry is None or entry[1] <= now.monotonic:
            return None
        return (entry[0],)

    async def _read(self, room_ids: Collection[int], now: Instant) -> dict[int, LivingRoom]:
        while True:
            generation = self._generation
            rooms = await self._database.read(find_rooms, list(room_ids))
            if generation == self._generation:
                break
        for room_id in room_ids:
            self._remember(room_id, rooms.get(room_id), now)
        return rooms

    def _remember(self, room_id: int, room: LivingRoom | None, now: Instant) -> None:
        self._cache.pop(room_id, None)  # so that the oldest stand first
        seconds = ABSENT_SECONDS if room is None else CACHED_SECONDS
        self._cache[room_id] = (room, now.monotonic + seconds)
        if len(self._cache) > CACHED_ROOMS:
            del self._cache[next(iter(self._cache))]
        if room is not None:
            self._events.keep_likes(APP_ID, room_id, room.good_num)

    def _take_list(self, type_: int, rooms: list[LivingRoom], now: Instant) -> None:
        if len(rooms) < LISTED_ROOMS:  # all there are: what is missing was closed by another instance
            open_ids = {room.id for room in rooms}
            for room in self._lists[type_]:
                if room.id not in open_ids:
                    self._forget_room(room, now)
        self._lists[type_] = rooms
        for room in rooms:
            self._remember(room.id, room, now)

    def _forget_room(self, room: LivingRoom, now: Instant) -> None:
        self._lists[room.type] = [listed for listed in self._lists[room.type] if listed.id != room.id]
        self._remember(room.id, None, now)
        self._events.close(APP_ID, room.id)

    def _with_counts(self, room: LivingRoom) -> LivingRoom:
        watching, likes = self._counts(room.id)
        return replace(room, watch_num=watching, good_num=likes)

    def _counts(self, room_id: int) -> tuple[int, int]:
        room = self._hub.find_room(APP_ID, room_id)
        return len(room.members) if room is not None else 0, self._events.likes(APP_ID, room_id)


def _read_lists(connection: Connection) -> dict[int, list[LivingRoom]]:
    return {type_.value: newest_rooms(connection, type_.value, LISTED_ROOMS) for type_ in RoomType}
