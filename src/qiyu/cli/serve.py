"""`qiyu serve`: the server."""

from __future__ import annotations

import contextlib
import gc
import signal
from typing import Final

import structlog
import trio
import typer

from qiyu.cli.options import ConfigOption
from qiyu.config import Settings, load_settings
from qiyu.logs import configure_logging
from qiyu.run import serve as serve_app

GC_THRESHOLDS: Final = (20_000, 20, 20)
"""With 50 senders of direct messages, 20 each without a receipt: 30 thousand receipts a second instead of 22."""

log = structlog.get_logger(__name__)


def serve(config: ConfigOption = None) -> None:
    """Run the server until SIGINT or SIGTERM; a second one cuts the good-byes to its clients short."""
    settings = load_settings(config)
    configure_logging(settings.log.level, settings.log.format, background=True)
    _warn_of_unused(settings)
    _tune_gc()
    trio.run(_serve_until_signalled, settings, strict_exception_groups=True)


async def _serve_until_signalled(settings: Settings) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        await serve_app(settings, signals, _announce)


def _tune_gc() -> None:
    """Look for cycles more rarely: a message lives for seconds, so Python's own thresholds go through all that are.

    Nothing of a message is in a cycle once it is settled; what libraries leave is collected all the same.
    """
    gc.collect()
    gc.freeze()  # what is there by now stays
    gc.set_threshold(*GC_THRESHOLDS)


def _announce(line: str) -> None:
    with contextlib.suppress(OSError):  # whoever started it may have closed our output: no reason not to serve
        typer.echo(line)


def _warn_of_unused(settings: Settings) -> None:
    for warning in settings.warnings:
        log.warning(warning)
    if settings.redis.url.get_secret_value():
        log.warning("this version does not use a setting", setting="redis.url")
