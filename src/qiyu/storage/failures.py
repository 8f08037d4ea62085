"""Which errors of a driver pass or can be mended, and which are mistakes in the code or in a row.

Mistakes are known: a wrong statement, a value that a column cannot hold, a constraint that does not. Whatever else a
driver raises (no connection, no lock, no room, no right, or something that nobody has listed) is for whoever runs the
server to see to, or passes by itself, and becomes `DatabaseUnavailable`. So an error that is not known is told in one
line, and what failed is tried again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from enum import Enum, auto
from typing import Final

import sqlalchemy.exc
from sqlalchemy.exc import DBAPIError

# Primary result codes, https://sqlite.org/rescode.html
_SQLITE_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_SQLITE_MISTAKES: Final = frozenset(
    {
        sqlite3.SQLITE_ERROR,  # the statement, or a table that is not there
        sqlite3.SQLITE_TOOBIG,
        sqlite3.SQLITE_CONSTRAINT,
        sqlite3.SQLITE_MISMATCH,
        sqlite3.SQLITE_MISUSE,
        sqlite3.SQLITE_RANGE,
    }
)

# SQLSTATE classes and codes, https://www.postgresql.org/docs/current/errcodes-appendix.html
_POSTGRESQL_MISTAKES: Final = (
    "0A",  # not supported
    "20",
    "21",
    "22",  # data
    "23",  # constraint
    "24",
    "26",
    "27",
    "2D",
    "34",
    "38",
    "39",
    "3B",  # no such savepoint
    "3F",
    "42",  # syntax, no such table or column
    "44",
    "54",  # more than a statement can hold
)
# Of these classes, but for whoever runs the server: a kept plan that is no longer valid, rights.
_POSTGRESQL_PASSING: Final = frozenset({"0A000", "42501"})
# Says only that a statement before it has failed, which is among the causes.
_POSTGRESQL_ABORTED: Final = "25P02"
# Beside deadlocks: a plan that was kept, of a table that was changed meanwhile.
_POSTGRESQL_VICTIM: Final = frozenset({"40001", "40P01", "0A000"})

# https://mariadb.com/kb/en/mariadb-error-codes/
_MYSQL_DEADLOCK: Final = 1213
_MYSQL_MISTAKES: Final = frozenset(
    {
        1048,  # NULL
        1050,
        1051,
        1054,  # no such column
        1060,
        1061,
        1062,  # there already
        1064,  # syntax
        1065,
        1071,
        1072,
        1091,
        1101,
        1109,
        1110,
        1118,
        1136,
        1146,  # no such table
        1149,
        1153,  # more than a packet may have
        1166,
        1170,
        1215,
        1216,
        1217,
        1264,  # number out of range
        1265,
        1292,
        1305,  # no such savepoint
        1364,
        1365,
        1366,  # not in the character set
        1390,
        1406,  # too long
        1451,
        1452,
        1586,
        1690,
        4025,
    }
)


class _Kind(Enum):
    PASSES = auto()
    MISTAKE = auto()
    UNKNOWN = auto()


def passes(error: BaseException) -> bool:
    """Whether it passes by itself, or whoever runs the server can mend it."""
    if isinstance(error, OSError | sqlalchemy.exc.TimeoutError):
        return True
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    causes = list(_causes(error))
    kinds = {_kind(each) for each in causes}
    if _Kind.PASSES in kinds:
        return True
    return bool(causes) and _Kind.MISTAKE not in kinds


def was_victim(error: BaseException) -> bool:
    """Whether the database has undone the transaction to settle a deadlock: then it can be run again as it was."""
    return any(_sqlstate(each) in _POSTGRESQL_VICTIM or _mysql_code(each) == _MYSQL_DEADLOCK for each in _causes(error))


def is_busy(error: sqlite3.OperationalError) -> bool:
    """Whether another connection holds the lock of the database."""
    return _sqlite_code(error) in _SQLITE_BUSY


def reason_of(error: BaseException) -> str:
    """What the driver said, on one line, without the statement and its values."""
    if isinstance(error, DBAPIError):
        error = error.orig or error
    code = _mysql_code(error)
    text = str(error.args[1]) if code and len(error.args) > 1 else str(error)
    return text.strip().partition("\n")[0] or type(error).__name__


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The driver's error, and those it came from: in a savepoint, a deadlock shows as a savepoint that is gone."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, DBAPIError):
            yield link.orig or link
        elif isinstance(link, sqlite3.Error):
            yield link
        link = link.__context__


def _kind(error: BaseException) -> _Kind:
    if code := _sqlite_code(error):
        return _Kind.MISTAKE if code in _SQLITE_MISTAKES else _Kind.PASSES
    if state := _sqlstate(error):
        if state == _POSTGRESQL_ABORTED:
            return _Kind.UNKNOWN
        is_mistake = state.startswith(_POSTGRESQL_MISTAKES) and state not in _POSTGRESQL_PASSING
        return _Kind.MISTAKE if is_mistake else _Kind.PASSES
    if code := _mysql_code(error):
        return _Kind.MISTAKE if code in _MYSQL_MISTAKES else _Kind.PASSES
    # The driver raised it by itself: by the classes of PEP 249.
    name = {each.__name__ for each in type(error).__mro__}
    return (
        _Kind.MISTAKE
        if name & {"DataError", "IntegrityError", "NotSupportedError", "ProgrammingError"}
        else _Kind.UNKNOWN
    )


def _sqlite_code(error: BaseException) -> int:
    code = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF if isinstance(code, int) else 0


def _sqlstate(error: BaseException) -> str:
    if _mysql_code(error):  # which has one as well, and says less with it
        return ""
    # The second is for those that psycopg has no class for.
    state = getattr(error, "sqlstate", None) or getattr(getattr(error, "diag", None), "sqlstate", None)
    return state if isinstance(state, str) else ""


def _mysql_code(error: BaseException) -> int:
    code = error.args[0] if error.args else 0
    return code if isinstance(code, int) else 0
