"""A whole server in the test's own process, and how to be somebody there."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeAlias

import trio
import trio.testing

from qiyu.config import Settings
from qiyu.services.tokens import Tokens
from raw_clients import RawTcpClient, RawWsClient

SECRET = "a secret for tests alone"


class RunningServer:
    """Where it listens, and how to be somebody there."""

    def __init__(
        self, addresses: dict[str, str], settings: Settings, stop: Callable[[], None], stopped: trio.Event
    ) -> None:
        self.tcp = addresses["tcp"]
        self.ws = addresses["ws"]
        self.http = addresses["http"]
        self.settings = settings
        self.stop = stop
        """As SIGTERM does."""
        self.stopped = stopped
        self.load_settings: Callable[[dict[str, Any]], Settings]
        self.send_settings: trio.MemorySendChannel[Settings]
        self._tokens = Tokens(SECRET, 300)

    async def reload(self, **changes: Any) -> None:
        """As SIGHUP does, with these settings beside those of the start; returns when they count."""
        await self.send_settings.send(self.load_settings(changes))
        await trio.testing.wait_all_tasks_blocked()

    def token(self, user: int, **fields: Any) -> str:
        """A token for `user`."""
        return self._tokens.issue(user, now_ms=time.time_ns() // 1_000_000, **fields)

    async def tcp_peer(self, user: int, room: int | None = None, **fields: Any) -> RawTcpClient:
        """Somebody logged in over TCP."""
        peer = await RawTcpClient.connect(self.tcp)
        await peer.log_in(user, self.token(user, **fields), room)
        return peer

    async def ws_peer(self, user: int, room: int | None = None, **fields: Any) -> RawWsClient:
        """Somebody logged in over WebSocket."""
        return await RawWsClient.log_in(self.ws, user, self.token(user, **fields), room)


Start: TypeAlias = Callable[..., AbstractAsyncContextManager[RunningServer]]
