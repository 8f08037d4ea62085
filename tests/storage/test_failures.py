"""Errors as the drivers raise them, without a database: tests/storage/test_database.py has them from real ones."""

from __future__ import annotations

import sqlite3

import pytest
import sqlalchemy.exc
from sqlalchemy.exc import DBAPIError

from qiyu.storage.failures import is_busy, passes, reason_of, was_victim

SECRET = "the value of a row"


class PostgresError(Exception):
    """As asyncpg raises it."""

    def __init__(self, sqlstate: str, text: str = "said the server") -> None:
        super().__init__(text)
        self.sqlstate = sqlstate


class MysqlError(Exception):
    """As PyMySQL raises it: (code, text)."""


def sqlite(code: int, text: str = "said SQLite") -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode = code
    return error


def wrapped(error: Exception, *, invalidated: bool = False) -> DBAPIError:
    """As SQLAlchemy passes it on."""
    return DBAPIError("INSERT ...", {"data": SECRET}, error, connection_invalidated=invalidated)


@pytest.mark.parametrize(
    "error",
    [
        sqlite(sqlite3.SQLITE_BUSY),
        sqlite(sqlite3.SQLITE_BUSY | 2 << 8),  # SQLITE_BUSY_SNAPSHOT: an extended code
        sqlite(sqlite3.SQLITE_FULL),
        sqlite(sqlite3.SQLITE_READONLY),
        sqlite(sqlite3.SQLITE_NOTADB),
        PostgresError("08006"),
        PostgresError("57P01"),
        PostgresError("53100"),
        PostgresError("40P01"),
        PostgresError("42501"),
        MysqlError(1205, "Lock wait timeout exceeded"),
        MysqlError(1213, "Deadlock found"),
        MysqlError(2013, "Lost connection"),
    ],
)
def test_what_passes_or_can_be_mended(error: Exception) -> None:
    assert passes(wrapped(error))


@pytest.mark.parametrize(
    "error",
    [
        sqlite(sqlite3.SQLITE_ERROR, "no such table: x"),
        sqlite(sqlite3.SQLITE_CONSTRAINT),
        PostgresError("42P01"),
        PostgresError("23505"),
        PostgresError(""),
        MysqlError(1064, "You have an error in your SQL syntax"),
        MysqlError(1062, "Duplicate entry"),
        MysqlError(),
        MysqlError("no code"),
    ],
)
def test_what_is_a_mistake_in_the_code(error: Exception) -> None:
    assert not passes(wrapped(error))
    assert not was_victim(wrapped(error))


def test_what_needs_no_code_to_pass() -> None:
    assert passes(ConnectionRefusedError())
    assert passes(TimeoutError())
    assert passes(sqlalchemy.exc.TimeoutError())
    assert passes(wrapped(MysqlError(1064, "x"), invalidated=True)), "the connection is gone, whatever was said"
    assert not passes(ValueError("a bug"))
    assert not passes(sqlite3.ProgrammingError("a bug"))


def test_an_error_of_sqlite_itself_counts_as_well() -> None:
    assert passes(sqlite(sqlite3.SQLITE_FULL))
    assert not passes(sqlite(sqlite3.SQLITE_ERROR))


def test_in_a_savepoint_the_deadlock_is_what_came_before() -> None:
    gone = wrapped(MysqlError(1305, "SAVEPOINT sa_savepoint_1 does not exist"))
    assert not passes(gone)
    gone.__context__ = wrapped(MysqlError(1213, "Deadlock found"))
    assert passes(gone)
    assert was_victim(gone)


@pytest.mark.parametrize(
    ("error", "victim"),
    [
        (PostgresError("40001"), True),
        (PostgresError("40P01"), True),
        (PostgresError("0A000"), True),
        (PostgresError("57P01"), False),
        (MysqlError(1213, "x"), True),
        (MysqlError(1205, "x"), False),
        (sqlite(sqlite3.SQLITE_BUSY), False),
    ],
)
def test_whose_transaction_was_undone_can_run_it_again(error: Exception, victim: bool) -> None:
    assert was_victim(wrapped(error)) is victim


@pytest.mark.parametrize(
    ("code", "busy"),
    [
        (sqlite3.SQLITE_BUSY, True),
        (sqlite3.SQLITE_LOCKED, True),
        (sqlite3.SQLITE_BUSY | 1 << 8, True),
        (sqlite3.SQLITE_FULL, False),
    ],
)
def test_another_holds_the_lock(code: int, busy: bool) -> None:
    assert is_busy(sqlite(code)) is busy


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (sqlite(sqlite3.SQLITE_BUSY, "database is locked"), "database is locked"),
        (PostgresError("57P01", "<class 'asyncpg.X'>: going down\nDETAIL: more"), "going down"),
        (MysqlError(1205, "Lock wait timeout exceeded"), "Lock wait timeout exceeded"),
        (MysqlError("  no code \n"), "no code"),
        (MysqlError(), "MysqlError"),
    ],
)
def test_the_reason_is_one_line_without_the_statement_and_its_values(error: Exception, reason: str) -> None:
    assert reason_of(wrapped(error)) == reason
    assert SECRET not in reason_of(wrapped(error))
