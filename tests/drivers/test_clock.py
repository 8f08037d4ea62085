from __future__ import annotations

import time

import trio
from trio.testing import MockClock

from qiyu.drivers.clock import TICK_SECONDS, TICKS_A_SWEEP, read_clock, run_clock
from qiyu.model import Instant


class Recorder:
    """Notes when it is called, as both a poller and a dispatcher."""

    def __init__(self) -> None:
        self.expired: list[float] = []
        self.swept: list[float] = []

    def expire(self, now: Instant) -> None:
        self.expired.append(now.monotonic)

    def sweep(self, now: Instant) -> None:
        self.swept.append(now.monotonic)


async def test_it_ticks_and_sweeps_once_a_second(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    start = trio.current_time()
    with trio.move_on_after(10 * TICKS_A_SWEEP * TICK_SECONDS + TICK_SECONDS / 2):
        await run_clock(recorder, recorder)  # type: ignore[arg-type]
    assert len(recorder.expired) == 10 * TICKS_A_SWEEP
    assert [round(at - start, 6) for at in recorder.swept] == [float(n) for n in range(1, 11)]


async def test_an_instant_is_of_both_clocks() -> None:
    before = time.time_ns() // 1_000_000
    now = read_clock()
    assert before <= now.unix_ms <= time.time_ns() // 1_000_000
    assert abs(now.monotonic - trio.current_time()) < 10
