"""Runs what app.py builds, and stops it in order."""

from __future__ import annotations

import itertools
import random
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from typing import Final

import structlog
import trio

from qiyu.app import App, Several, bind_all, build_app, build_node, context_for, make_certificate
from qiyu.config import Settings, installation_secret, require_safe_secret
from qiyu.drivers.clock import read_clock, run_clock
from qiyu.drivers.http import GRACEFUL_SECONDS, run_http
from qiyu.drivers.instance import claim_instance, release_instance, watch_instance
from qiyu.drivers.listener import address_of
from qiyu.drivers.living import run_living_rooms, run_moderation, run_sign_outs, store_last_counts
from qiyu.drivers.membership import DRAINING_SECONDS, run_membership
from qiyu.drivers.orphans import reap_orphans
from qiyu.drivers.retry import Retry
from qiyu.drivers.stopping import Stop
from qiyu.drivers.tls import Certificate
from qiyu.errors import DatabaseUnavailable, Fenced, StartupError
from qiyu.living.moderation import Moderation
from qiyu.living.rooms import LivingRooms
from qiyu.model import InstanceId
from qiyu.reload import apply
from qiyu.routing.msgid import time_of
from qiyu.services.cluster import Cluster
from qiyu.services.trusted_clock import TrustedClock
from qiyu.storage.database import Database, database_url
from qiyu.storage.lock import serving_alone
from qiyu.storage.messages import largest_msg_id
from qiyu.storage.migrate import upgrade

DRAIN_SECONDS: Final = 3.0  # for clients to read their LOGOUT; with all else, the process is gone within 5
LOSE_SECONDS: Final = 1.0  # the same, where another server has taken this one's place
RETRY_AFTER_MS: Final = (500, 3000)  # a drained client comes back somewhere in between
HAND_OVER_SECONDS: Final = 3.0  # for what is at home here to be at home elsewhere, where there are several instances
GOOD_BYE_SECONDS: Final = 1.0
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
            life = _Life(settings, secret, database, sockets, certificate, stop, announce, task_status)
            await life.live(reloads)


@contextmanager
def closing_all(sockets: dict[str, list[socket.socket]]) -> Iterator[dict[str, list[socket.socket]]]:
    """Close the sockets at the end, those that nobody listens on among them."""
    try:
        yield sockets
    finally:
        for bound in sockets.values():
            for sock in bound:
                sock.close()


