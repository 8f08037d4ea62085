"""Socket.IO 5 on Engine.IO 4, straight over WebSocket: what python-socketio serves, without its polling.

A packet is an event: `42["biz",{…}]` with the body as an object. The login names user and room in its `auth`. ACKs are
events too, so that what is measured is the same work; Socket.IO's own acknowledgements number each emit.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Final

from bench.wires import (
    BIZ,
    ERROR,
    MSG_ID_CHARS,
    TUTORIAL,
    LoginSteps,
    Packet,
    ProtocolFault,
    Refused,
    Scan,
    ack_body,
    split_at,
)
from bench.wires.frames import bounds, text_frame, upgraded

_OPEN: Final = b"0"
_CONNECTED: Final = b"40"
_BIZ: Final = b'42["biz",'
_ID_END: Final = len('"}]')
_ID_START: Final = _ID_END + MSG_ID_CHARS


@cache
def _around_id(user: int, shape: str) -> tuple[bytes, bytes]:
    before, after = ack_body(user, shape)
    head, tail = text_frame(b'42["ack",%b%b%b]' % (before, b"0" * MSG_ID_CHARS, after)).split(b"0" * MSG_ID_CHARS)
    return head, tail


class SocketIo:
    """The Wire of Socket.IO."""

    name = "websocket"

    def log_in(self, user: int, token: str, room: int | None) -> LoginSteps:  # noqa: ARG002  # it knows no tokens
        data = yield from upgraded("/socket.io/?EIO=4&transport=websocket")
        for expected, reply in (
            (_OPEN, text_frame(b'40{"userId":%d,"roomId":%d}' % (user, room or 0))),
            (_CONNECTED, b""),
        ):
            while (found := bounds(data, 0)) is None:
                data += yield b""
            payload = data[slice(*found)]
            if not payload.startswith(expected):
                raise Refused(payload.decode())
            data = data[found[1] :]
            if reply:
                data += yield reply
        return data

    def packet(self, code: int, body: bytes) -> bytes:
        if code != BIZ:
            raise ValueError(f"packet {code}: Socket.IO has messages only")
        return text_frame(b'42["biz",%b]' % body)

    def scan(self, data: bytes) -> Scan:
        ids: list[bytes] = []
        start = 0
        while (found := bounds(data, start)) is not None:
            body, end = found
            if not data.startswith(_BIZ, body):
                raise ProtocolFault(f"payload {data[body:end]!r}")
            ids.append(data[end - _ID_START : end - _ID_END])
            start = end
        return ids, [], data[start:]

    def packets(self, data: bytes) -> tuple[list[Packet], bytes]:
        packets: list[Packet] = []
        start = 0
        while (found := bounds(data, start)) is not None:
            payload = data[slice(*found)]
            is_biz = payload.startswith(_BIZ)
            packets.append((BIZ, json.dumps(json.loads(payload[2:])[1]).encode()) if is_biz else (ERROR, payload))
            start = found[1]
        return packets, data[start:]

    def numbered(self, body: bytes, serial: bytes) -> Callable[[int], bytes]:
        return split_at(self.packet(BIZ, body), serial)

    def acks(self, ids: list[bytes], user: int, shape: str = TUTORIAL) -> list[bytes]:
        head, tail = _around_id(user, shape)
        return [head + msg_id + tail for msg_id in ids]

    def gathered_ack(self, ids: list[bytes]) -> bytes:
        return text_frame(b'42["ack",{"msgIds":["%b"]}]' % b'","'.join(ids))
