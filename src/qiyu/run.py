"""Runs what app.py builds, and stops it in order."""

from __future__ import annotations

import itertools
import random
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from typing import Final

import structlog
import trio

from qiyu.app import App, bind_all, build_app, build_node, context_for, make_certificate
from qiyu.config import Settings, installation_secret, require_safe_secret
from qiyu.drivers.clock import read_clock, run_clock
from qiyu.drivers.http import GRACEFUL_SECONDS, run_http
from qiyu.drivers.instance import claim_instance, release_instance, watch_instance
from qiyu.drivers.listener import address_of
from qiyu.drivers.living import run_living_rooms, run_moderation, run_sign_outs, store_last_counts
from qiyu.drivers.orphans import reap_orphans
from qiyu.drivers.stopping import Stop
from qiyu.drivers.tls import Certificate
from qiyu.errors import Fenced
from qiyu.living.rooms import LivingRooms
from qiyu.model import InstanceId
from qiyu.reload import reload_all
from qiyu.routing.msgid import time_of
from qiyu.services.trusted_clock import TrustedClock
from qiyu.storage.database import Database, database_url
from qiyu.storage.lock import serving_alone
from qiyu.storage.messages import largest_msg_id
from qiyu.storage.migrate import upgrade

DRAIN_SECONDS: Final = 3.0  # for clients to read their LOGOUT; with all else, the process is gone within 5
LOSE_SECONDS: Final = 1.0  # the same, where another server has taken this one's place
RETRY_AFTER_MS: Final = (500, 3000)  # a drained client comes back somewhere in between
FLUSH_SECONDS: Final = 1.0  # for what was accepted, at the stop

log = structlog.get_logger(__name__)


