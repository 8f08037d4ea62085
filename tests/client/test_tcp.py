"""The TCP transport, on streams in memory and on a real socket."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import pytest
import trio
from trio.testing import memory_stream_pair

from client.fakes import body_of, packet_of, receipt_packet
from qiyu.client import ConnectFailed, ConnectionLost, LoginRefused, Options, connect
from qiyu.client.options import DEFAULTS
from qiyu.client.tcp import TcpTransport, open_tcp
from qiyu.client.transport import Address, Login
from qiyu.protocol.packet import MsgCode, Packet
from qiyu.protocol.tcp import TcpWire

ANSWER = packet_of(MsgCode.LOGIN, data="true")


def frame(packet: Packet) -> bytes:
    return TcpWire.encode(packet.code, bytes(packet.body))


async def test_many_packets_are_one_write_and_come_back_in_any_portions() -> None:
    ours, theirs = memory_stream_pair()
    transport = TcpTransport(ours)
    packets = [Packet(MsgCode.BIZ, b'{"n":%d}' % number) for number in range(3)]
    await transport.send(packets)
    sent = bytes(await theirs.receive_some())
    assert sent == b"".join(frame(packet) for packet in packets)
    received: list[Packet] = []
    for byte in sent:
        await theirs.send_all(bytes([byte]))
        received += await transport.receive()
    assert [(packet.code, bytes(packet.body)) for packet in received] == [
        (packet.code, packet.body) for packet in packets
    ]


async def test_the_end_of_the_stream_is_a_lost_connection() -> None:
    ours, theirs = memory_stream_pair()
    transport = TcpTransport(ours)
    await theirs.aclose()
    with pytest.raises(ConnectionLost, match="closed"):
        await transport.receive()
    with pytest.raises(ConnectionLost, match="broke"):
        await transport.send([ANSWER])


async def test_what_is_not_the_protocol_is_a_lost_connection_after_what_was() -> None:
    ours, theirs = memory_stream_pair()
    transport = TcpTransport(ours)
    await theirs.send_all(frame(ANSWER) + b"HTTP/1.1 400 Bad Request")
    assert len(await transport.receive()) == 1
    with pytest.raises(ConnectionLost, match="does not speak the protocol: magic"):
        await transport.receive()


async def test_nobody_listens(autojump_clock: trio.testing.MockClock) -> None:
    with trio.socket.socket() as sock:
        await sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        with pytest.raises(ConnectFailed, match=f"cannot connect to 127.0.0.1:{port}: Connection refused"):
            await _open(port).__aenter__()


async def test_a_name_that_cannot_be_one() -> None:
    with pytest.raises(ConnectFailed, match="cannot connect"):
        await open_tcp(Address("tcp", "a..b", 1, ""), Login(10001, 10001, "t"), DEFAULTS).__aenter__()


async def test_an_answer_of_http_is_named(nursery: trio.Nursery) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    with pytest.raises(ConnectFailed, match="this port speaks HTTP: is it that of WebSocket"):
        await connect(f"tcp://127.0.0.1:{await _listen(nursery, serve)}", user_id=10001, token="").__aenter__()


async def test_a_login_over_a_real_socket(nursery: trio.Nursery) -> None:
    logins: list[Packet] = []

    async def serve(stream: trio.SocketStream) -> None:
        wire = TcpWire(0)
        async for data in stream:
            for packet in wire.receive_data(data):
                if packet.code == MsgCode.LOGIN:
                    logins.append(packet)
                await stream.send_all(frame(packet_of(MsgCode(packet.code), data="true")))
                if packet.code == MsgCode.LOGOUT:
                    await stream.aclose()
                    return

    async with connect(f"tcp://127.0.0.1:{await _listen(nursery, serve)}", user_id=10001, token="t%10001") as client:
        assert await client.logout()
    assert body_of(logins[0]) == {"appId": 10001, "userId": 10001, "token": "t%10001"}


async def test_a_receipt_over_a_second_connection_for_what_went_out_over_the_first(nursery: trio.Nursery) -> None:
    received: list[Packet] = []

    async def serve(stream: trio.SocketStream) -> None:
        wire = TcpWire(0)
        async for data in stream:
            for packet in wire.receive_data(data):
                answer = packet_of(MsgCode(packet.code), data="true")
                if packet.code == MsgCode.BIZ:
                    received.append(Packet(packet.code, bytes(packet.body)))
                    if len(received) == 1:
                        await stream.aclose()
                        return
                    answer = receipt_packet(body_of(packet)["clientMsgId"], "70")
                await stream.send_all(frame(answer))

    url = f"tcp://127.0.0.1:{await _listen(nursery, serve)}"
    options = Options(jitter=lambda: 0.0, logout_seconds=0.01)
    async with connect(url, user_id=10001, token="t", options=options) as client:
        assert await client.send_direct(10002, "x") == "70"
    assert received[0] == received[1]


async def test_a_refusal_over_a_real_socket(nursery: trio.Nursery) -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(frame(packet_of(MsgCode.ERROR, data={"code": 401, "reason": "no"})))
        await stream.aclose()

    with pytest.raises(LoginRefused, match="no"):
        await connect(f"tcp://127.0.0.1:{await _listen(nursery, serve)}", user_id=10001, token="").__aenter__()


def _open(port: int) -> AbstractAsyncContextManager[TcpTransport]:
    return open_tcp(Address("tcp", "127.0.0.1", port, ""), Login(10001, 10001, "t"), DEFAULTS)


async def _listen(nursery: trio.Nursery, serve: Callable[[trio.SocketStream], Awaitable[None]]) -> int:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    nursery.start_soon(trio.serve_listeners, serve, listeners)
    return int(listeners[0].socket.getsockname()[1])
