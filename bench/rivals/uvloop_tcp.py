"""asyncio protocols on uvloop, plain TCP frames."""

# What it imports is installed for the benchmark alone:
# mypy: disable-error-code="import-not-found"

from __future__ import annotations

import asyncio
from typing import cast

import uvloop

from bench.rivals.house import (
    HEADER,
    LOGIN,
    MAGIC,
    Member,
    decode_body,
    decode_data,
    listening,
    on_packet,
    splice_frame,
)


class Connection(asyncio.Protocol):
    """One client."""

    def __init__(self) -> None:
        self.unread = b""
        self.member: Member | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's own kind derives from nothing

    def data_received(self, data: bytes) -> None:
        data = self.unread + data
        start = 0
        while len(data) - start >= HEADER.size:
            _, code, length = HEADER.unpack_from(data, start)
            end = start + HEADER.size + length
            if end > len(data):
                break
            self.received(code, data[start + HEADER.size : end])
            start = end
        self.unread = data[start:]

    def received(self, code: int, body: bytes) -> None:
        """One packet."""
        if self.member is not None:
            on_packet(self.member, code, body, splice_frame)
        elif code == LOGIN:
            login = decode_body(body)
            self.member = Member(login.user_id, decode_data(login.data).room_id, self.transport.write)
            answer = b'{"appId":10001,"userId":%d,"data":"true"}' % login.user_id
            self.transport.write(HEADER.pack(MAGIC, LOGIN, len(answer)) + answer)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if self.member is not None:
            self.member.leave()


async def main() -> None:
    """Serve."""
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", 0, backlog=4096)
    listening("tcp", server.sockets[0].getsockname()[1])
    await server.serve_forever()


uvloop.run(main())
