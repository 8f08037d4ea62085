"""What a client's iteration yields, how a BIZ packet becomes it, and what a client writes itself."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final, TypeAlias

import msgspec

from qiyu.errors import ErrorCode, Refused
from qiyu.protocol.bodies import BodyDecoder, DataDecoder, ImMsgBody, encode_json
from qiyu.protocol.packet import BizCode, Buffer, MsgCode, Packet

TEXT: Final = 1
"""The `type` of a message whose content is text."""


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A chat message. `created_ms` is milliseconds since 1970, when the server accepted it."""

    sender_id: int
    sender_name: str
    sender_avatar: str
    content: str
    type: int
    created_ms: int
    msg_id: str
    room_id: int | None
    """None for a direct message."""
    client_msg_id: str = ""
    """Of one's own in the history, if it had one."""

    @property
    def is_direct(self) -> bool:
        return self.room_id is None


class EventName(StrEnum):
    """What may happen in a room."""

    ENTER = "enter"
    LEAVE = "leave"
    COUNT = "count"
    """The number of members or of likes has changed; once a second at most."""
    CLOSED = "closed"
    """The room is no more, and the client in none."""
    ON_AIR = "onAir"
    OFF_AIR = "offAir"
    MUTED = "muted"
    UNMUTED = "unmuted"
    REMOVED = "removed"


class RoomEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Something happened in the room; `user_id` and `sender_name` say to whom, where it was about one user."""

    room_id: int
    event: EventName
    user_id: int
    sender_name: str
    online: int
    good_num: int


class Error(msgspec.Struct, frozen=True):
    """The server refused what was sent without a receipt, or had to drop messages: `code` as in docs/protocol.md.

    206 says that room messages are missing from here on, for they were not read fast enough. They are asked for, and
    come by themselves; `CaughtUp` says whether all of them do.
    """

    code: int
    reason: str


class Disconnected(msgspec.Struct, frozen=True):
    """The connection was lost, or could not be made again; the next attempt begins after `retry_seconds`."""

    reason: str
    retry_seconds: float


class Reconnected(msgspec.Struct, frozen=True):
    """There is a connection again, in the room it was in; `room_id` is None if there was none, or it is gone.

    What others wrote there in the meantime comes next. `recovered` is False if some of it was left out, or if the user
    was signed in elsewhere and may have spoken there: only the history has that (`Api.history`). It is None if the
    server did not say, when the room was entered, which of its messages was the newest.
    """

    room_id: int | None
    recovered: bool | None = None


class CaughtUp(msgspec.Struct, frozen=True):
    """What the server left out (`Error` 206) comes next; `recovered` is False if only the history has some of it."""

    room_id: int
    recovered: bool


StateChange: TypeAlias = Disconnected | Reconnected | CaughtUp
Item: TypeAlias = Message | RoomEvent | Error | StateChange


class ChatToSend(msgspec.Struct, rename="camel", omit_defaults=True, kw_only=True):
    """`data` of 5555 and 5556 to the server: to a room or to one user. It knows the sender by the session."""

    room_id: int | None = None
    object_id: int | None = None
    type: int = 0
    content: str


class LikesToSend(msgspec.Struct, rename="camel"):
    """`data` of 5558 to the server."""

    room_id: int
    count: int


class RoomToEnter(msgspec.Struct, rename="camel", omit_defaults=True):
    """`data` of ROOM to the server; no room leaves the one it is in."""

    room_id: int | None
    after_msg_id: str = ""


def packet_of(code: MsgCode, **fields: Any) -> Packet:
    """A packet to the server; the fields are those of `ImMsgBody`."""
    return Packet(code, encode_json(ImMsgBody(**fields)))


class _Biz(msgspec.Struct, rename="camel"):
    biz_code: int | None = None
    data: str | None = None
    msg_id: str | None = None
    client_msg_id: str | None = None


class _Chat(msgspec.Struct, rename="camel"):
    user_id: int | None = None
    room_id: int | None = None
    type: int | None = None
    content: str | None = None
    sender_name: str | None = None
    sender_avatar: str | None = None
    create_time: int | None = None


class _Event(msgspec.Struct, rename="camel"):
    room_id: int | None = None
    event: str | None = None
    user_id: int | None = None
    sender_name: str | None = None
    online: int | None = None
    good_num: int | None = None


_decode_biz = BodyDecoder(_Biz)
_decode_chat: DataDecoder[_Chat] = DataDecoder(_Chat)
_decode_event: DataDecoder[_Event] = DataDecoder(_Event)
_EVENTS: Final = frozenset(EventName)


def read_biz(body: Buffer) -> tuple[str, Item | None]:
    """The msgId to acknowledge ("" for none) and what to show; None for a bizCode or an event of a later server.

    Raises what `BodyDecoder` raises. A `data` that cannot be read becomes an `Error`: were it not acknowledged, it
    would come again at each login.
    """
    biz = _decode_biz(body)
    msg_id = biz.msg_id or ""
    try:
        if biz.biz_code in {BizCode.ROOM_CHAT, BizCode.DIRECT}:
            return msg_id, _message(_decode_chat(biz.data), msg_id, biz.client_msg_id or "")
        if biz.biz_code == BizCode.ROOM_EVENT:
            return msg_id, _event(_decode_event(biz.data))
    except Refused as exc:
        return msg_id, Error(ErrorCode.MALFORMED, f"a message that cannot be read: {exc.reason}")
    return msg_id, None


def _message(chat: _Chat, msg_id: str, client_msg_id: str) -> Message:
    return Message(
        sender_id=chat.user_id or 0,
        sender_name=chat.sender_name or "",
        sender_avatar=chat.sender_avatar or "",
        content=chat.content or "",
        type=chat.type or 0,
        created_ms=chat.create_time or 0,
        msg_id=msg_id,
        room_id=chat.room_id,
        client_msg_id=client_msg_id,
    )


def _event(event: _Event) -> RoomEvent | None:
    if event.event not in _EVENTS:
        return None
    return RoomEvent(
        room_id=event.room_id or 0,
        event=EventName(event.event),
        user_id=event.user_id or 0,
        sender_name=event.sender_name or "",
        online=event.online or 0,
        good_num=event.good_num or 0,
    )
