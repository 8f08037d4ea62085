from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio
from sqlalchemy import Connection
from trio.testing import MockClock

from harness import GONE, error_of, ids_of, receipts, refusal
from message_tasks import Bench, quiet
from qiyu.drivers import message_writer
from qiyu.services.settlement import Settlement
from qiyu.storage.messages import (
    NewMessage,
    Outcome,
    inbox_page,
    store_batch,
)

ALICE, BOB = 10_001, 10_002


async def test_a_message_is_stored_delivered_and_receipted(autojump_clock: MockClock, bench: Bench) -> None:
    alice, bob = bench.harness.log_in(ALICE, room=7), bench.harness.log_in(BOB, room=7)
    alice.say("x", "c-1")
    assert bob.receive() == []
    await bench.rest()
    (message,) = bob.receive()
    assert receipts(alice.receive()) == [("c-1", message.body["msgId"])]


async def test_what_gathers_while_a_batch_is_written_is_the_next_one(autojump_clock: MockClock, bench: Bench) -> None:
    alice = bench.harness.log_in(ALICE, room=7)
    await bench.rest()
    bench.fake.asked.clear()
    for n in range(10):
        alice.say("x", f"c-{n}")
    await bench.rest()
    assert bench.fake.asked.count(store_batch) == 1
    assert len(receipts(alice.receive())) == 10


async def test_one_by_one_where_the_database_does_not_take_one_of_a_batch(
    autojump_clock: MockClock, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def store(c: Connection, messages: list[NewMessage], *rest: Any) -> Outcome:
        outcome = store_batch(c, messages, *rest)
        if any('"bad"' in message.data for message in messages):
            raise RuntimeError("a bug")
        return outcome

    monkeypatch.setattr(message_writer, "store_batch", store)
    alice, bob = bench.harness.log_in(ALICE, room=7), bench.harness.log_in(BOB, room=7)
    for n, content in enumerate(("good 1", "bad", "good 2")):
        alice.say(content, f"c-{n}")
    alice.say("refused", "c-3", room=8)
    await bench.rest()
    assert bob.contents() == ["good 1", "good 2"]
    received = alice.receive()
    assert [each for each, _ in receipts(received)] == ["c-0", "c-2"]
    refused = [packet for packet in received if not receipts([packet])]
    assert [(error_of(packet), packet.body["clientMsgId"]) for packet in refused] == [(503, "c-1"), (403, "c-3")]


async def test_one_by_one_what_is_there_already_is_not_stored_again(autojump_clock: MockClock, bench: Bench) -> None:
    alice, bob = bench.harness.log_in(ALICE, room=7), bench.harness.log_in(BOB, room=7)
    await bench.rest()
    failures = [RuntimeError("a bug after the commit")]
    bench.fake.fails_after = lambda work: failures.pop() if work is store_batch and failures else None
    alice.say("x", "c-1")
    alice.say("y")
    await bench.rest()
    assert bob.contents() == ["x", "y"]
    assert len(receipts(alice.receive())) == 1


@pytest.mark.parametrize("committed", [True, False])
async def test_an_answer_that_is_lost_is_asked_for_before_anything_else_is_stored(
    autojump_clock: MockClock, bench: Bench, committed: bool
) -> None:
    alice, bob = bench.harness.log_in(ALICE, room=7), bench.harness.log_in(BOB, room=7)
    await bench.rest()
    bench.fake.asked.clear()
    fails: Callable[[Any], Exception | None] = lambda _work: GONE  # noqa: E731
    if committed:
        bench.fake.fails_after = fails
    else:
        bench.fake.fails_before = fails
    alice.say("x", "c-1")
    await bench.rest()
    assert refusal(alice.receive()) == 503
    bob.whisper(ALICE, "flows")
    assert alice.contents() == ["flows"]
    await trio.sleep(10)
    assert bench.fake.asked.count(store_batch) == 1
    assert len(bench.fake.asked) <= 15  # a second apart at most, and no more often
    assert bob.receive() == []
    bench.fake.fails_before = bench.fake.fails_after = lambda _work: None
    await trio.sleep(1.1)
    await bench.writer.flushed()
    assert len(receipts(alice.receive())) == len(bob.receive()) == committed
    alice.say("x", "c-1")
    await bench.rest()
    assert len(receipts(alice.receive())) == 1
    assert len(bob.receive()) == (not committed)


async def test_it_is_flushed_once_the_last_acknowledgement_is_written(autojump_clock: MockClock, bench: Bench) -> None:
    alice, bob = bench.harness.log_in(ALICE), bench.harness.log_in(BOB)
    await bench.rest()
    alice.whisper(BOB, "x")
    await bench.writer.flushed()
    bob.acknowledge(*ids_of(bob.receive()))
    await bench.writer.flushed()
    with bench.harness.store.engine.begin() as c:
        assert inbox_page(c, 10_001, BOB, after=0, limit=10) == []


async def test_it_is_not_flushed_while_the_database_does_not_answer(autojump_clock: MockClock, bench: Bench) -> None:
    alice = bench.harness.log_in(ALICE)
    await bench.rest()
    bench.fake.fails_before = lambda _work: GONE
    alice.whisper(BOB, "x")
    with trio.move_on_after(5) as waiting:
        await bench.writer.flushed()
    assert waiting.cancelled_caught


async def test_a_bug_in_delivering_one_message_holds_up_no_other(
    autojump_clock: MockClock, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = bench.harness.log_in(ALICE), bench.harness.log_in(BOB)
    await bench.rest()
    committed, bugs = Settlement.committed, [ZeroDivisionError()]

    def broken(*args: Any) -> None:
        committed(*args)
        if bugs:
            raise bugs.pop()

    monkeypatch.setattr(Settlement, "committed", broken)
    alice.whisper(BOB, "1", "c-1")
    alice.whisper(BOB, "2", "c-2")
    await bench.rest()
    assert bob.contents() == ["1", "2"]


async def test_the_failure_is_logged_once_and_its_end_too(autojump_clock: MockClock, bench: Bench) -> None:
    alice = bench.harness.log_in(ALICE)
    await bench.rest()
    with quiet() as logs:
        bench.fake.fails_before = lambda work: GONE if work is store_batch else None
        for n in range(5):
            alice.whisper(BOB, str(n), f"c-{n}")
            await trio.sleep(2)
        bench.fake.fails_before = lambda _work: None
        alice.whisper(BOB, "x", "c")
        await bench.rest()
    assert [entry["event"] for entry in logs] == ["the database does not answer", "the database answers again"]
