"""`qiyu instances`: those that belong together, as the database and Redis know them."""

from __future__ import annotations

import sys
from typing import Final

import trio
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from sqlalchemy import Connection

from qiyu.cli.options import ConfigOption
from qiyu.config import Settings, load_settings
from qiyu.errors import DatabaseTooNew, DatabaseUnavailable, PresenceUnavailable
from qiyu.logs import configure_logging
from qiyu.presence.presence import Lease, Leases, ListLeases
from qiyu.presence.redis import RedisPresence
from qiyu.storage.database import Database, database_url
from qiyu.storage.instances import Instance, list_instances
from qiyu.storage.migrate import upgrade

COLUMNS: Final = (
    "number",
    "incarnation",
    "process",
    "link",
    "version",
    "state",
    "connections",
    "rooms",
    "links",
    "lease age",
)
UNKNOWN: Final = "-"


def instances(config: ConfigOption = None) -> None:
    """List the instances that have not ended, and what each says of itself. In a pipe, separated by tabs.

    Number, incarnation, process, address of its link port, version, state, connections, rooms at home, links, and how
    long ago it renewed its lease.
    """
    settings = load_settings(config)
    configure_logging(settings.log.level, settings.log.format)
    try:
        rows = trio.run(_read_rows, settings, strict_exception_groups=True)
        leases = _read_leases(settings)
    except (DatabaseTooNew, DatabaseUnavailable, PresenceUnavailable) as exc:
        typer.echo(f"qiyu: {exc}", err=True)
        raise typer.Exit(1) from None
    lines = [_line(row, leases) for row in rows if not row.fenced]
    if sys.stdout.isatty():
        table = Table(*COLUMNS)
        for line in lines:
            table.add_row(*map(Text, line))
        Console().print(table)
    else:
        for line in lines:
            typer.echo("\t".join(line))


async def _read_rows(settings: Settings) -> list[Instance]:
    url = database_url(settings.database.url.get_secret_value(), settings.data.dir)
    async with Database.open(url) as database:
        await upgrade(database)
        return await database.read(_list)


def _list(connection: Connection) -> list[Instance]:
    return list_instances(connection)


def _read_leases(settings: Settings) -> Leases | None:
    """None where there is a single instance."""
    url = settings.redis.url.get_secret_value()
    if not url:
        return None
    presence = RedisPresence(url)
    try:
        (answer,) = presence.execute([ListLeases()])
    finally:
        presence.close()
    if isinstance(answer, PresenceUnavailable):
        raise answer
    assert isinstance(answer, Leases)  # noqa: S101  # the answer to a ListLeases
    return answer


def _line(row: Instance, leases: Leases | None) -> tuple[str, ...]:
    about = (str(row.number), str(row.incarnation), row.address)
    if leases is None:
        return (*about, *[UNKNOWN] * (len(COLUMNS) - len(about)))
    lease = leases.by_number.get(row.number)
    if lease is None or lease.incarnation != row.incarnation:
        return (*about, UNKNOWN, UNKNOWN, "no lease", *[UNKNOWN] * 4)
    return (*about, *_of_lease(lease), f"{leases.ages_ms[row.number] / 1000:.1f} s")


def _of_lease(lease: Lease) -> tuple[str, ...]:
    state = "stopping" if lease.is_draining else "serving"
    return lease.link_address, lease.version, state, str(lease.connections), str(lease.rooms), str(lease.links)
