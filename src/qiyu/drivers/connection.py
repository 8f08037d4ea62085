"""One socket, and the endpoint that it is for.

The poller needs two calls of a connection, `receive` and `send`, and one to `shut` its side; whatever lies between
those and the socket is the connection's own affair.
"""

from __future__ import annotations

import os
import socket

from qiyu.routing.endpoint import Endpoint
from qiyu.routing.outbox import Outbox


class Share:
    """What the poller knows of a connection that has had more to say than its share of a turn."""

    __slots__ = ("buffer", "credit", "is_clogged", "is_paused", "waits")

    def __init__(self, buffer: memoryview, credit: int) -> None:
        self.buffer = buffer
        """Where its bytes are read to, and so how many at once: the beginning of the poller's one buffer."""
        self.credit = credit
        """How much more work it may make before it has to wait; less than nothing is a debt to later turns."""
        self.waits = False
        """It has had its share, and the poller has it in the queue of those that have more."""
        self.is_clogged = False
        """Its peer does not read what it is owed, so it is read only as far as the peer does."""
        self.is_paused = False
        """It sent more than it may in the time, and is not read until that is paid for."""


class PlainConnection:
    """A socket with nothing in between. All calls raise OSError where the peer is gone.

    It is kept as a number: a socket object would take as much memory as all of this.
    """

    __slots__ = ("at_eof", "closing", "deadline", "endpoint", "fd", "outbox", "share", "waits_to_write")

    def __init__(self, sock: socket.socket, outbox: Outbox, endpoint: Endpoint) -> None:
        self.fd = sock.detach()
        self.outbox = outbox
        self.endpoint = endpoint
        self.share: Share | None = None
        """None until it had more to say than its share."""
        self.waits_to_write = False
        self.deadline = 0.0
        """When it closes whatever happens; 0 until its endpoint has ended."""
        self.at_eof = False
        """The peer has shut its side: nothing more is read, and it closes once all is sent."""
        self.closing = False
        """It closes at the end of this turn."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} fd={self.fd} {self.endpoint!r}>"

    def receive(self, buffer: memoryview) -> int:
        """Put what has come into `buffer`; returns how many bytes, 0 at the end of the stream.

        Raises BlockingIOError where nothing has come.
        """
        return os.readv(self.fd, (buffer,))

    def send(self, data: bytes) -> int:
        """Send the beginning of `data`; returns how many bytes were taken. Raises BlockingIOError where none can be."""
        return os.write(self.fd, data)

    @property
    def owes(self) -> bool:
        """Whether there are bytes to send that are not the outbox's; asked when there is nothing else to do."""
        return False

    def flush(self) -> bool:
        """Send those; whether all of them are gone."""
        return True

    def shut(self) -> None:
        """Nothing more will be sent: the peer finds the end of its stream."""
        sock = socket.socket(fileno=self.fd)
        try:
            sock.shutdown(socket.SHUT_WR)
        finally:
            sock.detach()

    def close(self) -> None:
        """Let the socket go."""
        os.close(self.fd)
