"""1005 ACK: messages that came; one in `msgId`, and more in `data`, a JSON list of msgIds."""

from __future__ import annotations

from collections.abc import Sequence

from qiyu.model import Instant
from qiyu.protocol.bodies import decode_ack, decode_ack_data
from qiyu.protocol.packet import Buffer
from qiyu.routing.session import Session
from qiyu.services.node import Node


def ack(node: Node, session: Session, body: Buffer, _now: Instant) -> None:
    """Wait for these no longer, and take direct ones out of the inbox (services/acks.py)."""
    packet = decode_ack(body)
    msg_ids = decode_ack_data(packet.data) if packet.data else []
    node.metrics.work += len(msg_ids)
    if packet.msg_id or msg_ids:
        session.spent -= 1  # what it names counts, as far as it is not owed
    node.acks.acknowledge(session, [packet.msg_id, *msg_ids] if packet.msg_id else msg_ids)


def acknowledge(node: Node, session: Session, msg_ids: Sequence[str]) -> None:
    """`ack`, of msgIds that the wire has read already."""
    node.acks.acknowledge(session, msg_ids)
