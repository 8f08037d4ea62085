from __future__ import annotations

import ipaddress

import pytest

from harness import ACK, Client, Harness, error_of, refusal
from qiyu.services import queue_shares
from qiyu.services.queue_shares import QueueShares

ALICE, BOB, CAROL = 10_001, 10_002, 10_003


def waiting(queue: int) -> Harness:
    """Where nothing is stored until `settle`."""
    harness = Harness(messages={"queue": queue})
    harness.stores_at_once = False
    return harness


def fill(client: Client, count: int) -> None:
    for n in range(count):
        client.whisper(CAROL, str(n), f"{client.session.user_id}-{client.session.id}-{n}")
    assert client.receive() == []


def test_a_user_has_a_tenth_and_a_session_that_ended_keeps_no_place_of_its_own() -> None:
    harness = waiting(100)
    alice, bob = harness.log_in(ALICE), harness.log_in(BOB)
    fill(alice, 6)
    alice = harness.log_in(ALICE)
    fill(alice, 4)
    for cid in ("one-more", ""):
        alice.whisper(CAROL, "too many", cid)
        (refused,) = alice.receive()
        assert (error_of(refused), refused.body.get("clientMsgId", "")) == (503, cid)
        assert "10 messages of yours wait to be stored" in refused.data["reason"]
    fill(bob, 10)
    assert harness.metrics.messages_crowded_out == 2
    harness.settle()
    alice.receive()
    alice.whisper(CAROL, "now", "one-more")
    harness.settle()
    assert [packet.code for packet in alice.receive()] == [ACK]
    shares = harness.node.message_queue.shares
    assert not shares._of_user
    assert not shares._of_address
    assert not shares._of_room


def test_without_a_bound_a_user_has_one_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_shares, "WAITING_OF_USER", 5)
    harness = waiting(0)
    alice = harness.log_in(ALICE)
    fill(alice, 5)
    alice.whisper(CAROL, "too many", "x")
    assert refusal(alice.receive()) == 503


def everybody(harness: Harness, count: int, room: int | None = None) -> list[Client]:
    return [harness.log_in(20_000 + n, room=room) for n in range(count)]


def test_an_address_has_a_half_and_there_is_room_for_others() -> None:
    harness = waiting(100)
    people = everybody(harness, 6)
    for one in people[:5]:
        fill(one, 10)
    people[5].whisper(CAROL, "too many", "x")
    (refused,) = people[5].receive()
    assert "from your address" in refused.data["reason"]
    elsewhere = harness.log_in(BOB)
    elsewhere.session.address = bytes([192, 0, 2, 77])
    fill(elsewhere, 10)
    harness.node.message_queue.shares.proxies = (ipaddress.ip_network("192.0.2.1/32"),)
    fill(people[5], 10)


def test_a_room_has_a_half() -> None:
    harness = waiting(100)
    harness.node.message_queue.shares.proxies = (ipaddress.ip_network("192.0.2.0/24"),)
    people = everybody(harness, 6, room=1)
    for one in people[:5]:
        for n in range(10):
            one.say(str(n), f"{one.session.user_id}-{n}")
    people[5].say("too many", "x")
    (refused,) = people[5].receive()
    assert "to room 1" in refused.data["reason"]
    fill(people[5], 10)


def test_the_last_tenth_is_for_newcomers() -> None:
    harness = waiting(100)
    harness.node.message_queue.shares.proxies = (ipaddress.ip_network("192.0.2.0/24"),)
    people = everybody(harness, 25)
    for one in people[:8]:
        fill(one, 10)
    fill(people[8], 9)
    fill(people[9], 1)
    people[8].whisper(CAROL, "too many", "x")
    assert refusal(people[8].receive()) == 503
    for one in people[10:20]:
        fill(one, 1)
    people[20].whisper(CAROL, "too many", "x")
    assert refusal(people[20].receive()) == 503
    assert len(harness.node.message_queue) == 100


def test_repr() -> None:
    assert repr(QueueShares(10)) == "<QueueShares users=0 addresses=0 rooms=0>"
