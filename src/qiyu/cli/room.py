"""`qiyu room`: the living rooms that are open."""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final, TypeVar

import trio
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from qiyu.cli.options import ConfigOption
from qiyu.config import load_settings
from qiyu.errors import CallRefused, DatabaseTooNew, DatabaseUnavailable
from qiyu.logs import configure_logging
from qiyu.storage.database import Database, database_url
from qiyu.storage.living_rooms import LivingRoom, close_room, find_room, list_rooms
from qiyu.storage.migrate import upgrade

T = TypeVar("T")

COLUMNS: Final = ("id", "anchor", "type", "watching", "likes", "since", "name")

room = typer.Typer(name="room", add_completion=False, help="The living rooms that are open.", no_args_is_help=True)


@room.command("list")
def list_(config: ConfigOption = None) -> None:
    """List the open rooms: number, anchor, type, members, likes, since when, name. In a pipe, separated by tabs."""

    async def work(database: Database) -> list[LivingRoom]:
        found: list[LivingRoom] = []
        while page := await database.read(list_rooms, after_id=found[-1].id if found else 0):
            found += page
        return found

    rows = [_row(each) for each in _run(config, work)]
    if sys.stdout.isatty():
        table = Table(*COLUMNS)
        for row in rows:
            table.add_row(*map(Text, row))  # as text: a name may look like markup
        Console().print(table)
    else:
        for row in rows:
            typer.echo("\t".join(row))


@room.command()
def close(
    number: Annotated[int, typer.Argument(help="The room's number.", min=1)], config: ConfigOption = None
) -> None:
    """Close a room, whoever its anchor is. A server that runs tells its members within a second or two."""

    async def work(database: Database) -> None:
        found = await database.read(find_room, number)
        now_ms = time.time_ns() // 1_000_000
        if found is None or not await database.run(
            close_room, room_id=number, anchor_id=found.anchor_id, now_ms=now_ms
        ):
            raise CallRefused(404, f"room {number}: there is no such open room")

    _run(config, work)


def _row(each: LivingRoom) -> tuple[str, ...]:
    since = datetime.fromtimestamp(each.start_time / 1000).astimezone().isoformat(" ", "seconds")
    numbers = (each.id, each.anchor_id, each.type, each.watch_num, each.good_num)
    return (*map(str, numbers), since, each.room_name)


def _run(config: Path | None, work: Callable[[Database], Awaitable[T]]) -> T:
    settings = load_settings(config)
    configure_logging(settings.log.level, settings.log.format)
    url = database_url(settings.database.url.get_secret_value(), settings.data.dir)

    async def opened() -> T:
        async with Database.open(url) as database:
            await upgrade(database)
            return await work(database)

    try:
        return trio.run(opened, strict_exception_groups=True)
    except (CallRefused, DatabaseTooNew, DatabaseUnavailable) as exc:
        typer.echo(f"qiyu: {exc}", err=True)
        raise typer.Exit(1) from None
