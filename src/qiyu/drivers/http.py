"""Serves the HTTP application on sockets that are bound already: accepts, as many as may be, and stops in time.

How many connections there may be is bounded in all and for each address, of IPv6 for each network of 64 bits, within
which one client picks its addresses as it likes. What is over it is closed at once, and counted by the reason. The
proxies in front have many clients each: only the bound for all is theirs.
"""

from __future__ import annotations

import logging
import socket
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import structlog
import trio
from hypercorn.config import Config
from hypercorn.trio.worker_context import WorkerContext
from trio.abc import Stream

from qiyu.drivers.http_connection import Connection, HttpTimes, Served
from qiyu.drivers.http_exchange import Application, RequestLine
from qiyu.drivers.listener import Acceptor, packed
from qiyu.metrics import Metrics
from qiyu.model import Network, is_within, network_of

log = structlog.get_logger(__name__)

GRACEFUL_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class HttpRules:
    """How much may be at once; 0 means no limit."""

    connections: int = 2000
    connections_per_address: int = 200
    requests: int = 100
    times: HttpTimes = field(default_factory=HttpTimes)
    proxies: tuple[Network, ...] = ()
    """Peers with many clients each, to which the bound for each address does not apply."""


async def run_http(
    front: HttpFront,
    sockets: list[socket.socket],
    stop: Callable[[], Awaitable[None]],
    *,
    task_status: trio.TaskStatus[object] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until `stop` returns; requests under way then have a second. Takes the sockets over.

    A connection on which nothing is asked is closed after `keep_alive_seconds`. A proxy in front that keeps its own for
    longer would send a request just as it closes, and answer its client with 502.
    """
    async with trio.open_nursery() as connections:
        async with trio.open_nursery() as accepting:
            for sock in sockets:
                acceptor = Acceptor(sock, partial(front.admit, connections), lambda: len(front))
                accepting.start_soon(acceptor.run)
            task_status.started()
            await stop()
            accepting.cancel_scope.cancel()
        await front.stop()
        connections.cancel_scope.deadline = trio.current_time() + GRACEFUL_SECONDS


class HttpFront:
    """The connections of one server."""

    def __init__(self, app: Application, rules: HttpRules, metrics: Metrics, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._rules = rules
        self._metrics = metrics
        self._served = Served(
            app, rules.times, RequestLine(rules.requests, metrics), metrics, _hypercorn(), WorkerContext(None)
        )
        self._connections: set[Connection] = set()
        self._by_address: Counter[bytes] = Counter()

    def __repr__(self) -> str:
        return f"<HttpFront connections={len(self)} addresses={len(self._by_address)}>"

    def __len__(self) -> int:
        """How many connections there are."""
        return len(self._connections)

    def change(self, rules: HttpRules) -> None:
        """Rules for what comes from now on; the bounds count at once, and end nothing that is there."""
        self._rules = rules
        self._served.times = rules.times
        self._served.line.change(rules.requests)

    def admit(self, nursery: trio.Nursery, sock: socket.socket, address: Any) -> None:
        """Serve a connection that was accepted, or close it."""
        key = network_of(packed(sock.family, address[0]))
        if self._rules.connections and len(self) >= self._rules.connections:
            self._metrics.http_connections_refused += 1
            sock.close()
            return
        limit = self._rules.connections_per_address
        if limit and self._by_address[key] >= limit and not is_within(key, self._rules.proxies):
            self._metrics.http_connections_refused_address += 1
            sock.close()
            return
        self._metrics.http_connections_accepted += 1
        try:
            sock.setblocking(False)
            stream: Stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
            server = sock.getsockname()[:2]
        except OSError:  # macOS: the peer is gone already
            sock.close()
            return
        if self._tls is not None:
            stream = trio.SSLStream(stream, self._tls, server_side=True, https_compatible=True)
        connection = Connection(stream, address[:2], server, self._served)
        self._connections.add(connection)
        self._by_address[key] += 1
        nursery.start_soon(self._run, connection, key)

    async def stop(self) -> None:
        """No further requests: connections that wait for one are closed, and the others close with their answer."""
        await self._served.context.terminated.set()
        for connection in self._connections:
            connection.stop()

    async def _run(self, connection: Connection, key: bytes) -> None:
        try:
            await connection.run()
        except Exception:
            self._metrics.connections_crashed += 1
            log.exception("an HTTP connection was closed because of a bug")
        finally:
            self._connections.discard(connection)
            self._by_address[key] -= 1
            if not self._by_address[key]:
                del self._by_address[key]


def _hypercorn() -> Config:
    config = Config()
    config.accesslog = None  # paths may hold tokens
    config.errorlog = logging.getLogger("qiyu.http")
    config.errorlog.setLevel(logging.WARNING)  # where it listens is announced by us, like every listener
    config.include_server_header = False
    return config
