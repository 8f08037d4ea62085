"""What is promised about messages, over real sockets and across restarts."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from wsproto.events import CloseConnection

from qiyu.storage.database import Database
from qiyu.storage.urls import SQLITE_FILE
from raw_clients import ACK, BIZ, DIRECT, ERROR, HEARTBEAT, LOGOUT, ROOM, ROOM_CHAT, RawTcpClient, RawWsClient
from servers import RunningServer, Start

Peers = tuple[RawTcpClient | RawWsClient, ...]


async def quiet(*peers: RawTcpClient | RawWsClient) -> None:
    """Nothing has come for them but what they have read."""
    for peer in peers:
        await peer.send(HEARTBEAT)
        await peer.expect(HEARTBEAT)


async def say(peer: RawTcpClient | RawWsClient, room: int, content: str, client_msg_id: str) -> None:
    await peer.send(BIZ, bizCode=ROOM_CHAT, clientMsgId=client_msg_id, data={"roomId": room, "content": content})


async def tell(peer: RawTcpClient | RawWsClient, user: int, content: str, client_msg_id: str) -> None:
    await peer.send(BIZ, bizCode=DIRECT, clientMsgId=client_msg_id, data={"objectId": user, "content": content})


async def receipt(peer: RawTcpClient | RawWsClient, client_msg_id: str) -> str:
    """The msgId that the next packet, a receipt, names."""
    body = await peer.expect(ACK)
    assert set(body) == {"appId", "userId", "msgId", "clientMsgId"}
    assert body["clientMsgId"] == client_msg_id
    msg_id: str = body["msgId"]
    return msg_id


async def heard(peer: RawTcpClient | RawWsClient) -> tuple[str, str]:
    """msgId and content of the next packet, a message."""
    body = await peer.expect(BIZ)
    return body["msgId"], body["data"]["content"]


async def come_back(peer: RawTcpClient | RawWsClient, room: int, after: str) -> dict[str, Any]:
    """The answer to an entry."""
    await peer.send(ROOM, data={"roomId": room, "afterMsgId": after})
    data: dict[str, Any] = (await peer.expect(ROOM))["data"]
    return data


async def test_a_message_that_asks_for_it_is_receipted_and_delivered_under_one_msg_id(server: RunningServer) -> None:
    async with await server.tcp_peer(10001, 7) as one, await server.ws_peer(10002, 7) as two:
        await say(one, 7, "stored", "a")
        msg_id = await receipt(one, "a")
        assert await heard(two) == (msg_id, "stored")
        await tell(two, 10001, "this too", "a")  # another's clientMsgId
        msg_id = await receipt(two, "a")
        assert await heard(one) == (msg_id, "this too")
        await one.say(7, "at once")
        assert (await heard(two))[1] == "at once"
        await quiet(one, two)


async def test_a_message_sent_again_has_the_same_msg_id_and_comes_once(server: RunningServer) -> None:
    async with await server.ws_peer(10002, 7) as two:
        async with await server.tcp_peer(10001, 7) as one:
            await say(one, 7, "once", "a")
            msg_id = await receipt(one, "a")
            await say(one, 7, "once", "a")
            assert await receipt(one, "a") == msg_id
            await say(one, 7, "something else", "a")
            error = await one.expect(ERROR)
            assert (error["data"]["code"], error["clientMsgId"]) == (409, "a")
        async with await server.ws_peer(10001) as one:  # in no room, so it could not be sent now
            await say(one, 7, "once", "a")
            assert await receipt(one, "a") == msg_id
        assert await heard(two) == (msg_id, "once")
        await quiet(two)


async def test_a_message_sent_again_after_a_restart_comes_once(start_server: Start) -> None:
    async with start_server() as server, await server.tcp_peer(10001) as one:
        await tell(one, 10002, "once", "a")
        msg_id = await receipt(one, "a")
        await stop(server, one)
    async with start_server() as server, await server.tcp_peer(10001) as one:
        await tell(one, 10002, "once", "a")
        assert await receipt(one, "a") == msg_id
        async with await server.ws_peer(10002) as two:
            assert await heard(two) == (msg_id, "once")
            await quiet(two)


@pytest.mark.parametrize("asks", [True, False])
async def test_a_direct_message_comes_at_each_login_until_it_is_acknowledged(server: RunningServer, asks: bool) -> None:
    async with await server.tcp_peer(10001) as one:
        await tell(one, 10002, "1", "a")
        await one.expect(ACK)
        await (tell(one, 10002, "2", "b") if asks else one.tell(10002, "2"))
        await quiet_or_receipt(one, asks=asks)
        async with await server.tcp_peer(10002) as two:
            first, second = await heard(two), await heard(two)
            assert (first[1], second[1]) == ("1", "2")
            assert first[0] < second[0]
            await two.send(ACK, msgId=first[0])
            await quiet(two)
        async with await server.ws_peer(10002) as two:
            assert await heard(two) == second
            await tell(one, 10002, "3", "c")
            third = await heard(two)
            assert third == (await receipt(one, "c"), "3")
            await two.send(ACK, msgId=second[0], data=[third[0]])
            await quiet(two)
        async with await server.tcp_peer(10002) as two:
            await tell(one, 10002, "4", "d")
            assert (await heard(two))[1] == "4"


async def quiet_or_receipt(peer: RawTcpClient | RawWsClient, *, asks: bool) -> None:
    """The server has taken what was sent."""
    await (peer.expect(ACK) if asks else quiet(peer))


async def test_what_was_missed_in_a_room_comes_after_a_restart(start_server: Start) -> None:
    async with (
        start_server() as server,
        await server.tcp_peer(10001, 7) as one,
        await server.ws_peer(10002, 7) as two,
    ):
        await say(one, 7, "seen", "a")
        seen, _ = await heard(two)
        await two.send(LOGOUT)
        await two.expect(LOGOUT)
        missed = []
        await one.expect(ACK)
        for n in range(3):
            await say(one, 7, f"missed {n}", f"m{n}")
            missed.append((await receipt(one, f"m{n}"), f"missed {n}"))
        await stop(server, one)
    async with (
        start_server() as server,
        await server.tcp_peer(10001, 7) as one,
        await server.ws_peer(10002) as two,
        await server.tcp_peer(10003) as three,
    ):
        assert await come_back(two, 7, seen) == {
            "roomId": 7,
            "online": 2,
            "lastMsgId": missed[-1][0],
            "recovered": True,
        }
        assert [await heard(two) for _ in missed] == missed
        await say(one, 7, "live", "b")
        live = await heard(two)
        assert live == (await receipt(one, "b"), "live")
        assert await come_back(three, 7, missed[1][0]) == {
            "roomId": 7,
            "online": 3,
            "lastMsgId": live[0],
            "recovered": True,
        }
        assert [await heard(three), await heard(three)] == [missed[2], live]
        await quiet(two, three)


async def test_what_is_not_acknowledged_comes_once_more(start_server: Start) -> None:
    async with (
        start_server(ack__retry_seconds=0.3) as server,
        await server.tcp_peer(10001, 7) as one,
        await server.ws_peer(10002, 7) as two,
    ):
        await one.say(7, "in the room")
        await one.tell(10002, "to you")
        await one.say(7, "acknowledged")
        first = [await heard(two) for _ in range(3)]
        await two.send(ACK, msgId=first[2][0])
        begin = trio.current_time()
        again = [await heard(two), await heard(two)]
        assert trio.current_time() - begin > 0.2
        assert sorted(again) == first[:2]
        await quiet(two)


async def test_a_script_that_shuts_its_side_gets_its_receipts(server: RunningServer) -> None:
    async with await server.ws_peer(10002, 7) as two:
        async with await server.tcp_peer(10001, 7) as one:
            for n in range(3):
                await say(one, 7, str(n), str(n))
            await one.stream.send_eof()
            msg_ids = [await receipt(one, str(n)) for n in range(3)]
            await one.expect_closed()
        assert [await heard(two) for _ in range(3)] == [(msg_id, str(n)) for n, msg_id in enumerate(msg_ids)]
        await quiet(two)


@pytest.mark.parametrize("way", ["close frame", "end of stream", "LOGOUT"])
@pytest.mark.parametrize("ws", [False, True])
async def test_what_came_before_a_good_bye_is_handled_before_it(start_server: Start, ws: bool, way: str) -> None:
    """A room that memory does not know, messages to it, and the good-bye, all in one write."""
    if way == "close frame" and not ws:
        return
    async with start_server() as server, await server.tcp_peer(10002, 7) as two:
        one = await (server.ws_peer if ws else server.tcp_peer)(10001)
        async with one:
            packets = [
                one.packet(ROOM, data={"roomId": 7, "afterMsgId": "1"}),
                one.packet(BIZ, bizCode=ROOM_CHAT, data={"roomId": 7, "content": "at once"}),
                one.packet(BIZ, bizCode=ROOM_CHAT, data={"roomId": 7, "content": "stored"}, clientMsgId="a"),
            ]
            if isinstance(one, RawWsClient) and way == "close frame":
                packets.append(one.event(CloseConnection(1000)))
            elif way == "LOGOUT":
                packets.append(one.packet(LOGOUT))
            await one.stream.send_all(b"".join(packets))
            if way == "end of stream":
                await one.stream.send_eof()
            assert (await one.expect(ROOM))["data"]["roomId"] == 7
            msg_id = await receipt(one, "a")
            if way == "LOGOUT":
                await one.expect(LOGOUT)
            assert (await one.expect_closed()).code == (1000 if ws else None)
        assert (await heard(two))[1] == "at once"
        assert await heard(two) == (msg_id, "stored")
        await quiet(two)


async def test_a_hundred_that_come_back_at_once_make_few_queries(
    start_server: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Database] = []
    init = Database.__init__

    def remember(database: Database, *args: Any) -> None:
        init(database, *args)
        opened.append(database)

    monkeypatch.setattr(Database, "__init__", remember)
    async with start_server() as server, await server.tcp_peer(10001, 7) as one:
        for n in range(10):
            await say(one, 7, str(n), str(n))
        missed = [(await receipt(one, str(n)), str(n)) for n in range(10)]
        await stop(server, one)
    async with start_server() as server:
        queries = opened[-1].queries
        done = [trio.Event() for _ in range(100)]

        async def member(user: int, is_done: trio.Event) -> None:
            async with await server.tcp_peer(user) as peer:
                assert (await come_back(peer, 7, missed[0][0]))["recovered"]
                assert [await heard(peer) for _ in missed[1:]] == missed[1:]
                is_done.set()
                await done[-1].wait()

        async with trio.open_nursery() as nursery:
            for user, is_done in enumerate(done, 20_000):
                nursery.start_soon(member, user, is_done)
        assert opened[-1].queries - queries < 50


async def test_what_was_accepted_is_stored_before_the_server_stops(start_server: Start, tmp_path: Path) -> None:
    async with (
        start_server() as server,
        await server.tcp_peer(10001) as one,
        await server.ws_peer(10003) as three,
    ):
        others = sqlite3.connect(tmp_path / SQLITE_FILE, isolation_level=None)
        others.execute("BEGIN IMMEDIATE")  # so it is not stored yet
        for peer, n in ((one, 1), (three, 2), (one, 3)):
            await peer.tell(10002, str(n))
            await quiet(peer)
        server.stop()
        for peer in (one, three):
            assert (await peer.expect(LOGOUT))["data"]["reason"] == "drain"
        others.close()
        await peers_close_until(server.stopped.wait, one, three)
    async with start_server() as server, await server.ws_peer(10002) as two:
        assert [(await heard(two))[1] for _ in range(3)] == ["1", "2", "3"]


async def stop(server: RunningServer, *peers: RawTcpClient | RawWsClient) -> None:
    """As SIGTERM does."""
    server.stop()
    await peers_close_until(server.stopped.wait, *peers)


async def peers_close_until(event: Callable[[], Awaitable[None]], *peers: RawTcpClient | RawWsClient) -> None:
    """They hear that the server stops, and close."""
    for peer in peers:
        await trio.aclose_forcefully(peer.stream)
    with trio.fail_after(10):
        await event()
