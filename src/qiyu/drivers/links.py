"""Links to other instances: who calls is let in once it has proved itself, and who lives and has no link is called.

A task reads each connection and another writes it: there are as many as there are instances, and not as many as
clients, so they need no poller. Any trio stream will do: TLS would be one around it.

What waits to be written is bounded. A link that goes over it is broken off, and begins anew where both sides are.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable
from typing import Final

import structlog
import trio

from qiyu.model import InstanceId, Instant
from qiyu.presence.presence import Lease
from qiyu.protocol.links import NONCE_BYTES, LinkMessage, LinkWire
from qiyu.services.cluster import Cluster
from qiyu.services.links import Link

log = structlog.get_logger(__name__)

READ_BYTES: Final = 64 * 1024
WAITING_BYTES: Final = 32 * 1024 * 1024
"""On one link: a hundred thousand room messages, or the time that a peer may stand still."""
HANDSHAKE_SECONDS: Final = 2.0
CALLERS: Final = 64
"""Connections that have not proved anything yet."""
SLICE_SECONDS: Final = 0.005
CALL_AGAIN_SECONDS: Final = 0.25
FIRST_CALL_SECONDS: Final = 0.5
"""Of two instances that have just met, the one with the lower number calls first."""


class LinkDriver:
    """All links of one instance."""

    def __init__(self, cluster: Cluster, secret: str, clock: Callable[[], Instant]) -> None:
        self._cluster = cluster
        self._secret = secret.encode()
        self._clock = clock
        self._callers: set[LinkWire] = set()
        self._calling: dict[InstanceId, float] = {}
        """When they may be called again; infinite while they are."""
        self._refused: set[str] = set()

    async def listen(self, sock: socket.socket) -> None:
        """Let others in until cancelled; then stop listening."""
        with trio.socket.from_stdlib_socket(sock) as listening:
            async with trio.open_nursery() as nursery:
                while True:
                    try:
                        accepted, _ = await listening.accept()
                    except OSError as exc:
                        log.warning("cannot accept links for now", reason=exc.strerror)
                        await trio.sleep(CALL_AGAIN_SECONDS)
                        continue
                    if len(self._callers) >= CALLERS:
                        accepted.close()
                    else:
                        nursery.start_soon(self._let_in, accepted)

    async def call(self) -> None:
        """Call who has no link, several times a second, until cancelled."""
        async with trio.open_nursery() as nursery:
            while True:
                now = self._clock().monotonic
                wanted = {lease.instance: lease for lease in self._cluster.to_dial()}
                for instance in self._calling.keys() - wanted.keys():
                    if self._calling[instance] != float("inf"):
                        del self._calling[instance]
                for instance, lease in wanted.items():
                    if instance not in self._calling and instance < self._cluster.me:
                        self._calling[instance] = now + (FIRST_CALL_SECONDS if self._has_just_come(lease) else 0)
                    if self._calling.get(instance, 0.0) <= now:
                        self._calling[instance] = float("inf")
                        nursery.start_soon(self._call, lease)
                await trio.sleep(CALL_AGAIN_SECONDS)

    @staticmethod
    def _has_just_come(lease: Lease) -> bool:
        return lease.renewals <= 1

    async def _let_in(self, sock: trio.socket.SocketType) -> None:
        wire = LinkWire(self._cluster.me, self._secret, secrets.token_bytes(NONCE_BYTES))
        self._callers.add(wire)
        try:
            await _Connection(self._cluster, sock, wire, self._clock, self._proved).talk()
        finally:
            self._proved(wire)

    def _proved(self, wire: LinkWire) -> None:
        """It is no stranger any longer, or is gone."""
        self._callers.discard(wire)

    async def _call(self, lease: Lease) -> None:
        instance, leases = lease.instance, self._cluster.leases
        sock = None
        try:
            try:
                with trio.move_on_after(HANDSHAKE_SECONDS):
                    sock = await _connect(lease.link_address)
            except ConnectionRefusedError:
                leases.refused(instance, self._clock().monotonic)
                return
            except OSError as exc:
                self._say_once(lease, exc)
            found = None
            if sock is not None:
                wire = LinkWire(self._cluster.me, self._secret, secrets.token_bytes(NONCE_BYTES), instance)
                await _Connection(self._cluster, sock, wire, self._clock, self._proved).talk()
                found = wire.found
            if found is None:
                leases.reached(instance)
            else:  # as good as a refusal: its process is gone, and another has its port
                leases.refused(instance, self._clock().monotonic)
        finally:
            self._calling[instance] = self._clock().monotonic + CALL_AGAIN_SECONDS

    def _say_once(self, lease: Lease, exc: OSError) -> None:
        if lease.link_address not in self._refused:
            self._refused.add(lease.link_address)
            log.warning(
                "an instance cannot be reached", number=lease.number, address=lease.link_address, reason=str(exc)
            )


async def _connect(address: str) -> trio.socket.SocketType:
    host, _, port = address.rpartition(":")
    found = await trio.socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    family, kind, protocol, _, where = found[0]
    sock = trio.socket.socket(family, kind, protocol)
    try:
        await sock.connect(where)
    except BaseException:
        sock.close()
        raise
    return sock


class _Connection:
    """One connection, from the handshake to its end."""

    def __init__(
        self,
        cluster: Cluster,
        sock: trio.socket.SocketType,
        wire: LinkWire,
        clock: Callable[[], Instant],
        proved: Callable[[LinkWire], None],
    ) -> None:
        self._cluster = cluster
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._stream = trio.SocketStream(sock)
        self._wire = wire
        self._clock = clock
        self._proved = proved
        self._scope = trio.CancelScope()
        self._link: Link | None = None
        self._waiting: list[bytes] = []
        self._size = 0
        self._to_write = trio.Event()
        self._why = "the other side has closed it"

    async def talk(self) -> None:
        try:
            with self._scope:
                async with self._stream, trio.open_nursery() as nursery:
                    nursery.start_soon(self._write_all)
                    nursery.start_soon(self._watch_handshake)
                    await self._read_all()
                    nursery.cancel_scope.cancel()
        finally:
            if self._link is not None:
                log.info("a link has ended", number=self._link.peer.number, reason=self._why)
                self._cluster.link_closed(self._link, self._clock())

    async def _watch_handshake(self) -> None:
        await trio.sleep(HANDSHAKE_SECONDS)
        if self._wire.peer is None:
            self._scope.cancel()

    async def _read_all(self) -> None:
        wire = self._wire
        self._owe(wire.data_to_send())
        while wire.error is None:
            try:
                data = await self._stream.receive_some(READ_BYTES)
            except trio.BrokenResourceError:
                return
            if not data:
                return
            messages = wire.receive_data(data)
            if wire.has_output:
                self._owe(wire.data_to_send())
            if wire.peer is not None and self._link is None:
                self._open(wire.peer)
            await self._take(messages)
        self._why = wire.error.reason
        if wire.found is None:
            log.warning("a link is broken off", peer=repr(wire), reason=wire.error.reason)

    async def _take(self, messages: list[LinkMessage]) -> None:
        """Others have their turn in between."""
        until = self._clock().monotonic + SLICE_SECONDS
        for message in messages:
            if self._link is None:
                return
            self._cluster.received(self._link, message, now := self._clock())
            if now.monotonic > until:
                await trio.lowlevel.checkpoint()
                until = self._clock().monotonic + SLICE_SECONDS

    def _open(self, peer: InstanceId) -> None:
        self._proved(self._wire)
        now = self._clock()
        is_mine = self._wire.expects is not None
        self._link = Link(peer, is_mine, self._write, self._hang_up, now.monotonic)
        self._cluster.link_opened(self._link, now)

    def _write(self, data: bytes) -> bool:
        if self._scope.cancel_called:
            return False
        if self._size + len(data) > WAITING_BYTES:
            self._cluster.metrics.links_overflowed += 1
            self._hang_up(f"{WAITING_BYTES} bytes wait to be sent already")
            return False
        self._owe(data)
        return True

    def _hang_up(self, why: str) -> None:
        self._why = why
        self._scope.cancel()

    def _owe(self, data: bytes) -> None:
        if data:
            self._waiting.append(data)
            self._size += len(data)
            self._to_write.set()

    async def _write_all(self) -> None:
        while True:
            await self._to_write.wait()
            self._to_write = trio.Event()
            data, self._waiting, self._size = b"".join(self._waiting), [], 0
            try:
                await self._stream.send_all(data)
            except trio.BrokenResourceError:
                return  # whoever reads finds out
