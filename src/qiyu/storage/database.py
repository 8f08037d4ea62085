"""The one place where SQLAlchemy's asyncio engine meets trio.

An asyncio event loop runs inside trio (trio-asyncio), in a task of its own: nothing else in the process sees it. Each
piece of work is one transaction and one asyncio task in that loop, and it belongs to the database, not to its caller: a
caller that is cancelled leaves at once, and the work goes on to its own end. To cancel a driver in mid-statement costs
the connection, for nobody knows what the server has done by then, and on SQLite it does not even stop the statement. So
work is cut off only when its time is over or the database is closed.

Everything is bounded: the connections, the callers that wait for one, how long they wait, how long a transaction may
take, and how long closing takes. trio's clock measures it: with an autojump clock, which jumps while a driver works,
every time is over at once.
"""

from __future__ import annotations

import asyncio
import math
import sqlite3
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Concatenate, Final, Generic, ParamSpec, TypeVar

import structlog
import trio
import trio_asyncio  # type: ignore[import-untyped]
from sqlalchemy import Connection, event, make_url
from sqlalchemy.exc import DBAPIError, InterfaceError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from qiyu.errors import ConfigError, DatabaseUnavailable
from qiyu.storage.engines import READING, SQLITE_READERS, InThread, Limits, Synchronous, make_engine
from qiyu.storage.failures import passes, reason_of, was_victim
from qiyu.storage.urls import database_url

__all__ = ["Database", "Limits", "database_url"]

T = TypeVar("T")
P = ParamSpec("P")

log = structlog.get_logger(__name__)

TRIES: Final = 3  # of a transaction that the database undoes to settle a deadlock

_OPEN_SECONDS: Final = 10.0  # to connect and be let in; something else may be listening there

# Closing: work under way ends, is interrupted, is cancelled, is cancelled again. Less than 2 s together.
_FINISH_SECONDS: Final = 0.75
_GRACE_SECONDS: Final = 0.2


class _Job(Generic[T]):
    """An asyncio task, seen from trio."""

    def __init__(self, loop: asyncio.AbstractEventLoop, at_end: Callable[[_Job[T]], None]) -> None:
        self.done = trio.Event()
        self.abandoned = False
        self.interrupt: Callable[[], Coroutine[Any, Any, None]] | None = None
        """Stops the statement that SQLite executes; the drivers of the servers do it when they are cancelled."""
        self._loop = loop
        self._at_end = at_end
        self.is_cut_off = False
        self._task: asyncio.Task[T] | None = None

    def start(self, work: Coroutine[Any, Any, T]) -> None:
        self._task = self._loop.create_task(work)
        self._task.add_done_callback(self._end)

    def result(self, too_late: str) -> T:
        """What it returned. Raises what it raised, or DatabaseUnavailable with `too_late` where it was cut off."""
        if self._task is None or not self._task.done() or self._task.cancelled():
            raise DatabaseUnavailable(too_late)
        error = self._task.exception()
        if self.is_cut_off and isinstance(error, DatabaseUnavailable):
            raise DatabaseUnavailable(too_late) from error
        return self._task.result()

    async def cut_off(self) -> None:
        """End it now, unless it has ended. Takes 0.6 s at most."""
        if self._task is None or self.done.is_set():
            return
        self.is_cut_off = True
        if self.interrupt is not None:
            interrupting = self._loop.create_task(self.interrupt())
            await self._given_grace()
            interrupting.cancel()
        # The first has SQLAlchemy close the connection in good order, the second without.
        for _ in range(2):
            if not self.done.is_set():
                self._task.cancel()
                await self._given_grace()
        if not self.done.is_set():
            log.error("a transaction does not end; its connection is lost")
            self.done.set()

    async def _given_grace(self) -> None:
        with trio.move_on_after(_GRACE_SECONDS):
            await self.done.wait()

    def _end(self, task: asyncio.Task[T]) -> None:
        error = None if task.cancelled() else task.exception()  # asyncio wants to see that somebody asked
        if self.abandoned and error is not None:
            log.warning("a transaction failed after its caller had left", error=repr(error))
        self._at_end(self)
        self.done.set()