class _Life:
    """A process from its start to its end: one instance; where it was fenced and others go on, one after another."""

    def __init__(
        self,
        settings: Settings,
        secret: str,
        database: Database,
        sockets: dict[str, list[socket.socket]],
        certificate: Certificate | None,
        stop: Stop,
        announce: Callable[[str], None],
        task_status: trio.TaskStatus[dict[str, str]],
    ) -> None:
        self._settings = settings
        self._secret = secret
        self._database = database
        self._sockets = sockets
        self._certificate = certificate
        self._stop = stop
        self._announce = announce
        self._task_status = task_status
        self._is_alone = not settings.redis.url.get_secret_value()
        self._serving: App | None = None

    async def live(self, reloads: AsyncIterator[Settings] | None) -> None:
        """Until it is stopped. Raises `Fenced` where another server has taken the place of one that is alone."""
        joined = await self._join()
        async with trio.open_nursery() as nursery:
            if reloads is not None:
                nursery.start_soon(self._reload, reloads)
            fenced = await self._run(*joined)
            while fenced is not None and not self._is_alone:
                log.warning("this instance joins anew")
                self._database.join_anew()
                again = await self._join_at_last()
                fenced = None if again is None else await self._run(*again)
            nursery.cancel_scope.cancel()
        if fenced is not None:
            raise fenced

    async def _reload(self, reloads: AsyncIterator[Settings]) -> None:
        async for new in reloads:
            self._settings = new if self._serving is None else apply(self._serving, self._settings, new)

    async def _join(self) -> tuple[App, InstanceId]:
        number = self._settings.instance.number
        mine = await claim_instance(
            self._database,
            number=None if number < 0 else number,
            alone=self._is_alone,
            now_ms=read_clock().unix_ms,
        )
        try:
            return await self._build(mine), mine
        except trio.Cancelled:
            await release_instance(self._database, mine)
            raise

    async def _join_at_last(self) -> tuple[App, InstanceId] | None:
        """However long the database is away; None where the process is stopped meanwhile."""
        joined: tuple[App, InstanceId] | None = None
        async with trio.open_nursery() as nursery:

            async def stop() -> None:
                await self._stop.told.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(stop)
            retry = Retry("join the other instances anew")
            while joined is None:
                try:
                    joined = await self._join()
                except (DatabaseUnavailable, StartupError) as exc:
                    await retry.failed(exc)
            retry.succeeded()
            nursery.cancel_scope.cancel()
        return joined

    async def _build(self, mine: InstanceId) -> App:
        settings, database = self._settings, self._database
        largest = await database.read(largest_msg_id)  # of this moment: whoever served alone before writes no more
        now = read_clock()
        joined_as = None if self._is_alone else mine
        node = build_node(settings, self._secret, largest, mine.number, joined_as=joined_as, joined_at=now)
        living_rooms = LivingRooms(database, node.room_directory)
        await living_rooms.refresh(now)
        trusted = TrustedClock(now, time_of(largest) if largest else 0)
        moderation = Moderation(database, node.restrictions)
        await moderation.refresh(now)
        sockets = self._sockets_of_one_life()
        app = build_app(settings, node, database, living_rooms, moderation, sockets, trusted, self._certificate)
        try:
            await app.accounts.refresh_ended(now)
        except BaseException:
            if not self._is_alone:
                _close(sockets)
            raise
        return app

    def _sockets_of_one_life(self) -> dict[str, list[socket.socket]]:
        """Whoever listens closes its socket in the end; while several may follow, those who connect wait meanwhile."""
        if self._is_alone:
            return self._sockets
        return {name: [sock.dup() for sock in bound] for name, bound in self._sockets.items()}

    async def _run(self, app: App, mine: InstanceId) -> Fenced | None:
        """Until it is stopped, or fenced: that is returned."""
        addresses = {name: address_of(bound[0]) for name, bound in app.sockets.items()}
        fenced: list[Fenced] = []
        async with trio.open_nursery() as nursery:
            doors_close, watching = trio.Event(), trio.CancelScope()

            def end(why: Fenced) -> None:
                fenced.append(why)
                doors_close.set()
                nursery.start_soon(_lose, app, nursery.cancel_scope)

            async def watch() -> None:
                with watching:
                    await watch_instance(self._database, mine, end)

            async def stop() -> None:
                await self._stop.told.wait()
                doors_close.set()

            nursery.start_soon(watch)
            _start_tasks(nursery, app, self._database)
            web = _Web(app)
            await nursery.start(web.run)
            async with trio.open_nursery() as listening:
                for listener in itertools.chain.from_iterable(app.listeners.values()):
                    listening.start_soon(listener.run)
                self._serves(app, addresses)
                listening.start_soon(stop)
                await doors_close.wait()
                listening.cancel_scope.cancel()
            self._serving = None
            if not self._stop.told.is_set():
                await trio.sleep_forever()  # until all have been told that they are lost
            _close(self._sockets)
            nursery.start_soon(_cut_short, self._stop, nursery.cancel_scope)
            web.stopping.set()
            await _drain(app)
            with trio.move_on_after(GRACEFUL_SECONDS):
                await web.ended.wait()
            await _flush(app)
            if app.several is not None and not fenced:
                watching.cancel()
                await self._go(app, mine)
                await _say_good_bye(app.several.cluster)
            nursery.cancel_scope.cancel()
        if fenced:
            return fenced[0] if not self._stop.told.is_set() or self._is_alone else None
        if app.several is None:
            await self._go(app, mine)
        return None

    async def _go(self, app: App, mine: InstanceId) -> None:
        await store_last_counts(app.living_rooms, read_clock())
        await release_instance(self._database, mine)

    def _serves(self, app: App, addresses: dict[str, str]) -> None:
        self._serving = app
        if self._stop.serves:
            log.info("serves again")
            return
        for name, bound in app.sockets.items():
            self._announce(f"{name:4} listening on {addresses[name]}" + _more(bound[1:]) + _with_tls(app, name))
        log.info("started", version=version("qiyu"), **app.about, **addresses)
        self._stop.serves = True
        self._task_status.started(addresses)


