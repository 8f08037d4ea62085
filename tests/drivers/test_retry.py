from __future__ import annotations

import trio
from trio.testing import MockClock

from qiyu.drivers.retry import RETRY_SECONDS, Retry
from qiyu.errors import DatabaseUnavailable


async def waits(retry: Retry, times: int) -> list[float]:
    """How many seconds each of so many failures in a row waits."""
    seconds = []
    for _ in range(times):
        before = trio.current_time()
        await retry.failed(DatabaseUnavailable("locked"))
        seconds.append(round(trio.current_time() - before, 3))
    return seconds


async def test_each_wait_is_twice_as_long_up_to_the_longest_and_a_success_begins_anew(
    autojump_clock: MockClock,
) -> None:
    assert RETRY_SECONDS == (0.1, 1.0)
    retry = Retry("count fish")
    assert await waits(retry, 6) == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    retry.succeeded()
    assert await waits(retry, 2) == [0.1, 0.2]
