from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import ACK, BIZ, ERROR, HEARTBEAT, LOGIN, PING, ROOM, Client, Harness, error_of, refusal
from qiyu.errors import ErrorCode
from qiyu.metrics import Metrics
from qiyu.model import Instant
from qiyu.services import limits
from qiyu.services.limits import Limits, Rates, spend

TOO_FAST = ErrorCode.TOO_FAST
NOW = Instant(1000.0, 0)


def limited(**values: int) -> Harness:
    return Harness(limits=values)


def errors(client: Client) -> list[int]:
    return [error_of(packet) for packet in client.receive() if packet.code == ERROR]


@pytest.mark.property
@given(
    st.lists(st.tuples(st.floats(0, 2), st.integers(1, 5)), max_size=60),
    st.integers(1, 50),
    st.integers(1, 100),
)
def test_no_more_than_the_burst_and_the_rate(steps: list[tuple[float, int]], rate: int, burst: int) -> None:
    """What is within the limit in any stretch of time is the burst and what the rate gives in it, at most; and who
    keeps to the rate is never over it."""
    due = now = steady = 0.0
    taken: list[tuple[float, int]] = []
    for pause, count in steps:
        now += pause
        later, over = spend(due, now, count, rate, burst)
        if over <= 0:
            due = later
            taken.append((now, count))
        steady, over = spend(steady, now, min(pause * rate, 1), rate, burst)
        assert over <= 0
    for first in range(len(taken)):
        total = 0
        for moment, count in taken[first:]:
            total += count
            assert total <= burst + (moment - taken[first][0]) * rate + 0.01


def test_messages_of_one_connection() -> None:
    harness = limited(messages_per_second=20, messages_burst=40)
    one, other = harness.log_in(10_000, room=1), harness.log_in(10_001, room=1)
    for n in range(40):
        one.say(str(n))
    assert one.receive() == []
    one.say("one too many", cid="a")
    (refused,) = one.receive()
    assert error_of(refused) == TOO_FAST
    assert refused.body["clientMsgId"] == "a"
    assert "20 a second at most, and 40 at once" in refused.data["reason"]
    assert len(other.contents()) == 40
    other.say("who is not it")
    assert one.contents() == ["who is not it"]
    harness.advance(0.25)
    for n in range(5):
        one.say(str(n))
    one.say("again too many")
    assert refusal(one.receive()) == TOO_FAST
    assert harness.metrics.messages_too_fast == 2


def test_likes_are_messages_too() -> None:
    harness = limited(messages_per_second=1, messages_burst=2)
    fan = harness.log_in(10_000, room=1)
    for _ in range(3):
        fan.send(BIZ, bizCode=5558, data={"roomId": 1, "count": 1})
    assert refusal(fan.receive()) == TOO_FAST


def test_a_burst_of_none_is_one() -> None:
    harness = limited(messages_per_second=1, messages_burst=0)
    one = harness.log_in(10_000, room=1)
    one.say("one")
    one.say("two")
    assert refusal(one.receive()) == TOO_FAST


def test_messages_of_one_room() -> None:
    harness = limited(room_messages_per_second=3)
    members = [harness.log_in(10_000 + n, room=1) for n in range(4)]
    elsewhere = harness.log_in(10_100, room=2)
    for member in members[:3]:
        member.say("hello")
    members[3].say("too many", cid="x")
    assert [packet.code for packet in members[3].receive()] == [BIZ, BIZ, BIZ, ERROR]
    elsewhere.say("another room")
    members[3].whisper(10_100, "direct")
    assert elsewhere.contents() == ["direct"]
    harness.advance(1)
    members[3].say("too many", cid="x")
    assert [packet.code for packet in members[3].receive()] == [ACK]
    assert harness.metrics.room_messages_too_fast == 1


