"""Where to connect, and with which token: asked anew before each connection, for both may have changed."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, TypeAlias, TypeVar

import trio

from qiyu.client.errors import ConnectFailed
from qiyu.client.options import Options
from qiyu.client.tcp import open_tcp
from qiyu.client.transport import Login, OpenTransport, Transport, parse_url
from qiyu.client.websocket import open_websocket

T = TypeVar("T")


class Access(NamedTuple):
    """The address of a server that lives, and a token for it."""

    url: str
    token: str


Token: TypeAlias = str | Callable[[], str | Awaitable[str]]
"""A login token, or what makes one: called before each connection, for a token opens connections for minutes only.

An OSError or a `ClientError` of it counts as a failed attempt; any other error leaves `connect`.
"""

Server: TypeAlias = str | Callable[[], str | Access | Awaitable[str] | Awaitable[Access]]
"""A server's URL, or what says where to go, called before each connection, maybe with a token as well: `Api.access`, or
what asks one's own backend. What it raises counts as with `Token`.
"""

FindAccess: TypeAlias = Callable[[], Awaitable[tuple[OpenTransport, str]]]
"""How to open the next connection, and the token for it."""


def find_access(server: Server, token: Token | None, options: Options) -> FindAccess:
    """Raises ValueError for a URL that is none, and where there is nothing to take a token from."""
    if isinstance(server, str):
        if token is None:
            raise ValueError("token: expected one, or a function that makes one")
        return with_token(_opener(server, options), token)

    async def find() -> tuple[OpenTransport, str]:
        found: str | Access = await _asked(server, "address")
        try:
            if isinstance(found, Access):
                return _opener(found.url, options), found.token
            opener = _opener(found, options)
        except ValueError as exc:
            raise ConnectFailed(f"no address: {exc}") from exc
        if token is None:
            raise ConnectFailed("no token: neither did one come with the address, nor was one given")
        return opener, await _made(token)

    return find


def with_token(opener: OpenTransport, token: Token) -> FindAccess:
    """To one and the same server."""

    async def find() -> tuple[OpenTransport, str]:
        return opener, await _made(token)

    return find


def require_trio() -> None:
    """Raises RuntimeError under asyncio, where this library would fail later and say less."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is None or trio.lowlevel.in_trio_task() or asyncio._get_running_loop() is None:
        return
    if asyncio.current_task() is None:  # a loop that somebody has left running, as playwright does
        return
    raise RuntimeError(
        "qiyu.client runs under trio, and this is asyncio: use it in a function that trio.run runs, beside asyncio in a"
        " thread of its own: await asyncio.to_thread(trio.run, main)"
    )


async def _made(token: Token) -> str:
    return token if isinstance(token, str) else await _asked(token, "token")


async def _asked(ask: Callable[[], T | Awaitable[T]], what: str) -> T:
    try:
        answer = ask()
        return await answer if isinstance(answer, Awaitable) else answer
    except OSError as exc:
        raise ConnectFailed(f"no {what}: {exc}") from exc


def _opener(url: str, options: Options) -> OpenTransport:
    address = parse_url(url)
    opener = open_tcp if address.scheme in {"tcp", "tls"} else open_websocket

    def open_transport(login: Login) -> AbstractAsyncContextManager[Transport]:
        return opener(address, login, options)

    return open_transport
