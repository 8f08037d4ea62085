"""1005 ACK: messages that came; one in `msgId`, and more in `data`, a JSON list of msgIds."""

from __future__ import annotations

from collections.abc import Iterable

from qiyu.model import Instant
from qiyu.protocol.bodies import decode_ack, decode_ack_data
from qiyu.protocol.packet import MAX_MSG_ID, MSG_ID_DIGITS, Buffer
from qiyu.routing.session import Session
from qiyu.services.node import Node


def ack(node: Node, session: Session, body: Buffer, _now: Instant) -> None:
    """Take them off the in-flight tables, and direct ones out of the inbox."""
    packet = decode_ack(body)
    msg_ids = decode_ack_data(packet.data) if packet.data else []
    acknowledge(node, session, [packet.msg_id, *msg_ids] if packet.msg_id else msg_ids)


def acknowledge(node: Node, session: Session, msg_ids: Iterable[str]) -> None:
    """`ack`, of msgIds that the wire has read already."""
    table = session.room_in_flight
    taken = 0
    for msg_id in msg_ids:
        publication = table.pop(msg_id, None) if table else None
        if publication is not None:
            publication.unacked -= 1
            taken += 1
        else:
            taken += _direct(node, session, msg_id)
    node.in_flight.deliveries -= taken
    node.metrics.deliveries_acknowledged += taken


def _direct(node: Node, session: Session, msg_id: str) -> int:
    """An ACK for what is on no table (any more) is nothing, but where a direct message may have been taken off it."""
    table = session.direct_in_flight
    publication = table.pop(msg_id, None) if table else None
    if publication is not None:
        publication.unacked -= 1
        node.metrics.inbox_acknowledged += 1
        if publication.on_ack is None or not publication.on_ack():
            node.message_queue.acknowledged(session, int(msg_id))
        return 1
    if (session.late_acks or node.replays.is_replaying(session)) and _can_be_one(msg_id):
        node.message_queue.acknowledged(session, int(msg_id), is_certain=False)
    return 0


def _can_be_one(msg_id: str) -> bool:
    # Of equal length, numbers compare as their texts do. What is larger, no database takes.
    return len(msg_id) == MSG_ID_DIGITS and msg_id.isascii() and msg_id.isdigit() and msg_id <= MAX_MSG_ID
