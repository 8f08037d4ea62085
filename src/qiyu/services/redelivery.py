"""Sending again what was not acknowledged: one timer a message, not one a receiver.

All wait equally long, so the timers are queues, oldest first. When a message is due, its receivers are those that still
have it in their in-flight table; mostly there are none, and the message itself knows that. After the last attempt it
is waited for no longer: a direct message stays in the inbox, a room's is left to the history.

The process has a bound: beyond it the oldest room message gives way, as if its attempts were spent, and then the oldest
direct one.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final, NamedTuple

from qiyu.metrics import Metrics
from qiyu.model import Instant
from qiyu.routing.inflight import InFlight
from qiyu.routing.publication import Publication
from qiyu.routing.router import Router
from qiyu.routing.session import Room, Session

TIMER_BYTES: Final = 300
ROOM_TIMER_BYTES: Final = 2_000

RESENDS_A_TICK: Final = 10_000
"""About how many packets are sent again before others have their turn; the rest is for the next tick."""


@dataclass(frozen=True, slots=True)
class RetryRules:
    """`seconds` between attempts, `attempts` in all (1: never again), and the most deliveries in flight."""

    seconds: float
    attempts: int
    deliveries: int


class _ToRoom(NamedTuple):
    due: float
    attempts_left: int
    room: Room
    publication: Publication


class _ToSession(NamedTuple):
    due: float
    attempts_left: int
    session: Session
    msg_ids: tuple[str, ...]


class Redelivery:
    """The timers of all messages in flight."""

    def __init__(self, router: Router, in_flight: InFlight, rules: RetryRules, metrics: Metrics) -> None:
        self._router = router
        self._in_flight = in_flight
        self._rules = rules
        self._metrics = metrics
        self._to_rooms: deque[_ToRoom] = deque()
        self._to_sessions: deque[_ToSession] = deque()

    def __repr__(self) -> str:
        return f"<Redelivery {len(self)} timers, {self._in_flight!r}>"

    def __len__(self) -> int:
        return len(self._to_rooms) + len(self._to_sessions)

    @property
    def held_bytes(self) -> int:
        """A timer takes a few hundred bytes; a room's has a packet as well, with copies for each kind of wire."""
        return ROOM_TIMER_BYTES * len(self._to_rooms) + TIMER_BYTES * len(self._to_sessions)

    def sent_to_room(self, room: Room, publication: Publication, now: Instant) -> None:
        """A message went out to the members of a room."""
        if publication.noted or publication.log is not None:
            self._to_rooms.append(
                _ToRoom(now.monotonic + self._rules.seconds, self._rules.attempts - 1, room, publication)
            )
            self._keep_bound()

    def sent_to(self, session: Session, msg_ids: tuple[str, ...], now: Instant) -> None:
        """Messages went out to one session: a direct one, or what it had missed."""
        due = now.monotonic + self._rules.seconds
        self._to_sessions.append(_ToSession(due, self._rules.attempts - 1, session, msg_ids))
        self._keep_bound()

    def tick(self, now: Instant) -> None:
        """Send again what is due, and let go of what has been acknowledged."""
        self._let_go()
        budget = RESENDS_A_TICK
        while budget > 0 and self._to_rooms and self._to_rooms[0].due <= now.monotonic:
            budget -= self._room_due(self._to_rooms.popleft(), now)
        while budget > 0 and self._to_sessions and self._to_sessions[0].due <= now.monotonic:
            budget -= self._session_due(self._to_sessions.popleft(), now)

    def _let_go(self) -> None:
        """Forget timers of messages for which nobody owes an ACK: mostly all of them, long before they are due.

        Only from the front: a member that owes one keeps what came after it for a while, and no longer than it is due.
        """
        floors: dict[Room, int] = {}
        to_rooms, to_sessions = self._to_rooms, self._to_sessions
        while to_rooms and self._is_done(to_rooms[0], floors):
            to_rooms.popleft()
        while to_sessions and not any(_is_owed(to_sessions[0].session, each) for each in to_sessions[0].msg_ids):
            to_sessions.popleft()

    def _is_done(self, timer: _ToRoom, floors: dict[Room, int]) -> bool:
        room, publication = timer.room, timer.publication
        log = publication.log
        if log is not None:
            if room not in floors:
                floors[room] = self._in_flight.acknowledged_to(room)
            if publication.number >= floors[room]:
                return False
            log.settle(publication.number)
        return not publication.noted

    def _room_due(self, timer: _ToRoom, now: Instant) -> int:
        if not self._in_flight.is_owed(timer.room.members, timer.publication):
            return 1
        if not timer.attempts_left:
            self._metrics.room_deliveries_given_up += self._in_flight.drop_room(timer.room.members, timer.publication)
            return len(timer.room.members)
        for session in self._in_flight.owing(timer.room.members, timer.publication):
            self._router.again(session, timer.publication)
        due = now.monotonic + self._rules.seconds
        self._to_rooms.append(timer._replace(due=due, attempts_left=timer.attempts_left - 1))
        return len(timer.room.members)

    def _session_due(self, timer: _ToSession, now: Instant) -> int:
        if not timer.attempts_left:
            room, direct = self._in_flight.drop(timer.session, timer.msg_ids)
            self._metrics.room_deliveries_given_up += room
            self._metrics.direct_deliveries_given_up += direct
            return len(timer.msg_ids)
        still = []
        for msg_id in timer.msg_ids:
            publication = self._in_flight.find(timer.session, msg_id)
            if publication is not None:
                self._router.again(timer.session, publication)
                still.append(msg_id)
        if still:
            due = now.monotonic + self._rules.seconds
            self._to_sessions.append(_ToSession(due, timer.attempts_left - 1, timer.session, tuple(still)))
        return len(timer.msg_ids)

    def _keep_bound(self) -> None:
        while self._in_flight.deliveries > self._rules.deliveries:
            if self._to_rooms:
                timer = self._to_rooms.popleft()
                gone = self._in_flight.drop_room(timer.room.members, timer.publication)
            elif self._to_sessions:
                oldest = self._to_sessions.popleft()
                gone = sum(self._in_flight.drop(oldest.session, oldest.msg_ids))
            else:
                return
            self._metrics.in_flight_crowded_out += gone


def _is_owed(session: Session, msg_id: str) -> bool:
    """Whether the session owes an ACK for a message that went to it alone: those are in its tables, and in no range."""
    return any(table is not None and msg_id in table for table in (session.direct_in_flight, session.room_in_flight))
