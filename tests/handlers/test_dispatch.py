from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import (
    ACK,
    BIZ,
    CLOSE,
    DIRECT,
    ERROR,
    HEADER,
    HEARTBEAT,
    LOGIN,
    LOGOUT,
    MAGIC,
    PING,
    ROOM,
    ROOM_CHAT,
    TEXT,
    Client,
    Harness,
    Received,
    TcpClient,
    error_of,
    in_flight_of,
)

WIRES = pytest.mark.parametrize("ws", [False, True])


def logged_in(harness: Harness, user: int, *, ws: bool, room: int | None = None) -> Client:
    return harness.log_in_ws(user, room=room) if ws else harness.log_in(user, room=room)


def closed_with(peer: Client, code: int, ws_close: int) -> str:
    """The reason in the one ERROR packet before the connection was closed."""
    (packet,) = peer.receive()
    assert error_of(packet) == code
    assert peer.shut
    assert peer.session.ended
    if peer.http:
        assert peer.close_code == ws_close
    reason: str = packet.data["reason"]
    assert reason.endswith("; the connection is closed")
    return reason


# Faults that close


@WIRES
def test_a_body_at_its_bound_and_a_byte_above(ws: bool) -> None:
    harness = Harness(limits={"body_bytes": 1000})
    peer = logged_in(harness, 10_000, ws=ws)
    peer.write(peer.frame(HEARTBEAT, b'{"data":"%b"}' % (b"x" * 989)))
    assert [packet.code for packet in peer.receive()] == [HEARTBEAT]
    peer.write(peer.frame(HEARTBEAT, b'{"data":"%b"}' % (b"x" * 990)))
    assert "1000 bytes" in closed_with(peer, 400, 1009)
    assert harness.metrics.protocol_violations == 1


def test_a_body_is_judged_before_it_comes() -> None:
    harness = Harness()
    peer = harness.log_in(10_000)
    peer.write(HEADER.pack(MAGIC, BIZ, 65_537))
    assert closed_with(peer, 400, 0) == "len 65537: expected 0 to 65536 bytes; the connection is closed"


def test_a_websocket_message_is_judged_before_it_comes() -> None:
    harness = Harness(limits={"body_bytes": 100})
    peer = harness.log_in_ws(10_000)
    peer.write(b"\x81\xfe" + struct.pack(">H", 2 * 100 + 1024 + 1))
    assert "longer than 1224 bytes" in closed_with(peer, 400, 1009)


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", b"\x00\x00", struct.pack(">hii", MAGIC, 1003, -1)]
)
def test_garbage_on_the_tcp_port(garbage: bytes) -> None:
    harness = Harness()
    for peer in (harness.connect(), harness.log_in(10_000)):
        peer.write(garbage)
        closed_with(peer, 400, 0)
    assert harness.metrics.protocol_violations == 2
    assert len(harness.node.hub) == 0


@pytest.mark.parametrize(
    ("code", "body"),
    [
        (BIZ, b"not JSON"),
        (BIZ, b""),
        (BIZ, b'{"data":"\xff"}'),
        (BIZ, b'{"a":' * 10_000),
        (ACK, b'{"msgId":"\\ud800"}'),
        (ROOM, b'{"data":'),
    ],
)
def test_a_body_that_is_no_json(code: int, body: bytes) -> None:
    harness = Harness()
    peer = harness.log_in(10_000, room=7)
    peer.write(peer.frame(code, body) + peer.packet(HEARTBEAT))
    assert "expected a JSON object in UTF-8" in closed_with(peer, 400, 0)
    assert harness.metrics.protocol_violations == 1
    assert harness.node.hub.find_room(10_001, 7) is None


@pytest.mark.parametrize(
    ("frame", "ws_close"),
    [
        ((TEXT, b"not JSON"), 1008),
        ((TEXT, b'{"magic":1,"code":1004,"len":2,"body":"{}"}'), 1008),
        ((TEXT, b'{"magic":18673,"code":1004,"len":2}'), 1008),
        ((TEXT, b'{"magic":18673,"code":1003,"len":2,"body":"{"}'), 1008),
        ((TEXT, b'{"magic":18673,"code":1003,"len":2,"body":"\xff"}'), 1007),
        ((0x2, b"binary"), 1003),
        ((0x3, b"reserved"), 1002),
        ((PING, b"x" * 126), 1002),
    ],
)
def test_a_websocket_fault(frame: tuple[int, bytes], ws_close: int) -> None:
    harness = Harness()
    peer = harness.log_in_ws(10_000)
    peer.write(peer.masked(*frame))
    closed_with(peer, 400, ws_close)


