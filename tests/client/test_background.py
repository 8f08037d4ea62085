"""What leaves the body or a task comes out as itself."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from qiyu.client.background import BackgroundTasks


async def fail_with(exc: BaseException) -> None:
    await trio.lowlevel.checkpoint()
    raise exc


async def test_the_tasks_end_with_the_body() -> None:
    async with BackgroundTasks() as nursery:
        nursery.start_soon(trio.sleep_forever)


async def test_the_bodys_exception_is_the_one_that_was_raised() -> None:
    error = ValueError("body")

    async def body() -> None:
        async with BackgroundTasks() as nursery:
            nursery.start_soon(trio.sleep_forever)
            raise error

    with pytest.raises(ValueError, match="body") as caught:
        await body()
    assert caught.value is error


async def test_a_tasks_exception_ends_the_body_and_is_the_one_that_was_raised() -> None:
    error = ValueError("task")

    async def body() -> None:
        async with BackgroundTasks() as nursery:
            nursery.start_soon(fail_with, error)
            await trio.sleep_forever()

    with pytest.raises(ValueError, match="task") as caught:
        await body()
    assert caught.value is error


async def test_a_task_deep_down_too() -> None:
    async def branch() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(fail_with, ValueError("deep"))

    async def body() -> None:
        async with BackgroundTasks() as outer, BackgroundTasks() as inner:
            inner.start_soon(trio.sleep_forever)
            outer.start_soon(branch)
            await trio.sleep_forever()

    with pytest.raises(ValueError, match="deep"):
        await body()


async def test_the_bodys_exception_goes_before_a_tasks() -> None:
    async def body() -> None:
        async with BackgroundTasks() as nursery:
            nursery.start_soon(fail_with, KeyError("task"))
            with trio.CancelScope(shield=True):
                await wait_all_tasks_blocked()
            raise ValueError("body")

    with pytest.raises(ValueError, match="body"):
        await body()


async def test_but_an_interrupt_goes_before_all() -> None:
    async def body() -> None:
        async with BackgroundTasks() as nursery:
            nursery.start_soon(fail_with, KeyboardInterrupt())
            with trio.CancelScope(shield=True):
                await wait_all_tasks_blocked()
            raise ValueError("body")

    with pytest.raises(KeyboardInterrupt):
        await body()


async def test_several_tasks_that_fail_at_once_are_a_group() -> None:
    async def stubborn(exc: Exception) -> None:
        with trio.CancelScope(shield=True):
            await fail_with(exc)

    async def body() -> None:
        async with BackgroundTasks() as nursery:
            nursery.start_soon(stubborn, ValueError("one"))
            nursery.start_soon(stubborn, KeyError("two"))
            await trio.sleep_forever()

    with pytest.raises(ExceptionGroup) as caught:
        await body()
    assert {type(exc) for exc in caught.value.exceptions} == {ValueError, KeyError}


async def test_cancellation_from_outside_passes_through() -> None:
    with trio.CancelScope() as scope:
        async with BackgroundTasks() as nursery:
            nursery.start_soon(trio.sleep_forever)
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_cancellation_that_finds_the_body_done_passes_through() -> None:
    with trio.CancelScope() as scope:
        async with BackgroundTasks() as nursery:
            nursery.start_soon(trio.sleep_forever)
            await trio.lowlevel.checkpoint()
            scope.cancel()
    assert scope.cancel_called
