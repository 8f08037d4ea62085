"""Builds every room of the house from the settings; run.py runs them, and stops them in order."""

from __future__ import annotations

import ipaddress
import itertools
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Final, TypeVar, cast

import trio
from quart_trio import QuartTrio

from qiyu.accounts.accounts import AccountRules, Accounts
from qiyu.accounts.passwords import Passwords, RunInThread
from qiyu.config import Settings, hosts_of
from qiyu.drivers.clock import read_clock
from qiyu.drivers.event_source import best_source
from qiyu.drivers.handshakes import HandshakeRules
from qiyu.drivers.homes import HomesDriver
from qiyu.drivers.http import HttpFront, HttpRules
from qiyu.drivers.http_connection import HttpTimes
from qiyu.drivers.links import LinkDriver
from qiyu.drivers.listener import Listener, address_of, bind, capacity
from qiyu.drivers.membership import AnchorsElsewhere
from qiyu.drivers.message_pruner import MessagePruner
from qiyu.drivers.message_reader import MessageReader
from qiyu.drivers.message_writer import MessageWriter
from qiyu.drivers.poller import Poller
from qiyu.drivers.presence import PresenceAsker
from qiyu.drivers.readiness import Readiness
from qiyu.drivers.tls import Certificate
from qiyu.errors import StartupError
from qiyu.handlers.dispatch import Dispatcher
from qiyu.handlers.registry import CLIENT_STATES, VIEWER_STATES, rtmp_door, tcp_door, ws_door
from qiyu.living.directory import RoomDirectory
from qiyu.living.engines import Engines
from qiyu.living.events import RoomEvents
from qiyu.living.history import History
from qiyu.living.moderation import Moderation
from qiyu.living.restrictions import Restrictions
from qiyu.living.rooms import LivingRooms
from qiyu.living.stream_keys import StreamKeys
from qiyu.living.streams import StreamRules, Streams
from qiyu.logs import waiting_bytes
from qiyu.metrics import Gauge, Metrics
from qiyu.model import InstanceId, Instant, Network
from qiyu.presence.presence import Lease
from qiyu.presence.redis import RedisPresence
from qiyu.protocol import accelerator
from qiyu.protocol.packet import APP_ID
from qiyu.protocol.rtmp import RtmpLimits
from qiyu.routing.endpoint import Door, Endpoint
from qiyu.routing.hub import Hub
from qiyu.routing.inflight import InFlight
from qiyu.routing.msgid import MsgIds
from qiyu.routing.outbox import Outboxes, OutboxLimits
from qiyu.routing.router import Router
from qiyu.services.acks import Acks
from qiyu.services.catch_up import CatchUp
from qiyu.services.chat import Chat
from qiyu.services.cluster import Cluster
from qiyu.services.deferral import Deferral, RememberingDeferral
from qiyu.services.delivery import Delivery
from qiyu.services.departures import Departures
from qiyu.services.entering import Entering
from qiyu.services.holdings import Holdings
from qiyu.services.leases import LeaseKeeper, LeaseRules
from qiyu.services.limits import Limits, Rates
from qiyu.services.links import Links
from qiyu.services.message_queue import MessageQueue
from qiyu.services.node import Node
from qiyu.services.origins import Origins
from qiyu.services.presence_queue import PresenceQueue
from qiyu.services.pressure import Pressure
from qiyu.services.publishers import Publishers
from qiyu.services.redelivery import Redelivery, RetryRules
from qiyu.services.refusals import Refusals
from qiyu.services.replay import Replays
from qiyu.services.rings import Rings
from qiyu.services.rooms_here import RoomsHere
from qiyu.services.sessions import SessionRules, Sessions
from qiyu.services.settlement import Settlement
from qiyu.services.sign_outs import EndedSessions, SignOuts
from qiyu.services.tokens import Tokens
from qiyu.services.trusted_clock import TrustedClock
from qiyu.services.viewers import Viewers
from qiyu.storage.database import Database
from qiyu.storage.messages import InboxRules
from qiyu.web.app import make_admin_app, make_app
from qiyu.web.context import EXTENSION, WebContext

