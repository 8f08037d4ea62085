"""What is fuzzed: functions of bytes that return, or raise AssertionError or what no parser should raise.

The invariant of all of them: any bytes are read or refused with the documented errors, and however they are cut into
portions, it comes to the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeAlias
from unittest.mock import patch

from client_acks import opened, pieces, told
from qiyu.errors import ProtocolViolation, Refused
from qiyu.model import InstanceId
from qiyu.protocol import ack_runs, bodies, masking, tcp, websocket
from qiyu.protocol.authority import parse_authority
from qiyu.protocol.envelope import decode
from qiyu.protocol.fmp4 import Muxer, Unsupported
from qiyu.protocol.frames import FrameReader
from qiyu.protocol.handshake import Handshake, parse_target
from qiyu.protocol.links import LinkWire
from qiyu.protocol.proxy import HEAD, rest_length, source
from qiyu.protocol.rtmp import RtmpLimits, RtmpWire
from qiyu.protocol.tcp import TcpWire
from qiyu.protocol.websocket import WebSocketWire
from rtmp_encoder import HANDSHAKE, SECOND_HALF

Target: TypeAlias = Callable[[bytes], None]

BODY_BYTES: Final = 2000
_CUTS: Final = 2  # of the first bytes, each says where the others are cut


def _portions(data: bytes) -> tuple[bytes, Sequence[bytes]]:
    rest = data[_CUTS:]
    return rest, list(pieces(rest, [each * len(rest) // 256 for each in data[:_CUTS]]))


@contextmanager
def _in_python() -> Iterator[None]:
    """Without the accelerator."""
    with (
        patch.object(tcp, "read_packets", ack_runs.read_packets),
        patch.object(websocket, "read_frames", ack_runs.read_frames),
        patch("qiyu.protocol.frames.unmask", masking.unmask),
    ):
        yield


@contextmanager
def _on_the_common_road() -> Iterator[None]:
    """Without the readers of runs."""
    with (
        patch.object(tcp, "read_packets", lambda *_: None),
        patch.object(WebSocketWire, "_take_small", FrameReader._take_small),
    ):
        yield


def tcp_frames(data: bytes) -> None:
    """Frames of TCP, with and without what reads ACKs in runs, in C and in Python."""
    whole, cut = _portions(data)
    expected = told(TcpWire(BODY_BYTES), [whole])
    assert told(TcpWire(BODY_BYTES), cut) == expected
    for way in (_in_python, _on_the_common_road):
        with way():
            assert told(TcpWire(BODY_BYTES), cut) == expected


def websocket_frames(data: bytes) -> None:
    """Frames of a WebSocket that is open, likewise."""
    whole, cut = _portions(data)
    expected = told(opened(BODY_BYTES), [whole])
    assert told(opened(BODY_BYTES), cut) == expected
    for way in (_in_python, _on_the_common_road):
        with way():
            assert told(opened(BODY_BYTES), cut) == expected


def handshake(data: bytes) -> None:
    """The request that opens a WebSocket."""
    whole, cut = _portions(data)
    assert _requested([whole]) == _requested(cut)


def _requested(portions: Sequence[bytes]) -> tuple[object, object, bytes]:
    shaking = Handshake()
    request = None
    for portion in portions:
        request = shaking.receive_data(portion) or request
        if shaking.error is not None:
            break
    if request is not None and shaking.error is None:
        assert shaking.accept().startswith(b"HTTP/1.1 101 ")
    fault = shaking.error.reason if shaking.error is not None else None
    return request, fault, shaking.answer if shaking.error is not None else b""


def path(data: bytes) -> None:
    """The path of a login, and the host of a request."""
    text = data.decode("latin-1")
    parse_authority(text)
    try:
        parse_target(text)
    except ProtocolViolation as fault:
        assert fault.reason


def message(data: bytes) -> None:
    """The JSON in a WebSocket message."""
    try:
        packet = decode(data, BODY_BYTES)
    except ProtocolViolation as fault:
        assert fault.reason
    else:
        assert len(packet.body) <= BODY_BYTES


_OF_BODIES: Final[Sequence[Callable[[bytes], Any]]] = (
    bodies.decode_login,
    bodies.decode_biz,
    bodies.decode_ack,
    bodies.decode_data,
)
_OF_DATA: Final[Sequence[Callable[[str], Any]]] = (
    bodies.decode_chat_data,
    bodies.decode_like_data,
    bodies.decode_room_data,
    bodies.decode_ack_data,
)


def body(data: bytes) -> None:
    """The JSON of each kind of packet, and the JSON within that."""
    bodies.client_msg_id_of(data)
    for read in _OF_BODIES:
        try:
            inner = getattr(read(data), "data", None)
        except (Refused, ProtocolViolation) as fault:
            assert fault.reason
        else:
            _read_inner(inner)


def _read_inner(data: str | None) -> None:
    for read in _OF_DATA:
        try:
            read(data or "")
        except Refused as fault:
            assert fault.reason


def rtmp(data: bytes) -> None:
    """What an encoder sends: as its handshake, and after one."""
    whole, cut = _portions(data)
    assert _pushed([whole]) == _pushed(cut)
    shaken = HANDSHAKE + SECOND_HALF
    assert _pushed([shaken, whole]) == _pushed([shaken, *cut])


def _pushed(portions: Sequence[bytes]) -> tuple[list[tuple[int, bytes]], str]:
    wire = RtmpWire(RtmpLimits())
    found: list[tuple[int, bytes]] = []
    for portion in portions:
        found += [(packet.code, bytes(packet.body)) for packet in wire.receive_data(portion)]
        wire.data_to_send()
    return found, repr(wire.error)


def picture(data: bytes) -> None:
    """Tags of a picture, each a byte of kind, one of length and its bytes, on their way into MP4."""
    muxer = Muxer()
    position = time = 0
    try:
        while position + 2 <= len(data):
            kind, length = data[position], data[position + 1]
            tag = data[position + 2 : position + 2 + length]
            (muxer.video if kind % 2 else muxer.audio)(time, tag)
            time += kind // 2
            position += 2 + length
    except Unsupported as fault:
        assert str(fault)


def link(data: bytes) -> None:
    """What another instance says, or who pretends to be one and has no secret."""
    whole, cut = _portions(data)
    stranger, _ = _ends()
    assert stranger.receive_data(whole) == []
    assert stranger.peer is None
    assert _heard([whole]) == _heard(cut)


def _heard(portions: Sequence[bytes]) -> tuple[list[object], str]:
    called, calling = _ends()
    while called.has_output or calling.has_output:
        called.receive_data(calling.data_to_send())
        calling.receive_data(called.data_to_send())
    assert called.peer is not None
    found: list[object] = []
    for portion in portions:
        found += called.receive_data(portion)
    return found, repr(called.error)


def _ends() -> tuple[LinkWire, LinkWire]:
    one, other, secret = InstanceId(1, 1), InstanceId(2, 1), b"a secret for fuzzing"
    return LinkWire(one, secret, bytes(32)), LinkWire(other, secret, b"\1" * 32, one)


def proxy_header(data: bytes) -> None:
    """The PROXY protocol's header."""
    head = data[: HEAD.size].ljust(HEAD.size, b"\0")
    try:
        length = rest_length(head)
        source(head, data[HEAD.size :].ljust(length, b"\0")[:length])
    except ProtocolViolation as fault:
        assert fault.reason


TARGETS: Final[dict[str, Target]] = {
    each.__name__: each
    for each in (
        tcp_frames,
        websocket_frames,
        handshake,
        path,
        message,
        body,
        rtmp,
        picture,
        link,
        proxy_header,
    )
}
