"""TLS on every listener of a whole server."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from structlog.testing import capture_logs

from certificates import make_certificate, needs_openssl, trusting
from qiyu.client import Client, ConnectFailed, Message, Options, connect
from raw_clients import BIZ, HEARTBEAT, LOGIN, LOGOUT, RawTcpClient
from servers import RunningServer, Start
from video import free_port

pytestmark = needs_openssl


def secured(files: tuple[Path, Path], **more: Any) -> dict[str, Any]:
    return {"tls__certificate": files[0], "tls__key": files[1]} | more


@asynccontextmanager
async def raw(server: RunningServer, trust: ssl.SSLContext) -> AsyncIterator[RawTcpClient]:
    """A client of frames, over TLS."""
    port = int(server.tcp.rpartition(":")[2])
    stream = trio.SSLStream(await trio.open_tcp_stream("127.0.0.1", port), trust, server_hostname="localhost")
    try:
        yield RawTcpClient(stream)  # type: ignore[arg-type]  # it is used as a stream, and no more
    finally:
        await trio.aclose_forcefully(stream)


async def hear(client: Client) -> str:
    with trio.fail_after(20):
        async for item in client:
            if isinstance(item, Message):
                return item.content
    raise AssertionError("it ended")


async def test_people_talk_over_all_of_them(start_server: Start, tmp_path: Path) -> None:
    files = make_certificate(tmp_path)
    trust = trusting(files[0])
    options = Options(ssl_context=trust)
    async with start_server(**secured(files)) as server:
        tcp, ws = (f"localhost:{each.rpartition(':')[2]}" for each in (server.tcp, server.ws))
        async with (
            connect(f"tls://{tcp}", user_id=10001, token=server.token(10001), room_id=7, options=options) as one,
            connect(f"wss://{ws}", user_id=10002, token=server.token(10002), room_id=7, options=options) as two,
        ):
            content = "a long one " * 180
            await one.send_room(content)
            assert await hear(two) == content
            await two.send_direct(10001, "and back")
            assert await hear(one) == "and back"

        assert await trio.to_thread.run_sync(status_of, server, trust) == 200


async def test_a_slow_reader_gets_every_message_whole(start_server: Start, tmp_path: Path) -> None:
    """The kernel's buffers are full meanwhile, in the middle of records."""
    files = make_certificate(tmp_path)
    settings = {"limits__outbox_soft_bytes": 0, "limits__outbox_hard_bytes": 0, "limits__content_chars": 0}
    async with start_server(**secured(files), **settings) as server, raw(server, trusting(files[0])) as slow:
        await slow.log_in(10001, server.token(10001), 7)
        async with raw(server, trusting(files[0])) as sender:
            await sender.log_in(10002, server.token(10002), 7)
            for number in range(200):
                data = {"roomId": 7, "content": f"{number} " + "x" * 50_000}
                await sender.send(BIZ, bizCode=5555, data=data)
            await sender.send(HEARTBEAT)
            await sender.expect(HEARTBEAT)  # all of them are on their way
            for number in range(200):
                content = (await slow.expect(BIZ))["data"]["content"]
                assert (content.split()[0], len(content)) == (str(number), len(f"{number} ") + 50_000)


async def test_an_encoder_may_come_over_tls(start_server: Start, tmp_path: Path) -> None:
    files, port = make_certificate(tmp_path), free_port()
    async with start_server(**secured(files, rtmp__port=port)):
        plain = await trio.open_tcp_stream("127.0.0.1", port)
        async with trio.SSLStream(
            plain, trusting(files[0]), server_hostname="localhost", https_compatible=True
        ) as stream:
            await stream.send_all(b"\x03" + bytes(1536))
            with trio.fail_after(10):
                assert (await stream.receive_some())[:1] == b"\x03"


@pytest.mark.parametrize("ws", [[], ["--ws"]])
async def test_qiyu_chat_with_an_authority_of_ones_own(start_server: Start, tmp_path: Path, ws: list[str]) -> None:
    files = make_certificate(tmp_path)
    async with start_server(**secured(files)) as server, raw(server, trusting(files[0])) as peer:
        await peer.log_in(10002, server.token(10002))
        where = ["--host", "localhost", "--port", (server.ws if ws else server.tcp).rpartition(":")[2], *ws]
        command = [sys.executable, "-m", "qiyu", "chat", "--user", "10001", "--to", "10002", *where, "--tls"]
        environ = os.environ | {"QIYU_TOKEN": server.token(10001)}

        async def chat(*options: str | Path) -> subprocess.CompletedProcess[bytes]:
            return await trio.run_process(
                [*command, *options], stdin=b"hello\n", env=environ, capture_stderr=True, check=False, cwd=tmp_path
            )

        with trio.fail_after(60):
            done = await chat("--ca", files[0])
            assert done.returncode == 0, done.stderr
            assert (await peer.expect(BIZ))["data"]["content"] == "hello"
            for ca in (tmp_path / "none.pem", files[1]):
                done = await chat("--ca", ca)
                assert (done.returncode, b"cannot be used" in done.stderr) == (2, True)


