"""One request and its answer: the body is taken whole, and then the application gets its turn.

The application is called once the request is complete, so whoever sends slowly keeps nobody else's turn. How many
requests it deals with at once is bounded; the others stand in line, in order, and whoever stands too long gets 503.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
import trio
from hypercorn.typing import ASGIReceiveEvent, Scope

from qiyu.metrics import Metrics

BODY_BYTES: Final = 64 * 1024
TURN_SECONDS: Final = 5.0  # in line; after that many, whoever asked has probably given up
RETRY_SECONDS: Final = 1

Application = Callable[..., Awaitable[None]]
Send = Callable[[Any], Awaitable[None]]


class RequestLine:
    """Where requests wait for the application, which deals with `at_once` of them; 0: with all."""

    def __init__(self, at_once: int, metrics: Metrics) -> None:
        self._limiter = trio.CapacityLimiter(at_once or math.inf)
        self._metrics = metrics

    def change(self, at_once: int) -> None:
        """Another bound."""
        self._limiter.total_tokens = at_once or math.inf

    def __repr__(self) -> str:
        statistics = self._limiter.statistics()
        return f"<RequestLine {statistics.borrowed_tokens} under way, {statistics.tasks_waiting} waiting>"

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[bool]:
        """Around what the application does; False where it took too long to come to that."""
        self._metrics.http_requests += 1
        with trio.move_on_after(TURN_SECONDS) as waiting:
            await self._limiter.acquire()
        if waiting.cancelled_caught:
            self._metrics.http_requests_refused += 1
            yield False
            return
        try:
            yield True
        finally:
            self._limiter.release()


class Exchange:
    """A request whose body is on its way."""

    def __init__(self, body_bytes: int = BODY_BYTES) -> None:
        self._left = body_bytes + 1  # one more than may be, by which the application sees that it is too long
        self._body: list[bytes] = []
        self._is_read = False
        self.is_complete = trio.Event()
        self.is_gone = False
        """The client has left, or broken the protocol, in the middle of it."""

    async def put(self, event: ASGIReceiveEvent) -> None:
        """What has come of it. Never waits: of what is too long, the rest is thrown away."""
        if event["type"] == "http.request":
            data = event["body"][: self._left]
            self._left -= len(data)
            self._body.append(data)
            if self._left and event["more_body"]:
                return
        elif not self.is_complete.is_set():
            self.is_gone = True
        self.is_complete.set()

    async def receive(self) -> Any:
        """What the application is told: the body, and nothing more.

        Not that the client has gone: quart-trio would cancel the very call of `send` that is about to end the answer.
        """
        if self._is_read:
            await trio.sleep_forever()  # quart-trio ends this when it has answered
        await trio.lowlevel.checkpoint()
        self._is_read = True
        body = b"".join(self._body)
        self._body.clear()
        return {"type": "http.request", "body": body, "more_body": False}


async def answer(send: Send, status: int, reason: str, headers: list[tuple[bytes, bytes]]) -> None:
    """Answer in the application's place, in the envelope of its answers."""
    body = msgspec.json.encode({"code": status, "msg": reason, "data": None})
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        *headers,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers, "trailers": False})
    await send({"type": "http.response.body", "body": body, "more_body": False})


def with_header(send: Send, name: bytes, value: bytes) -> Send:
    """As `send`, with one header more at the answer."""

    async def wrapped(message: Any) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], (name, value)]}
        await send(message)

    return wrapped


def is_http(scope: Scope) -> bool:
    """Whether it is a request: the only thing that is served here."""
    return bool(scope["type"] == "http")
