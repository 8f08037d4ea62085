"""Those who watch: WebSockets that came for a picture, once it is known that they may.

They come by the clients' door, and the upgrade's path says what they are; from there on they are not sessions: no user
is online by watching, and a login elsewhere ends nothing here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from typing import Final

from qiyu.errors import CLOSE_NO_SUCH_ROOM, EndReason, ErrorCode, ProtocolViolation, WsClose
from qiyu.living.streams import Streams, Viewer
from qiyu.metrics import Metrics
from qiyu.model import Address, Instant
from qiyu.protocol.frames import ping
from qiyu.routing.endpoint import Door, State
from qiyu.routing.outbox import Outbox
from qiyu.routing.session import Session

PING_SECONDS: Final = 30.0
"""How often a viewer is pinged, so that no proxy takes a wait for a picture for the end."""


class _Watch:
    """What a viewer came for."""

    __slots__ = ("login_since", "pinged", "room_id", "viewer")

    def __init__(self, room_id: int, now: float) -> None:
        self.room_id = room_id
        self.viewer: Viewer | None = None  # until it may watch
        self.login_since = now
        self.pinged = now


@dataclass(frozen=True, slots=True)
class ViewerStates:
    """What a viewer becomes (handlers/registry.py has the handlers of each)."""

    not_logged_in: State
    watching: State


class Viewers:
    """The owner of viewers' endpoints. `login_seconds` is what each has for its LOGIN; 0, any time."""

    def __init__(
        self,
        streams: Streams,
        states: ViewerStates,
        metrics: Metrics,
        *,
        login_seconds: float,
        need_no_login: bool,
    ) -> None:
        self._streams = streams
        self._states = states
        self.login_seconds = login_seconds
        self._metrics = metrics
        self.need_no_login = need_no_login
        """The pictures are open to all."""
        self._watches: dict[Session, _Watch] = {}
        self._not_logged_in: dict[Session, float] = {}  # the oldest first

    def __repr__(self) -> str:
        return f"<Viewers {len(self._watches)}, not logged in {len(self._not_logged_in)}>"

    def __len__(self) -> int:
        return len(self._watches)

    def open(self, door: Door, outbox: Outbox, address: Address, now: Instant) -> Session:
        """See `Owner.open`: no door is theirs alone."""
        raise NotImplementedError("viewers come by the door of clients")

    def adopt(self, session: Session, room_id: int, now: Instant) -> None:
        """A client whose upgrade asks for a room's picture is a viewer from here on; its LOGIN is to follow."""
        session.owner = self
        session.state = self._states.not_logged_in
        session.outbox.is_bulk = True
        self._watches[session] = _Watch(room_id, now.monotonic)
        self._not_logged_in[session] = now.monotonic

    def room_of(self, session: Session) -> int:
        """The room whose picture it came for."""
        return self._watches[session].room_id

    def begin(self, session: Session) -> None:
        """It may watch."""
        self._not_logged_in.pop(session, None)
        session.state = self._states.watching
        watch = self._watches[session]
        watch.viewer = Viewer(session.outbox, lambda: self._slow(session))
        self._streams.watch(watch.room_id, watch.viewer)

    def refuse(self, session: Session, violation: ProtocolViolation) -> None:
        """See `Owner.refuse`: the close frame has the reason."""
        ws_close: int = violation.ws_close
        if violation.code == ErrorCode.NO_SUCH_ROOM:
            ws_close = CLOSE_NO_SUCH_ROOM
        elif violation.code == ErrorCode.UNAVAILABLE:
            ws_close = WsClose.TRY_AGAIN_LATER
        self._end(session, ws_close, violation.reason)

    def dismiss(self, session: Session, ws_close: int, reason: str) -> None:
        """See `Owner.dismiss`."""
        self._end(session, ws_close, reason)

    def __iter__(self) -> Iterator[Session]:
        """Those that are there now."""
        return iter(list(self._watches))

    def overflowed(self, session: Session) -> None:
        """See `Owner.overflowed`."""
        if not session.ended:
            self._metrics.viewers_slow += 1
            self._slow(session)

    def closed(self, session: Session) -> None:
        """See `Owner.closed`."""
        self._forget(session)
        session.ended = True
        session.held = None

    def close_room(self, room_id: int) -> None:
        """The room is no more."""
        for session in [session for session, watch in self._watches.items() if watch.room_id == room_id]:
            self._end(session, WsClose.NORMAL, "closed")

    def sweep(self, now: Instant) -> None:
        """About once a second: let go who does not log in; ping the others now and then."""
        if self.login_seconds:
            since = now.monotonic - self.login_seconds
            for session in [one for one, opened in takewhile(lambda it: it[1] <= since, self._not_logged_in.items())]:
                self._metrics.logins_timed_out += 1
                reason = f"no login within {self.login_seconds:g} s"
                self.refuse(session, ProtocolViolation(reason, code=ErrorCode.NOT_LOGGED_IN))
        for session, watch in self._watches.items():
            if now.monotonic - watch.pinged >= PING_SECONDS and not session.outbox.size:
                watch.pinged = now.monotonic
                session.outbox.push(ping())

    def end_all(self, reason: EndReason, _retry_after_ms: Callable[[], int]) -> None:
        """This instance stops."""
        for session in list(self._watches):
            self._end(session, reason.ws_close, reason.text)

    def _slow(self, session: Session) -> None:
        session.make_way()
        session.outbox.discard()
        self._end(session, EndReason.SLOW.ws_close, EndReason.SLOW.text)

    def _end(self, session: Session, ws_close: int, reason: str) -> None:
        self._forget(session)
        session.close(ws_close, reason)

    def _forget(self, session: Session) -> None:
        self._not_logged_in.pop(session, None)
        watch = self._watches.pop(session, None)
        if watch is not None and watch.viewer is not None:
            self._streams.leave(watch.room_id, watch.viewer)
