"""1006 ROOM: enter a room, leaving the one before; or leave."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from msgspec import UNSET

from qiyu.errors import ErrorCode, Refused
from qiyu.model import Instant
from qiyu.protocol.bodies import (
    RoomAnswer,
    checked_room_id,
    client_msg_id_of,
    decode_data,
    decode_room_data,
    encode_json,
)
from qiyu.protocol.packet import Buffer, MsgCode
from qiyu.routing.session import Room, Session
from qiyu.services.core import Core


def room(core: Core, session: Session, body: Buffer, now: Instant) -> None:
    """Enter or leave, and answer with the room and how many are in it."""
    data = decode_room_data(decode_data(body).data)
    if data.room_id is UNSET:
        raise Refused(ErrorCode.MALFORMED, "data has no roomId: expected a room's number, or null to leave")
    if data.room_id is None:
        core.connections.leave_room(session)
        _answer(session, RoomAnswer(room_id=None, online=0))
        return
    # Nothing is stored yet, so it cannot be shown that nothing was missed: the client reloads.
    recovered = False if data.after_msg_id else None
    then = partial(_entered, session, recovered)
    enter(core, session, checked_room_id(data.room_id), now, then, client_msg_id=client_msg_id_of(body))


def enter_at_login(core: Core, session: Session, data: str, now: Instant) -> None:
    """Enter the room that a login names. It has been answered: what is wrong here is an ERROR, and no room."""
    try:
        room_id = decode_room_data(data).room_id
        if room_id is not None and room_id is not UNSET:
            enter(core, session, checked_room_id(room_id), now, lambda _room: None)
    except Refused as refusal:
        session.send_error(refusal)


def enter(
    core: Core,
    session: Session,
    room_id: int,
    now: Instant,
    then: Callable[[Room], None],
    *,
    client_msg_id: str = "",
) -> None:
    """Enter a room if it is open, at once or as soon as that is known; what the session sends meanwhile is held.

    Raises `Refused` here, or where the session goes on, if it may not be entered.
    """
    is_open = core.living_rooms.is_open(session.app_id, room_id, now)
    if is_open is not None:
        _enter(core, session, room_id, then, is_open=is_open)
        return
    found = partial(_enter_if_open, core, session, room_id, then, client_msg_id)
    if not core.living_rooms.look_up(room_id, session, found):
        raise Refused(ErrorCode.UNAVAILABLE, f"roomId {room_id}: too many are entering rooms; try again")
    session.hold()


def _enter_if_open(
    core: Core,
    session: Session,
    room_id: int,
    then: Callable[[Room], None],
    client_msg_id: str,
    is_open: bool | None,
    _now: Instant,
) -> None:
    try:
        _enter(core, session, room_id, then, is_open=is_open)
    except Refused as refusal:
        refusal.client_msg_id = client_msg_id
        raise


def _enter(core: Core, session: Session, room_id: int, then: Callable[[Room], None], *, is_open: bool | None) -> None:
    if is_open is None:
        raise Refused(ErrorCode.UNAVAILABLE, f"roomId {room_id}: the database does not answer; try again")
    if not is_open:
        raise Refused(ErrorCode.NO_SUCH_ROOM, f"roomId {room_id}: no such open room")
    then(core.connections.enter_room(session, room_id))


def _entered(session: Session, recovered: bool | None, room: Room) -> None:
    _answer(session, RoomAnswer(room_id=room.id, online=len(room.members), recovered=recovered))


def _answer(session: Session, answer: RoomAnswer) -> None:
    session.answer(MsgCode.ROOM, encode_json(answer).decode())
