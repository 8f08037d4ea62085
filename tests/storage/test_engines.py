"""SQLite: its file, its locks, and what can be wrong with them."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing
from sqlalchemy import Connection, text

from qiyu.errors import DatabaseUnavailable
from qiyu.storage.database import Database, Limits, database_url

IMPATIENT = Limits(busy_seconds=0)
NOBODY = 65534


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "qiyu.db"


@pytest.fixture
def url(path: Path) -> str:
    return database_url("", path.parent)


@pytest.fixture
def other(path: Path) -> Iterator[sqlite3.Connection]:
    """Another process that has the database open."""
    path.parent.mkdir()
    connection = sqlite3.connect(path, isolation_level=None, timeout=0)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE t (n INTEGER NOT NULL)")
    connection.execute("INSERT INTO t VALUES (0)")
    yield connection
    connection.close()


def number(c: Connection) -> int:
    return int(c.scalar(text("SELECT n FROM t")) or 0)


def increase(c: Connection) -> None:
    c.execute(text("UPDATE t SET n = :n"), {"n": number(c) + 1})


def write(path: Path, content: str, mode: int) -> None:
    path.parent.mkdir()
    path.write_text(content)
    path.chmod(mode)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_nobody_else_can_read_it(path: Path, url: str) -> None:
    before = os.umask(0)
    try:
        async with Database.open(url) as db:
            await db.run(lambda c: c.execute(text("CREATE TABLE t (n INTEGER)")))
            assert mode_of(path.parent) == 0o700
            assert {file.name: mode_of(file) for file in path.parent.iterdir()} == {
                "qiyu.db": 0o600,
                "qiyu.db-wal": 0o600,
                "qiyu.db-shm": 0o600,
            }
    finally:
        os.umask(before)


async def test_a_file_that_everybody_can_read_is_closed_to_them(path: Path, url: str) -> None:
    write(path, "", 0o664)
    async with Database.open(url):
        assert mode_of(path) == 0o660


@pytest.mark.parametrize(("synchronous", "level"), [("normal", 1), ("full", 2)])
async def test_how_it_is_set_up(url: str, synchronous: str, level: int) -> None:
    async with Database.open(url, synchronous=synchronous) as db:  # type: ignore[arg-type]
        asked = ("journal_mode", "foreign_keys", "synchronous")
        for ask in (db.run, db.read):
            answers = await ask(lambda c: [c.scalar(text(f"PRAGMA {name}")) for name in asked])
            assert answers == ["wal", 1, level]


async def test_those_who_read_and_then_write_lose_nothing(url: str, other: sqlite3.Connection) -> None:
    """Two processes that count up together: no number is lost, and nobody is refused."""

    async def count_up(db: Database) -> None:
        for _ in range(10):
            await db.run(increase)

    async with Database.open(url) as one, Database.open(url) as two, trio.open_nursery() as nursery:
        for db in (one, two, one, two):
            nursery.start_soon(count_up, db)
    assert other.execute("SELECT n FROM t").fetchone() == (40,)


async def test_while_another_process_writes_there_is_reading(url: str, other: sqlite3.Connection) -> None:
    async with Database.open(url, limits=IMPATIENT) as db:
        other.execute("BEGIN IMMEDIATE")
        other.execute("UPDATE t SET n = 7")
        assert await db.read(number) == 0
        with pytest.raises(DatabaseUnavailable, match="database is locked"):
            await db.run(increase)
        other.execute("COMMIT")
        await db.run(increase)
        assert await db.read(number) == 8


async def test_a_writer_waits_for_another_process(url: str, other: sqlite3.Connection) -> None:
    async with Database.open(url) as db:
        other.execute("BEGIN IMMEDIATE")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(db.run, increase)
            await trio.testing.wait_all_tasks_blocked()
            other.execute("COMMIT")
        assert await db.read(number) == 1


async def test_who_waits_for_another_process_does_not_hold_up_closing(url: str, other: sqlite3.Connection) -> None:
    async with Database.open(url, limits=Limits(busy_seconds=60)) as db:
        other.execute("BEGIN IMMEDIATE")
        with trio.CancelScope() as scope:
            scope.cancel()
            await db.run(increase)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(db.run, increase)
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        begun = trio.current_time()
    assert trio.current_time() - begun < 2
    other.execute("COMMIT")
    assert other.execute("SELECT n FROM t").fetchone() == (0,)


async def test_a_full_disk(url: str, other: sqlite3.Connection) -> None:
    def fill(c: Connection) -> None:
        c.execute(text("PRAGMA max_page_count = 20"))
        increase(c)
        c.execute(text("INSERT INTO t SELECT zeroblob(1000000)"))

    async with Database.open(url) as db:
        with pytest.raises(DatabaseUnavailable, match="database or disk is full"):
            await db.run(fill)
        assert await db.read(number) == 0
        await db.run(increase)
        assert await db.read(number) == 1


async def test_a_database_that_can_only_be_read(path: Path, other: sqlite3.Connection) -> None:
    async with Database.open(f"sqlite:///file:{path}?mode=ro&uri=true") as db:
        assert await db.read(number) == 0
        with pytest.raises(DatabaseUnavailable, match="attempt to write a readonly database"):
            await db.run(increase)


async def test_a_file_where_the_folder_should_be(path: Path, url: str) -> None:
    path.parent.touch()
    with pytest.raises(DatabaseUnavailable, match=rf"{path.parent}: File exists"):
        async with Database.open(url):
            pytest.fail("it opened")


@pytest.fixture
def nobody(path: Path) -> Iterator[None]:
    """Root may write everywhere; so it becomes somebody else, who can reach the folder."""
    if os.geteuid() != 0:
        yield
        return
    opened = [folder for folder in path.parents if folder.is_dir() and folder.stat().st_mode & 0o077 == 0]
    for folder in opened:
        folder.chmod(0o711)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        for folder in opened:
            folder.chmod(0o700)


async def test_a_folder_that_can_only_be_read(path: Path, url: str, request: pytest.FixtureRequest) -> None:
    path.parent.mkdir(mode=0o755)
    path.parent.chmod(0o555)
    request.getfixturevalue("nobody")
    with pytest.raises(DatabaseUnavailable, match=rf"{path}: Permission denied"):
        async with Database.open(url):
            pytest.fail("it opened")


async def test_a_file_that_is_something_else(path: Path, url: str) -> None:
    write(path, "These are my notes, and no database at all. " * 100, 0o600)
    with pytest.raises(DatabaseUnavailable, match="file is not a database"):
        async with Database.open(url):
            pytest.fail("it opened")


async def test_a_file_that_somebody_removed_is_not_made_anew(path: Path, url: str) -> None:
    async with Database.open(url, limits=Limits(wait_seconds=0.1)) as db:
        path.unlink()  # noqa: ASYNC240
        refused = 0

        async def ask() -> None:
            nonlocal refused
            try:
                await db.read(lambda connection: connection.execute(text("SELECT 1")))
            except DatabaseUnavailable:
                refused += 1

        async with trio.open_nursery() as nursery:  # more at once than there are connections by now
            for _ in range(4):
                nursery.start_soon(ask)
        assert refused
        assert not path.exists()  # noqa: ASYNC240


async def count(db: Database) -> int:
    return await db.read(lambda c: int(c.scalar(text("SELECT COUNT(*) FROM kept")) or 0))


async def keep(db: Database) -> None:
    await db.run(lambda c: c.execute(text("INSERT INTO kept VALUES (1)")))


async def test_nothing_is_written_or_read_while_the_file_is_away(path: Path, url: str) -> None:
    """Its connections have it open, and would write on to a file that nobody will ever find again."""
    async with Database.open(url) as db:
        await db.run(lambda c: c.execute(text("CREATE TABLE kept (n INTEGER)")))
        await keep(db)
        away = path.rename(path.with_suffix(".away"))  # noqa: ASYNC240
        for work in (keep, count):
            with pytest.raises(DatabaseUnavailable, match="No such file"):
                await work(db)
        away.rename(path)
        await keep(db)
        assert await count(db) == 2


async def test_another_file_in_its_place_is_not_the_database(path: Path, url: str) -> None:
    """A backup that was put back, say: the server is to be started again."""
    async with Database.open(url) as db:
        await db.run(lambda c: c.execute(text("CREATE TABLE kept (n INTEGER)")))
        copy = path.with_suffix(".copy")
        copy.write_bytes(path.read_bytes())  # noqa: ASYNC240
        copy.rename(path)
        for work in (keep, count):
            with pytest.raises(DatabaseUnavailable, match="another file is in its place: start the server again"):
                await work(db)
