"""websockets on asyncio. `broadcast` is its way to write without waiting for each receiver."""

# What it imports is installed for the benchmark alone:
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import asyncio

from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.exceptions import ConnectionClosed

from bench.rivals.house import enter_by_path, listening, on_text


async def connection(socket: ServerConnection) -> None:
    """One client. Each packet is its receiver's own, so each is a broadcast to one."""
    assert socket.request is not None
    member = enter_by_path(socket.request.path, lambda packet: broadcast((socket,), packet.decode()))
    try:
        async for text in socket:
            on_text(member, text)
    except ConnectionClosed:
        pass
    finally:
        member.leave()


async def main() -> None:
    """Serve."""
    async with serve(connection, "127.0.0.1", 0, compression=None, ping_interval=None, backlog=4096) as server:
        listening("ws", next(iter(server.sockets)).getsockname()[1])
        await asyncio.Event().wait()


asyncio.run(main())
