from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from harness import GONE
from message_tasks import Bench
from qiyu.drivers.readiness import KNOWN_SECONDS, Readiness
from qiyu.errors import DatabaseUnavailable
from qiyu.storage.instances import try_to_write


def ready(bench: Bench) -> Readiness:
    return Readiness(bench.database, bench.harness.node.message_queue)


async def test_ready_means_that_a_write_went_through(autojump_clock: MockClock) -> None:
    bench = Bench()
    await ready(bench).check()
    assert bench.fake.asked == [try_to_write]


async def test_a_full_disk_is_not_ready_until_it_takes_a_write(autojump_clock: MockClock) -> None:
    bench = Bench()
    readiness = ready(bench)
    bench.fake.fails_before = lambda work: GONE if work is try_to_write else None  # and reading goes on
    with pytest.raises(DatabaseUnavailable, match="gone"):
        await readiness.check()
    bench.fake.answers()
    with pytest.raises(DatabaseUnavailable, match="gone"):
        await readiness.check()
    await trio.sleep(KNOWN_SECONDS)
    await readiness.check()


async def test_while_messages_are_refused_it_is_not_ready(autojump_clock: MockClock) -> None:
    bench = Bench()
    bench.harness.node.message_queue.failing = True
    with pytest.raises(DatabaseUnavailable, match="messages cannot be stored"):
        await ready(bench).check()
    assert bench.fake.asked == []


async def test_many_who_ask_cost_one_write(autojump_clock: MockClock) -> None:
    bench = Bench()
    readiness = ready(bench)
    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(readiness.check)
    assert len(bench.fake.asked) == 1
