"""`qiyu serve`: the server."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Final

import structlog
import trio
import typer

from qiyu.cli.options import ConfigOption
from qiyu.config import Settings, load_settings, require_safe_secret
from qiyu.errors import ConfigError
from qiyu.logs import configure_logging
from qiyu.run import serve as serve_app
from qiyu.signals import stopped_early

GC_THRESHOLDS: Final = (20_000, 20, 20)
"""With 50 senders of direct messages, 20 each without a receipt: 30 thousand receipts a second instead of 22."""

log = structlog.get_logger(__name__)


def serve(config: ConfigOption = None) -> None:
    """Run the server until SIGINT or SIGTERM; a second one cuts the good-byes to its clients short.

    SIGHUP has it read its settings again: origins, limits and the level of the log count at once, and the log says what
    wants a restart.
    """
    settings = load_settings(config)
    configure_logging(settings.log.level, settings.log.format, background=True)
    _warn_of_unused(settings)
    _tune_gc()
    trio.run(_serve_until_signalled, settings, config, strict_exception_groups=True)


async def _serve_until_signalled(settings: Settings, config: Path | None) -> None:
    with (
        trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as stops,
        trio.open_signal_receiver(signal.SIGHUP) as hangups,
    ):
        if stopped_early():
            log.info("stopped before it served")
            return
        async with aclosing(read_again(hangups, config, had_terminal=_has_terminal())) as reloads:
            await serve_app(settings, stops, _announce, reloads=reloads)


async def read_again(
    hangups: AsyncIterator[int], config: Path | None, *, had_terminal: bool
) -> AsyncGenerator[Settings, None]:
    """The settings as they are after each SIGHUP; a version with a mistake in it is told in the log, and left out.

    A terminal that is closed sends SIGHUP to what runs in it. That is no wish to go on.
    """
    async for _ in hangups:
        if had_terminal and not _has_terminal():
            log.info("the terminal was closed")
            os.kill(os.getpid(), signal.SIGTERM)
            continue
        try:
            settings = load_settings(config)
            require_safe_secret(settings)
        except ConfigError as exc:
            mistakes = str(exc).splitlines()
            log.error("the settings have a mistake, and stay as they were", mistakes=mistakes)  # noqa: TRY400
            continue
        for warning in settings.warnings:
            log.warning(warning)
        yield settings


def _has_terminal() -> bool:
    try:
        return os.isatty(sys.__stdin__.fileno()) if sys.__stdin__ is not None else False
    except (OSError, ValueError):
        return False


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
