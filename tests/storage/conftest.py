"""The three databases.

A test that asks for `db` or `urls` runs on SQLite, PostgreSQL and MariaDB. The servers are those of TEST_POSTGRES_URL
and TEST_MYSQL_URL, whose user must be allowed to create databases; without these, the ones on this machine that take
`postgres` or `root` without a password. Whatever is made is dropped at the end.
"""

from __future__ import annotations

import gc
import os
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import pytest
import trio
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.pool import NullPool
from structlog.testing import capture_logs

from qiyu.errors import DatabaseUnavailable
from qiyu.storage.database import Database, Limits, database_url
from qiyu.storage.migrate import upgrade
from qiyu.storage.tables import metadata

SERVERS: Final = {
    "postgresql": ("TEST_POSTGRES_URL", "postgresql://postgres@127.0.0.1:5432/postgres"),
    "mariadb": ("TEST_MYSQL_URL", "mariadb://root@127.0.0.1:3306/mysql"),
}


def only(*kinds: str) -> pytest.MarkDecorator:
    """For a test that says something about these kinds of database alone."""
    return pytest.mark.parametrize("urls", kinds, indirect=True, scope="session")


class Urls:
    """Makes empty databases of one kind."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self._folder = folder
        self._made: list[str] = []
        if kind != "sqlite":
            variable, default = SERVERS[kind]
            self._server = database_url(os.environ.get(variable, default), folder)
            self._reach(variable)

    def _reach(self, variable: str) -> None:
        try:
            self._execute("SELECT 1")
        except DatabaseUnavailable as exc:
            if variable in os.environ:
                raise
            pytest.skip(f"{exc}. Start {self.kind} on this machine, or set {variable} to the URL of one")

    def fresh(self) -> str:
        name = f"qiyu_test_{uuid.uuid4().hex}"
        if self.kind == "sqlite":
            return database_url("", self._folder / name)
        self._execute(f"CREATE DATABASE {name}")
        self._made.append(name)
        return make_url(self._server).set(database=name).render_as_string(hide_password=False)

    def drop_all(self) -> None:
        force = " WITH (FORCE)" if self.kind == "postgresql" else ""
        for name in self._made:
            self._execute(f"DROP DATABASE {name}{force}")

    def _execute(self, statement: str) -> None:
        async def reach() -> None:
            async with Database.open(self._server, limits=Limits(connections=1)):
                pass  # it answers

        trio.run(reach)
        engine = create_engine(self._server, isolation_level="AUTOCOMMIT", poolclass=NullPool)
        with engine.connect() as connection:
            connection.execute(text(statement))
        engine.dispose()


@pytest.fixture(scope="session", params=["sqlite", "postgresql", "mariadb"])
def urls(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Urls]:
    made = Urls(request.param, tmp_path_factory.mktemp(request.param))
    yield made
    made.drop_all()


@pytest.fixture(scope="session")
def url(urls: Urls) -> str:
    """Of a database with tables, the same for all tests: `db` empties it."""
    url = urls.fresh()

    async def migrate() -> None:
        async with Database.open(url) as database:
            await upgrade(database)

    trio.run(migrate)
    return url


@pytest.fixture
async def db(url: str) -> AsyncIterator[Database]:
    async with Database.open(url) as database:
        await database.run(lambda c: [c.execute(table.delete()) for table in reversed(metadata.sorted_tables)])
        yield database


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """Nothing was logged as an error."""
    with capture_logs() as logs:
        yield
    assert [entry for entry in logs if entry["log_level"] == "error"] == []


@pytest.fixture(autouse=True, scope="module")
def _everything_is_closed() -> Iterator[None]:
    """No connection that nobody closed: its warning is an error."""
    yield
    gc.collect()
