"""One transaction, in a thread: begun as each kind of database wants it, and how to stop what it executes."""

from __future__ import annotations

import os
import socket
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Engine

from qiyu.storage.engines import READING, once_free
from qiyu.storage.job import GRACE_SECONDS, Job

T = TypeVar("T")

JOB: Final = "qiyu_job"
"""The execution option of a connection that says for which job it works."""


def transact(engine: Engine, job: Job[Any], work: Callable[[Connection], T], busy_seconds: float) -> T:
    """Run `work(connection)` in one transaction and commit it, unless the job is cut off meanwhile.

    Waits `busy_seconds` at most for another process to let go of an SQLite database.
    """
    job.check()
    with engine.connect() as connection:
        connection.execution_options(**{JOB: job})
        driver: Any = connection.connection.driver_connection
        try:
            with job.stoppable(*_ways_to_stop(connection.dialect.name, driver)), connection.begin():
                job.check()
                if connection.dialect.name == "sqlite":
                    _begin(driver, READING in connection.get_execution_options(), busy_seconds, job)
                result = work(connection)
                job.check()
                return result
        finally:
            if job.is_cut_off:
                connection.invalidate()  # what stopped it may reach the server only now


def _begin(driver: sqlite3.Connection, reading: bool, busy_seconds: float, job: Job[Any]) -> None:
    # SQLAlchemy leaves it to the driver, whose own transaction control is off.
    statement = "BEGIN" if reading else "BEGIN IMMEDIATE"
    once_free(busy_seconds, lambda: driver.execute(statement), lambda: job.is_cut_off)


def _ways_to_stop(kind: str, driver: Any) -> tuple[Callable[[], object], ...]:
    if kind == "sqlite":
        return (driver.interrupt,)
    if kind == "postgresql":
        # A server goes on with a statement whose client is gone, with its locks. So it is asked first.
        return lambda: _cancel(driver), lambda: _sever(driver.fileno())
    return (lambda: _sever(driver._sock.fileno()),)


def _cancel(driver: Any) -> None:
    import psycopg  # noqa: PLC0415  # of an extra

    if psycopg.capabilities.has_cancel_safe():  # else it waits without a limit
        with suppress(psycopg.Error):
            driver.cancel_safe(timeout=GRACE_SECONDS)


def _sever(fd: int) -> None:
    """Whoever waits for bytes of this socket learns that none will come."""
    with suppress(OSError), socket.socket(fileno=os.dup(fd)) as shared:
        shared.shutdown(socket.SHUT_RDWR)
