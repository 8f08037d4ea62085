"""The tasks between the core and the database: SQLite in memory, whose answers the test can hold back or lose."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar, cast

import trio
import trio.testing
from structlog.testing import capture_logs

from harness import Harness
from qiyu.drivers.message_reader import MessageReader
from qiyu.drivers.message_writer import MessageWriter
from qiyu.drivers.poller import Poller
from qiyu.model import Instant
from qiyu.routing.session import Session
from qiyu.storage.database import Database
from qiyu.storage.messages import InboxRules

T = TypeVar("T")
DAY_MS: Final = 86_400_000


class FakeDatabase:
    """One that fails as it is told, before or after it has done what it was asked, or does not answer."""

    def __init__(self, harness: Harness) -> None:
        self._engine = harness.store.engine
        self.fails_before: Callable[[Any], Exception | None] = lambda _work: None
        self.fails_after: Callable[[Any], Exception | None] = lambda _work: None
        self.hangs: Callable[[Any], bool] = lambda _work: False
        self.asked: list[Any] = []

    async def run(self, work: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        self.asked.append(work)
        await trio.lowlevel.checkpoint()
        if self.hangs(work):
            await trio.sleep_forever()
        self._raise(self.fails_before(work))
        with self._engine.begin() as c:
            result = work(c, *args, **kwargs)
        self._raise(self.fails_after(work))
        return result

    read = run

    async def run_within(self, _seconds: float, work: Callable[..., T], *args: Any) -> T:
        return await self.run(work, *args)

    def answers(self) -> None:
        """It does what it is asked."""
        self.fails_before = self.fails_after = lambda _work: None
        self.hangs = lambda _work: False

    def _raise(self, error: Exception | None) -> None:
        if error is not None:
            raise error


class FakePoller:
    """Acts at once."""

    @staticmethod
    def run_for(_session: Session, act: Callable[[], None]) -> None:
        act()


class Bench:
    """A node, and the tasks that serve it."""

    def __init__(self) -> None:
        self.harness = Harness()
        self.harness.stores_at_once = False
        self.fake = FakeDatabase(self.harness)
        self.database = cast("Database", self.fake)
        poller = cast("Poller", FakePoller())
        self.reader = MessageReader(self.harness.dispatcher, poller, self.database, DAY_MS, self.clock)
        queue = self.harness.node.message_queue
        self.writer = MessageWriter(queue, self.database, InboxRules(1000), self.reader.wake, self.clock)

    def clock(self) -> Instant:
        return self.harness.now

    async def run(self) -> None:
        """Run until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.writer.run)
            nursery.start_soon(self.reader.run)

    async def rest(self) -> None:
        """Until nothing happens any longer without time going by."""
        await trio.testing.wait_all_tasks_blocked()


@contextmanager
def quiet() -> Iterator[list[Any]]:
    with capture_logs() as logs:
        yield logs
