"""Entering a room: whether it is open, what the member missed in it, and then the step inside.

The first two may be for the database to say, and which message of the room is the newest. Then the session waits where
it is, and so does what it sends meanwhile (`Dispatcher.resume` goes on).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeAlias

from qiyu.errors import ErrorCode, Refused
from qiyu.living.directory import RoomDirectory
from qiyu.living.restrictions import Restrictions, until_words
from qiyu.metrics import Metrics
from qiyu.model import Instant
from qiyu.protocol.bodies import RoomAnswer, encode_json
from qiyu.protocol.packet import MsgCode
from qiyu.routing.session import Session
from qiyu.services.catch_up import CatchUp, Missed
from qiyu.services.homes import RoomKey
from qiyu.services.lookups import LookUps
from qiyu.services.sessions import Sessions

Found: TypeAlias = Callable[[bool | None, Instant], None]
"""What to do once it is known whether a room is open; None where it could not be found out."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What one session asks for."""

    session: Session
    room_id: int
    after: int | None = None
    """The msgId that the member saw last: it is sent what came since."""
    client_msg_id: str = ""
    is_answered: bool = False
    """It is told with a packet that it is inside; a login that names a room is not."""

    def refused(self, code: ErrorCode, why: str) -> Refused:
        """The error; it names the packet it is about, for at a later step nobody else knows that."""
        return Refused(code, f"roomId {self.room_id}: {why}", client_msg_id=self.client_msg_id)


class RoomHomes(Protocol):
    """Whether rooms have a home that can be reached (services/rooms_here.py)."""

    def is_ready(self, key: RoomKey, /) -> bool:
        """Whether a room may be entered now."""
        ...

    def when_ready(self, key: RoomKey, session: Session, then: Callable[[bool, Instant], None], /) -> bool:
        """Have `then` called once it may; with False, where that will not be soon. False if too many wait."""
        ...


class Entering:
    """The one way into a room. Each of its steps goes on at once, or when what it waits for has been looked up.

    Each raises `Refused` if the room may not be entered: 404 where it is not open, 403 for who was removed from it, 503
    where nobody can say now.
    """

    def __init__(
        self,
        sessions: Sessions,
        directory: RoomDirectory,
        restrictions: Restrictions,
        catch_up: CatchUp,
        metrics: Metrics,
    ) -> None:
        self._metrics = metrics
        self._sessions = sessions
        self._directory = directory
        self._restrictions = restrictions
        self._catch_up = catch_up
        self.homes: RoomHomes | None = None
        """None for an instance that is alone, where every room is at home."""
        self.lookups: LookUps[int, Found] = LookUps()
        """Rooms of which only the database knows whether they are open."""

    def __repr__(self) -> str:
        return f"<Entering {self.lookups!r}>"

    def begin(self, entry: Entry, now: Instant) -> None:
        """Enter if the room is open."""
        is_open = self._directory.is_open(entry.session.app_id, entry.room_id, now)
        if is_open is not None:
            self._found(entry, is_open, now)
            return
        if not self.lookups.add(entry.room_id, entry.session, partial(self._found, entry)):
            raise entry.refused(ErrorCode.UNAVAILABLE, "too many are entering rooms; try again")
        entry.session.hold()

    def leave(self, session: Session) -> None:
        """Leave the room, if the session is in one, and tell it so."""
        self._sessions.leave_room(session)
        _answer(session, RoomAnswer(room_id=None, online=0))

    def _found(self, entry: Entry, is_open: bool | None, now: Instant) -> None:
        if is_open is None:
            raise entry.refused(ErrorCode.UNAVAILABLE, "the database does not answer; try again")
        if not is_open:
            raise entry.refused(ErrorCode.NO_SUCH_ROOM, "no such open room")
        self._check_removed(entry, now)
        if self._waits_for_home(entry):
            return
        may_ask = self._catch_up.may_ask(entry.session)
        if not may_ask and entry.after is not None:
            self._metrics.catch_ups_refused += 1
            raise entry.refused(ErrorCode.UNAVAILABLE, "you come back too often; try again in a second")
        if self._is_known(entry) or not may_ask:
            self._enter(entry, now)
        elif self._catch_up.look_up((entry.session.app_id, entry.room_id), entry.session, partial(self._loaded, entry)):
            entry.session.hold()
        elif entry.after is None:
            self._enter(entry, now)
        else:
            raise entry.refused(ErrorCode.UNAVAILABLE, "too many are coming back; try again")

    def _is_known(self, entry: Entry) -> bool:
        """Whether memory has all that the answer says, and what the member missed."""
        key = (entry.session.app_id, entry.room_id)
        if entry.is_answered and not self._catch_up.knows_newest(key):
            return False
        return entry.after is None or self._catch_up.knows(key, entry.after)

    def _loaded(self, entry: Entry, now: Instant) -> None:
        if self._directory.is_open(entry.session.app_id, entry.room_id, now) is False:
            raise entry.refused(ErrorCode.NO_SUCH_ROOM, "it was closed")  # meanwhile
        self._check_removed(entry, now)
        if not self._waits_for_home(entry):
            self._enter(entry, now)

    def _waits_for_home(self, entry: Entry) -> bool:
        """Then the way begins anew when the room has one; a look-up meanwhile may be of what was said before."""
        if self.homes is None:
            return False
        key = RoomKey(entry.session.app_id, entry.room_id)
        if self.homes.is_ready(key):
            return False
        if not self.homes.when_ready(key, entry.session, partial(self._has_home, entry)):
            raise entry.refused(ErrorCode.UNAVAILABLE, "too many are entering rooms; try again")
        entry.session.hold()
        return True

    def _has_home(self, entry: Entry, has_one: bool, now: Instant) -> None:
        if not has_one:
            raise entry.refused(ErrorCode.UNAVAILABLE, "its home cannot be reached; try again")
        self.begin(entry, now)

    def _check_removed(self, entry: Entry, now: Instant) -> None:
        session = entry.session
        until = self._restrictions.removed_until(session.app_id, entry.room_id, session.user_id, now)
        if until:
            raise entry.refused(ErrorCode.FORBIDDEN, f"removed by the anchor, {until_words(until)}")

    def _enter(self, entry: Entry, now: Instant) -> None:
        """In one step a member, answered, and sent what it missed: nothing can come in between."""
        session = entry.session
        room = self._sessions.enter_room(session, entry.room_id)
        missed: Missed | None = None
        if entry.after is not None:
            missed = self._catch_up.missed(session, room.key, entry.after)
        if entry.is_answered:
            answer = RoomAnswer(
                room_id=room.id, online=self._sessions.online(room), last_msg_id=self._catch_up.newest(room.key)
            )
            answer.recovered = missed.recovered if missed is not None else None
            _answer(session, answer)
        if missed is not None:
            self._catch_up.send(session, missed, now)


def _answer(session: Session, answer: RoomAnswer) -> None:
    session.answer(MsgCode.ROOM, encode_json(answer).decode())
