"""hypercorn and quart-trio, put together: what neither of them has a test for."""

from __future__ import annotations

import pytest
import trio
from quart_trio import QuartTrio

from qiyu.drivers.http import run_http
from qiyu.drivers.listener import bind


@pytest.fixture
def app() -> QuartTrio:
    app = QuartTrio("test")

    @app.get("/")
    async def hello() -> str:
        return "hello"

    return app


@pytest.mark.parametrize("head", [b"HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"HTTP/1.0\r\n\r\n"])
async def test_an_answered_connection_is_closed(app: QuartTrio, head: bytes) -> None:
    [sock] = bind("http", ["127.0.0.1"], 0)
    host, port = sock.getsockname()
    async with trio.open_nursery() as nursery:
        await nursery.start(run_http, app, [sock], trio.Event().wait, 75)
        async with await trio.open_tcp_stream(host, port) as stream:
            await stream.send_all(b"GET / " + head)
            answer = b""
            with trio.fail_after(5):
                async for data in stream:
                    answer += data
        assert answer.startswith(b"HTTP/1.1 200")
        assert answer.endswith(b"hello")
        nursery.cancel_scope.cancel()


async def test_a_connection_may_ask_again(app: QuartTrio) -> None:
    [sock] = bind("http", ["127.0.0.1"], 0)
    host, port = sock.getsockname()
    async with trio.open_nursery() as nursery:
        await nursery.start(run_http, app, [sock], trio.Event().wait, 75)
        async with await trio.open_tcp_stream(host, port) as stream:
            for _ in range(3):
                await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                answer = b""
                with trio.fail_after(5):
                    while not answer.endswith(b"hello"):
                        answer += await stream.receive_some()
        nursery.cancel_scope.cancel()


async def test_a_request_under_way_at_the_stop_is_answered(app: QuartTrio) -> None:
    began, stop, go_on = trio.Event(), trio.Event(), trio.Event()

    @app.get("/slow")
    async def slow() -> str:
        began.set()
        await go_on.wait()
        return "done"

    [sock] = bind("http", ["127.0.0.1"], 0)
    host, port = sock.getsockname()
    async with trio.open_nursery() as nursery:
        await nursery.start(run_http, app, [sock], stop.wait, 75)
        async with await trio.open_tcp_stream(host, port) as stream:
            await stream.send_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
            await began.wait()
            stop.set()
            go_on.set()
            answer = b""
            with trio.fail_after(5):
                async for data in stream:
                    answer += data
        assert answer.endswith(b"done")


async def test_an_idle_connection_is_closed_when_the_setting_says_so(app: QuartTrio) -> None:
    [sock] = bind("http", ["127.0.0.1"], 0)
    host, port = sock.getsockname()
    async with trio.open_nursery() as nursery:
        await nursery.start(run_http, app, [sock], trio.Event().wait, 0.3)
        async with await trio.open_tcp_stream(host, port) as stream:
            with trio.fail_after(5):
                assert await stream.receive_some() == b""
        nursery.cancel_scope.cancel()
