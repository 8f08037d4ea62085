"""People talk: over TCP and WebSocket, in rooms and to each other."""

from __future__ import annotations

import time

import trio
from wsproto.events import Ping

from raw_clients import (
    ACK,
    BIZ,
    DIRECT,
    ERROR,
    HEARTBEAT,
    LOGIN,
    LOGOUT,
    ROOM,
    ROOM_CHAT,
    RawTcpClient,
    RawWsClient,
    body_of,
    frame,
)
from servers import RunningServer


async def test_a_room_chats_over_tcp_and_websocket(server: RunningServer) -> None:
    async with (
        await server.tcp_peer(10001, 7, nickname="一", avatar="a.png") as one,
        await server.ws_peer(10002, 7, nickname="二") as two,
        await server.tcp_peer(10003, 8) as elsewhere,
    ):
        before = time.time_ns() // 1_000_000
        await one.say(7, "你好", type=1, userId=99999, senderName="somebody else", extra=1)
        heard = await two.expect(BIZ)
        assert heard["userId"] == 10002
        assert heard["bizCode"] == ROOM_CHAT
        assert heard["msgId"].isdecimal()
        assert before <= heard["data"].pop("createTime") <= time.time_ns() // 1_000_000
        assert heard["data"] == {
            "userId": 10001,
            "roomId": 7,
            "type": 1,
            "content": "你好",
            "senderName": "一",
            "senderAvatar": "a.png",
        }
        await two.send(ACK, msgId=heard["msgId"])
        await two.say(7, 'back "quoted"\n')
        answer = await one.expect(BIZ)  # and no copy of its own message before it
        assert answer["data"]["content"] == 'back "quoted"\n'
        assert answer["data"]["senderName"] == "二"
        assert int(answer["msgId"]) > int(heard["msgId"])
        for peer in (one, two, elsewhere):  # the next packet of each is the answer to this: nothing else came
            await peer.send(HEARTBEAT)
            await peer.expect(HEARTBEAT)


async def test_direct_messages_go_to_one_user_and_back(server: RunningServer) -> None:
    async with await server.tcp_peer(10001) as one, await server.ws_peer(10002) as two:
        await two.tell(10001, "psst")
        heard = await one.expect(BIZ)
        assert (heard["userId"], heard["bizCode"]) == (10001, DIRECT)
        assert heard["data"]["userId"] == 10002
        assert heard["data"]["objectId"] == 10001
        assert heard["data"]["content"] == "psst"
        await one.send(BIZ, bizCode=ROOM_CHAT, data={"objectId": 10002, "content": "the older form"})
        answer = await two.expect(BIZ)
        assert answer["bizCode"] == ROOM_CHAT
        assert answer["data"]["senderId"] == answer["data"]["userId"] == 10001
        assert "roomId" not in answer["data"]


async def test_a_direct_message_to_nobody_comes_when_somebody_is_there(server: RunningServer) -> None:
    async with await server.tcp_peer(10001) as one:
        await one.tell(10009, "anybody?")
        await one.send(HEARTBEAT)
        await one.expect(HEARTBEAT)  # and no ERROR before it
        async with await server.ws_peer(10009) as nine:
            heard = await nine.expect(BIZ)
            assert (heard["userId"], heard["data"]["userId"]) == (10009, 10001)
            assert heard["data"]["content"] == "anybody?"


async def test_a_websocket_may_log_in_by_a_packet(server: RunningServer) -> None:
    async with await server.tcp_peer(10002, 3) as two, await RawWsClient.connect(server.ws, "/") as one:
        await one.send(LOGIN, appId=10001, userId=10001, token=server.token(10001), data={"roomId": 3})
        assert await one.expect(LOGIN) == {"appId": 10001, "userId": 10001, "data": "true"}
        await one.say(3, "hello")
        assert (await two.expect(BIZ))["data"]["content"] == "hello"
    async with await RawWsClient.connect(server.ws, "/") as one:
        await one.send(LOGIN, appId=10001, userId=10001, token=server.token(10009))
        assert (await one.expect(ERROR))["data"]["code"] == 401
        assert (await one.expect_closed()).code == 1008


