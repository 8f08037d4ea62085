"""What the calls of a client put on the wire."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from client.fakes import OTHER, FakeServer, body_of
from qiyu.client import Api, NotInRoom, connect
from qiyu.protocol.packet import MsgCode


async def test_a_room_message_names_the_room_it_is_in(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client(room_id=1) as client:
        await client.enter_room(2)
        await client.send_room("héllo", type_=7)
        (body,) = server.session.messages()
    assert body["bizCode"] == 5555
    assert msgspec.json.decode(body["data"]) == {"roomId": 2, "type": 7, "content": "héllo"}


async def test_a_direct_message_names_its_receiver(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client() as client:
        await client.send_direct(OTHER, "psst")
        (body,) = server.session.messages()
    assert body["bizCode"] == 5556
    assert msgspec.json.decode(body["data"]) == {"objectId": OTHER, "type": 1, "content": "psst"}


async def test_a_room_message_takes_a_room(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client(room_id=1) as client:
        await client.leave_room()
        with pytest.raises(NotInRoom):
            await client.send_room("hello?")
    assert server.session.said() == []


async def test_a_heartbeat_goes_ahead_of_each_room_packet(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client(room_id=1) as client:
        answer = await client.enter_room(2)
        assert (answer.room_id, answer.online, answer.recovered) == (2, 3, None)
        assert server.session.codes() == [MsgCode.HEARTBEAT, MsgCode.ROOM] * 2
        await client.leave_room()
        assert client.room_id is None
    assert body_of(server.session.received[-2])["data"] == '{"roomId":null}'


async def test_likes_gather_until_they_are_sent_and_go_fifty_to_a_packet(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client(room_id=1) as client:
        for count in (50, 50, 7):
            await client.like(count)
        await wait_all_tasks_blocked()
        await client.like()
        await client.logout()
    bodies = server.session.messages()
    assert {body["bizCode"] for body in bodies} == {5558}
    datas = [msgspec.json.decode(body["data"]) for body in bodies]
    assert {data["roomId"] for data in datas} == {1}
    assert sum(data["count"] for data in datas) == 108
    assert max(data["count"] for data in datas) == 50
    assert len(datas) <= 5


@pytest.mark.parametrize("count", [0, -1, 51])
async def test_so_many_likes_cannot_be(count: int, autojump_clock: MockClock) -> None:
    async with FakeServer().client(room_id=1) as client:
        with pytest.raises(ValueError, match="expected 1 to 50"):
            await client.like(count)


async def test_a_like_takes_a_room(autojump_clock: MockClock) -> None:
    async with FakeServer().client() as client:
        with pytest.raises(NotInRoom):
            await client.like()


async def test_its_repr_shows_its_state(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client(room_id=1) as client:
        assert repr(client).startswith("<Client room=1 <Uplink user=10001 connected ")
        server.session.hang_up()
        await wait_all_tasks_blocked()
        assert " connecting " in repr(client)
    assert " ended " in repr(client)


def run_under_asyncio(main: Callable[[], Coroutine[object, object, None]]) -> None:
    """In a thread of its own: a browser that other tests drive leaves its loop running in theirs."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(lambda: asyncio.run(main())).result()


def test_under_asyncio_it_says_so_at_the_call() -> None:
    async def main() -> None:
        with pytest.raises(RuntimeError, match=r"runs under trio, and this is asyncio: .*asyncio.to_thread"):
            connect("ws://127.0.0.1:1", user_id=10001, token="t")
        with pytest.raises(RuntimeError, match="runs under trio"):
            await Api("http://127.0.0.1:1").log_in("ann", "x")
        with pytest.raises(RuntimeError, match="runs under trio"):
            await made_before.__aenter__()

    made_before = connect("ws://127.0.0.1:1", user_id=10001, token="t")
    run_under_asyncio(main)


def test_beside_asyncio_it_runs_in_a_thread() -> None:
    async def talk() -> None:
        server = FakeServer()
        async with server.client(room_id=1) as client:
            await client.send_room("hello")
        assert server.session.said() == ["hello"]

    async def main() -> None:
        await asyncio.to_thread(trio.run, talk)

    run_under_asyncio(main)


async def test_a_url_of_something_else() -> None:
    with pytest.raises(ValueError, match="expected tcp://"):
        await connect("http://127.0.0.1:8080", user_id=10001, token="t").__aenter__()
