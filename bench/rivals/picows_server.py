"""picows on uvloop."""

# What it imports is installed for the benchmark alone:
# mypy: disable-error-code="import-not-found, misc"

from __future__ import annotations

import asyncio

import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

from bench.rivals.house import Member, enter_by_path, listening, on_text


class Connection(WSListener):
    """One client."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.member: Member | None = None

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Let it in."""
        self.member = enter_by_path(self.path, lambda packet: transport.send(WSMsgType.TEXT, packet))

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Take a packet."""
        if frame.msg_type == WSMsgType.TEXT and self.member is not None:
            on_text(self.member, frame.get_payload_as_bytes())
        elif frame.msg_type == WSMsgType.CLOSE:
            transport.disconnect()

    def on_ws_disconnected(self, transport: WSTransport) -> None:  # noqa: ARG002
        """Forget it."""
        if self.member is not None:
            self.member.leave()


def accept(request: WSUpgradeRequest) -> Connection:
    """A listener for each connection."""
    return Connection(request.path.decode())


async def main() -> None:
    """Serve."""
    server = await ws_create_server(accept, "127.0.0.1", 0, enable_auto_ping=False, backlog=4096)
    listening("ws", server.sockets[0].getsockname()[1])
    await asyncio.Event().wait()


uvloop.run(main())
