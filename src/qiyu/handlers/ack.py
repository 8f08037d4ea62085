"""1005 ACK: messages that came; one in `msgId`, and more in `data`, a JSON list of msgIds."""

from __future__ import annotations

from qiyu.model import Instant
from qiyu.protocol.bodies import decode_ack, decode_ack_data
from qiyu.protocol.packet import Buffer
from qiyu.routing.session import Session
from qiyu.services.core import Core


def ack(core: Core, session: Session, body: Buffer, _now: Instant) -> None:
    """Take them off the in-flight table; an ACK for what is not on it (any more) is nothing."""
    packet = decode_ack(body)
    more = decode_ack_data(packet.data) if packet.data else ()
    in_flight = session.in_flight
    if not in_flight:
        return
    before = len(in_flight)
    in_flight.pop(packet.msg_id or "", None)
    for msg_id in more:
        in_flight.pop(msg_id, None)
    core.metrics.deliveries_acknowledged += before - len(in_flight)
