"""One connection over streams in memory, with time that jumps."""

from __future__ import annotations

import gc
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import pytest
import trio
from hypercorn.config import Config
from hypercorn.trio.worker_context import WorkerContext
from quart import request
from quart_trio import QuartTrio
from trio.abc import HalfCloseableStream
from trio.testing import MockClock, lockstep_stream_pair, memory_stream_pair

from qiyu.drivers.http_connection import Connection, HttpTimes, Served
from qiyu.drivers.http_exchange import RequestLine
from qiyu.metrics import Metrics

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = GET[:-2] + b"Connection: close\r\n\r\n"


class Peer:
    """A client, and the connection that serves it."""

    def __init__(self, stream: HalfCloseableStream, connection: Connection, metrics: Metrics, served: Served) -> None:
        self.stream = stream
        self.connection = connection
        self.metrics = metrics
        self.served = served

    async def rest(self) -> bytes:
        """All that comes until the connection is closed."""
        received = b""
        while data := await self.stream.receive_some():
            received += bytes(data)
        return received


Pair = Callable[[], tuple[HalfCloseableStream, HalfCloseableStream]]


@asynccontextmanager
async def peer_of(app: QuartTrio, pair: Pair = memory_stream_pair, requests: int = 10) -> AsyncIterator[Peer]:
    """A connection that is served, and has ended at the end."""
    client, server = pair()
    metrics = Metrics()
    line = RequestLine(requests, metrics)
    times = HttpTimes(keep_alive_seconds=75, request_seconds=10, answer_seconds=30)
    served = Served(cast("Any", app), times, line, metrics, Config(), WorkerContext(None))
    connection = Connection(server, ("192.0.2.1", 5), ("192.0.2.2", 80), served)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connection.run)
        yield Peer(client, connection, metrics, served)


@pytest.fixture
def app() -> QuartTrio:
    """Answers what it was sent."""
    app = QuartTrio("test")
    app.config.update(MAX_CONTENT_LENGTH=64 * 1024, RESPONSE_TIMEOUT=None)

    @app.route("/", methods=["GET", "POST"])
    async def echo() -> bytes:
        return b"<" + bytes(await request.get_data()) + b">"  # type: ignore[arg-type]

    @app.get("/never")
    async def never() -> str:
        await trio.sleep_forever()
        return ""

    @app.get("/long")
    async def long() -> bytes:
        return b"x" * 400_000

    return app


async def test_a_head_has_its_time_however_it_trickles(autojump_clock: MockClock, app: QuartTrio) -> None:
    async with peer_of(app) as peer:
        for byte in LAST:
            await peer.stream.send_all(bytes([byte]))
            await trio.sleep(1)
            if peer.metrics.http_timed_out:
                break
        assert (await peer.rest()).startswith(b"HTTP/1.1 408 ")
        assert trio.current_time() == pytest.approx(10, abs=2)
        assert peer.metrics.http_timed_out == 1


async def test_empty_lines_give_nobody_more_time(autojump_clock: MockClock, app: QuartTrio) -> None:
    async with peer_of(app) as peer:
        with suppress(trio.BrokenResourceError):
            while trio.current_time() < 1000:
                await peer.stream.send_all(b"\r\n")
                await trio.sleep(9)
        assert trio.current_time() <= 75


async def test_a_body_has_its_time_and_whoever_is_too_slow_is_told(autojump_clock: MockClock, app: QuartTrio) -> None:
    async with peer_of(app) as peer:
        await peer.stream.send_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nab")
        answer = await peer.rest()
        assert trio.current_time() == pytest.approx(10)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"the body did not come within 10 s" in answer
        assert b"connection: close" in answer.lower()
        assert peer.metrics.http_timed_out == 1
        assert peer.metrics.http_requests == 0, "it kept nobody's turn"


async def test_an_idle_connection_is_closed_and_counts_as_nobodys_fault(
    autojump_clock: MockClock, app: QuartTrio
) -> None:
    async with peer_of(app) as peer:
        await peer.stream.send_all(GET)
        assert (await peer.rest()).endswith(b"<>")
        assert trio.current_time() == pytest.approx(75)
        assert peer.metrics.http_timed_out == 0


async def test_whoever_does_not_read_the_answer_is_closed(autojump_clock: MockClock, app: QuartTrio) -> None:
    async with peer_of(app, lockstep_stream_pair) as peer:  # where nothing is sent until it is read
        await peer.stream.send_all(GET)
        await trio.sleep(29)
        assert peer.metrics.http_timed_out == 0
        await trio.sleep(2)
        assert peer.metrics.http_timed_out == 1
        assert b"<>" not in await peer.rest()


async def test_a_long_answer_has_more_time_but_not_for_ever(autojump_clock: MockClock, app: QuartTrio) -> None:
    async with peer_of(app, lockstep_stream_pair) as peer:
        await peer.stream.send_all(GET.replace(b"/ ", b"/long "))
        while not peer.metrics.http_timed_out:
            assert await peer.stream.receive_some(1000)
            await trio.sleep(1)
        assert 30 < trio.current_time() < 30 + 400_000 / 4096 + 10


async def test_a_call_that_never_ends_is_given_up(autojump_clock: MockClock, app: QuartTrio) -> None:
    async with peer_of(app) as peer:
        await peer.stream.send_all(GET.replace(b"/ ", b"/never "))
        assert await peer.rest() == b""
        assert trio.current_time() == pytest.approx(30)
        assert repr(peer.served.line) == "<RequestLine 0 under way, 0 waiting>"


