"""From the URL in the settings to the one SQLAlchemy takes."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Final

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from qiyu.errors import ConfigError

SQLITE_FILE: Final = "qiyu.db"
EXPECTED: Final = "expected sqlite:///file, postgresql://user:password@host/name, or mysql:// or mariadb:// like it"

_SQLITE: Final = "sqlite"
_POSTGRESQL: Final = "postgresql+psycopg"
_MYSQL: Final = "mysql+pymysql"
_DRIVERS: Final = {
    "sqlite": _SQLITE,
    "sqlite+pysqlite": _SQLITE,
    "postgres": _POSTGRESQL,
    "postgresql": _POSTGRESQL,
    _POSTGRESQL: _POSTGRESQL,
    "mysql": _MYSQL,
    "mariadb": _MYSQL,
    _MYSQL: _MYSQL,
    "mariadb+pymysql": _MYSQL,
    # The drivers of version 0.1, which stand in configurations.
    "sqlite+aiosqlite": _SQLITE,
    "postgresql+asyncpg": _POSTGRESQL,
    "mysql+aiomysql": _MYSQL,
    "mariadb+aiomysql": _MYSQL,
}
# https://www.postgresql.org/docs/current/libpq-ssl.html
_SSL_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


def database_url(configured: str, data_dir: Path) -> str:
    """The URL to open for `[database] url`; an empty one is SQLite in the data folder.

    Raises ConfigError, which never shows more of a URL than its scheme.
    """
    if not configured:
        return _render(URL.create(_SQLITE, database=str(data_dir / SQLITE_FILE)))
    scheme = configured.partition("://")[0]
    driver = _DRIVERS.get(scheme)
    if driver is None:
        raise ConfigError(f"database.url: {scheme}:// is no database that qiyu knows; {EXPECTED}")
    try:
        url = make_url(configured).set(drivername=driver)
    except (ArgumentError, ValueError):  # the latter: a port that is no number
        raise ConfigError(
            f"database.url: cannot be read as a URL; {EXPECTED}. "
            "In a password, write @ as %40, : as %3A, / as %2F, ? as %3F and % as %25."
        ) from None
    if driver == _SQLITE:
        if url.database in {None, "", ":memory:"}:
            raise ConfigError("database.url: expected a file, as in sqlite:///data/qiyu.db; nothing is kept in memory")
    elif not url.database:
        raise ConfigError(f"database.url: expected the name of a database at the end; {EXPECTED}")
    return _render(_with_driver_options(url))


def _with_driver_options(url: URL) -> URL:
    backend = url.get_backend_name()
    module, extra = {"postgresql": ("psycopg", "postgresql"), "mysql": ("pymysql", "mysql")}.get(backend, ("", ""))
    if module and find_spec(module) is None:
        raise ConfigError(f"database.url: {backend} needs a driver. Run: pip install 'qiyu[{extra}]'")
    if backend == "mysql":
        return url.update_query_dict({"charset": "utf8mb4"})  # the "utf8" of MySQL has no emoji
    if backend == "postgresql":
        return _with_ssl_mode(url)
    return url


def _with_ssl_mode(url: URL) -> URL:
    if "ssl" in url.query:  # as asyncpg calls what everybody else calls sslmode
        url = url.difference_update_query(["ssl"]).update_query_dict({"sslmode": url.query["ssl"]})
    mode = url.query.get("sslmode", "prefer")
    if mode not in _SSL_MODES:
        raise ConfigError(f"database.url: sslmode={mode}: expected one of {', '.join(_SSL_MODES)}")
    return url


def _render(url: URL) -> str:
    return url.render_as_string(hide_password=False)
