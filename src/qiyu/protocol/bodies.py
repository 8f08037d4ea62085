"""The JSON inside packets (docs/protocol.md, Bodies): msgspec structs, and the functions that read and write them.

Every packet's body is an ImMsgBody. What a server reads of it differs by packet, and msgspec skips what a struct does
not name, so each kind of packet has a struct with just the fields it needs. Unknown fields are ignored; absent and null
ones are zero or empty (Java clients write null for what they do not set).

Two kinds of bad body are told apart: bytes that are no JSON end the connection (`ProtocolViolation`), for
nothing after them can be trusted; a field of the wrong type refuses that one packet (`Refused`).
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import msgspec

from qiyu.errors import ErrorCode, ProtocolViolation, Refused, WsClose
from qiyu.protocol.numbers import decode_digits, json_fault, numbers_of
from qiyu.protocol.packet import APP_ID, CLIENT_MSG_ID_CHARS, MAX_ID, MIN_ID, Buffer

T = TypeVar("T")


class ImMsgBody(msgspec.Struct, rename="camel", omit_defaults=True):
    """The whole body, as a client reads and writes it."""

    app_id: int = 0
    user_id: int = 0
    token: str = ""
    biz_code: int = 0
    data: str = ""
    msg_id: str = ""
    client_msg_id: str = ""


class LoginBody(msgspec.Struct, rename="camel"):
    """LOGIN from a client; `data` may be a `RoomData`."""

    app_id: int | None = None
    user_id: int | None = None
    token: str | None = None
    data: str | None = None


class BizBody(msgspec.Struct, rename="camel"):
    """BIZ from a client; `biz_code` says what `data` is."""

    biz_code: int | None = None
    data: str | None = None
    client_msg_id: str | None = None


class AckBody(msgspec.Struct, rename="camel"):
    """ACK from a client: one msgId, and in `data` a JSON list of more."""

    msg_id: str | None = None
    data: str | None = None


class DataBody(msgspec.Struct, rename="camel"):
    """A packet of which only `data` counts."""

    data: str | None = None


class ClientMsgIdBody(msgspec.Struct, rename="camel"):
    """A packet of which only the sender's own id counts: to name it in an ERROR."""

    client_msg_id: str | None = None


class ChatData(msgspec.Struct, rename="camel"):
    """`data` of a chat from a client: what the server believes of it."""

    room_id: int | None = None
    object_id: int | None = None
    type: int | None = None
    content: str | None = None


class RoomData(msgspec.Struct, rename="camel"):
    """`data` of LOGIN and ROOM: the room to enter, or null for none."""

    room_id: int | msgspec.UnsetType | None = msgspec.UNSET
    after_msg_id: str | None = None


class RoomChat(msgspec.Struct, rename="camel"):
    """`data` of 5555 to the members of a room. `create_time` is milliseconds since 1970."""

    user_id: int
    room_id: int
    type: int
    content: str
    sender_name: str
    sender_avatar: str
    create_time: int


class DirectChat(msgspec.Struct, rename="camel"):
    """`data` of 5556 to its receiver. `create_time` is milliseconds since 1970."""

    user_id: int
    object_id: int
    type: int
    content: str
    sender_name: str
    sender_avatar: str
    create_time: int


class LikeData(msgspec.Struct, rename="camel"):
    """`data` of 5558 from a client."""

    room_id: int | None = None
    count: int | None = None


class RoomEvent(msgspec.Struct, rename="camel", omit_defaults=True):
    """`data` of 5557; an event about one user names it."""

    room_id: int
    event: str
    online: int
    good_num: int
    user_id: int = 0
    sender_name: str = ""


class RoomAnswer(msgspec.Struct, rename="camel", omit_defaults=True):
    """`data` of the answer to ROOM; `recovered` only when the client named an `afterMsgId`.

    `last_msg_id` is the newest message of the room, "" where there is none; None for who is in no room.
    """

    room_id: int | None
    online: int
    last_msg_id: str | None = None
    recovered: bool | None = None


class LogoutData(msgspec.Struct, rename="camel", omit_defaults=True):
    """`data` of the LOGOUT with which the server ends a session."""

    reason: str
    reconnect: bool
    retry_after_ms: int = 0


