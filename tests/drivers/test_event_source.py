from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest
import trio

from qiyu.drivers.event_source import MAX_EVENTS, READ, WRITE, EventSource, SelectorSource, best_source


@pytest.fixture(params=[best_source, SelectorSource], ids=["best", "selectors"])
def source(request: pytest.FixtureRequest) -> Iterator[EventSource]:
    make: Callable[[], EventSource] = request.param
    made = make()
    yield made
    made.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair()
    with left, right:
        yield left, right


def test_it_says_who_can_be_read_and_written(source: EventSource, pair: tuple[socket.socket, socket.socket]) -> None:
    left, right = pair
    source.register(left.fileno())
    assert source.poll() == []
    source.watch(left.fileno(), READ | WRITE)
    assert source.poll() == [(left.fileno(), WRITE)]
    right.send(b"x")
    assert source.poll() == [(left.fileno(), READ | WRITE)]
    source.watch(left.fileno(), READ)
    assert source.poll() == [(left.fileno(), READ)]
    assert source.poll() == [(left.fileno(), READ)]  # level-triggered
    source.unregister(left.fileno())
    assert source.poll() == []


def test_a_peer_that_is_gone_can_be_read(source: EventSource, pair: tuple[socket.socket, socket.socket]) -> None:
    left, right = pair
    source.register(left.fileno())
    right.close()
    [(fd, event)] = source.poll()
    assert fd == left.fileno()
    assert event != WRITE


def test_what_is_watched_for_nothing_says_nothing(
    source: EventSource, pair: tuple[socket.socket, socket.socket]
) -> None:
    left, right = pair
    source.register(left.fileno())
    right.send(b"x")
    right.shutdown(socket.SHUT_WR)
    source.watch(left.fileno(), 0)
    assert source.poll() == []
    source.watch(left.fileno(), WRITE)
    assert source.poll() == [(left.fileno(), WRITE)]
    source.watch(left.fileno(), 0)
    assert source.poll() == []
    source.watch(left.fileno(), READ)
    assert source.poll() == [(left.fileno(), READ)]
    source.watch(left.fileno(), 0)
    source.unregister(left.fileno())
    assert source.poll() == []


async def test_it_can_be_waited_for_itself(source: EventSource, pair: tuple[socket.socket, socket.socket]) -> None:
    left, right = pair
    source.register(left.fileno())
    right.send(b"x")
    with trio.fail_after(5):
        await trio.lowlevel.wait_readable(source.fileno())


def test_one_poll_is_bounded(source: EventSource) -> None:
    pairs = [socket.socketpair() for _ in range(MAX_EVENTS + 10)]
    for left, right in pairs:
        source.register(left.fileno())
        right.send(b"x")
    assert len(source.poll()) <= MAX_EVENTS
    for left, right in pairs:
        source.unregister(left.fileno())
        left.close()
        right.close()
