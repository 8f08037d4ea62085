"""Messages from their acceptance to their receipt, with a database that the test goes through step by step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from harness import (
    BIZ,
    DIRECT,
    ROOM,
    ROOM_CHAT,
    Harness,
    Received,
    TcpClient,
    assert_nothing_is_left,
    assert_nothing_waits,
    error_of,
    ids_of,
    in_flight_of,
    receipts,
    refusal,
)
from memory_database import MemoryStore
from qiyu.services import message_queue
from qiyu.services.message_queue import Batch

ALICE, BOB, CAROL = 10_001, 10_002, 10_003


@dataclass
class Town:
    """Alice and Bob in room 7, Carol nowhere, and a database that does nothing by itself."""

    harness: Harness
    alice: TcpClient
    bob: TcpClient
    carol: TcpClient

    @classmethod
    def make(cls, store: MemoryStore | None = None, **sections: dict[str, Any]) -> Town:
        harness = Harness(store, **sections)
        town = cls(harness, harness.log_in(ALICE, room=7), harness.log_in(BOB, room=7), harness.log_in(CAROL))
        harness.stores_at_once = False
        return town

    def take(self) -> Batch:
        return self.harness.node.message_queue.take()

    def finish(self, batch: Batch) -> None:
        """Commit a batch that was taken, and settle it."""
        outcome = self.harness.store.commit(batch)
        for message in batch.messages:
            self.harness.node.message_queue.stored(message, outcome, self.harness.now)
        self.harness.node.message_queue.done()

    def lose_the_answer(self, *, committed: bool) -> Batch:
        """A batch whose commit fails, as far as anybody can see."""
        batch = self.take()
        if committed:
            self.harness.store.commit(batch)
        self.harness.node.message_queue.failed(batch, self.harness.now)
        return batch

    def resolve(self, batch: Batch) -> None:
        """The database answers again."""
        self.harness.node.message_queue.resolved(batch, self.harness.store.existing(batch), self.harness.now)
        self.harness.node.message_queue.answers_again()

    def history(self) -> list[str]:
        """What is stored, the oldest first."""
        with self.harness.store.engine.begin() as c:
            rows = c.exec_driver_sql("SELECT data FROM t_im_message ORDER BY msg_id").all()
        return [Received(BIZ, {"data": data}).data["content"] for (data,) in rows]

    def inbox(self) -> list[int]:
        """The msgIds that somebody has not acknowledged, the oldest first."""
        with self.harness.store.engine.begin() as c:
            return list(c.exec_driver_sql("SELECT msg_id FROM t_im_inbox ORDER BY msg_id").scalars())


@pytest.fixture
def town() -> Iterator[Town]:
    town = Town.make()
    yield town
    town.harness.settle()
    assert_nothing_is_left(town.harness)


def test_with_a_client_msg_id_it_is_delivered_and_receipted_once_it_is_stored(town: Town) -> None:
    town.alice.say("room", "c-1")
    town.alice.whisper(CAROL, "direct", "c-2")
    batch = town.take()
    town.harness.store.commit(batch)
    assert town.alice.receive() == town.bob.receive() == town.carol.receive() == []
    for message in batch.messages:
        town.harness.node.message_queue.stored(message, town.harness.store.commit(Batch([], [])), town.harness.now)
    town.harness.node.message_queue.done()
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
    batch = town.take()
    town.alice.say("x", "c-1")
    town.finish(batch)
    assert len(town.bob.receive()) == len(receipts(town.alice.receive())) == 1
    assert town.harness.node.message_queue.is_idle


def test_a_resend_after_the_commit_is_receipted_and_not_delivered(town: Town) -> None:
    town.alice.say("x", "c-1")
    town.harness.write()
    (message,) = town.bob.receive()
    first = town.alice.receive()
    assert receipts(first) == [("c-1", message.body["msgId"])]
    town.alice.say("x", "c-1")
    town.harness.write()
    assert town.alice.receive() == first
    assert town.bob.receive() == []
    assert town.history() == ["x"]
    assert town.harness.metrics.messages_repeated == 1


def test_a_resend_after_a_restart_too(town: Town) -> None:
    town.alice.say("x", "c-1")
    town.harness.write()
    again = Town.make(town.harness.store)
    again.alice.say("x", "c-1")
    again.harness.write()
    assert again.alice.receive() == town.alice.receive()
    assert again.bob.receive() == []
    assert_nothing_is_left(again.harness)


SOMETHING_ELSE: list[dict[str, Any]] = [
    {"data": {"roomId": 7, "type": 1, "content": "y"}},
    {"data": {"roomId": 7, "type": 2, "content": "x"}},
    {"data": {"roomId": 8, "type": 1, "content": "x"}},
    {"data": {"objectId": CAROL, "type": 1, "content": "x"}},
    {"bizCode": DIRECT, "data": {"objectId": CAROL, "type": 1, "content": "x"}},
]


@pytest.mark.parametrize("what", SOMETHING_ELSE)
@pytest.mark.parametrize("when", ["before the commit", "after it", "after a restart"])
def test_the_same_client_msg_id_for_something_else_is_a_conflict(town: Town, what: dict[str, Any], when: str) -> None:
    town.alice.send(BIZ, bizCode=ROOM_CHAT, data={"roomId": 7, "type": 1, "content": "x"}, clientMsgId="c-1")
    if when != "before the commit":
        town.harness.write()
        town.alice.receive()
    if when == "after a restart":
        town = Town.make(town.harness.store)
    town.alice.send(BIZ, clientMsgId="c-1", **({"bizCode": ROOM_CHAT} | what))
    town.harness.settle()
    answers = town.alice.receive()
    (refused,) = [packet for packet in answers if not receipts([packet])]
    assert error_of(refused) == 409
    assert refused.body["clientMsgId"] == "c-1"
    assert town.history() == ["x"]
    assert_nothing_waits(town.harness)


@pytest.mark.parametrize("code", [ROOM_CHAT, DIRECT])
def test_the_two_codes_of_a_direct_message_are_two_messages(town: Town, code: int) -> None:
    town.alice.send(BIZ, bizCode=code, data={"objectId": CAROL}, clientMsgId="c-1")
    town.harness.write()
    town.alice.receive()
    town.alice.send(BIZ, bizCode=ROOM_CHAT + DIRECT - code, data={"objectId": CAROL}, clientMsgId="c-1")
    town.harness.write()
    assert refusal(town.alice.receive()) == 409


def test_another_receiver_is_another_message(town: Town) -> None:
    town.alice.whisper(CAROL, "x", "c-1")
    town.harness.write()
    town.alice.receive()
    town.alice.whisper(BOB, "x", "c-1")
    town.harness.write()
    assert refusal(town.alice.receive()) == 409
    assert town.bob.receive() == []


def test_what_a_client_says_of_itself_and_what_is_unknown_makes_no_other_message(town: Town) -> None:
    town.alice.send(BIZ, bizCode=DIRECT, data={"objectId": CAROL, "content": "x"}, clientMsgId="c-1")
    town.alice.send(
        BIZ, bizCode=DIRECT, data={"objectId": CAROL, "content": "x", "type": 0, "senderName": "a"}, clientMsgId="c-1"
    )
    town.harness.write()
    town.harness.advance(30)
    town.alice.send(BIZ, bizCode=DIRECT, data={"objectId": CAROL, "content": "x", "roomId": 5}, clientMsgId="c-1")
    town.harness.write()
    ((_, first), (_, second)) = receipts(town.alice.receive())
    assert first == second


@pytest.mark.parametrize("stored_between", [True, False])
def test_another_user_and_another_app_may_use_the_same_one(town: Town, stored_between: bool) -> None:
    stranger = town.harness.log_in(ALICE, app=20_000, room=7)
    for peer in (town.alice, town.bob, stranger):
        peer.say(str(peer.session.user_id), "c-1")
        if stored_between:
            town.harness.write()
    town.harness.settle()
    ids = [msg_id for peer in (town.alice, town.bob, stranger) for _, msg_id in receipts(peer.receive())]
    assert len(set(ids)) == 3
    assert sorted(town.history()) == [str(ALICE), str(ALICE), str(BOB)]


@pytest.mark.parametrize("committed", [True, False])
def test_a_commit_of_unknown_outcome_refuses_all_who_wait_for_a_receipt(town: Town, committed: bool) -> None:
    town.alice.say("in the batch", "c-1")
    town.alice.whisper(CAROL, "behind it")
    batch = town.take()
    town.bob.say("in the queue", "c-2")
    if committed:
        town.harness.store.commit(batch)
    town.harness.node.message_queue.failed(batch, town.harness.now)
    (refused,) = town.alice.receive()
    assert (error_of(refused), refused.body["clientMsgId"]) == (503, "c-1")
    (other,) = town.bob.receive()
    assert (error_of(other), other.body["clientMsgId"]) == (503, "c-2")
    assert town.carol.contents() == ["behind it"]  # nothing is before it any longer
    assert town.alice.session.waiting == town.bob.session.waiting == 0
    town.resolve(batch)
    town.harness.settle()
    assert "behind it" in town.history()


@pytest.mark.parametrize("committed", [True, False])
def test_what_waits_in_the_room_of_a_failed_batch_goes_on_when_it_is_resolved(town: Town, committed: bool) -> None:
    town.alice.say("in the batch", "c-1")
    town.alice.say("in the batch, no receipt")
    batch = town.take()
    town.bob.say("in the queue, no receipt")
    if committed:
        town.harness.store.commit(batch)
    town.harness.node.message_queue.failed(batch, town.harness.now)
    assert [error_of(packet) for packet in town.alice.receive()] == [503]
    assert town.bob.contents() == []
    town.resolve(batch)
    assert town.bob.contents() == (["in the batch"] if committed else []) + ["in the batch, no receipt"]
    (heard,) = [packet for packet in town.alice.receive() if packet.code == BIZ]
    assert heard.data["content"] == "in the queue, no receipt"


def test_where_nothing_is_known_who_waits_is_refused(town: Town) -> None:
    town.alice.say("in the batch", "c-1")
    town.alice.say("in the batch, no receipt")
    batch = town.take()
    town.bob.say("in the queue, no receipt")
    log = town.harness.node.message_queue
    log.failed(batch, town.harness.now)
    log.give_up(batch)
    assert [error_of(packet) for packet in town.alice.receive()] == [503, 503]
    assert [error_of(packet) for packet in town.bob.receive()] == [503]
    assert log.failing
    town.resolve(batch)
    assert town.history() == []


def test_until_it_can_be_written_to_receipts_are_refused_and_all_else_flows(town: Town) -> None:
    town.alice.say("lost", "c-1")
    batch = town.lose_the_answer(committed=False)
    log = town.harness.node.message_queue
    log.resolved(batch, set(), town.harness.now)  # it can be read
    town.alice.receive()
    town.alice.say("too early", "c-2")
    assert [error_of(packet) for packet in town.alice.receive()] == [503]
    town.alice.say("no receipt")
    assert town.bob.contents() == ["no receipt"]
    log.answers_again()
    town.alice.say("in time", "c-3")
    town.harness.settle()
    assert [client for client, _ in receipts(town.alice.receive())] == ["c-3"]


def test_what_was_committed_after_all_is_delivered_and_receipted_then(town: Town) -> None:
    town.alice.say("room", "c-1")
    town.alice.whisper(CAROL, "direct")
    batch = town.lose_the_answer(committed=True)
    town.alice.receive()
    town.resolve(batch)
    (message,) = town.bob.receive()
    receipt = town.alice.receive()
    assert receipts(receipt) == [("c-1", message.body["msgId"])]
    assert town.carol.contents() == ["direct"]
    town.alice.say("room", "c-1")
    town.harness.write()
    assert town.alice.receive() == receipt
    assert town.bob.receive() == []
    assert town.history() == ["room", "direct"]


def test_what_was_not_committed_is_accepted_anew(town: Town) -> None:
    town.alice.say("x", "c-1")
    batch = town.lose_the_answer(committed=False)
    town.resolve(batch)
    assert refusal(town.alice.receive()) == 503
    town.harness.write()
    assert town.bob.receive() == town.alice.receive() == []
    town.alice.say("x", "c-1")
    town.harness.write()
    (message,) = town.bob.receive()
    assert receipts(town.alice.receive()) == [("c-1", message.body["msgId"])]
    assert town.history() == ["x"]


@pytest.mark.parametrize("committed", [True, False])
def test_what_was_delivered_already_is_stored_when_the_database_is_back(town: Town, committed: bool) -> None:
    town.carol.whisper(BOB, "1")
    town.carol.whisper(BOB, "2")
    batch = town.take()
    town.carol.whisper(BOB, "3")
    if committed:
        town.harness.store.commit(batch)
    town.harness.node.message_queue.failed(batch, town.harness.now)
    town.carol.whisper(BOB, "4")
    assert len(town.harness.node.message_queue) == 4
    town.resolve(batch)
    town.harness.settle()
    assert town.bob.contents() == ["1", "2", "3", "4"]  # once each
    assert town.history() == ["1", "2", "3", "4"]
    assert town.carol.receive() == []
    assert town.harness.metrics.messages_stored == 4


def test_while_it_fails_who_wants_a_receipt_is_refused_and_others_flow(town: Town) -> None:
    town.bob.whisper(ALICE, "lost", "c-0")
    batch = town.lose_the_answer(committed=False)
    town.bob.receive()
    town.alice.say("with", "c-1")
    (refused,) = town.alice.receive()
    assert (error_of(refused), refused.body["clientMsgId"]) == (503, "c-1")
    town.alice.say("without")
    town.alice.whisper(CAROL, "without")
    assert town.bob.contents() == town.carol.contents() == ["without"]
    assert town.alice.receive() == []
    town.resolve(batch)
    town.alice.say("with", "c-1")
    town.harness.settle()
    assert town.bob.contents() == ["with"]


@pytest.mark.parametrize("committed", [True, False])
def test_in_a_room_nothing_overtakes_what_may_have_been_committed(town: Town, committed: bool) -> None:
    town.alice.say("1", "c-1")
    batch = town.lose_the_answer(committed=committed)
    town.alice.receive()
    reader = town.harness.log_in(10_009, room=7)
    town.bob.say("too early")
    assert refusal(town.bob.receive()) == 503
    town.resolve(batch)
    town.bob.say("2")
    town.harness.settle()
    received = reader.receive()
    assert [packet.data["content"] for packet in received] == ["1", "2"] if committed else ["2"]
    assert ids_of(received) == sorted(ids_of(received))
    ring = town.harness.node.rings.find((10_001, 7))
    assert ring is not None
    assert [str(each.msg_id) for each in ring.items] == ids_of(received)


def test_a_room_that_all_have_left_still_gets_what_was_committed_after_all(town: Town) -> None:
    town.alice.say("x", "c-1")
    batch = town.lose_the_answer(committed=True)
    for peer in (town.alice, town.bob):
        peer.send(ROOM, data={"roomId": None})
        peer.receive()
    town.harness.advance(2)  # the sweep
    town.resolve(batch)
    assert len(receipts(town.alice.receive())) == 1
    ring = town.harness.node.rings.find((10_001, 7))
    assert ring is not None
    assert len(ring.items) == 1


def test_nothing_that_waits_behind_a_failed_batch_is_settled_before_it(town: Town) -> None:
    log = town.harness.node.message_queue
    town.carol.whisper(BOB, "1")
    batch = town.lose_the_answer(committed=False)
    town.carol.whisper(BOB, "2")
    assert (log.settled, log.enqueued) == (0, 2)
    town.resolve(batch)
    assert (log.settled, log.enqueued) == (0, 2)
    town.harness.write()
    assert log.settled == log.enqueued == 2


def test_acknowledgements_of_a_failed_batch_are_written_when_the_database_is_back(town: Town) -> None:
    town.alice.whisper(CAROL, "x")
    town.harness.write()
    (direct,) = town.carol.receive()
    town.carol.acknowledge(direct.body["msgId"])
    assert len(town.inbox()) == 1
    batch = town.lose_the_answer(committed=False)
    assert not town.harness.node.message_queue.is_idle
    town.resolve(batch)
    town.harness.write()
    assert town.inbox() == []


def test_it_is_not_idle_while_acknowledgements_are_being_written(town: Town) -> None:
    town.alice.whisper(CAROL, "x")
    town.harness.write()
    town.carol.acknowledge(*ids_of(town.carol.receive()))
    batch = town.take()
    assert not batch.messages
    assert not town.harness.node.message_queue.is_idle
    town.finish(batch)
    assert town.harness.node.message_queue.is_idle


@pytest.mark.parametrize("cid", ["", "c-9"])
def test_a_full_queue_refuses(cid: str) -> None:
    town = Town.make(messages={"queue": 3})
    for n in range(3):
        town.alice.whisper(CAROL, str(n), f"c-{n}" if n % 2 else "")
    town.bob.say("one too many", cid)
    (refused,) = town.bob.receive()
    assert (error_of(refused), refused.body.get("clientMsgId", "")) == (503, cid)
    batch = town.take()
    town.bob.say("still", cid)
    assert refusal(town.bob.receive()) == 503
    town.finish(batch)
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
        batch = town.take()
        town.alice.say("y", "c-2")
        town.bob.whisper(CAROL, "y")
        if outcome == "failed, committed":
            town.harness.store.commit(batch)
        town.harness.node.message_queue.failed(batch, town.harness.now)
        town.resolve(batch)
        town.harness.settle()
    assert_nothing_waits(town.harness)


def test_one_session_does_not_take_the_whole_queue(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(message_queue, "WAITING_OF_SESSION", 5)
    for n in range(5):
        town.alice.whisper(CAROL, str(n), f"c-{n}")
    for cid in ("c-5", ""):
        town.alice.whisper(CAROL, "too many", cid)
        (refused,) = town.alice.receive()
        assert (error_of(refused), refused.body.get("clientMsgId", "")) == (503, cid)
    town.bob.whisper(CAROL, "x", "c-1")
    town.harness.write()
    assert town.carol.contents() == ["0", "1", "2", "3", "4", "x"]
    town.alice.receive()
    town.alice.whisper(CAROL, "now", "c-5")
    town.harness.write()
    assert len(receipts(town.alice.receive())) == 1


def test_a_batch_has_a_bound(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(message_queue, "BATCH_MESSAGES", 2)
    monkeypatch.setattr(message_queue, "BATCH_ACKS", 2)
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
    monkeypatch.setattr(message_queue, "WAITING_ACKS", 2)
    for n in range(3):
        town.alice.whisper(CAROL, str(n))
    town.harness.write()
    town.carol.acknowledge(*ids_of(town.carol.receive()))
    town.harness.settle()
    assert town.harness.metrics.inbox_acks_dropped == 1
    again = town.harness.log_in(CAROL)
    town.harness.settle()
    assert again.contents() == ["2"]


@pytest.mark.parametrize("cid", ["", "c-3"])
def test_a_full_inbox_refuses_the_next_and_keeps_the_oldest(cid: str) -> None:
    town = Town.make(messages={"inbox": 2})
    absent = 10_009
    town.alice.whisper(absent, "1", "c-1")
    town.alice.whisper(absent, "2")
    town.harness.write()
    town.alice.receive()
    town.bob.whisper(absent, "3", cid)
    town.bob.whisper(CAROL, "to another")
    town.harness.write()
    (refused,) = town.bob.receive()
    assert (error_of(refused), refused.body.get("clientMsgId", "")) == (507, cid)
    assert str(absent) in refused.data["reason"]
    assert town.carol.contents() == ["to another"]
    assert town.history() == ["1", "2", "to another"]
    assert town.harness.metrics.inbox_full == 1
    town.alice.whisper(absent, "1", "c-1")  # no new one
    town.harness.write()
    assert len(receipts(town.alice.receive())) == 1
    receiver = town.harness.log_in(absent)
    town.harness.settle()
    received = receiver.receive()
    assert [packet.data["content"] for packet in received] == ["1", "2"]
    receiver.acknowledge(*ids_of(received))
    town.harness.settle()
    town.bob.whisper(absent, "3", cid)
    town.harness.settle()
    assert receiver.contents() == ["3"]
    assert_nothing_is_left(town.harness)


def test_what_the_database_will_never_take_is_refused_and_holds_nobody_up(town: Town) -> None:
    log = town.harness.node.message_queue
    town.alice.say("bad", "c-1")
    town.bob.say("good")
    town.bob.whisper(CAROL, "waits too")
    batch = town.take()
    outcome = town.harness.store.commit(Batch(batch.messages[1:], []))
    log.rejected(batch.messages[0])
    for message in batch.messages[1:]:
        log.stored(message, outcome, town.harness.now)
    log.done()
    (refused, good) = town.alice.receive()
    assert (error_of(refused), refused.body["clientMsgId"]) == (503, "c-1")
    assert good.data["content"] == "good"
    assert town.carol.contents() == ["waits too"]
    assert town.harness.metrics.messages_not_stored == 0
    town.carol.whisper(BOB, "delivered already")
    batch = town.take()
    log.rejected(batch.messages[0])
    log.done()
    assert town.harness.metrics.messages_not_stored == 1
    assert refusal(town.carol.receive()) == 503


def test_who_has_gone_meanwhile_is_told_nothing_and_its_message_is_stored(town: Town) -> None:
    town.alice.whisper(CAROL, "x", "c-1")
    town.alice.hang_up()
    town.harness.write()
    assert town.carol.contents() == ["x"]
    assert town.harness.metrics.receipts == 0
    assert town.alice.outbox.size == 0


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
    batch = town.take() if behind else None
    town.carol.acknowledge(*ids)
    if batch is not None:
        town.finish(batch)
        assert len(town.inbox()) == 1  # it was on its way; the ACK comes after
    town.harness.write()
    assert town.inbox() == []
    assert town.history() == ["x"]
    assert in_flight_of(town.carol.session) == {}


def test_an_ack_while_a_batch_fails_counts_too(town: Town) -> None:
    town.alice.whisper(CAROL, "x")
    batch = town.take()
    town.carol.acknowledge(*ids_of(town.carol.receive()))
    town.harness.node.message_queue.failed(batch, town.harness.now)
    town.resolve(batch)
    town.harness.settle()
    assert town.inbox() == []
    assert town.history() == ["x"]


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
