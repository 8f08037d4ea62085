"""One HTTP connection: hypercorn's HTTP/1.1 protocol, which knows no event loop, and a deadline for every wait.

hypercorn's own driver shields what it sends, so a client that does not read could keep the server from stopping. Here
everything can be cancelled, and each thing that a peer can be slow at has its own time: to ask (`keep_alive_seconds`),
to send a head, to send a body, and to read the answer.

At its end a connection leaves no cycle of references behind. Python's collector looks for those rarely, and a hundred
thousand connections a minute, each with the buffers of its protocol, would be hundreds of megabytes by then.
"""

from __future__ import annotations

import logging
import math
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, cast

import trio
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import AppWrapper, ConnectionState, Scope, TaskGroup
from trio.abc import HalfCloseableStream, Stream

from qiyu.drivers.http_exchange import (
    RETRY_SECONDS,
    Application,
    Exchange,
    RequestLine,
    Send,
    answer,
    is_http,
    with_header,
)
from qiyu.metrics import Metrics
from qiyu.protocol.http11 import HttpConnection

READ_BYTES: Final = 16 * 1024
SLOWEST_BYTES_PER_SECOND: Final = 4096  # an answer's time grows with its length
LINGER_SECONDS: Final = 1.0
LINGER_BYTES: Final = 256 * 1024

Peer: TypeAlias = tuple[str, int]
"""Address and port."""

log = logging.getLogger("qiyu.http")


@dataclass(frozen=True, slots=True)
class HttpTimes:
    """How long a peer may take, in seconds."""

    keep_alive_seconds: float = 75
    """For the first byte of a request."""
    request_seconds: float = 10
    """For its head from there on, and then for its body."""
    answer_seconds: float = 30
    """From the complete request to the end of the answer, which has to be read by then."""
    handshake_seconds: float = 10
    """For that of TLS, where it is spoken."""


@dataclass(slots=True)
class Served:
    """What all connections of one server have in common."""

    app: Application
    times: HttpTimes
    line: RequestLine
    metrics: Metrics
    config: Config
    context: WorkerContext