@pytest.mark.parametrize("code", [LOGOUT, BIZ, HEARTBEAT, ACK, ROOM, ERROR, 1000, 0, -1, 4711])
def test_a_packet_before_the_login(code: int) -> None:
    harness = Harness()
    peer = harness.connect()
    peer.write(peer.packet(code, data={"roomId": 1}) + peer.packet(LOGIN, userId=10_000))
    assert "expected 1001" in closed_with(peer, 401, 0)


# Refusals that leave the connection open


@WIRES
@pytest.mark.parametrize("code", [ERROR, 1000, 0, -1, 4711, 2**31 - 1, -(2**31)])
def test_an_unknown_code(code: int, ws: bool) -> None:
    harness = Harness()
    peer = logged_in(harness, 10_000, ws=ws)
    refused = peer.answer(code, clientMsgId="c-1")
    assert error_of(refused) == 400
    assert f"code {code}: expected one of 1001 (LOGIN)" in refused.data["reason"]
    assert refused.body["clientMsgId"] == "c-1"
    assert peer.answer(HEARTBEAT).code == HEARTBEAT
    assert harness.metrics.packets_refused == 1


@WIRES
def test_a_refusal_names_its_packet_and_the_next_one_is_handled(ws: bool) -> None:
    harness = Harness()
    peer = logged_in(harness, 10_000, ws=ws)
    packets = [
        peer.packet(BIZ, bizCode="5555", clientMsgId="c-1"),
        peer.packet(HEARTBEAT),
        peer.packet(ROOM, data=[], clientMsgId="鱼"),
        peer.packet(ROOM, data=[], clientMsgId=7),
        peer.packet(ACK, msgId=5),
    ]
    peer.write(b"".join(packets))
    answers = peer.receive()
    assert [packet.code for packet in answers] == [ERROR, HEARTBEAT, ERROR, ERROR, ERROR]
    assert [packet.body.get("clientMsgId") for packet in answers] == ["c-1", None, "鱼", None, None]
    assert harness.metrics.packets_refused == 4
    assert harness.metrics.packets_received == len(packets) + 1


# How packets come


@WIRES
def test_two_hundred_packets_in_one_read(ws: bool) -> None:
    harness = Harness()
    peer, member = logged_in(harness, 10_000, ws=ws, room=7), harness.log_in(10_001, room=7)
    say = [peer.packet(BIZ, bizCode=ROOM_CHAT, data={"roomId": 7, "content": str(number)}) for number in range(200)]
    peer.write(b"".join(say))
    assert [packet.data["content"] for packet in member.receive()] == [str(number) for number in range(200)]
    assert peer.receive() == []
    assert harness.metrics.messages_accepted == harness.metrics.deliveries == 200


@WIRES
def test_byte_by_byte(ws: bool) -> None:
    harness = Harness()
    peer = logged_in(harness, 10_000, ws=ws)
    for byte in peer.packet(HEARTBEAT) + peer.packet(ROOM, data={"roomId": 3}):
        peer.write(bytes([byte]))
    assert [packet.code for packet in peer.receive()] == [HEARTBEAT, ROOM]


@WIRES
def test_nothing_is_handled_after_the_end(ws: bool) -> None:
    harness = Harness()
    peer, member = logged_in(harness, 10_000, ws=ws, room=7), harness.log_in(10_001, room=7)
    say = peer.packet(BIZ, bizCode=DIRECT, data={"objectId": 10_001, "content": "!"})
    enter = peer.packet(ROOM, data={"roomId": 8})
    peer.write(say + peer.packet(LOGOUT) + say + enter + peer.packet(LOGOUT))
    peer.write(say)
    peer.write(enter + b"\x00garbage")
    peer.write(b"garbage")
    assert len(member.receive()) == 1
    assert [packet.code for packet in peer.receive()] == [LOGOUT]
    assert peer.shut
    assert harness.node.hub.find_room(10_001, 8) is None
    assert harness.metrics.protocol_violations == 0


@pytest.mark.property
@given(st.lists(st.binary(max_size=60), max_size=5), st.booleans(), st.booleans())
def test_any_bytes_are_answered_and_harm_nobody_else(reads: list[bytes], ws: bool, known: bool) -> None:
    """Whatever one peer sends, nothing is raised; another session is still served; an ended one gets a good-bye."""
    harness = Harness()
    other = harness.log_in(10_001)
    peer: Client = harness.connect_ws() if ws else harness.connect()
    if known:
        peer = logged_in(harness, 10_000, ws=ws)
    for data in reads:
        peer.write(data)
    received = peer.receive()
    assert peer.shut == peer.session.ended
    if peer.session.ended and not ws:
        assert received[-1].code in {ERROR, LOGOUT}
    assert other.answer(HEARTBEAT).code == HEARTBEAT


