"""The installation's secret: the configured one, or the one that the server made and keeps in its data folder."""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from qiyu.config.settings import Settings
from qiyu.config.types import SECRET_CHARS
from qiyu.errors import ConfigError, StartupError

SECRET_FILE: Final = "secret"  # noqa: S105  # the name of a file


def installation_secret(settings: Settings) -> tuple[str, bool]:
    """The secret that signs login tokens, and whether it was made just now.

    Raises what `load_or_create_secret` raises.
    """
    configured = settings.auth.secret.get_secret_value()
    return (configured, False) if configured else load_or_create_secret(settings.data.dir)


def existing_secret(settings: Settings) -> str:
    """The secret that a server with these settings has. Raises `ConfigError` where there is none yet.

    To make one here would help nobody: the server, in its own folder, would not know it.
    """
    folder = settings.data.dir
    if not settings.auth.secret.get_secret_value() and not (folder / SECRET_FILE).exists():
        raise ConfigError(
            f"no secret in {folder}/: run this in the folder where the server runs, once it has been started, "
            "or set [auth] secret"
        )
    return installation_secret(settings)[0]


def load_or_create_secret(data_dir: Path) -> tuple[str, bool]:
    """The installation's secret from the data folder, and whether it was made just now.

    Processes that start at once agree on one secret. Raises ConfigError where the file is not fit for use,
    StartupError where the folder or the file cannot be read or written.
    """
    path = data_dir / SECRET_FILE
    try:
        with suppress(FileNotFoundError):
            return _read_secret(path), False
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        created = _create_secret(path)
        return _read_secret(path), created
    except OSError as error:
        at = error.filename or path
        raise StartupError(f"{at}: {error.strerror or error} (the secret is to be kept in {path})") from error


def _read_secret(path: Path) -> str:
    # Not blocking, for it may be a pipe: then whoever waits for the secret would wait for ever.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(handle).st_mode
        if not stat.S_ISREG(mode):
            raise ConfigError(f"{path}: is not a file")
        content = os.read(handle, 4096)
    finally:
        os.close(handle)
    if mode & 0o077:
        raise ConfigError(
            f"{path}: others on this machine can read or write the secret (mode {stat.S_IMODE(mode):04o}). "
            f"Run: chmod 600 {path}, or delete it if it may have been read: the next start makes a new one."
        )
    try:
        secret = content.decode("ascii").strip()
    except UnicodeDecodeError:
        secret = ""
    if len(secret) < SECRET_CHARS:
        raise ConfigError(
            f"{path}: expected a secret of at least {SECRET_CHARS} characters. "
            "Delete it: the next start makes a new one (login tokens not used yet become void)."
        )
    return secret


def _create_secret(path: Path) -> bool:
    """Put a new secret at `path` unless there is one by now; whether it was put.

    It is written aside and linked into place: a link, unlike a rename, never replaces what another process
    put there first, and whoever finds the file finds all of it.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:  # noqa: PTH123
            file.write(secrets.token_urlsafe(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            path.hardlink_to(draft)
        except FileExistsError:
            return False
        _sync_folder(path.parent)
        return True
    finally:
        draft.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    # A file survives a power cut only once its folder's entry is on the disk too.
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
