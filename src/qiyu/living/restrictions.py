"""Who is muted in living rooms and removed from them, as this instance knows it: nothing here waits.

What was set, by whichever instance, comes from the database (living/moderation.py); then what is to be done for the
members here is done: so the instance that was asked, which does so at once, is no other case.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from qiyu.living.events import RoomEvents
from qiyu.model import Instant
from qiyu.protocol.packet import APP_ID, MAX_ID
from qiyu.storage.moderation import Restriction

UNTIL_CLOSED: Final = MAX_ID
"""The time of what lasts as long as the room is open, in milliseconds since 1970."""


class Restrictions:
    """Those of the living rooms of app 10001 that are in force."""

    def __init__(self, events: RoomEvents) -> None:
        self._events = events
        self._rooms: dict[int, dict[int, Restriction]] = {}
        self.generation = 0
        """How often something was set or a room closed here: what was read before the last time is out of date."""

    def __repr__(self) -> str:
        return f"<Restrictions rooms={len(self._rooms)} users={sum(map(len, self._rooms.values()))}>"

    def muted_until(self, app_id: int, room_id: int, user_id: int, now: Instant) -> int:
        """Until when a user is muted in a room, in milliseconds since 1970; 0: not at all."""
        found = self._find(app_id, room_id, user_id)
        return found.muted_until if found is not None and found.muted_until > now.unix_ms else 0

    def removed_until(self, app_id: int, room_id: int, user_id: int, now: Instant) -> int:
        """Until when a user may not enter a room, as `muted_until`."""
        found = self._find(app_id, room_id, user_id)
        return found.removed_until if found is not None and found.removed_until > now.unix_ms else 0

    def of_room(self, room_id: int, now: Instant) -> list[Restriction]:
        """Who is muted or removed in a room now, by user id."""
        found = self._rooms.get(room_id, {}).values()
        return sorted((each for each in found if _is_in_force(each, now)), key=lambda each: each.user_id)

    def apply(self, new: Restriction, now: Instant) -> None:
        """Know it from here on, and do for the members here what it says, unless that was done."""
        room = self._rooms.get(new.room_id, {})
        old = room.get(new.user_id) or Restriction(new.room_id, new.user_id, 0, 0)
        if _is_in_force(new, now):
            self._rooms.setdefault(new.room_id, room)[new.user_id] = new
        elif room.pop(new.user_id, None) is not None and not room:
            del self._rooms[new.room_id]
        for event in _events(old, new, now):
            self._events.moderated(new.room_id, new.user_id, event)

    def forget(self, room_id: int) -> None:
        """The room is closed."""
        self.generation += 1
        self._rooms.pop(room_id, None)

    def _find(self, app_id: int, room_id: int, user_id: int) -> Restriction | None:
        room = self._rooms.get(room_id)
        return room.get(user_id) if room is not None and app_id == APP_ID else None


def until_words(until_ms: int) -> str:
    """How a refusal says how long it lasts."""
    if until_ms == UNTIL_CLOSED:
        return "as long as the room is open"
    return f"until {datetime.fromtimestamp(until_ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _events(old: Restriction, new: Restriction, now: Instant) -> Iterator[str]:
    was_muted, is_muted = old.muted_until > now.unix_ms, new.muted_until > now.unix_ms
    if is_muted != was_muted:
        yield "muted" if is_muted else "unmuted"
    if new.removed_until > now.unix_ms and new.removed_until != old.removed_until:
        yield "removed"


def _is_in_force(restriction: Restriction, now: Instant) -> bool:
    return max(restriction.muted_until, restriction.removed_until) > now.unix_ms
