"""A client that asks where to go before each connection."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from client.fakes import FakeServer, chat_packet
from qiyu.client import Access, ConnectFailed, Disconnected, Message, Options, Reconnected
from qiyu.client import access as module
from qiyu.client.access import find_access
from qiyu.client.client import running
from qiyu.client.options import DEFAULTS
from qiyu.client.transport import OpenTransport
from qiyu.client.uplink import Uplink
from qiyu.protocol.packet import APP_ID, MsgCode


async def test_a_url_and_a_token_may_be_plain() -> None:
    _, token = await find_access("ws://127.0.0.1", "t", DEFAULTS)()
    assert token == "t"


async def test_both_may_be_asked_for_apart() -> None:
    async def address() -> str:
        await trio.lowlevel.checkpoint()
        return "ws://127.0.0.1"

    tokens = iter("ab")
    find = find_access(address, lambda: next(tokens), DEFAULTS)
    assert [(await find())[1], (await find())[1]] == ["a", "b"]


async def test_a_token_that_comes_with_the_address_is_the_one() -> None:
    _, token = await find_access(lambda: Access("tcp://127.0.0.1", "fresh"), "stale", DEFAULTS)()
    assert token == "fresh"


@pytest.mark.parametrize("answer", ["http://127.0.0.1", "", Access("?", "t")])
async def test_an_address_that_is_none_is_a_failed_attempt(answer: str | Access) -> None:
    with pytest.raises(ConnectFailed, match=r"no address: .*expected tcp://"):
        await find_access(lambda: answer, "t", DEFAULTS)()


async def test_a_token_must_come_from_somewhere() -> None:
    with pytest.raises(ValueError, match="token: expected one"):
        find_access("ws://127.0.0.1", None, DEFAULTS)
    with pytest.raises(ConnectFailed, match="no token: neither"):
        await find_access(lambda: "ws://127.0.0.1", None, DEFAULTS)()


async def test_whoever_knows_the_address_may_be_away() -> None:
    def address() -> str:
        raise OSError("the backend is away")

    with pytest.raises(ConnectFailed, match="no address: the backend is away"):
        await find_access(address, "t", DEFAULTS)()


async def test_a_client_whose_server_is_gone_goes_to_the_one_that_is_named_next(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes back after the last message it saw, and sends again what has no receipt."""
    one, two = FakeServer(), FakeServer()
    one.ignored.add(MsgCode.BIZ)
    servers = {"ws://one": one, "ws://two": two}

    def opener(url: str, _options: Options) -> OpenTransport:
        return servers[url].open

    monkeypatch.setattr(module, "_opener", opener)
    found: list[Access | OSError] = [Access("ws://one", "t1"), OSError("nobody knows"), Access("ws://two", "t2")]
    answers = iter(found)

    async def access() -> Access:
        await trio.lowlevel.checkpoint()
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    options = Options(jitter=lambda: 1.0)
    uplink = Uplink(find_access(access, None, options), APP_ID, 10001, options)
    async with running(uplink, 1) as client, trio.open_nursery() as nursery:
        one.session.push(chat_packet(7, "seen"))
        assert isinstance(await anext(client), Message)
        receipts: list[str] = []

        async def say() -> None:
            receipts.append(await client.send_room("hello", client_msg_id="mine"))

        nursery.start_soon(say)
        await trio.testing.wait_all_tasks_blocked()
        one.session.hang_up()
        two.catch_up = [chat_packet(8, "missed")]
        assert await anext(client) == Disconnected("the server closed the connection", 0.5)
        assert await anext(client) == Disconnected("no address: nobody knows", 1.0)
        assert await anext(client) == Reconnected(1, recovered=True)
        missed = await anext(client)
        assert isinstance(missed, Message)
        assert missed.content == "missed"
        await trio.testing.wait_all_tasks_blocked()
        assert receipts == [two.stored["mine"]]
    assert [one.session.login.token, two.session.login.token] == ["t1", "t2"]
    assert two.session.entries() == [(1, "7")]
    assert two.session.client_msg_ids() == ["mine"]
    assert len(two.sessions) == 1