async def test_a_stop_waits_for_no_handshake(start_server: Start, tmp_path: Path) -> None:
    files = make_certificate(tmp_path)
    async with start_server(**secured(files, limits__login_seconds=0)) as server:
        async with await RawTcpClient.connect(server.http) as web, await RawTcpClient.connect(server.tcp) as other:
            await trio.testing.wait_all_tasks_blocked()
            server.stop()
            with trio.fail_after(5):
                assert await web.stream.receive_some() == b""
                assert await other.stream.receive_some() == b""
                await server.stopped.wait()


async def test_a_stop_says_good_bye_in_tls(start_server: Start, tmp_path: Path) -> None:
    files = make_certificate(tmp_path)
    async with start_server(**secured(files)) as server, raw(server, trusting(files[0])) as peer:
        await peer.log_in(10001, server.token(10001))
        server.stop()
        assert (await peer.expect(LOGOUT))["data"]["reason"] == "drain"
        await peer.expect_closed()
        with trio.fail_after(10):
            await server.stopped.wait()


async def test_what_does_not_speak_tls_harms_nobody(start_server: Start, tmp_path: Path) -> None:
    files = make_certificate(tmp_path)
    async with start_server(**secured(files)) as server, raw(server, trusting(files[0])) as peer:
        await peer.log_in(10001, server.token(10001))
        for garbage in (
            b"GET / HTTP/1.1\r\n\r\n",
            peer.packet(LOGIN, appId=10001),
            b"\x16\x03\x01\xff\xff" + bytes(99),
        ):
            for address in (server.tcp, server.ws, server.http):
                async with await RawTcpClient.connect(address) as other:
                    await other.stream.send_all(garbage)
                    await other.stream.send_eof()
                    with trio.fail_after(10), suppress(trio.BrokenResourceError):
                        while await other.stream.receive_some():
                            pass
        await peer.send(HEARTBEAT)
        await peer.expect(HEARTBEAT)
        connecting = connect(
            f"wss://localhost:{server.ws.rpartition(':')[2]}", user_id=10001, token=server.token(10001)
        )
        with pytest.raises(ConnectFailed, match="certificate"):
            await connecting.__aenter__()


async def test_a_handshake_that_stands_still(start_server: Start, tmp_path: Path) -> None:
    files = make_certificate(tmp_path)
    settings = secured(files, tls__handshakes=1, tls__handshake_seconds=0.3, limits__login_seconds=0)
    async with start_server(**settings) as server:
        with trio.fail_after(20):
            async with (
                await RawTcpClient.connect(server.tcp) as first,
                await RawTcpClient.connect(server.tcp) as second,
            ):
                assert await second.stream.receive_some() == b""  # no room for it
                assert await first.stream.receive_some() == b""  # its time is up
            async with await RawTcpClient.connect(server.http) as slow:
                assert await slow.stream.receive_some() == b""
        async with raw(server, trusting(files[0])) as peer:
            await peer.log_in(10001, server.token(10001))


async def test_some_listeners_and_not_others(start_server: Start, tmp_path: Path) -> None:
    files = make_certificate(tmp_path)
    async with start_server(**secured(files, tls__listeners="ws")) as server, await server.tcp_peer(10001):
        options = Options(ssl_context=trusting(files[0]))
        url = f"wss://localhost:{server.ws.rpartition(':')[2]}"
        async with connect(url, user_id=10002, token=server.token(10002), options=options):
            pass


async def test_a_certificate_is_renewed(start_server: Start, tmp_path: Path) -> None:
    files = make_certificate(tmp_path)
    (tmp_path / "more").mkdir()
    new = make_certificate(tmp_path / "more")
    before, after = trusting(files[0]), trusting(new[0])
    async with start_server(**secured(files)) as server, raw(server, before) as old:
        await old.log_in(10001, server.token(10001))
        shutil.copy(new[0], files[0])
        with capture_logs() as logs:  # half of it, as it may be seen for a moment
            await server.reload(limits__content_chars=1)
        assert logs[0]["event"] == "the settings have a mistake, and stay as they were"
        async with raw(server, before) as peer:
            await peer.log_in(10002, server.token(10002))
        shutil.copy(new[1], files[1])
        with capture_logs() as logs:
            await server.reload(limits__content_chars=1)
        (read_again,) = (each for each in logs if each["event"] == "read the settings again")
        assert read_again["changed"] == ["limits.content_chars"]
        async with raw(server, after) as peer:
            await peer.log_in(10002, server.token(10002))
        await old.send(HEARTBEAT)
        await old.expect(HEARTBEAT)
        async with raw(server, before) as peer:
            with trio.fail_after(10), pytest.raises(trio.BrokenResourceError):
                await peer.send(HEARTBEAT)
        assert await trio.to_thread.run_sync(status_of, server, after) == 200


def status_of(server: RunningServer, trust: ssl.SSLContext) -> int:
    """Of a call over HTTP with TLS."""
    url = f"https://localhost:{server.http.rpartition(':')[2]}/healthz"
    with urllib.request.urlopen(url, timeout=10, context=trust) as answer:
        return int(answer.status)