@pytest.mark.property
@given(
    st.lists(
        st.tuples(
            st.sampled_from([LOGIN, LOGOUT, BIZ, HEARTBEAT, ACK, ROOM, 1007, 0]),
            st.fixed_dictionaries(
                {},
                optional={
                    "bizCode": st.sampled_from([ROOM_CHAT, DIRECT, 0, None]),
                    "data": st.one_of(
                        st.text(max_size=10),
                        st.just("[" * 3000),
                        st.fixed_dictionaries(
                            {},
                            optional={
                                "roomId": st.sampled_from([None, 0, 7, 2**53, "7"]),
                                "objectId": st.sampled_from([None, 0, 10_000, 10_001, 2**64]),
                                "content": st.one_of(st.none(), st.text(max_size=20), st.just("x" * 2001)),
                                "afterMsgId": st.sampled_from([None, "", "1"]),
                            },
                        ),
                    ),
                    "msgId": st.one_of(st.none(), st.text(max_size=5)),
                    "clientMsgId": st.one_of(st.none(), st.text(max_size=70)),
                },
            ),
        ),
        max_size=8,
    ),
    st.booleans(),
)
def test_any_packets_are_answered(packets: list[tuple[int, dict[str, object]]], ws: bool) -> None:
    """Packets with well-formed bodies, whatever they ask for, are at most refused; only LOGOUT ends the session."""
    harness = Harness()
    other = harness.log_in(10_001, room=7)
    peer = logged_in(harness, 10_000, ws=ws)
    peer.write(b"".join(peer.packet(code, **fields) for code, fields in packets))
    assert peer.session.ended == (LOGOUT in [code for code, _ in packets])
    for packet in peer.receive():
        assert packet.body["userId"] == 10_000
    for packet in other.receive():
        assert packet.data["userId"] == 10_000
    assert other.answer(HEARTBEAT).code == HEARTBEAT
    assert harness.metrics.protocol_violations == 0


# WebSocket only


def test_a_close_frame_is_answered() -> None:
    harness = Harness()
    peer = harness.log_in_ws(10_000, room=7)
    peer.write(peer.packet(HEARTBEAT) + peer.masked(CLOSE, struct.pack(">H", 1001)) + peer.packet(HEARTBEAT))
    assert [packet.code for packet in peer.receive()] == [HEARTBEAT]  # what came before it; and our close frame is last
    assert peer.close_code == 1001
    assert peer.shut
    assert len(harness.node.hub) == 0


def test_a_logout_and_a_close_frame_in_one_read() -> None:
    harness = Harness()
    peer = harness.log_in_ws(10_000)
    peer.write(peer.packet(LOGOUT) + peer.masked(CLOSE, struct.pack(">H", 1000)))
    assert [packet.code for packet in peer.receive()] == [LOGOUT]
    assert peer.close_code == 1000
    assert peer.shut


def test_pings_are_answered_before_the_good_bye() -> None:
    harness = Harness()
    peer = harness.log_in_ws(10_000)
    peer.write(peer.masked(PING, b"a") + peer.packet(LOGOUT))
    assert [packet.code for packet in peer.receive()] == [LOGOUT]
    assert peer.pongs == [b"a"]
    assert peer.close_code == 1000


# Slow receivers


@WIRES
def test_a_slow_receiver_goes_without_and_is_told_at_the_very_place(ws: bool) -> None:
    harness = Harness(limits={"outbox_soft_bytes": 1000, "outbox_hard_bytes": 100_000})
    slow, quick, sender = (
        logged_in(harness, 10_000, ws=ws, room=7),
        harness.log_in(10_001, room=7),
        harness.log_in(10_002),
    )
    sender.answer(ROOM, data={"roomId": 7})

    def say(number: int) -> None:
        sender.send(BIZ, bizCode=ROOM_CHAT, data={"roomId": 7, "content": str(number)})
        assert len(quick.receive()) == 1

    for number in range(20):
        say(number)
    sender.send(BIZ, bizCode=DIRECT, data={"objectId": 10_000, "content": "direct"})
    received = slow.receive()
    say(20)
    received += slow.receive()

    told = [packet.code for packet in received].index(ERROR)
    assert error_of(received[told]) == 206
    contents = [packet.data["content"] for packet in received if packet.code == BIZ]
    assert contents == [*map(str, range(told)), "direct", "20"]
    assert [packet.code for packet in received].count(ERROR) == 1
    assert harness.metrics.deliveries_dropped == 20 - told
    in_flight = in_flight_of(slow.session)
    assert list(in_flight) == [packet.body["msgId"] for packet in received if packet.code == BIZ]


