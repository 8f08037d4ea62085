"""One connection: what goes out, what comes in, and when it is given up."""

from __future__ import annotations

import msgspec
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from client.fakes import USER, FakeServer, body_of, chat_packet, error_packet, logout_packet, packet_of
from qiyu.client import ConnectionLost, Disconnected, Error, Kicked, Message, RequestRefused, RoomEvent
from qiyu.protocol.packet import MsgCode, Packet


async def test_messages_come_as_they_were_said(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client(room_id=1) as client:
        server.session.push(chat_packet(1, "one"), chat_packet(2, "two"))
        server.session.push(chat_packet(3, "three", room_id=None))
        items = [await anext(client) for _ in range(3)]
    contents = [item.content for item in items if isinstance(item, Message)]
    assert contents == ["one", "two", "three"]


async def test_acknowledgements_gather_in_one_packet(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client() as client:
        server.session.push(*[chat_packet(number) for number in range(1, 6)])
        for _ in range(5):
            await anext(client)
    (ack,) = [body_of(packet) for packet in server.session.received if packet.code == MsgCode.ACK]
    assert ack["msgId"] == "1"
    assert msgspec.json.decode(ack["data"]) == ["2", "3", "4", "5"]


async def test_an_idle_client_acknowledges_at_once(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client() as client:

        async def read() -> None:
            async for _ in client:
                pass

        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            for number in (1, 2):
                server.session.push(chat_packet(number))
                await wait_all_tasks_blocked()
                assert server.session.acknowledged()[-1] == str(number)
            nursery.cancel_scope.cancel()
    assert trio.current_time() == server.attempts[0]


async def test_more_acknowledgements_than_a_packet_holds_take_several(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client() as client:
        server.session.push(*[chat_packet(number) for number in range(900)])
        await wait_all_tasks_blocked()
        for _ in range(900):
            await anext(client)
    assert server.session.acknowledged() == [str(number) for number in range(900)]
    assert all(len(packet.body) < 65_536 for packet in server.session.received)


async def test_a_double_is_shown_once(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client() as client:
        server.session.push(chat_packet(1, "one"), chat_packet(1, "one"), chat_packet(2, "two"))
        items = [await anext(client) for _ in range(2)]
    assert [item.content for item in items if isinstance(item, Message)] == ["one", "two"]


async def test_a_message_of_a_later_server_is_acknowledged(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client():
        server.session.push(packet_of(MsgCode.BIZ, bizCode=6000, msgId="5", data="?"), Packet(2000, b"?"))
        await wait_all_tasks_blocked()
    assert server.session.acknowledged() == ["5"]


async def test_room_events_are_shown_and_not_acknowledged(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client(room_id=1) as client:
        data = {"roomId": 1, "event": "closed", "online": 0}
        server.session.push(packet_of(MsgCode.BIZ, bizCode=5557, data=data))
        item = await anext(client)
        assert isinstance(item, RoomEvent)
        assert item.event == "closed"
        assert client.room_id is None
    assert server.session.acknowledged() == []


async def test_heartbeats_go_out_even_while_nobody_reads(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client(queue_items=1):
        server.session.push(*[chat_packet(number) for number in range(5)])
        await trio.sleep(95)
        assert server.session.codes().count(MsgCode.HEARTBEAT) == 3
    assert len(server.sessions) == 1


async def test_a_silent_server_is_given_up_after_two_heartbeats(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client() as client:
        start = trio.current_time()
        server.ignored.add(MsgCode.HEARTBEAT)
        item = await anext(client)
        assert item == Disconnected("the server was silent for 60 s", 0.5)
        assert trio.current_time() - start == pytest.approx(60)


async def test_a_server_that_does_not_read_is_given_up(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client() as client, trio.open_nursery() as nursery:

        async def talk() -> None:
            while True:
                server.session.push(packet_of(MsgCode.HEARTBEAT, data="true"))
                await trio.sleep(10)

        nursery.start_soon(talk)
        server.reads_nothing = True
        with pytest.raises(ConnectionLost, match="did not read for 60 s"):
            await client.send_direct(10002, "hi", receipt=False)
        server.reads_nothing = False
        nursery.cancel_scope.cancel()


async def test_a_full_queue_stops_the_reading_until_the_application_reads(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client(queue_items=3) as client:
        for number in range(10):
            server.session.push(chat_packet(number))
        await wait_all_tasks_blocked()
        assert server.session.reads == 1 + 4  # the login's answer, three that are queued, one that waits
        for number in range(10):
            item = await anext(client)
            assert isinstance(item, Message)
            assert item.msg_id == str(number)
            await wait_all_tasks_blocked()
        assert server.session.reads == 11


async def test_entering_a_room_with_a_full_queue_still_gets_its_answer(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client(queue_items=3) as client:
        server.session.push(*[chat_packet(number) for number in range(5)])
        await wait_all_tasks_blocked()
        answer = await client.enter_room(2)
        assert (answer.room_id, answer.online) == (2, 3)


async def test_an_error_about_a_message_is_an_item(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client() as client:
        server.session.push(error_packet(429, "too fast"))
        assert await anext(client) == Error(429, "too fast")


async def test_an_error_about_a_room_is_raised(autojump_clock: MockClock) -> None:
    server = FakeServer()
    server.room_errors[9] = (404, "no such room")
    async with server.client(room_id=1) as client:
        with pytest.raises(RequestRefused, match="no such room") as caught:
            await client.enter_room(9)
        assert caught.value.code == 404
        assert client.room_id == 1


async def test_a_kick_ends_the_iteration_and_the_calls(autojump_clock: MockClock) -> None:
    server = FakeServer()

    async def body() -> None:
        async with server.client(room_id=1) as client:
            server.session.push(chat_packet(1), logout_packet("replaced", reconnect=False))
            server.session.hang_up()
            assert isinstance(await anext(client), Message)
            with pytest.raises(Kicked) as caught:
                await anext(client)
            assert caught.value.reason == "replaced"
            await client.send_room("too late")

    with pytest.raises(Kicked, match="replaced"):
        await body()
    assert len(server.sessions) == 1


@pytest.mark.parametrize("body", [b"", b"\xff", b"[]", b'{"data":5}', b'{"data":"?"}', b'{"data":"{}"}'])
@pytest.mark.parametrize("code", [MsgCode.LOGOUT, MsgCode.ROOM, MsgCode.ERROR])
async def test_a_packet_that_cannot_be_read_ends_the_connection(
    code: MsgCode, body: bytes, autojump_clock: MockClock
) -> None:
    server = FakeServer()
    async with server.client() as client:
        server.session.push(Packet(code, body))
        item = await anext(client)
        assert isinstance(item, Disconnected)
        assert f"the server sent a {code} that cannot be read" in item.reason


async def test_what_is_sent_before_logout_goes_before_it(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client(room_id=1) as client:
        server.session.push(chat_packet(1))
        await anext(client)
        await client.send_room("bye")
    assert server.session.codes()[-3:] == [MsgCode.BIZ, MsgCode.ACK, MsgCode.LOGOUT]
    assert server.session.login.user_id == USER