SILENT_HEARTBEATS: Final = 2
PING_HEARTBEATS: Final = 1.25  # who sends its heartbeats in time is never asked
ADMIN_CONNECTIONS: Final = 100  # what watches over a server has few
DAY_SECONDS: Final = 86_400
HOUR_SECONDS: Final = 3_600
HOUR_MS: Final = 1000 * HOUR_SECONDS

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Several:
    """What is done for an instance among others, each of them a task."""

    cluster: Cluster
    asker: PresenceAsker
    links: LinkDriver
    homes: HomesDriver
    anchors: AnchorsElsewhere


@dataclass(frozen=True, slots=True)
class App:
    """One instance with its sockets, which are bound already: whoever connects waits until the app runs."""

    node: Node
    dispatcher: Dispatcher
    poller: Poller
    reader: MessageReader
    writer: MessageWriter
    prune: Callable[[], Awaitable[None]]
    living_rooms: LivingRooms
    moderation: Moderation
    accounts: Accounts
    web: QuartTrio
    sockets: dict[str, list[socket.socket]]
    """By `tcp`, `ws`, `http`; `rtmp` where pictures come in, `admin` where that has a port, and `cluster` among several
    instances."""
    listeners: dict[str, list[Listener]]
    """By the name of their sockets; `http`, `admin` and `cluster` have none."""
    certificate: Certificate | None
    """None where no listener speaks TLS."""
    several: Several | None
    """None for an instance that is alone."""
    anchor_away_seconds: float
    http: HttpFront
    admin: HttpFront | None
    """None where what it shows is on the HTTP port."""
    about: dict[str, str]
    """What the log says of it at the start: where the settings and the data are, and whether C reads ACKs."""

    @property
    def web_context(self) -> WebContext:
        """What the HTTP application works with."""
        return cast("WebContext", self.web.extensions[EXTENSION])


def build_app(
    settings: Settings,
    node: Node,
    database: Database,
    living_rooms: LivingRooms,
    moderation: Moderation,
    sockets: dict[str, list[socket.socket]],
    trusted: TrustedClock,
    certificate: Certificate | None = None,
) -> App:
    """Everything around the core; `sockets` are those of `bind_all`."""
    dispatcher = Dispatcher(node)
    poller = Poller(dispatcher, best_source(), read_clock)
    poller.handshakes.rules = handshake_rules(settings)
    reader = MessageReader(dispatcher, poller, database, _history_ms(settings), read_clock)
    pruner = MessagePruner(
        database,
        kept_ms=_kept_ms(settings),
        inbox_ms=settings.messages.inbox_days * DAY_SECONDS * 1000,
        believed_ms=lambda: trusted.read(read_clock()),
    )
    writer = MessageWriter(
        node.message_queue,
        database,
        InboxRules(settings.messages.inbox, settings.messages.known_receivers_only),
        reader.wake,
        read_clock,
        forget_below=lambda: pruner.forget_below,
        committed=node.metrics.commit_seconds.observe,
    )
    accounts = Accounts(
        database, Passwords(_few_threads()), _account_rules(settings), trusted.read, node.sign_outs.tell
    )
    web = make_app(_web_context(settings, node, database, accounts, living_rooms, moderation, sockets))
    return App(
        node=node,
        dispatcher=dispatcher,
        poller=poller,
        reader=reader,
        writer=writer,
        prune=pruner.run,
        living_rooms=living_rooms,
        moderation=moderation,
        accounts=accounts,
        web=web,
        sockets=sockets,
        listeners=_listeners(settings, sockets, poller, node, certificate),
        certificate=certificate,
        several=_several(settings, node, database, living_rooms, dispatcher, poller, sockets),
        anchor_away_seconds=settings.living.anchor_away_seconds,
        admin=_admin(settings, web, node.metrics),
        http=HttpFront(web, http_rules(settings), node.metrics, context_for(certificate, "http")),
        about={
            "settings": ", ".join(settings.files) or "defaults and environment",
            "database": database.address,
            "accelerator": accelerator.STATE,
        },
    )


