from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
from trio.testing import MockClock

from harness import assert_nothing_waits
from message_tasks import Bench, quiet


@pytest.fixture
async def bench(autojump_clock: MockClock) -> AsyncIterator[Bench]:
    """With its tasks, which have written everything at the end."""
    with quiet():
        bench = Bench()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(bench.run)
            yield bench
            bench.fake.answers()
            with trio.fail_after(30):
                await bench.writer.flushed()
            await trio.sleep(5)
            assert_nothing_waits(bench.harness)
            nursery.cancel_scope.cancel()
