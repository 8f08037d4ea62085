"""Messages from their acceptance to their receipt, with a database that the test goes through step by step."""

from __future__ import annotations

import pytest

from harness import (
    BIZ,
    assert_nothing_is_left,
    assert_nothing_waits,
    error_of,
    ids_of,
    in_flight_of,
    receipts,
    refusal,
)
from qiyu.services import inbox_acks, message_queue
from qiyu.services.batch import Store
from town import ALICE, BOB, CAROL, Town


def test_with_a_client_msg_id_it_is_delivered_and_receipted_once_it_is_stored(town: Town) -> None:
    town.alice.say("room", "c-1")
    town.alice.whisper(CAROL, "direct", "c-2")
    batch = town.harness.take()
    assert town.harness.store.take_step(batch, town.harness.now)  # the commit
    assert town.alice.receive() == town.bob.receive() == town.carol.receive() == []
    town.harness.finish(batch)
    (room,), (direct,) = town.bob.receive(), town.carol.receive()
    assert receipts(town.alice.receive()) == [("c-1", room.body["msgId"]), ("c-2", direct.body["msgId"])]
    assert town.history() == ["room", "direct"]


def test_without_one_it_is_delivered_at_once_and_stored_behind(town: Town) -> None:
    town.alice.say("room")
    town.alice.whisper(CAROL, "direct")
    assert town.bob.contents() == ["room"]
    assert town.carol.contents() == ["direct"]
    assert town.history() == []
    town.harness.settle()
    assert town.bob.receive() == town.carol.receive() == town.alice.receive() == []
    assert town.history() == ["room", "direct"]
    assert town.harness.metrics.messages_stored == 2


def test_it_waits_behind_what_its_sender_sent_before(town: Town) -> None:
    town.alice.say("1", "c-1")
    town.alice.whisper(CAROL, "2")
    town.bob.whisper(CAROL, "of somebody else")
    assert town.carol.contents() == ["of somebody else"]
    town.harness.write()
    assert town.carol.contents() == ["2"]
    assert town.bob.contents() == ["1"]
    town.alice.whisper(CAROL, "3")  # nothing waits any longer
    assert town.carol.contents() == ["3"]


def test_it_waits_behind_what_was_said_in_its_room_before(town: Town) -> None:
    reader = town.harness.log_in(10_009, room=7)
    elsewhere, listener = town.harness.log_in(10_007, room=8), town.harness.log_in(10_008, room=8)
    town.alice.say("1", "c-1")
    town.bob.say("2")
    elsewhere.say("of another room")
    assert reader.receive() == []
    assert listener.contents() == ["of another room"]
    town.harness.write()
    received = reader.receive()
    assert [packet.data["content"] for packet in received] == ["1", "2"]
    assert ids_of(received) == sorted(ids_of(received))
    town.bob.say("3")
    assert reader.contents() == ["3"]


def test_what_waits_holds_back_in_turn(town: Town) -> None:
    town.alice.whisper(BOB, "1", "c-1")
    town.alice.say("2")  # behind Alice's first
    town.bob.say("3")  # behind the room's first
    town.bob.whisper(CAROL, "4")  # behind Bob's first
    assert town.alice.receive() == town.bob.receive() == town.carol.receive() == []
    town.harness.write()
    assert town.bob.contents() == ["1", "2"]
    assert town.carol.contents() == ["4"]
    assert [packet.data["content"] for packet in town.alice.receive() if packet.code == BIZ] == ["3"]


def test_a_resend_on_the_same_connection_is_the_same_message(town: Town) -> None:
    for _ in range(3):
        town.alice.whisper(CAROL, "x", "c-1")
    assert len(town.harness.node.message_queue) == 1
    town.harness.write()
    (direct,) = town.carol.receive()
    assert receipts(town.alice.receive()) == [("c-1", direct.body["msgId"])]


def test_a_resend_on_another_connection_before_the_commit_has_both_receipted(town: Town) -> None:
    older = town.harness.log_in(10_009, room=7)
    older.say("x", "c-1")
    # A second session of one user ends the first; the receipt of one that is only half gone still goes nowhere.
    newer = town.harness.log_in(10_009, room=7)
    older.receive()
    newer.say("x", "c-1")
    town.harness.settle()
    (message,) = town.bob.receive()
    assert receipts(newer.receive()) == [("c-1", message.body["msgId"])]
    assert older.receive() == []
    assert older.session.waiting == newer.session.waiting == 0


def test_two_sessions_that_both_live_are_both_receipted(town: Town) -> None:
    other = town.harness.log_in(10_009)
    other.session.user_id = ALICE  # as it would be with one instance for each connection
    town.alice.whisper(CAROL, "x", "c-1")
    other.whisper(CAROL, "x", "c-1")
    other.session.user_id = 10_009
    assert town.alice.session.waiting == other.session.waiting == 1
    town.harness.write()
    (direct,) = town.carol.receive()
    assert receipts(town.alice.receive()) == receipts(other.receive()) == [("c-1", direct.body["msgId"])]


def test_a_resend_during_the_commit_joins_it(town: Town) -> None:
    town.alice.say("x", "c-1")
    batch = town.harness.take()
    town.alice.say("x", "c-1")
    town.harness.finish(batch)
    assert len(town.bob.receive()) == len(receipts(town.alice.receive())) == 1
    assert town.harness.node.message_queue.is_idle


