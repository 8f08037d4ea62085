"""1006 ROOM: enter a room, leaving the one before; or leave. A login may name a room as well."""

from __future__ import annotations

from msgspec import UNSET

from qiyu.errors import ErrorCode, Refused
from qiyu.model import Instant
from qiyu.protocol.bodies import checked_room_id, client_msg_id_of, decode_data, decode_room_data
from qiyu.protocol.packet import MAX_MSG_ID, MSG_ID_DIGITS, Buffer
from qiyu.routing.session import Session
from qiyu.services.entering import Entry
from qiyu.services.node import Node


def room(node: Node, session: Session, body: Buffer, now: Instant) -> None:
    """Enter or leave; the answer has the room and how many are in it."""
    data = decode_room_data(decode_data(body).data)
    if data.room_id is UNSET:
        raise Refused(ErrorCode.MALFORMED, "data has no roomId: expected a room's number, or null to leave")
    if data.room_id is None:
        node.entering.leave(session)
        return
    after = _checked_msg_id(data.after_msg_id) if data.after_msg_id else None
    room_id = checked_room_id(data.room_id)
    node.entering.begin(Entry(session, room_id, after, client_msg_id_of(body), is_answered=True), now)


def enter_at_login(node: Node, session: Session, data: str, now: Instant) -> None:
    """Enter the room that a login names. It has been answered: what is wrong here is an ERROR, and no room."""
    try:
        room_id = decode_room_data(data).room_id
        if room_id is not None and room_id is not UNSET:
            node.entering.begin(Entry(session, checked_room_id(room_id)), now)
    except Refused as refusal:
        session.send_error(refusal)


def _checked_msg_id(msg_id: str) -> int:
    is_number = msg_id.isascii() and msg_id.isdecimal() and len(msg_id) <= MSG_ID_DIGITS
    if not is_number or msg_id.zfill(MSG_ID_DIGITS) > MAX_MSG_ID:
        raise Refused(ErrorCode.MALFORMED, f"afterMsgId {msg_id[:64]!r}: expected a msgId, at most {MAX_MSG_ID}")
    return int(msg_id)
