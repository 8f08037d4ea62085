"""Socket.IO 5 on Engine.IO 4, straight over WebSocket: what python-socketio serves, without its polling.

A packet is an event: `42["biz",{…}]` with the body as an object. The login names user and room in its `auth`. ACKs are
events too, so that what is measured is the same work; Socket.IO's own acknowledgements number each emit.
"""

from __future__ import annotations

import json
from typing import Final

from bench.wires import BIZ, ERROR, MSG_ID_CHARS, LoginSteps, Packet, ProtocolFault, Refused, Scan
from bench.wires.frames import bounds, text_frame, upgraded

_OPEN: Final = b"0"
_CONNECTED: Final = b"40"
_BIZ: Final = b'42["biz",'
_ID_END: Final = len('"}]')
_ID_START: Final = _ID_END + MSG_ID_CHARS

_ACK_HEAD: Final = text_frame(b'42["ack",{"msgId":"%b"}]' % bytes(MSG_ID_CHARS))[:-_ID_START]
_ACK_TAIL: Final = b'"}]'
_ACK_NEXT: Final = _ACK_TAIL + _ACK_HEAD


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

    def acks(self, ids: list[bytes]) -> bytes:
        return _ACK_HEAD + _ACK_NEXT.join(ids) + _ACK_TAIL

    def gathered_ack(self, ids: list[bytes]) -> bytes:
        return text_frame(b'42["ack",{"msgIds":["%b"]}]' % b'","'.join(ids))
