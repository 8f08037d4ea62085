"""History: what was said in a room or between two users, a page at a time, for those who may read it.

It is read from the database alone: what is not stored yet is on no page, and comes to who is connected anyway.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection

from qiyu.errors import CallRefused
from qiyu.model import Instant
from qiyu.protocol.packet import APP_ID
from qiyu.routing.hub import Hub
from qiyu.routing.msgid import first_id
from qiyu.storage.database import Database
from qiyu.storage.living_rooms import find_record, find_room
from qiyu.storage.messages import Stored, conversation_page, room_page


class Page(NamedTuple):
    """The newest messages of those asked for, the oldest first, and whether there are older ones."""

    messages: list[Stored]
    has_more: bool


class History:
    """What was said in app 10001 within the last `history_ms` (0: ever)."""

    def __init__(self, database: Database, hub: Hub, history_ms: int) -> None:
        self._database = database
        self._hub = hub
        self._history_ms = history_ms

    async def of_room(self, user_id: int, room_id: int, *, before: int | None, limit: int, now: Instant) -> Page:
        """What was said in a room, below the msgId `before`. For its members and its anchor.

        Of a room that is closed, for its anchor alone. Raises `CallRefused`: 403 for anybody else, 404 where there
        never was such a room. One query; two or three for the anchor who is not in the room.
        """
        is_member = self._is_member(user_id, room_id)
        after = self._after(now)

        def work(connection: Connection) -> list[Stored]:
            if not is_member:
                _check_anchor(connection, user_id, room_id)
            return room_page(connection, APP_ID, room_id, after=after, before=before, limit=limit + 1)

        return _page(await self._database.read(work), limit)

    async def of_conversation(
        self, user_id: int, other_id: int, *, before: int | None, limit: int, now: Instant
    ) -> Page:
        """What two users have sent each other, below the msgId `before`. One query."""
        rows = await self._database.read(
            conversation_page, APP_ID, user_id, other_id, after=self._after(now), before=before, limit=limit + 1
        )
        return _page(rows, limit)

    def _is_member(self, user_id: int, room_id: int) -> bool:
        session = self._hub.find(APP_ID, user_id)
        return session is not None and session.is_in(room_id)

    def _after(self, now: Instant) -> int:
        """The msgId below all that is shown: what is older may be kept, but for other reasons."""
        return first_id(now.unix_ms - self._history_ms) - 1 if self._history_ms else 0


def _check_anchor(connection: Connection, user_id: int, room_id: int) -> None:
    # In this order: a room that is closed between the two is found in the record.
    room = find_room(connection, room_id)
    is_open = room is not None
    room = room or find_record(connection, room_id)
    if room is None:
        raise CallRefused(404, f"roomId = {room_id}: there never was such a room")
    if room.anchor_id != user_id:
        who = "its members and its anchor" if is_open else "its anchor, now that it is closed,"
        raise CallRefused(403, f"roomId = {room_id}: only {who} may read what was said there")


def _page(rows: list[Stored], limit: int) -> Page:
    """`rows`: one more than `limit`, where there are as many."""
    return Page(rows[-limit:], len(rows) > limit)
