"""ACKs as clients write them, and nearly so: what the readers of runs are held to the common road with."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

from hypothesis import strategies as st

from qiyu.errors import ProtocolViolation, Refused
from qiyu.protocol.bodies import decode_ack, decode_ack_data
from qiyu.protocol.packet import MAGIC, MSG_ID_DIGITS, Packet
from qiyu.protocol.tcp import HEADER
from qiyu.protocol.websocket import WebSocketWire
from qiyu.protocol.wire import Wire

ACK: Final = 1005
COMPACT, SPACED = (",", ":"), (", ", ": ")
"""As JSON.stringify, fastjson, Gson, Jackson and Go's encoding/json write it; and as Python's json does."""

MSG_IDS: Final = st.integers(10**18, 10**19 - 1).map(str)
NEARLY_MSG_IDS: Final = st.one_of(
    st.sampled_from(
        ["1" * 18, "1" * 20, "1" * 18 + "x", "1" * 18 + "²", "1" * 18 + " ", "", "1" * 18 + "\\", "１" * 19]
    ),
    st.integers(0, 10**19),
    st.none(),
)
VALUES: Final = st.one_of(
    st.sampled_from([10001, 0, 2**53, 10**18, 10**19 - 1, "10001", "0", "007", None, ""]),
    st.integers(0, 10**19 - 1),
)
ODD_VALUES: Final = st.sampled_from(
    [-1, 1.5, 10**19, 10**40, True, "x", " ", [], {}, '["1000000000000000001"]', "[]", "\n", "é"]
)
QUIET_KEYS: Final = ("appId", "userId", "bizCode", "token", "data", "clientMsgId")
ODD_KEYS: Final = ("msgid", "x", "msgId ", "é", "app")


def _fields() -> st.SearchStrategy[list[tuple[str, Any]]]:
    usual = st.tuples(st.sampled_from(QUIET_KEYS), VALUES)
    odd = st.tuples(st.sampled_from((*QUIET_KEYS, *ODD_KEYS, "msgId")), st.one_of(VALUES, ODD_VALUES))
    quiet = st.lists(usual, max_size=6, unique_by=lambda field: field[0])
    return st.one_of(quiet, quiet, st.lists(odd, max_size=3))


def json_object(fields: Iterable[tuple[str, Any]], separators: tuple[str, str]) -> str:
    """What `json.dumps` makes of these fields, but that keys may come twice."""
    comma, colon = separators
    return (
        "{"
        + comma.join(f"{json.dumps(key)}{colon}{json.dumps(value, ensure_ascii=False)}" for key, value in fields)
        + "}"
    )


@st.composite
def bodies(draw: st.DrawFn) -> list[str]:
    """The bodies of a few ACKs of one client, alike but for the msgId; and sometimes of what is not quite an ACK."""
    fields = draw(_fields())
    at = draw(st.integers(0, len(fields)))
    separators = draw(st.sampled_from([COMPACT, COMPACT, SPACED, (",", " : "), (" ,\n", ":\t")]))
    ids = draw(st.lists(st.one_of(MSG_IDS, MSG_IDS, MSG_IDS, NEARLY_MSG_IDS), min_size=1, max_size=5))
    return [json_object([*fields[:at], ("msgId", msg_id), *fields[at:]], separators) for msg_id in ids]


def tcp(body: bytes, code: int = ACK, surplus: int = 0) -> bytes:
    """A frame of TCP; `surplus` is how far its length is off."""
    return HEADER.pack(MAGIC, code, len(body) + surplus) + body


def masked(payload: bytes, key: bytes, first: int = 0x81) -> bytes:
    """A client's frame."""
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2)
    return bytes([first]) + length + key + bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))


def envelope(
    body: str, code: int = ACK, order: Iterable[str] = ("magic", "code", "len", "body"), spaced: bool = False
) -> bytes:
    """A packet as a message."""
    fields = {"magic": MAGIC, "code": code, "len": len(body), "body": body}
    return json_object([(key, fields[key]) for key in order], SPACED if spaced else COMPACT).encode()


