"""trio-websocket: a task that reads and a task that writes for each client."""

from __future__ import annotations

import math

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, serve_websocket

from bench.rivals.house import enter_by_path, listening, on_text


async def connection(request: WebSocketRequest) -> None:
    """One client."""
    socket = await request.accept()
    packets, queue = trio.open_memory_channel[bytes](math.inf)
    member = enter_by_path(request.path, packets.send_nowait)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(write, socket, queue)
            while True:
                on_text(member, await socket.get_message())
    except* (ConnectionClosed, trio.BrokenResourceError):
        pass
    finally:
        member.leave()


async def write(socket: WebSocketConnection, queue: trio.MemoryReceiveChannel[bytes]) -> None:
    """Send what the others said."""
    async for packet in queue:
        await socket.send_message(packet.decode())


async def main() -> None:
    """Serve."""
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve_websocket, connection, "127.0.0.1", 0, None)
        listening("ws", server.port)


trio.run(main)
