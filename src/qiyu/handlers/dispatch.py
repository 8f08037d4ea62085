"""Between the drivers and the core: bytes of an endpoint to the handler of each packet, and every fault to its answer.

This is all that a driver calls, and nothing in it waits. A test drives it just as a socket would. Nor does it know what
an endpoint is: its state has the handlers, and its owner ends it (routing/endpoint.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

from qiyu.errors import EndReason, ErrorCode, ProtocolViolation, Refused, WsClose
from qiyu.model import Address, Instant
from qiyu.protocol.bodies import client_msg_id_of
from qiyu.protocol.packet import Buffer, Packet
from qiyu.routing.endpoint import Door, Endpoint
from qiyu.routing.outbox import Outbox
from qiyu.services.node import Node

PACKET_WORK: Final = 8
FRAME_WORK: Final = 2
"""What a packet and a frame cost at least, in units of about a microsecond; an ACK that is read in a run costs one."""
HELD_PACKETS: Final = 1000
HELD_BYTES: Final = 256 * 1024
"""How much one endpoint may send while an earlier packet of its waits for the database."""


class Dispatcher:
    """One instance, as its drivers see it."""

    def __init__(self, node: Node) -> None:
        self.node = node

    def opened(self, door: Door, outbox: Outbox, address: Address, now: Instant) -> Endpoint:
        """A connection from `address` was accepted at this door."""
        self.node.metrics.connections_accepted += 1
        return door.owner.open(door, outbox, address, now)

    def received(self, endpoint: Endpoint, data: Buffer, now: Instant) -> None:
        """Bytes came; after the endpoint's end they are thrown away."""
        if endpoint.ended:
            return
        wire = endpoint.wire
        packets = wire.receive_data(data)
        node = self.node
        if wire.frames:
            endpoint.last_seen = now.monotonic  # a ping, or the pong that the server asked for
            endpoint.spent += wire.frames
            node.metrics.work += FRAME_WORK * wire.frames
        if packets:
            endpoint.last_seen = now.monotonic
            acks = packets[0].acks
            take_acks = endpoint.state.take_acks
            if acks is not None and take_acks is not None and len(packets) == 1:
                # Most reads of a busy server bring this, and nothing else.
                node.metrics.packets_received += len(acks)
                node.metrics.work += len(acks)
                take_acks(node, endpoint, acks)
            else:
                node.metrics.packets_received += len(packets)
                node.metrics.work += PACKET_WORK * len(packets)
                endpoint.spent += len(packets)
                if endpoint.held is None:
                    self._handle(endpoint, packets, now)
                else:
                    self._hold(endpoint, packets)
        if endpoint.spent:
            spent, endpoint.spent = endpoint.spent, 0
            if endpoint.state.is_paced:
                node.limits.pace(endpoint, spent, now)
        if wire.error is not None or wire.peer_closed:
            self._left(endpoint, now)
        elif wire.has_output:
            endpoint.outbox.push(wire.data_to_send())

    def eof(self, endpoint: Endpoint, now: Instant) -> None:
        """The peer will send no more. It may still read what it is owed, and what it is yet to be answered."""
        if endpoint.ended or endpoint.leaving is not None:
            return
        endpoint.wire.receive_eof()
        if endpoint.wire.error is not None:
            self.node.metrics.protocol_violations += 1
        self.node.departures.after_all(endpoint, partial(_dismiss, endpoint), now)

    def resume(self, endpoint: Endpoint, answer: Callable[[Instant], None], now: Instant) -> None:
        """What the endpoint waited for has come: `answer` it, as its handler would have, then handle what was held."""
        if endpoint.ended:
            return
        held, endpoint.held = endpoint.held or [], None
        try:
            answer(now)
        except Refused as refusal:
            self._refused(endpoint, refusal)
        if endpoint.held is not None:  # it has to wait once more
            endpoint.held = held
        else:
            self._handle(endpoint, held, now)
            endpoint.answered()

    def overflowed(self, endpoint: Endpoint) -> None:
        """The endpoint's outbox passed its hard bound."""
        endpoint.owner.overflowed(endpoint)

    def crashed(self, endpoint: Endpoint) -> None:
        """A bug: this endpoint ends, with no more said than that."""
        self.node.metrics.connections_crashed += 1
        endpoint.owner.dismiss(endpoint, WsClose.INTERNAL_ERROR, "internal error")

    def closed(self, endpoint: Endpoint) -> None:
        """The connection is gone."""
        if endpoint.state.is_before_login:
            self.node.limits.came_to_nothing(endpoint.address)
        endpoint.outbox.close()
        self.node.departures.forget(endpoint)
        endpoint.owner.closed(endpoint)

    def tick(self, now: Instant) -> None:
        """A few times a second: what is not to be late by a second."""
        self.node.redelivery.tick(now)
        self.node.replays.tick(now)
        self.node.pressure.tick()

    def sweep(self, now: Instant) -> None:
        """About once a second: what is due by the clock."""
        self.node.sessions.sweep(now)
        self.node.publishers.sweep(now)
        self.node.viewers.sweep(now)
        self.node.streams.sweep(now)
        self.node.departures.sweep(now)
        self.node.refusals.sweep()
        self.node.limits.sweep(now)
        self.node.room_events.tick()
        self.node.rings.sweep()
        self.node.catch_up.sweep()

    def drain(self, retry_after_ms: Callable[[], int]) -> None:
        """This instance stops: every session is told when to come back."""
        for owner in (self.node.sessions, self.node.publishers, self.node.viewers):
            owner.end_all(EndReason.DRAIN, retry_after_ms)

    def lose(self, retry_after_ms: Callable[[], int]) -> None:
        """This instance is one no more: every session is told to come back, to another."""
        self.node.sessions.end_all(EndReason.LOST, retry_after_ms)

    def _handle(self, endpoint: Endpoint, packets: list[Packet], now: Instant) -> None:
        node = self.node
        rest = iter(packets)
        for packet in rest:
            state = endpoint.state
            if packet.acks is not None and state.take_acks is not None:
                self._acknowledge(endpoint, packet.acks)
                continue
            handler = state.handlers.get(packet.code)
            try:
                if handler is None:
                    raise state.unknown(packet.code)
                handler(node, endpoint, packet.body, now)
            except Refused as refusal:
                refusal.client_msg_id = client_msg_id_of(packet.body)
                self._refused(endpoint, refusal)
            except ProtocolViolation as violation:
                self._violated(endpoint, violation)
            if endpoint.ended:
                return
            if endpoint.held is not None:
                self._hold(endpoint, rest)
                return

    def _hold(self, endpoint: Endpoint, packets: Iterable[Packet]) -> None:
        held = endpoint.held or []
        endpoint.held = held
        size = sum(len(packet.body) for packet in held)
        for packet in packets:
            if packet.acks is not None and endpoint.state.take_acks is not None:  # an ACK is good whenever it comes
                self._acknowledge(endpoint, packet.acks)
                continue
            size += len(packet.body)
            if len(held) < HELD_PACKETS and size <= HELD_BYTES:
                held.append(Packet(packet.code, bytes(packet.body)))  # the buffer it lies in is read into again
                continue
            reason = "too many packets while an earlier one waits for its answer; send it again later"
            refusal = Refused(ErrorCode.UNAVAILABLE, reason, client_msg_id=client_msg_id_of(packet.body))
            self._refused(endpoint, refusal)

    def _acknowledge(self, endpoint: Endpoint, msg_ids: list[str]) -> None:
        self.node.metrics.packets_received += len(msg_ids) - 1  # the run was counted as one
        self.node.metrics.work += len(msg_ids)
        endpoint.spent -= 1
        take_acks = endpoint.state.take_acks
        if take_acks is not None:
            take_acks(self.node, endpoint, msg_ids)

    def _refused(self, endpoint: Endpoint, refusal: Refused) -> None:
        self.node.metrics.packets_refused += 1
        endpoint.send_error(refusal)

    def _left(self, endpoint: Endpoint, now: Instant) -> None:
        """The wire takes nothing more: the peer broke the protocol, or said good-bye in its terms."""
        fault = endpoint.wire.error
        good_bye = partial(_dismiss, endpoint) if fault is None else partial(self._violated, endpoint, fault)
        self.node.departures.after_all(endpoint, good_bye, now)

    def _violated(self, endpoint: Endpoint, violation: ProtocolViolation) -> None:
        if endpoint.ended:  # by a packet before the fault
            return
        self.node.metrics.protocol_violations += 1
        endpoint.owner.refuse(endpoint, violation)


def _dismiss(endpoint: Endpoint) -> None:
    endpoint.owner.dismiss(endpoint, WsClose.NORMAL, "")
