"""The only clock: what it reads is handed down as an `Instant`; what is due by it is done here."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import structlog
import trio

from qiyu.drivers.poller import Poller
from qiyu.handlers.dispatch import Dispatcher
from qiyu.model import Instant

TICK_SECONDS: Final = 0.25
TICKS_A_SWEEP: Final = 4
LATE_SECONDS: Final = 2.0
TICKS_AFTER_A_STOP: Final = 12  # three seconds: enough to read what fifty thousand sockets have

log = structlog.get_logger(__name__)


def read_clock() -> Instant:
    """Now, on trio's clock and on the wall's."""
    return Instant(trio.current_time(), time.time_ns() // 1_000_000)


async def run_clock(poller: Poller, dispatcher: Dispatcher, clock: Callable[[], Instant] = read_clock) -> None:
    """Tick until cancelled.

    Where the process stood still (a stopped process, a frozen machine), what the clients sent meanwhile waits in the
    kernel: it is read before anybody is judged by the clock.
    """
    before = clock().monotonic
    ticks_to_sweep = TICKS_A_SWEEP
    while True:
        await trio.sleep(TICK_SECONDS)
        now = clock()
        if now.monotonic - before > LATE_SECONDS:
            log.warning("the process stood still", seconds=round(now.monotonic - before, 3))
            ticks_to_sweep = TICKS_AFTER_A_STOP
        before = now.monotonic
        poller.expire(now)
        dispatcher.tick(now)
        ticks_to_sweep -= 1
        if ticks_to_sweep == 0:
            ticks_to_sweep = TICKS_A_SWEEP
            dispatcher.sweep(now)
