from __future__ import annotations

from structlog.testing import capture_logs

from harness import BIZ, ERROR, HEADER, HEARTBEAT, LOGOUT, MAGIC, Client, Harness, error_of
from qiyu.errors import EndReason
from qiyu.services.holdings import REFERENCE_BYTES
from qiyu.services.pressure import LEAST_BYTES

BOUND = 1_000_000


def owed(client: Client, size: int) -> None:
    client.session.outbox.push(client.packet(ERROR, data="x" * size))


def test_near_the_bound_the_slow_go_without_room_messages_and_are_told() -> None:
    harness = Harness(limits={"queued_bytes": BOUND})
    slow, slower, quick, sender = (harness.log_in(10_000 + n, room=1) for n in range(4))
    sender.say("before")
    first = quick.receive()[0].body["msgId"]
    slow.receive()
    slower.receive()
    owed(slow, 2 * LEAST_BYTES)
    owed(slower, BOUND * 3 // 4)
    sender.say("not pressed yet")
    with capture_logs() as logs:
        harness.advance(0.25)
    assert [each["event"] for each in logs] == ["much is owed to slow clients"]
    sender.say("for the quick")
    sender.say("for them, too")
    assert quick.contents() == ["not pressed yet", "for the quick", "for them, too"]
    received = slow.receive()
    assert [packet.code for packet in received] == [ERROR, BIZ, ERROR]
    assert error_of(received[-1]) == 206
    assert received[-1].data["lastMsgId"] == received[1].body["msgId"] > first
    slower.receive()
    harness.advance(0.25)
    sender.say("and all is well")
    assert slow.contents() == ["and all is well"]
    assert not harness.node.outboxes.limits.is_pressed


def test_above_it_those_who_are_owed_most_end() -> None:
    harness = Harness(limits={"queued_bytes": BOUND})
    clients = [harness.log_in(10_000 + n) for n in range(4)]
    for client, size in zip(clients, (300_000, 500_000, 400_000, LEAST_BYTES // 2), strict=True):
        owed(client, size)
    harness.advance(0.25)
    assert [client.session.ended for client in clients] == [False, True, False, False]
    (end,) = clients[1].receive()
    assert (end.code, end.data["reason"]) == (LOGOUT, EndReason.SLOW.text)
    assert (harness.metrics.crowded_out, harness.metrics.sessions_slow) == (1, 1)
    assert harness.node.outboxes.bytes <= BOUND


def test_at_the_bound_nobody_ends_and_many_who_are_owed_little_never_do() -> None:
    harness = Harness(limits={"queued_bytes": BOUND})
    client = harness.log_in(10_000)
    client.session.outbox.push(b"x" * (BOUND - harness.node.pressure.holdings.total - 3 * REFERENCE_BYTES))
    harness.advance(0.25)
    assert harness.node.pressure.holdings.total == BOUND
    assert not client.session.ended
    client.session.outbox.push(b"x")
    harness.advance(0.25)
    assert client.session.ended
    many = [harness.log_in(20_000 + n) for n in range(40)]
    for one in many:
        one.session.outbox.push(b"x" * (LEAST_BYTES - 1 - 3 * REFERENCE_BYTES))
    harness.advance(0.25)
    assert not any(one.session.ended for one in many)
    assert "bytes" in repr(harness.node.pressure)


def test_without_a_bound_there_is_none() -> None:
    harness = Harness(limits={"queued_bytes": 0})
    client = harness.log_in(10_000)
    client.session.outbox.push(b"x" * 3_000_000)
    harness.advance(0.25)
    assert not client.session.ended


def test_who_begins_a_long_packet_and_never_ends_it_is_among_the_slow() -> None:
    harness = Harness(limits={"queued_bytes": BOUND, "body_bytes": 2 * BOUND})
    modest, greedy = harness.log_in(10_000), harness.log_in(10_001)
    modest.write(HEADER.pack(MAGIC, HEARTBEAT, BOUND) + bytes(300_000))
    harness.advance(0.25)
    assert harness.node.pressure.holdings.total >= 300_000
    greedy.write(HEADER.pack(MAGIC, HEARTBEAT, BOUND) + bytes(800_000))
    harness.advance(0.25)
    assert (modest.session.ended, greedy.session.ended) == (False, True)
    (end,) = greedy.receive()
    assert (end.code, end.data["reason"]) == (LOGOUT, EndReason.SLOW.text)
