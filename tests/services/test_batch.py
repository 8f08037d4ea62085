"""What becomes of a batch, with a database that the test goes through step by step."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import (
    BIZ,
    ERROR,
    GONE,
    ROOM,
    assert_nothing_is_left,
    assert_nothing_waits,
    error_of,
    ids_of,
    receipts,
    refusal,
)
from qiyu.services.batch import TRANSITIONS, Batch, Event, Phase, Settle, Store
from qiyu.storage.messages import Outcome
from town import ALICE, BOB, CAROL, Town

BUG = ZeroDivisionError()


@pytest.mark.parametrize("committed", [True, False])
def test_a_commit_of_unknown_outcome_refuses_all_who_wait_for_a_receipt(town: Town, committed: bool) -> None:
    town.alice.say("in the batch", "c-1")
    town.alice.whisper(CAROL, "behind it")
    batch = town.harness.take()
    town.bob.say("in the queue", "c-2")
    town.harness.lose(batch, committed=committed)
    (refused,) = town.alice.receive()
    assert (error_of(refused), refused.body["clientMsgId"]) == (503, "c-1")
    (other,) = town.bob.receive()
    assert (error_of(other), other.body["clientMsgId"]) == (503, "c-2")
    assert town.carol.contents() == ["behind it"]  # nothing is before it any longer
    assert town.alice.session.waiting == town.bob.session.waiting == 0
    town.harness.finish(batch)
    town.harness.settle()
    assert "behind it" in town.history()


@pytest.mark.parametrize("committed", [True, False])
def test_what_waits_in_the_room_of_a_failed_batch_goes_on_when_it_is_resolved(town: Town, committed: bool) -> None:
    town.alice.say("in the batch", "c-1")
    town.alice.say("in the batch, no receipt")
    batch = town.harness.take()
    town.bob.say("in the queue, no receipt")
    town.harness.lose(batch, committed=committed)
    assert [error_of(packet) for packet in town.alice.receive()] == [503]
    assert town.bob.contents() == []
    town.harness.finish(batch)
    assert town.bob.contents() == (["in the batch"] if committed else []) + ["in the batch, no receipt"]
    (heard,) = [packet for packet in town.alice.receive() if packet.code == BIZ]
    assert heard.data["content"] == "in the queue, no receipt"


def test_where_nothing_is_known_who_waits_is_refused(town: Town) -> None:
    town.alice.say("in the batch", "c-1")
    town.alice.say("in the batch, no receipt")
    batch = town.harness.take()
    town.bob.say("in the queue, no receipt")
    town.harness.lose(batch)
    town.harness.lose(batch)  # nor does it say which messages it has
    assert [error_of(packet) for packet in town.alice.receive()] == [503, 503]
    assert [error_of(packet) for packet in town.bob.receive()] == [503]
    assert town.harness.node.message_queue.failing
    town.harness.finish(batch)
    assert town.history() == []


def test_until_it_can_be_written_to_receipts_are_refused_and_all_else_flows(town: Town) -> None:
    town.alice.say("lost", "c-1")
    batch = town.lose_the_answer(committed=False)
    while batch.phase is not Phase.PROBING:  # it can be read
        town.harness.store.take_step(batch, town.harness.now)
    town.harness.lose(batch)  # and not be written to
    town.alice.receive()
    town.alice.say("too early", "c-2")
    assert [error_of(packet) for packet in town.alice.receive()] == [503]
    town.alice.say("no receipt")
    assert town.bob.contents() == ["no receipt"]
    town.harness.finish(batch)
    town.alice.say("in time", "c-3")
    town.harness.settle()
    assert [client for client, _ in receipts(town.alice.receive())] == ["c-3"]


def test_what_was_committed_after_all_is_delivered_and_receipted_then(town: Town) -> None:
    town.alice.say("room", "c-1")
    town.alice.whisper(CAROL, "direct")
    batch = town.lose_the_answer(committed=True)
    town.alice.receive()
    town.harness.finish(batch)
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
    town.harness.finish(batch)
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
    batch = town.harness.take()
    town.carol.whisper(BOB, "3")
    town.harness.lose(batch, committed=committed)
    town.carol.whisper(BOB, "4")
    assert len(town.harness.node.message_queue) == 4
    town.harness.finish(batch)
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
    town.harness.finish(batch)
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
    town.harness.finish(batch)
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
    town.harness.finish(batch)
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
    town.harness.finish(batch)
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
    town.harness.finish(batch)
    town.harness.write()
    assert town.inbox() == []


def test_what_the_database_will_never_take_is_refused_and_holds_nobody_up(town: Town) -> None:
    town.alice.say("bad", "c-1")
    town.bob.say("good")
    town.bob.whisper(CAROL, "waits too")
    batch = town.harness.take()
    town.harness.lose(batch, why=BUG)
    town.harness.store.take_step(batch, town.harness.now)  # which of them it has
    town.harness.lose(batch, why=BUG)  # the first of them alone
    town.harness.finish(batch)
    (refused, good) = town.alice.receive()
    assert (error_of(refused), refused.body["clientMsgId"]) == (503, "c-1")
    assert good.data["content"] == "good"
    assert town.carol.contents() == ["waits too"]
    assert town.harness.metrics.messages_not_stored == 0
    town.carol.whisper(BOB, "delivered already")
    batch = town.harness.take()
    town.harness.lose(batch, why=BUG)
    town.harness.store.take_step(batch, town.harness.now)
    town.harness.lose(batch, why=BUG)
    town.harness.finish(batch)
    assert town.harness.metrics.messages_not_stored == 1
    assert refusal(town.carol.receive()) == 503


def test_an_ack_while_a_batch_fails_counts_too(town: Town) -> None:
    town.alice.whisper(CAROL, "x")
    batch = town.harness.take()
    town.carol.acknowledge(*ids_of(town.carol.receive()))
    town.harness.lose(batch)
    town.harness.finish(batch)
    town.harness.settle()
    assert town.inbox() == []
    assert town.history() == ["x"]


def test_messages_alone_after_a_bug_are_stored_like_others(town: Town) -> None:
    town.alice.whisper(CAROL, "x", "c-1")
    town.harness.write()
    town.alice.receive()
    town.alice.whisper(CAROL, "x", "c-1")
    town.alice.say("not in it", "c-2", room=8)
    town.alice.say("new", "c-3")
    batch = town.harness.take()
    town.harness.lose(batch, why=BUG)
    town.harness.finish(batch)
    received = town.alice.receive()
    assert [cid for cid, _ in receipts(received)] == ["c-1", "c-3"]
    assert [error_of(packet) for packet in received if not receipts([packet])] == [403]
    assert town.history() == ["x", "new"]


def test_acknowledgements_that_the_database_does_not_take_hold_nobody_up(town: Town) -> None:
    town.alice.whisper(CAROL, "x")
    town.harness.write()
    town.carol.acknowledge(*ids_of(town.carol.receive()))
    batch = town.harness.take()
    town.harness.lose(batch, why=BUG)
    town.harness.store.take_step(batch, town.harness.now)
    town.harness.lose(batch, why=BUG)
    assert batch.next() is None
    assert town.harness.node.message_queue.is_idle
    assert len(town.inbox()) == 1


def test_a_bug_in_delivering_what_was_committed_after_all_holds_up_no_other(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    town.alice.whisper(CAROL, "1", "c-1")
    town.alice.whisper(CAROL, "2", "c-2")
    batch = town.lose_the_answer(committed=True)
    town.harness.store.take_step(batch, town.harness.now)
    town.alice.receive()
    with monkeypatch.context() as broken:
        broken.setattr(town.harness.node.message_queue.settlement, "deliver", None)
        with pytest.raises(TypeError):
            batch.settle(town.harness.now)
    town.harness.finish(batch)
    assert town.carol.contents() == ["2"]
    assert [cid for cid, _ in receipts(town.alice.receive())] == ["c-2"]
    assert len(town.inbox()) == 2


def test_others_may_speak_between_two_that_are_settled(town: Town) -> None:
    town.alice.say("1", "c-1")
    town.bob.say("2")
    batch = town.harness.take()
    town.harness.store.take_step(batch, town.harness.now)
    batch.settle(town.harness.now)
    assert town.bob.contents() == ["1"]
    town.carol.send(ROOM, data={"roomId": 7})
    town.carol.say("3")  # behind Bob's
    reader = town.harness.log_in(10_009, room=7)
    assert reader.receive() == []
    town.harness.finish(batch)
    town.harness.settle()
    assert reader.contents() == ["2", "3"]


# The table, and who drives the batch against it


def test_every_phase_is_in_the_table_and_leads_to_the_end() -> None:
    assert set(TRANSITIONS) == set(Phase)
    assert {event for events in TRANSITIONS.values() for event in events} == set(Event)
    ending = {Phase.DONE}
    for _ in Phase:
        ending |= {phase for phase, events in TRANSITIONS.items() if ending & set(events.values())}
    assert ending == set(Phase)
    assert TRANSITIONS[Phase.DONE] == {}


@pytest.mark.parametrize("phase", list(Phase))
def test_what_is_not_due_is_a_bug_and_changes_nothing(town: Town, phase: Phase) -> None:
    town.alice.say("x", "c-1")
    batch = town.harness.take()
    before = repr(batch)
    calls: dict[Event, Callable[[], None]] = {
        Event.COMMITTED: lambda: batch.stored(Outcome({}, {}), town.harness.now),
        Event.FOUND: lambda: batch.found(set(), town.harness.now),
        Event.SETTLED: lambda: batch.settle(town.harness.now),
        Event.WRITABLE: batch.writable,
        Event.BUG: lambda: batch.failed(BUG, town.harness.now),
        Event.NO_ANSWER: lambda: batch.failed(GONE, town.harness.now),
    }
    for event, call in calls.items():
        batch.phase = phase
        if event not in TRANSITIONS[phase]:
            with pytest.raises(RuntimeError, match=f"^a batch that is {phase}: {event} cannot happen to it$"):
                call()
            assert batch.phase is phase
    batch.phase = Phase.STORING
    assert repr(batch) == before
    town.harness.finish(batch)


SAID = st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), st.booleans()), min_size=1, max_size=8)
FAULTS = st.lists(st.sampled_from(["", "gone", "gone, committed", "bug", "bug, committed"]), max_size=14)


def speak(town: Town, n: int, who: str, to_room: bool, asks: bool) -> None:
    peer = {"a": town.alice, "b": town.bob, "c": town.carol}[who]
    if to_room:
        peer.say(str(n), f"c-{n}" if asks else "", room=7)  # Carol is not in there
    else:
        peer.whisper(10_009, str(n), f"c-{n}" if asks else "")


def drive(town: Town, batch: Batch, faults: list[str]) -> None:
    """To its end: each question to the database meets with the next one of the faults, and the others with none."""
    while (step := batch.next()) is not None:
        fault = faults.pop(0) if faults and not isinstance(step, Settle) else ""
        if fault.startswith("gone"):
            town.harness.lose(batch, committed=fault.endswith("committed") and isinstance(step, Store))
        elif fault:
            # What the database does not take even alone is not committed.
            committed = fault.endswith("committed") and batch.phase is Phase.STORING
            town.harness.lose(batch, committed=committed, why=BUG)
        else:
            town.harness.store.take_step(batch, town.harness.now)


@pytest.mark.property
@given(said=SAID, queued=SAID, faults=FAULTS)
def test_whatever_the_database_does(
    said: list[tuple[str, bool, bool]], queued: list[tuple[str, bool, bool]], faults: list[str]
) -> None:
    """Once it answers: a receipt means stored, and delivered once; no receipt means a refusal.

    What asks for no receipt is delivered once or refused, and stored unless the database did not take it for what it
    is. A room gets its messages in the order of their ids. Nothing is left behind.
    """
    town = Town.make()
    reader, receiver = town.harness.log_in(10_008, room=7), town.harness.log_in(10_009)
    town.harness.read()
    for n, each in enumerate(said):
        speak(town, n, *each)
    batch = town.harness.take()
    for n, each in enumerate(queued, len(said)):
        speak(town, n, *each)
    bugs = any(fault.startswith("bug") for fault in faults)
    drive(town, batch, faults)
    town.harness.settle()
    in_room, direct = reader.receive(), receiver.receive()
    answers = [packet for peer in (town.alice, town.bob, town.carol) for packet in peer.receive()]
    receipted = {cid for cid, _ in receipts(answers)}
    refused = {packet.body.get("clientMsgId", "") for packet in answers if packet.code == ERROR}
    stored, seen = town.history(), [packet.data["content"] for packet in [*in_room, *direct]]
    assert len(seen) == len(set(seen))
    assert ids_of(in_room) == sorted(ids_of(in_room))
    for n, (who, to_room, asks) in enumerate([*said, *queued]):
        if asks:
            assert (str(n) in seen) == (f"c-{n}" in receipted) <= (str(n) in stored)
            assert f"c-{n}" in receipted | refused
        elif not (who == "c" and to_room):
            assert str(n) in seen or "" in refused
            assert str(n) in stored or "" in refused or bugs
    assert {str(n) for n in range(len(said) + len(queued))} >= set(stored) == set(stored) & set(seen)
    for fault in ("messages_not_stored", "inbox_acks_dropped"):
        assert getattr(town.harness.metrics, fault) == 0 or bugs
    assert_nothing_waits(town.harness)
    assert_nothing_is_left(town.harness)
