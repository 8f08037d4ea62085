"""Between the drivers and the core: bytes of a session to the handler of each packet, and every fault to its answer.

This is all that a driver calls, and nothing in it waits. A test drives it just as a socket would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from qiyu.errors import EndReason, ErrorCode, ProtocolViolation, Refused, WsClose
from qiyu.handlers.ack import acknowledge
from qiyu.handlers.registry import BEFORE_LOGIN, LOGGED_IN
from qiyu.model import Instant
from qiyu.protocol.bodies import client_msg_id_of
from qiyu.protocol.packet import Buffer, Packet
from qiyu.protocol.wire import Wire
from qiyu.routing.outbox import Outbox
from qiyu.routing.session import Session
from qiyu.services.node import Node

HELD_PACKETS: Final = 1000
HELD_BYTES: Final = 256 * 1024
"""How much one session may send while an earlier packet of its waits for the database."""


class Dispatcher:
    """One instance, as its drivers see it."""

    def __init__(self, node: Node) -> None:
        self.node = node

    def opened(self, wire: Wire, outbox: Outbox, now: Instant) -> Session:
        """A connection was accepted."""
        self.node.metrics.connections_accepted += 1
        return self.node.sessions.open(wire, outbox, now)

    def received(self, session: Session, data: Buffer, now: Instant) -> None:
        """Bytes came; after the session's end they are thrown away."""
        if session.ended:
            return
        wire = session.wire
        packets = wire.receive_data(data)
        if packets:
            session.last_seen = now.monotonic
            self.node.metrics.packets_received += len(packets)
            acks = packets[0].acks
            if acks is not None and len(packets) == 1 and session.user_id:
                self._acknowledge(session, acks)  # most reads of a busy server bring this, and nothing else
            elif session.held is None:
                self._handle(session, packets, now)
            else:
                self._hold(session, packets)
        if wire.has_output:
            session.last_seen = now.monotonic  # it answers a ping: a sign of life as good as a packet
            session.outbox.push(wire.data_to_send())
        if wire.error is not None:
            self._violated(session, wire.error)
        elif wire.peer_closed:
            self.node.sessions.dismiss(session, WsClose.NORMAL, "")

    def eof(self, session: Session) -> None:
        """The peer will send no more. It may still read what it is owed."""
        if session.ended:
            return
        session.wire.receive_eof()
        if session.wire.error is not None:
            self.node.metrics.protocol_violations += 1
        self.node.sessions.dismiss(session, WsClose.NORMAL, "")

    def resume(self, session: Session, answer: Callable[[Instant], None], now: Instant) -> None:
        """What the session waited for has come: `answer` it, as its handler would have, then handle what was held."""
        if session.ended:
            return
        held, session.held = session.held or [], None
        try:
            answer(now)
        except Refused as refusal:
            self._refused(session, refusal)
        if session.held is not None:  # it has to wait once more
            session.held = held
        else:
            self._handle(session, held, now)

    def overflowed(self, session: Session) -> None:
        """The session's outbox passed its hard bound."""
        self.node.sessions.overflowed(session)

    def crashed(self, session: Session) -> None:
        """A bug: this session ends, with no more said than that."""
        self.node.metrics.connections_crashed += 1
        self.node.sessions.dismiss(session, WsClose.INTERNAL_ERROR, "internal error")

    def closed(self, session: Session) -> None:
        """The connection is gone."""
        self.node.sessions.closed(session)

    def tick(self, now: Instant) -> None:
        """A few times a second: what is not to be late by a second."""
        self.node.redelivery.tick(now)
        self.node.replays.tick(now)

    def sweep(self, now: Instant) -> None:
        """About once a second: what is due by the clock."""
        self.node.sessions.sweep(now)
        self.node.room_events.tick()
        self.node.rings.sweep()

    def drain(self, retry_after_ms: Callable[[], int]) -> None:
        """This instance stops: every session is told when to come back."""
        self.node.sessions.end_all(EndReason.DRAIN, retry_after_ms)

    def _handle(self, session: Session, packets: list[Packet], now: Instant) -> None:
        node = self.node
        rest = iter(packets)
        for packet in rest:
            if packet.acks is not None and session.user_id:
                self._acknowledge(session, packet.acks)
                continue
            handler = (LOGGED_IN if session.user_id else BEFORE_LOGIN).get(packet.code)
            try:
                if handler is None:
                    _refuse_code(session, packet.code)
                else:
                    handler(node, session, packet.body, now)
            except Refused as refusal:
                refusal.client_msg_id = client_msg_id_of(packet.body)
                self._refused(session, refusal)
            except ProtocolViolation as violation:
                self._violated(session, violation)
            if session.ended:
                return
            if session.held is not None:
                self._hold(session, rest)
                return

    def _hold(self, session: Session, packets: Iterable[Packet]) -> None:
        held = session.held or []
        session.held = held
        size = sum(len(packet.body) for packet in held)
        for packet in packets:
            if packet.acks is not None:  # an ACK is good whenever it comes
                self._acknowledge(session, packet.acks)
                continue
            size += len(packet.body)
            if len(held) < HELD_PACKETS and size <= HELD_BYTES:
                held.append(Packet(packet.code, bytes(packet.body)))  # the buffer it lies in is read into again
                continue
            reason = "too many packets while an earlier one waits for its answer; send it again later"
            refusal = Refused(ErrorCode.UNAVAILABLE, reason, client_msg_id=client_msg_id_of(packet.body))
            self._refused(session, refusal)

    def _acknowledge(self, session: Session, msg_ids: list[str]) -> None:
        self.node.metrics.packets_received += len(msg_ids) - 1  # the run was counted as one
        acknowledge(self.node, session, msg_ids)

    def _refused(self, session: Session, refusal: Refused) -> None:
        self.node.metrics.packets_refused += 1
        session.send_error(refusal)

    def _violated(self, session: Session, violation: ProtocolViolation) -> None:
        if session.ended:  # by a packet before the fault
            return
        self.node.metrics.protocol_violations += 1
        self.node.sessions.refuse(session, violation)


def _refuse_code(session: Session, code: int) -> None:
    if not session.user_id:
        raise ProtocolViolation(f"code {code}: expected 1001 (LOGIN) first", code=ErrorCode.NOT_LOGGED_IN)
    expected = ", ".join(f"{known:d} ({known.name})" for known in sorted(LOGGED_IN))  # type: ignore[attr-defined]
    raise Refused(ErrorCode.MALFORMED, f"code {code}: expected one of {expected}")