async def test_over_the_bound_of_requests_under_way_it_is_503(autojump_clock: MockClock, app: QuartTrio) -> None:
    async with peer_of(app, requests=1) as peer:
        async with peer.served.line.turn():
            await peer.stream.send_all(LAST)
            answer = await peer.rest()
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1\r\n" in answer
        assert peer.metrics.http_requests_refused == 1


async def test_pipelined_requests_are_answered_in_order(autojump_clock: MockClock, app: QuartTrio) -> None:
    async with peer_of(app) as peer:
        posts = [b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n%d" % number for number in range(5)]
        await peer.stream.send_all(b"".join(posts) + LAST)
        answer = await peer.rest()
        assert [answer.count(b"<%d>" % number) for number in range(5)] == [1] * 5
        assert answer.index(b"<0>") < answer.index(b"<4>") < answer.index(b"<>")


async def test_a_request_may_be_answered_before_the_one_before_has_ended(
    autojump_clock: MockClock, app: QuartTrio
) -> None:
    """An application goes on for a moment after its answer; browsers do not wait for that."""
    ended: list[bytes] = []

    async def slow_to_end(scope: Any, receive: Any, send: Any) -> None:
        await app(scope, receive, send)
        await trio.sleep(5 if scope["raw_path"] == b"/" else 0)
        ended.append(scope["raw_path"])

    async with peer_of(cast("QuartTrio", slow_to_end)) as peer:
        await peer.stream.send_all(GET + LAST.replace(b"/ ", b"/long "))
        assert (await peer.rest()).count(b"HTTP/1.1 200 ") == 2
        assert ended[0] == b"/long"


async def test_who_half_closes_is_still_answered(autojump_clock: MockClock, app: QuartTrio) -> None:
    async with peer_of(app) as peer:
        await peer.stream.send_all(GET)
        await peer.stream.send_eof()
        assert (await peer.rest()).endswith(b"<>")


async def test_two_lengths_end_the_connection_after_the_answer(autojump_clock: MockClock, app: QuartTrio) -> None:
    two = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"
    async with peer_of(app) as peer:
        await peer.stream.send_all(two + GET)
        answer = await peer.rest()
        assert answer.count(b"HTTP/1.1 ") == 1
        assert b"connection: close" in answer.lower()
        assert answer.endswith(b"<a>")


@pytest.mark.parametrize(
    "head",
    [
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\ndbba0\r\n",
    ],
)
async def test_a_body_that_is_too_long_is_answered_while_it_still_comes(
    autojump_clock: MockClock, app: QuartTrio, head: bytes
) -> None:
    async with peer_of(app) as peer:
        await peer.stream.send_all(head + b"x" * 900_000)
        assert (await peer.rest()).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01", b"400"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"505"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a:b\r\n" * 12_000 + b"\r\n", b"431"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 5000, b"413"),
    ],
)
async def test_what_is_refused_is_told_why_and_leaves_no_cycle(
    autojump_clock: MockClock, app: QuartTrio, sent: bytes, status: bytes
) -> None:
    gc.disable()
    try:
        async with peer_of(app) as peer:
            await peer.stream.send_all(sent)
            parts = [weakref.ref(part) for part in (peer.connection, peer.connection._wire)]
            assert (await peer.rest()).startswith(b"HTTP/1.1 " + status)
            await peer.stream.aclose()
        del peer
        await trio.lowlevel.checkpoint()
        assert [part() for part in parts] == [None, None]
    finally:
        gc.enable()


async def test_an_answered_connection_leaves_no_cycle(autojump_clock: MockClock, app: QuartTrio) -> None:
    gc.disable()
    try:
        async with peer_of(app) as peer:
            await peer.stream.send_all(LAST)
            parts = [weakref.ref(part) for part in (peer.connection, peer.connection._wire)]
            assert (await peer.rest()).endswith(b"<>")
            await peer.stream.aclose()
        del peer
        await trio.lowlevel.checkpoint()
        assert [part() for part in parts] == [None, None]
    finally:
        gc.enable()


async def test_a_bug_is_answered_with_500(
    autojump_clock: MockClock, app: QuartTrio, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_args: Any) -> None:
        await trio.lowlevel.checkpoint()
        raise RuntimeError("the inside")

    async with peer_of(cast("QuartTrio", broken)) as peer:
        await peer.stream.send_all(GET)
        answer = await peer.rest()
        assert answer.startswith(b"HTTP/1.1 500 ")
        assert b"inside" not in answer
    assert "the application failed" in caplog.text


@pytest.mark.parametrize("sent", [b"", b"GET / HT"])
async def test_at_the_stop_what_waits_for_a_request_is_closed(
    autojump_clock: MockClock, app: QuartTrio, sent: bytes
) -> None:
    async with peer_of(app) as peer:
        await peer.stream.send_all(sent)
        await trio.testing.wait_all_tasks_blocked()
        peer.connection.stop()
        assert await peer.rest() == b""
        assert trio.current_time() == 0


async def test_at_the_stop_what_is_under_way_is_answered_and_then_closed(
    autojump_clock: MockClock, app: QuartTrio
) -> None:
    go_on = trio.Event()

    @app.get("/slow")
    async def slow() -> str:
        await go_on.wait()
        return "done"

    async with peer_of(app) as peer:
        await peer.stream.send_all(GET.replace(b"/ ", b"/slow ") + GET)
        await trio.testing.wait_all_tasks_blocked()
        await peer.served.context.terminated.set()
        peer.connection.stop()
        go_on.set()
        answer = await peer.rest()
        assert answer.endswith(b"done")
        assert trio.current_time() == 0
