"""Connections that come through a proxy which says, in the PROXY protocol, whose they are."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from certificates import make_certificate, needs_openssl, trusting
from flow.test_video import ON_ONE_SOURCE
from protocol.test_proxy import addresses, header
from raw_clients import ERROR, HEARTBEAT, LOGIN, RawTcpClient, body_of, frame
from servers import RunningServer, Start

pytestmark = ON_ONE_SOURCE

HEADER = b"".join(header(addresses("203.0.113.7", "192.0.2.1") + b"\x03\x00\x04more"))
HERE = '["127.0.0.0/8"]'
UPGRADE = (
    "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nOrigin: https://a.example\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def login(server: RunningServer, user: int) -> bytes:
    return frame(LOGIN, body_of(appId=10001, userId=user, token=server.token(user)))


async def test_the_address_is_the_clients_on_both_ports(start_server: Start) -> None:
    async with start_server(tcp__proxy_protocol=HERE, ws__proxy_protocol=HERE) as server:
        with capture_logs() as logs:
            async with await RawTcpClient.connect(server.tcp) as peer:
                await peer.stream.send_all(HEADER + frame(HEARTBEAT, b""))
                assert (await peer.expect(ERROR))["data"]["code"] == 401
            async with await RawTcpClient.connect(server.ws) as peer:
                await peer.stream.send_all(HEADER + UPGRADE.encode())
                with trio.fail_after(10):
                    assert (await peer.stream.receive_some()).startswith(b"HTTP/1.1 403 ")
        refused = [each for each in logs if each["event"] in {"connection refused", "websocket refused"}]
        assert [each["address"] for each in refused] == ["203.0.113.7"] * 2
        async with await RawTcpClient.connect(server.tcp) as peer:
            await peer.stream.send_all(HEADER + login(server, 10001))
            await peer.expect(LOGIN)


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\n\r\n", HEADER[:20]])
async def test_without_one_a_proxys_connection_is_refused(start_server: Start, sent: bytes) -> None:
    async with start_server(tcp__proxy_protocol=HERE) as server:
        with capture_logs() as logs:
            for _ in range(2):
                async with await RawTcpClient.connect(server.tcp) as peer:
                    await peer.stream.send_all(sent or login(server, 10001))
                    with suppress(trio.BrokenResourceError):  # it may have been closed at once
                        await peer.stream.send_eof()
                    await peer.expect_closed()
        told = [each for each in logs if each["event"] == "a proxy's connection was refused"]
        assert [each["address"] for each in told] == ["127.0.0.1"]  # once, until one is good
        async with await server.ws_peer(10002):
            pass


async def test_from_nobody_else_is_one_believed(start_server: Start) -> None:
    async with start_server(tcp__proxy_protocol='["192.0.2.0/24"]') as server:
        with capture_logs() as logs:
            async with await RawTcpClient.connect(server.tcp) as peer:
                await peer.stream.send_all(HEADER + login(server, 10001))
                assert "magic" in (await peer.expect(ERROR))["data"]["reason"]
                await peer.expect_closed()
        assert "203.0.113.7" not in str(logs)


async def test_connections_in_front_of_their_header_are_counted(start_server: Start) -> None:
    async with start_server(tcp__proxy_protocol=HERE, limits__connections=1) as server:
        async with await RawTcpClient.connect(server.tcp) as first:
            await trio.testing.wait_all_tasks_blocked()
            async with await RawTcpClient.connect(server.tcp) as second:
                await second.expect_closed()
            await first.stream.send_all(HEADER + login(server, 10001))
            await first.expect(LOGIN)


@needs_openssl
async def test_in_front_of_tls(start_server: Start, tmp_path: Path) -> None:
    files = make_certificate(tmp_path)
    settings = {"tls__certificate": files[0], "tls__key": files[1], "tcp__proxy_protocol": HERE}
    async with start_server(**settings) as server:
        stream = await trio.open_tcp_stream("127.0.0.1", int(server.tcp.rpartition(":")[2]))
        await stream.send_all(HEADER)
        tls: trio.SSLStream[trio.SocketStream] = trio.SSLStream(
            stream, trusting(files[0]), server_hostname="localhost", https_compatible=True
        )
        async with tls:
            await tls.send_all(login(server, 10001))
            with trio.fail_after(10):
                assert await tls.receive_some()
            assert tls.version() in {"TLSv1.3", "TLSv1.2"}


async def test_it_may_be_switched_on_while_the_server_runs(start_server: Start) -> None:
    async with start_server() as server:
        await server.reload(tcp__proxy_protocol=HERE)
        async with await RawTcpClient.connect(server.tcp) as peer:
            await peer.stream.send_all(HEADER + login(server, 10001))
            await peer.expect(LOGIN)