def _several(
    settings: Settings,
    node: Node,
    database: Database,
    living_rooms: LivingRooms,
    dispatcher: Dispatcher,
    poller: Poller,
    sockets: dict[str, list[socket.socket]],
) -> Several | None:
    cluster = node.cluster
    if cluster is None:
        return None
    lease = _lease(settings, cluster.me, sockets)
    cluster.lease = lambda: lease
    living_rooms.tell_closed = cluster.told_closed
    presence = RedisPresence(settings.redis.url.get_secret_value())
    return Several(
        cluster,
        PresenceAsker(cluster, presence),
        LinkDriver(cluster, settings.cluster.secret.get_secret_value(), read_clock),
        HomesDriver(cluster, database, dispatcher, poller),
        AnchorsElsewhere(cluster, node.room_directory),
    )


def _lease(settings: Settings, me: InstanceId, sockets: dict[str, list[socket.socket]]) -> Lease:
    """What other instances are told of this one."""
    return Lease(
        number=me.number,
        incarnation=me.incarnation,
        link_address=settings.cluster.public_address or address_of(sockets["cluster"][0]),
        tcp_address=settings.tcp.public_address or _reachable(sockets["tcp"][0]),
        tcp_port=sockets["tcp"][0].getsockname()[1],
        ws_address="" if settings.ws.public_url else _reachable(sockets["ws"][0]),
        ws_port=sockets["ws"][0].getsockname()[1],
        ws_url=settings.ws.public_url,
        version=version("qiyu"),
    )


def _reachable(sock: socket.socket) -> str:
    """Where clients find it, if its address says so: not one of this machine alone, nor all that it has."""
    address = ipaddress.ip_address(sock.getsockname()[0].partition("%")[0])
    return "" if address.is_loopback or address.is_unspecified else address_of(sock)


def build_node(
    settings: Settings,
    secret: str,
    largest_msg_id: int = 0,
    instance_number: int = 0,
    *,
    joined_as: InstanceId | None = None,
    joined_at: Instant | None = None,
) -> Node:
    """Everything that does not wait. All msgIds will be of this instance, and above `largest_msg_id`.

    `joined_as` is which of several instances it is, and `joined_at` since when; None for one that is alone.
    """
    limits = settings.limits
    ack = settings.ack
    metrics = Metrics()
    checks = Limits(rates(settings), metrics, http_proxies(settings))
    in_flight = InFlight(ack.window, metrics)
    hub = Hub(in_flight)
    outboxes = Outboxes(OutboxLimits(limits.outbox_soft_bytes, limits.outbox_hard_bytes, limits.queued_bytes))
    router = Router(outboxes, in_flight, metrics)
    redelivery = Redelivery(router, in_flight, RetryRules(ack.retry_seconds, ack.attempts, ack.deliveries), metrics)
    rings = Rings(hub, settings.messages.recent_bytes)
    deferral = Deferral() if joined_as is None else RememberingDeferral()
    delivery = Delivery(hub, router, redelivery, rings, deferral)
    queue = MessageQueue(Settlement(delivery, metrics), settings.messages.queue, metrics)
    queue.shares.proxies = http_proxies(settings)
    replays = Replays(delivery, deferral, queue, metrics)
    msg_ids = MsgIds(instance_number)
    msg_ids.start_above(largest_msg_id)
    rules = session_rules(settings)
    living = settings.living
    events = RoomEvents(hub, router, deliveries=living.enter_deliveries_per_second, send_events=living.events)
    restrictions = Restrictions(events)
    directory = RoomDirectory(hub, events, restrictions, require_open_room=living.require_open_room)
    refusals = Refusals()
    sessions = Sessions(hub, in_flight, events, replays, CLIENT_STATES, rules, metrics, refusals)
    ended = EndedSessions(settings.auth.token_seconds)
    catch_up = CatchUp(rings, delivery, queue, msg_ids, outboxes.limits, metrics)
    streams = Streams(_stream_rules(settings), metrics, partial(events.picture, APP_ID))
    viewers = Viewers(
        streams,
        VIEWER_STATES,
        metrics,
        login_seconds=limits.login_seconds,
        need_no_login=settings.video.open,
    )
    publishers = Publishers(streams, limits.login_seconds, metrics)

    def everybody() -> Iterator[Endpoint]:
        return itertools.chain(sessions, viewers, publishers)

    holdings = Holdings(
        {
            "outboxes": lambda: outboxes.bytes,
            "message queue": lambda: queue.held_bytes,
            "rings": lambda: rings.held_bytes,
            "in flight": lambda: in_flight.held_bytes,
            "timers": lambda: redelivery.held_bytes,
            "put aside": lambda: deferral.held_bytes,
            "log": waiting_bytes,
        },
        everybody,
    )
    directory.is_on_air = streams.is_on_air
    directory.on_close += [streams.close_room, viewers.close_room]
    chat = Chat(queue, rings, msg_ids, restrictions, limits.content_chars, metrics, checks)
    entering = Entering(sessions, directory, restrictions, catch_up, metrics)
    cluster = None
    if joined_as is not None and joined_at is not None:
        rooms = RoomsHere(hub, rings, delivery, queue, catch_up, sessions, msg_ids, metrics, joined_at)
        cluster = Cluster(
            joined_as,
            joined_at,
            metrics,
            hub,
            sessions,
            replays,
            chat,
            directory,
            rooms,
            PresenceQueue(metrics),
            LeaseKeeper(joined_as, _lease_rules(settings), joined_at.monotonic),
            Links(joined_as, metrics),
        )
        cluster.take_part(entering, queue)
    return Node(
        hub=hub,
        in_flight=in_flight,
        outboxes=outboxes,
        sessions=sessions,
        departures=Departures(),
        chat=chat,
        message_queue=queue,
        acks=Acks(in_flight, queue, replays, metrics),
        replays=replays,
        catch_up=catch_up,
        entering=entering,
        rings=rings,
        redelivery=redelivery,
        room_directory=directory,
        room_events=events,
        restrictions=restrictions,
        tokens=Tokens(secret, settings.auth.token_seconds, ended),
        sign_outs=SignOuts(ended, hub, sessions, metrics),
        stream_keys=StreamKeys(secret, settings.video.key_hours * HOUR_SECONDS),
        streams=streams,
        publishers=publishers,
        viewers=viewers,
        metrics=metrics,
        limits=checks,
        pressure=Pressure(outboxes, holdings, everybody, metrics),
        origins=Origins(settings.ws.allowed_origins),
        refusals=refusals,
        ws_path=settings.ws.path,
        cluster=cluster,
    )


