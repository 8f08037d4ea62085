"""The room work itself, for all peers in Python: rooms, members, the splice, the in-flight dicts."""

from __future__ import annotations

import struct
from collections.abc import Callable
from itertools import count
from typing import Final

import msgspec

MAGIC: Final = 18673
LOGIN, BIZ, ACK = 1001, 1003, 1005
HEADER: Final = struct.Struct(">hii")

_ids = count(10**18)  # 19 digits
_escape = msgspec.json.Encoder().encode


class Envelope(msgspec.Struct):
    """A WebSocket message."""

    code: int
    body: str


class Body(msgspec.Struct, rename="camel"):
    """What is read of a packet from a client."""

    user_id: int = 0
    data: str = ""
    msg_id: str = ""


class RoomData(msgspec.Struct, rename="camel"):
    """`data` of a login and of a message."""

    room_id: int = 0
    content: str = ""


decode_envelope = msgspec.json.Decoder(Envelope).decode
decode_body = msgspec.json.Decoder(Body).decode
decode_data = msgspec.json.Decoder(RoomData).decode


class Member:
    """A connection in a room; `send` takes a whole packet."""

    __slots__ = ("digits", "in_flight", "room", "send", "user")

    def __init__(self, user: int, room: int, send: Callable[[bytes], object]) -> None:
        self.user = user
        self.digits = b"%d" % user
        self.room = rooms.setdefault(room, {})
        self.room[self] = None
        self.send = send
        self.in_flight: dict[str, None] = {}

    def leave(self) -> None:
        """Gone."""
        self.room.pop(self, None)


rooms: dict[int, dict[Member, None]] = {}


def fan_out(sender: Member, data: str, splice: Callable[[bytes, bytes, int], tuple[bytes, bytes]]) -> None:
    """To everybody else in the room. `splice` makes packets of a body that is cut where the receiver's id goes."""
    chat = decode_data(data)
    msg_id = str(next(_ids))
    inner = _escape({"userId": sender.user, "roomId": chat.room_id, "type": 1, "content": chat.content}).decode()
    before = b'{"appId":10001,"userId":'
    after = b',"bizCode":5555,"data":%b,"msgId":"%b"}' % (_escape(inner), msg_id.encode())
    head, tail = splice(before, after, len(sender.digits))
    for member in sender.room:
        if member is not sender:
            member.in_flight[msg_id] = None
            member.send(head + member.digits + tail)


def on_packet(
    member: Member, code: int, body: bytes | str, splice: Callable[[bytes, bytes, int], tuple[bytes, bytes]]
) -> None:
    """A message or an ACK."""
    packet = decode_body(body)
    if code == BIZ:
        fan_out(member, packet.data, splice)
    elif code == ACK:
        member.in_flight.pop(packet.msg_id, None)


def splice_text(before: bytes, after: bytes, width: int) -> tuple[bytes, bytes]:
    """For WebSocket: the text of the message. All ids here have the same `width`."""
    head = b'{"magic":%d,"code":%d,"len":%d,"body":%b' % (
        MAGIC, BIZ, len(before) + width + len(after), _escape(before.decode())[:-1],
    )  # fmt: skip
    return head, _escape(after.decode())[1:] + b"}"


def splice_frame(before: bytes, after: bytes, width: int) -> tuple[bytes, bytes]:
    """For TCP: the frame."""
    return HEADER.pack(MAGIC, BIZ, len(before) + width + len(after)) + before, after


def on_text(member: Member, text: bytes | str) -> None:
    """A WebSocket message."""
    envelope = decode_envelope(text)
    on_packet(member, envelope.code, envelope.body, splice_text)


def enter_by_path(path: str, send: Callable[[bytes], object]) -> Member:
    """A WebSocket login, answered."""
    _, _, user, _, room = path.split("/")
    member = Member(int(user), int(room), send)
    body = b'{"appId":10001,"userId":%d,"data":"true"}' % member.user
    send(b'{"magic":%d,"code":%d,"len":%d,"body":%b}' % (MAGIC, LOGIN, len(body), _escape(body.decode())))
    return member


def listening(kind: str, port: int) -> None:
    """Say that clients may come."""
    print(f"{kind} listening on 127.0.0.1:{port}", flush=True)
