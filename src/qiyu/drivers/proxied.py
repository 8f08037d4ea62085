"""Connections that a proxy passes on: what it says of each is read before the poller has it.

The header is read to its last byte and no further, so that what follows, TLS or not, is as if nobody had been there.
"""

from __future__ import annotations

import socket
from typing import Final

import trio

from qiyu.errors import ProtocolViolation
from qiyu.model import Address
from qiyu.protocol.proxy import HEAD, rest_length, source

HEADER_SECONDS: Final = 5.0


class ProxyGone(Exception):
    """It has closed the connection before it said anything, as those do that look whether a port is open."""


async def read_source(sock: socket.socket, proxy: Address) -> Address:
    """Where the connection came from that a proxy passes on: from the proxy itself where it says nothing of that.

    Raises `ProtocolViolation` where there is no header, within `HEADER_SECONDS`; `ProxyGone`; OSError.
    """
    stream = trio.socket.from_stdlib_socket(sock)
    with trio.move_on_after(HEADER_SECONDS):
        head = await _exactly(stream, HEAD.size)
        rest = await _exactly(stream, rest_length(head))
        return source(head, rest) or proxy
    raise ProtocolViolation(f"no PROXY protocol header within {HEADER_SECONDS:g} s")


async def _exactly(stream: trio.socket.SocketType, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = await stream.recv(size - len(data))
        if not more:
            if data:
                raise ProtocolViolation("the connection ended within a PROXY protocol header")
            raise ProxyGone
        data += more
    return data
