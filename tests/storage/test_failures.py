from __future__ import annotations

import sqlite3

import psycopg
import pymysql
import pytest
from pymysql.constants import CR, ER
from sqlalchemy.exc import DBAPIError, InvalidRequestError, StatementError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from qiyu.storage.failures import is_busy, passes, reason_of, was_victim


def wrapped(error: Exception) -> DBAPIError:
    """As SQLAlchemy raises it."""
    made = DBAPIError("SELECT secret", None, error)
    made.__cause__ = made.__context__ = error
    return made


def sqlite_error(code: int, kind: type[sqlite3.Error] = sqlite3.OperationalError) -> sqlite3.Error:
    error = kind("what SQLite says")
    error.sqlite_errorcode = code
    return error


def postgresql_error(state: str) -> psycopg.Error:
    error = psycopg.OperationalError("what PostgreSQL says")
    error.sqlstate = state
    return error


# Every class of SQLSTATE that PostgreSQL has, by what it means to whoever calls.
POSTGRESQL_PASSING = [
    "01000",
    "03000",
    "08000",
    "08006",
    "0A000",
    "25006",
    "25P03",
    "28000",
    "28P01",
    "3D000",
    "40001",
    "40P01",
    "42501",
    "53000",
    "53100",
    "53200",
    "53300",
    "55000",
    "55006",
    "55P02",
    "55P03",
    "57000",
    "57014",
    "57P01",
    "57P03",
    "57P04",
    "57P05",
    "58000",
    "58030",
    "F0000",
    "XX000",
    "XX001",
    "XX002",
]
POSTGRESQL_MISTAKES = [
    "21000",
    "22001",
    "22003",
    "22P05",
    "23502",
    "23505",
    "26000",
    "3B001",
    "3F000",
    "42601",
    "42703",
    "42P01",
    "54000",
]


@pytest.mark.parametrize("state", POSTGRESQL_PASSING)
def test_what_passes_on_postgresql(state: str) -> None:
    assert passes(wrapped(postgresql_error(state)))


@pytest.mark.parametrize("state", POSTGRESQL_MISTAKES)
def test_mistakes_on_postgresql(state: str) -> None:
    assert not passes(wrapped(postgresql_error(state)))


def test_every_error_of_postgresql_is_sorted_by_its_class() -> None:
    """Invariant: of two errors of one class (the first two characters of SQLSTATE), both pass or neither does."""
    exceptions = {"0A000", "42501", "25P02"}
    kinds: dict[str, set[bool]] = {}
    for name in dir(psycopg.errors):
        state = getattr(getattr(psycopg.errors, name), "sqlstate", None)
        if isinstance(state, str) and state not in exceptions:
            kinds.setdefault(state[:2], set()).add(passes(wrapped(postgresql_error(state))))
    assert len(kinds) > 30
    assert {state for state, answers in kinds.items() if len(answers) > 1} == set()


PRIMARY_CODES = range(1, 27)  # https://sqlite.org/rescode.html
SQLITE_MISTAKES = {1, 18, 19, 20, 21, 25}


@pytest.mark.parametrize("code", PRIMARY_CODES)
def test_every_code_of_sqlite_is_sorted(code: int) -> None:
    extended = code | 7 << 8
    assert passes(sqlite_error(code)) == passes(wrapped(sqlite_error(extended))) == (code not in SQLITE_MISTAKES)


MYSQL_PASSING = [
    ER.DISK_FULL,
    ER.CON_COUNT_ERROR,
    ER.DBACCESS_DENIED_ERROR,
    ER.ACCESS_DENIED_ERROR,
    ER.BAD_DB_ERROR,
    ER.SERVER_SHUTDOWN,
    ER.RECORD_FILE_FULL,
    ER.LOCK_WAIT_TIMEOUT,
    ER.LOCK_DEADLOCK,
    ER.OPTION_PREVENTS_STATEMENT,
    ER.QUERY_INTERRUPTED,
    1927,  # connection killed
    CR.CR_CONN_HOST_ERROR,
    CR.CR_SERVER_GONE_ERROR,
    CR.CR_SERVER_LOST,
    4031,  # MySQL 8 closed an idle connection
    9999,  # none that anybody knows
]
MYSQL_MISTAKES = [
    ER.SYNTAX_ERROR,
    ER.BAD_FIELD_ERROR,
    ER.NO_SUCH_TABLE,
    ER.DUP_ENTRY,
    ER.DATA_TOO_LONG,
    ER.SP_DOES_NOT_EXIST,
]


@pytest.mark.parametrize("code", MYSQL_PASSING)
def test_what_passes_on_mysql(code: int) -> None:
    assert passes(wrapped(pymysql.err.OperationalError(code, "what MySQL says")))


@pytest.mark.parametrize("code", MYSQL_MISTAKES)
def test_mistakes_on_mysql(code: int) -> None:
    assert not passes(wrapped(pymysql.err.OperationalError(code, "what MySQL says")))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (psycopg.OperationalError("the connection is lost"), True),
        (psycopg.InterfaceError("the connection is closed"), True),
        (psycopg.DataError("cannot contain NUL (0x00) bytes"), False),
        (psycopg.ProgrammingError('invalid connection option "colour"'), False),
        (pymysql.err.InterfaceError(0, ""), True),
        (sqlite3.ProgrammingError("Error binding parameter 1"), False),
        (sqlite3.Error("nobody has listed this"), True),
    ],
)
def test_an_error_without_a_code_is_sorted_by_its_class(error: Exception, expected: bool) -> None:
    assert passes(wrapped(error)) is expected


@pytest.mark.parametrize("error", [OSError("no route"), TimeoutError(), PoolTimeout()])
def test_what_the_system_raises_passes(error: Exception) -> None:
    assert passes(error)


@pytest.mark.parametrize(
    "error",
    [
        OverflowError("Python int too large to convert to SQLite INTEGER"),
        KeyError("x"),
        InvalidRequestError("x"),
        StatementError("expected 35 characters", "INSERT", None, ValueError("x")),
    ],
)
def test_what_no_database_raised_is_a_mistake(error: Exception) -> None:
    assert not passes(error)


def test_the_cause_counts() -> None:
    """In a savepoint a deadlock shows as a savepoint that is gone, and everything after an error as an aborted one."""
    gone = wrapped(pymysql.err.OperationalError(ER.SP_DOES_NOT_EXIST, "SAVEPOINT does not exist"))
    gone.orig.__context__ = wrapped(pymysql.err.OperationalError(ER.LOCK_DEADLOCK, "Deadlock found"))  # type: ignore[union-attr]
    gone.__context__ = gone.orig.__context__  # type: ignore[union-attr]
    assert passes(gone)
    assert was_victim(gone)
    aborted = wrapped(postgresql_error("25P02"))
    aborted.__context__ = wrapped(postgresql_error("42P01"))
    assert not passes(aborted)
    aborted.__context__ = wrapped(postgresql_error("53100"))
    assert passes(aborted)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (wrapped(pymysql.err.OperationalError(1045, "Access denied")), "Access denied"),
        (wrapped(psycopg.OperationalError("connection failed: no\nMultiple attempts\n")), "connection failed: no"),
        (wrapped(sqlite_error(13)), "what SQLite says"),
        (OSError(), "OSError"),
    ],
)
def test_the_reason_is_one_line_without_the_statement(error: Exception, reason: str) -> None:
    assert reason_of(error) == reason


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
    error = sqlite3.OperationalError("what SQLite says")
    error.sqlite_errorcode = code
    assert is_busy(error) is busy
