"""Which errors of a driver pass or can be mended, and which are mistakes in the code.

What connecting, locks, full disks and missing rights raise becomes `DatabaseUnavailable`; all else (a wrong statement,
a constraint nobody expected) goes on as it is.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Final

import sqlalchemy.exc
from sqlalchemy.exc import DBAPIError

# Primary result codes, https://sqlite.org/rescode.html
_SQLITE_BUSY: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_SQLITE: Final = _SQLITE_BUSY | {
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_NOTADB,
}

# SQLSTATE classes and codes, https://www.postgresql.org/docs/current/errcodes-appendix.html
_POSTGRESQL: Final = (
    "08",  # connection
    "0A000",  # a kept plan that is no longer valid
    "25006",  # read-only
    "28",  # user or password
    "3D",  # no such database
    "40",  # deadlock, serialization
    "42501",  # rights
    "53",  # disk full, too many connections
    "55P03",  # lock not available
    "57",  # cancelled, shutting down, starting up
    "58",  # input and output
)
# Beside deadlocks: a plan that asyncpg has kept, of a table that was changed meanwhile.
_POSTGRESQL_VICTIM: Final = ("40001", "40P01", "0A000")

# https://mariadb.com/kb/en/mariadb-error-codes/
_MYSQL_DEADLOCK: Final = 1213
_MYSQL: Final = frozenset(
    {
        1021,  # disk full
        1037,  # out of memory
        1040,  # too many connections
        1044,  # rights
        1045,  # user or password
        1049,  # no such database
        1053,  # shutting down
        1114,  # table full
        1129,  # host blocked
        1130,  # host not allowed
        1142,  # rights
        1203,  # too many connections of one user
        1158,
        1159,
        1160,
        1161,  # the network
        1205,  # lock wait
        _MYSQL_DEADLOCK,
        1226,  # too many of something of one user
        1290,  # read-only
        1317,  # interrupted
        1792,  # read-only transaction
        1836,  # read-only
        1927,  # connection killed
        1969,  # took too long
        3024,  # took too long
        2002,
        2003,  # cannot connect
        2006,
        2013,  # connection lost
    }
)


def passes(error: BaseException) -> bool:
    """Whether it passes by itself, or whoever runs the server can mend it."""
    if isinstance(error, OSError | sqlalchemy.exc.TimeoutError):
        return True
    return (isinstance(error, DBAPIError) and error.connection_invalidated) or any(
        _sqlite_code(each) in _SQLITE or _sqlstate(each).startswith(_POSTGRESQL) or _mysql_code(each) in _MYSQL
        for each in _causes(error)
    )


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
    # SQLAlchemy puts the class of an asyncpg error in front.
    text = text.rpartition(">: ")[2] if text.startswith("<class ") else text
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


def _sqlite_code(error: BaseException | None) -> int:
    code = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF if isinstance(code, int) else 0


def _sqlstate(error: BaseException) -> str:
    state = getattr(error, "sqlstate", "")
    return state if isinstance(state, str) else ""


def _mysql_code(error: BaseException) -> int:
    code = error.args[0] if error.args else 0
    return code if isinstance(code, int) else 0
