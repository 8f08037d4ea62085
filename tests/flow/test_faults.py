"""What goes wrong with one client is that client's affair."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from pathlib import Path
from typing import cast
from unittest.mock import ANY

import pytest
import trio
from structlog.testing import capture_logs
from wsproto.events import BytesMessage, TextMessage

from qiyu.handlers.registry import LOGGED_IN
from qiyu.routing.endpoint import Handler
from raw_clients import (
    ACK,
    BIZ,
    ERROR,
    HEARTBEAT,
    LOGIN,
    LOGOUT,
    ROOM,
    ROOM_CHAT,
    RawTcpClient,
    RawWsClient,
    Rejected,
    frame,
)
from servers import RunningServer, Start


async def alive(*peers: RawTcpClient | RawWsClient) -> None:
    """They are still there, and nothing came that they do not know of."""
    for peer in peers:
        await peer.send(HEARTBEAT)
        await peer.expect(HEARTBEAT)


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "magic"),
        (frame(HEARTBEAT, b"{}", magic=1), "magic 1"),
        (b"\x48\xf1\x00\x00\x03\xec\xff\xff\xff\xff", "len -1"),
        (b"\x48\xf1\x00\x00\x03\xec\x00\x01\x00\x01", "len 65537"),
        (frame(BIZ, b"{"), "JSON"),
        (frame(BIZ, b'{"data":"\xff"}'), "UTF-8"),
    ],
)
async def test_garbage_over_tcp_is_told_and_closed(server: RunningServer, sent: bytes, reason: str) -> None:
    async with await server.ws_peer(10002) as bystander:
        async with await server.tcp_peer(10001) as peer:
            await peer.stream.send_all(sent)
            error = (await peer.expect(ERROR))["data"]
            assert error["code"] == 400
            assert reason in error["reason"]
            await peer.expect_closed()
        await alive(bystander)


async def test_garbage_over_websocket_is_closed_with_the_code_for_it(server: RunningServer) -> None:
    async with await server.ws_peer(10001) as peer:
        await peer.send_event(TextMessage("no envelope"))
        assert (await peer.expect(ERROR))["data"]["code"] == 400
        assert (await peer.expect_closed()).code == 1008
    async with await server.ws_peer(10001) as peer:
        await peer.send_event(BytesMessage(b"binary"))
        assert (await peer.expect(ERROR))["data"]["code"] == 400
        assert (await peer.expect_closed()).code == 1003
    async with await server.ws_peer(10001) as peer:
        await peer.stream.send_all(b"\x81\x81\0\0\0\0\xff")
        assert (await peer.expect(ERROR))["data"]["code"] == 400
        assert (await peer.expect_closed()).code == 1007
    async with await server.ws_peer(10001) as peer:
        await peer.stream.send_all(b"\x81\x01a")  # not masked
        assert (await peer.expect(ERROR))["data"]["code"] == 400
        assert (await peer.expect_closed()).code == 1002
    async with await server.ws_peer(10001) as peer:
        await peer.stream.send_all(b"\x81\xff\0\0\0\0\0\x03\0\0\0\0\0\0")  # 192 KiB are announced, none comes
        assert (await peer.expect(ERROR))["data"]["code"] == 400
        assert (await peer.expect_closed()).code == 1009


async def test_logins_that_are_refused(server: RunningServer) -> None:
    token = server.token(10001)
    for fields in (
        {"appId": 10001, "userId": 10002, "token": token},
        {"appId": 10002, "userId": 10001, "token": token},
        {"appId": 10001, "userId": 10001, "token": token[:-8] + "AAA%10001"},
        {"appId": 10001, "userId": 10001},
    ):
        async with await RawTcpClient.connect(server.tcp) as peer:
            await peer.send(LOGIN, **fields)
            assert (await peer.expect(ERROR))["data"]["code"] == 401
            await peer.expect_closed()
    async with await RawTcpClient.connect(server.tcp) as peer:
        await peer.send(HEARTBEAT)
        assert (await peer.expect(ERROR))["data"]["code"] == 401
        await peer.expect_closed()


async def test_upgrades_that_are_refused(server: RunningServer) -> None:
    token = server.token(10001)
    for path, origin, status in (
        (f"/{token}/10002", None, 401),
        (f"/{token}x/10001", None, 401),
        (f"/{token}/5", None, 400),
        (f"/{token}/10001/1003", None, 400),
        ("/nonsense", None, 400),
        (f"/{token}/10001", "https://elsewhere.example", 403),
    ):
        with pytest.raises(Rejected) as rejected:
            await RawWsClient.connect(server.ws, path, origin)
        assert rejected.value.status == status
        assert token not in rejected.value.text
    escaped = token.replace("%", "%25")
    async with await RawWsClient.connect(server.ws, f"/{escaped}/10001/1001/nonsense", "http://localhost:8000") as peer:
        await peer.expect(LOGIN)
        assert (await peer.expect(ERROR))["data"]["code"] == 400  # no such room; but logged in
        await alive(peer)


async def test_a_silent_session_ends_after_two_heartbeats(start_server: Start) -> None:
    async with (
        start_server(session__heartbeat_seconds=0.1) as server,
        await server.tcp_peer(10001) as one,
        await server.ws_peer(10002) as two,
    ):
        for peer in (one, two):
            assert (await peer.expect(LOGOUT))["data"] == {"reason": "idle", "reconnect": True}
        await one.expect_closed()
        assert (await two.expect_closed()).code == 4008


async def test_whoever_does_not_log_in_is_closed(start_server: Start) -> None:
    async with start_server(limits__login_seconds=0.1) as server:
        async with await RawTcpClient.connect(server.tcp) as peer:
            assert (await peer.expect(ERROR))["data"]["code"] == 401
            await peer.expect_closed()
        async with await RawTcpClient.connect(server.ws) as half_a_handshake:
            await half_a_handshake.stream.send_all(b"GET / HTTP/1.1\r\n")
            await half_a_handshake.expect_closed()


async def test_a_peer_that_never_reads_misses_room_messages_and_harms_nobody(start_server: Start) -> None:
    content = "x" * 2000
    async with start_server(limits__outbox_soft_bytes=20_000, limits__outbox_hard_bytes=0) as server:
        deaf = await RawTcpClient.connect(server.tcp, receive_buffer=4096)
        await deaf.log_in(10001, server.token(10001), 1)
        async with deaf, await server.tcp_peer(10002, 1) as speaker, await server.ws_peer(10003, 1) as listener:
            count = 4000
            for n in range(count):
                await speaker.say(1, f"{n} {content[:1990]}")
                heard = await listener.expect(BIZ)
                assert heard["data"]["content"].startswith(f"{n} ")
            assert (
                20_000 <= await gauge(server, "outbox_bytes") < 30_000
            )  # the deaf one's, above its bound by a message
            heard_by_deaf = []
            with trio.fail_after(10):
                while True:
                    code, body = await deaf.next_packet()
                    if code == ERROR:
                        break
                    heard_by_deaf.append(int(body["data"]["content"].split()[0]))
            assert body["data"]["code"] == 206
            assert heard_by_deaf == list(range(len(heard_by_deaf)))
            assert len(heard_by_deaf) < count
            await speaker.say(1, "and now?")
            await listener.expect(BIZ)
            assert (await deaf.expect(BIZ))["data"]["content"] == "and now?"
            await alive(speaker, listener, deaf)
            assert await gauge(server, "outbox_bytes") == 0


async def gauge(server: RunningServer, name: str) -> int:
    """What /metrics says of it."""

    def read() -> str:
        with urllib.request.urlopen(f"http://{server.http}/metrics", timeout=10) as answer:
            text: str = answer.read().decode()
            return text

    lines = dict(line.split(" ") for line in (await trio.to_thread.run_sync(read)).splitlines() if line[0] != "#")
    return int(float(lines[f"qiyu_{name}"]))


async def test_a_peer_that_is_owed_too_much_ends_as_slow(start_server: Start) -> None:
    limits = {"limits__outbox_soft_bytes": 20_000, "limits__outbox_hard_bytes": 40_000, "messages__inbox": 0}
    async with start_server(**limits) as server:
        deaf = await RawTcpClient.connect(server.tcp, receive_buffer=4096)
        await deaf.log_in(10001, server.token(10001), 1)
        async with deaf, await server.tcp_peer(10002) as speaker:
            online = 2
            with trio.fail_after(20):
                while online == 2:
                    await speaker.tell(10001, "x" * 2000)
                    await speaker.send(ROOM, data={"roomId": 1})
                    online = (await speaker.expect(ROOM))["data"]["online"]
            code = BIZ
            with trio.fail_after(10):
                while code != LOGOUT:
                    code, body = await deaf.next_packet()
            assert body["data"] == {"reason": "slow", "reconnect": True}
            await deaf.expect_closed()
            await alive(speaker)


async def test_connections_over_the_limit_are_refused(start_server: Start) -> None:
    async with start_server(limits__connections=2) as server:
        async with await server.tcp_peer(10001) as one, await server.ws_peer(10002) as two:
            async with await RawTcpClient.connect(server.tcp) as three:
                await three.expect_closed()
            await alive(one, two)
            await one.send(LOGOUT)
            await one.expect(LOGOUT)
            await one.expect_closed()
            await alive(two)
        async with await server.tcp_peer(10003) as three:
            await alive(three)


async def test_a_bug_closes_the_connection_it_was_met_on(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setitem(cast("dict[int, Handler]", LOGGED_IN.handlers), LOGIN, broken)
    async with await server.ws_peer(10001) as bystander, await server.tcp_peer(10002) as one:
        with capture_logs() as logs:
            await one.send(LOGIN, token="not to be shown")
            await one.expect_closed()
            async with await server.ws_peer(10003) as two:
                await two.send(LOGIN)
                assert (await two.expect_closed()).code == 1011
        bugs = [entry["session"] for entry in logs if entry["log_level"] == "error"]
        assert len(bugs) == 2
        assert "user=10001/10002" in bugs[0]
        assert "not to be shown" not in str(logs)
        await alive(bystander)


async def test_a_reset_is_only_the_end_of_that_connection(server: RunningServer) -> None:
    async with await server.ws_peer(10001, 1) as bystander:
        for user in range(10002, 10022):
            peer = await server.tcp_peer(user, 1)
            peer.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # close by RST
            await peer.say(1, "gone")
            await trio.aclose_forcefully(peer.stream)
        for _ in range(20):
            await bystander.expect(BIZ)
        await alive(bystander)


async def test_stopping_tells_everybody_when_to_come_back(server: RunningServer) -> None:
    async with await server.tcp_peer(10001) as one, await server.ws_peer(10002) as two:
        async with await RawTcpClient.connect(server.tcp) as nobody:
            await alive(one)  # so that `nobody` has been accepted, too
            server.stop()
            for peer in (one, two):
                data = (await peer.expect(LOGOUT))["data"]
                assert (data["reason"], data["reconnect"]) == ("drain", True)
                assert 500 <= data["retryAfterMs"] <= 3000
            assert (await nobody.expect(LOGOUT))["data"]["reason"] == "drain"
            await one.expect_closed()
            assert (await two.expect_closed()).code == 1012
    with trio.fail_after(5):
        await server.stopped.wait()
    with pytest.raises(OSError, match="connect"):
        await RawTcpClient.connect(server.tcp)


async def test_stopping_does_not_wait_for_who_does_not_listen(server: RunningServer) -> None:
    async with await server.tcp_peer(10001), await server.ws_peer(10002):  # neither reads nor closes
        server.stop()
        with trio.fail_after(5):
            await server.stopped.wait()


async def test_a_database_file_that_was_removed_gets_no_receipt(start_server: Start, tmp_path: Path) -> None:
    """Its connections have it open and would take what is written; nobody would ever find it again."""
    async with start_server() as server, await server.tcp_peer(10001, room=1) as peer:
        await peer.send(BIZ, bizCode=ROOM_CHAT, clientMsgId="c-1", data={"roomId": 1, "content": "kept"})
        await peer.expect(ACK)
        (tmp_path / "qiyu.db").rename(tmp_path / "away.db")
        await peer.send(BIZ, bizCode=ROOM_CHAT, clientMsgId="c-2", data={"roomId": 1, "content": "not kept"})
        refused = await peer.expect(ERROR)
        assert (refused["data"]["code"], refused["clientMsgId"]) == (503, "c-2")
        assert await get(server, "/readyz") == (503, ANY)
        await alive(peer)
        (tmp_path / "away.db").rename(tmp_path / "qiyu.db")
        with trio.fail_after(10):
            while (await get(server, "/readyz"))[0] != 200:
                pass
        await peer.send(BIZ, bizCode=ROOM_CHAT, clientMsgId="c-2", data={"roomId": 1, "content": "kept again"})
        assert (await peer.expect(ACK))["clientMsgId"] == "c-2"


async def get(server: RunningServer, path: str) -> tuple[int, str]:
    """The status and the text of a page of its HTTP."""

    def read() -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://{server.http}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read().decode()

    return await trio.to_thread.run_sync(read)
