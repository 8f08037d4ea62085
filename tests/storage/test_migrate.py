from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
import trio
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, inspect, text

from qiyu.errors import DatabaseTooNew
from qiyu.storage import migrate, users
from qiyu.storage.database import Database
from qiyu.storage.tables import FIRST_USER_ID, metadata, t_user
from storage.conftest import Urls, only

HEAD = migrate.latest()


@pytest.fixture
def empty(urls: Urls) -> str:
    return urls.fresh()


def set_revision(c: Connection, revision: str) -> None:
    c.execute(text("UPDATE t_qiyu_version SET version_num = :revision"), {"revision": revision})


async def test_an_empty_database_is_brought_up_to_date_once(empty: str) -> None:
    async with Database.open(empty) as db:
        assert await migrate.current(db) is None
        assert await migrate.upgrade(db) == (None, HEAD)
        assert await migrate.current(db) == HEAD
        assert await migrate.upgrade(db) == (HEAD, HEAD)


async def test_the_migrations_make_the_tables_of_the_code(db: Database) -> None:
    def differences(c: Connection) -> list[object]:
        options = {"compare_server_default": True, "version_table": migrate.VERSION_TABLE}
        return list(compare_metadata(MigrationContext.configure(c, opts=options), metadata))

    assert await db.read(differences) == []


async def test_what_a_comparison_does_not_see(urls: Urls, empty: str) -> None:
    """Where ids begin, that deleting a user deletes what is theirs, and MariaDB's character set."""
    async with Database.open(empty) as db:
        await migrate.upgrade(db)

        def work(c: Connection) -> int:
            user_id = users.insert_user(c, name="a", password_hash="", nick_name="", avatar="", now_ms=0)
            users.add_tag(c, user_id, "vip")
            c.execute(t_user.delete())
            assert c.scalar(text("SELECT count(*) FROM t_user_tag")) == 0
            again = users.insert_user(c, name="a", password_hash="", nick_name="", avatar="", now_ms=0)
            assert again == user_id + 1
            return user_id

        assert await db.run(work) == FIRST_USER_ID
        if urls.kind == "mariadb":
            collations = text(
                "SELECT DISTINCT collation_name FROM information_schema.columns WHERE table_schema = database()"
                " AND table_name LIKE 't\\_%' AND table_name <> 't_qiyu_version' AND collation_name IS NOT NULL"
            )
            assert await db.read(lambda c: list(c.scalars(collations))) == ["utf8mb4_bin"]


async def test_a_newer_database_is_refused(empty: str) -> None:
    async with Database.open(empty) as db:
        await migrate.upgrade(db)
        await db.run(set_revision, "9999")
        with pytest.raises(DatabaseTooNew, match=f"is at revision 9999, .*knows up to {HEAD}"):
            await migrate.upgrade(db)
        assert await migrate.current(db) == "9999"


async def test_several_at_once_all_end_well(empty: str) -> None:
    before: list[str | None] = []

    async def start() -> None:
        async with Database.open(empty) as db:
            before.append((await migrate.upgrade(db))[0])

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(start)
    assert sorted(before, key=str) == [HEAD] * 3 + [None]


@only("mariadb")  # on the others, a migration is one transaction
async def test_what_a_killed_process_left_is_finished(empty: str) -> None:
    async with Database.open(empty) as db:
        await migrate.upgrade(db)

        def undo_the_end(c: Connection) -> None:
            c.execute(text("DELETE FROM t_qiyu_version"))
            c.execute(text("DROP TABLE t_living_room_record"))
            c.execute(text("DROP INDEX ix_t_living_room_type ON t_living_room"))

        await db.run(undo_the_end)
        assert await migrate.upgrade(db) == (None, HEAD)

        def tables(c: Connection) -> set[str]:
            return set(inspect(c).get_table_names())

        assert await db.read(tables) == {*metadata.tables, "t_qiyu_version"}


async def test_a_version_table_of_before_is_taken_over(empty: str) -> None:
    """Until 0002 it was called as Alembic calls it of itself."""
    async with Database.open(empty) as db:
        await migrate.upgrade(db)
        await db.run(lambda c: c.execute(text("ALTER TABLE t_qiyu_version RENAME TO alembic_version")))
        assert await migrate.current(db) == HEAD
        assert await migrate.upgrade(db) == (HEAD, HEAD)
        assert await migrate.current(db) == HEAD
        assert await db.read(lambda c: set(inspect(c).get_table_names())) == {*metadata.tables, "t_qiyu_version"}


async def test_the_version_table_of_others_is_left_to_them(empty: str) -> None:
    """They may keep their tables in the same database, and use Alembic, too."""
    async with Database.open(empty) as db:
        await db.run(lambda c: c.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")))
        await db.run(lambda c: c.execute(text("INSERT INTO alembic_version VALUES ('theirs')")))
        assert await migrate.current(db) is None
        assert await migrate.upgrade(db) == (None, HEAD)
        assert await migrate.upgrade(db) == (HEAD, HEAD)
        theirs = await db.read(lambda c: list(c.scalars(text("SELECT version_num FROM alembic_version"))))
        assert theirs == ["theirs"]


def test_the_command_of_alembic_works_on_the_configured_database(tmp_path: Path) -> None:
    """For whoever writes the next migration."""
    (tmp_path / "config.toml").write_text('[data]\ndir = "elsewhere"\n')
    ini = migrate.migrations_folder() / "alembic.ini"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "alembic", "-c", ini, "upgrade", "head"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with closing(sqlite3.connect(tmp_path / "elsewhere" / "qiyu.db")) as connection:
        assert connection.execute("SELECT version_num FROM t_qiyu_version").fetchone() == (HEAD,)
