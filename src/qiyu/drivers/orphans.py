"""What the first process of a container has to do for others: take leave of processes whose parents are gone."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import Final

import trio

FIRST: Final = 1


async def reap_orphans() -> None:
    """As process 1, for ever: whoever ends and has no other parent is forgotten by the kernel. Else nothing."""
    if os.getpid() != FIRST:
        return
    with trio.open_signal_receiver(signal.SIGCHLD) as ends:
        reap()  # those that ended before
        async for _ in ends:
            reap()


def reap() -> int:
    """Take leave of all children that have ended; returns how many. The server itself starts none."""
    count = 0
    with suppress(ChildProcessError):  # there are none
        while os.waitpid(-1, os.WNOHANG)[0]:
            count += 1
    return count