async def serve(
    settings: Settings,
    stops: AsyncIterator[object],
    announce: Callable[[str], None],
    *,
    reloads: AsyncIterator[Settings] | None = None,
    task_status: trio.TaskStatus[dict[str, str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until `stops` yields; a second one cuts the good-byes short, and one during the start ends that at once.

    What of the settings can change while it serves (reload.py) is as the last of `reloads` has it.

    `announce` is called with one line a listener once all of them are ready, and `task_status` with `host:port` by
    `tcp`, `ws`, `http` and `rtmp`. Raises `ConfigError` or `StartupError` before anything is served, and `Fenced` where
    another server has taken this one's place.
    """
    stop = Stop(stops)
    work = partial(_serve, settings, stop, announce, reloads, task_status=task_status)
    log.info("stopped" if await stop.unless_told(work) else "stopped before it served")


async def _serve(
    settings: Settings,
    stop: Stop,
    announce: Callable[[str], None],
    reloads: AsyncIterator[Settings] | None,
    *,
    task_status: trio.TaskStatus[dict[str, str]],
) -> None:
    require_safe_secret(settings)
    secret, was_made = installation_secret(settings)
    if was_made:
        log.warning("made a secret for login tokens, and keep it in the data folder", folder=str(settings.data.dir))
    certificate = make_certificate(settings)
    url = database_url(settings.database.url.get_secret_value(), settings.data.dir)
    with serving_alone(url), closing_all(bind_all(settings)) as sockets:
        # From here on it is known that nobody who serves is disturbed by a start that fails.
        async with Database.open(url, synchronous=settings.database.synchronous) as database:
            before, after = await upgrade(database)
            if before != after:
                log.info("brought the database up to date", before=before, after=after)
            number = settings.instance.number
            mine = await claim_instance(
                database,
                number=None if number < 0 else number,
                alone=not settings.redis.url.get_secret_value(),
                now_ms=read_clock().unix_ms,
            )
            try:
                app = await _build(settings, secret, database, mine, sockets, certificate)
            except trio.Cancelled:
                await release_instance(database, mine)
                raise
            reloading = None if reloads is None else partial(reload_all, app, settings, reloads)
            await _run(app, database, mine, stop, announce, reloading, task_status=task_status)


@contextmanager
def closing_all(sockets: dict[str, list[socket.socket]]) -> Iterator[dict[str, list[socket.socket]]]:
    """Close the sockets at the end, those that nobody listens on among them."""
    try:
        yield sockets
    finally:
        for bound in sockets.values():
            for sock in bound:
                sock.close()


async def _build(
    settings: Settings,
    secret: str,
    database: Database,
    mine: InstanceId,
    sockets: dict[str, list[socket.socket]],
    certificate: Certificate | None,
) -> App:
    largest = await database.read(largest_msg_id)  # of this moment: whoever served before writes no more
    node = build_node(settings, secret, largest, mine.number)
    living_rooms = LivingRooms(database, node.room_directory)
    now = read_clock()
    await living_rooms.refresh(now)
    trusted = TrustedClock(now, time_of(largest) if largest else 0)
    app = build_app(settings, node, database, living_rooms, sockets, trusted, certificate)
    await app.moderation.refresh(now)
    await app.accounts.refresh_ended(now)
    return app


async def _run(
    app: App,
    database: Database,
    mine: InstanceId,
    stop: Stop,
    announce: Callable[[str], None],
    reloading: Callable[[], Awaitable[None]] | None,
    *,
    task_status: trio.TaskStatus[dict[str, str]],
) -> None:
    addresses = {name: address_of(bound[0]) for name, bound in app.sockets.items()}
    stopping = trio.Event()
    fenced: list[Fenced] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(app.poller.run)
        nursery.start_soon(run_clock, app.poller, app.dispatcher)
        nursery.start_soon(reap_orphans)

        def end(why: Fenced) -> None:
            fenced.append(why)
            nursery.start_soon(_lose, app, nursery.cancel_scope)

        nursery.start_soon(watch_instance, database, mine, end)
        nursery.start_soon(app.writer.run)
        nursery.start_soon(app.reader.run)
        nursery.start_soon(app.prune)
        rooms = (app.living_rooms, app.dispatcher, app.poller, read_clock, app.anchor_away_seconds)
        nursery.start_soon(run_living_rooms, *rooms)
        nursery.start_soon(run_moderation, app.moderation, read_clock)
        nursery.start_soon(run_sign_outs, app.accounts, read_clock)
        http_ended = trio.Event()

        async def run_web(task_status: trio.TaskStatus[object]) -> None:
            await run_http(app.http, app.sockets["http"], stopping.wait, task_status=task_status)
            http_ended.set()

        await nursery.start(run_web)
        if app.admin is not None:
            await nursery.start(run_http, app.admin, app.sockets["admin"], stopping.wait)
        async with trio.open_nursery() as listening:
            for listener in itertools.chain.from_iterable(app.listeners.values()):
                listening.start_soon(listener.run)
            for name, bound in app.sockets.items():
                announce(f"{name:4} listening on {addresses[name]}" + _more(bound[1:]) + _with_tls(app, name))
            log.info("started", version=version("qiyu"), **app.about, **addresses)
            if reloading is not None:
                listening.start_soon(reloading)
            stop.serves = True
            task_status.started(addresses)
            await stop.told.wait()
            listening.cancel_scope.cancel()
        nursery.start_soon(_cut_short, stop, nursery.cancel_scope)
        stopping.set()
        await _drain(app)
        with trio.move_on_after(GRACEFUL_SECONDS):
            await http_ended.wait()
        await _flush(app)
        nursery.cancel_scope.cancel()
    if fenced:
        raise fenced[0]
    await store_last_counts(app.living_rooms, read_clock())
    await release_instance(database, mine)


def _more(bound: list[socket.socket]) -> str:
    return "".join(f" and {address_of(sock)}" for sock in bound)


def _with_tls(app: App, name: str) -> str:
    return "" if context_for(app.certificate, name) is None else " with TLS"


async def _drain(app: App) -> None:
    """Tell every client to go, and give those that listen time to."""
    log.info("stopping", connections=len(app.poller))
    app.dispatcher.drain(partial(random.randint, *RETRY_AFTER_MS))
    with trio.move_on_after(DRAIN_SECONDS):
        await app.poller.drained()


async def _lose(app: App, scope: trio.CancelScope) -> None:
    """Another server has taken this one's place: send everybody there, and end."""
    app.dispatcher.lose(partial(random.randint, *RETRY_AFTER_MS))
    with trio.move_on_after(LOSE_SECONDS):
        await app.poller.drained()
    scope.cancel()


async def _flush(app: App) -> None:
    """Write what was accepted: those who have a receipt need not care, but not everything asks for one."""
    with trio.move_on_after(FLUSH_SECONDS) as flushing:
        await app.writer.flushed()
    if flushing.cancelled_caught:
        log.warning("not all messages could be stored in time", left=len(app.node.message_queue))


async def _cut_short(stop: Stop, scope: trio.CancelScope) -> None:
    await stop.told_again.wait()
    scope.cancel()