class ErrorData(msgspec.Struct, rename="camel", omit_defaults=True):
    """`data` of ERROR."""

    code: int
    reason: str
    last_msg_id: str = ""
    """With 206: the last room message before the gap, after which to come back; "" where none is known."""


encode_json = msgspec.json.Encoder().encode


class BodyDecoder(Generic[T]):
    """Reads a packet's body as one of the structs above."""

    def __init__(self, struct: type[T]) -> None:
        self._struct = struct
        self._numbers = numbers_of(struct)
        self._decode = msgspec.json.Decoder(struct).decode

    def __call__(self, body: Buffer) -> T:
        """Raises `Refused` for a field of the wrong type, `ProtocolViolation` for what is no JSON at all."""
        try:
            try:
                return self._decode(body)
            except msgspec.ValidationError:
                return decode_digits(body, self._struct, self._numbers)
        except msgspec.ValidationError as exc:
            raise Refused(ErrorCode.MALFORMED, f"body: {exc}") from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            ws_close = WsClose.INVALID_DATA if isinstance(exc, UnicodeDecodeError) else WsClose.POLICY_VIOLATION
            reason = f"body: expected a JSON object in UTF-8: {json_fault(body, exc)}"
            raise ProtocolViolation(reason, ws_close=ws_close) from None


class DataDecoder(Generic[T]):
    """Reads `data`, the JSON inside the JSON."""

    def __init__(self, type_: Any) -> None:
        self._type = type_
        self._numbers = numbers_of(type_)
        self._decode = msgspec.json.Decoder(type_).decode

    def __call__(self, data: str | None) -> T:
        """Raises `Refused` for anything that is not what was expected; absent and empty data is `{}`."""
        try:
            try:
                return self._decode(data or "{}")  # type: ignore[no-any-return]
            except msgspec.ValidationError:
                return decode_digits(data or "{}", self._type, self._numbers)  # type: ignore[no-any-return]
        except msgspec.ValidationError as exc:
            raise Refused(ErrorCode.MALFORMED, f"data: {exc}") from None
        except (msgspec.DecodeError, UnicodeError, RecursionError) as exc:
            raise Refused(ErrorCode.MALFORMED, f"data: {json_fault(data or '', exc)}") from None


decode_login = BodyDecoder(LoginBody)
decode_biz = BodyDecoder(BizBody)
decode_ack = BodyDecoder(AckBody)
decode_data = BodyDecoder(DataBody)
decode_chat_data: DataDecoder[ChatData] = DataDecoder(ChatData)
decode_like_data: DataDecoder[LikeData] = DataDecoder(LikeData)
decode_room_data: DataDecoder[RoomData] = DataDecoder(RoomData)
decode_ack_data: DataDecoder[list[str]] = DataDecoder(list[str])

_decode_client_msg_id = msgspec.json.Decoder(ClientMsgIdBody).decode


def client_msg_id_of(body: Buffer) -> str:
    """The clientMsgId of a packet that is being refused, or "" where it has none that could be repeated."""
    try:
        client_msg_id = _decode_client_msg_id(body).client_msg_id or ""
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    return client_msg_id if len(client_msg_id) <= CLIENT_MSG_ID_CHARS else ""


def checked_id(name: str, value: int | None) -> int:
    """`value` if it can be an appId or a userId, else `Refused`."""
    if value is None:
        raise Refused(ErrorCode.MALFORMED, f"{name} is absent: expected a whole number from {MIN_ID} to {MAX_ID}")
    if not MIN_ID <= value <= MAX_ID:
        raise Refused(ErrorCode.MALFORMED, f"{name} {value}: expected a whole number from {MIN_ID} to {MAX_ID}")
    return value


def checked_room_id(value: int | None) -> int:
    """`value` if it can be the number of a room, else `Refused`."""
    if value is None:
        raise Refused(ErrorCode.MALFORMED, f"roomId is absent: expected a whole number from 1 to {MAX_ID}")
    if not 1 <= value <= MAX_ID:
        raise Refused(ErrorCode.MALFORMED, f"roomId {value}: expected a whole number from 1 to {MAX_ID}")
    return value


def answer(user_id: int, *, app_id: int = APP_ID, data: str = "true") -> bytes:
    """The body with which the server answers LOGIN, LOGOUT, HEARTBEAT and ROOM, and sends ERROR."""
    return b'{"appId":%d,"userId":%d,"data":%b}' % (app_id, user_id, encode_json(data))
