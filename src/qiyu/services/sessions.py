"""Sessions and logins: who may be here, who replaces whom, and when the silent go.

Everything that ends a session goes through `end` or `refuse`, so that the tables never hold a session that has ended.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import structlog

from qiyu.errors import EndReason, ErrorCode, ProtocolViolation, Refused, WsClose
from qiyu.living.events import RoomEvents
from qiyu.metrics import Metrics
from qiyu.model import Address, Instant, address_text
from qiyu.presence.presence import User
from qiyu.protocol.handshake import BadRequest
from qiyu.protocol.packet import MsgCode
from qiyu.routing.endpoint import Door, State
from qiyu.routing.hub import Hub
from qiyu.routing.inflight import InFlight
from qiyu.routing.outbox import Outbox
from qiyu.routing.session import Room, Session
from qiyu.services.pins import Pins
from qiyu.services.refusals import Refusals
from qiyu.services.replay import Replays
from qiyu.services.tokens import Identity

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SessionRules:
    """Seconds; 0 means no limit."""

    login_seconds: float
    idle_seconds: float
    ping_seconds: float = 0
    """After so much silence a peer is asked for a sign of life, where its wire has a way to."""


@dataclass(frozen=True, slots=True)
class ClientStates:
    """What a client becomes (handlers/registry.py has the handlers of each)."""

    not_logged_in: State
    logged_in: State


class Sessions:
    """The sessions of this instance, from their first byte to their last: the owner of clients' endpoints."""

    def __init__(
        self,
        hub: Hub,
        in_flight: InFlight,
        events: RoomEvents,
        replays: Replays,
        states: ClientStates,
        rules: SessionRules,
        metrics: Metrics,
        refusals: Refusals,
    ) -> None:
        self._refusals = refusals
        self._hub = hub
        self._in_flight = in_flight
        self.events = events
        self._replays = replays
        self._states = states
        self.rules = rules
        self._metrics = metrics
        self._ids = itertools.count(1)
        self.pins: Pins | None = None
        """Where each user is among several instances; None for an instance that is alone."""
        self.make: type[Session] = Session
        self._not_logged_in: dict[Session, float] = {}  # when it was opened; the oldest first

    def __iter__(self) -> Iterator[Session]:
        """All of them, logged in or not; the tables must not change meanwhile."""
        yield from self._not_logged_in
        yield from self._hub

    def open(self, door: Door, outbox: Outbox, address: Address, now: Instant) -> Session:
        """A connection was accepted; it has `login_seconds` to say who it is."""
        session = self.make(next(self._ids), door, outbox, address, now.monotonic)
        self._not_logged_in[session] = now.monotonic
        return session

    def upgraded(self, session: Session) -> None:
        """It may speak packets now, and its LOGIN is still to come; the time for that runs on."""
        session.state = self._states.not_logged_in

    def let_go(self, session: Session) -> None:
        """It has not logged in, and is somebody else's from here on."""
        del self._not_logged_in[session]

    def log_in(self, session: Session, identity: Identity, now: Instant) -> None:
        """The session is `identity` from here on; whichever session was, ends as `replaced`."""
        del self._not_logged_in[session]
        session.state = self._states.logged_in
        session.wire.lift()
        session.identify(identity.app_id, identity.user_id, identity.nickname, identity.avatar)
        session.http_session = identity.http_session
        replaced = self._hub.bind(session)
        if replaced is not None:
            self._metrics.sessions_replaced += 1
            self.end(replaced, EndReason.REPLACED)
        if self.pins is None:
            self._replays.begin(session)
        else:  # the inbox is read once others can find the session
            self._replays.hold(session)
            self.pins.log_in(User(session.app_id, session.user_id), session.id, now.unix_ms)
        self._metrics.logins += 1
        log.debug("logged in", session=session.id, user=session.user_id, app=session.app_id, wire=session.wire.name)

    def log_out(self, session: Session) -> None:
        """The client leaves: it gets its answer, and the connection closes."""
        session.make_way()
        session.answer(MsgCode.LOGOUT)
        self.dismiss(session, WsClose.NORMAL, "logout")

    def dismiss(self, session: Session, ws_close: int, reason: str) -> None:
        """Close in the wire's own terms, with no packet; what is owed is still sent."""
        self._forget(session)
        session.close(ws_close, reason)

    def enter_room(self, session: Session, room_id: int) -> Room:
        """Put the session into a room, and out of the one it was in."""
        session.outbox.gap = False  # what is dropped from here on, it has not been told of
        before = session.room
        room = self._hub.enter(session, room_id)
        if before is not room:
            if before is not None:
                self.events.left(session, before)
            self.events.entered(session, room)
        return room

    def online(self, room: Room) -> int:
        """How many are in the room, on whichever instance."""
        return self.events.online(room)

    def leave_room(self, session: Session) -> None:
        """Take the session out of its room, if it is in one."""
        room = session.room
        if room is not None:
            self._hub.leave(session)
            self.events.left(session, room)

    def end(self, session: Session, reason: EndReason, *, retry_after_ms: int = 0) -> None:
        """End a session that did nothing wrong: LOGOUT with the reason, then close."""
        log.debug("session ended", session=session.id, user=session.user_id, reason=reason.text)
        self._forget(session)
        session.end(reason, retry_after_ms=retry_after_ms)

    def refuse(self, session: Session, violation: ProtocolViolation) -> None:
        """End a session whose peer broke the protocol, or may not be here: ERROR with the reason, then close."""
        log.debug(
            "connection refused",
            session=session.id,
            user=session.user_id,
            address=address_text(session.address),
            reason=violation.reason,
        )
        if isinstance(violation, BadRequest):
            self._refusals.upgrade(session.address, violation.status, violation.reason)
        self._forget(session)
        if not session.ended:
            session.make_way()
            session.send_error(Refused(violation.code, f"{violation.reason}; the connection is closed"))
            session.close(violation.ws_close, violation.reason)

    def overflowed(self, session: Session) -> None:
        """The peer does not read, and is owed more than it may be."""
        if session.ended:
            return
        self._metrics.sessions_slow += 1
        self._metrics.packets_discarded += session.outbox.packets
        self.end(session, EndReason.SLOW)

    def closed(self, session: Session) -> None:
        """The connection is gone, whoever closed it."""
        self._forget(session)
        session.ended = True
        session.held = None

    def sweep(self, now: Instant) -> None:
        """End who did not log in in time, and who has been silent too long; ask the quiet; give unused memory back."""
        self._sweep_not_logged_in(now)
        silent_since = now.monotonic - self.rules.idle_seconds if self.rules.idle_seconds else float("-inf")
        quiet_since = now.monotonic - self.rules.ping_seconds if self.rules.ping_seconds else float("-inf")
        idle = []
        for session in self._hub:
            if session.last_seen <= quiet_since:
                if session.last_seen <= silent_since:
                    idle.append(session)
                    continue
                session.ask_for_life()
            self._in_flight.give_back(session)
        for session in idle:
            self._metrics.sessions_idle += 1
            self.end(session, EndReason.IDLE)

    def end_all(self, reason: EndReason, retry_after_ms: Callable[[], int]) -> None:
        """End every session, logged in or not; each with its own time to come back, so that they do not all at once."""
        for session in list(self):
            self.end(session, reason, retry_after_ms=retry_after_ms())

    def _sweep_not_logged_in(self, now: Instant) -> None:
        if not self.rules.login_seconds:
            return
        since = now.monotonic - self.rules.login_seconds
        # Not by last_seen, which a WebSocket moves with each ping.
        late = list(itertools.takewhile(lambda opened: opened[1] <= since, self._not_logged_in.items()))
        for session, _ in late:
            self._metrics.logins_timed_out += 1
            reason = f"no login within {self.rules.login_seconds:g} s"
            self.refuse(session, ProtocolViolation(reason, code=ErrorCode.NOT_LOGGED_IN))

    def _forget(self, session: Session) -> None:
        self._not_logged_in.pop(session, None)
        self.leave_room(session)
        self._hub.unbind(session)
        self._replays.forget(session)
        if self.pins is not None and session.user_id:
            self.pins.log_out(User(session.app_id, session.user_id), session.id)
