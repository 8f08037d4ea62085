"""Serves the HTTP application with hypercorn, on sockets that are bound already."""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Final

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from hypercorn.typing import Framework

GRACEFUL_SECONDS: Final = 1.0


async def run_http(
    app: Framework,
    sockets: list[socket.socket],
    stop: Callable[[], Awaitable[None]],
    *,
    task_status: trio.TaskStatus[object] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until `stop` returns; requests under way then have a second. Takes the sockets over."""
    config = Config()
    config.bind = [f"fd://{sock.detach()}" for sock in sockets]
    config.graceful_timeout = GRACEFUL_SECONDS
    config.accesslog = None  # paths may hold tokens
    config.errorlog = logging.getLogger("qiyu.http")
    config.errorlog.setLevel(logging.WARNING)  # where it listens is announced by us, like every listener
    config.include_server_header = False
    await serve(app, config, shutdown_trigger=stop, task_status=task_status)
