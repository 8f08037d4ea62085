"""WebSocket on trio-websocket: envelopes in text messages, the first of which is the login.

The login is a packet and not the path, so that no proxy's access log has the token.

trio-websocket is held at arm's length. Its stream is opened and closed here, for it waits for a server that never
closes; its reader task runs in our nursery, for it raises what should be a result; its time limits are not used.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import Final

import h11
import trio
from trio_websocket import ConnectionClosed, ConnectionRejected, WebSocketConnection, wrap_client_stream
from wsproto.utilities import ProtocolError

from qiyu.client.background import BackgroundTasks
from qiyu.client.errors import ClientError, ConnectFailed, ConnectionLost, LoginRefused
from qiyu.client.options import Options
from qiyu.client.tcp import open_stream, open_tls
from qiyu.client.transport import MAX_BODY_BYTES, Address, Login, login_packet
from qiyu.errors import ProtocolViolation
from qiyu.protocol.envelope import decode, encode
from qiyu.protocol.packet import Packet

CLOSE_SECONDS: Final = 1
"""How long the closing handshake may take."""
REASON_CHARS: Final = 200

_OF_THE_LOGIN: Final = {HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
_PASSING: Final = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS}
_PHRASES: Final = {int(status): status.phrase for status in HTTPStatus}

# What the reader task raises at a server's nonsense: its own, and what it does not expect of the libraries it uses.
_READER_FAULTS: Final = (ConnectionClosed, ProtocolError, h11.ProtocolError, UnicodeError)


class WebSocketTransport:
    """Envelopes over a WebSocket."""

    def __init__(self, websocket: WebSocketConnection) -> None:
        self._websocket = websocket

    async def send(self, packets: Sequence[Packet]) -> None:
        """See `Transport.send`."""
        try:
            for packet in packets:
                await self._websocket.send_message(encode(packet.code, bytes(packet.body)).decode())
        except (ConnectionClosed, ProtocolError) as exc:
            raise _lost(exc) from None

    async def receive(self) -> list[Packet]:
        """See `Transport.receive`: one message, one packet."""
        try:
            message = await self._websocket.get_message()
        except ConnectionClosed as exc:
            raise _lost(exc) from None
        if not isinstance(message, str):
            raise ConnectionLost("the server does not speak the protocol: a binary message")
        try:
            return [decode(message.encode(), MAX_BODY_BYTES)]
        except ProtocolViolation as exc:
            raise ConnectionLost(f"the server does not speak the protocol: {exc.reason}") from None


@asynccontextmanager
async def open_websocket(address: Address, login: Login, options: Options) -> AsyncIterator[WebSocketTransport]:
    """An `OpenTransport` for ws:// and wss://."""
    stream = await _open_stream(address, options)
    websocket: WebSocketConnection | None = None
    try:
        async with BackgroundTasks() as nursery:
            websocket = await _handshake(nursery, stream, address, options)
            transport = WebSocketTransport(websocket)
            try:
                with suppress(ConnectionLost):  # what it said before it closed is still to be read
                    await transport.send([login_packet(login)])
                yield transport
            finally:
                with trio.move_on_after(CLOSE_SECONDS):
                    await websocket.aclose()
    except ConnectionRejected as exc:
        raise _rejected(exc, address) from None
    except _READER_FAULTS as exc:
        if websocket is None:
            raise ConnectFailed(f"{address.host}:{address.port} does not speak WebSocket: {exc}") from exc
        raise ConnectionLost(f"the server does not speak WebSocket: {exc}") from exc
    finally:
        await trio.aclose_forcefully(stream)


async def _open_stream(address: Address, options: Options) -> trio.SSLStream[trio.SocketStream] | trio.SocketStream:
    stream = await open_stream(address, options)
    return await open_tls(stream, address, options) if address.scheme == "wss" else stream


async def _handshake(
    nursery: trio.Nursery,
    stream: trio.SSLStream[trio.SocketStream] | trio.SocketStream,
    address: Address,
    options: Options,
) -> WebSocketConnection:
    host = f"[{address.host}]" if ":" in address.host else address.host
    try:
        # A server that closes without an answer looks like a silent one to trio-websocket.
        with trio.fail_after(options.connect_seconds):
            return await wrap_client_stream(
                nursery,
                stream,
                f"{host}:{address.port}",
                f"{address.path}/",
                max_message_size=MAX_BODY_BYTES,
                receive_buffer_size=None,
            )
    except trio.TooSlowError:
        raise ConnectFailed(f"{address.host}:{address.port} does not answer the WebSocket handshake") from None


def _rejected(exc: ConnectionRejected, address: Address) -> ClientError:
    """What an answer of HTTP, where there should be a WebSocket, says of the login or of the address."""
    reason = _reason(exc)
    if reason and exc.status_code in _OF_THE_LOGIN:
        return LoginRefused(reason, exc.status_code)
    answer = f"HTTP {exc.status_code} {_PHRASES.get(exc.status_code, '')}".rstrip()
    if exc.status_code in _OF_THE_LOGIN:
        return LoginRefused(f"{answer} instead of a WebSocket", exc.status_code)
    if exc.status_code in _PASSING or exc.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return ConnectFailed(f"{answer}{f': {reason}' if reason else ''}")
    where = f"{address.host}:{address.port}{address.path}/"
    return ConnectFailed(f"{answer} instead of a WebSocket from {where}: is that its address?")


def _reason(exc: ConnectionRejected) -> str:
    """What the server says in words; a page of HTML is for browsers."""
    kinds = [value for name, value in exc.headers or () if name.lower() == b"content-type"]
    if kinds and not kinds[0].lower().startswith(b"text/plain"):
        return ""
    text = (exc.body or b"")[:REASON_CHARS].decode(errors="replace").strip()
    return text if text.isprintable() and not text.startswith("<") else ""


def _lost(exc: ConnectionClosed | ProtocolError) -> ConnectionLost:
    if not isinstance(exc, ConnectionClosed) or exc.reason is None:
        return ConnectionLost("the connection broke")
    text = f" {exc.reason.reason}" if exc.reason.reason else ""
    return ConnectionLost(f"the server closed the connection: {exc.reason.code}{text}")
