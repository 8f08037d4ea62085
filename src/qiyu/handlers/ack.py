"""1005 ACK: messages that came; one in `msgId`, and more in `data`, a JSON list of msgIds."""

from __future__ import annotations

from qiyu.model import Instant
from qiyu.protocol.bodies import decode_ack, decode_ack_data
from qiyu.protocol.packet import Buffer
from qiyu.routing.session import Session
from qiyu.services.core import Core


def ack(core: Core, session: Session, body: Buffer, _now: Instant) -> None:
    """Take them off the in-flight tables; an ACK for what is on none (any more) is nothing."""
    packet = decode_ack(body)
    more = decode_ack_data(packet.data) if packet.data else ()
    taken = _take(session, packet.msg_id) if packet.msg_id else 0
    for msg_id in more:
        taken += _take(session, msg_id)
    core.metrics.deliveries_acknowledged += taken


def _take(session: Session, msg_id: str) -> int:
    for table in (session.room_in_flight, session.direct_in_flight):
        if table and table.pop(msg_id, None) is not None:
            return 1
    return 0
