"""The one place where the database meets trio.

SQLAlchemy's plain engines and drivers wait where they are called, so each piece of work, one transaction, runs in a
thread of trio's. It belongs to the database, not to its caller: a caller that is cancelled leaves at once, and the work
goes on to its own end. To stop a statement half-way costs the connection, for nobody knows what the server has done by
then. So work is cut off only when its time is over or the database is closed.

Everything is bounded: the connections, the callers that wait for one, how long they wait, how long a transaction may
take, and how long closing takes. trio's clock measures it: with an autojump clock, which jumps while a thread works,
every time is over at once.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

import trio
from sqlalchemy import Connection, Engine, event, make_url
from sqlalchemy.exc import InterfaceError, ProgrammingError

from qiyu.errors import ConfigError, DatabaseUnavailable, Fenced
from qiyu.storage.engines import READING, SQLITE_READERS, Limits, Synchronous, make_engine
from qiyu.storage.failures import passes, reason_of, was_victim
from qiyu.storage.job import GRACE_SECONDS, Job
from qiyu.storage.transactions import JOB, transact
from qiyu.storage.urls import database_url

__all__ = ["Database", "Limits", "database_url"]

T = TypeVar("T")
P = ParamSpec("P")

TRIES: Final = 3  # of a transaction that the database undoes to settle a deadlock

_OPEN_SECONDS: Final = 10.0  # to connect and be let in; something else may be listening there
_FINISH_SECONDS: Final = 0.75  # for work under way, when the database is closed; with all else, less than 2 s


class Database:
    """An open database. `run` and `read` may be called from any trio task."""

    def __init__(self, url: str, limits: Limits, synchronous: Synchronous) -> None:
        self.queries = 0
        """Statements executed so far; several threads count, so under load it may be a few short."""
        self._url = make_url(url)
        self._limits = limits
        self._synchronous: Synchronous = synchronous
        if self._url.get_backend_name() == "sqlite":
            self._writing, self._reading = _slots(1), _slots(SQLITE_READERS)
        else:
            self._writing = self._reading = _slots(limits.connections)
        self._jobs: set[Job[Any]] = set()
        self._guard: Callable[[Connection], None] | None = None
        self.fenced = trio.Event()
        """Set when `Fenced` was raised: see `guard`."""
        self.fenced_because: Fenced | None = None
        self._closing = trio.Event()
        self._watching: trio.Nursery
        self._engine: Engine
        self._read_engine: Engine

    def __repr__(self) -> str:
        waiting = self._writing.statistics().tasks_waiting
        return f"<Database {self._where()}: {len(self._jobs)} transactions, {waiting} waiting>"

    @property
    def is_sqlite(self) -> bool:
        """Whether it is a file on this machine, and not a server."""
        return self._url.get_backend_name() == "sqlite"

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
                database._prepare()
                await nursery.start(database._serve)
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

    def guard(self, check: Callable[[Connection], None]) -> None:
        """Begin every transaction that may write with this from now on; it raises where nothing is to be written."""
        self._guard = check

    def join_anew(self) -> None:
        """This process was fenced, and becomes another instance: until `guard` is called, nothing is guarded."""
        self._guard = None
        self.fenced = trio.Event()
        self.fenced_because = None

    async def run(self, work: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work(connection, ...)` in one transaction, commit, and return its result.

        `work` is a plain function, and runs in a thread of its own. What it raises rolls back and comes out as it is.
        It may be run again from the start, when the database has undone it to settle a deadlock, so it should change
        nothing but the database.

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
        guard = self._guard

        def guarded(connection: Connection) -> T:
            if guard is not None:
                guard(connection)
            return work(connection, *args, **kwargs)

        return await self._run(self._writing, self._engine, guarded, seconds)

    async def run_long(self, work: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """`run` without a limit on how long it takes, for changing tables."""
        return await self.run_within(math.inf, work, *args, **kwargs)

    async def _run(self, slots: trio.Semaphore, engine: Engine, work: Callable[[Connection], T], seconds: float) -> T:
        await self._take(slots)

        def at_end(job: Job[T]) -> None:
            self._jobs.remove(job)
            slots.release()

        job = Job(at_end)
        self._jobs.add(job)
        job.start(lambda: self._carry_out(job, engine, work))
        self._watching.start_soon(self._watch, job, seconds)
        try:
            await job.done.wait()
        except trio.Cancelled:
            job.abandoned = True
            raise
        closing = self._closing.is_set()
        try:
            return job.result(self._says("it was closed" if closing else f"no answer within {seconds:g} s"))
        except Fenced as exc:
            self.fenced_because = exc
            self.fenced.set()
            raise

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

    async def _watch(self, job: Job[Any], seconds: float) -> None:
        """See to it that the work ends, with or without a caller."""
        try:
            with trio.move_on_after(seconds):
                await job.done.wait()
        finally:
            with trio.CancelScope(shield=True):
                await job.cut_off()

    def _carry_out(self, job: Job[T], engine: Engine, work: Callable[[Connection], T]) -> T:
        """The whole life of a piece of work, in its thread."""
        engine = engine.execution_options(**{JOB: job})
        try:
            for _ in range(TRIES - 1):
                try:
                    return transact(engine, job, work, self._limits.busy_seconds)
                except Exception as exc:
                    if not was_victim(exc):
                        raise
            return transact(engine, job, work, self._limits.busy_seconds)
        except Exception as exc:
            if isinstance(exc, DatabaseUnavailable) or not passes(exc):
                raise
            raise DatabaseUnavailable(self._says(reason_of(exc))) from exc

    def _prepare(self) -> None:
        try:
            self._engine = make_engine(self._url, self._limits, self._synchronous)
        except OSError as exc:
            raise DatabaseUnavailable(f"{exc.filename or self._where()}: {exc.strerror or exc}") from exc
        event.listen(self._engine, "before_cursor_execute", self._before_execute)
        self._read_engine = self._engine.execution_options(**{READING: True})

    async def _serve(self, *, task_status: trio.TaskStatus[None]) -> None:
        """From opening to closing. It ends itself, and so is not to be cancelled."""
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as self._watching:
                task_status.started()
                await self._closing.wait()
                with trio.move_on_after(_FINISH_SECONDS):
                    for job in list(self._jobs):
                        await job.done.wait()
                self._watching.cancel_scope.cancel()
            disposing = Job[None](lambda _: None)
            disposing.start(self._engine.dispose)
            with trio.move_on_after(GRACE_SECONDS):
                await disposing.done.wait()

    async def _connect(self) -> None:
        try:
            await self._run(self._reading, self._read_engine, lambda _: None, _OPEN_SECONDS)
        except (TypeError, ValueError, InterfaceError, ProgrammingError) as exc:
            raise ConfigError(f"database.url: the driver does not take an option in it: {reason_of(exc)}") from exc

    def _before_execute(
        self, connection: Connection, _cursor: object, _statement: str, _values: object, context: Any, _many: bool
    ) -> None:
        self.queries += 1
        options = connection.get_execution_options()
        if READING in options and (context.isinsert or context.isupdate or context.isdelete):
            raise RuntimeError("`read` was given work that writes")
        job: Job[Any] = options[JOB]
        job.check()

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
