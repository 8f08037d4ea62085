"""ACKs are read by the wire itself, a run of them at once; whatever differs takes the common road, to the same end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client_acks import (
    ACK,
    COMPACT,
    CUTS,
    SPACED,
    envelope,
    json_object,
    masked,
    opened,
    pieces,
    tcp,
    tcp_streams,
    told,
    websocket_streams,
)
from harness import Harness, in_flight_of
from qiyu.errors import WsClose
from qiyu.protocol import tcp as tcp_wire
from qiyu.protocol.ack_runs import read_frames, read_packets
from qiyu.protocol.frames import FrameReader
from qiyu.protocol.packet import Packet
from qiyu.protocol.tcp import TcpWire
from qiyu.protocol.websocket import WebSocketWire

SHAPES: dict[str, tuple[list[tuple[str, Any]], list[tuple[str, Any]], tuple[str, str]]] = {
    "shortest": ([], [], COMPACT),
    "of the tutorial": ([("appId", 10001), ("userId", 10042)], [], COMPACT),
    "numbers as text": ([("appId", "10001"), ("userId", "10042")], [], COMPACT),
    "with all keys": (
        [("appId", 10001), ("userId", 10042), ("token", ""), ("bizCode", 0), ("data", "")],
        [("clientMsgId", "")],
        COMPACT,
    ),
    "with nulls": ([("token", None), ("data", None)], [("appId", None), ("bizCode", None)], COMPACT),
    "msgId first": ([], [("userId", 2**53 - 1), ("appId", 10001)], COMPACT),
    "of Python's json": ([("appId", 10001)], [("userId", 10042), ("data", "")], SPACED),
}
ENVELOPES = {
    "usual": (("magic", "code", "len", "body"), False),
    "with spaces": (("magic", "code", "len", "body"), True),
    "in alphabetical order": (("body", "code", "len", "magic"), False),
    "without len": (("code", "magic", "body"), True),
}
NO_RUNS: dict[str, Callable[[str], str]] = {
    "msgId as a number": lambda i: f'{{"msgId":{i}}}',
    "more msgIds in data": lambda i: f'{{"msgId":"{i}","data":"[]"}}',
    "data of the wrong type": lambda i: f'{{"msgId":"{i}","data":1}}',
    "a leading zero": lambda i: f'{{"appId":01,"msgId":"{i}"}}',
    "a fraction": lambda i: f'{{"appId":1.5,"msgId":"{i}"}}',
    "a token": lambda i: f'{{"token":"secret","msgId":"{i}"}}',
    "an unknown key": lambda i: f'{{"x":1,"msgId":"{i}"}}',
    "a key in other letters": lambda i: f'{{"msgid":"{i}"}}',
    "two msgIds": lambda i: f'{{"msgId":"{i}","msgId":"{i}"}}',
    "eighteen digits": lambda i: f'{{"msgId":"{i[:18]}"}}',
    "twenty digits": lambda i: f'{{"msgId":"{i}0"}}',
    "a letter": lambda i: f'{{"msgId":"{i[:18]}x"}}',
    "a digit of another script": lambda i: f'{{"msgId":"{i[:17]}²"}}',
    "tabs": lambda i: f'{{"msgId":\t"{i}"}}',
    "a comma at the end": lambda i: f'{{"msgId":"{i}",}}',
    "something behind it": lambda i: f'{{"msgId":"{i}"}} ',
}
IDS = [str(10**18 + n) for n in range(5)]


@contextmanager
def common_road() -> Iterator[None]:
    """Without the readers of runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tcp_wire, "read_packets", lambda *_: None)
        patch.setattr(WebSocketWire, "_take_small", FrameReader._take_small)
        yield


def bodies(shape: str) -> list[bytes]:
    before, after, separators = SHAPES[shape]
    return [json_object([*before, ("msgId", msg_id), *after], separators).encode() for msg_id in IDS]


# To the same end


