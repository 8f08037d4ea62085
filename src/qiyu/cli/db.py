"""`qiyu db`: the tables."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio
import typer

from qiyu.cli.options import ConfigOption
from qiyu.config import Settings, load_settings
from qiyu.errors import DatabaseTooNew, DatabaseUnavailable
from qiyu.logs import configure_logging
from qiyu.storage import migrate
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


def _with_database(settings: Settings, ask: Callable[[Database], Awaitable[T]]) -> T:
    configure_logging(settings.log.level, settings.log.format)
    url = database_url(settings.database.url.get_secret_value(), settings.data.dir)

    async def opened() -> T:
        async with Database.open(url) as database:
            return await ask(database)

    try:
        return trio.run(opened, strict_exception_groups=True)
    except (DatabaseTooNew, DatabaseUnavailable) as exc:
        typer.echo(f"qiyu: {exc}", err=True)
        raise typer.Exit(1) from None