def make_certificate(settings: Settings) -> Certificate | None:
    """What the listeners that speak TLS do it with; raises `StartupError` where its files are no good."""
    tls = settings.tls
    return Certificate(Path(tls.certificate), Path(tls.key), tls.listeners) if tls.certificate else None


def context_for(certificate: Certificate | None, listener: str) -> ssl.SSLContext | None:
    """What a listener speaks TLS with; None where it does not."""
    return None if certificate is None else certificate.context(listener)


def handshake_rules(settings: Settings) -> HandshakeRules:
    """How many, and how long."""
    return HandshakeRules(settings.tls.handshakes, settings.tls.handshake_seconds)


def rates(settings: Settings) -> Rates:
    """How much may be done in a second."""
    limits = settings.limits
    return Rates(
        messages_per_second=limits.messages_per_second,
        messages_burst=limits.messages_burst,
        packets_per_second=limits.packets_per_second,
        packets_burst=limits.packets_burst,
        room_messages_per_second=limits.room_messages_per_second,
        logins_per_second=limits.logins_per_second,
    )


def http_proxies(settings: Settings) -> tuple[Network, ...]:
    """Peers with many clients each, to which no limit for an address applies."""
    return tuple(map(ipaddress.ip_network, settings.http.trusted_proxies))


def session_rules(settings: Settings) -> SessionRules:
    """What is due of clients by the clock."""
    heartbeat = settings.session.heartbeat_seconds
    return SessionRules(settings.limits.login_seconds, SILENT_HEARTBEATS * heartbeat, PING_HEARTBEATS * heartbeat)


