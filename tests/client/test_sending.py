"""What a call of `send_room` puts on the wire, with a receipt and without."""

from __future__ import annotations

import re

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from client.fakes import OTHER, FakeServer
from qiyu.client import Error, MessageRefused
from qiyu.protocol.packet import MsgCode


async def test_each_message_has_an_id_of_its_own_that_nobody_can_guess(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client() as client:
        for _ in range(100):
            await client.send_direct(OTHER, "same")
    ids = server.session.client_msg_ids()
    assert len(set(ids)) == 100
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{22}", client_msg_id) for client_msg_id in ids)


async def test_an_application_that_sends_again_after_its_restart_names_the_id(autojump_clock: MockClock) -> None:
    server = FakeServer()
    msg_ids = []
    for _ in range(2):
        async with server.client() as client:
            msg_ids.append(await client.send_direct(OTHER, "once", client_msg_id="order 66"))
    assert msg_ids == ["9000", "9000"]
    assert list(server.stored) == ["order 66"]


@pytest.mark.parametrize(("client_msg_id", "receipt"), [("", True), ("x" * 65, True), ("x", False)])
async def test_an_id_that_cannot_be_one(client_msg_id: str, receipt: bool, autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client() as client:
        with pytest.raises(ValueError, match="expected 1 to 64 characters, and a receipt"):
            await client.send_direct(OTHER, "x", client_msg_id=client_msg_id, receipt=receipt)


async def test_an_id_that_is_under_way(autojump_clock: MockClock) -> None:
    server = FakeServer()
    server.ignored.add(MsgCode.BIZ)
    async with server.client(receipt_seconds=5) as client:
        with trio.move_on_after(1):
            async with trio.open_nursery() as nursery:

                async def send() -> None:
                    await client.send_direct(OTHER, "first", client_msg_id="x")

                nursery.start_soon(send)
                await wait_all_tasks_blocked()
                with pytest.raises(ValueError, match="under way"):
                    await client.send_direct(OTHER, "second", client_msg_id="x")
        server.ignored.clear()
        await client.send_direct(OTHER, "third", client_msg_id="x")
    assert server.session.said() == ["first", "third"]


async def test_without_a_receipt_nothing_is_awaited(autojump_clock: MockClock) -> None:
    server = FakeServer()
    server.ignored.add(MsgCode.BIZ)
    async with server.client(room_id=1) as client:
        start = trio.current_time()
        assert await client.send_room("a", receipt=False) == ""
        assert await client.send_direct(OTHER, "b", receipt=False) == ""
        assert trio.current_time() == start
        assert server.session.said() == ["a", "b"]
        assert all("clientMsgId" not in body for body in server.session.messages())


async def test_what_the_server_has_against_it_is_then_an_item(autojump_clock: MockClock) -> None:
    server = FakeServer()
    server.refusals.append((507, "the inbox is full"))
    async with server.client() as client:
        await client.send_direct(OTHER, "a", receipt=False)
        assert await anext(client) == Error(507, "the inbox is full")


@pytest.mark.parametrize("receipt", [True, False])
async def test_what_the_server_would_close_the_connection_over_is_not_sent(
    receipt: bool, autojump_clock: MockClock
) -> None:
    server = FakeServer()
    async with server.client() as client:
        with pytest.raises(MessageRefused, match="the server takes 65536 at most") as caught:
            await client.send_direct(OTHER, "x" * 65_536, receipt=receipt)
        assert caught.value.code == 400
        await client.send_direct(OTHER, "x" * 60_000, receipt=receipt)
    assert len(server.session.messages()) == 1
