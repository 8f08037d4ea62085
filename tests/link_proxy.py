"""A proxy between instances whose wire can be cut: then nothing goes through, and nobody is told."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import trio


class LinkProxy:
    """Listens on a free port, and leads to `target`, a port of this machine."""

    def __init__(self) -> None:
        self.target = 0
        self.address = ""
        self._is_whole = trio.Event()
        self._is_whole.set()

    def cut(self) -> None:
        """As if a cable were pulled."""
        self._is_whole = trio.Event()

    def mend(self) -> None:
        self._is_whole.set()

    async def serve(self, task_status: trio.TaskStatus[None]) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(trio.serve_tcp, self._serve, 0)
            self.address = f"127.0.0.1:{listeners[0].socket.getsockname()[1]}"
            task_status.started()

    async def __aenter__(self) -> Self:
        self._nursery_of = trio.open_nursery()
        self._nursery = await self._nursery_of.__aenter__()
        await self._nursery.start(self.serve)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._nursery.cancel_scope.cancel()
        await self._nursery_of.__aexit__(kind, error, traceback)

    async def _serve(self, one: trio.SocketStream) -> None:
        await self._is_whole.wait()
        try:
            other = await trio.open_tcp_stream("127.0.0.1", self.target)
        except OSError:
            return
        async with other, trio.open_nursery() as nursery:
            nursery.start_soon(self._carry, one, other, nursery.cancel_scope)
            nursery.start_soon(self._carry, other, one, nursery.cancel_scope)

    async def _carry(self, one: trio.SocketStream, other: trio.SocketStream, both: trio.CancelScope) -> None:
        try:
            async for data in one:
                await self._is_whole.wait()
                await other.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        await self._is_whole.wait()
        both.cancel()
