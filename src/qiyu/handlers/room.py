"""1006 ROOM: enter a room, leaving the one before; or leave."""

from __future__ import annotations

from msgspec import UNSET

from qiyu.errors import ErrorCode, Refused
from qiyu.model import Instant
from qiyu.protocol.bodies import RoomAnswer, checked_room_id, decode_data, decode_room_data, encode_json
from qiyu.protocol.packet import Buffer, MsgCode
from qiyu.routing.session import Session
from qiyu.services.core import Core


def room(core: Core, session: Session, body: Buffer, _now: Instant) -> None:
    """Enter or leave, and answer with the room and how many are in it."""
    data = decode_room_data(decode_data(body).data)
    if data.room_id is UNSET:
        raise Refused(ErrorCode.MALFORMED, "data has no roomId: expected a room's number, or null to leave")
    if data.room_id is None:
        core.connections.leave_room(session)
        reply = RoomAnswer(room_id=None, online=0)
    else:
        entered = core.connections.enter_room(session, checked_room_id(data.room_id))
        # Nothing is stored yet, so it cannot be shown that nothing was missed: the client reloads.
        recovered = False if data.after_msg_id else None
        reply = RoomAnswer(room_id=entered.id, online=len(entered.members), recovered=recovered)
    session.answer(MsgCode.ROOM, encode_json(reply).decode())


def enter_at_login(core: Core, session: Session, data: str) -> None:
    """Enter the room that a login names. It has been answered: what is wrong here is an ERROR, and no room."""
    try:
        room_id = decode_room_data(data).room_id
        if room_id is not None and room_id is not UNSET:
            core.connections.enter_room(session, checked_room_id(room_id))
    except Refused as refusal:
        session.send_error(refusal)
