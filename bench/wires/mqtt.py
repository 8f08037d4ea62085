"""MQTT 5 over TCP: a room is a topic, each member subscribes to it, and every message has quality of service 1.

So the broker keeps an entry for each receiver until its PUBACK, as qiyu does until the ACK. "No local" keeps a sender's
own messages from it. Brokers give no ids that all receivers see, so the sender puts one into the message.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final

from bench.wires import BIZ, MSG_ID_CHARS, TUTORIAL, LoginSteps, Packet, ProtocolFault, Refused, Scan

_CONNECT, _CONNACK, _PUBLISH, _PUBACK, _SUBSCRIBE, _SUBACK = 0x10, 0x20, 0x30, 0x40, 0x82, 0x90
_TYPE: Final = 0xF0
_QOS_1: Final = 0x02
_AT_LEAST_ONCE_AND_NO_LOCAL: Final = 0x05  # MQTT 5, section 3.8.3.1
_CLEAN_START: Final = 0x02
_REASON_IS_ERROR: Final = 0x80
_ID_END: Final = len('"}')
_ID_START: Final = _ID_END + MSG_ID_CHARS


class Mqtt:
    """The Wire of an MQTT broker; it remembers the packets of the last `scan`, which the next `acks` are for."""

    name = "tcp"

    def __init__(self) -> None:
        self._came: list[bytes] = []  # their two-byte identifiers

    def log_in(self, user: int, token: str, room: int | None) -> LoginSteps:  # noqa: ARG002  # it knows no tokens
        connect = _text(b"MQTT") + bytes((5, _CLEAN_START, 0, 0, 0)) + _text(b"%d" % user)
        subscribe = b"\0\1\0" + _text(_topic(room or 0)) + bytes([_AT_LEAST_ONCE_AND_NO_LOCAL])
        data = b""
        for request, answer, reason_at in (
            (_packet(_CONNECT, connect), _CONNACK, 1),
            (_packet(_SUBSCRIBE, subscribe), _SUBACK, -1),
        ):
            data += yield request
            while (found := _bounds(data, 0)) is None:
                data += yield b""
            body, end = found
            if data[0] != answer or data[body:end][reason_at] & _REASON_IS_ERROR:
                raise Refused(repr(data[:end]))
            data = data[end:]
        return data

    def packet(self, code: int, body: bytes) -> bytes:  # noqa: ARG002
        raise ValueError(f"packet {code}: MQTT has messages only, and each has a number")

    def numbered(self, body: bytes, serial: bytes) -> Callable[[int], bytes]:
        room = json.loads(json.loads(body)["data"])["roomId"]
        head, tail = body.split(serial)
        topic = _text(_topic(room))

        def publish(number: int) -> bytes:
            identifier = (number % 65_535 + 1).to_bytes(2)
            payload = b'%b%010d%b,"msgId":"1%018d"}' % (head, number, tail[:-1], number)
            return _packet(_PUBLISH | _QOS_1, topic + identifier + b"\0" + payload)

        return publish

    def scan(self, data: bytes) -> Scan:
        ids: list[bytes] = []
        came = self._came = []
        start = 0
        while (found := _bounds(data, start)) is not None:
            body, end = found
            kind = data[start] & _TYPE
            if kind == _PUBLISH:
                topic_end = body + 2 + (data[body] << 8 | data[body + 1])
                came.append(data[topic_end : topic_end + 2])
                ids.append(data[end - _ID_START : end - _ID_END])
            elif kind != _PUBACK:
                raise ProtocolFault(f"packet {data[start:end]!r}")
            start = end
        return ids, [], data[start:]

    def packets(self, data: bytes) -> tuple[list[Packet], bytes]:
        packets: list[Packet] = []
        start = 0
        while (found := _bounds(data, start)) is not None:
            body, end = found
            if data[start] & _TYPE == _PUBLISH:
                topic_end = body + 2 + (data[body] << 8 | data[body + 1])
                packets.append((BIZ, data[topic_end + 3 : end]))  # after the identifier, and no properties
            start = end
        return packets, data[start:]

    def acks(self, ids: list[bytes], user: int, shape: str = TUTORIAL) -> list[bytes]:  # noqa: ARG002
        if len(ids) != len(self._came):
            raise ProtocolFault(f"{len(self._came)} messages, {len(ids)} of them with an id")
        return [b"\x40\2" + identifier for identifier in self._came]

    def gathered_ack(self, ids: list[bytes]) -> bytes:  # noqa: ARG002
        raise ValueError("MQTT acknowledges messages one by one")


def _topic(room: int) -> bytes:
    return b"room/%d" % room


def _text(text: bytes) -> bytes:
    return len(text).to_bytes(2) + text


def _packet(first: int, content: bytes) -> bytes:
    size, length = len(content), bytearray()
    while True:
        size, low = size >> 7, size & 0x7F
        length.append(low | (0x80 if size else 0))
        if not size:
            return bytes([first]) + length + content


def _bounds(data: bytes, start: int) -> tuple[int, int] | None:
    """Where what follows the fixed header at `start` begins and ends; None before it is all there."""
    length = shift = 0
    for at in range(start + 1, min(start + 5, len(data))):
        length |= (data[at] & 0x7F) << shift
        if data[at] < 0x80:
            end = at + 1 + length
            return (at + 1, end) if end <= len(data) else None
        shift += 7
    return None
