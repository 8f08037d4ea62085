"""Which commands there are. Each is imported only when it is to run; what `--help` says of it stands here."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

import typer
from typer.core import TyperCommand, TyperGroup

COMMANDS: Final = {
    "serve": "Run the server until SIGINT or SIGTERM; a second one cuts the good-byes to its clients short.",
    "chat": "Send each line of input as a message, and print the messages that come, as `10002 (nick): text`.",
    "token": "Print login tokens, one `userId token` line for each user; they open connections for five minutes.",
    "config": "Print the settings in force, and where each came from; secrets are masked.",
    "user": "Accounts, and who may go live.",
    "room": "The living rooms that are open.",
    "instances": "List the instances that have not ended, and what each says of itself. In a pipe, separated by tabs.",
    "db": "The tables of the database.",
}
"""In the order of `--help`: the first line of what each command says of itself."""


class Commands(TyperGroup):
    """The group of all commands. `qiyu.cli.NAME` has the command or the `typer.Typer` of that name."""

    # Typed loosely, for click's classes are Typer's own in newer versions, and click's in others.

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        """Their names."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        """What help, completion and "did you mean" need to know of a command; nothing is imported for it."""
        summary = COMMANDS.get(cmd_name)
        return None if summary is None else TyperCommand(cmd_name, help=summary)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """The command that `args` names, ready to run."""
        name, found, rest = super().resolve_command(ctx, args)
        return name, found and load(str(found.name)), rest


def load(name: str) -> Any:
    """Import a command."""
    found = getattr(import_module(f"qiyu.cli.{name}"), name)
    if isinstance(found, typer.Typer):
        return typer.main.get_command(found)
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    alone.command(name)(found)
    return typer.main.get_command(alone)