@st.composite
def _mutated(draw: st.DrawFn, data: bytes) -> bytes:
    """The same, or with a byte more, less or another."""
    if not data or draw(st.integers(0, 3)):
        return data
    at = draw(st.integers(0, len(data) - 1))
    put = draw(st.sampled_from([b"", b" ", b"\\", b'"', b"0", b"x", b",", b"}", b"\xff", b"\xb2"]))
    return data[:at] + put + data[at + draw(st.integers(0, 1)) :]


@st.composite
def tcp_streams(draw: st.DrawFn) -> bytes:
    """Frames of TCP, nearly all of them ACKs."""
    frames: list[bytes] = []
    for same in draw(st.lists(bodies(), max_size=3)):
        for body in same:
            code = draw(st.sampled_from([ACK] * 12 + [1004]))
            frames.append(tcp(draw(_mutated(body.encode())), code, draw(st.sampled_from([0] * 30 + [1, -1]))))
    return draw(_mutated(b"".join(frames)))


@st.composite
def websocket_streams(draw: st.DrawFn) -> bytes:
    """Frames of a WebSocket client, nearly all of them ACKs."""
    frames: list[bytes] = []
    keys = st.one_of(st.just(bytes(4)), st.binary(min_size=4, max_size=4))
    orders = st.one_of(
        st.just(["magic", "code", "len", "body"]),
        st.permutations(["magic", "code", "len", "body"]),
        st.lists(st.sampled_from(["magic", "code", "len", "body"]), max_size=5),
    )
    for same in draw(st.lists(bodies(), max_size=3)):
        order, spaced = draw(orders), draw(st.booleans())
        code = draw(st.sampled_from([ACK] * 12 + [1004]))
        for body in same:
            message = draw(_mutated(envelope(body, code, order, spaced)))
            frames.append(
                masked(message, draw(keys), draw(st.sampled_from([0x81] * 30 + [0x82, 0x01, 0x80, 0xC1, 0x89])))
            )
    return draw(_mutated(b"".join(frames)))


def pieces(data: bytes, cuts: Iterable[int]) -> Iterator[bytes]:
    """The same bytes, cut at these places."""
    places = sorted(cut % (len(data) + 1) for cut in cuts)
    for start, end in zip([0, *places], [*places, len(data)], strict=True):
        yield data[start:end]


CUTS: Final = st.lists(st.integers(0, 2000), max_size=4)


def told(wire: Wire, data: Iterable[bytes]) -> tuple[list[object], str]:
    """All that comes of the bytes: msgIds one by one, other packets, and the fault."""
    found: list[object] = []
    for piece in data:
        buffer = bytearray(piece)  # as the driver's, which the next read overwrites
        for packet in wire.receive_data(memoryview(buffer)):
            found += _meaning(packet)
        buffer[:] = b"\xee" * len(buffer)
    return found, repr(wire.error)


def _meaning(packet: Packet) -> list[object]:
    if packet.acks is not None:
        assert packet.acks
        assert packet.code == ACK
        assert all(type(msg_id) is str and len(msg_id) == MSG_ID_DIGITS and msg_id.isascii() for msg_id in packet.acks)
        assert decode_ack(packet.body).msg_id == packet.acks[0]
        return list(packet.acks)
    if packet.code != ACK:
        return [(packet.code, bytes(packet.body))]
    try:  # as handlers/ack.py reads it
        ack = decode_ack(packet.body)
        others = decode_ack_data(ack.data) if ack.data else []
    except (Refused, ProtocolViolation) as fault:
        return [repr(fault)]
    return [ack.msg_id, *others] if ack.msg_id else list(others)


def opened(limit: int = 65_536) -> WebSocketWire:
    """A wire after its upgrade."""
    wire = WebSocketWire(limit)
    wire.receive_data(
        b"GET /t/10005 HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    wire.accept()
    return wire
