"""ACKs in their shortest form are read by the wire itself, a run of them at once; all else takes the common road."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import ACK, HEADER, HEARTBEAT, MAGIC, Harness, in_flight_of
from qiyu.protocol.packet import Packet
from qiyu.protocol.tcp import TcpWire

MSG_IDS = st.integers(10**18, 10**19 - 1).map(str)
NEARLY = (
    '{"msgId": "1574445359558557696"}',
    '{"msgId":"157444535955855769"}',
    '{"msgId":"1574445359558557696","data":""}',
    '{"msgId":"1574445359558557 96"}',
    '{"msgid":"1574445359558557696"}',
    '{"data":"15744453595585576960"}',
    '{"msgId":1574445359558557696,"a":1}',
    "{}",
)


def frame(code: int, body: str) -> bytes:
    return HEADER.pack(MAGIC, code, len(body)) + body.encode()


def short(msg_id: str) -> str:
    return f'{{"msgId":"{msg_id}"}}'


def told(packets: list[Packet]) -> list[tuple[int, str, bool]]:
    """Code and body of each packet, a run of ACKs taken apart, and whether the wire has read it."""
    flat = []
    for packet in packets:
        if packet.acks is None:
            flat.append((packet.code, bytes(packet.body).decode(), False))
        else:
            assert packet.code == ACK
            assert bytes(packet.body).decode() == short(packet.acks[0])
            flat += [(ACK, short(msg_id), True) for msg_id in packet.acks]
    return flat


@pytest.mark.property
@given(
    st.lists(
        st.one_of(
            MSG_IDS.map(lambda i: (ACK, short(i), True)),
            st.sampled_from(NEARLY).map(lambda b: (ACK, b, False)),
            st.sampled_from([(HEARTBEAT, "{}", False), (HEARTBEAT, short("1" * 19), False)]),
        ),
        max_size=12,
    ),
    st.lists(st.integers(0, 500), max_size=6),
)
def test_tcp_the_same_packets_come_whole_and_at_any_splits(sent: list[tuple[int, str, bool]], cuts: list[int]) -> None:
    data = b"".join(frame(code, body) for code, body, _ in sent)
    wire = TcpWire(65_536)
    got: list[tuple[int, str, bool]] = []
    edges = sorted({0, *(cut for cut in cuts if cut < len(data)), len(data)})
    for start, end in itertools.pairwise(edges):
        got += told(wire.receive_data(memoryview(data)[start:end]))
    assert got == sent
    assert wire.error is None


def test_tcp_a_run_is_one_packet() -> None:
    ids = [str(10**18 + n) for n in range(5)]
    (packet,) = TcpWire(65_536).receive_data(b"".join(frame(ACK, short(msg_id)) for msg_id in ids))
    assert packet.acks == ids


def test_tcp_a_body_limit_below_an_ack_holds() -> None:
    wire = TcpWire(30)
    assert wire.receive_data(frame(ACK, short("1" * 19))) == []
    assert wire.error is not None


@pytest.mark.property
@given(
    st.lists(
        st.one_of(MSG_IDS.map(lambda i: (ACK, short(i), True)), st.sampled_from(NEARLY).map(lambda b: (ACK, b, False))),
        max_size=8,
    ),
    st.booleans(),
)
def test_websocket_the_same_packets_come_whole_and_byte_by_byte(sent: list[tuple[int, str, bool]], whole: bool) -> None:
    peer = Harness().log_in_ws(10_001)
    data = b"".join(peer.masked(0x1, envelope(code, body)) for code, body, _ in sent)
    got: list[tuple[int, str, bool]] = []
    for part in [data] if whole else [data[i : i + 1] for i in range(len(data))]:
        got += told(peer.session.wire.receive_data(part))
    assert got == sent


def envelope(code: int, body: str) -> bytes:
    """A packet as JSON.stringify writes it."""
    return json.dumps({"magic": MAGIC, "code": code, "len": len(body), "body": body}, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    "text",
    [
        envelope(ACK, short("1" * 19)).replace(b"1005", b"1004"),
        envelope(ACK, short("1" * 19)).replace(b'"len":31', b'"len":32'),
        envelope(ACK, short("1" * 18 + "x")),
        envelope(ACK, short("1" * 19)).replace(b'"magic":', b'"magid":'),
    ],
)
def test_websocket_what_differs_is_not_taken_for_one(text: bytes) -> None:
    peer = Harness().log_in_ws(10_001)
    packets = peer.session.wire.receive_data(peer.masked(0x1, text))
    assert [packet.acks for packet in packets] in ([None], [])


def test_a_run_is_acknowledged_in_any_state() -> None:
    harness = Harness()
    one, two = harness.log_in(10_001, room=1), harness.log_in(10_002, room=1)
    for _ in range(3):
        one.send(1003, bizCode=5555, data={"roomId": 1, "content": "x"})
    ids = [packet.body["msgId"] for packet in two.receive()]
    run = b"".join(frame(ACK, short(msg_id)) for msg_id in ids)
    two.session.hold()  # a packet of its waits for the database: an ACK is good all the same
    received = harness.metrics.packets_received
    two.write(run)
    assert in_flight_of(two.session) == {}
    assert harness.metrics.packets_received == received + 3
    assert harness.node.in_flight.deliveries == 0


def test_before_the_login_it_is_refused_as_any_packet() -> None:
    peer = Harness().connect()
    peer.write(frame(ACK, short("1" * 19)))
    assert [packet.code for packet in peer.receive()] == [1007]
    assert peer.session.ended
