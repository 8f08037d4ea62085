from __future__ import annotations

import pytest

from client_acks import masked
from harness import HEADER, HEARTBEAT, MAGIC, ROOM, Harness
from qiyu.protocol.rtmp import RtmpLimits, RtmpWire
from qiyu.services import holdings
from qiyu.services.holdings import PACKET_BYTES, Holdings, held_by
from rtmp_encoder import HANDSHAKE, SECOND_HALF, Encoder
from town import Town


def total(harness: Harness) -> int:
    return harness.node.pressure.holdings.total


def part(harness: Harness, name: str) -> int:
    return harness.node.pressure.holdings._parts[name]()


def test_a_server_with_nothing_to_do_holds_nothing() -> None:
    harness = Harness()
    harness.log_in(10_001, room=7).receive()
    harness.advance(1)
    assert total(harness) == 0


def test_unfinished_packets_count_on_both_wires_and_no_longer_than_that() -> None:
    harness = Harness()
    over_tcp, over_websocket = harness.log_in(10_001), harness.log_in_ws(10_002)
    over_tcp.write(HEADER.pack(MAGIC, HEARTBEAT, 500) + b" " * 300)
    over_websocket.write(masked(b"x" * 200, bytes(4), 0x01))
    assert held_by(over_tcp.session) == HEADER.size + 300
    assert held_by(over_websocket.session) == 200
    harness.advance(0.25)
    assert total(harness) == HEADER.size + 500
    over_tcp.write(b" " * 200)
    over_tcp.receive()
    assert held_by(over_tcp.session) == 0


def test_the_head_of_a_request_counts() -> None:
    harness = Harness()
    peer = harness.connect_ws()
    peer.write(b"GET / HTTP/1.1\r\nHost: a\r\n")
    assert held_by(peer.session) == len(b"GET / HTTP/1.1\r\nHost: a\r\n")


def test_what_an_encoder_has_begun_counts() -> None:
    wire = RtmpWire(RtmpLimits())
    encoder = Encoder(4096).publish("7?key=secret")
    wire.receive_data(encoder.take())
    assert wire.unfinished == 0
    encoder.video(0, b"x" * 3000)
    wire.receive_data(encoder.take()[:2000])
    assert 1900 < wire.unfinished < 2000
    assert RtmpWire(RtmpLimits()).receive_data(HANDSHAKE + SECOND_HALF) == []


def test_packets_that_wait_for_the_database_count() -> None:
    town = Town.make()
    stranger = town.harness.log_in(10_009)
    stranger.send(ROOM, data={"roomId": 7, "afterMsgId": "1"})  # which only the database can answer
    before = held_by(stranger.session)
    packet = stranger.packet(HEARTBEAT, data="x" * 400)
    stranger.write(packet * 3)
    assert held_by(stranger.session) - before == 3 * (PACKET_BYTES + len(packet) - HEADER.size)


def test_messages_count_where_they_are() -> None:
    town = Town.make()
    harness = town.harness
    town.alice.whisper(10_003, "x" * 1000, "c-1")
    assert part(harness, "message queue") > 1000
    assert part(harness, "in flight") == part(harness, "timers") == 0
    harness.write()
    assert part(harness, "message queue") == 0
    assert part(harness, "in flight") > 0
    assert part(harness, "timers") > 0
    assert part(harness, "outboxes") > 1000
    town.bob.say("y" * 500)
    assert part(harness, "rings") > 500


def test_many_connections_are_looked_at_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holdings, "LOOKS", 2)
    harness = Harness()
    peers = [harness.log_in(10_001 + n) for n in range(5)]
    for peer in peers:
        peer.write(HEADER.pack(MAGIC, HEARTBEAT, 500) + b" " * 90)
    looking = Holdings({"something": lambda: 7}, lambda: [peer.session for peer in peers])
    found = []
    for _ in range(4):
        looking.tick()
        found.append(looking.total)
    assert found == [7, 7, 507, 507]  # the third has them all
    assert repr(looking) == "<Holdings something 7, connections 500>"
