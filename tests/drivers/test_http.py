"""hypercorn and quart-trio, put together over real sockets, and how many connections there may be."""

from __future__ import annotations

import ipaddress
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
import trio
from quart_trio import QuartTrio

from qiyu.drivers.http import HttpFront, HttpRules, run_http
from qiyu.drivers.http_connection import HttpTimes
from qiyu.drivers.listener import bind
from qiyu.metrics import Metrics


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
        await nursery.start(run_http, HttpFront(app, HttpRules(), Metrics()), [sock], trio.Event().wait)
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
        await nursery.start(run_http, HttpFront(app, HttpRules(), Metrics()), [sock], trio.Event().wait)
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
        await nursery.start(run_http, HttpFront(app, HttpRules(), Metrics()), [sock], stop.wait)
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
        front = HttpFront(app, HttpRules(times=HttpTimes(keep_alive_seconds=0.3)), Metrics())
        await nursery.start(run_http, front, [sock], trio.Event().wait)
        async with await trio.open_tcp_stream(host, port) as stream:
            with trio.fail_after(5):
                assert await stream.receive_some() == b""
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def served(app: QuartTrio, rules: HttpRules, metrics: Metrics) -> AsyncIterator[tuple[str, int]]:
    """Host and port of a server, which is ended at the end."""
    [sock] = bind("http", ["127.0.0.1"], 0)
    host, port = sock.getsockname()
    async with trio.open_nursery() as nursery:
        await nursery.start(run_http, HttpFront(app, rules, metrics), [sock], trio.Event().wait)
        yield host, port
        nursery.cancel_scope.cancel()


async def answer_of(stream: trio.SocketStream) -> bytes:
    """What comes for one request; nothing where the connection is closed."""
    with trio.fail_after(5):
        try:
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            return bytes(await stream.receive_some())
        except trio.BrokenResourceError:
            return b""


@pytest.mark.parametrize(
    ("rules", "refused"),
    [
        (HttpRules(connections=3), "http_connections_refused"),
        (HttpRules(connections_per_address=3), "http_connections_refused_address"),
    ],
)
async def test_so_many_connections_and_not_one_more(app: QuartTrio, rules: HttpRules, refused: str) -> None:
    metrics = Metrics()
    async with served(app, rules, metrics) as (host, port), AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(await trio.open_tcp_stream(host, port)) for _ in range(3)]
        assert [(await answer_of(stream))[:12] for stream in streams] == [b"HTTP/1.1 200"] * 3
        async with await trio.open_tcp_stream(host, port) as one_more:
            assert await answer_of(one_more) == b""
        assert getattr(metrics, refused) == 1
        assert metrics.http_connections_accepted == 3
        await streams[0].aclose()
        for _ in range(100):  # until the server has seen it
            async with await trio.open_tcp_stream(host, port) as another:
                if (await answer_of(another)).startswith(b"HTTP/1.1 200"):
                    break
        else:
            pytest.fail("the place of a connection that was closed is not free again")


async def test_a_proxy_in_front_may_have_as_many_as_there_are_in_all(app: QuartTrio) -> None:
    metrics = Metrics()
    rules = HttpRules(connections=3, connections_per_address=1, proxies=(ipaddress.ip_network("127.0.0.0/8"),))
    async with served(app, rules, metrics) as (host, port), AsyncExitStack() as stack:
        for _ in range(3):
            stream = await stack.enter_async_context(await trio.open_tcp_stream(host, port))
            assert (await answer_of(stream)).startswith(b"HTTP/1.1 200")
        async with await trio.open_tcp_stream(host, port) as one_more:
            assert await answer_of(one_more) == b""
    assert (metrics.http_connections_refused, metrics.http_connections_refused_address) == (1, 0)


async def test_a_reader_of_nothing_does_not_keep_the_server_from_stopping(app: QuartTrio) -> None:
    @app.get("/long")
    async def long() -> bytes:
        return b"x" * 1_000_000

    stop = trio.Event()
    [sock] = bind("http", ["127.0.0.1"], 0)
    host, port = sock.getsockname()
    async with trio.open_nursery() as nursery:
        ended = trio.Event()

        async def run(task_status: trio.TaskStatus[object]) -> None:
            await run_http(HttpFront(app, HttpRules(), Metrics()), [sock], stop.wait, task_status=task_status)
            ended.set()

        await nursery.start(run)
        async with await trio.open_tcp_stream(host, port) as stream:
            await stream.send_all(b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n" * 50)
            await stream.receive_some(1)
            started = trio.current_time()
            stop.set()
            with trio.fail_after(5):
                await ended.wait()
            assert trio.current_time() - started < 3


async def test_a_bug_in_a_connection_ends_that_connection_alone(
    app: QuartTrio, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_args: object) -> None:
        await trio.lowlevel.checkpoint()
        raise RuntimeError("a bug")

    metrics = Metrics()
    async with served(app, HttpRules(), metrics) as (host, port):
        with monkeypatch.context() as patch:
            patch.setattr("qiyu.drivers.http_connection.Connection._read", broken)
            async with await trio.open_tcp_stream(host, port) as stream:
                assert await answer_of(stream) == b""
        async with await trio.open_tcp_stream(host, port) as stream:
            assert (await answer_of(stream)).startswith(b"HTTP/1.1 200")
    assert metrics.connections_crashed == 1


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl: apt install curl")
@pytest.mark.parametrize("option", ["--http2", "--http1.1"])
async def test_curl_is_answered_over_http_1_1(app: QuartTrio, option: str) -> None:
    async with served(app, HttpRules(), Metrics()) as (host, port):
        command = ["curl", "-sS", "--max-time", "5", option, "-w", " %{http_version}", f"http://{host}:{port}/"]
        if b"HTTP2" not in (await trio.run_process(["curl", "--version"], capture_stdout=True)).stdout:
            pytest.skip("this curl speaks no HTTP/2")
        done = await trio.run_process(command, capture_stdout=True)
    assert done.stdout == b"hello 1.1"


async def test_other_rules_count_from_then_on(app: QuartTrio) -> None:
    metrics = Metrics()
    front = HttpFront(app, HttpRules(connections=1), metrics)
    [sock] = bind("http", ["127.0.0.1"], 0)
    host, port = sock.getsockname()
    async with trio.open_nursery() as nursery:
        await nursery.start(run_http, front, [sock], trio.Event().wait)
        async with await trio.open_tcp_stream(host, port) as one, await trio.open_tcp_stream(host, port) as two:
            assert (await answer_of(one)).startswith(b"HTTP/1.1 200")
            assert await answer_of(two) == b""
            front.change(HttpRules(connections=2, requests=7))
            async with await trio.open_tcp_stream(host, port) as three:
                assert (await answer_of(three)).startswith(b"HTTP/1.1 200")
        nursery.cancel_scope.cancel()
    assert front._served.line._limiter.total_tokens == 7
