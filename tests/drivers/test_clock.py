from __future__ import annotations

import time

import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from qiyu.drivers.clock import TICK_SECONDS, TICKS_A_SWEEP, read_clock, run_clock
from qiyu.model import Instant


class Recorder:
    """Notes when it is called, as both a poller and a dispatcher."""

    def __init__(self) -> None:
        self.expired: list[float] = []
        self.ticked: list[float] = []
        self.swept: list[float] = []

    def expire(self, now: Instant) -> None:
        self.expired.append(now.monotonic)

    def tick(self, now: Instant) -> None:
        self.ticked.append(now.monotonic)

    def sweep(self, now: Instant) -> None:
        self.swept.append(now.monotonic)


async def test_it_ticks_and_sweeps_once_a_second(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    start = trio.current_time()
    with trio.move_on_after(10 * TICKS_A_SWEEP * TICK_SECONDS + TICK_SECONDS / 2):
        await run_clock(recorder, recorder)  # type: ignore[arg-type]
    assert len(recorder.expired) == 10 * TICKS_A_SWEEP
    assert recorder.ticked == recorder.expired
    assert [round(at - start, 6) for at in recorder.swept] == [float(n) for n in range(1, 11)]


async def test_after_a_stop_nobody_is_judged_before_the_kernel_was_read(autojump_clock: MockClock) -> None:
    recorder = Recorder()
    start = trio.current_time()
    stood_still = 0.0

    def clock() -> Instant:
        return Instant(trio.current_time() + stood_still, 0)

    with capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_clock, recorder, recorder, clock)  # type: ignore[arg-type]
            await trio.sleep(1.6)
            stood_still = 100.0
            await trio.sleep(6)
            nursery.cancel_scope.cancel()
    swept = [at - start for at in recorder.swept]
    assert swept[0] == 1.0
    assert swept[1] >= 101.6 + 2.5  # not in the second after it
    assert [entry["event"] for entry in logs] == ["the process stood still"]


async def test_an_instant_is_of_both_clocks() -> None:
    before = time.time_ns() // 1_000_000
    now = read_clock()
    assert before <= now.unix_ms <= time.time_ns() // 1_000_000
    assert abs(now.monotonic - trio.current_time()) < 10