class Database:
    """An open database. `run` and `read` may be called from any trio task."""

    def __init__(self, url: str, limits: Limits, synchronous: Synchronous) -> None:
        self.queries = 0
        """Statements executed so far."""
        self._url = make_url(url)
        self._limits = limits
        self._synchronous: Synchronous = synchronous
        if self._url.get_backend_name() == "sqlite":
            self._writing, self._reading = _slots(1), _slots(SQLITE_READERS)
        else:
            self._writing = self._reading = _slots(limits.connections)
        self._jobs: set[_Job[Any]] = set()
        self._opened = trio.Event()
        self._closing = trio.Event()
        self._failure: DatabaseUnavailable | None = None
        self._loop: asyncio.AbstractEventLoop
        self._watching: trio.Nursery
        self._engine: AsyncEngine
        self._read_engine: AsyncEngine
        self._in_thread: InThread

    def __repr__(self) -> str:
        waiting = self._writing.statistics().tasks_waiting
        return f"<Database {self._where()}: {len(self._jobs)} transactions, {waiting} waiting>"

    @classmethod
    @asynccontextmanager
    async def open(
        cls, url: str, *, synchronous: Synchronous = "normal", limits: Limits | None = None
    ) -> AsyncIterator[Database]:
        """Connect to the database at `url` (see `database_url`), making the file where it is SQLite's.

        `synchronous` is SQLite's: "full" also outlasts a power cut. At the end, work under way has 0.75 s to finish;
        what has not is rolled back, and within 2 s all is closed. Raises DatabaseUnavailable, or ConfigError where the
        driver does not know an option of the URL.
        """
        database = cls(url, limits or Limits(), synchronous)
        alone: BaseException | None = None
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(database._serve)
                try:
                    await database._connect()
                    yield database
                finally:
                    database._closing.set()
        except BaseExceptionGroup as group:
            if len(group.exceptions) > 1:
                raise
            alone = group.exceptions[0]  # as the body raised it: the nursery in here is nobody's business
        if alone is not None:
            raise alone

    async def run(self, work: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work(connection, ...)` in one transaction, commit, and return its result.

        `work` is a plain function. What it raises rolls back and comes out as it is. It may be run again from the
        start, when the database has undone it to settle a deadlock, so it should change nothing but the database.

        Cancelled before it has a connection, it does nothing. Cancelled later, the outcome is unknown: the transaction
        goes on without its caller, and is committed or rolled back as a whole. Raises DatabaseUnavailable, after which
        the outcome is unknown too where the connection was lost in the middle.
        """
        return await self.run_within(self._limits.work_seconds, work, *args, **kwargs)

    async def read(self, work: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """`run` for work that only reads: on SQLite it need not wait for those who write. Raises RuntimeError else."""
        seconds = self._limits.work_seconds
        return await self._run(self._reading, self._read_engine, lambda c: work(c, *args, **kwargs), seconds)

    async def run_within(
        self, seconds: float, work: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """`run` with a limit of its own on how long it takes."""
        return await self._run(self._writing, self._engine, lambda c: work(c, *args, **kwargs), seconds)

    async def run_long(self, work: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """`run` without a limit on how long it takes, for changing tables."""
        return await self.run_within(math.inf, work, *args, **kwargs)

    async def _run(
        self, slots: trio.Semaphore, engine: AsyncEngine, work: Callable[[Connection], T], seconds: float
    ) -> T:
        await self._take(slots)

        def at_end(job: _Job[T]) -> None:
            self._jobs.remove(job)
            slots.release()

        job = _Job(self._loop, at_end)
        self._jobs.add(job)
        job.start(self._carry_out(job, engine, work))
        self._watching.start_soon(self._watch, job, seconds)
        try:
            await job.done.wait()
        except trio.Cancelled:
            job.abandoned = True
            raise
        closing = self._closing.is_set()
        return job.result(self._says("it was closed" if closing else f"no answer within {seconds:g} s"))

    async def _take(self, slots: trio.Semaphore) -> None:
        """Wait for one of the connections."""
        if slots.statistics().tasks_waiting >= self._limits.waiting:
            raise DatabaseUnavailable(self._says(f"{self._limits.waiting} others are waiting already"))
        seconds = self._limits.wait_seconds
        with trio.move_on_after(seconds) as waiting:
            await slots.acquire()
        if waiting.cancelled_caught:
            raise DatabaseUnavailable(self._says(f"every connection has been busy for {seconds:g} s"))
        if self._closing.is_set():
            slots.release()
            raise DatabaseUnavailable(self._says("it was closed"))

    async def _watch(self, job: _Job[Any], seconds: float) -> None:
        """See to it that the work ends, with or without a caller."""
        try:
            with trio.move_on_after(seconds):
                await job.done.wait()
        finally:
            with trio.CancelScope(shield=True):
                await job.cut_off()

    # What follows up to _attempt runs in asyncio.

    async def _carry_out(self, job: _Job[T], engine: AsyncEngine, work: Callable[[Connection], T]) -> T:
        try:
            for _ in range(TRIES - 1):
                try:
                    return await self._attempt(job, engine, work)
                except DBAPIError as exc:
                    if not was_victim(exc):
                        raise
            return await self._attempt(job, engine, work)
        except (SQLAlchemyError, sqlite3.Error, OSError) as exc:
            if not passes(exc):
                raise
            raise DatabaseUnavailable(self._says(reason_of(exc))) from exc

    async def _attempt(self, job: _Job[T], engine: AsyncEngine, work: Callable[[Connection], T]) -> T:
        if self._url.get_backend_name() == "sqlite":
            return await self._attempt_in_thread(job, engine, work)
        async with engine.begin() as connection:
            return await connection.run_sync(work)

    async def _attempt_in_thread(self, job: _Job[T], engine: AsyncEngine, work: Callable[[Connection], T]) -> T:
        """The whole transaction in the thread of an aiosqlite connection.

        Statement by statement, each of them is a trip there and back, which takes longer than the statement.
        """
        reading = READING in engine.get_execution_options()
        async with engine.connect() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            assert driver is not None  # noqa: S101  # it was just connected
            job.interrupt = driver.interrupt
            try:
                return await driver._execute(self._in_thread.run, driver, reading, lambda: job.is_cut_off, work)  # type: ignore[no-any-return]
            except asyncio.CancelledError:
                await connection.invalidate()  # it may never come to an end
                raise
            finally:
                job.interrupt = None

    async def _serve(self) -> None:
        """The event loop's life, from opening to closing. It ends itself, and so is not to be cancelled."""
        with trio.CancelScope(shield=True):
            try:
                self._engine = make_engine(self._url, self._limits, self._synchronous)
            except OSError as exc:
                self._failure = DatabaseUnavailable(f"{exc.filename or self._where()}: {exc.strerror or exc}")
                self._opened.set()
                return
            self._in_thread = InThread(self._limits, self._before_execute)
            self._read_engine = self._engine.execution_options(**{READING: True})
            event.listen(self._engine.sync_engine, "before_cursor_execute", self._before_execute)
            async with trio_asyncio.open_loop() as self._loop:
                self._loop.set_exception_handler(_log_error)
                async with trio.open_nursery() as self._watching:
                    self._opened.set()
                    await self._closing.wait()
                    with trio.move_on_after(_FINISH_SECONDS):
                        for job in list(self._jobs):
                            await job.done.wait()
                    self._watching.cancel_scope.cancel()
                disposing: _Job[None] = _Job(self._loop, lambda _: None)
                disposing.start(self._engine.dispose())
                await self._watch(disposing, _GRACE_SECONDS)

    async def _connect(self) -> None:
        await self._opened.wait()
        if self._failure is not None:
            raise self._failure
        try:
            await self._run(self._reading, self._read_engine, lambda _: None, _OPEN_SECONDS)
        except (TypeError, ValueError, InterfaceError) as exc:
            raise ConfigError(f"database.url: the driver does not take an option in it: {reason_of(exc)}") from exc

    def _before_execute(
        self, connection: Connection, _cursor: object, _statement: str, _values: object, context: Any, _many: bool
    ) -> None:
        self.queries += 1
        if READING in connection.get_execution_options() and (context.isinsert or context.isupdate or context.isdelete):
            raise RuntimeError("`read` was given work that writes")

    @property
    def address(self) -> str:
        """Which database it is, for people: its kind, and where it is. No password is in it."""
        return f"{self._url.get_backend_name()} {self._where()}"

    def _where(self) -> str:
        url = self._url
        port = f":{url.port}" if url.port else ""
        return f"{url.host}{port}/{url.database}" if url.host else str(url.database)

    def _says(self, reason: str) -> str:
        return f"database {self._where()}: {reason}"


def _slots(number: int) -> trio.Semaphore:
    return trio.Semaphore(number, max_value=number)


def _log_error(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    # trio-asyncio's own would end the process for it.
    log.error("an error in the driver of the database", what=context.get("message"), exc_info=context.get("exception"))
