"""The client library against whole servers: with an account, over HTTP and WebSocket, and when its server moves."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import pytest
import trio

from flow.test_living import call, register
from qiyu.client import (
    Access,
    Api,
    Client,
    EventName,
    Kicked,
    LoginRefused,
    Message,
    Options,
    Reconnected,
    RequestRefused,
    RoomEvent,
    connect,
)
from servers import RunningServer, Start

T = TypeVar("T")

QUICK = Options(jitter=lambda: 0.1)


async def until(client: Client, wanted: type[T]) -> T:
    with trio.fail_after(30):
        async for item in client:
            if isinstance(item, wanted):
                return item
    raise AssertionError("it ended")


async def test_an_account_is_all_that_a_client_needs(start_server: Start) -> None:
    async with start_server(living__events="true") as server:
        ann, _ = await register(server, "ann")
        bob, _ = await register(server, "bob")
        of_ann, of_bob = Api(f"http://{server.http}"), Api(f"http://{server.http}")
        assert await of_ann.log_in("ann", "a long password") == ann
        await of_bob.log_in("bob", "a long password")
        async with connect(of_ann.access, user_id=ann, room_id=7) as one:
            assert await of_bob.online([ann, bob]) == {ann: True, bob: False}
            async with connect(lambda: of_bob.access("tcp"), user_id=bob, room_id=7) as two:
                assert (await until(one, RoomEvent)).event is EventName.ENTER
                first = await one.send_room("hello")
                heard = await until(two, Message)
                assert (heard.content, heard.msg_id) == ("hello", first)
                await two.like(3)
                await two.send_direct(ann, "psst")
                event = await until(one, RoomEvent)
                while event.event is not EventName.COUNT or not event.good_num:
                    event = await until(one, RoomEvent)
                assert event.good_num == 3
            page = await of_ann.history(room_id=7)
            assert [(message.content, message.sender_id) for message in page.messages] == [("hello", ann)]
            assert page.messages[0].client_msg_id
            assert [message.content for message in (await of_ann.history(user_id=bob)).messages] == ["psst"]
            assert not page.has_more
        with pytest.raises(RequestRefused, match="before"):
            await of_ann.history(room_id=7, before_msg_id="x")
        code, _ = await call(server, "/user/logout", of_bob.session)
        assert code == 200
        with pytest.raises(LoginRefused):
            await of_bob.access()


async def test_who_was_signed_in_elsewhere_finds_there_what_they_said(server: RunningServer) -> None:
    ann, session = await register(server, "ann")
    api = Api(f"http://{server.http}", session)
    async with connect(api.access, user_id=ann, room_id=7) as here:
        await here.send_room("here")
        async with connect(api.access, user_id=ann, room_id=7) as elsewhere:
            with pytest.raises(Kicked, match="replaced"):
                await until(here, Message)
            await elsewhere.send_room("elsewhere")
        await here.log_in_again()
        assert await until(here, Reconnected) == Reconnected(7, recovered=False)
        page = await api.history(room_id=7)
        assert [message.content for message in page.messages] == ["here", "elsewhere"]


async def test_a_client_finds_a_server_that_came_back_elsewhere(start_server: Start, tmp_path: Path) -> None:
    """It has its room, what it missed, and the receipt of what it said while nobody was there, stored once."""
    where: list[RunningServer] = []

    def access(user: int) -> Access:
        if not where:
            raise OSError("no server lives")
        return Access(f"ws://{where[0].ws}", where[0].token(user))

    async with trio.open_nursery() as nursery:
        async with start_server() as first:
            where.append(first)
            ready = trio.Event()
            moved = trio.Event()
            finished = trio.Event()
            done: list[str] = []

            async def talk() -> None:
                async with connect(lambda: access(10001), user_id=10001, room_id=1, options=QUICK) as client:
                    await client.send_room("before")
                    ready.set()
                    await moved.wait()
                    done.append(await client.send_room("meanwhile", client_msg_id="once"))
                    assert await until(client, Reconnected) == Reconnected(1, recovered=True)
                    missed = await until(client, Message)
                    done.append(missed.content)
                finished.set()

            nursery.start_soon(talk)
            await ready.wait()
            where.clear()
            first.stop()
            await first.stopped.wait()
            moved.set()
        async with start_server() as second:
            assert second.ws != first.ws
            async with await second.tcp_peer(10002, 1) as other:
                await other.say(1, "missed")
                where.append(second)
                with trio.fail_after(30):
                    await finished.wait()
            assert done[0].isdecimal()
            assert done[1] == "missed"