def test_a_new_gap_is_told_anew() -> None:
    harness = Harness(limits={"outbox_soft_bytes": 500})
    slow, sender = harness.log_in(10_000, room=7), harness.log_in(10_001, room=7)
    for _ in range(2):
        for _ in range(10):
            sender.send(BIZ, bizCode=ROOM_CHAT, data={"roomId": 7})
        assert [packet.code for packet in slow.receive()].count(ERROR) == 1


@pytest.mark.parametrize("room", [7, 8])
def test_who_enters_a_room_anew_is_told_anew(room: int) -> None:
    """It catches up from the answer on: what is dropped after that is a gap of its own."""
    harness = Harness(limits={"outbox_soft_bytes": 500})
    slow, sender = harness.log_in(10_000, room=7), harness.log_in(10_001, room=7)
    for _ in range(10):
        sender.send(BIZ, bizCode=ROOM_CHAT, data={"roomId": 7})
    slow.send(ROOM, data={"roomId": room, "afterMsgId": "1"})
    sender.send(ROOM, data={"roomId": room})
    for _ in range(2):
        sender.send(BIZ, bizCode=ROOM_CHAT, data={"roomId": room})
    codes = [packet.code for packet in slow.receive()]
    assert [code for code in codes[codes.index(ERROR) :] if code != BIZ] == [ERROR, ROOM, ERROR]


def test_no_bounds_at_all() -> None:
    harness = Harness(limits={"outbox_soft_bytes": 0, "outbox_hard_bytes": 0})
    slow, sender = harness.log_in(10_000, room=7), harness.log_in(10_001, room=7)
    for _ in range(200):
        sender.send(BIZ, bizCode=ROOM_CHAT, data={"roomId": 7, "content": "x" * 2000})
    assert len(slow.receive()) == 200


def test_a_client_that_never_acknowledges_is_not_ended() -> None:
    harness = Harness(ack={"window": 5})
    lazy, sender = harness.log_in(10_000, room=7), harness.log_in(10_001, room=7)
    for _ in range(50):
        sender.send(BIZ, bizCode=ROOM_CHAT, data={"roomId": 7})
        assert len(lazy.receive()) == 1
    assert len(in_flight_of(lazy.session)) == 5
    assert harness.metrics.in_flight_evicted == 45
    assert not lazy.session.ended


def test_whoever_reads_slowly_gets_every_packet_whole() -> None:
    harness = Harness()
    slow, sender = harness.log_in(10_000, room=7), harness.log_in(10_001, room=7)
    for number in range(30):
        sender.send(BIZ, bizCode=ROOM_CHAT, data={"roomId": 7, "content": str(number)})
        slow.flush(capacity=50, at_most=600)
    received = slow.decoded() + slow.receive()
    assert [packet.data["content"] for packet in received] == [str(number) for number in range(30)]


def test_a_slow_one_that_was_cut_off_within_a_packet_still_understands_its_good_bye() -> None:
    harness = Harness(limits={"outbox_soft_bytes": 3000, "outbox_hard_bytes": 3000})
    slow, sender = harness.log_in(10_000), harness.log_in(10_001)
    while not slow.outbox.overflowed:
        sender.send(BIZ, bizCode=DIRECT, data={"objectId": 10_000, "content": "x" * 100})
        if not slow.waits_to_write and slow.outbox.size > 1000:
            slow.flush(capacity=30, at_most=360)
    received = slow.receive()
    assert [packet.code for packet in received[:-1]] == [BIZ] * (len(received) - 1)
    assert received[-1] == Received(
        LOGOUT, {"appId": 10_001, "userId": 10_000, "data": '{"reason":"slow","reconnect":true}'}
    )


def test_every_connection_is_counted() -> None:
    harness = Harness()
    harness.connect()
    harness.log_in(10_000)
    harness.log_in_ws(10_001)
    assert harness.metrics.connections_accepted == 3
    assert harness.metrics.logins == 2
    assert isinstance(harness.connect(), TcpClient)
