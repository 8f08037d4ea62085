"""Connecting, losing, connecting again; logging out."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from client.fakes import FakeServer, chat_packet, error_packet, logout_packet, packet_of
from qiyu.client import (
    Client,
    ConnectFailed,
    ConnectionLost,
    Disconnected,
    Error,
    Kicked,
    LoginRefused,
    Message,
    NotConnected,
    Reconnected,
    RequestRefused,
)
from qiyu.protocol.packet import MsgCode, Packet


async def lose(server: FakeServer, client: Client) -> Disconnected:
    server.session.hang_up()
    item = await anext(client)
    assert isinstance(item, Disconnected)
    return item


async def test_the_first_connection_is_tried_once(autojump_clock: MockClock) -> None:
    server = FakeServer()
    server.connect_error = ConnectFailed("nobody listens")
    with pytest.raises(ConnectFailed, match="nobody listens"):
        async with server.client():
            raise AssertionError
    assert len(server.attempts) == 1


async def test_a_refused_login_is_final(autojump_clock: MockClock) -> None:
    server = FakeServer()
    server.login_answer = error_packet(401, "the token is expired")
    with pytest.raises(LoginRefused, match="expired") as caught:
        async with server.client():
            raise AssertionError
    assert caught.value.code == 401


async def test_a_server_that_is_full_is_worth_trying_again(autojump_clock: MockClock) -> None:
    server = FakeServer()
    server.login_answer = error_packet(503, "full")
    with pytest.raises(ConnectFailed, match="full"):
        async with server.client():
            raise AssertionError


@pytest.mark.parametrize("packets", [[], [logout_packet("drain", reconnect=True)]])
async def test_a_connection_that_ends_before_its_login_is_worth_trying_again(
    packets: list[Packet], autojump_clock: MockClock
) -> None:
    server = FakeServer()
    server.login_answer = None
    async with trio.open_nursery() as nursery:

        async def connect() -> None:
            with pytest.raises(ConnectFailed):
                await server.client().__aenter__()

        nursery.start_soon(connect)
        await wait_all_tasks_blocked()
        server.session.push(*packets)
        server.session.hang_up()


async def test_a_login_that_is_not_answered_is_given_up(autojump_clock: MockClock) -> None:
    server = FakeServer()
    server.login_answer = None
    with pytest.raises(ConnectFailed, match="within 10 s"):
        async with server.client():
            raise AssertionError
    assert trio.current_time() == pytest.approx(server.attempts[0] + 10)


async def test_nothing_is_sent_before_the_login_is_answered(autojump_clock: MockClock) -> None:
    server = FakeServer()
    answer, server.login_answer = server.login_answer, None
    assert answer is not None
    async with trio.open_nursery() as nursery:

        async def connect() -> None:
            async with server.client(heartbeat_seconds=1):
                pass

        nursery.start_soon(connect)
        await trio.sleep(1.5)
        assert server.session.received == []
        server.session.push(answer)


async def test_a_first_room_that_is_refused_is_raised(autojump_clock: MockClock) -> None:
    server = FakeServer()
    server.room_errors[5] = (404, "no such room")
    with pytest.raises(RequestRefused, match="no such room"):
        async with server.client(room_id=5):
            raise AssertionError


async def test_a_lost_connection_is_made_again_in_the_same_room(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client(room_id=1) as client:
        await client.enter_room(2)
        lost = await lose(server, client)
        assert lost == Disconnected("the server closed the connection", 0.5)
        assert await anext(client) == Reconnected(2)
        assert server.session.room_id == 2
        assert client.room_id == 2
        server.session.push(chat_packet(1, "back"))
        assert isinstance(await anext(client), Message)
    assert len(server.sessions) == 2


async def test_who_left_the_room_does_not_go_back(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client(room_id=1) as client:
        await client.leave_room()
        await lose(server, client)
        assert await anext(client) == Reconnected(None)
        assert MsgCode.ROOM not in server.session.codes()


async def test_the_room_may_be_gone_meanwhile(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client(room_id=1) as client:
        server.room_errors[1] = (404, "no such room")
        await lose(server, client)
        assert await anext(client) == Error(404, "no such room")
        assert await anext(client) == Reconnected(None)
        assert client.room_id is None


async def test_a_room_that_cannot_be_entered_now_is_tried_again(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client(room_id=1) as client:
        server.room_errors[1] = (503, "later")
        await lose(server, client)
        assert isinstance(await anext(client), Disconnected)
        server.room_errors.clear()
        assert await anext(client) == Reconnected(1)


async def test_the_waits_double_while_nothing_holds(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client() as client:
        server.connect_error = ConnectFailed("nobody listens")
        waits = [(await lose(server, client)).retry_seconds]
        for _ in range(7):
            item = await anext(client)
            assert isinstance(item, Disconnected)
            waits.append(item.retry_seconds)
        assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30]
        gaps = [after - before for before, after in zip(server.attempts[1:], server.attempts[2:], strict=False)]
        assert gaps == pytest.approx(waits[1:-1])


async def test_only_a_connection_that_held_lets_the_waits_begin_anew(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client() as client:
        for seconds in (0.5, 1, 2):
            assert (await lose(server, client)).retry_seconds == seconds
            assert isinstance(await anext(client), Reconnected)
        await trio.sleep(30)
        assert (await lose(server, client)).retry_seconds == 0.5


async def test_a_draining_server_is_left_alone_as_long_as_it_asks(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client() as client:
        start = trio.current_time()
        server.session.push(logout_packet("drain", reconnect=True, retry_after_ms=3000))
        assert await anext(client) == Disconnected("the server ended the session: drain", 3.5)
        assert isinstance(await anext(client), Reconnected)
        assert server.attempts[-1] == pytest.approx(start + 3.5)


async def test_but_not_for_days(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client() as client:
        server.session.push(logout_packet("drain", reconnect=True, retry_after_ms=10**12))
        item = await anext(client)
        assert isinstance(item, Disconnected)
        assert item.retry_seconds == 600.5


async def test_a_token_is_made_for_each_connection(autojump_clock: MockClock) -> None:
    server = FakeServer()
    made = iter(["first", "second"])

    async def token() -> str:
        await trio.sleep(0.1)
        return next(made)

    async with server.client(token=token) as client:
        await lose(server, client)
        await anext(client)
    assert [session.login.token for session in server.sessions] == ["first", "second"]


async def test_a_token_that_cannot_be_had_is_a_failed_attempt(autojump_clock: MockClock) -> None:
    server = FakeServer()
    outcomes: list[str | OSError] = ["first", OSError("no route"), "second"]

    def token() -> str:
        outcome = outcomes.pop(0)
        if isinstance(outcome, OSError):
            raise outcome
        return outcome

    async with server.client(token=token) as client:
        await lose(server, client)
        assert await anext(client) == Disconnected("no token: no route", 1.0)
        assert await anext(client) == Reconnected(None)


async def test_a_bug_in_the_token_function_comes_out_as_itself(autojump_clock: MockClock) -> None:
    server = FakeServer()
    tokens = {1: "first"}

    async def body() -> None:
        async with server.client(token=lambda: tokens.pop(1)) as client:
            server.session.hang_up()
            async for _ in client:
                pass

    with pytest.raises(KeyError, match="1"):
        await body()


async def test_a_token_refused_later_ends_it(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client() as client:
        server.login_answer = error_packet(401, "expired")
        await lose(server, client)
        with pytest.raises(LoginRefused, match="expired"):
            await anext(client)
        with pytest.raises(LoginRefused):
            await client.send_direct(10002, "hi")


async def test_messages_wait_for_the_connection(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client(room_id=1) as client:
        await lose(server, client)
        await client.send_room("after")
        assert server.session.said() == ["after"]
        assert len(server.sessions) == 2


async def test_but_not_for_ever(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client(room_id=1) as client:
        server.connect_error = ConnectFailed("nobody listens")
        await lose(server, client)
        start = trio.current_time()
        with pytest.raises(NotConnected, match="no connection within 10 s"):
            await client.send_room("hi", receipt=False)
        assert trio.current_time() - start == pytest.approx(10)


async def test_messages_go_out_in_the_order_of_the_calls(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client(room_id=1) as client:
        await lose(server, client)
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(client.send_room, str(number))
                await wait_all_tasks_blocked()
        assert server.session.said() == [str(number) for number in range(10)]


async def test_a_connection_lost_under_a_request_says_so(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client(room_id=1) as client:
        server.ignored.add(MsgCode.ROOM)
        async with trio.open_nursery() as nursery:

            async def enter() -> None:
                with pytest.raises(ConnectionLost, match="closed the connection"):
                    await client.enter_room(2)

            nursery.start_soon(enter)
            await wait_all_tasks_blocked()
            server.ignored.clear()
            server.session.hang_up()
        await anext(client)
        assert await anext(client) == Reconnected(1)


async def test_a_room_that_is_not_answered_costs_the_connection(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client(room_id=1) as client:
        server.ignored.add(MsgCode.ROOM)
        with pytest.raises(ConnectionLost, match="no answer to ROOM within 10 s"):
            await client.enter_room(2)
        server.ignored.clear()
        assert isinstance(await anext(client), Disconnected)
        assert await anext(client) == Reconnected(1)


async def test_a_call_that_is_cancelled_leaves_the_connection_whole(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client(room_id=1) as client:
        server.ignored.add(MsgCode.ROOM)
        with trio.move_on_after(1):
            await client.enter_room(2)
        server.ignored.clear()
        await client.send_room("still here")
        assert server.session.said() == ["still here"]


async def test_leaving_logs_out(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client():
        pass
    assert server.session.codes() == [MsgCode.LOGOUT]


async def test_a_logout_that_is_not_answered_takes_a_second(autojump_clock: MockClock) -> None:
    server = FakeServer()
    server.ignored.add(MsgCode.LOGOUT)
    async with server.client() as client:
        start = trio.current_time()
        assert not await client.logout()
        assert trio.current_time() - start == pytest.approx(1)


async def test_the_iteration_ends_after_logout(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client() as client:
        server.session.push(chat_packet(1))
        await wait_all_tasks_blocked()
        assert await client.logout()
        assert len([item async for item in client]) == 1
        with pytest.raises(NotConnected, match="logged out"):
            await client.send_direct(10002, "hi")
        assert not await client.logout()


async def test_a_cancelled_application_logs_out_too(autojump_clock: MockClock) -> None:
    server = FakeServer()
    with trio.move_on_after(1) as scope:
        async with server.client() as client:
            async for _ in client:
                pass
    assert scope.cancelled_caught
    assert server.session.codes() == [MsgCode.LOGOUT]


async def test_a_connection_that_is_being_made_can_be_cancelled(autojump_clock: MockClock) -> None:
    server = FakeServer()
    server.login_answer = None
    with trio.move_on_after(1) as scope:
        async with server.client():
            raise AssertionError
    assert scope.cancelled_caught
    assert trio.current_time() == pytest.approx(server.attempts[0] + 1)


async def test_leaving_while_disconnected_is_quick(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client() as client:
        server.connect_error = ConnectFailed("nobody listens")
        await lose(server, client)
        left = trio.current_time()
    assert trio.current_time() == left


async def test_what_the_application_crashed_on_is_not_acknowledged(autojump_clock: MockClock) -> None:
    server = FakeServer()
    error = ZeroDivisionError("the application's own")

    async def body() -> None:
        async with server.client() as client:
            server.session.push(chat_packet(1), chat_packet(2))
            await anext(client)
            await anext(client)
            raise error

    with pytest.raises(ZeroDivisionError) as caught:
        await body()
    assert caught.value is error
    assert server.session.acknowledged() == ["1"]
    assert server.session.codes()[-1] == MsgCode.LOGOUT


async def test_what_was_handed_out_is_acknowledged_on_the_next_connection(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client() as client:
        server.session.push(chat_packet(1))
        await anext(client)
        await lose(server, client)
        assert isinstance(await anext(client), Reconnected)
        server.session.push(chat_packet(1), chat_packet(2))
        item = await anext(client)
        assert isinstance(item, Message)
        assert item.msg_id == "2"
    assert server.sessions[1].acknowledged()[0] == "1"


async def test_a_kick_while_the_application_waits_for_something_else_is_told_at_its_next_call(
    autojump_clock: MockClock,
) -> None:
    server = FakeServer()
    async with server.client() as client:
        server.session.push(logout_packet("banned", reconnect=False))
        await trio.sleep(100)
        with pytest.raises(Kicked, match="banned"):
            await client.enter_room(1)
    assert len(server.attempts) == 1


async def replaced(server: FakeServer, client: Client) -> None:
    server.session.push(logout_packet("replaced", reconnect=False))
    server.session.hang_up()
    with pytest.raises(Kicked, match="replaced"):
        await anext(client)


async def test_who_was_signed_in_elsewhere_may_come_back_and_is_to_load_the_history(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client(room_id=1) as client:
        server.session.push(chat_packet(7, "before"))
        assert isinstance(await anext(client), Message)
        await replaced(server, client)
        with pytest.raises(Kicked):
            await client.send_room("not now")
        await client.log_in_again()
        assert server.session.entries() == [(1, None)]  # what was seen so far says nothing of what was said elsewhere
        assert await anext(client) == Reconnected(1, recovered=False)
        server.session.push(chat_packet(7, "before"), chat_packet(8, "after"))
        item = await anext(client)
        assert isinstance(item, Message)
        assert item.content == "after"
        assert await client.send_room("here again")
        await lose(server, client)  # and from here on all is as ever
        assert await anext(client) == Reconnected(1, recovered=True)
        assert server.session.entries() == [(1, "8")]


async def test_to_come_back_may_be_refused_again(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client(room_id=1) as client:
        await replaced(server, client)
        server.login_answer = error_packet(401, "signed out")
        with pytest.raises(LoginRefused, match="signed out"):
            await client.log_in_again()
        server.login_answer = packet_of(MsgCode.LOGIN, data="true")
        await client.log_in_again()
        assert await client.send_direct(10002, "hello")


async def test_only_who_was_sent_away_comes_back(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client() as client:
        with pytest.raises(RuntimeError, match="has not been ended"):
            await client.log_in_again()
        await client.logout()
        with pytest.raises(RuntimeError, match="has not been ended"):
            await client.log_in_again()
    assert len(server.sessions) == 1


async def test_leaving_after_a_kick_ends_at_once(autojump_clock: MockClock) -> None:
    server = FakeServer()
    async with server.client() as client:
        await replaced(server, client)
    assert trio.current_time() == pytest.approx(server.attempts[0])
