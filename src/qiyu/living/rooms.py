"""Living rooms and the database: opened, closed, looked up, and their counts written.

What is read here is told to the room directory (living/directory.py), which answers all that needs no waiting. Where a
room was started or closed here while a read was under way, that read is thrown away, or made once more.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import structlog
from sqlalchemy import Connection

from qiyu.errors import CallRefused
from qiyu.living.anchors import default_cover, default_room_name, may_go_live
from qiyu.living.directory import LISTED_ROOMS, RoomDirectory, RoomType
from qiyu.model import Instant
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
from qiyu.storage.users import User, find_users

log = structlog.get_logger(__name__)


class LivingRooms:
    """The living rooms of app 10001, as the database has them. What it raises beside: `DatabaseUnavailable`."""

    def __init__(self, database: Database, directory: RoomDirectory) -> None:
        self._database = database
        self._directory = directory
        self.tell_closed: Callable[[int], None] = lambda _room_id: None
        """Tells other instances that this one has closed a room."""

    async def start(
        self, anchor: User, type_: int, now: Instant, *, room_name: str = "", covert_img: str = ""
    ) -> LivingRoom:
        """Open a room, without a name or a picture with the default ones.

        An anchor who has one open gets that, with the new name or picture where there is one. Raises `CallRefused`: 403
        for who may not go live, 501 for who has a room of another type open.
        """
        if not may_go_live(anchor):
            raise CallRefused(403, "only a VIP may go live")
        asked = {"room_name": room_name, "covert_img": covert_img}
        changes = {name: value for name, value in asked.items() if value}
        while True:
            generation = self._directory.generation
            room, is_new = await self._database.run(
                start_room,
                anchor_id=anchor.id,
                type_=type_,
                room_name=room_name or default_room_name(anchor),
                covert_img=covert_img or default_cover(anchor),
                now_ms=now.unix_ms,
                changes=changes,
            )
            if is_new:
                self._directory.anchors[anchor.id] = anchor  # so that the list has a name from the first
                self._directory.started(room, now)
                return room
            if generation != self._directory.generation:
                continue  # it may be the one that was closed meanwhile
            if room.type != type_:
                theirs = f"your room {room.id} of type {room.type} is open"
                raise CallRefused(501, f"type = {type_}: {theirs}; close it first, or start it with its own type")
            if changes:
                self._directory.changed(room, now)
            else:
                self._directory.remember(room.id, room, now)
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
        if not await self._close(room, now):  # another call was faster
            raise CallRefused(404, f"roomId = {room_id}: there is no such open room")

    async def close_away(self, now: Instant, seconds: float) -> None:
        """Close the rooms whose anchor has been away for so long; 0: none. To be called every second or so."""
        if not seconds:
            return
        for room in self._directory.away(now, seconds):
            if await self._close(room, now):
                log.info("closed the room of an anchor who is away", room=room.id, anchor=room.anchor_id)

    async def find(self, room_id: int, now: Instant) -> LivingRoom | None:
        """The open room with this number, with live counts."""
        known = self._directory.find(room_id, now)
        room = (await self._read([room_id], now)).get(room_id) if known is None else known[0]
        return None if room is None else self._directory.with_counts(room)

    async def find_open(self, room_ids: Collection[int], now: Instant) -> Collection[int]:
        """Which of the rooms are open, by one query for each thousand."""
        return await self._read(room_ids, now)

    async def refresh(self, now: Instant) -> None:
        """Read the lists anew. Where that fails, those of before stand."""
        generation = self._directory.generation
        lists = await self._database.read(_read_lists)
        if generation != self._directory.generation:
            return  # the next one is a second away
        for type_, rooms in lists.items():
            self._directory.listed(type_, rooms, now)
        unknown = self._directory.unknown_anchors()
        if unknown:
            self._directory.anchors |= await self._database.read(find_users, unknown)

    async def store_counts(self, now: Instant) -> None:
        """Write the counts of the rooms in which something changed."""
        counts = self._directory.take_unstored()
        if not counts:
            return
        try:
            await self._database.run(update_counts, counts, now.unix_ms)
        except BaseException:  # cancelled as well: at the stop, they are written once more
            self._directory.put_back_unstored(counts)
            raise

    async def _close(self, room: LivingRoom, now: Instant) -> bool:
        self._directory.keep_counts(room)  # memory may never have heard of it
        closed = await self._database.run(
            close_room,
            room_id=room.id,
            anchor_id=room.anchor_id,
            counts=self._directory.counts_to_store(room),
            now_ms=now.unix_ms,
        )
        if closed is not None:
            self._directory.closed(room, now)
            self.tell_closed(room.id)
        return closed is not None

    async def _read(self, room_ids: Collection[int], now: Instant) -> dict[int, LivingRoom]:
        while True:
            generation = self._directory.generation
            rooms = await self._database.read(find_rooms, list(room_ids))
            if generation == self._directory.generation:
                break
        self._directory.looked_up(room_ids, rooms, now)
        return rooms


def _read_lists(connection: Connection) -> dict[int, list[LivingRoom]]:
    return {type_.value: newest_rooms(connection, type_.value, LISTED_ROOMS) for type_ in RoomType}
