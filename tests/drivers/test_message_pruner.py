from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from trio.testing import MockClock

from harness import GONE
from message_tasks import DAY_MS, Bench
from qiyu.drivers.message_pruner import PRUNE_MESSAGES, PRUNE_SECONDS, MessagePruner
from qiyu.model import Instant
from qiyu.services.trusted_clock import TrustedClock
from qiyu.storage.messages import expire_inboxes, prune

ALICE, BOB = 10_001, 10_002
ROUND = PRUNE_SECONDS + 1


def days_go_by(bench: Bench, days: float) -> None:
    bench.harness.now = Instant(bench.harness.now.monotonic, bench.harness.now.unix_ms + int(days * DAY_MS) + 1)


def contents(bench: Bench) -> list[str]:
    with bench.harness.store.engine.begin() as c:
        rows = c.exec_driver_sql("SELECT data FROM t_im_message ORDER BY msg_id").scalars().all()
    return [word for each in rows for word in ("old", "held", "new") if word in each]


def inbox(bench: Bench) -> int:
    with bench.harness.store.engine.begin() as c:
        return c.exec_driver_sql("SELECT count(*) FROM t_im_inbox").scalar() or 0


@asynccontextmanager
async def pruning(bench: Bench, *, kept_days: int = 0, inbox_days: int = 0) -> AsyncIterator[MessagePruner]:
    pruner = MessagePruner(
        bench.database,
        kept_ms=kept_days * DAY_MS,
        inbox_ms=inbox_days * DAY_MS,
        believed_ms=lambda: bench.harness.now.unix_ms,
    )
    bench.writer._forget_below = lambda: pruner.forget_below
    async with trio.open_nursery() as nursery:
        nursery.start_soon(pruner.run)
        yield pruner
        nursery.cancel_scope.cancel()


async def test_old_messages_are_removed_and_what_an_inbox_holds_is_not(autojump_clock: MockClock, bench: Bench) -> None:
    alice = bench.harness.log_in(ALICE, room=7)
    for _ in range(3):
        alice.say("old")
    alice.whisper(BOB, "held")
    await bench.rest()
    days_go_by(bench, 1)
    alice.say("new")
    await bench.writer.flushed()
    async with pruning(bench, kept_days=1):
        bench.fake.fails_before = lambda work: GONE if work is prune else None
        await trio.sleep(2 * ROUND)
        assert len(contents(bench)) == 5
        bench.fake.fails_before = lambda _work: None
        await trio.sleep(ROUND + 1)
    assert contents(bench) == ["held", "new"]


async def test_what_it_costs_follows_what_there_is_to_remove(autojump_clock: MockClock, bench: Bench) -> None:
    """An inbox of somebody who never comes is gone through once, and not each minute."""
    alice = bench.harness.log_in(ALICE)
    for _ in range(20):
        alice.whisper(BOB, "held")
    await bench.writer.flushed()
    days_go_by(bench, 1)
    async with pruning(bench, kept_days=1) as pruner:
        await trio.sleep(3 * ROUND)
        seen = pruner._pruned
        bench.fake.asked.clear()
        await trio.sleep(10 * ROUND)
        assert len(bench.fake.asked) <= 11  # one look a round, from where it was
        assert pruner._pruned == seen > 0
    assert contents(bench) == ["held"] * 20


async def test_what_an_inbox_held_goes_when_it_is_acknowledged(autojump_clock: MockClock, bench: Bench) -> None:
    alice = bench.harness.log_in(ALICE)
    alice.whisper(BOB, "held")
    await bench.writer.flushed()
    days_go_by(bench, 1)
    async with pruning(bench, kept_days=1):
        await trio.sleep(3 * ROUND)
        assert contents(bench) == ["held"]
        bob = bench.harness.log_in(BOB)
        await bench.rest()
        for packet in bob.receive():
            if packet.code == 1003:
                bob.acknowledge(packet.body["msgId"])
        await bench.writer.flushed()
        assert (contents(bench), inbox(bench)) == ([], 0)


async def test_what_nobody_fetched_leaves_the_inbox(autojump_clock: MockClock, bench: Bench) -> None:
    senders = [bench.harness.log_in(ALICE + 10 * n) for n in range(3)]  # an inbox has space for more than one
    for n in range(PRUNE_MESSAGES + 1):
        senders[n % 2].whisper(BOB, "old")
    await bench.writer.flushed()
    days_go_by(bench, 3)
    senders[2].whisper(BOB, "new")
    await bench.writer.flushed()
    async with pruning(bench, kept_days=1, inbox_days=2):
        await trio.sleep(3 * ROUND)
    assert (contents(bench), inbox(bench)) == (["new"], 1)


async def test_the_history_may_be_kept_longer_than_the_inboxes(autojump_clock: MockClock, bench: Bench) -> None:
    alice = bench.harness.log_in(ALICE)
    alice.whisper(BOB, "old")
    await bench.writer.flushed()
    days_go_by(bench, 3)
    async with pruning(bench, inbox_days=2):  # and for ever, even
        await trio.sleep(3 * ROUND)
        assert (contents(bench), inbox(bench)) == (["old"], 0)
        assert prune not in bench.fake.asked
        assert expire_inboxes in bench.fake.asked


async def test_a_wrong_clock_for_a_minute_removes_nothing(autojump_clock: MockClock, bench: Bench) -> None:
    """40 days ahead for 75 seconds, and messages are kept for 30."""
    alice = bench.harness.log_in(ALICE, room=7)
    for _ in range(50):
        alice.say("old")
    await bench.writer.flushed()
    right = bench.harness.now.unix_ms
    ahead = 40 * DAY_MS
    begun = trio.current_time()

    def now() -> Instant:
        seconds = trio.current_time() - begun
        return Instant(seconds, right + int(seconds * 1000) + (ahead if 10 < seconds < 85 else 0))

    trusted = TrustedClock(now(), right)
    pruner = MessagePruner(
        bench.database, kept_ms=30 * DAY_MS, inbox_ms=30 * DAY_MS, believed_ms=lambda: trusted.read(now())
    )
    with trio.move_on_after(10 * ROUND):
        await pruner.run()
    assert contents(bench) == ["old"] * 50


async def test_with_no_limit_nothing_is_removed(autojump_clock: MockClock) -> None:
    bench = Bench()
    async with pruning(bench):
        await trio.sleep(3 * PRUNE_SECONDS)
    assert bench.fake.asked == []
