"""1006 ROOM: enter a room, leaving the one before; or leave.

Whether the room is open, and what the member missed in it, may be for the database to say. Then the session waits where
it is, and so does what it sends meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass

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
from qiyu.protocol.packet import MAX_MSG_ID, MSG_ID_DIGITS, Buffer, MsgCode
from qiyu.routing.session import Session
from qiyu.services.catch_up import Missed
from qiyu.services.node import Node


def room(node: Node, session: Session, body: Buffer, now: Instant) -> None:
    """Enter or leave, and answer with the room and how many are in it."""
    data = decode_room_data(decode_data(body).data)
    if data.room_id is UNSET:
        raise Refused(ErrorCode.MALFORMED, "data has no roomId: expected a room's number, or null to leave")
    if data.room_id is None:
        node.sessions.leave_room(session)
        _answer(session, RoomAnswer(room_id=None, online=0))
        return
    after = _checked_msg_id(data.after_msg_id) if data.after_msg_id else None
    room_id = checked_room_id(data.room_id)
    Entry(node, session, room_id, after, client_msg_id_of(body), is_answered=True).begin(now)


def enter_at_login(node: Node, session: Session, data: str, now: Instant) -> None:
    """Enter the room that a login names. It has been answered: what is wrong here is an ERROR, and no room."""
    try:
        room_id = decode_room_data(data).room_id
        if room_id is not None and room_id is not UNSET:
            Entry(node, session, checked_room_id(room_id)).begin(now)
    except Refused as refusal:
        session.send_error(refusal)


@dataclass(frozen=True, slots=True)
class Entry:
    """A session's way into a room. Each step goes on at once, or when `Dispatcher.resume` calls it.

    Each raises `Refused` if the room may not be entered.
    """

    node: Node
    session: Session
    room_id: int
    after: int | None = None
    """The msgId that the member saw last."""
    client_msg_id: str = ""
    is_answered: bool = False

    def begin(self, now: Instant) -> None:
        """Enter if the room is open."""
        is_open = self.node.living_rooms.is_open(self.session.app_id, self.room_id, now)
        if is_open is not None:
            self._found(is_open, now)
            return
        if not self.node.living_rooms.look_up(self.room_id, self.session, self._found):
            raise self._refused(ErrorCode.UNAVAILABLE, "too many are entering rooms; try again")
        self.session.hold()

    def _found(self, is_open: bool | None, now: Instant) -> None:
        if is_open is None:
            raise self._refused(ErrorCode.UNAVAILABLE, "the database does not answer; try again")
        if not is_open:
            raise self._refused(ErrorCode.NO_SUCH_ROOM, "no such open room")
        key = (self.session.app_id, self.room_id)
        if self.after is None or self.node.catch_up.knows(key, self.after):
            self._enter(now)
            return
        if not self.node.catch_up.look_up(key, self.session, self._loaded):
            raise self._refused(ErrorCode.UNAVAILABLE, "too many are coming back; try again")
        self.session.hold()

    def _loaded(self, now: Instant) -> None:
        if self.node.living_rooms.is_open(self.session.app_id, self.room_id, now) is False:
            raise self._refused(ErrorCode.NO_SUCH_ROOM, "it was closed")  # meanwhile
        self._enter(now)

    def _enter(self, now: Instant) -> None:
        """In one step a member, answered, and sent what it missed: nothing can come in between."""
        node, session = self.node, self.session
        room = node.sessions.enter_room(session, self.room_id)
        missed: Missed | None = None
        if self.after is not None:
            missed = node.catch_up.missed(session, room.key, self.after)
        if self.is_answered:
            recovered = missed.recovered if missed is not None else None
            _answer(session, RoomAnswer(room_id=room.id, online=len(room.members), recovered=recovered))
        if missed is not None:
            node.catch_up.send(session, missed, now)

    def _refused(self, code: ErrorCode, why: str) -> Refused:
        # Named here, for at a later step nobody else knows which packet it is about.
        return Refused(code, f"roomId {self.room_id}: {why}", client_msg_id=self.client_msg_id)


def _checked_msg_id(msg_id: str) -> int:
    is_number = msg_id.isascii() and msg_id.isdecimal() and len(msg_id) <= MSG_ID_DIGITS
    if not is_number or msg_id.zfill(MSG_ID_DIGITS) > MAX_MSG_ID:
        raise Refused(ErrorCode.MALFORMED, f"afterMsgId {msg_id[:64]!r}: expected a msgId, at most {MAX_MSG_ID}")
    return int(msg_id)


def _answer(session: Session, answer: RoomAnswer) -> None:
    session.answer(MsgCode.ROOM, encode_json(answer).decode())
