"""One server at a time on an SQLite database.

The operating system holds the lock, and lets go of it when the process is gone, however that went. Other processes may
open the database all the same: `qiyu user`, `qiyu db` and backups do not serve.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from sqlalchemy import make_url

from qiyu.errors import StartupError

SUFFIX: Final = ".lock"
_PID_BYTES: Final = 20


@contextmanager
def serving_alone(url: str) -> Iterator[None]:
    """Keep other servers off the database at `url`, where that is SQLite's. Raises StartupError with the other's pid.

    The lock is on a file beside the database, of the same name with .lock at its end. It stays there: to remove it
    would let two have one each.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database or "uri" in parsed.query:
        yield
        return
    database = Path(parsed.database).resolve()
    path = database.with_name(database.name + SUFFIX)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise StartupError(f"{exc.filename or path}: {exc.strerror or exc}") from exc
    try:
        _lock(fd, database)
        yield
    finally:
        os.close(fd)


def _lock(fd: int, database: Path) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StartupError(
            f"another server (process {_pid_in(fd)}) uses {database}: stop that one first, or set another [data] dir"
        ) from None
    except OSError as exc:
        raise StartupError(f"{database}: cannot be locked for one server alone: {exc.strerror or exc}") from exc
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)


def _pid_in(fd: int) -> str:
    pid = b""
    with suppress(OSError):
        pid = os.pread(fd, _PID_BYTES, 0).strip()
    return pid.decode() if pid.isdigit() else "unknown"
