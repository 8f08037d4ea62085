from __future__ import annotations

import trio
from trio.testing import MockClock

from harness import GONE
from message_tasks import DAY_MS, Bench
from qiyu.drivers.message_pruner import PRUNE_SECONDS, run_pruner
from qiyu.model import Instant
from qiyu.storage.messages import (
    prune,
)

ALICE, BOB = 10_001, 10_002


async def test_old_messages_are_removed_and_what_an_inbox_holds_is_not(autojump_clock: MockClock, bench: Bench) -> None:
    alice = bench.harness.log_in(ALICE, room=7)
    for _ in range(3):
        alice.say("old")
    alice.whisper(BOB, "held")
    await bench.rest()
    bench.harness.now = Instant(bench.harness.now.monotonic, bench.harness.now.unix_ms + DAY_MS + 1)
    alice.say("new")
    await bench.writer.flushed()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_pruner, bench.database, DAY_MS, bench.clock)
        bench.fake.fails_before = lambda work: GONE if work is prune else None
        await trio.sleep(PRUNE_SECONDS + 1)
        with bench.harness.store.engine.begin() as c:
            assert c.exec_driver_sql("SELECT count(*) FROM t_im_message").scalar() == 5
        bench.fake.fails_before = lambda _work: None
        await trio.sleep(PRUNE_SECONDS + 2)
        nursery.cancel_scope.cancel()
    with bench.harness.store.engine.begin() as c:
        kept = c.exec_driver_sql("SELECT data FROM t_im_message ORDER BY msg_id").scalars().all()
    assert ["held" in each or "new" in each for each in kept] == [True, True]


async def test_with_no_limit_nothing_is_removed(autojump_clock: MockClock) -> None:
    bench = Bench()
    with trio.move_on_after(3 * PRUNE_SECONDS):
        await run_pruner(bench.database, 0, bench.clock)
    assert bench.fake.asked == []
