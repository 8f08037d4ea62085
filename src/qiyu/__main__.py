"""The command line: `qiyu COMMAND`, or `python -m qiyu COMMAND`."""

from __future__ import annotations

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from qiyu.cli.commands import Commands
from qiyu.errors import ConfigError, DatabaseUnavailable, StartupError

cli = typer.Typer(
    name="qiyu",
    cls=Commands,
    help="A live-streaming instant-messaging server: chat rooms and direct messages over TCP and WebSocket.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # they show local variables, secrets among them
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"qiyu {version('qiyu')}")
        raise typer.Exit


@cli.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Options that stand before the command."""


def main() -> None:
    """Run one command. What whoever runs it did wrong is a line on stderr and exit status 2, not a traceback."""
    try:
        cli()
    except ConfigError as exc:
        typer.echo(f"qiyu: {exc}", err=True)
        sys.exit(2)
    except (StartupError, DatabaseUnavailable) as exc:
        typer.echo(f"qiyu: {exc}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
