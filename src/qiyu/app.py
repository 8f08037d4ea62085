"""Builds every room of the house, opens the nursery, and stops in order."""

from __future__ import annotations

import ipaddress
import os
import random
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Final, TypeVar

import structlog
import trio

from qiyu.accounts.accounts import AccountRules, Accounts
from qiyu.accounts.passwords import Passwords, RunInThread
from qiyu.config import Settings, require_safe_secret
from qiyu.drivers.clock import read_clock, run_clock
from qiyu.drivers.event_source import best_source
from qiyu.drivers.http import GRACEFUL_SECONDS, run_http
from qiyu.drivers.listener import Listener, address_of, bind, capacity
from qiyu.drivers.living import run_living_rooms, store_last_counts
from qiyu.drivers.messages import MessageStore, Retention
from qiyu.drivers.poller import Poller
from qiyu.errors import ConfigError, StartupError
from qiyu.handlers.dispatch import Dispatcher
from qiyu.living.events import RoomEvents
from qiyu.living.history import History
from qiyu.living.rooms import LivingRooms
from qiyu.metrics import Metrics
from qiyu.protocol.tcp import TcpWire
from qiyu.protocol.websocket import WebSocketWire
from qiyu.routing.hub import Hub
from qiyu.routing.inflight import InFlight
from qiyu.routing.msgid import MsgIds
from qiyu.routing.outbox import OutboxLimits
from qiyu.routing.router import Router
from qiyu.services.catch_up import CatchUp
from qiyu.services.chat import Chat
from qiyu.services.delivery import Delivery
from qiyu.services.message_queue import MessageQueue
from qiyu.services.node import Node
from qiyu.services.redelivery import Redelivery, RetryRules
from qiyu.services.replay import Replays
from qiyu.services.rings import Rings
from qiyu.services.sessions import SessionRules, Sessions
from qiyu.services.tokens import SECRET_FILE, Tokens, load_or_create_secret
from qiyu.storage.database import Database, database_url
from qiyu.storage.messages import largest_msg_id
from qiyu.storage.migrate import upgrade
from qiyu.web.app import make_app
from qiyu.web.context import WebContext

log = structlog.get_logger(__name__)

DRAIN_SECONDS: Final = 3.0  # for clients to read their LOGOUT; with all else, the process is gone within 5
RETRY_AFTER_MS: Final = (500, 3000)  # a drained client comes back somewhere in between
SILENT_HEARTBEATS: Final = 2
DAY_SECONDS: Final = 86_400
HOUR_MS: Final = 3_600_000
FLUSH_SECONDS: Final = 1.0  # for what was accepted, at the stop

T = TypeVar("T")


def installation_secret(settings: Settings) -> str:
    """The secret that signs login tokens: the configured one, or the one kept in the data folder."""
    configured = settings.auth.secret.get_secret_value()
    if configured:
        return configured
    secret, created = load_or_create_secret(settings.data.dir)
    if created:
        log.warning("made a secret for login tokens, and keep it in the data folder", folder=str(settings.data.dir))
    return secret


def existing_secret(settings: Settings) -> str:
    """The secret that a server with these settings has. Raises `ConfigError` where there is none yet.

    To make one here would help nobody: the server, in its own folder, would not know it.
    """
    folder = settings.data.dir
    if not settings.auth.secret.get_secret_value() and not (folder / SECRET_FILE).exists():
        raise ConfigError(
            f"no secret in {folder}/: run this in the folder where the server runs, once it has been started, "
            "or set [auth] secret"
        )
    return installation_secret(settings)


def outbox_limits(settings: Settings) -> OutboxLimits:
    """What any session may be owed."""
    return OutboxLimits(settings.limits.outbox_soft_bytes, settings.limits.outbox_hard_bytes)