class _Web:
    """HTTP, which takes its sockets over and goes on until it is told to stop."""

    def __init__(self, app: App) -> None:
        self._app = app
        self.stopping, self.ended = trio.Event(), trio.Event()

    async def run(self, task_status: trio.TaskStatus[object]) -> None:
        app = self._app
        async with trio.open_nursery() as nursery:
            await nursery.start(run_http, app.http, app.sockets["http"], self.stopping.wait)
            if app.admin is not None:
                await nursery.start(run_http, app.admin, app.sockets["admin"], self.stopping.wait)
            task_status.started()
        self.ended.set()


def _close(sockets: dict[str, list[socket.socket]]) -> None:
    for bound in sockets.values():
        for sock in bound:
            sock.close()


def _start_tasks(nursery: trio.Nursery, app: App, database: Database) -> None:
    nursery.start_soon(app.poller.run)
    nursery.start_soon(run_clock, app.poller, app.dispatcher)
    nursery.start_soon(reap_orphans)
    nursery.start_soon(app.writer.run)
    nursery.start_soon(app.reader.run)
    nursery.start_soon(app.prune)
    rooms = (app.living_rooms, app.dispatcher, app.poller, read_clock, app.anchor_away_seconds)
    nursery.start_soon(run_living_rooms, *rooms)
    nursery.start_soon(run_moderation, app.moderation, read_clock)
    nursery.start_soon(run_sign_outs, app.accounts, read_clock)
    if app.several is not None:
        _start_several(nursery, app.several, database, app.sockets["cluster"])


def _start_several(nursery: trio.Nursery, several: Several, database: Database, sockets: list[socket.socket]) -> None:
    nursery.start_soon(several.asker.run)
    nursery.start_soon(several.homes.run)
    nursery.start_soon(several.links.call)
    for sock in sockets:
        nursery.start_soon(several.links.listen, sock)
    nursery.start_soon(run_membership, several.cluster, database, read_clock)
    nursery.start_soon(several.anchors.run)


async def _hand_over(cluster: Cluster) -> None:
    """All homes go to others, and nobody is pinned here any longer. The stop does not wait long for it."""
    with trio.move_on_after(HAND_OVER_SECONDS) as handing_over:
        while not cluster.is_drained:  # noqa: ASYNC110  # as often as it is ticked
            await trio.sleep(DRAINING_SECONDS)  # as often as it is ticked
    if handing_over.cancelled_caught:
        log.warning("not all could be handed over in time", rooms=cluster.homes.here, requests=len(cluster.presence))


async def _say_good_bye(cluster: Cluster) -> None:
    """Others need not wait for the lease of this instance to be lost."""
    gone = trio.Event()
    cluster.leave(gone.set)
    with trio.move_on_after(GOOD_BYE_SECONDS):
        await gone.wait()


def _more(bound: list[socket.socket]) -> str:
    return "".join(f" and {address_of(sock)}" for sock in bound)


def _with_tls(app: App, name: str) -> str:
    return "" if context_for(app.certificate, name) is None else " with TLS"


async def _drain(app: App) -> None:
    """Tell every client to go, and give those that listen time to."""
    log.info("stopping", connections=len(app.poller))
    if app.several is not None:
        app.several.cluster.drain()
    app.dispatcher.drain(partial(random.randint, *RETRY_AFTER_MS))
    with trio.move_on_after(DRAIN_SECONDS):
        await app.poller.drained()
    if app.several is not None:
        await _hand_over(app.several.cluster)


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
