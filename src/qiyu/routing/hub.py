"""Who is connected here: user to session, room to members. One session a user and app; one room a session.

There is one door out of a room, `Hub.leave`, whoever opens it: who moves on, logs out, loses its connection or is in a
room that closes. What goes with membership ends there, and nowhere else: no room message is in flight to who is no
member.
"""

from __future__ import annotations

from collections.abc import Iterator

from qiyu.routing.inflight import InFlight
from qiyu.routing.session import Room, Session


class Hub:
    """The tables. A room is here while it has members."""

    def __init__(self, in_flight: InFlight) -> None:
        self._in_flight = in_flight
        self._users: dict[int, dict[int, Session]] = {}  # appId -> userId -> session
        self._rooms: dict[tuple[int, int], Room] = {}

    def __repr__(self) -> str:
        return f"<Hub sessions={len(self)} rooms={len(self._rooms)}>"

    def __len__(self) -> int:
        """How many sessions are logged in."""
        return sum(map(len, self._users.values()))

    def __iter__(self) -> Iterator[Session]:
        """Every session that is logged in; the tables must not change meanwhile."""
        for users in self._users.values():
            yield from users.values()

    def find(self, app_id: int, user_id: int) -> Session | None:
        """The session of a user, if one is connected here."""
        users = self._users.get(app_id)
        return users.get(user_id) if users is not None else None

    def find_room(self, app_id: int, room_id: int) -> Room | None:
        """The room, if it has members here."""
        return self._rooms.get((app_id, room_id))

    def bind(self, session: Session) -> Session | None:
        """Make `session` the one of its user; returns the one it replaces, which the caller ends."""
        users = self._users.setdefault(session.app_id, {})
        replaced = users.get(session.user_id)
        users[session.user_id] = session
        return replaced if replaced is not session else None

    def unbind(self, session: Session) -> None:
        """Forget `session`: out of its room, and out of its user's place unless another has taken that since.

        It owes no ACK any more.
        """
        self.leave(session)
        self._in_flight.forget(session)
        users = self._users.get(session.app_id)
        if users is not None and users.get(session.user_id) is session:
            del users[session.user_id]
            if not users:
                del self._users[session.app_id]

    def enter(self, session: Session, room_id: int) -> Room:
        """Put `session` into a room, and out of the one it was in; into the same one again is nothing."""
        room = session.room
        if room is not None:
            if room.id == room_id:
                return room
            self.leave(session)
        key = (session.app_id, room_id)
        room = self._rooms.get(key)
        if room is None:
            room = self._rooms[key] = Room(session.app_id, room_id)
        room.members.add(session)
        if room.feed is not None:
            room.feed.apart[session] = None
        session.room = room
        return room

    def leave(self, session: Session) -> None:
        """Take `session` out of the room it is in, if any; it owes no ACK for what was said there."""
        room = session.room
        if room is None:
            return
        session.room = None
        self._in_flight.forget_room(session)
        room.members.discard(session)
        if room.feed is not None:
            room.feed.apart.pop(session, None)
        if not room.members:
            del self._rooms[room.app_id, room.id]

    def empty(self, app_id: int, room_id: int) -> None:
        """Take everybody out of a room, if anybody is in it."""
        room = self.find_room(app_id, room_id)
        if room is not None:
            for session in list(room.members):
                self.leave(session)
