"""Client connections, many at once, over one epoll object."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import sys
from collections.abc import Iterable
from typing import Final, Self

from bench.servers import FIRST_USER, Server
from bench.wires import LoginSteps, Packet, Wire

READ_BYTES: Final = 64 * 1024
PATIENCE_SECONDS: Final = 30
"""Nothing here takes so long but what never comes."""
LOGINS_AT_ONCE: Final = 512

_DATA_SEGMENTS_IN: Final = slice(152, 156)  # in the kernel's struct tcp_info
_RESET: Final = struct.pack("ii", 1, 0)
_TIMEOUT: Final = struct.pack("ll", PATIENCE_SECONDS, 0)


class Fault(Exception):
    """The server did what makes figures worthless: it lost, doubled, refused, or went away."""


class NotServed(Exception):
    """This server does not have what the workload needs; the text is its own."""


class Client:
    """One connection. `log` holds what came: the time of each read, and the ids in it, joined."""

    __slots__ = ("_read_bytes", "audits", "log", "room", "sock", "unread", "user")

    def __init__(self, sock: socket.socket, user: int, room: int | None, read_bytes: int) -> None:
        self._read_bytes = read_bytes
        self.sock = sock
        self.user = user
        self.room = room
        self.unread = b""
        self.audits = 1
        """How many of the next reads are to be looked at closely."""
        self.log: list[tuple[float, bytes]] = []

    def __repr__(self) -> str:
        return f"<Client {self.user} room={self.room}>"

    def read(self) -> bytes:
        """What is there now, behind what was unfinished before. Call it when epoll says that there is something."""
        data = self.sock.recv(self._read_bytes)
        if not data:
            raise Fault(f"the server closed the connection of user {self.user}; {self.unread!r} was unread")
        return self.unread + data if self.unread else data

    def read_to_end(self) -> None:
        """Until the server has closed, having read all that was sent to it."""
        with contextlib.suppress(OSError):
            while self.sock.recv(READ_BYTES):
                pass

    def segments(self) -> int:
        """How many TCP segments with data have come."""
        info = self.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _DATA_SEGMENTS_IN.stop)
        return int.from_bytes(info[_DATA_SEGMENTS_IN], sys.byteorder)

    def send(self, data: bytes) -> None:
        """All of it; a server that does not read for so long gets no more patience."""
        try:
            self.sock.sendall(data)
        except BlockingIOError:
            raise Fault(f"the server reads nothing from user {self.user}") from None


class Clients(list[Client]):
    """Sessions that are logged in. As a context manager, it closes them in the end.

    `orderly`: only after the server has read the last ACK; else the next to log in as that user is sent it all again.
    """

    def __init__(self, server: Server, wire: str, *, orderly: bool = False, read_bytes: int = READ_BYTES) -> None:
        super().__init__()
        self._read_bytes = read_bytes
        self._orderly = orderly
        self.server = server
        self.wire: Wire = server.wires[wire][0]
        self._address = server.address(wire)
        self.epoll = select.epoll()
        self.by_fd: dict[int, Client] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.epoll.close()
        if self._orderly:
            for client in self:
                with contextlib.suppress(OSError):
                    client.sock.shutdown(socket.SHUT_WR)
            for client in self:
                client.read_to_end()
        self.close(self)

    def close(self, clients: Iterable[Client]) -> None:
        """Hang up: with a reset, so that thousands of ports do not wait for a minute after each run."""
        for client in clients:
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            client.sock.close()

    def log_in(self, users: Iterable[tuple[int, int | None]]) -> list[Client]:
        """Connect and log in each (user's index, room or None); many at once, since each step waits for an answer."""
        added: list[Client] = []
        waiting: list[tuple[Client, LoginSteps]] = []
        for index, room in users:
            client = self._connect(FIRST_USER + index, room)
            added.append(client)
            self.append(client)
            steps = self.wire.log_in(client.user, self.server.tokens.get(client.user, ""), room)
            client.send(next(steps))
            waiting.append((client, steps))
            if len(waiting) == LOGINS_AT_ONCE:
                _finish(waiting)
        _finish(waiting)
        for client in added:
            self.watch(client)
        return added

    def watch(self, client: Client) -> None:
        """Have `ready` name it."""
        self.epoll.register(client.sock.fileno(), select.EPOLLIN)
        self.by_fd[client.sock.fileno()] = client

    def ready(self, seconds: float) -> list[Client]:
        """Who can be read; waits so long for the first."""
        by_fd = self.by_fd
        return [by_fd[fd] for fd, _ in self.epoll.poll(seconds)]

    def _connect(self, user: int, room: int | None) -> Client:
        # The sockets block: reads follow epoll's word, and a sender that waits for the server is held up as a real one
        # is. The kernel's own timeouts cost no system call, as Python's do.
        sock = socket.create_connection(self._address)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEOUT)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEOUT)
        return Client(sock, user, room, self._read_bytes)


def _finish(waiting: list[tuple[Client, LoginSteps]]) -> None:
    for client, steps in waiting:
        try:
            while True:
                reply = steps.send(client.read())
                if reply:
                    client.send(reply)
        except StopIteration as done:
            client.unread = done.value
        except BlockingIOError:
            raise Fault(f"user {client.user} got no answer to the login") from None
    waiting.clear()


def refused(client: Client, others: list[Packet]) -> Fault:
    """What to raise for packets that nobody asked for."""
    return Fault(f"user {client.user} got {', '.join(f'{code} {body.decode()}' for code, body in others)}")
