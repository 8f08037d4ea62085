"""Accepts connections, for as long as it may, and hands them to the poller.

Accepting never ends for a reason that passes: a peer that hung up while it waited, or a process out of file
descriptors, which waits a moment (as trio.serve_listeners does) while connections queue in the kernel.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import resource
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any, Final

import structlog
import trio

from qiyu.drivers.poller import Poller
from qiyu.drivers.proxied import ProxyGone, read_source
from qiyu.errors import ProtocolViolation, StartupError
from qiyu.metrics import Metrics
from qiyu.model import Address, Network, address_text, is_within, network_of
from qiyu.routing.endpoint import Door

log = structlog.get_logger(__name__)

BACKLOG: Final = 4096  # the kernel cuts it to net.node.somaxconn
ACCEPTS: Final = 128  # in a row, before other tasks get their turn
ADMITTED: Final = 8  # of those, for one that is let in: what it says and its end take as long
OUT_OF_RESOURCES_SECONDS: Final = 0.1
SPARE_FILES: Final = 256

ANY: Final = "::"
ANY_IPV4: Final = "0.0.0.0"  # noqa: S104  # to compare with

IPV6_BYTES: Final = 16
_IPV4_MAPPED: Final = bytes(10) + b"\xff\xff"  # how a socket that takes both shows one (RFC 4291, section 2.5.5.2)

_NO_SUCH_ADDRESS: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
_OUT_OF_RESOURCES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


def bind(key: str, hosts: Sequence[str], port: int) -> list[socket.socket]:
    """Listen on every address that each of `hosts` has; port 0 is any free one, the same for all of them.

    `::` is every address of the machine, IPv4 as well, unless `0.0.0.0` is named beside it. An address of a name that
    this machine does not have (localhost is ::1 too, where IPv6 may be switched off) is left out, and the log says so,
    as long as the name has another.

    Raises `StartupError`, naming `key` (the section of the settings), when that cannot be done.
    """
    sockets: list[socket.socket] = []
    try:
        for host in hosts:
            same_port = sockets[0].getsockname()[1] if sockets else port
            sockets += _bind_host(key, host, same_port, takes_ipv4=host == ANY and ANY_IPV4 not in hosts)
    except StartupError:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _bind_host(key: str, host: str, port: int, *, takes_ipv4: bool) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    missing: list[OSError] = []
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            wanted = (address[0], sockets[0].getsockname()[1] if sockets else port, *address[2:])
            try:
                sockets.append(_listen(socket.socket(family, kind, protocol), wanted, takes_ipv4=takes_ipv4))
            except OSError as exc:
                if exc.errno not in _NO_SUCH_ADDRESS:
                    raise
                missing.append(exc)
                log.warning("this machine has no such address", listener=key, host=host, address=address[0])
        if not sockets and missing:
            raise missing[0]
    except OSError as exc:
        for sock in sockets:
            sock.close()
        raise StartupError(f"{key}: cannot listen on {host} port {port}: {exc.strerror or exc}") from exc
    return sockets


def _listen(sock: socket.socket, address: tuple[object, ...], *, takes_ipv4: bool) -> socket.socket:
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not takes_ipv4))
        sock.bind(address)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def capacity(connections: int, http_connections: int = 0) -> int:
    """How many connections there is room for: `connections` (0: any number), or what the files of the process allow.

    Asks for more files first. The rest are for HTTP, the database and the log, which must not go without because there
    are many clients.
    """
    spare = SPARE_FILES + http_connections
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + spare if connections else hard
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if wanted > soft:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    room = max(soft - spare, soft // 2)
    if connections and connections <= room:
        return connections
    if connections:
        log.info("there are files for fewer connections than [limits] allows: raise `ulimit -n`", connections=room)
    return room


def address_of(sock: socket.socket) -> str:
    """`host:port`, with an IPv6 host in brackets."""
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@functools.lru_cache(maxsize=1024)  # many come from one address, and share these bytes
def packed(family: int, host: str) -> Address:
    """The bytes of an address as `accept` gives it."""
    address = socket.inet_pton(family, host.partition("%")[0])  # an IPv6 one of this network has its interface after it
    return address.removeprefix(_IPV4_MAPPED) if len(address) == IPV6_BYTES else address


class Acceptor:
    """One listening socket. `admit` is called with each connection and its address, and does not wait."""

    def __init__(
        self, sock: socket.socket, admit: Callable[[socket.socket, Any], bool | None], count: Callable[[], int]
    ) -> None:
        """`admit` may return False for one that it has closed. `count` says how many are open: for the log."""
        self._sock = sock
        self._admit = admit
        self._count = count
        self._short = False  # of resources, and the log has it

    async def run(self) -> None:
        """Accept until cancelled; then stop listening."""
        try:
            while True:
                await trio.lowlevel.wait_readable(self._sock)
                if not self._accept_waiting():
                    await trio.sleep(OUT_OF_RESOURCES_SECONDS)
        finally:
            self._sock.close()

    def _accept_waiting(self) -> bool:
        """Accept who waits; False if the machine has no room for more just now."""
        left = ACCEPTS
        while left > 0:
            left -= 1
            try:
                sock, address = self._sock.accept()
            except BlockingIOError:
                return True
            except OSError as exc:
                if exc.errno in _OUT_OF_RESOURCES:
                    if not self._short:
                        log.warning("cannot accept connections for now", reason=exc.strerror, open=self._count())
                    self._short = True
                    return False
                continue  # accept(2): errors of the connection that was waiting, to be treated like EAGAIN
            self._short = False
            if self._admit(sock, address) is not False:
                left -= ADMITTED - 1
        return True


class Listener:
    """A listening socket whose connections the poller gets. `connections` is how many that may have in all."""

    def __init__(
        self,
        sock: socket.socket,
        door: Door,
        poller: Poller,
        connections: int,
        metrics: Metrics,
        tls: ssl.SSLContext | None = None,
        proxies: tuple[Network, ...] = (),
    ) -> None:
        """`tls` is what it speaks TLS with; from `proxies`, each connection begins with a PROXY protocol header."""
        self._tls = tls
        self.proxies = proxies
        self.per_address = 0
        """How many connections an address may have; 0 means no limit."""
        self.many_clients: tuple[Network, ...] = ()
        """Addresses to which that does not apply."""
        self.is_spent: Callable[[Address], bool] = lambda _: False
        """Whether so many connections of an address came to nothing that it may have no more just now."""
        self._introduced = 0  # connections whose header is being read
        self._mistrusts = False  # a proxy sent no header, and the log has it
        self._nursery: trio.Nursery
        self._acceptor = Acceptor(sock, self._admit, lambda: len(poller))
        self.door = door
        self._poller = poller
        self.connections = connections
        self._metrics = metrics

    async def run(self) -> None:
        """Accept until cancelled; then stop listening."""
        async with trio.open_nursery() as self._nursery:
            await self._acceptor.run()

    def _admit(self, sock: socket.socket, address: Any) -> bool:
        """Whether it was let in."""
        if len(self._poller) + self._introduced >= self.connections:
            self._metrics.connections_refused += 1
            sock.close()
            return False
        if self._tls is not None and not self._poller.handshakes.has_room:
            self._metrics.tls_handshakes_refused += 1
            sock.close()
            return False
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # the outbox coalesces; the kernel need not
            peer = packed(sock.family, address[0])
            if not (self.proxies and is_within(peer, self.proxies)):
                return self._add(sock, peer)
            self._introduced += 1
            self._nursery.start_soon(self._admit_proxied, sock, peer)
        except OSError:  # macOS: the peer is gone already; or the kernel can watch no more sockets
            self._metrics.connections_refused += 1
            sock.close()
            return False
        return True

    def _add(self, sock: socket.socket, address: Address) -> bool:
        """Hand it to the poller, unless its address has enough. Raises OSError."""
        if self.is_spent(address):
            self._metrics.connections_refused_fruitless += 1
            sock.close()
            return False
        if (
            self.per_address
            and self._poller.by_address[network_of(address)] >= self.per_address
            and not is_within(address, self.many_clients)
        ):
            self._metrics.connections_refused_address += 1
            sock.close()
            return False
        self._poller.add(sock, self.door, address, self._tls)
        return True

    async def _admit_proxied(self, sock: socket.socket, proxy: Address) -> None:
        taken = False
        try:
            address = await read_source(sock, proxy)
            self._add(sock, address)
            taken = True
            self._mistrusts = False
        except ProtocolViolation as exc:
            self._metrics.proxy_headers_refused += 1
            if not self._mistrusts:
                log.warning("a proxy's connection was refused", address=address_text(proxy), reason=exc.reason)
            self._mistrusts = True
        except (ProxyGone, OSError):
            self._metrics.connections_refused += 1
        finally:
            self._introduced -= 1
            if not taken:
                sock.close()