def _web_context(
    settings: Settings,
    node: Node,
    database: Database,
    accounts: Accounts,
    living_rooms: LivingRooms,
    moderation: Moderation,
    sockets: dict[str, list[socket.socket]],
) -> WebContext:
    http = settings.http
    return WebContext(
        accounts=accounts,
        living_rooms=living_rooms,
        room_directory=node.room_directory,
        restrictions=node.restrictions,
        moderation=moderation,
        history=History(database, node.hub, _history_ms(settings)),
        tokens=node.tokens,
        hub=node.hub,
        metrics=node.metrics,
        gauges={
            "sessions": Gauge("Users who are logged in.", lambda: len(node.hub)),
            "messages_waiting": Gauge(
                "Messages that the database has not stored yet.", lambda: len(node.message_queue)
            ),
            "deliveries_in_flight": Gauge(
                "Deliveries that are sent and not acknowledged.", lambda: node.in_flight.deliveries
            ),
            "outbox_bytes": Gauge("Bytes owed to all clients together.", lambda: node.outboxes.bytes),
            "held_bytes": Gauge(
                "Bytes owed to clients and held for them, about: what `queued_bytes` bounds.",
                lambda: node.pressure.holdings.total,
            ),
            "pictures": Gauge("Rooms that are on air.", lambda: node.streams.pushes),
            "viewers": Gauge("Connections that watch a picture.", lambda: node.streams.viewers),
            **_gauges(node.cluster),
        },
        clock=read_clock,
        ping=Readiness(database, node.message_queue, node.cluster).check,
        cluster=node.cluster,
        tcp_port=sockets["tcp"][0].getsockname()[1],
        ws_port=sockets["ws"][0].getsockname()[1],
        tcp_public_address=settings.tcp.public_address,
        ws_public_url=settings.ws.public_url.rstrip("/"),
        ws_path=settings.ws.path,
        stream_keys=node.stream_keys,
        streams=node.streams,
        engine_pushes=Engines(node.streams),
        are_pictures_open=settings.video.open,
        tls_listeners=frozenset(settings.tls.listeners if settings.tls.certificate else ()),
        rtmp_port=settings.rtmp.port,
        rtmp_public_url=settings.rtmp.public_url,
        play_url=settings.video.play_url,
        engines=tuple(map(ipaddress.ip_network, settings.video.engines)),
        origins=Origins(http.cors_origins),
        is_registration_open=settings.accounts.registration == "open",
        shows_inside=not settings.admin.port,
        path=http.path,
        trusted_proxies=http_proxies(settings),
        takes_login=node.limits.takes_login,
        secure_cookies=http.secure_cookies,
        same_site=http.same_site,
        session_seconds=http.session_days * DAY_SECONDS,
    )


def _admin(settings: Settings, web: QuartTrio, metrics: Metrics) -> HttpFront | None:
    if not settings.admin.port:
        return None
    app = make_admin_app(cast("WebContext", web.extensions[EXTENSION]), web)
    return HttpFront(app, HttpRules(connections=ADMIN_CONNECTIONS), metrics)


def http_rules(settings: Settings) -> HttpRules:
    """How much there may be at once over HTTP, and for how long."""
    http = settings.http
    return HttpRules(
        connections=http.connections,
        connections_per_address=http.connections_per_address,
        requests=http.requests,
        times=HttpTimes(
            http.keep_alive_seconds, http.request_seconds, http.answer_seconds, settings.tls.handshake_seconds
        ),
        proxies=http_proxies(settings),
    )


def _account_rules(settings: Settings) -> AccountRules:
    return AccountRules(
        session_days=settings.http.session_days,
        sessions=settings.http.sessions_per_account,
        token_seconds=settings.auth.token_seconds,
    )


def _gauges(cluster: Cluster | None) -> dict[str, Gauge]:
    """Those of several instances; 0 for one that is alone, so that dashboards and alerts fit both."""

    def gauge(text: str, value: Callable[[Cluster], int]) -> Gauge:
        return Gauge(text, lambda: value(cluster) if cluster is not None else 0)

    return {
        "links": gauge("Other instances that this one has a link with.", lambda each: len(each.links)),
        "homes": gauge("Rooms that are at home here.", lambda each: each.homes.here),
        "pins_unwritten": gauge(
            "Users here whom other instances cannot find, for Redis does not answer.", lambda each: each.pins.unwritten
        ),
        "kicks_unanswered": gauge(
            "Sessions on other instances that are to end, and may not have ended.", lambda each: len(each.kicks)
        ),
        "forwards_unanswered": gauge(
            "Messages on their way to the homes of their rooms.", lambda each: len(each.forwarding)
        ),
        "directs_unannounced": gauge(
            "Receivers elsewhere who are yet to be told of a direct message.", lambda each: len(each.directs)
        ),
        "presence_requests_waiting": gauge("Requests that Redis is yet to be asked.", lambda each: len(each.presence)),
    }


