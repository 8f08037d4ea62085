"""The tasks between the core and the database: SQLite in memory, whose answers the test can hold back or lose."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

import pytest
import trio
import trio.testing
from sqlalchemy import Connection
from structlog.testing import capture_logs
from trio.testing import MockClock

from harness import ROOM, Harness, Received, assert_nothing_waits, error_of, ids_of, receipts, refusal
from qiyu.drivers import messages
from qiyu.drivers.messages import PRUNE_SECONDS, READ_SECONDS, MessageStore, Retention, store_batch
from qiyu.drivers.poller import Poller
from qiyu.errors import DatabaseUnavailable
from qiyu.model import Instant
from qiyu.routing.session import Session
from qiyu.services.message_queue import Batch
from qiyu.storage.database import Database
from qiyu.storage.messages import find_duplicates, inbox_page, prune, users_with_inbox

T = TypeVar("T")
ALICE, BOB = 10_001, 10_002
GONE = DatabaseUnavailable("gone")


class FakeDatabase:
    """One that fails as it is told, before or after it has done what it was asked, or does not answer."""

    def __init__(self, harness: Harness) -> None:
        self._engine = harness.store.engine
        self.fails_before: Callable[[Any], Exception | None] = lambda _work: None
        self.fails_after: Callable[[Any], Exception | None] = lambda _work: None
        self.hangs: Callable[[Any], bool] = lambda _work: False
        self.asked: list[Any] = []

    async def run(self, work: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        self.asked.append(work)
        await trio.lowlevel.checkpoint()
        if self.hangs(work):
            await trio.sleep_forever()
        self._raise(self.fails_before(work))
        with self._engine.begin() as c:
            result = work(c, *args, **kwargs)
        self._raise(self.fails_after(work))
        return result

    read = run

    async def run_within(self, _seconds: float, work: Callable[..., T], *args: Any) -> T:
        return await self.run(work, *args)

    def _raise(self, error: Exception | None) -> None:
        if error is not None:
            raise error


class FakePoller:
    """Acts at once."""

    @staticmethod
    def run_for(_session: Session, act: Callable[[], None]) -> None:
        act()


class Bench:
    """A node, and the tasks that serve it."""

    def __init__(self, keeping: Retention) -> None:
        self.harness = Harness()
        self.harness.stores_at_once = False
        self.database = FakeDatabase(self.harness)
        self.store = MessageStore(
            self.harness.dispatcher,
            cast("Poller", FakePoller()),
            cast("Database", self.database),
            keeping,
            lambda: self.harness.now,
        )

    async def rest(self) -> None:
        """Until nothing happens any longer without time going by."""
        await trio.testing.wait_all_tasks_blocked()


@contextmanager
def quiet() -> Iterator[list[Any]]:
    with capture_logs() as logs:
        yield logs


@pytest.fixture
async def bench(autojump_clock: MockClock) -> AsyncIterator[Bench]:
    with quiet():
        bench = Bench(Retention(inbox_messages=1000, history_ms=86_400_000, client_msg_id_ms=3_600_000))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.store.run)
            yield bench
            bench.database.fails_before = bench.database.fails_after = lambda _work: None
            bench.database.hangs = lambda _work: False
            with trio.fail_after(30):
                await bench.store.flushed()
            await trio.sleep(5)
            assert_nothing_waits(bench.harness)
            nursery.cancel_scope.cancel()


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
    bench.database.asked.clear()
    for n in range(10):
        alice.say("x", f"c-{n}")
    await bench.rest()
    assert bench.database.asked.count(store_batch) == 1
    assert len(receipts(alice.receive())) == 10


async def test_one_by_one_where_the_database_does_not_take_one_of_a_batch(
    autojump_clock: MockClock, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def store(c: Connection, batch: Batch, inbox_messages: int) -> Any:
        outcome = store_batch(c, batch, inbox_messages)
        if any(message.content.content == "bad" for message in batch.messages):
            raise RuntimeError("a bug")
        return outcome

    monkeypatch.setattr(messages, "store_batch", store)
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
    bench.database.fails_after = lambda work: failures.pop() if work is store_batch and failures else None
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
    bench.database.asked.clear()
    fails: Callable[[Any], Exception | None] = lambda _work: GONE  # noqa: E731
    if committed:
        bench.database.fails_after = fails
    else:
        bench.database.fails_before = fails
    alice.say("x", "c-1")
    await bench.rest()
    assert refusal(alice.receive()) == 503
    bob.whisper(ALICE, "flows")
    assert alice.contents() == ["flows"]
    await trio.sleep(10)
    assert bench.database.asked.count(store_batch) == 1
    assert len(bench.database.asked) <= 15  # a second apart at most, and no more often
    assert bob.receive() == []
    bench.database.fails_before = bench.database.fails_after = lambda _work: None
    await trio.sleep(1.1)
    await bench.store.flushed()
    assert len(receipts(alice.receive())) == len(bob.receive()) == committed
    alice.say("x", "c-1")
    await bench.rest()
    assert len(receipts(alice.receive())) == 1
    assert len(bob.receive()) == (not committed)


async def test_it_is_flushed_once_the_last_acknowledgement_is_written(autojump_clock: MockClock, bench: Bench) -> None:
    alice, bob = bench.harness.log_in(ALICE), bench.harness.log_in(BOB)
    await bench.rest()
    alice.whisper(BOB, "x")
    await bench.store.flushed()
    bob.acknowledge(*ids_of(bob.receive()))
    await bench.store.flushed()
    with bench.harness.store.engine.begin() as c:
        assert inbox_page(c, 10_001, BOB, after=0, limit=10) == []


async def test_it_is_not_flushed_while_the_database_does_not_answer(autojump_clock: MockClock, bench: Bench) -> None:
    alice = bench.harness.log_in(ALICE)
    await bench.rest()
    bench.database.fails_before = lambda _work: GONE
    alice.whisper(BOB, "x")
    with trio.move_on_after(5) as waiting:
        await bench.store.flushed()
    assert waiting.cancelled_caught


async def test_an_inbox_of_many_pages(autojump_clock: MockClock, bench: Bench) -> None:
    alice = bench.harness.log_in(ALICE)
    for n in range(250):
        alice.whisper(BOB, str(n))
    bob = bench.harness.log_in(BOB)
    await bench.rest()
    assert bob.contents() == [str(n) for n in range(250)]
    alice.whisper(BOB, "live")
    assert bob.contents() == ["live"]


async def test_who_log_in_at_once_are_asked_for_with_one_query(autojump_clock: MockClock, bench: Bench) -> None:
    await bench.rest()
    for n in range(50):
        bench.harness.log_in(20_000 + n)
    await bench.rest()
    assert bench.database.asked == [users_with_inbox]


@pytest.mark.parametrize("failing", [users_with_inbox, inbox_page])
async def test_an_inbox_is_read_once_the_database_answers(
    autojump_clock: MockClock, bench: Bench, failing: Any
) -> None:
    alice = bench.harness.log_in(ALICE)
    alice.whisper(BOB, "x")
    await bench.rest()
    bench.database.fails_before = lambda work: GONE if work is failing else None
    bob = bench.harness.log_in(BOB)
    await trio.sleep(5)
    assert bob.receive() == []
    alice.whisper(BOB, "newer")
    bench.database.fails_before = lambda _work: None
    await trio.sleep(1.1)
    assert bob.contents() == ["x", "newer"]


def result(received: list[Received]) -> tuple[bool, list[str]]:
    (answer, *rest) = received
    assert answer.code == ROOM
    return answer.data["recovered"], ids_of(rest)


async def remembers_nothing(bench: Bench) -> list[str]:
    """Three messages in room 7, which the server has forgotten; returns the msgIds."""
    alice, bob = bench.harness.log_in(ALICE, room=7), bench.harness.log_in(BOB, room=7)
    for n in range(3):
        alice.say(str(n))
    await bench.rest()
    ids = ids_of(bob.receive())
    bob.acknowledge(*ids)
    recent = bench.harness.node.rings
    recent._rings.clear()
    recent._size = 0
    bench.database.asked.clear()
    return ids


async def test_those_who_come_back_are_served_with_one_query(autojump_clock: MockClock, bench: Bench) -> None:
    ids = await remembers_nothing(bench)
    readers = [bench.harness.log_in(20_000 + n) for n in range(20)]
    await bench.rest()
    bench.database.asked.clear()
    for reader in readers:
        reader.send(ROOM, data={"roomId": 7, "afterMsgId": ids[0]})
    await bench.rest()
    assert bench.database.asked == [messages.read_pages]
    assert {(recovered, tuple(found)) for recovered, found in (result(reader.receive()) for reader in readers)} == {
        (True, tuple(ids[1:]))
    }


@pytest.mark.parametrize("how", ["fails", "hangs"])
async def test_who_comes_back_while_the_database_does_not_answer_waits_for_seconds_at_most(
    autojump_clock: MockClock, bench: Bench, how: str
) -> None:
    ids = await remembers_nothing(bench)
    reader = bench.harness.log_in(20_000)
    await bench.rest()
    if how == "fails":
        bench.database.fails_before = lambda work: GONE if work is messages.read_pages else None
    else:
        bench.database.hangs = lambda work: work is messages.read_pages
    reader.send(ROOM, data={"roomId": 7, "afterMsgId": ids[0]})
    await trio.sleep(READ_SECONDS + 0.1)
    assert result(reader.receive()) == (False, [])


async def test_nor_is_it_waited_for_a_message_whose_fate_is_unknown(autojump_clock: MockClock, bench: Bench) -> None:
    ids = await remembers_nothing(bench)
    reader = bench.harness.log_in(20_000)
    await bench.rest()
    bench.database.fails_before = lambda _work: GONE
    bench.harness.log_in(20_001, room=7).say("x", "c-1")
    reader.send(ROOM, data={"roomId": 7, "afterMsgId": ids[0]})
    await trio.sleep(1.1)
    assert result(reader.receive()) == (False, [])
    reader.send(ROOM, data={"roomId": 8, "afterMsgId": ids[0]})  # and who comes while that is so
    await trio.sleep(1.1)
    assert result(reader.receive()) == (False, [])


async def test_older_than_the_history_reaches_is_not_recovered(autojump_clock: MockClock, bench: Bench) -> None:
    ids = await remembers_nothing(bench)
    bench.harness.now = Instant(bench.harness.now.monotonic, bench.harness.now.unix_ms + 86_400_001)
    reader = bench.harness.log_in(20_000)
    reader.send(ROOM, data={"roomId": 7, "afterMsgId": ids[0]})
    await bench.rest()
    assert result(reader.receive()) == (False, [])


async def test_a_bug_in_delivering_one_message_holds_up_no_other(
    autojump_clock: MockClock, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice, bob = bench.harness.log_in(ALICE), bench.harness.log_in(BOB)
    await bench.rest()
    log = bench.harness.node.message_queue
    stored, bugs = type(log).stored, [ZeroDivisionError()]

    def broken(*args: Any) -> None:
        stored(*args)
        if bugs:
            raise bugs.pop()

    monkeypatch.setattr(type(log), "stored", broken)
    alice.whisper(BOB, "1", "c-1")
    alice.whisper(BOB, "2", "c-2")
    await bench.rest()
    assert bob.contents() == ["1", "2"]


async def test_old_messages_are_removed_and_what_an_inbox_holds_is_not(autojump_clock: MockClock, bench: Bench) -> None:
    alice = bench.harness.log_in(ALICE, room=7)
    for _ in range(3):
        alice.say("old")
    alice.whisper(BOB, "held")
    await bench.rest()
    bench.harness.now = Instant(bench.harness.now.monotonic, bench.harness.now.unix_ms + 86_400_001)
    alice.say("new")
    await bench.store.flushed()
    bench.database.fails_before = lambda work: GONE if work is prune else None
    await trio.sleep(PRUNE_SECONDS + 1)
    with bench.harness.store.engine.begin() as c:
        assert c.exec_driver_sql("SELECT count(*) FROM t_im_message").scalar() == 5
    bench.database.fails_before = lambda _work: None
    await trio.sleep(PRUNE_SECONDS + 2)
    with bench.harness.store.engine.begin() as c:
        kept = c.exec_driver_sql("SELECT data FROM t_im_message ORDER BY msg_id").scalars().all()
    assert ["held" in each or "new" in each for each in kept] == [True, True]


async def test_with_no_limit_nothing_is_removed(autojump_clock: MockClock) -> None:
    bench = Bench(Retention(inbox_messages=0, history_ms=0, client_msg_id_ms=1000))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.store.run)
        await trio.sleep(3 * PRUNE_SECONDS)
        nursery.cancel_scope.cancel()
    assert prune not in bench.database.asked


async def test_the_failure_is_logged_once_and_its_end_too(autojump_clock: MockClock, bench: Bench) -> None:
    alice = bench.harness.log_in(ALICE)
    await bench.rest()
    with quiet() as logs:
        bench.database.fails_before = lambda work: GONE if work is store_batch else None
        for n in range(5):
            alice.whisper(BOB, str(n), f"c-{n}")
            await trio.sleep(2)
        bench.database.fails_before = lambda _work: None
        alice.whisper(BOB, "x", "c")
        await bench.rest()
    assert [entry["event"] for entry in logs] == ["the database does not answer", "the database answers again"]


def test_what_is_not_to_be_stored_is_looked_for_in_the_same_transaction() -> None:
    harness = Harness()
    alice = harness.log_in(ALICE, room=7)
    alice.say("x", "c-1")
    harness.stores_at_once = False
    alice.say("y", "c-2", room=8)
    batch = harness.node.message_queue.take()
    assert [message.refusal is not None for message in batch.messages] == [True]
    with harness.store.engine.begin() as c:
        assert store_batch(c, batch, 0).duplicates == find_duplicates(c, [batch.messages[0].row()]) == {}
        assert c.exec_driver_sql("SELECT count(*) FROM t_im_message").scalar() == 1
