"""Moderation and the database: the anchor of a room mutes somebody in it, or removes somebody from it, for a while.

What is stored is told to `Restrictions`, which answers whoever chats or enters; each instance reads about once a second
what was set of late. A read that was under way while something was set here is thrown away.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from sqlalchemy import Connection

from qiyu.errors import CallRefused
from qiyu.living.restrictions import UNTIL_CLOSED, Restrictions
from qiyu.model import Instant
from qiyu.storage.database import Database
from qiyu.storage.living_rooms import lock_room
from qiyu.storage.moderation import (
    Restriction,
    find_restriction,
    restrictions_in_force,
    restrictions_since,
    set_restriction,
)

RESTRICTED_USERS: Final = 1_000
"""The most users that one room has muted or removed at a time."""
OVERLAP_MS: Final = 60_000
"""How far the clocks of two instances may differ, and how long a transaction may take, and none of it is missed."""


class Moderation:
    """What anchors do about the members of their living rooms.

    Each call raises `CallRefused`: 404 where no such room is open, 403 where it is somebody else's, 501 for the anchor
    itself and where the room has too many already; and `DatabaseUnavailable`.
    """

    def __init__(self, database: Database, restrictions: Restrictions) -> None:
        self._database = database
        self._restrictions = restrictions
        self._read_ms: int | None = None  # what was set before then, less the overlap, is known

    async def mute(self, anchor_id: int, room_id: int, user_id: int, seconds: int, now: Instant) -> None:
        """Let a user not chat in the room for so long; 0: as long as the room is open."""
        until = _until(seconds, now)
        await self._set(anchor_id, room_id, user_id, lambda old: replace(old, muted_until=until), now)

    async def unmute(self, anchor_id: int, room_id: int, user_id: int, now: Instant) -> None:
        """Let a user chat again."""
        await self._set(anchor_id, room_id, user_id, lambda old: replace(old, muted_until=0), now)

    async def remove(self, anchor_id: int, room_id: int, user_id: int, seconds: int, now: Instant) -> None:
        """Take a user out of the room, and let it not enter again for so long; 0: as long as the room is open."""
        until = _until(seconds, now)
        await self._set(anchor_id, room_id, user_id, lambda old: replace(old, removed_until=until), now)

    async def readmit(self, anchor_id: int, room_id: int, user_id: int, now: Instant) -> None:
        """Let a user enter again."""
        await self._set(anchor_id, room_id, user_id, lambda old: replace(old, removed_until=0), now)

    async def refresh(self, now: Instant) -> None:
        """Read what was set of late, the first time all there is. Where that fails, what is known stands."""
        generation = self._restrictions.generation
        if self._read_ms is None:
            rows = await self._database.read(restrictions_in_force, now.unix_ms)
        else:
            rows = await self._database.read(restrictions_since, self._read_ms - OVERLAP_MS)
        if generation != self._restrictions.generation:
            return  # the next one is a second away
        self._read_ms = now.unix_ms
        for row in rows:
            self._restrictions.apply(row, now)

    async def _set(
        self, anchor_id: int, room_id: int, user_id: int, change: Callable[[Restriction], Restriction], now: Instant
    ) -> None:
        if user_id == anchor_id:
            raise CallRefused(501, f"userId = {user_id}: an anchor is neither muted nor removed in the own room")

        def work(connection: Connection) -> Restriction:
            room = lock_room(connection, room_id)
            if room is None:
                raise CallRefused(404, f"roomId = {room_id}: there is no such open room")
            if room.anchor_id != anchor_id:
                raise CallRefused(403, f"roomId = {room_id}: only its anchor may do this")
            changed = change(find_restriction(connection, room_id, user_id))
            if not set_restriction(connection, changed, now_ms=now.unix_ms, limit=RESTRICTED_USERS):
                raise CallRefused(501, f"roomId = {room_id}: {RESTRICTED_USERS} users are muted or removed already")
            return changed

        restriction = await self._database.run(work)
        self._restrictions.generation += 1
        self._restrictions.apply(restriction, now)


def _until(seconds: int, now: Instant) -> int:
    return now.unix_ms + seconds * 1000 if seconds else UNTIL_CLOSED
