"""Brings the tables up to date, with Alembic and the files in migrations/."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from qiyu.errors import DatabaseTooNew, DatabaseUnavailable
from qiyu.storage.database import Database

VERSION_TABLE: Final = "t_qiyu_version"
"""Where Alembic keeps the revision: a database may be shared with others who use Alembic."""

LOCK_SECONDS: Final = 60
_OLD_VERSION_TABLE: Final = "alembic_version"  # until 0002
_FIRST_TABLE: Final = "t_living_room"  # of ours, so that it is seen whose that table is
_LOCK_KEY: Final = int.from_bytes(b"qiyu-db", "big")  # any 63-bit number that others do not use


logging.getLogger("alembic").setLevel(logging.WARNING)  # whoever calls `upgrade` knows better what to tell


async def upgrade(database: Database) -> tuple[str | None, str]:
    """Bring the tables up to date; returns the revision before (None: there were none) and after.

    Several processes may do it at once: one does, and the others wait. Raises DatabaseTooNew, DatabaseUnavailable.
    """
    return await database.run_long(_upgrade)


async def current(database: Database) -> str | None:
    """The revision of the tables; None where there are none."""
    return await database.read(_revision)


def latest() -> str:
    """The revision that this version of qiyu needs."""
    return _head(_scripts())


def migrations_folder() -> Path:
    """The folder of the migrations: inside the package where that is installed, beside src/ in a checkout."""
    package = Path(str(resources.files("qiyu")))
    for folder in (package / "migrations", package.parent.parent / "migrations"):
        if (folder / "env.py").is_file():
            return folder
    raise FileNotFoundError(f"no migrations in {package} nor beside it: this installation is not complete")


def _upgrade(connection: Connection) -> tuple[str | None, str]:
    scripts = _scripts()
    head = _head(scripts)
    with _alone(connection):
        if _has_old_version_table(connection):
            connection.execute(text(f"ALTER TABLE {_OLD_VERSION_TABLE} RENAME TO {VERSION_TABLE}"))
        before = _revision(connection)
        _refuse_newer(before, scripts)
        if before != head:
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    return before, head


@contextmanager
def _alone(connection: Connection) -> Iterator[None]:
    """Keep other processes waiting. On SQLite, the transaction does that already (BEGIN IMMEDIATE)."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
    if connection.dialect.name != "mysql":
        yield
        return
    # Of the whole server, not of one database; and of the connection, for DDL commits as it goes.
    lock = {"name": "qiyu-" + hashlib.sha256(str(connection.engine.url.database).encode()).hexdigest()[:32]}
    if not connection.scalar(text("SELECT GET_LOCK(:name, :seconds)"), {**lock, "seconds": LOCK_SECONDS}):
        raise DatabaseUnavailable(f"another process has been changing the tables for {LOCK_SECONDS} s")
    try:
        yield
    finally:
        connection.execute(text("SELECT RELEASE_LOCK(:name)"), lock)


def _revision(connection: Connection) -> str | None:
    table = _OLD_VERSION_TABLE if _has_old_version_table(connection) else VERSION_TABLE
    return MigrationContext.configure(connection, opts={"version_table": table}).get_current_revision()


def _has_old_version_table(connection: Connection) -> bool:
    """Whether the revision is still where Alembic keeps it of itself."""
    tables = inspect(connection)
    if tables.has_table(VERSION_TABLE):
        return False
    return tables.has_table(_OLD_VERSION_TABLE) and tables.has_table(_FIRST_TABLE)


def _refuse_newer(revision: str | None, scripts: ScriptDirectory) -> None:
    if revision is not None and revision not in {script.revision for script in scripts.walk_revisions()}:
        raise DatabaseTooNew(
            f"the database is at revision {revision}, which this version of qiyu does not know (it knows up to "
            f"{_head(scripts)}): a newer version has changed it. Install that one, or go back to a backup."
        )


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(migrations_folder()).replace("%", "%%"))
    return config


def _head(scripts: ScriptDirectory) -> str:
    head = scripts.get_current_head()
    assert head is not None  # noqa: S101  # the folder is not empty
    return head
