"""`qiyu user`: accounts, and who may go live. It works on the database itself, whether a server runs or not."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Final, NamedTuple, TypeAlias, TypeVar

import trio
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from qiyu.accounts.accounts import Accounts
from qiyu.accounts.passwords import Passwords
from qiyu.cli.options import ConfigOption
from qiyu.config import Settings, load_settings
from qiyu.drivers.clock import read_clock
from qiyu.errors import CallRefused, DatabaseTooNew, DatabaseUnavailable
from qiyu.logs import configure_logging
from qiyu.storage.database import Database, database_url
from qiyu.storage.migrate import upgrade
from qiyu.storage.users import TAGS, VIP, User, list_users

T = TypeVar("T")

PAGE: Final = 1000
COLUMNS: Final = ("userId", "name", "nickName", "tags")

NameArgument: TypeAlias = Annotated[str, typer.Argument(help="The name that the account logs in with.")]
TagArgument: TypeAlias = Annotated[str, typer.Argument(help=f"What the user is: {' or '.join(sorted(TAGS))}.")]

user = typer.Typer(name="user", add_completion=False, help="Accounts, and who may go live.", no_args_is_help=True)


class _Opened(NamedTuple):
    """What a command works with."""

    accounts: Accounts
    database: Database


@user.command()
def add(
    name: NameArgument,
    *,
    vip: Annotated[bool, typer.Option("--vip", help="The user may go live.")] = False,
    nick_name: Annotated[str, typer.Option("--nick-name", help="The name that others see, if not the same.")] = "",
    avatar: Annotated[str, typer.Option("--avatar", help="The address of their picture.")] = "",
    config: ConfigOption = None,
) -> None:
    """Add an account, and print its user id.

    The password is asked for on a terminal; in a pipe it is the first line of the input.
    """
    new_password = _read_password()

    async def work(opened: _Opened) -> int:
        tags = [VIP] if vip else []
        return await opened.accounts.add(name, new_password, nick_name, avatar, tags=tags, now=read_clock())

    typer.echo(_run(config, work))


@user.command()
def tag(name: NameArgument, tag: TagArgument, config: ConfigOption = None) -> None:
    """Give a user a tag; a running server knows it at once."""

    async def work(opened: _Opened) -> bool:
        return await opened.accounts.tag((await opened.accounts.find_by_name(name)).id, tag)

    if not _run(config, work):
        typer.echo(f"{name} had the tag {tag} already", err=True)


@user.command()
def untag(name: NameArgument, tag: TagArgument, config: ConfigOption = None) -> None:
    """Take a tag from a user; a running server knows it at once."""

    async def work(opened: _Opened) -> bool:
        return await opened.accounts.untag((await opened.accounts.find_by_name(name)).id, tag)

    if not _run(config, work):
        typer.echo(f"{name} did not have the tag {tag}", err=True)


@user.command("list")
def list_all(config: ConfigOption = None) -> None:
    """List the accounts: a table on a terminal; in a pipe one line each, with tabs between."""

    async def work(opened: _Opened) -> list[User]:
        found: list[User] = []
        while page := await opened.database.read(
            partial(list_users, after_id=found[-1].id if found else 0, limit=PAGE)
        ):
            found += page
        return found

    rows = [(str(each.id), each.name, each.nick_name, ",".join(sorted(each.tags))) for each in _run(config, work)]
    if sys.stdout.isatty():
        table = Table(*COLUMNS)
        for row in rows:
            table.add_row(*map(Text, row))  # as text: a name may look like markup
        Console().print(table)
    else:
        for row in rows:
            typer.echo("\t".join(row))


@user.command()
def password(name: NameArgument, config: ConfigOption = None) -> None:
    """Change a user's password, and end every HTTP session that was opened with the old one, and what those opened.

    The password is asked for on a terminal; in a pipe it is the first line of the input.
    """
    new_password = _read_password()

    async def work(opened: _Opened) -> None:
        await opened.accounts.set_password((await opened.accounts.find_by_name(name)).id, new_password, read_clock())

    _run(config, work)


def _read_password() -> str:
    # Never an argument: those are seen by everybody on the machine, and kept by shells.
    if sys.stdin.isatty():
        return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    return sys.stdin.readline().rstrip("\r\n")


def _run(config: Path | None, work: Callable[[_Opened], Awaitable[T]]) -> T:
    settings = load_settings(config)
    configure_logging(settings.log.level, settings.log.format)
    try:
        return trio.run(_with_database, settings, work, strict_exception_groups=True)
    except (CallRefused, DatabaseTooNew, DatabaseUnavailable) as exc:
        typer.echo(f"qiyu: {exc}", err=True)
        raise typer.Exit(1) from None


async def _with_database(settings: Settings, work: Callable[[_Opened], Awaitable[T]]) -> T:
    url = database_url(settings.database.url.get_secret_value(), settings.data.dir)
    async with Database.open(url) as database:
        await upgrade(database)
        return await work(_Opened(Accounts(database, Passwords(trio.to_thread.run_sync)), database))