class Connection:
    """One client, from the accepted socket to its end."""

    def __init__(self, stream: Stream, client: Peer, server: Peer, served: Served) -> None:
        self._stream = stream
        self._client = client
        self._server = server
        self._served = served
        self._send_lock = trio.Lock()
        self._wire = HttpConnection()
        self._protocol: H11Protocol | None = None
        self._nursery: trio.Nursery
        self._shaking = trio.CancelScope()
        self._reader = trio.CancelScope()
        self._reading = trio.CancelScope()
        self._answering: trio.CancelScope | None = None
        self._deadline = math.inf
        self._peer_ended = False

    async def run(self) -> None:
        """Serve it until either end closes it, or this is cancelled."""
        try:
            if self._is_tls and not await self._shake_hands():
                return
            async with trio.open_nursery() as self._nursery:
                self._protocol = H11Protocol(
                    cast("AppWrapper", self._served.app),
                    self._served.config,
                    self._served.context,
                    cast("TaskGroup", self),  # all that is asked of one is spawn_app
                    ConnectionState({}),
                    self._is_tls,
                    self._client,
                    self._server,
                    self._protocol_send,
                )
                self._protocol.connection = self._wire
                self._set_deadline(self._served.times.keep_alive_seconds)
                with self._reader:
                    await self._read(self._protocol)
            await self._end()
        finally:
            self._protocol = None  # the cycle, see above
            await trio.aclose_forcefully(self._stream)

    def stop(self) -> None:
        """Close it, if nothing is under way; what is, is answered first."""
        self._shaking.cancel()
        if self._deadline < math.inf:
            self._reader.cancel()

    @property
    def _is_tls(self) -> bool:
        return isinstance(self._stream, trio.SSLStream)

    async def _shake_hands(self) -> bool:
        """Whether the peer speaks TLS, and in time."""
        stream = cast("trio.SSLStream[trio.abc.Stream]", self._stream)
        seconds = self._served.times.handshake_seconds
        gone = suppress(trio.BrokenResourceError, trio.ClosedResourceError)
        with self._shaking, trio.move_on_after(seconds), gone:
            await stream.do_handshake()
            self._served.metrics.tls_handshakes += 1
            return True
        self._served.metrics.tls_handshakes_failed += 1
        return False

    # What hypercorn calls.

    async def spawn_app(self, _app: object, _config: object, scope: Scope, send: Send) -> Any:
        """A request has begun. Returns where to put its body."""
        exchange = Exchange()
        self._nursery.start_soon(self._serve, exchange, scope, send)
        return exchange.put

    async def _protocol_send(self, event: Event) -> None:
        if isinstance(event, RawData):
            await self._send(event.data)
        elif isinstance(event, Updated):
            self._updated(event)
        elif isinstance(event, Closed) and self._protocol is not None:
            await self._protocol.handle(Closed())
            self._reader.cancel()

    def _updated(self, event: Updated) -> None:
        if not event.idle:
            self._set_deadline(math.inf)
        elif self._wire.has_begun:
            self._set_deadline(self._served.times.request_seconds)
        else:
            self._set_deadline(self._served.times.keep_alive_seconds)

    # Reading.

    async def _read(self, protocol: H11Protocol) -> None:
        while True:
            with trio.CancelScope(deadline=self._deadline) as self._reading:
                data = await self._receive()
            if self._reading.cancelled_caught:
                if self._wire.has_begun:
                    self._served.metrics.http_timed_out += 1
                    self._wire.expire()
                data = b""
            if not self._wire.has_begun and self._deadline < math.inf:
                # Never later than it was: empty lines in front of a request are ignored, and give nobody more time.
                self._set_deadline(min(self._served.times.request_seconds, self._deadline - trio.current_time()))
            await protocol.handle(RawData(data))
            if not data:
                break
        await protocol.handle(Closed())

    async def _receive(self) -> bytes:
        try:
            data = await self._stream.receive_some(READ_BYTES)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            data = b""
        self._peer_ended = not data
        return bytes(data)

    def _set_deadline(self, seconds: float) -> None:
        """Until when the next byte has to come; never, while a request is dealt with."""
        self._deadline = trio.current_time() + seconds
        self._reading.deadline = self._deadline

    # Answering.

    async def _serve(self, exchange: Exchange, scope: Scope, send: Send) -> None:
        times = self._served.times
        answering: trio.CancelScope | None = None
        try:
            with trio.move_on_after(times.request_seconds) as waiting:
                await exchange.is_complete.wait()
            if exchange.is_gone or not is_http(scope):
                return
            with trio.CancelScope(deadline=trio.current_time() + times.answer_seconds) as answering:
                self._answering = answering
                if waiting.cancelled_caught:
                    self._served.metrics.http_timed_out += 1
                    reason = f"the body did not come within {times.request_seconds:g} s"
                    await answer(send, 408, reason, [(b"connection", b"close")])
                else:
                    await self._call(exchange, scope, self._closing(send))
                await send(None)
            if answering.cancelled_caught:
                self._served.metrics.http_timed_out += 1
                self._give_up()
        finally:
            # An application may have an end to make of it after its answer, and the next request be answered meanwhile.
            if self._answering is answering:
                self._answering = None

    async def _call(self, exchange: Exchange, scope: Scope, send: Send) -> None:
        async with self._served.line.turn() as is_mine:
            if not is_mine:
                retry = [(b"retry-after", b"%d" % RETRY_SECONDS)]
                await answer(send, 503, "too many requests are under way: try again in a moment", retry)
                return
            try:
                await self._served.app(scope, exchange.receive, send)
            except Exception:
                log.exception("the application failed because of a bug")  # hypercorn answers 500, if there is no answer

    def _closing(self, send: Send) -> Send:
        """`send`, which says that the connection ends with this answer, where it does."""
        if self._wire.must_close or self._served.context.terminated.is_set():
            return with_header(send, b"connection", b"close")
        return send

    async def _send(self, data: bytes) -> None:
        more_seconds = len(data) / SLOWEST_BYTES_PER_SECOND
        if self._answering is not None:
            self._answering.deadline += more_seconds
        async with self._send_lock:
            with trio.move_on_after(self._served.times.answer_seconds + more_seconds) as sending:
                try:
                    await self._stream.send_all(data)
                except (trio.BrokenResourceError, trio.ClosedResourceError):
                    self._peer_ended = True
                    self._give_up()
        if sending.cancelled_caught:
            self._served.metrics.http_timed_out += 1
            self._give_up()

    def _give_up(self) -> None:
        """Nobody reads: there is no use in anything more."""
        self._peer_ended = True
        self._nursery.cancel_scope.cancel()

    async def _end(self) -> None:
        """Close in good order: what is still coming is read for a moment, or the kernel would take back the answer."""
        if self._peer_ended:
            return
        stream = self._stream
        if isinstance(stream, trio.SSLStream):
            stream = stream.transport_stream  # HTTP needs no good-bye of TLS, and what comes now is thrown away
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError), trio.move_on_after(LINGER_SECONDS):
            await cast("HalfCloseableStream", stream).send_eof()
            left = LINGER_BYTES
            while left > 0:
                data = await stream.receive_some(READ_BYTES)
                if not data:
                    return
                left -= len(data)
