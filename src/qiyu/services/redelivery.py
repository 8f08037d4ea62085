"""Sending again what was not acknowledged: one timer a message, not one a receiver.

All wait equally long, so the timers are queues, oldest first. When a message is due, its receivers are those that still
have it in their in-flight table; mostly there are none, and the message itself knows that. After the last attempt it
is taken off those tables: a direct message stays in the inbox, a room's is left to the history.

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

    def sent_to_room(self, room: Room, publication: Publication, now: Instant) -> None:
        """A message went out to the members of a room."""
        if publication.unacked:
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
        """Send again what is due."""
        budget = RESENDS_A_TICK
        while budget > 0 and self._to_rooms and self._to_rooms[0].due <= now.monotonic:
            budget -= self._room_due(self._to_rooms.popleft(), now)
        while budget > 0 and self._to_sessions and self._to_sessions[0].due <= now.monotonic:
            budget -= self._session_due(self._to_sessions.popleft(), now)

    def _room_due(self, timer: _ToRoom, now: Instant) -> int:
        if not timer.publication.unacked:
            return 1
        if not timer.attempts_left:
            self._metrics.room_deliveries_given_up += self._give_up_room(timer)
            return len(timer.room.members)
        for session in timer.room.members:
            table = session.room_in_flight
            if table and table.get(timer.publication.msg_id) is timer.publication:
                self._router.again(session, timer.publication)
        due = now.monotonic + self._rules.seconds
        self._to_rooms.append(timer._replace(due=due, attempts_left=timer.attempts_left - 1))
        return len(timer.room.members)

    def _session_due(self, timer: _ToSession, now: Instant) -> int:
        if not timer.attempts_left:
            self._count_given_up(*self._give_up_session(timer))
            return len(timer.msg_ids)
        still = []
        for msg_id in timer.msg_ids:
            publication = _in_flight(timer.session, msg_id)
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
                gone = self._give_up_room(self._to_rooms.popleft())
            elif self._to_sessions:
                gone = sum(self._give_up_session(self._to_sessions.popleft()))
            else:
                return
            self._metrics.in_flight_crowded_out += gone

    def _give_up_room(self, timer: _ToRoom) -> int:
        msg_id = timer.publication.msg_id
        gone = 0
        if timer.publication.unacked:
            for session in timer.room.members:
                table = session.room_in_flight
                if table and table.get(msg_id) is timer.publication:
                    del table[msg_id]
                    gone += 1
            timer.publication.unacked -= gone
            self._in_flight.deliveries -= gone
        return gone

    def _give_up_session(self, timer: _ToSession) -> tuple[int, int]:
        """How many (room messages, direct messages) are no longer waited for."""
        session = timer.session
        gone = [0, 0]
        for msg_id in timer.msg_ids:
            for kind, table in enumerate((session.room_in_flight, session.direct_in_flight)):
                publication = table.pop(msg_id, None) if table else None
                if publication is not None:
                    publication.unacked -= 1
                    gone[kind] += 1
        if gone[1]:
            session.late_acks = True
        self._in_flight.deliveries -= sum(gone)
        return gone[0], gone[1]

    def _count_given_up(self, room: int, direct: int) -> None:
        self._metrics.room_deliveries_given_up += room
        self._metrics.direct_deliveries_given_up += direct


def _in_flight(session: Session, msg_id: str) -> Publication | None:
    for table in (session.room_in_flight, session.direct_in_flight):
        publication = table.get(msg_id) if table else None
        if publication is not None:
            return publication
    return None
