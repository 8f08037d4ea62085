"""Messages without a receipt yet: sent again, in order, until there is one."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from client.fakes import OTHER, FakeServer, error_packet, logout_packet, receipt_packet
from qiyu.client import (
    Client,
    ClientError,
    Disconnected,
    Kicked,
    MessageRefused,
    NoReceipt,
    NotConnected,
    Reconnected,
    RequestRefused,
)
from qiyu.protocol.packet import MsgCode

UNAVAILABLE = (503, "not now")


class Calls:
    """Calls of `send_room` under way, and what came of each."""

    def __init__(self, client: Client, nursery: trio.Nursery) -> None:
        self.outcomes: dict[str, str | Exception] = {}
        self._client = client
        self._nursery = nursery

    async def begin(self, *contents: str) -> None:
        for content in contents:
            self._nursery.start_soon(self._send, content)
            await wait_all_tasks_blocked()

    async def _send(self, content: str) -> None:
        try:
            self.outcomes[content] = await self._client.send_room(content)
        except ClientError as exc:
            self.outcomes[content] = exc


async def lose(server: FakeServer, client: Client, reconnected: Reconnected) -> None:
    server.session.hang_up()
    assert isinstance(await anext(client), Disconnected)
    assert await anext(client) == reconnected


async def test_a_call_returns_the_msg_id_of_its_receipt(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client(room_id=1) as client:
        assert [await client.send_room("a"), await client.send_direct(OTHER, "b")] == ["9000", "9001"]
        assert server.session.client_msg_ids() == list(server.stored)
        assert " unreceipted=0 " in repr(client)


async def test_calls_do_not_wait_for_each_others_receipts(autojump_clock: MockClock) -> None:
    server = FakeServer()
    server.ignored.add(MsgCode.BIZ)
    async with server.client(room_id=1) as client, trio.open_nursery() as nursery:
        calls = Calls(client, nursery)
        await calls.begin("a", "b", "c")
        ids = server.session.client_msg_ids()
        assert server.session.said() == ["a", "b", "c"]
        for number in (2, 0, 1):
            server.session.push(receipt_packet(ids[number], str(number)))
            await wait_all_tasks_blocked()
        assert list(calls.outcomes.items()) == [("c", "2"), ("a", "0"), ("b", "1")]


async def test_after_a_reconnection_they_go_again_in_order_and_before_newer_ones(autojump_clock: MockClock) -> None:
    server = FakeServer()
    server.ignored.add(MsgCode.BIZ)
    async with server.client(room_id=1) as client, trio.open_nursery() as nursery:
        calls = Calls(client, nursery)
        await calls.begin("a", "b", "c")
        first = server.session
        first.push(receipt_packet(first.client_msg_ids()[1], "1"))
        await wait_all_tasks_blocked()
        server.ignored.clear()
        first.hang_up()
        await wait_all_tasks_blocked()
        await calls.begin("newer")
        await trio.sleep(1)
    assert len(server.sessions) == 2
    assert server.session.said() == ["a", "c", "newer"]
    assert server.session.client_msg_ids()[:2] == [first.client_msg_ids()[0], first.client_msg_ids()[2]]
    assert server.session.codes()[:3] == [MsgCode.HEARTBEAT, MsgCode.ROOM, MsgCode.BIZ]
    assert calls.outcomes == {"a": "9000", "b": "1", "c": "9001", "newer": "9002"}


async def test_what_was_stored_though_its_receipt_was_lost_is_stored_once(autojump_clock: MockClock) -> None:
    server = FakeServer()
    server.ignored.add(MsgCode.BIZ)
    async with server.client(room_id=1) as client, trio.open_nursery() as nursery:
        calls = Calls(client, nursery)
        await calls.begin("a")
        server.stored[server.session.client_msg_ids()[0]] = "77"
        server.ignored.clear()
        await lose(server, client, Reconnected(1))
        await wait_all_tasks_blocked()
        assert calls.outcomes == {"a": "77"}


@pytest.mark.parametrize("code", [429, 503])
async def test_what_cannot_be_taken_now_goes_again_after_a_back_off(code: int, autojump_clock: MockClock) -> None:
    server = FakeServer()
    server.refusals.extend([(code, "not now")] * 3)
    async with server.client(room_id=1) as client:
        start = trio.current_time()
        assert await client.send_room("a") == "9000"
        assert trio.current_time() - start == pytest.approx(0.5 + 1 + 2)
        assert len(set(server.session.client_msg_ids())) == 1
        assert server.session.said() == ["a"] * 4


async def test_refused_messages_go_again_in_order_and_later_calls_wait_for_them(autojump_clock: MockClock) -> None:
    server = FakeServer()
    server.ignored.add(MsgCode.BIZ)
    async with server.client(room_id=1) as client, trio.open_nursery() as nursery:
        calls = Calls(client, nursery)
        await calls.begin("a", "b", "c")
        for client_msg_id in server.session.client_msg_ids():
            server.session.push(error_packet(*UNAVAILABLE, clientMsgId=client_msg_id))
        await wait_all_tasks_blocked()
        server.ignored.clear()
        await calls.begin("later")
        assert server.session.said() == ["a", "b", "c"]
        server.refusals.extend([None, UNAVAILABLE])  # "b" must wait once more, and so must all after it
        await trio.sleep(5)
    assert server.session.said() == ["a", "b", "c", "a", "b", "b", "c", "later"]
    assert list(calls.outcomes.values()) == ["9000", "9001", "9002", "9003"]


async def test_a_message_waits_no_longer_for_one_whose_caller_gave_up(autojump_clock: MockClock) -> None:
    server = FakeServer()
    server.refusals.append(UNAVAILABLE)
    async with server.client(room_id=1) as client:
        with trio.move_on_after(0.1):
            await client.send_room("given up")
        assert await client.send_room("next") == "9000"
    assert server.session.said() == ["given up", "next"]


async def test_a_refused_message_that_is_not_answered_again_holds_the_next_until_its_time_is_over(
    autojump_clock: MockClock,
) -> None:
    server = FakeServer()
    server.refusals.append(UNAVAILABLE)
    async with server.client(room_id=1) as client, trio.open_nursery() as nursery:
        calls = Calls(client, nursery)
        await calls.begin("a")
        server.ignored.add(MsgCode.BIZ)
        await trio.sleep(10)
        await calls.begin("b")
        server.ignored.clear()
        await trio.sleep(21)
        assert isinstance(calls.outcomes["a"], NoReceipt)
        assert calls.outcomes["b"] == "9000"


async def test_a_receipt_that_comes_after_a_503_wins(autojump_clock: MockClock) -> None:
    server = FakeServer()
    server.refusals.append(UNAVAILABLE)
    async with server.client(room_id=1) as client, trio.open_nursery() as nursery:
        calls = Calls(client, nursery)
        await calls.begin("a")
        server.session.push(receipt_packet(server.session.client_msg_ids()[0], "5"))
        await wait_all_tasks_blocked()
        assert calls.outcomes == {"a": "5"}
        await calls.begin("b")
        await trio.sleep(1)
    assert server.session.said() == ["a", "b"]


async def test_a_503_that_comes_after_the_receipt_is_nobodys(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client(room_id=1) as client:
        await client.send_room("a")
        (client_msg_id,) = server.session.client_msg_ids()
        server.session.push(error_packet(*UNAVAILABLE, clientMsgId=client_msg_id), receipt_packet(client_msg_id, "5"))
        await wait_all_tasks_blocked()
        assert "items=0" in repr(client)
        assert await client.send_room("b") == "9001"


@pytest.mark.parametrize("code", [400, 403, 404, 409, 507])
async def test_a_refusal_is_raised_and_the_message_sent_no_more(code: int, autojump_clock: MockClock) -> None:
    server = FakeServer()
    server.refusals.append((code, "no"))
    async with server.client(room_id=1) as client:
        with pytest.raises(RequestRefused, match="no") as caught:
            await client.send_room("a")
        assert isinstance(caught.value, MessageRefused)
        assert (caught.value.code, caught.value.reason) == (code, "no")
        await lose(server, client, Reconnected(1))
        assert await client.send_room("b") == "9000"
    assert server.session.said() == ["b"]


async def test_a_room_that_is_gone_refuses_what_is_sent_again(autojump_clock: MockClock) -> None:
    server = FakeServer()
    server.ignored.add(MsgCode.BIZ)
    async with server.client(room_id=1) as client, trio.open_nursery() as nursery:
        calls = Calls(client, nursery)
        await calls.begin("a")
        server.ignored.clear()
        server.room_errors[1] = (404, "no such room")
        server.refusals.append((403, "not in the room"))
        server.session.hang_up()
        await trio.sleep(1)
        assert isinstance(calls.outcomes["a"], MessageRefused)
    assert server.session.said() == ["a"]


async def test_a_message_has_receipt_seconds_in_all(autojump_clock: MockClock) -> None:
    server = FakeServer()
    server.refusals.extend([UNAVAILABLE] * 100)
    async with server.client(room_id=1) as client:
        start = trio.current_time()
        with pytest.raises(NoReceipt, match=r"no receipt within 30 s \(not now\); it may have been stored") as caught:
            await client.send_room("a")
        assert trio.current_time() - start == pytest.approx(30)
        assert caught.value.client_msg_id == server.session.client_msg_ids()[0]
        await lose(server, client, Reconnected(1))
    assert server.session.said() == []


async def test_a_message_that_never_went_out_was_not_sent(autojump_clock: MockClock) -> None:
    server = FakeServer()
    server.refusals.extend([UNAVAILABLE] * 100)
    async with server.client(room_id=1, receipt_seconds=5) as client, trio.open_nursery() as nursery:
        calls = Calls(client, nursery)
        await calls.begin("a", "b")
        await trio.sleep(5.1)
        assert isinstance(calls.outcomes["a"], NoReceipt)
        assert isinstance(calls.outcomes["b"], NotConnected)
        assert str(calls.outcomes["b"]) == "not its turn within 5 s"
    assert set(server.session.said()) == {"a"}


async def test_a_call_that_is_cancelled_sends_no_more(autojump_clock: MockClock) -> None:
    server = FakeServer()
    server.ignored.add(MsgCode.BIZ)
    async with server.client(room_id=1) as client:
        with trio.move_on_after(1):
            await client.send_room("a")
        server.ignored.clear()
        await lose(server, client, Reconnected(1))
        await client.send_room("b")
    assert server.session.said() == ["b"]


async def test_a_receipt_that_nobody_waits_for_is_nothing(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client(room_id=1) as client:
        server.session.push(receipt_packet("?", "1"), receipt_packet("", ""))
        await client.send_room("a")
    assert len(server.sessions) == 1


async def test_more_than_so_many_wait_their_turn(autojump_clock: MockClock) -> None:
    server = FakeServer()
    server.ignored.add(MsgCode.BIZ)
    async with server.client(room_id=1, unreceipted_messages=2) as client, trio.open_nursery() as nursery:
        calls = Calls(client, nursery)
        await calls.begin("a", "b", "c", "d")
        assert server.session.said() == ["a", "b"]
        assert " unreceipted=2 " in repr(client)
        server.session.push(receipt_packet(server.session.client_msg_ids()[1], "1"))
        await wait_all_tasks_blocked()
        assert server.session.said() == ["a", "b", "c"]
        nursery.cancel_scope.cancel()


async def test_a_receipt_is_read_though_the_application_does_not_read(autojump_clock: MockClock) -> None:
    server = FakeServer()
    server.ignored.add(MsgCode.BIZ)
    async with server.client(room_id=1, queue_items=2) as client, trio.open_nursery() as nursery:
        calls = Calls(client, nursery)
        await calls.begin("a")
        for _ in range(4):
            server.session.push(error_packet(400, "what was sent without a receipt"))
        server.session.push(receipt_packet(server.session.client_msg_ids()[0], "1"))
        await wait_all_tasks_blocked()
        assert calls.outcomes == {"a": "1"}


async def test_calls_under_way_at_the_logout_raise(autojump_clock: MockClock) -> None:
    server = FakeServer()
    server.ignored.add(MsgCode.BIZ)
    async with server.client(room_id=1) as client, trio.open_nursery() as nursery:
        calls = Calls(client, nursery)
        await calls.begin("a")
        assert await client.logout()
        await wait_all_tasks_blocked()
        assert isinstance(calls.outcomes["a"], NoReceipt)
        assert "the client logged out" in str(calls.outcomes["a"])
        with pytest.raises(NotConnected):
            await client.send_room("b")


async def test_a_kick_is_the_cause_of_a_missing_receipt(autojump_clock: MockClock) -> None:
    server = FakeServer()
    server.ignored.add(MsgCode.BIZ)
    async with server.client(room_id=1) as client, trio.open_nursery() as nursery:
        calls = Calls(client, nursery)
        await calls.begin("a")
        server.session.push(logout_packet("replaced", reconnect=False))
        await wait_all_tasks_blocked()
        outcome: Any = calls.outcomes["a"]
        assert isinstance(outcome, NoReceipt)
        assert isinstance(outcome.__cause__, Kicked)
        with pytest.raises(Kicked):
            await client.send_room("b")