@pytest.mark.property
@given(tcp_streams(), CUTS)
def test_tcp_it_comes_to_the_same_as_on_the_common_road(data: bytes, cuts: list[int]) -> None:
    """The msgIds, all other packets and the fault are those of reading every packet as JSON, however data is cut."""
    with common_road():
        expected = told(TcpWire(65_536), [data]), told(TcpWire(65_536), pieces(data, cuts))
    assert (told(TcpWire(65_536), [data]), told(TcpWire(65_536), pieces(data, cuts))) == expected


@pytest.mark.property
@given(websocket_streams(), CUTS)
def test_websocket_it_comes_to_the_same_as_on_the_common_road(data: bytes, cuts: list[int]) -> None:
    """As over TCP."""
    with common_road():
        expected = told(opened(), [data]), told(opened(), pieces(data, cuts))
    assert (told(opened(), [data]), told(opened(), pieces(data, cuts))) == expected


@pytest.mark.property
@given(st.one_of(st.sampled_from([100, 31, 30]), st.integers(1, 600)), tcp_streams(), websocket_streams())
def test_a_low_limit_on_bodies_holds(limit: int, over_tcp: bytes, over_websocket: bytes) -> None:
    with common_road():
        expected = told(TcpWire(limit), [over_tcp]), told(opened(limit), [over_websocket])
    assert (told(TcpWire(limit), [over_tcp]), told(opened(limit), [over_websocket])) == expected


# What is read in runs


@pytest.mark.parametrize("shape", SHAPES)
def test_tcp_a_run_of_each_shape_is_one_packet(shape: str) -> None:
    frames = [tcp(body) for body in bodies(shape)]
    (packet,) = TcpWire(65_536).receive_data(b"".join(frames))
    assert packet == Packet(ACK, frames[0][10:], IDS)


