"""The databases, and what is done to them while a server uses them."""

from __future__ import annotations

import resource
import sqlite3
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

import trio
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.pool import NullPool

from crash.server import Server
from qiyu.storage.database import database_url
from qiyu.storage.urls import SQLITE_FILE

Fault: TypeAlias = Callable[[Server, float], Awaitable[None]]
"""Makes the database fail for so many seconds."""

SERVERS: Final = {
    "postgresql": "postgresql://postgres@127.0.0.1:5432/postgres",
    "mariadb": "mariadb://root@127.0.0.1:3306/mysql",
}


class Sqlite:
    """A file in the server's data folder."""

    url = ""

    @property
    def faults(self) -> Mapping[str, Fault]:
        return {"locked": self._locked, "full": self._full}

    async def drop(self) -> None:
        """Its folder goes as a whole."""

    async def _locked(self, server: Server, seconds: float) -> None:
        """Another process is writing."""
        locker = await trio.to_thread.run_sync(partial(_begin_immediate, server.folder / "data" / SQLITE_FILE))
        if locker is not None:
            try:
                await trio.sleep(seconds)
            finally:
                locker.close()

    async def _full(self, server: Server, seconds: float) -> None:
        """No file of the server may grow."""
        folder = server.folder / "data"
        sizes = [path.stat().st_size for path in folder.glob(f"{SQLITE_FILE}-wal")]
        pid = server.pid
        _limit(pid, max(sizes, default=0))
        try:
            await trio.sleep(seconds)
        finally:
            _limit(pid, resource.RLIM_INFINITY)


class _OnServer:
    """A database of its own on a server that others use as well."""

    def __init__(self, server_url: str) -> None:
        self._server = database_url(server_url, Path())
        self._name = f"qiyu_crash_{uuid.uuid4().hex}"
        self.url = make_url(self._server).set(database=self._name).render_as_string(hide_password=False)

    async def create(self) -> None:
        await self._execute(f"CREATE DATABASE {self._name}")

    async def _execute(self, *statements: str, on: str = "", hold: float = 0.0) -> list[tuple[object, ...]]:
        """In one session, which then stays open for `hold` seconds. Returns the rows of the last one."""

        def execute() -> list[tuple[object, ...]]:
            engine = create_engine(on or self._server, isolation_level="AUTOCOMMIT", poolclass=NullPool)
            rows: list[tuple[object, ...]] = []
            with engine.connect() as connection:
                for statement in statements:
                    result = connection.execute(text(statement))
                    rows = [tuple(row) for row in result] if result.returns_rows else []
                time.sleep(hold)
            engine.dispose()
            return rows

        return await trio.to_thread.run_sync(execute)


class Postgresql(_OnServer):
    @property
    def faults(self) -> Mapping[str, Fault]:
        return {"terminated": self._terminated, "locked": self._locked}

    async def drop(self) -> None:
        await self._execute(f"DROP DATABASE {self._name} WITH (FORCE)")

    async def _terminated(self, server: Server, seconds: float) -> None:
        """Every connection is cut, and each new one."""
        until = trio.current_time() + seconds
        while trio.current_time() < until:
            await self._execute(
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{self._name}'"  # noqa: S608
            )
            await trio.sleep(0.1)

    async def _locked(self, server: Server, seconds: float) -> None:
        lock = "LOCK TABLE t_im_message IN ACCESS EXCLUSIVE MODE"
        await self._execute("BEGIN", lock, on=self.url, hold=seconds)


class Mariadb(_OnServer):
    @property
    def faults(self) -> Mapping[str, Fault]:
        return {"terminated": self._terminated, "locked": self._locked}

    async def drop(self) -> None:
        await self._execute(f"DROP DATABASE {self._name}")

    async def _terminated(self, server: Server, seconds: float) -> None:
        until = trio.current_time() + seconds
        while trio.current_time() < until:
            where = f"FROM information_schema.processlist WHERE db = '{self._name}'"
            ids = await self._execute(f"SELECT id {where}")
            for (each,) in ids:
                try:
                    await self._execute(f"KILL {each}")
                except Exception:  # noqa: BLE001, S112  # it is gone already
                    continue
            await trio.sleep(0.1)

    async def _locked(self, server: Server, seconds: float) -> None:
        await self._execute("LOCK TABLES t_im_message WRITE", on=self.url, hold=seconds)


Database: TypeAlias = Sqlite | Postgresql | Mariadb


async def create(kind: str, server_url: str) -> Database:
    """An empty database; `server_url` is one on the server where it is made."""
    if kind == "sqlite":
        return Sqlite()
    database = (Postgresql if kind == "postgresql" else Mariadb)(server_url or SERVERS[kind])
    await database.create()
    return database


def _begin_immediate(path: Path) -> sqlite3.Connection | None:
    locker = sqlite3.connect(path, timeout=2, isolation_level=None, check_same_thread=False)
    try:
        locker.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError:
        locker.close()
        return None
    return locker


def _limit(pid: int, size: int) -> None:
    with suppress(ProcessLookupError):  # it was killed meanwhile
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
