"""Between a connection and its protocol: packets out, packets in, and one error for whatever breaks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final, NamedTuple, Protocol, TypeAlias
from urllib.parse import urlsplit

from qiyu.protocol.bodies import ImMsgBody, encode_json
from qiyu.protocol.packet import MsgCode, Packet

MAX_BODY_BYTES: Final = 1 << 20
"""The longest packet a client takes; a server's are a small part of it."""

_DEFAULT_PORTS: Final = {"tcp": 8085, "tls": 8085, "ws": 80, "wss": 443}


class Transport(Protocol):
    """One open connection. Both raise `ConnectionLost`, and are called by one task each."""

    async def send(self, packets: Sequence[Packet]) -> None: ...

    async def receive(self) -> list[Packet]:
        """What came, maybe nothing complete yet."""
        ...


class Login(NamedTuple):
    """Who logs in."""

    app_id: int
    user_id: int
    token: str


def login_packet(login: Login) -> Packet:
    """What a connection begins with."""
    return Packet(MsgCode.LOGIN, encode_json(ImMsgBody(*login)))


OpenTransport: TypeAlias = Callable[[Login], AbstractAsyncContextManager[Transport]]
"""Connects and asks for the login, whose answer is the first packet to come; closes when left.

Raises `ConnectFailed` and `LoginRefused`.
"""


class Address(NamedTuple):
    """A server's URL, taken apart. `path` is where a WebSocket of the server is, without its last slash."""

    scheme: str
    host: str
    port: int
    path: str


def parse_url(url: str) -> Address:
    """Read `tcp://host:port`, `tls://host:port`, `ws://host:port` or `wss://host:port/path`; raises ValueError."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _not_ours(url) from None
    path = parts.path.rstrip("/")
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or (path and parts.scheme in {"tcp", "tls"}):
        raise _not_ours(url)
    if parts.query or parts.fragment or parts.username:
        raise _not_ours(url)
    return Address(parts.scheme, parts.hostname, port or _DEFAULT_PORTS[parts.scheme], path)


def _not_ours(url: str) -> ValueError:
    return ValueError(f"{url!r}: expected tcp://host:port, tls://host:port, ws://host:port or wss://host:port")
