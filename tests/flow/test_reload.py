"""Settings that change while a whole server runs."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs

from flow.test_video import ON_ONE_SOURCE
from raw_clients import BIZ, ERROR, HEARTBEAT, RawTcpClient, RawWsClient, Rejected, frame
from servers import Start

pytestmark = ON_ONE_SOURCE

A_PAGE = "https://a.example"
SAY = {"bizCode": 5555, "data": {"roomId": 7, "content": "hello"}}


async def test_origins_and_limits_count_at_once(start_server: Start) -> None:
    async with start_server() as server:
        with pytest.raises(Rejected):
            await RawWsClient.connect(server.ws, "/", origin=A_PAGE)
        async with await server.tcp_peer(10001, room=7) as old:
            with capture_logs() as logs:
                await server.reload(
                    ws__allowed_origins=A_PAGE, limits__content_chars=4, limits__body_bytes=100, limits__connections=2
                )
            assert [each for each in logs if each["log_level"] != "debug"] == [
                {
                    "event": "read the settings again",
                    "log_level": "info",
                    "changed": [
                        "ws.allowed_origins",
                        "limits.body_bytes",
                        "limits.content_chars",
                        "limits.connections",
                    ],
                }
            ]
            await old.send(BIZ, **SAY)
            assert "4 at most" in (await old.expect(ERROR))["data"]["reason"]
            await old.send(HEARTBEAT, data="x" * 200)  # for connections that come from now on
            await old.expect(HEARTBEAT)
            async with await RawWsClient.connect(server.ws, "/", origin=A_PAGE):
                async with await RawTcpClient.connect(server.tcp) as third:
                    await third.expect_closed()
            await server.reload(limits__body_bytes=100)
            async with await RawTcpClient.connect(server.tcp) as new:
                await new.stream.send_all(frame(HEARTBEAT, b"x" * 101))
                assert "len 101" in (await new.expect(ERROR))["data"]["reason"]


async def test_rates_count_at_once(start_server: Start) -> None:
    async with start_server() as server:
        async with await server.tcp_peer(10001, room=7) as one, await server.ws_peer(10002, room=7) as other:
            await server.reload(
                limits__messages_per_second=1,
                limits__messages_burst=1,
                limits__packets_per_second=1,
                limits__packets_burst=1,
                limits__logins_per_second=1,
                limits__connections_per_address=3,
            )
            await one.send(BIZ, **SAY)
            await one.send(BIZ, **SAY)
            assert "1 a second at most" in (await one.expect(ERROR))["data"]["reason"]
            assert "1 a second are read" in (await one.expect(ERROR))["data"]["reason"]
            await other.expect(BIZ)
            await (await server.tcp_peer(10003)).stream.aclose()
            with pytest.raises(Rejected) as rejected:
                await server.ws_peer(10004)
            assert (rejected.value.status, "too many logins" in rejected.value.text) == (429, True)
            async with await RawTcpClient.connect(server.tcp), await RawTcpClient.connect(server.tcp) as too_many:
                await too_many.expect_closed()


async def test_what_cannot_count_is_said(start_server: Start) -> None:
    async with start_server() as server:
        with capture_logs() as logs:
            await server.reload(tcp__port=1, auth__secret="another secret of tests", messages__inbox=5)
        told: list[Any] = [(each["event"], each.get("settings", each.get("changed"))) for each in logs]
        assert told == [
            ("read the settings again", []),
            ("changed settings count only after a restart", ["tcp.port", "auth.secret", "messages.inbox"]),
        ]
        assert "another secret" not in str(logs)
        await (await server.tcp_peer(10001)).stream.aclose()


async def test_a_login_has_the_time_that_the_settings_give_it_now(start_server: Start) -> None:
    async with start_server(limits__login_seconds=0) as server:
        async with await RawTcpClient.connect(server.tcp) as slow:
            await server.reload(limits__login_seconds=0.01, limits__outbox_soft_bytes=10, limits__outbox_hard_bytes=20)
            assert "no login within 0.01 s" in (await slow.expect(ERROR))["data"]["reason"]
            await slow.expect_closed()
