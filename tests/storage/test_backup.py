"""Copying an SQLite database; with a server that writes to it, flow/test_backup.py."""

from __future__ import annotations

import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from qiyu.errors import DatabaseUnavailable
from qiyu.storage.backup import NotInAFile, backup
from qiyu.storage.database import database_url


def rows(path: Path) -> list[tuple[int]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT n FROM t").fetchall()


@pytest.fixture
def source(tmp_path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(tmp_path / "qiyu.db")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE t (n INTEGER)")
    connection.execute("INSERT INTO t VALUES (1)")
    connection.commit()
    return connection


def test_what_is_committed_is_in_it_though_it_stands_in_the_log_only(
    source: sqlite3.Connection, tmp_path: Path
) -> None:
    source.execute("INSERT INTO t VALUES (2)")  # and not committed
    target = tmp_path / "copy.db"
    assert backup(database_url("", tmp_path), target) == target.stat().st_size
    source.commit()
    source.close()
    assert rows(target) == [(1,)]
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.db", "qiyu.db"]


def test_nothing_is_replaced(source: sqlite3.Connection, tmp_path: Path) -> None:
    target = tmp_path / "copy.db"
    target.write_text("precious")
    with pytest.raises(FileExistsError):
        backup(database_url("", tmp_path), target)
    assert target.read_text() == "precious"
    assert not list(tmp_path.glob("*.unfinished"))
    source.close()


def test_a_database_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DatabaseUnavailable, match="unable to open"):
        backup(database_url("", tmp_path), tmp_path / "copy.db")
    assert list(tmp_path.iterdir()) == []


def test_a_database_on_a_server(tmp_path: Path) -> None:
    with pytest.raises(NotInAFile, match="postgresql"):
        backup("postgresql+psycopg://u@h/n", tmp_path / "copy.db")
