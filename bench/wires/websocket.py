"""A packet is a text message that holds JSON, and in it the body as a string."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Final

from bench.wires import (
    ACK,
    BIZ,
    LOGIN,
    MSG_ID_CHARS,
    TUTORIAL,
    LoginSteps,
    Packet,
    ProtocolFault,
    Refused,
    Scan,
    ack_body,
    gathered_body,
    split_at,
)
from bench.wires.frames import TEXT, bounds, text_frame, upgraded

_CODE_START: Final = len('{"magic":18673,"code":')
_CODE_END: Final = _CODE_START + 4
_BIZ: Final = b"1003"
_ID_END: Final = len(r'\"}"}')
_ID_START: Final = _ID_END + MSG_ID_CHARS


def message(code: int, body: bytes) -> bytes:
    """One packet."""
    text = json.dumps(body.decode(), ensure_ascii=False)
    return text_frame(f'{{"magic":18673,"code":{code},"len":{len(body)},"body":{text}}}'.encode())


@cache
def _around_id(user: int, shape: str) -> tuple[bytes, bytes]:
    before, after = ack_body(user, shape)
    head, tail = message(ACK, before + b"0" * MSG_ID_CHARS + after).split(b"0" * MSG_ID_CHARS)
    return head, tail


class WebSocket:
    """The Wire over WebSocket."""

    name = "websocket"

    def log_in(self, user: int, token: str, room: int | None) -> LoginSteps:
        place = "" if room is None else f"/1001/{room}"
        data = yield from upgraded(f"/{token.replace('%', '%25')}/{user}{place}")
        while (found := bounds(data, 0)) is None:
            data += yield b""
        code, body = _decode(data[slice(*found)])
        if code != LOGIN:
            raise Refused(body.decode())
        return data[found[1] :]

    def packet(self, code: int, body: bytes) -> bytes:
        return message(code, body)

    def scan(self, data: bytes) -> Scan:
        ids: list[bytes] = []
        others: list[Packet] = []
        start, size = 0, len(data)
        while size - start >= 4:
            if data[start + 1] == 126:  # the length of nearly all messages takes two bytes; `bounds` knows the rest
                body = start + 4
                end = body + (data[start + 2] << 8 | data[start + 3])
                if end > size:
                    break
            elif (found := bounds(data, start)) is not None:
                body, end = found
            else:
                break
            if data[start] != TEXT:
                raise ProtocolFault(f"frame {data[start : start + 40]!r}")
            if data[body + _CODE_START : body + _CODE_END] == _BIZ:
                ids.append(data[end - _ID_START : end - _ID_END])
            else:
                others.append(_decode(data[body:end]))
            start = end
        return ids, others, data[start:]

    def packets(self, data: bytes) -> tuple[list[Packet], bytes]:
        packets: list[Packet] = []
        start = 0
        while (found := bounds(data, start)) is not None:
            packets.append(_decode(data[slice(*found)]))
            start = found[1]
        return packets, data[start:]

    def numbered(self, body: bytes, serial: bytes) -> Callable[[int], bytes]:
        return split_at(message(BIZ, body), serial)

    def acks(self, ids: list[bytes], user: int, shape: str = TUTORIAL) -> list[bytes]:
        head, tail = _around_id(user, shape)
        return [head + msg_id + tail for msg_id in ids]

    def gathered_ack(self, ids: list[bytes]) -> bytes:
        return message(ACK, gathered_body(ids))


def _decode(text: bytes) -> Packet:
    envelope = json.loads(text)
    body: bytes = envelope["body"].encode()
    if envelope["len"] != len(body):
        raise ProtocolFault(f"len is not that of the body: {text!r}")
    return envelope["code"], body
