"""`qiyu serve`: the server."""

from __future__ import annotations

import contextlib
import signal

import structlog
import trio
import typer

from qiyu.app import serve as serve_app
from qiyu.cli.options import ConfigOption
from qiyu.config import Settings, load_settings
from qiyu.logs import configure_logging

log = structlog.get_logger(__name__)


def serve(config: ConfigOption = None) -> None:
    """Run the server until SIGINT or SIGTERM; a second one cuts the good-byes to its clients short."""
    settings = load_settings(config)
    configure_logging(settings.log.level, settings.log.format, background=True)
    _warn_of_unused(settings)
    trio.run(_serve_until_signalled, settings, strict_exception_groups=True)


async def _serve_until_signalled(settings: Settings) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        await serve_app(settings, signals, _announce)


def _announce(line: str) -> None:
    with contextlib.suppress(OSError):  # whoever started it may have closed our output: no reason not to serve
        typer.echo(line)


def _warn_of_unused(settings: Settings) -> None:
    if settings.redis.url.get_secret_value():
        log.warning("this version does not use a setting", setting="redis.url")
