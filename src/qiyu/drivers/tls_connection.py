"""A socket with TLS in between, which the poller drives as it drives any other.

OpenSSL never sees the socket: bytes go through two buffers in memory. What has been encrypted cannot be taken back, and
may be more than the kernel takes at once; then `send` says of one byte less that it was sent. So the poller keeps that
byte, waits until the socket is writable, and comes again with it in front; by then it needs no encrypting.
"""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from typing import Final, cast

from qiyu.drivers.connection import PlainConnection
from qiyu.drivers.handshakes import Handshakes
from qiyu.routing.endpoint import Endpoint
from qiyu.routing.outbox import Outbox

RAW_BYTES: Final = 64 * 1024
"""At most, in one read."""
CHUNK_BYTES: Final = 64 * 1024  # encrypted before the kernel is asked to take it

_raw = memoryview(bytearray(RAW_BYTES))  # only one connection is read at a time


class TlsConnection(PlainConnection):
    """See `PlainConnection`. All calls raise OSError where the peer is gone or speaks no TLS; ssl.SSLError is one."""

    __slots__ = (
        "_ahead",
        "_handshakes",
        "_has_more",
        "_incoming",
        "_is_ready",
        "_is_shut",
        "_outgoing",
        "_ssl",
        "_unsent",
    )

    def __init__(
        self, sock: socket.socket, outbox: Outbox, endpoint: Endpoint, context: ssl.SSLContext, handshakes: Handshakes
    ) -> None:
        super().__init__(sock, outbox, endpoint)
        self._handshakes = handshakes
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._ssl = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._unsent = b""  # encrypted
        self._ahead = 0  # bytes at the beginning of what is sent next that are among those already
        self._has_more = False  # there may be more that is decrypted, or can be
        self._is_ready = False  # the handshake is done
        self._is_shut = False

    @property
    def owes(self) -> bool:
        """See `PlainConnection.owes`."""
        return bool(self._unsent)

    @property
    def version(self) -> str | None:
        """`TLSv1.3`; None before the handshake is done."""
        return self._ssl.version() if self._is_ready else None

    def receive(self, buffer: memoryview) -> int:
        """See `PlainConnection.receive`: decrypted. Raises BlockingIOError also for bytes that tell nothing yet."""
        if self._has_more:
            with suppress(ssl.SSLError):  # there was no more after all, or reading finds out what is wrong
                return self._decrypt(buffer)
        if not self._is_ready and not self._handshakes.may_step():
            raise BlockingIOError  # what has come stays in the kernel, and we are called again
        return self._receive(buffer)

    def _receive(self, buffer: memoryview) -> int:
        size = super().receive(_raw[: len(buffer)])
        if self._is_shut:
            return size  # thrown away: nobody reads it any more
        if size:
            self._incoming.write(_raw[:size])
        else:
            self._incoming.write_eof()
        try:
            if not self._is_ready:
                self._shake_hands()
            return self._decrypt(buffer)
        except ssl.SSLWantReadError:
            if not size:
                raise ConnectionResetError from None
            raise BlockingIOError from None
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            # The peer has ended its side, with a good-bye of TLS or without. All that is spoken here has an end of its
            # own to each message, so that nothing can be cut off unseen.
            if self._is_ready:
                return 0
            self._handshakes.failed(self)
            raise
        except ssl.SSLError:
            self._handshakes.failed(self)
            raise
        finally:
            self._pass_on()  # the rest of the handshake, an alert

    def send(self, data: bytes) -> int:
        """See `PlainConnection.send`. Before the handshake is done there is nobody to whom anything could be said."""
        if not self._is_ready:
            raise ConnectionAbortedError
        if not self.flush():
            raise BlockingIOError
        done, self._ahead = self._ahead, 0
        view = memoryview(data)
        while done < len(data):
            done += self._ssl.write(view[done : done + CHUNK_BYTES])
            if not self.flush():
                self._ahead = 1
                return done - 1
        return done

    def flush(self) -> bool:
        """Pass on what is encrypted; whether the kernel has taken all of it."""
        self._unsent += self._outgoing.read()
        while self._unsent:
            try:
                sent = super().send(self._unsent)
            except BlockingIOError:
                return False
            self._unsent = self._unsent[sent:]
        return True

    def shut(self) -> None:
        """See `PlainConnection.shut`: with the good-bye of TLS."""
        if self._is_ready and not self._is_shut:
            self._is_shut = True
            with suppress(ssl.SSLError):  # the peer has not said its own, and need not
                self._ssl.unwrap()
            self._pass_on()
        super().shut()

    def close(self) -> None:
        """See `PlainConnection.close`."""
        self._handshakes.failed(self)  # if it was in the middle of one
        super().close()

    def _shake_hands(self) -> None:
        self._ssl.do_handshake()
        self._is_ready = True
        self._handshakes.done(self)

    def _decrypt(self, buffer: memoryview) -> int:
        self._has_more = False
        done = self._read(buffer)
        with suppress(ssl.SSLError):  # there is no more, or what follows is no good: the next call finds out
            while done < len(buffer) and (size := self._read(buffer[done:])):
                done += size
        self._has_more = done == len(buffer)
        return done

    def _read(self, buffer: memoryview) -> int:
        return cast("int", self._ssl.read(len(buffer), buffer))

    def _pass_on(self) -> None:
        with suppress(OSError):  # reading finds out, too, and has what came before it
            self.flush()