@pytest.mark.parametrize("ws", [False, True])
def test_packets_of_one_connection_are_read_no_faster(ws: bool) -> None:
    harness = limited(packets_per_second=100, packets_burst=400)
    one = harness.log_in_ws(10_000) if ws else harness.log_in(10_000)
    beat = one.packet(HEARTBEAT)
    one.write(beat * 399)  # LOGIN, or the upgrade, was the first
    assert one.session.read_from == 0
    assert errors(one) == []
    one.write(beat * 50)
    assert one.session.read_from == pytest.approx(harness.now.monotonic + 0.5, abs=0.001)
    one.write(beat * 50)  # as a driver does that had read it already
    assert errors(one) == [TOO_FAST]  # told once a second
    harness.advance(1.25)
    one.write(beat * 100)
    assert errors(one) == [TOO_FAST]
    assert (harness.metrics.reads_paced, harness.metrics.packets_too_fast) == (3, 2)


@pytest.mark.parametrize("kind", ["pings", "pongs", "pieces", "empty ACKs", "second LOGINs", "unknown codes"])
def test_whatever_it_is_that_is_sent(kind: str) -> None:
    harness = limited(packets_per_second=10, packets_burst=20)
    one = harness.log_in_ws(10_000)
    piece = bytes([0x00, 0x80, 0, 0, 0, 0])
    flood = {
        "pings": one.masked(PING, b"") * 20,
        "pongs": one.masked(0xA, b"") * 20,
        "pieces": bytes([0x01, 0x80, 0, 0, 0, 0]) + piece * 19,
        "empty ACKs": one.packet(ACK) * 20,
        "second LOGINs": one.packet(LOGIN) * 20,
        "unknown codes": one.packet(4711) * 20,
    }[kind]
    one.write(flood)
    assert one.session.read_from > harness.now.monotonic


def test_acks_of_what_was_sent_are_free() -> None:
    harness = limited(packets_per_second=10, packets_burst=20)
    reader, sender = harness.log_in(10_000, room=1), harness.log_in(10_001, room=1)
    harness.node.limits.rates = Rates()
    for n in range(200):
        sender.say(str(n))
    ids = [packet.body["msgId"] for packet in reader.receive()]
    harness.node.limits.rates = Rates(packets_per_second=10, packets_burst=20)
    for msg_id in ids[:60]:
        reader.send(ACK, msgId=msg_id)
    reader.write(b"".join(reader.packet(ACK, msgId=msg_id) for msg_id in ids[60:120]))
    reader.acknowledge(*ids[120:])
    assert reader.session.read_from == 0
    for _ in range(19):
        reader.acknowledge(*(str(10**18 + n) for n in range(16)))
    assert reader.session.read_from == 0
    reader.acknowledge(*(str(10**18 + n) for n in range(17)))
    assert reader.session.read_from > harness.now.monotonic


def test_encoders_are_not_paced() -> None:
    harness = limited(packets_per_second=1, packets_burst=1)
    viewer = harness.connect()
    viewer.session.state = type(viewer.session.state)("encoder", {}, viewer.session.state.unknown)
    viewer.session.spent = 50
    harness.dispatcher.received(viewer.session, b"", harness.now)
    assert viewer.session.read_from == 0


def test_logins_of_one_address() -> None:
    harness = limited(logins_per_second=3)
    for n in range(3):
        harness.log_in(10_000 + n)
    late = harness.connect()
    late.send(LOGIN, appId=10_001, userId=10_050, token="whatever")
    (error,) = late.receive()
    assert error_of(error) == TOO_FAST
    assert late.shut
    harness.advance(1 / 3)
    harness.log_in(10_051)
    assert harness.metrics.logins_too_fast == 1
    harness.advance(2)
    assert harness.node.limits._logins == {}


def test_a_login_in_the_path_gets_429_before_the_upgrade() -> None:
    harness = limited(logins_per_second=1)
    harness.log_in(10_000)
    late = harness.connect_ws()
    late.upgrade("/a%2510001/10001")
    late.receive()
    assert late.http.startswith(b"HTTP/1.1 429 ")