@pytest.mark.parametrize("key", [bytes(4), b"\x12\x34\x56\x78"])
@pytest.mark.parametrize("form", ENVELOPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_websocket_a_run_of_each_shape_is_one_packet(shape: str, form: str, key: bytes) -> None:
    order, spaced = ENVELOPES[form]
    messages = [envelope(body.decode(), order=order, spaced=spaced) for body in bodies(shape)]
    (packet,) = opened().receive_data(b"".join(masked(message, key) for message in messages))
    assert packet == Packet(ACK, b'{"msgId":"%b"}' % IDS[0].encode(), IDS)


@pytest.mark.parametrize("write", NO_RUNS.values(), ids=NO_RUNS)
def test_what_differs_is_in_no_run(write: Callable[[str], str]) -> None:
    frames = [tcp(write(msg_id).encode()) for msg_id in IDS]
    assert [packet.acks for packet in TcpWire(65_536).receive_data(b"".join(frames))] == [None] * 5
    frames = [masked(envelope(write(msg_id)), b"abcd") for msg_id in IDS]
    assert [packet.acks for packet in opened().receive_data(b"".join(frames))] == [None] * 5


def test_runs_end_where_another_packet_begins() -> None:
    run = b"".join(tcp(body) for body in bodies("of the tutorial"))
    packets = TcpWire(65_536).receive_data(run + tcp(b"{}", 1004) + run)
    assert [packet.acks for packet in packets] == [IDS, None, IDS]
    run = b"".join(masked(envelope(body.decode()), b"abcd") for body in bodies("of the tutorial"))
    packets = opened().receive_data(run + masked(envelope("{}", 1004), b"abcd") + run)
    assert [packet.acks for packet in packets] == [IDS, None, IDS]


def test_runs_of_two_shapes_over_websocket_are_one_packet() -> None:
    data = b"".join(masked(envelope(body.decode()), b"abcd") for shape in SHAPES for body in bodies(shape))
    (packet,) = opened().receive_data(data)
    assert packet.acks == IDS * len(SHAPES)


@pytest.mark.parametrize("cut", range(1, 60))
def test_an_unfinished_ack_waits_for_its_end(cut: int) -> None:
    one, two = [tcp(body) for body in bodies("of the tutorial")[:2]]
    wire = TcpWire(65_536)
    assert told(wire, [one + one + two[:-cut]]) == (IDS[:1] * 2, "None")
    assert told(wire, [two[-cut:]]) == (IDS[1:2], "None")
    one, two = (masked(envelope(body.decode()), b"abcd") for body in bodies("of the tutorial")[:2])
    open_wire = opened()
    assert told(open_wire, [one + one + two[:-cut]]) == (IDS[:1] * 2, "None")
    assert told(open_wire, [two[-cut:]]) == (IDS[1:2], "None")


@pytest.mark.parametrize(
    "fields",
    [
        {"code": ACK, "len": 31},
        {"magic": 18673, "len": 31},
        {"magic": 18674, "code": ACK},
        {"magic": 18673, "code": 1004},
        {"magic": "18673", "code": ACK},
        {"magic": 18673, "code": ACK, "x": 1},
    ],
)
def test_an_envelope_that_lacks_something_is_read_as_json(fields: dict[str, object]) -> None:
    message = json.dumps({"body": bodies("shortest")[0].decode()} | fields, separators=COMPACT).encode()
    frame = masked(message, b"abcd")
    assert read_frames(frame + frame, 0, 6, len(frame)) == (len(frame), message)


def test_a_body_limit_below_an_ack_holds() -> None:
    tcp_wire = TcpWire(30)
    assert tcp_wire.receive_data(tcp(bodies("shortest")[0])) == []
    wire = opened(30)
    assert wire.receive_data(masked(envelope(bodies("shortest")[0].decode()), b"abcd")) == []
    for fault in (tcp_wire.error, wire.error):
        assert fault is not None
        assert fault.ws_close is WsClose.MESSAGE_TOO_BIG


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape != "shortest"])
def test_alone_it_is_left_to_json(shape: str) -> None:
    """It costs less so; with another behind it, a run costs less."""
    body = bodies(shape)[0]
    frame = tcp(body)
    assert read_packets(frame, 0, len(frame)) is None
    assert read_packets(frame + frame, 0, len(frame)) == (2 * len(frame), IDS[:1] * 2)
    message = envelope(body.decode())
    frame = masked(message, b"abcd")
    start = len(frame) - len(message)
    assert read_frames(frame, 0, start, len(frame)) == (len(frame), message)
    assert read_frames(frame + frame, 0, start, len(frame)) == (2 * len(frame), IDS[:1] * 2)


@pytest.mark.property
@given(st.binary(max_size=511), st.binary(min_size=4, max_size=4))
def test_every_small_message_is_unmasked(message: bytes, key: bytes) -> None:
    frame = masked(message, key)
    start = len(frame) - len(message)
    assert read_frames(b"xyz" + frame, 3, 3 + start, 3 + len(frame)) == (3 + len(frame), message)


# What becomes of them


def short(msg_id: str) -> bytes:
    return b'{"msgId":"%b"}' % msg_id.encode()


def test_a_run_is_acknowledged_in_any_state() -> None:
    harness = Harness()
    one, two = harness.log_in(10_001, room=1), harness.log_in(10_002, room=1)
    for _ in range(3):
        one.send(1003, bizCode=5555, data={"roomId": 1, "content": "x"})
    ids = [packet.body["msgId"] for packet in two.receive()]
    run = b"".join(tcp(short(msg_id)) for msg_id in ids)
    two.session.hold()  # a packet of its waits for the database: an ACK is good all the same
    received = harness.metrics.packets_received
    two.write(run)
    assert in_flight_of(two.session) == {}
    assert harness.metrics.packets_received == received + 3
    assert harness.node.in_flight.deliveries == 0


def test_before_the_login_it_is_refused_as_any_packet() -> None:
    peer = Harness().connect()
    peer.write(tcp(short("1" * 19)))
    assert [packet.code for packet in peer.receive()] == [1007]
    assert peer.session.ended
