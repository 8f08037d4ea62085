"""The command line: `qiyu COMMAND`, or `python -m qiyu COMMAND`."""

from __future__ import annotations

import sys

from qiyu.signals import keep_early_signals

keep_early_signals(sys.argv[1:])  # before all else: it takes a second to import a server

from importlib.metadata import version  # noqa: E402
from typing import Annotated  # noqa: E402

import typer  # noqa: E402

from qiyu.cli.commands import Commands  # noqa: E402
from qiyu.errors import ConfigError, DatabaseUnavailable, StartupError  # noqa: E402

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