def takes(limits_: Limits, address: str, times: int = 1, now: Instant = NOW) -> list[bool]:
    packed = ipaddress.ip_address(address).packed
    return [limits_.takes_login(packed, now) for _ in range(times)]


def test_an_address_of_ipv6_is_its_network_and_proxies_have_many_clients() -> None:
    some = Limits(Rates(logins_per_second=1), Metrics(), (ipaddress.ip_network("192.0.2.0/24"),))
    assert takes(some, "2001:db8::1") == [True]
    assert takes(some, "2001:db8::2") == [False]
    assert takes(some, "2001:db8:0:1::1") == [True]
    assert takes(some, "192.0.2.1", 5) == [True] * 5
    assert some.takes_login(b"", NOW)


def test_addresses_are_remembered_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ADDRESSES", 2)
    some = Limits(Rates(logins_per_second=1), Metrics())
    for address in ("192.0.2.1", "192.0.2.2", "192.0.2.3"):
        assert takes(some, address) == [True]
    assert takes(some, "192.0.2.3") == [False]
    assert takes(some, "192.0.2.1") == [True]  # forgotten, to remember a newer one
    assert len(some._logins) == 2


@pytest.mark.parametrize(
    "rates", [{}, {"messages_burst": 5, "packets_burst": 5}], ids=["none", "a burst without a rate"]
)
def test_none_is_no_limit(rates: dict[str, Any]) -> None:
    harness = Harness()
    harness.node.limits.rates = Rates(**rates)
    one = harness.log_in(10_000, room=1)
    for n in range(1000):
        one.say(str(n))
    assert one.receive() == []
    assert takes(harness.node.limits, "192.0.2.1", 1000) == [True] * 1000
    one.send(ROOM, data={"roomId": 2})
    assert "Limits" in repr(harness.node.limits)


def test_connections_that_come_to_nothing_use_up_an_address() -> None:
    limits = Limits(Rates(logins_per_second=5), Metrics())
    limits.sweep(NOW)
    address, other = bytes([192, 0, 2, 7]), bytes([192, 0, 2, 8])
    for _ in range(6):
        assert not limits.is_spent(address, NOW)
        limits.came_to_nothing(address)
    limits.came_to_nothing(address)
    assert limits.is_spent(address, NOW)
    assert not limits.takes_login(address, NOW)
    assert not limits.is_spent(other, NOW)
    assert limits.takes_login(other, NOW)
    for _ in range(1000):  # it is not shut out for longer, however many there were
        limits.came_to_nothing(address)
    later = Instant(NOW.monotonic + 2.1, 0)
    assert not limits.is_spent(address, later)
    assert limits.takes_login(address, Instant(NOW.monotonic + 3, 0))


def test_without_a_limit_or_an_address_nothing_is_used_up() -> None:
    for rate, address in ((0, bytes(4)), (1, b"")):
        free = Limits(Rates(logins_per_second=rate), Metrics())
        for _ in range(10):
            free.came_to_nothing(address)
        assert not free.is_spent(address, NOW)
    behind = Limits(Rates(logins_per_second=1), Metrics(), (ipaddress.ip_network("192.0.2.0/24"),))
    for _ in range(10):
        behind.came_to_nothing(bytes([192, 0, 2, 7]))
    assert not behind.is_spent(bytes([192, 0, 2, 7]), NOW)


@pytest.mark.parametrize("way", ["garbage", "nothing", "a login"])
def test_only_what_did_not_log_in_came_to_nothing(way: str) -> None:
    harness = limited(logins_per_second=100)
    harness.advance(1)
    address = harness.log_in(10_001).session.address
    before = harness.node.limits._logins[address]
    if way == "a login":
        peer: Client = harness.log_in(10_002)
        before = harness.node.limits._logins[address]
    else:
        peer = harness.connect()
        if way == "garbage":
            peer.write(b"GET / HTTP/1.1")
    harness.dispatcher.closed(peer.session)
    assert (harness.node.limits._logins[address] > before) is (way != "a login")
