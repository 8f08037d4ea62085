"""Catching up: after which message a room is entered, what comes then, and that it is shown once."""

from __future__ import annotations

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from client.fakes import FakeServer, chat_packet, error_packet, packet_of
from qiyu.client import CaughtUp, Client, Disconnected, Error, Item, Message, Reconnected
from qiyu.protocol.packet import MsgCode


async def take(client: Client, count: int) -> list[str | Item]:
    items = [await anext(client) for _ in range(count)]
    return [item.msg_id if isinstance(item, Message) else item for item in items]


async def test_a_reconnection_names_the_last_message_of_the_room(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client(room_id=1) as client:
        server.session.push(chat_packet(10), chat_packet(12), chat_packet(11), chat_packet(99, room_id=None))
        await take(client, 4)
        server.catch_up = [chat_packet(13), chat_packet(14)]
        server.session.hang_up()
        assert isinstance(await anext(client), Disconnected)
        assert await take(client, 3) == [Reconnected(1, recovered=True), "13", "14"]
        assert server.sessions[0].entries() == [(1, None)]
        assert server.session.entries() == [(1, "12")]


async def test_whether_messages_were_left_out_is_told_before_those_that_come(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client(room_id=1) as client:
        server.session.push(chat_packet(10))
        await take(client, 1)
        server.recovered = False
        server.catch_up = [chat_packet(300)]
        server.session.hang_up()
        assert isinstance(await anext(client), Disconnected)
        assert await take(client, 2) == [Reconnected(1, recovered=False), "300"]


async def test_nothing_came_yet_and_so_nothing_is_named(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client(room_id=1) as client:
        server.session.hang_up()
        assert isinstance(await anext(client), Disconnected)
        assert await anext(client) == Reconnected(1, recovered=None)
        assert server.session.entries() == [(1, None)]


async def test_who_comes_back_to_a_room_catches_up(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client(room_id=1) as client:
        server.session.push(chat_packet(10))
        await take(client, 1)
        await client.enter_room(2)
        await client.leave_room()
        server.catch_up = [chat_packet(11)]
        assert (await client.enter_room(1)).recovered is True
        assert await take(client, 1) == ["11"]
        assert server.session.entries() == [(1, None), (2, None), (None, None), (1, "10")]


async def test_a_caller_may_name_the_message_from_an_earlier_run(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client() as client:
        assert (await client.enter_room(1, after_msg_id="5")).recovered is True
        server.session.hang_up()
        assert isinstance(await anext(client), Disconnected)
        assert await anext(client) == Reconnected(1, recovered=True)
        assert server.session.entries() == [(1, "5")]


async def test_what_was_dropped_comes_with_the_next_entry_and_each_message_is_shown_once(
    autojump_clock: MockClock,
) -> None:
    server = FakeServer()
    async with server.client(room_id=1) as client:
        server.session.push(chat_packet(10), error_packet(206, "dropped"), chat_packet(13), chat_packet(14))
        assert await take(client, 4) == ["10", Error(206, "dropped"), "13", "14"]
        server.catch_up = [chat_packet(number) for number in (11, 12, 13, 14, 15)]
        await client.enter_room(1)
        assert server.session.entries()[-1] == (1, "10")
        assert await take(client, 3) == ["11", "12", "15"]
        await wait_all_tasks_blocked()
        # 13 again, for it had been acknowledged; 14 was still in the application's hands when it came again.
        assert server.session.acknowledged() == ["10", "13", "13", "14", "11", "12"]
        await client.enter_room(1)
        assert server.session.entries()[-1] == (1, "15")


async def test_what_was_dropped_is_asked_for_and_comes(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client(room_id=1) as client:
        server.session.push(chat_packet(10), error_packet(206, "dropped"), chat_packet(13))
        server.catch_up = [chat_packet(number) for number in (11, 12, 13)]
        assert await take(client, 6) == ["10", Error(206, "dropped"), "13", CaughtUp(1, recovered=True), "11", "12"]
        assert server.session.entries() == [(1, None), (1, "10")]
        await trio.sleep(10)
        assert len(server.session.entries()) == 2
        server.recovered = False
        server.session.push(error_packet(206, "dropped again"))
        assert await take(client, 2) == [Error(206, "dropped again"), CaughtUp(1, recovered=False)]
        assert server.session.entries()[-1] == (1, "13")


async def test_the_server_says_where_the_gap_begins(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client(room_id=1) as client:
        server.session.push(packet_of(MsgCode.ERROR, data={"code": 206, "reason": "dropped", "lastMsgId": "77"}))
        assert await take(client, 2) == [Error(206, "dropped"), CaughtUp(1, recovered=True)]
        assert server.session.entries() == [(1, None), (1, "77")]


async def test_several_gaps_are_asked_for_once(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client(room_id=1) as client:
        server.session.push(chat_packet(10), *[error_packet(206, f"{n}") for n in range(3)])
        assert await take(client, 5) == ["10", *[Error(206, f"{n}") for n in range(3)], CaughtUp(1, recovered=True)]
        assert server.session.entries()[1:] == [(1, "10")]


async def test_a_server_that_cannot_say_now_is_asked_again(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client(room_id=1) as client:
        server.room_errors[1] = (503, "try again")
        server.session.push(chat_packet(10), error_packet(206, "dropped"))
        assert await take(client, 2) == ["10", Error(206, "dropped")]
        await trio.sleep(5)
        asked = len(server.session.entries())
        assert 3 <= asked <= 5  # with pauses that grow
        del server.room_errors[1]
        assert await take(client, 1) == [CaughtUp(1, recovered=True)]


async def test_a_room_that_is_gone_is_not_asked_for(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client(room_id=1) as client:
        server.room_errors[1] = (404, "no such open room")
        server.session.push(chat_packet(10), error_packet(206, "dropped"))
        assert (await take(client, 3))[2] == Error(404, "no such open room")
        assert client.room_id is None
        server.session.push(error_packet(206, "of the room that was left"))
        await take(client, 1)
        await trio.sleep(10)
        assert len(server.session.entries()) == 2


async def test_a_gap_is_asked_for_by_the_next_connection(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client(room_id=1) as client:
        server.session.push(chat_packet(10), error_packet(206, "dropped"))
        await take(client, 2)
        server.session.hang_up()
        assert isinstance(await anext(client), Disconnected)
        assert await anext(client) == Reconnected(1, recovered=True)
        assert server.session.entries() == [(1, "10")]
        await trio.sleep(10)
        assert len(server.session.entries()) == 1


async def test_what_a_full_queue_kept_out_is_not_counted_as_arrived(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client(room_id=1, queue_items=2) as client:
        for number in (10, 11, 12):
            server.session.push(chat_packet(number))
        server.reads_nothing = True
        await trio.sleep(90.1)  # the reader waits with 12; the writer gives up 60 s after the first heartbeat
        server.reads_nothing = False
        assert await take(client, 2) == ["10", "11"]
        server.catch_up = [chat_packet(12)]
        assert isinstance(await anext(client), Disconnected)
        assert await take(client, 2) == [Reconnected(1, recovered=True), "12"]
        assert server.session.entries() == [(1, "11")]


async def test_a_message_that_cannot_be_read_is_shown_once_too(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client() as client:
        broken = packet_of(MsgCode.BIZ, bizCode=5555, msgId="9", data="?")
        server.session.push(broken, broken, chat_packet(10))
        items = await take(client, 2)
        assert isinstance(items[0], Error)
        assert items[1] == "10"
    assert server.session.acknowledged() == ["9", "10"]
