"""Encoders: who may push a picture to which room, from the connection's first byte to its last.

Everything that ends a publisher passes through here, so the streams never have the push of one that is gone.

An encoder that is told to go is given time to read why: ffmpeg looks for answers once in ten packets, and has none to
send for as long as its encoder looks ahead. Meanwhile what it sends is thrown away.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from itertools import takewhile
from typing import Final

import structlog

from qiyu.errors import EndReason, ProtocolViolation, Refused, WsClose
from qiyu.living.streams import Push, PushRefused, Streams
from qiyu.metrics import Metrics
from qiyu.model import Address, Instant, address_text
from qiyu.protocol.rtmp import RtmpWire
from qiyu.routing.endpoint import Door, Endpoint
from qiyu.routing.outbox import Outbox

log = structlog.get_logger(__name__)

READING_SECONDS: Final = 5.0
"""What an encoder has to read why it is to go, and to close the connection by itself."""


class Publisher(Endpoint):
    """An encoder's connection; it has a `push` while it is on air."""

    __slots__ = ("push",)

    def __init__(self, endpoint_id: int, door: Door, outbox: Outbox, address: Address, now: float) -> None:
        super().__init__(endpoint_id, door, outbox, address, now)
        self.push: Push | None = None

    def _place(self) -> str:
        room = f" room={self.push.room_id}" if self.push else ""
        return f"{super()._place()}{room}"

    def send_error(self, error: Refused) -> None:
        """See `Endpoint.send_error`: an encoder that is refused anything has nothing more to do here."""
        self.owner.refuse(self, ProtocolViolation(error.reason, code=error.code))


class Publishers:
    """The owner of encoders' endpoints. `begin_seconds` is what one has from connecting to publishing; 0, any time."""

    def __init__(self, streams: Streams, begin_seconds: float, metrics: Metrics) -> None:
        self._streams = streams
        self.begin_seconds = begin_seconds
        self._metrics = metrics
        self._ids = itertools.count(1)
        self._not_begun: dict[Publisher, float] = {}  # when it was opened; the oldest first
        self._on_air: set[Publisher] = set()
        self._told: dict[Publisher, float | None] = {}  # that they are to go: when at the latest, as of the next sweep

    def __repr__(self) -> str:
        return f"<Publishers on_air={len(self._on_air)} not_begun={len(self._not_begun)}>"

    def __iter__(self) -> Iterator[Publisher]:
        """All that have not been told to go."""
        yield from self._not_begun
        yield from self._on_air

    def open(self, door: Door, outbox: Outbox, address: Address, now: Instant) -> Publisher:
        """See `Owner.open`."""
        publisher = Publisher(next(self._ids), door, outbox, address, now.monotonic)
        self._not_begun[publisher] = now.monotonic
        return publisher

    def begin(self, publisher: Publisher, room_id: int, now: Instant) -> None:
        """The encoder may push to this room. Raises `PushRefused` where another one does."""
        publisher.push = self._streams.begin(room_id, partial(self._ended, publisher), now)
        del self._not_begun[publisher]
        self._on_air.add(publisher)
        wire = publisher.wire
        assert isinstance(wire, RtmpWire)  # noqa: S101
        publisher.outbox.push(wire.accept())
        log.info("on air", room=room_id, publisher=publisher.id, address=address_text(publisher.address))

    def finish(self, publisher: Publisher, now: Instant) -> None:
        """The encoder has ended its push; it may begin another one."""
        if publisher.push is not None:
            self._forget(publisher)
            self._not_begun[publisher] = now.monotonic

    def refuse(self, publisher: Publisher, violation: ProtocolViolation) -> None:
        """See `Owner.refuse`: the encoder shows the reason."""
        self._metrics.pushes_refused += publisher.push is None and not publisher.ended
        self._end(publisher, WsClose.POLICY_VIOLATION, violation.reason)

    def dismiss(self, publisher: Publisher, ws_close: int, reason: str) -> None:
        """See `Owner.dismiss`."""
        self._told.pop(publisher, None)
        self._end(publisher, ws_close, reason)

    def overflowed(self, publisher: Publisher) -> None:
        """See `Owner.overflowed`: it asks for more answers than it reads."""
        publisher.make_way()
        self._end(publisher, WsClose.POLICY_VIOLATION, "too many answers wait to be read")

    def closed(self, publisher: Publisher) -> None:
        """See `Owner.closed`."""
        self._forget(publisher)
        self._told.pop(publisher, None)
        publisher.ended = True
        publisher.held = None

    def sweep(self, now: Instant) -> None:
        """About once a second: let go who has connected and does not publish, and who was told to go."""
        for publisher, until in list(self._told.items()):
            if until is None:
                self._told[publisher] = now.monotonic + READING_SECONDS
            elif until <= now.monotonic:
                del self._told[publisher]
                publisher.close(WsClose.POLICY_VIOLATION, "")
        if not self.begin_seconds:
            return
        since = now.monotonic - self.begin_seconds
        late = [publisher for publisher, opened in takewhile(lambda one: one[1] <= since, self._not_begun.items())]
        for publisher in late:
            self.refuse(publisher, ProtocolViolation(f"nothing was published within {self.begin_seconds:g} s"))

    def end_all(self, reason: EndReason, _retry_after_ms: Callable[[], int]) -> None:
        """This instance stops."""
        for publisher in [*self._not_begun, *self._on_air, *self._told]:
            self._end(publisher, reason.ws_close, "the server stops: push again in a moment")
            self._told.pop(publisher, None)
            publisher.close(reason.ws_close, "")

    def _ended(self, publisher: Publisher, reason: str) -> None:
        """The push was ended from this side."""
        self._end(publisher, WsClose.POLICY_VIOLATION, reason)

    def _end(self, publisher: Publisher, ws_close: int, reason: str) -> None:
        if publisher.ended or publisher in self._told:
            return
        self._log_end(publisher, reason)
        self._forget(publisher)
        farewell = publisher.wire.close(ws_close, reason) if reason else b""
        if farewell:
            publisher.outbox.push(farewell)
            self._told[publisher] = None
        else:  # it has gone, or does not speak RTMP
            publisher.close(ws_close, reason)

    @staticmethod
    def _log_end(publisher: Publisher, reason: str) -> None:
        push = publisher.push
        if push is None and not reason:
            return  # somebody looked whether anything listens here
        log.info(
            "push refused" if push is None else "off air",
            room=None if push is None else push.room_id,
            publisher=publisher.id,
            address=address_text(publisher.address),
            reason=reason or "the encoder ended it",
        )

    def _forget(self, publisher: Publisher) -> None:
        self._not_begun.pop(publisher, None)
        self._on_air.discard(publisher)
        push, publisher.push = publisher.push, None
        if push is not None:
            self._streams.finish(push)


__all__ = ["Publisher", "Publishers", "PushRefused"]
