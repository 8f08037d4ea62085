"""1003 BIZ: a business message; its `bizCode` says which."""

from __future__ import annotations

from qiyu.errors import ErrorCode, Refused
from qiyu.model import Instant
from qiyu.protocol.bodies import BizBody, checked_room_id, decode_biz, decode_like_data
from qiyu.protocol.packet import MAX_LIKES, BizCode, Buffer
from qiyu.routing.session import Session
from qiyu.services.node import Node


def biz(node: Node, session: Session, body: Buffer, now: Instant) -> None:
    """Hand it to the service it is for, unless there are too many."""
    node.limits.check_message(session, now)
    packet = decode_biz(body)
    if packet.biz_code == BizCode.LIKE:
        _like(node, session, packet)
    else:
        node.chat.accept(session, packet, now)


def _like(node: Node, session: Session, packet: BizBody) -> None:
    """5558: counted, told to the room once a second at most, and not receipted."""
    data = decode_like_data(packet.data)
    room, room_id = session.room, checked_room_id(data.room_id)
    if room is None or room.id != room_id:
        raise Refused(ErrorCode.FORBIDDEN, f"roomId {room_id}: enter the room first")
    if data.count is None or not 1 <= data.count <= MAX_LIKES:
        got = "is absent" if data.count is None else str(data.count)
        raise Refused(ErrorCode.MALFORMED, f"count {got}: expected a whole number from 1 to {MAX_LIKES}")
    node.room_events.like(room, data.count)
