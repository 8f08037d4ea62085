"""Signals that come before there is anybody to hear them: while Python still imports the server.

By default SIGTERM would end the process with a status that says failure, and as the first process of a container it
would not end it at all: the kernel keeps from process 1 whatever it has not asked for. So the command line asks for
them first of all, and the server looks here once it listens itself.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from types import FrameType

_came: list[int] = []


def keep_early_signals(arguments: Sequence[str]) -> None:
    """Note SIGTERM and SIGHUP from now on, if these are the arguments of a server that is to start."""
    command = next((each for each in arguments if not each.startswith("-")), "")
    if command == "serve":
        signal.signal(signal.SIGTERM, _keep)
        signal.signal(signal.SIGHUP, _keep)  # the settings are about to be read anyway


def stopped_early() -> bool:
    """Whether SIGTERM has come before anybody listened."""
    return signal.SIGTERM in _came


def _keep(number: int, _frame: FrameType | None) -> None:
    _came.append(number)
