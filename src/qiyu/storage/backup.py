"""A copy of an SQLite database, made while a server writes to it."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy import make_url

from qiyu.errors import DatabaseUnavailable


class NotInAFile(Exception):
    """The database is one of a server, which has its own tools."""


def backup(url: str, target: Path) -> int:
    """Copy the database of a URL (`database_url`) into a new file, as it is at one moment; returns the bytes of it.

    The file is there when it is whole, and for its owner alone. Raises `NotInAFile`, `DatabaseUnavailable`,
    FileExistsError, and other OSErrors of the target.
    """
    where = make_url(url)
    if where.get_backend_name() != "sqlite" or where.database is None:
        raise NotInAFile(where.get_backend_name())
    source = Path(where.database).absolute()
    unfinished = target.with_name(f"{target.name}.unfinished")
    os.close(os.open(unfinished, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    try:
        _copy(source, unfinished)
        os.link(unfinished, target)  # unlike a rename, it replaces nothing
    finally:
        unfinished.unlink()
    return target.stat().st_size


def _copy(source: Path, target: Path) -> None:
    try:
        with (
            closing(sqlite3.connect(f"{source.as_uri()}?mode=ro", uri=True)) as reading,
            closing(sqlite3.connect(target)) as writing,
        ):
            # In one step, and so of one moment; with a write-ahead log, whoever writes does not wait for it.
            reading.backup(writing, pages=-1)
            writing.execute("PRAGMA journal_mode = DELETE")  # one file, with no log beside it
    except sqlite3.Error as exc:
        raise DatabaseUnavailable(f"database {source}: {exc}") from exc
