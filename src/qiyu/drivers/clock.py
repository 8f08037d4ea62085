"""The only clock: what it reads is handed down as an `Instant`; what is due by it is done here."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import trio

from qiyu.drivers.poller import Poller
from qiyu.handlers.dispatch import Dispatcher
from qiyu.model import Instant

TICK_SECONDS: Final = 0.25
TICKS_A_SWEEP: Final = 4


def read_clock() -> Instant:
    """Now, on trio's clock and on the wall's."""
    return Instant(trio.current_time(), time.time_ns() // 1_000_000)


async def run_clock(poller: Poller, dispatcher: Dispatcher, clock: Callable[[], Instant] = read_clock) -> None:
    """Tick until cancelled."""
    tick = 0
    while True:
        await trio.sleep(TICK_SECONDS)
        tick += 1
        now = clock()
        poller.expire(now)
        if tick % TICKS_A_SWEEP == 0:
            dispatcher.sweep(now)
