"""Work in a thread, seen from trio: waited for, left, or cut off."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Final, Generic, TypeVar

import outcome
import structlog
import trio

from qiyu.errors import DatabaseUnavailable

T = TypeVar("T")

log = structlog.get_logger(__name__)

GRACE_SECONDS: Final = 0.2
"""What each way to stop a statement has to show its effect."""
_STEPS: Final = 3


class CutOff(Exception):
    """Raised in the thread: nobody wants the result any longer, and nothing is to be committed."""


class Job(Generic[T]):
    """A piece of work. `at_end` is called in trio when its thread has come to the end of it."""

    def __init__(self, at_end: Callable[[Job[T]], None]) -> None:
        self.done = trio.Event()
        self.abandoned = False
        """The caller has left."""
        self.is_cut_off = False
        self._at_end = at_end
        self._outcome: outcome.Outcome[T] | None = None
        # Between the thread, which has a connection for a while, and whoever stops what that executes.
        self._lock = threading.Lock()
        self._ways_to_stop: tuple[Callable[[], object], ...] = ()

    def __repr__(self) -> str:
        flags = [name for name in ("abandoned", "is_cut_off") if getattr(self, name)]
        return f"<Job {'ended' if self._outcome else 'under way'} {' '.join(flags)}>"

    def start(self, work: Callable[[], T]) -> None:
        """Run `work` in a thread."""
        token = trio.lowlevel.current_trio_token()

        def deliver(result: outcome.Outcome[T]) -> None:
            with suppress(trio.RunFinishedError):  # it had been left behind
                token.run_sync_soon(self._end, result)

        trio.lowlevel.start_thread_soon(work, deliver, "qiyu database")

    def result(self, too_late: str) -> T:
        """What it returned. Raises what it raised, or DatabaseUnavailable with `too_late` where it was cut off."""
        if self._outcome is None:
            raise DatabaseUnavailable(too_late)
        if self.is_cut_off and isinstance(self._outcome, outcome.Error):
            error = self._outcome.error
            if isinstance(error, CutOff | DatabaseUnavailable):
                raise DatabaseUnavailable(too_late) from error
        return self._outcome.unwrap()

    # In the thread

    def check(self) -> None:
        """Raise CutOff where there is no point in going on."""
        if self.is_cut_off:
            raise CutOff("its time was over")

    @contextmanager
    def stoppable(self, *ways: Callable[[], object]) -> Iterator[None]:
        """While this is open, cutting off means to call these, the last one again, until the work has ended.

        Each is called in another thread, and takes no longer than GRACE_SECONDS.
        """
        with self._lock:
            self._ways_to_stop = ways
        try:
            yield
        finally:
            with self._lock:  # whoever is stopping it is let finish: the connection is another's next
                self._ways_to_stop = ()

    # In trio

    async def cut_off(self) -> None:
        """End it now, unless it has ended. Takes 0.6 s at most."""
        if self.done.is_set():
            return
        self.is_cut_off = True
        for number in range(_STEPS):
            trio.lowlevel.start_thread_soon(partial(self._stop, number), _ignore, "qiyu database stop")
            with trio.move_on_after(GRACE_SECONDS):
                await self.done.wait()
                return
            if not self._ways_to_stop:  # it still connects, which has a bound of its own and changes nothing
                break
        else:
            log.error("a transaction does not end; its connection is lost")
        self.done.set()

    def _stop(self, number: int) -> None:
        with self._lock:
            if self._ways_to_stop:
                self._ways_to_stop[min(number, len(self._ways_to_stop) - 1)]()

    def _end(self, result: outcome.Outcome[T]) -> None:
        self._outcome = result
        if self.abandoned and isinstance(result, outcome.Error):
            log.warning("a transaction failed after its caller had left", error=repr(result.error))
        self._at_end(self)
        self.done.set()


def _ignore(_result: object) -> None:
    """What became of a way to stop shows in the work that it stops."""
