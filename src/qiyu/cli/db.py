"""`qiyu db`: the tables."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, NoReturn, TypeVar

import trio
import typer

from qiyu.cli.options import ConfigOption
from qiyu.config import Settings, load_settings
from qiyu.errors import DatabaseTooNew, DatabaseUnavailable
from qiyu.logs import configure_logging
from qiyu.storage import migrate
from qiyu.storage.backup import NotInAFile
from qiyu.storage.backup import backup as make_backup
from qiyu.storage.database import Database, database_url

T = TypeVar("T")

db = typer.Typer(name="db", add_completion=False, help="The tables of the database.", no_args_is_help=True)


@db.command()
def upgrade(config: ConfigOption = None) -> None:
    """Bring the tables up to date, or make them; prints the revision before and after."""
    before, after = _with_database(load_settings(config), migrate.upgrade)
    typer.echo(f"{after} (was up to date)" if before == after else f"{before or 'empty'} -> {after}")


@db.command()
def current(config: ConfigOption = None) -> None:
    """Print the revision of the tables, and whether it is the one that this version needs.

    The exit status is 0 if it is, and 1 if not.
    """
    revision = _with_database(load_settings(config), migrate.current)
    needed = migrate.latest()
    if revision != needed:
        typer.echo(f"{revision or 'empty'} (needed: {needed})")
        raise typer.Exit(1)
    typer.echo(f"{revision} (up to date)")


@db.command()
def backup(
    file: Annotated[Path, typer.Argument(help="The file to write, which must not be there yet.")],
    config: ConfigOption = None,
) -> None:
    """Copy the database into a file while the server runs (SQLite; servers have tools of their own).

    To restore it, stop the server, put the file where the database was, and start it.
    """
    settings = load_settings(config)
    url = database_url(settings.database.url.get_secret_value(), settings.data.dir)
    try:
        size = make_backup(url, file)
    except NotInAFile as exc:
        tool = "pg_dump" if str(exc) == "postgresql" else "mariadb-dump or mysqldump"
        _fail(f"the database is on a server: back it up with {tool}")
    except FileExistsError as exc:
        _fail(f"{exc.filename2 or exc.filename}: is there already, and is left as it is")
    except OSError as exc:
        _fail(f"{exc.filename}: {exc.strerror or exc}")
    except DatabaseUnavailable as exc:
        _fail(str(exc))
    typer.echo(f"wrote {file} ({size} bytes)")


def _fail(reason: str) -> NoReturn:
    typer.echo(f"qiyu: {reason}", err=True)
    raise typer.Exit(1)


def _with_database(settings: Settings, ask: Callable[[Database], Awaitable[T]]) -> T:
    configure_logging(settings.log.level, settings.log.format)
    url = database_url(settings.database.url.get_secret_value(), settings.data.dir)

    async def opened() -> T:
        async with Database.open(url) as database:
            return await ask(database)

    try:
        return trio.run(opened, strict_exception_groups=True)
    except (DatabaseTooNew, DatabaseUnavailable) as exc:
        _fail(str(exc))