def _lease_rules(settings: Settings) -> LeaseRules:
    lease_seconds = settings.cluster.lease_seconds
    return LeaseRules(lease_seconds, 0.3 * lease_seconds, min(1.0, lease_seconds))


def _stream_rules(settings: Settings) -> StreamRules:
    video = settings.video
    return StreamRules(viewer_bytes=video.viewer_bytes, gop_bytes=video.gop_bytes, silent_seconds=video.silent_seconds)


def _history_ms(settings: Settings) -> int:
    return settings.messages.history_days * DAY_SECONDS * 1000


def _kept_ms(settings: Settings) -> int:
    """A message is kept for the history, and to tell a resend by its clientMsgId; 0: for ever."""
    history_ms = _history_ms(settings)
    return history_ms and max(history_ms, settings.messages.client_msg_id_hours * HOUR_MS)


def _few_threads() -> RunInThread:
    """A thread for each node: each hash of a password takes one for itself, and tens of megabytes."""
    limiter = trio.CapacityLimiter(os.cpu_count() or 1)

    async def run_in_thread(work: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(work, limiter=limiter)

    return run_in_thread


def bind_all(settings: Settings) -> dict[str, list[socket.socket]]:
    """The sockets of `tcp`, `ws` and `http`. Raises `StartupError` where an address cannot be listened on."""
    sockets: dict[str, list[socket.socket]] = {}
    try:
        for name, section in (("tcp", settings.tcp), ("ws", settings.ws), ("http", settings.http)):
            sockets[name] = bind(name, hosts_of(section.host), section.port)
        if settings.rtmp.port:
            sockets["rtmp"] = bind("rtmp", hosts_of(settings.rtmp.host), settings.rtmp.port)
        if settings.admin.port:
            sockets["admin"] = bind("admin", hosts_of(settings.admin.host), settings.admin.port)
        if settings.redis.url.get_secret_value():
            sockets["cluster"] = bind("cluster", hosts_of(settings.cluster.host), settings.cluster.port)
    except StartupError:
        for bound in sockets.values():
            for sock in bound:
                sock.close()
        raise
    return sockets


def doors(settings: Settings, node: Node) -> dict[str, Door]:
    """What is spoken on each listener of connections."""
    body_bytes = settings.limits.body_bytes
    return {
        "tcp": tcp_door(node, body_bytes),
        "ws": ws_door(node, body_bytes),
        "rtmp": rtmp_door(node, RtmpLimits()),
    }


def introducing_proxies(settings: Settings) -> dict[str, tuple[Network, ...]]:
    """For each listener, the networks whose connections begin with a PROXY protocol header."""
    named = {"tcp": settings.tcp.proxy_protocol, "ws": settings.ws.proxy_protocol, "rtmp": ()}
    return {name: tuple(map(ipaddress.ip_network, networks)) for name, networks in named.items()}


def _listeners(
    settings: Settings,
    sockets: dict[str, list[socket.socket]],
    poller: Poller,
    node: Node,
    certificate: Certificate | None,
) -> dict[str, list[Listener]]:
    room = capacity(settings.limits.connections, settings.http.connections)
    proxies = introducing_proxies(settings)
    listeners = {
        name: [
            Listener(sock, door, poller, room, node.metrics, tls=context_for(certificate, name), proxies=proxies[name])
            for sock in sockets.get(name, ())
        ]
        for name, door in doors(settings, node).items()
    }
    for listener in itertools.chain.from_iterable(listeners.values()):
        listener.per_address = settings.limits.connections_per_address
        listener.many_clients = http_proxies(settings)
        listener.is_spent = lambda address: node.limits.is_spent(address, read_clock())
    return listeners
