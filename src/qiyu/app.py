"""Builds every room of the house, opens the nursery, and stops in order."""

from __future__ import annotations

import random
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Final

import structlog
import trio

from qiyu.config import Settings, require_safe_secret
from qiyu.drivers.clock import read_clock, run_clock
from qiyu.drivers.event_source import best_source
from qiyu.drivers.http import run_http
from qiyu.drivers.listener import Listener, address_of, bind
from qiyu.drivers.poller import Poller
from qiyu.errors import StartupError
from qiyu.handlers.dispatch import Dispatcher
from qiyu.metrics import Metrics
from qiyu.protocol.codec import TcpWire
from qiyu.protocol.websocket import WebSocketWire
from qiyu.routing.hub import Hub
from qiyu.routing.msgid import MsgIds
from qiyu.routing.outbox import OutboxLimits
from qiyu.routing.router import Router
from qiyu.services.chat import Chat
from qiyu.services.connections import ConnectionRules, Connections
from qiyu.services.core import Core
from qiyu.services.tokens import Tokens, load_or_create_secret
from qiyu.web.app import make_app

log = structlog.get_logger(__name__)

DRAIN_SECONDS: Final = 4.0  # for clients to read their LOGOUT; with all else, the process is gone within 5
RETRY_AFTER_MS: Final = (500, 3000)  # a drained client comes back somewhere in between
SILENT_HEARTBEATS: Final = 2


def installation_secret(settings: Settings) -> str:
    """The secret that signs login tokens: the configured one, or the one kept in the data folder."""
    configured = settings.auth.secret.get_secret_value()
    if configured:
        return configured
    secret, created = load_or_create_secret(settings.data.dir)
    if created:
        log.warning("made a secret for login tokens, and keep it in the data folder", folder=str(settings.data.dir))
    return secret


def outbox_limits(settings: Settings) -> OutboxLimits:
    """What any session may be owed."""
    return OutboxLimits(settings.limits.outbox_soft_bytes, settings.limits.outbox_hard_bytes)


def build_core(settings: Settings, secret: str) -> Core:
    """Everything that does not wait."""
    limits = settings.limits
    metrics = Metrics()
    hub = Hub()
    router = Router(outbox_limits(settings), settings.ack.window, metrics)
    rules = ConnectionRules(limits.login_seconds, SILENT_HEARTBEATS * settings.session.heartbeat_seconds)
    return Core(
        hub=hub,
        connections=Connections(hub, rules, metrics),
        chat=Chat(hub, router, MsgIds(settings.instance.number), limits.content_chars, metrics),
        tokens=Tokens(secret, settings.auth.token_seconds),
        metrics=metrics,
        allowed_origins=frozenset(settings.ws.allowed_origins),
    )


async def serve(
    settings: Settings,
    stops: AsyncIterator[object],
    announce: Callable[[str], None],
    *,
    task_status: trio.TaskStatus[dict[str, str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until `stops` yields; a second one cuts the good-byes short.

    `announce` is called with one line a listener once all of them are ready, and `task_status` with `host:port` by
    `tcp`, `ws` and `http`. Raises `ConfigError` or `StartupError` before anything listens.
    """
    require_safe_secret(settings)
    secret = installation_secret(settings)
    sockets = _bind_all(settings)
    addresses = {name: address_of(bound[0]) for name, bound in sockets.items()}
    core = build_core(settings, secret)
    dispatcher = Dispatcher(core)
    poller = Poller(dispatcher, best_source(), read_clock, outbox_limits(settings))
    stopping = trio.Event()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(poller.run)
        nursery.start_soon(run_clock, poller, dispatcher)
        await nursery.start(run_http, make_app(), sockets["http"], stopping.wait)
        async with trio.open_nursery() as listening:
            for listener in _listeners(settings, sockets, poller, core.metrics):
                listening.start_soon(listener.run)
            for name, bound in sockets.items():
                announce(f"{name:4} listening on {addresses[name]}" + _more(bound[1:]))
            task_status.started(addresses)
            await anext(stops)
            listening.cancel_scope.cancel()
        nursery.start_soon(_cut_short, stops, nursery.cancel_scope)
        stopping.set()
        await _drain(poller, dispatcher)
        nursery.cancel_scope.cancel()
    log.info("stopped")


def _bind_all(settings: Settings) -> dict[str, list[socket.socket]]:
    sockets: dict[str, list[socket.socket]] = {}
    try:
        for name, section in (("tcp", settings.tcp), ("ws", settings.ws), ("http", settings.http)):
            sockets[name] = bind(name, section.host, section.port)
    except StartupError:
        for bound in sockets.values():
            for sock in bound:
                sock.close()
        raise
    return sockets


def _listeners(
    settings: Settings, sockets: dict[str, list[socket.socket]], poller: Poller, metrics: Metrics
) -> Iterator[Listener]:
    limits = settings.limits
    wires: dict[str, type[TcpWire | WebSocketWire]] = {"tcp": TcpWire, "ws": WebSocketWire}
    for name, wire in wires.items():
        for sock in sockets[name]:
            yield Listener(sock, partial(wire, limits.body_bytes), poller, limits.connections, metrics)


def _more(bound: list[socket.socket]) -> str:
    return "".join(f" and {address_of(sock)}" for sock in bound)


async def _drain(poller: Poller, dispatcher: Dispatcher) -> None:
    """Tell every client to go, and give those that listen time to."""
    log.info("stopping", connections=len(poller))
    dispatcher.drain(partial(random.randint, *RETRY_AFTER_MS))
    with trio.move_on_after(DRAIN_SECONDS):
        await poller.drained()


async def _cut_short(stops: AsyncIterator[object], scope: trio.CancelScope) -> None:
    async for _ in stops:
        scope.cancel()