async def test_a_login_may_come_byte_by_byte(server: RunningServer) -> None:
    async with await RawTcpClient.connect(server.tcp) as peer:
        login = frame(LOGIN, body_of(appId=10001, userId=10001, token=server.token(10001), data={"roomId": 3}))
        for byte in login:
            await peer.stream.send_all(bytes([byte]))
        await peer.expect(LOGIN)
        await peer.say(3, "alone")
        await peer.send(HEARTBEAT)
        await peer.expect(HEARTBEAT)


async def test_two_hundred_packets_in_one_write_arrive_in_order(server: RunningServer) -> None:
    async with await server.tcp_peer(10001, 1) as one, await server.ws_peer(10002, 1) as two:
        packets = [frame(BIZ, body_of(bizCode=ROOM_CHAT, data={"roomId": 1, "content": str(n)})) for n in range(200)]
        await one.stream.send_all(b"".join(packets))
        heard = [await two.expect(BIZ) for _ in packets]
        assert [body["data"]["content"] for body in heard] == [str(n) for n in range(200)]
        ids = [int(body["msgId"]) for body in heard]
        assert ids == sorted(set(ids))
        await two.send(ACK, msgId=heard[0]["msgId"], data=f"{[body['msgId'] for body in heard[1:]]}".replace("'", '"'))
        await two.send(HEARTBEAT)
        await two.expect(HEARTBEAT)


async def test_rooms_are_entered_and_left(server: RunningServer) -> None:
    async with await server.tcp_peer(10001) as one, await server.ws_peer(10002, 1) as two:
        await one.say(1, "too early")
        assert (await one.expect(ERROR))["data"]["code"] == 403
        await one.send(ROOM, data={"roomId": 1})
        assert (await one.expect(ROOM))["data"] == {"roomId": 1, "online": 2, "lastMsgId": ""}
        await one.say(1, "here")
        here = await two.expect(BIZ)
        assert here["data"]["content"] == "here"
        await one.send(ROOM, data={"roomId": None})
        assert (await one.expect(ROOM))["data"] == {"roomId": None, "online": 0}
        await two.say(1, "still there?")
        await two.send(ROOM, data={"roomId": 1, "afterMsgId": "1"})
        answer = (await two.expect(ROOM))["data"]
        assert answer.pop("lastMsgId") > here["msgId"]
        assert answer == {"roomId": 1, "online": 1, "recovered": False}
        await one.send(HEARTBEAT)
        await one.expect(HEARTBEAT)


async def test_a_newer_login_ends_the_older(server: RunningServer) -> None:
    async with await server.tcp_peer(10001, 1) as old, await server.ws_peer(10002, 1) as friend:
        async with await server.ws_peer(10001, 1) as new:
            body = await old.expect(LOGOUT)
            assert body["data"] == {"reason": "replaced", "reconnect": False}
            await old.expect_closed()
            await friend.tell(10001, "which of you?")
            assert (await new.expect(BIZ))["data"]["content"] == "which of you?"
            async with await server.tcp_peer(10001, 1):
                assert (await new.expect(LOGOUT))["data"]["reason"] == "replaced"
                assert (await new.expect_closed()).code == 4001


async def test_logout_is_answered_and_closed(server: RunningServer) -> None:
    async with await server.tcp_peer(10001, 1) as one, await server.ws_peer(10002, 1) as two:
        for peer in (one, two):
            await peer.send(LOGOUT)
            assert (await peer.expect(LOGOUT))["data"] == "true"
        await one.expect_closed()
        assert (await two.expect_closed()).code == 1000


async def test_a_peer_that_shuts_its_side_still_gets_its_answers(server: RunningServer) -> None:
    async with await server.tcp_peer(10001) as one:
        await one.send(HEARTBEAT)
        await one.stream.send_eof()
        await one.expect(HEARTBEAT)
        await one.expect_closed()


async def test_a_websocket_ping_is_answered(server: RunningServer) -> None:
    async with await server.ws_peer(10001) as one:
        await one.send_event(Ping(b"are you there"))
        await one.send(HEARTBEAT)
        await one.expect(HEARTBEAT)
        with trio.fail_after(10):
            while not one.pongs:
                await one.read()