def test_it_is_not_idle_while_acknowledgements_are_being_written(town: Town) -> None:
    town.alice.whisper(CAROL, "x")
    town.harness.write()
    town.carol.acknowledge(*ids_of(town.carol.receive()))
    batch = town.harness.take()
    step = batch.next()
    assert isinstance(step, Store)
    assert (step.messages, len(step.acks)) == ([], 1)
    assert not town.harness.node.message_queue.is_idle
    town.harness.finish(batch)
    assert town.harness.node.message_queue.is_idle


@pytest.mark.parametrize("cid", ["", "c-9"])
def test_a_full_queue_refuses(cid: str) -> None:
    town = Town.make(messages={"queue": 3})
    for n in range(3):
        town.alice.whisper(CAROL, str(n), f"c-{n}" if n % 2 else "")
    town.bob.say("one too many", cid)
    (refused,) = town.bob.receive()
    assert (error_of(refused), refused.body.get("clientMsgId", "")) == (503, cid)
    batch = town.harness.take()
    town.bob.say("still", cid)
    assert refusal(town.bob.receive()) == 503
    town.harness.finish(batch)
    town.bob.say("now", cid)
    town.harness.settle()
    assert [packet.data["content"] for packet in town.alice.receive() if packet.code == BIZ] == ["now"]
    assert_nothing_is_left(town.harness)


def test_a_resend_of_what_is_in_a_full_queue_is_no_more(town: Town) -> None:
    town = Town.make(messages={"queue": 1})
    town.alice.whisper(CAROL, "x", "c-1")
    town.alice.whisper(CAROL, "x", "c-1")
    town.harness.settle()
    assert len(receipts(town.alice.receive())) == 1
    assert_nothing_is_left(town.harness)


def test_without_a_bound_only_the_bytes_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(message_queue, "QUEUE_BYTES", 5000)
    town = Town.make(messages={"queue": 0})
    accepted = 0
    while not town.alice.receive():
        town.alice.whisper(CAROL, "x" * 500, f"c-{accepted}")
        accepted += 1
    accepted -= 1
    assert 5000 / 800 < accepted < 5000 / 500
    town.harness.write()
    assert len(town.carol.receive()) == accepted
    assert_nothing_waits(town.harness)
    town.alice.whisper(CAROL, "x", "c")
    town.harness.write()
    assert len(town.carol.receive()) == 1


@pytest.mark.parametrize("outcome", ["stored", "failed, not committed", "failed, committed"])
def test_the_bytes_go_back_down_whatever_becomes_of_them(town: Town, outcome: str) -> None:
    town.alice.say("x" * 100, "c-1")
    town.bob.whisper(CAROL, "x" * 100)
    if outcome == "stored":
        town.harness.write()
    else:
        batch = town.harness.take()
        town.alice.say("y", "c-2")
        town.bob.whisper(CAROL, "y")
        town.harness.lose(batch, committed=outcome == "failed, committed")
        town.harness.finish(batch)
        town.harness.settle()
    assert_nothing_waits(town.harness)


def test_a_batch_has_a_bound(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(message_queue, "BATCH_MESSAGES", 2)
    monkeypatch.setattr(inbox_acks, "BATCH_ACKS", 2)
    for n in range(5):
        town.alice.whisper(CAROL, str(n))
    for left in (3, 1, 0):
        town.harness.write()
        assert len(town.harness.node.message_queue) == left
    town.carol.acknowledge(*ids_of(town.carol.receive()))
    for left in (3, 1, 0):
        town.harness.write()
        assert len(town.inbox()) == left


def test_more_acknowledgements_than_may_wait_are_counted_and_come_again(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox_acks, "WAITING_ACKS", 2)
    for n in range(3):
        town.alice.whisper(CAROL, str(n))
    town.harness.write()
    town.carol.acknowledge(*ids_of(town.carol.receive()))
    town.harness.settle()
    assert town.harness.metrics.inbox_acks_dropped == 1
    again = town.harness.log_in(CAROL)
    town.harness.settle()
    assert again.contents() == ["2"]


def test_what_is_refused_holds_its_place_in_the_order(town: Town) -> None:
    town.carol.say("not in it", "c-1", room=7)
    town.carol.whisper(ALICE, "after it", "c-2")
    town.harness.write()
    refused, receipt = town.carol.receive()
    assert error_of(refused) == 403
    assert receipts([receipt])[0][0] == "c-2"
    assert town.alice.contents() == ["after it"]


@pytest.mark.parametrize("behind", [True, False])
def test_an_ack_before_the_row_is_written_keeps_it_from_the_inbox(town: Town, behind: bool) -> None:
    town.alice.whisper(CAROL, "x")
    ids = ids_of(town.carol.receive())
    batch = town.harness.take() if behind else None
    town.carol.acknowledge(*ids)
    if batch is not None:
        town.harness.finish(batch)
        assert len(town.inbox()) == 1  # it was on its way; the ACK comes after
    town.harness.write()
    assert town.inbox() == []
    assert town.history() == ["x"]
    assert in_flight_of(town.carol.session) == {}


def test_ids_after_a_restart_are_above_the_largest_stored_even_when_the_clock_went_back(town: Town) -> None:
    town.harness.now = town.harness.now._replace(unix_ms=town.harness.now.unix_ms + 86_400_000)
    town.alice.whisper(CAROL, "x", "c-1")
    town.harness.write()
    ((_, before),) = receipts(town.alice.receive())
    again = Town.make(town.harness.store)
    assert again.harness.now.unix_ms < town.harness.now.unix_ms
    again.carol.receive()
    again.alice.whisper(CAROL, "y")
    (after,) = ids_of(again.carol.receive())
    assert after > before
    assert_nothing_is_left(again.harness)
