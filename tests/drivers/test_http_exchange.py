from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from qiyu.drivers.http_exchange import Exchange, RequestLine, answer, with_header
from qiyu.metrics import Metrics


def body(data: bytes, *, more: bool = False) -> Any:
    return {"type": "http.request", "body": data, "more_body": more}


async def test_the_body_is_handed_over_whole() -> None:
    exchange = Exchange()
    for data in (b"a", b"b"):
        await exchange.put(body(data, more=True))
        assert not exchange.is_complete.is_set()
    await exchange.put(body(b""))
    assert exchange.is_complete.is_set()
    assert await exchange.receive() == body(b"ab")


async def test_of_a_body_that_is_too_long_one_byte_more_is_kept_than_may_be() -> None:
    exchange = Exchange(body_bytes=4)
    await exchange.put(body(b"abcd", more=True))
    assert not exchange.is_complete.is_set()
    await exchange.put(body(b"efgh", more=True))
    assert exchange.is_complete.is_set()
    await exchange.put(body(b"ijkl", more=True))
    assert await exchange.receive() == body(b"abcde")


async def test_who_leaves_in_the_middle_is_gone_and_who_leaves_after_it_is_not() -> None:
    early, late = Exchange(), Exchange()
    await early.put({"type": "http.disconnect"})
    assert early.is_complete.is_set()
    assert early.is_gone
    await late.put(body(b""))
    await late.put({"type": "http.disconnect"})
    assert not late.is_gone


async def test_the_application_is_told_nothing_after_the_body(autojump_clock: MockClock) -> None:
    exchange = Exchange()
    await exchange.put(body(b""))
    await exchange.receive()
    await exchange.put({"type": "http.disconnect"})
    with trio.move_on_after(1000) as waiting:
        await exchange.receive()
    assert waiting.cancelled_caught


async def hold(line: RequestLine, seconds: float) -> None:
    async with line.turn() as is_mine:
        assert is_mine
        await trio.sleep(seconds)


async def test_so_many_at_once_and_the_others_in_line(autojump_clock: MockClock) -> None:
    metrics = Metrics()
    line = RequestLine(2, metrics)
    done: list[int] = []

    async def request(number: int) -> None:
        async with line.turn() as is_mine:
            assert is_mine
            await trio.sleep(2)
            done.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(request, number)
            await wait_all_tasks_blocked()
        assert repr(line) == "<RequestLine 2 under way, 2 waiting>"
    assert trio.current_time() == pytest.approx(4)
    assert sorted(done[:2]) == [0, 1], "in order"
    assert (metrics.http_requests, metrics.http_requests_refused) == (4, 0)


async def test_who_stands_in_line_too_long_is_turned_away(autojump_clock: MockClock) -> None:
    metrics = Metrics()
    line = RequestLine(1, metrics)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold, line, 6)
        await wait_all_tasks_blocked()
        async with line.turn() as is_mine:
            assert not is_mine
            assert trio.current_time() == pytest.approx(5)
    assert metrics.http_requests_refused == 1
    async with line.turn() as is_mine:
        assert is_mine, "the place is free again"


async def test_without_a_limit_nobody_waits(autojump_clock: MockClock) -> None:
    line = RequestLine(0, Metrics())
    async with trio.open_nursery() as nursery:
        for _ in range(500):
            nursery.start_soon(hold, line, 1)
    assert trio.current_time() == pytest.approx(1)


async def test_an_answer_in_the_applications_place_has_its_envelope_and_a_header_more() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        await trio.lowlevel.checkpoint()
        sent.append(message)

    await answer(with_header(send, b"connection", b"close"), 503, "not now", [(b"retry-after", b"1")])
    start, end = sent
    headers = dict(start["headers"])
    assert start["status"] == 503
    assert (headers[b"connection"], headers[b"retry-after"]) == (b"close", b"1")
    assert int(headers[b"content-length"]) == len(end["body"])
    assert json.loads(end["body"]) == {"code": 503, "msg": "not now", "data": None}
