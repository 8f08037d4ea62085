"""Magic-number frames."""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cache
from typing import Final

from bench.wires import (
    ACK,
    APP,
    BIZ,
    LOGIN,
    MAGIC,
    MSG_ID_CHARS,
    TUTORIAL,
    LoginSteps,
    Packet,
    ProtocolFault,
    Refused,
    Scan,
    ack_body,
    gathered_body,
    login_data,
    split_at,
)

_HEADER: Final = struct.Struct(">hii")
_ID_END: Final = len('"}')
_ID_START: Final = _ID_END + MSG_ID_CHARS


def frame(code: int, body: bytes) -> bytes:
    """One packet."""
    return _HEADER.pack(MAGIC, code, len(body)) + body


@cache
def _around_id(user: int, shape: str) -> tuple[bytes, bytes]:
    before, after = ack_body(user, shape)
    return _HEADER.pack(MAGIC, ACK, len(before) + MSG_ID_CHARS + len(after)) + before, after


class Tcp:
    """The Wire over TCP."""

    name = "tcp"

    def log_in(self, user: int, token: str, room: int | None) -> LoginSteps:
        body = b'{"appId":%d,"userId":%d,"token":"%b"%b}' % (APP, user, token.encode(), login_data(room))
        data = yield frame(LOGIN, body)
        while (found := _first(data, 0)) is None:
            data += yield b""
        code, body, end = found
        if code != LOGIN:
            raise Refused(body.decode())
        return data[end:]

    def packet(self, code: int, body: bytes) -> bytes:
        return frame(code, body)

    def scan(self, data: bytes) -> Scan:
        ids: list[bytes] = []
        others: list[Packet] = []
        start, size = 0, len(data)
        unpack = _HEADER.unpack_from
        while size - start >= 10:
            magic, code, length = unpack(data, start)
            end = start + 10 + length
            if magic != MAGIC:
                raise ProtocolFault(f"no magic number: {data[start : start + 40]!r}")
            if end > size:
                break
            if code == BIZ:
                ids.append(data[end - _ID_START : end - _ID_END])
            else:
                others.append((code, data[start + 10 : end]))
            start = end
        return ids, others, data[start:]

    def packets(self, data: bytes) -> tuple[list[Packet], bytes]:
        packets: list[Packet] = []
        start = 0
        while (found := _first(data, start)) is not None:
            code, body, start = found
            packets.append((code, body))
        return packets, data[start:]

    def numbered(self, body: bytes, serial: bytes) -> Callable[[int], bytes]:
        return split_at(frame(BIZ, body), serial)

    def acks(self, ids: list[bytes], user: int, shape: str = TUTORIAL) -> list[bytes]:
        head, tail = _around_id(user, shape)
        return [head + msg_id + tail for msg_id in ids]

    def gathered_ack(self, ids: list[bytes]) -> bytes:
        return frame(ACK, gathered_body(ids))


def _first(data: bytes, start: int) -> tuple[int, bytes, int] | None:
    """Code, body and end of the packet at `start`, once it is complete."""
    if len(data) - start < _HEADER.size:
        return None
    magic, code, length = _HEADER.unpack_from(data, start)
    if magic != MAGIC:
        raise ProtocolFault(f"no magic number: {data[start : start + 40]!r}")
    end = start + _HEADER.size + length
    return (code, data[start + _HEADER.size : end], end) if end <= len(data) else None
