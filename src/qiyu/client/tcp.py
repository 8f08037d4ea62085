from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio

from qiyu.client.errors import ConnectFailed, ConnectionLost
from qiyu.client.options import Options
from qiyu.client.transport import MAX_BODY_BYTES, Address, Login, login_packet
from qiyu.protocol.packet import Packet
from qiyu.protocol.tcp import TcpWire


class TcpTransport:
    """Magic-number frames over a stream."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._wire = TcpWire(MAX_BODY_BYTES)
        self._is_new = True

    async def send(self, packets: Sequence[Packet]) -> None:
        """See `Transport.send`: however many packets, one write."""
        frames = b"".join([TcpWire.encode(packet.code, bytes(packet.body)) for packet in packets])
        try:
            await self._stream.send_all(frames)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise ConnectionLost("the connection broke") from None

    async def receive(self) -> list[Packet]:
        """See `Transport.receive`."""
        if self._wire.error is not None:
            raise ConnectionLost(f"the server does not speak the protocol: {self._wire.error.reason}")
        try:
            data = await self._stream.receive_some()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise ConnectionLost("the connection broke") from None
        if not data:
            raise ConnectionLost("the server closed the connection")
        if self._is_new and data.startswith(b"HTTP/"):
            raise ConnectFailed("this port speaks HTTP: is it that of WebSocket, whose addresses begin with ws://?")
        self._is_new = False
        return self._wire.receive_data(data)


@asynccontextmanager
async def open_tcp(address: Address, login: Login, options: Options) -> AsyncIterator[TcpTransport]:
    """An `OpenTransport` for tcp:// and tls://."""
    plain = await open_stream(address, options)
    stream = await open_tls(plain, address, options) if address.scheme == "tls" else plain
    try:
        transport = TcpTransport(stream)
        await transport.send([login_packet(login)])
        yield transport
    finally:
        await trio.aclose_forcefully(stream)


async def open_stream(address: Address, options: Options) -> trio.SocketStream:
    """A connected socket; raises `ConnectFailed`."""
    where = f"{address.host}:{address.port}"
    try:
        with trio.fail_after(options.connect_seconds):
            return await trio.open_tcp_stream(address.host, address.port)
    except trio.TooSlowError:
        raise ConnectFailed(f"{where} does not answer") from None
    except (OSError, UnicodeError) as exc:  # UnicodeError: a name that cannot be one
        raise ConnectFailed(f"cannot connect to {where}: {_reason(exc)}") from exc


async def open_tls(stream: trio.SocketStream, address: Address, options: Options) -> trio.SSLStream[trio.SocketStream]:
    """The same with TLS around it; raises `ConnectFailed`, and closes it then."""
    context = options.ssl_context or ssl.create_default_context()
    tls = trio.SSLStream(stream, context, server_hostname=address.host, https_compatible=True)
    try:
        with trio.fail_after(options.connect_seconds):
            await tls.do_handshake()
    except (trio.BrokenResourceError, trio.TooSlowError) as exc:
        await trio.aclose_forcefully(tls)
        raise ConnectFailed(f"TLS with {address.host}: {exc.__cause__ or 'no answer'}") from exc
    return tls


def _reason(exc: OSError | UnicodeError) -> str:
    # trio says that all attempts failed; why, say the errors below it.
    cause: BaseException = exc.__cause__ or exc
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    # "Error connecting to ('127.0.0.1', 8085): Connection refused", of which the caller says the first part itself
    return str((isinstance(cause, OSError) and cause.strerror) or cause).rpartition(": ")[2]
