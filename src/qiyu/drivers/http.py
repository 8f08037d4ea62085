"""Serves the HTTP application with hypercorn, on sockets that are bound already."""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable
from math import ceil
from typing import Any, Final

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, Framework, Scope

GRACEFUL_SECONDS: Final = 1.0
READ_SECONDS: Final = 30  # without a byte of a request that has begun


async def run_http(
    app: Callable[..., Awaitable[None]],
    sockets: list[socket.socket],
    stop: Callable[[], Awaitable[None]],
    keep_alive_seconds: float,
    *,
    task_status: trio.TaskStatus[object] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until `stop` returns; requests under way then have a second. Takes the sockets over.

    A connection on which nothing is asked is closed after `keep_alive_seconds`. A proxy in front that keeps its own for
    longer would send a request just as it closes, and answer its client with 502.
    """
    config = Config()
    config.bind = [f"fd://{sock.detach()}" for sock in sockets]
    config.graceful_timeout = GRACEFUL_SECONDS
    config.read_timeout = max(READ_SECONDS, ceil(keep_alive_seconds))  # which counts an idle connection as well
    config.keep_alive_timeout = keep_alive_seconds
    config.accesslog = None  # paths may hold tokens
    config.errorlog = logging.getLogger("qiyu.http")
    config.errorlog.setLevel(logging.WARNING)  # where it listens is announced by us, like every listener
    config.include_server_header = False
    await serve(_undisturbed(app), config, shutdown_trigger=stop, task_status=task_status)


def _undisturbed(app: Callable[..., Awaitable[None]]) -> Framework:
    """The application, which is not told that its client has gone before it has answered.

    At the end of each response hypercorn says http.disconnect; quart-trio then cancels the very call of `send` that is
    about to close the connection, which would stay open for ever.
    """

    async def asgi(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        async def receive_requests() -> Any:
            message = await receive()
            if message["type"] == "http.disconnect":
                await trio.sleep_forever()  # quart-trio ends this when it has answered
            return message

        await app(scope, receive_requests, send)

    return asgi
