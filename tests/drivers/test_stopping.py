from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import trio
import trio.testing

from qiyu.drivers.stopping import Stop


def channel() -> tuple[trio.MemorySendChannel[int], AsyncIterator[int]]:
    send, receive = trio.open_memory_channel[int](5)
    return send, receive


async def test_work_that_ends_by_itself() -> None:
    _, stops = channel()
    done = []

    async def work() -> None:
        await trio.lowlevel.checkpoint()
        done.append(1)

    stop = Stop(stops)
    assert await stop.unless_told(work)
    assert done == [1]
    assert not stop.told.is_set()


async def test_a_start_ends_at_once() -> None:
    send, stops = channel()
    send.send_nowait(15)
    stop = Stop(stops)
    assert not await stop.unless_told(trio.sleep_forever)
    assert stop.told.is_set()


async def test_a_server_is_told_and_told_again() -> None:
    send, stops = channel()
    stop = Stop(stops)
    seen = []

    async def work() -> None:
        stop.serves = True
        send.send_nowait(15)
        await stop.told.wait()
        seen.append(stop.told_again.is_set())
        send.send_nowait(15)
        send.send_nowait(15)
        await stop.told_again.wait()
        await trio.testing.wait_all_tasks_blocked()
        seen.append(stop.told_again.is_set())

    assert await stop.unless_told(work)
    assert seen == [False, True]


@pytest.mark.parametrize("failure", [ValueError("x"), ExceptionGroup("xs", [ValueError("x"), KeyError("y")])])
async def test_what_the_work_raises_comes_out_as_it_is(failure: Exception) -> None:
    _, stops = channel()

    async def work() -> None:
        raise failure

    with pytest.raises(type(failure)) as raised:
        await Stop(stops).unless_told(work)
    assert raised.value is failure


async def test_it_may_be_cancelled_from_outside() -> None:
    _, stops = channel()
    with trio.move_on_after(0) as scope:
        await Stop(stops).unless_told(trio.sleep_forever)
    assert scope.cancelled_caught
