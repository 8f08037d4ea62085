from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from qiyu.storage.database import Database, database_url
from qiyu.storage.migrate import upgrade
from qiyu.storage.urls import SQLITE_FILE
from web.sites import Site


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of a database with its tables: made once, for that takes longer than most tests."""
    folder = tmp_path_factory.mktemp("empty")

    async def make() -> None:
        async with Database.open(database_url("", folder)) as database:
            await upgrade(database)

    trio.run(make)
    return (folder / SQLITE_FILE).read_bytes()


@pytest.fixture
async def database(tmp_path: Path, empty_database: bytes) -> AsyncIterator[Database]:
    (tmp_path / SQLITE_FILE).write_bytes(empty_database)  # a few kilobytes
    async with Database.open(database_url("", tmp_path)) as database:
        yield database


@pytest.fixture
def site(database: Database) -> Site:
    """A site with the usual settings."""
    return Site(database)
