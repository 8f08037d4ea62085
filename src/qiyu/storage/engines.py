"""One SQLAlchemy engine for each kind of database, so set up that all three behave alike.

Transactions see what others have committed (READ COMMITTED) on PostgreSQL and MariaDB; MariaDB's own choice, REPEATABLE
READ, goes on showing the moment of the first read, so that whoever loses a race would not find the row that won it.

SQLite has one writer at a time. A transaction that begins by reading and then writes is refused (SQLITE_BUSY, at once)
if another has written in between, so those that may write say so in front: BEGIN IMMEDIATE. Readers need not wait for
the writer (WAL). sqlite3's own transaction control is off: it begins late, and never before DDL or SAVEPOINT.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from sqlalchemy import URL, Engine, create_engine, event
from sqlalchemy.pool import QueuePool

from qiyu.storage.failures import is_busy

Synchronous: TypeAlias = Literal["normal", "full"]

SQLITE_READERS: Final = 3  # beside the one writer
CONNECT_SECONDS: Final = 5
CACHE_KIB: Final = 16_000  # of each connection, at most
CHECKPOINT_PAGES: Final = 4_000  # of 4 KiB
READING: Final = "qiyu_reading"
"""The execution option of a connection whose transaction will not write."""

# What one wait inside SQLite takes: it cannot be called off, and so is to be shorter than anybody's patience.
_BUSY_MS: Final = 250


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a database is asked at once, and how long anybody waits."""

    connections: int = 10  # to a server; SQLite has one writer and SQLITE_READERS
    waiting: int = 1000  # callers that wait for a connection; the next is turned away
    wait_seconds: float = 10  # for a connection
    work_seconds: float = 30  # for one transaction
    busy_seconds: float = 5  # for another process to let go of an SQLite database


def make_engine(url: URL, limits: Limits, synchronous: Synchronous) -> Engine:
    """An engine that has not connected yet. For SQLite, makes folder and file; raises OSError where that fails."""
    if url.get_backend_name() == "sqlite":
        return _sqlite_engine(url, limits, synchronous)
    options: dict[str, Any] = {"connect_args": {"connect_timeout": CONNECT_SECONDS}}
    if url.get_backend_name() == "mysql":
        options["isolation_level"] = "READ COMMITTED"
    # A ping before each transaction, for a server that was restarted has closed what is in the pool.
    engine = create_engine(
        url,
        pool_size=limits.connections,
        max_overflow=0,
        pool_pre_ping=True,
        hide_parameters=True,
        paramstyle="format",  # in order, and not by name, so that rows can be bound as they are
        **options,
    )
    if url.get_backend_name() == "mysql":
        event.listen(engine, "do_connect", _connect_in_time)
    return engine


def _connect_in_time(_dialect: object, _record: object, args: Any, options: dict[str, Any]) -> Any:
    """PyMySQL's limit on connecting is not one on being greeted by the server."""
    import pymysql  # noqa: PLC0415  # of an extra

    connection = pymysql.connect(*args, read_timeout=CONNECT_SECONDS, write_timeout=CONNECT_SECONDS, **options)
    connection._read_timeout = connection._write_timeout = None  # type: ignore[attr-defined]  # jobs have a limit
    return connection


def _sqlite_engine(url: URL, limits: Limits, synchronous: Synchronous) -> Engine:
    if "uri" not in url.query:
        _make_file(Path(url.database or ""))
    busy_ms = min(_BUSY_MS, int(limits.busy_seconds * 1000))
    engine = create_engine(
        url,
        poolclass=QueuePool,
        pool_size=1 + SQLITE_READERS,
        max_overflow=0,
        hide_parameters=True,
        pool_reset_on_return=None,  # no transaction is left open
        # Each transaction may run in another thread, one at a time.
        connect_args={"isolation_level": None, "timeout": busy_ms / 1000, "check_same_thread": False},
    )

    if "uri" not in url.query:
        _hold_to(Path(url.database or ""), engine)

    @event.listens_for(engine, "connect")
    def set_up(connection: Any, _record: object) -> None:
        try:
            _set_up(connection, synchronous, limits.busy_seconds)
        except BaseException:
            connection.close()  # nobody else knows of it yet
            raise

    return engine


def _hold_to(file: Path, engine: Engine) -> None:
    """Let nothing be done while another file is in the place of this one, or none.

    A connection goes on with the file that it opened, also where somebody has removed that or put another in its place:
    then all that is written is gone at the next start. And to a new connection SQLite would give an empty file, for all
    to read. Looked at before each transaction, which takes two microseconds; the connections stay, for the file may be
    put back.
    """
    identity = _identity(file)

    def check(*_: object) -> None:
        if _identity(file) != identity:
            raise OSError(errno.ESTALE, "another file is in its place: start the server again", str(file))

    event.listen(engine, "do_connect", check)
    event.listen(engine, "begin", check)


def _identity(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_dev, status.st_ino


def _make_file(path: Path) -> None:
    """Make the database file for nobody else to read; SQLite gives its companions, -wal and -shm, the same mode."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        mode = os.fstat(fd).st_mode
        if mode & 0o007:
            os.fchmod(fd, mode & 0o770)
    finally:
        os.close(fd)


def _set_up(connection: Any, synchronous: Synchronous, busy_seconds: float) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute(f"PRAGMA synchronous = {synchronous}")
    # Four times what SQLite takes of itself for a log that is written all the time: a fifth less CPU a message.
    cursor.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    cursor.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    # The file remembers it, but to switch to it needs the file for oneself, and SQLite does not wait for that.
    once_free(busy_seconds, lambda: cursor.execute("PRAGMA journal_mode = WAL"))
    cursor.close()


def _never() -> bool:
    return False


def once_free(seconds: float, attempt: Callable[[], object], called_off: Callable[[], bool] = _never) -> None:
    """Wait `seconds` at most for other processes, in short waits, so that in between it can be called off."""
    until = time.monotonic() + seconds
    while True:
        try:
            attempt()
        except sqlite3.OperationalError as exc:
            if not is_busy(exc) or time.monotonic() >= until or called_off():
                raise
        else:
            return