def build_node(settings: Settings, secret: str, database: Database, largest_msg_id: int = 0) -> Node:
    """Everything that does not wait, and the living rooms. All msgIds will be above `largest_msg_id`."""
    limits = settings.limits
    ack = settings.ack
    metrics = Metrics()
    hub = Hub()
    in_flight = InFlight(ack.window, metrics)
    router = Router(outbox_limits(settings), in_flight, metrics)
    redelivery = Redelivery(router, in_flight, RetryRules(ack.retry_seconds, ack.attempts, ack.deliveries), metrics)
    rings = Rings(hub, settings.messages.recent_bytes)
    delivery = Delivery(hub, router, redelivery, rings)
    log = MessageQueue(delivery, settings.messages.queue, metrics)
    replays = Replays(delivery, log, metrics)
    msg_ids = MsgIds(settings.instance.number)
    msg_ids.start_above(largest_msg_id)
    rules = SessionRules(limits.login_seconds, SILENT_HEARTBEATS * settings.session.heartbeat_seconds)
    living = settings.living
    events = RoomEvents(hub, router, deliveries=living.enter_deliveries_per_second, send_events=living.events)
    return Node(
        hub=hub,
        in_flight=in_flight,
        sessions=Sessions(hub, in_flight, events, replays, rules, metrics),
        chat=Chat(log, rings, msg_ids, limits.content_chars, metrics),
        message_queue=log,
        replays=replays,
        catch_up=CatchUp(rings, delivery, log, msg_ids, outbox_limits(settings), metrics),
        rings=rings,
        redelivery=redelivery,
        living_rooms=LivingRooms(database, hub, events, require_open_room=living.require_open_room),
        room_events=events,
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
    url = database_url(settings.database.url.get_secret_value(), settings.data.dir)
    async with Database.open(url, synchronous=settings.database.synchronous) as database:
        before, after = await upgrade(database)
        if before != after:
            log.info("brought the database up to date", before=before, after=after)
        node = build_node(settings, secret, database, await database.read(largest_msg_id))
        await node.living_rooms.refresh(read_clock())
        await _run(settings, node, database, stops, announce, task_status=task_status)
    log.info("stopped")


async def _run(
    settings: Settings,
    node: Node,
    database: Database,
    stops: AsyncIterator[object],
    announce: Callable[[str], None],
    *,
    task_status: trio.TaskStatus[dict[str, str]],
) -> None:
    sockets = _bind_all(settings)
    addresses = {name: address_of(bound[0]) for name, bound in sockets.items()}
    dispatcher = Dispatcher(node)
    poller = Poller(dispatcher, best_source(), read_clock, outbox_limits(settings))
    messages = MessageStore(dispatcher, poller, database, _retention(settings), read_clock)
    web = make_app(_web_context(settings, node, database, sockets))
    stopping = trio.Event()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(poller.run)
        nursery.start_soon(run_clock, poller, dispatcher)
        nursery.start_soon(messages.run)
        nursery.start_soon(run_living_rooms, node.living_rooms, dispatcher, poller, read_clock)
        http_ended = trio.Event()

        async def run_web(task_status: trio.TaskStatus[object]) -> None:
            await run_http(web, sockets["http"], stopping.wait, task_status=task_status)
            http_ended.set()

        await nursery.start(run_web)
        async with trio.open_nursery() as listening:
            for listener in _listeners(settings, sockets, poller, node.metrics):
                listening.start_soon(listener.run)
            for name, bound in sockets.items():
                announce(f"{name:4} listening on {addresses[name]}" + _more(bound[1:]))
            task_status.started(addresses)
            await anext(stops)
            listening.cancel_scope.cancel()
        nursery.start_soon(_cut_short, stops, nursery.cancel_scope)
        stopping.set()
        await _drain(poller, dispatcher)
        with trio.move_on_after(GRACEFUL_SECONDS):
            await http_ended.wait()
        await _flush(messages, node)
        nursery.cancel_scope.cancel()
    await store_last_counts(node.living_rooms)


def _web_context(
    settings: Settings, node: Node, database: Database, sockets: dict[str, list[socket.socket]]
) -> WebContext:
    http = settings.http
    return WebContext(
        accounts=Accounts(database, Passwords(_few_threads()), AccountRules(session_days=http.session_days)),
        living_rooms=node.living_rooms,
        history=History(database, node.hub, _retention(settings).history_ms),
        tokens=node.tokens,
        hub=node.hub,
        metrics=node.metrics,
        gauges={
            "sessions": lambda: len(node.hub),
            "messages_waiting": lambda: len(node.message_queue),
            "deliveries_in_flight": lambda: node.in_flight.deliveries,
        },
        clock=read_clock,
        ping=partial(database.read, _nothing),
        tcp_port=sockets["tcp"][0].getsockname()[1],
        ws_port=sockets["ws"][0].getsockname()[1],
        tcp_public_address=settings.tcp.public_address,
        ws_public_url=settings.ws.public_url,
        cors_origins=frozenset(http.cors_origins),
        trusted_proxies=tuple(map(ipaddress.ip_network, http.trusted_proxies)),
        secure_cookies=http.secure_cookies,
        session_seconds=http.session_days * DAY_SECONDS,
    )


def _retention(settings: Settings) -> Retention:
    kept = settings.messages
    return Retention(
        inbox_messages=kept.inbox,
        history_ms=kept.history_days * DAY_SECONDS * 1000,
        client_msg_id_ms=kept.client_msg_id_hours * HOUR_MS,
    )


def _nothing(_connection: object) -> None:
    """What the database is asked to see that it answers."""


def _few_threads() -> RunInThread:
    """A thread for each node: each hash of a password takes one for itself, and tens of megabytes."""
    limiter = trio.CapacityLimiter(os.cpu_count() or 1)

    async def run_in_thread(work: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(work, limiter=limiter)

    return run_in_thread


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
    room = capacity(settings.limits.connections)
    wires: dict[str, type[TcpWire | WebSocketWire]] = {"tcp": TcpWire, "ws": WebSocketWire}
    for name, wire in wires.items():
        for sock in sockets[name]:
            yield Listener(sock, partial(wire, settings.limits.body_bytes), poller, room, metrics)


def _more(bound: list[socket.socket]) -> str:
    return "".join(f" and {address_of(sock)}" for sock in bound)


async def _drain(poller: Poller, dispatcher: Dispatcher) -> None:
    """Tell every client to go, and give those that listen time to."""
    log.info("stopping", connections=len(poller))
    dispatcher.drain(partial(random.randint, *RETRY_AFTER_MS))
    with trio.move_on_after(DRAIN_SECONDS):
        await poller.drained()


async def _flush(messages: MessageStore, node: Node) -> None:
    """Write what was accepted: those who have a receipt need not care, but not everything asks for one."""
    with trio.move_on_after(FLUSH_SECONDS) as flushing:
        await messages.flushed()
    if flushing.cancelled_caught:
        log.warning("not all messages could be stored in time", left=len(node.message_queue))


async def _cut_short(stops: AsyncIterator[object], scope: trio.CancelScope) -> None:
    async for _ in stops:
        scope.cancel()
