from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.lowlevel import ParkingLot
from trio.testing import wait_all_tasks_blocked

from client.fakes import chat_packet
from qiyu.client.errors import Kicked
from qiyu.client.incoming import Incoming
from qiyu.client.messages import Disconnected, Error, Item, Message, Reconnected, read_biz


def message(number: int) -> Message:
    _, item = read_biz(chat_packet(number, f"text {number}").body)
    assert isinstance(item, Message)
    return item


def new(queue_items: int = 10, remembered: int = 10) -> Incoming:
    return Incoming(queue_items, remembered, ParkingLot())


async def deliver(incoming: Incoming, *numbers: int) -> None:
    for number in numbers:
        await incoming.deliver(str(number), message(number))


async def test_a_message_is_acknowledged_when_the_application_comes_back_for_the_next() -> None:
    incoming = new()
    await deliver(incoming, 1, 2)
    assert incoming.take_acks(10) == []
    assert await anext(incoming) == message(1)
    assert incoming.take_acks(10) == []
    assert await anext(incoming) == message(2)
    assert incoming.take_acks(10) == ["1"]
    incoming.finish()
    assert incoming.take_acks(10) == ["2"]


async def test_what_is_here_is_acknowledged_together() -> None:
    incoming = new()
    await deliver(incoming, *range(5))
    for _ in range(5):
        await anext(incoming)
    incoming.finish()
    assert incoming.take_acks(3) == ["0", "1", "2"]
    assert incoming.take_acks(3) == ["3", "4"]


async def test_a_double_of_a_finished_message_is_acknowledged_again_and_not_shown() -> None:
    incoming = new()
    await deliver(incoming, 1)
    await anext(incoming)
    incoming.finish()
    incoming.take_acks(10)
    await deliver(incoming, 1, 1)
    assert incoming.take_acks(10) == ["1"]
    await deliver(incoming, 2)
    assert await anext(incoming) == message(2)


async def test_a_double_of_a_message_that_is_not_finished_is_neither_shown_nor_acknowledged() -> None:
    incoming = new()
    await deliver(incoming, 1, 1)
    await anext(incoming)
    await deliver(incoming, 1)
    assert incoming.take_acks(10) == []
    incoming.end(None)
    with pytest.raises(StopAsyncIteration):
        await anext(incoming)


async def test_only_the_last_messages_are_remembered_as_finished() -> None:
    incoming = new(remembered=2)
    for number in (1, 2, 3):
        await deliver(incoming, number)
        await anext(incoming)
    incoming.finish()
    await deliver(incoming, 3, 2)
    incoming.take_acks(10)
    await deliver(incoming, 1)
    assert await anext(incoming) == message(1)


@pytest.mark.property
@given(numbers=st.lists(st.integers(0, 20), max_size=100), bites=st.lists(st.integers(0, 3), max_size=100))
def test_each_message_is_shown_once_and_acknowledged_only_after_it(numbers: list[int], bites: list[int]) -> None:
    """Invariant: however doubles mix with reading, a msgId is shown once, and acknowledged only when finished."""

    async def main() -> None:
        incoming = new(queue_items=1000, remembered=1000)
        shown: list[str] = []
        for step, number in enumerate(numbers):
            await deliver(incoming, number)
            for _ in range(min(bites[step] if step < len(bites) else 1, len(set(numbers[: step + 1])) - len(shown))):
                item = await anext(incoming)
                assert isinstance(item, Message)
                shown.append(item.msg_id)
            assert set(incoming.take_acks(1000)) <= set(shown[:-1])
        assert len(shown) == len(set(shown))

    trio.run(main)


async def test_a_full_queue_holds_the_reader_back() -> None:
    incoming = new(queue_items=2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(deliver, incoming, 1, 2, 3)
        await wait_all_tasks_blocked()
        assert "items=2" in repr(incoming)
        assert await anext(incoming) == message(1)
        await wait_all_tasks_blocked()
        assert "items=2" in repr(incoming)


async def test_a_reader_that_is_cancelled_in_a_full_queue_has_not_taken_the_message() -> None:
    incoming = new(queue_items=1)
    await deliver(incoming, 1)
    with trio.CancelScope() as scope:
        scope.cancel()
        await deliver(incoming, 2)
    await anext(incoming)
    await deliver(incoming, 2)  # it comes again, on the next connection
    assert await anext(incoming) == message(2)


async def test_a_full_queue_takes_as_much_again_while_an_answer_is_awaited() -> None:
    incoming = new(queue_items=2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(deliver, incoming, *range(5))
        await wait_all_tasks_blocked()
        with incoming.answer_awaited():
            await wait_all_tasks_blocked()
            assert "items=4" in repr(incoming)
        nursery.cancel_scope.cancel()


async def test_what_waits_is_handed_out_before_the_end() -> None:
    incoming = new()
    await deliver(incoming, 1)
    incoming.end(Kicked("replaced"))
    assert await anext(incoming) == message(1)
    for _ in range(2):
        with pytest.raises(Kicked, match="replaced"):
            await anext(incoming)


async def test_the_end_wakes_who_waits() -> None:
    incoming = new()
    seen: list[Item] = []

    async def read() -> None:
        async for item in incoming:
            seen.append(item)  # noqa: PERF401  # what has come is looked at meanwhile

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        await wait_all_tasks_blocked()
        await incoming.put(Error(429, "too fast"))
        await wait_all_tasks_blocked()
        incoming.end(None)
    assert seen == [Error(429, "too fast")]


async def test_of_changes_of_state_with_nothing_between_the_last_is_kept() -> None:
    incoming = new(queue_items=1)
    await deliver(incoming, 1)
    for change in (Disconnected("a", 1), Reconnected(1), Disconnected("b", 2)):
        incoming.put_state(change)
    assert await anext(incoming) == message(1)
    assert await anext(incoming) == Disconnected("b", 2)
    assert "items=0" in repr(incoming)


async def test_that_messages_were_missed_is_not_replaced_by_what_comes_later() -> None:
    incoming = new()
    missed = Reconnected(1, recovered=False)
    for _ in range(3):
        for change in (missed, Disconnected("a", 1), Reconnected(1, recovered=True), Disconnected("b", 1)):
            incoming.put_state(change)
    assert [await anext(incoming) for _ in range(2)] == [missed, Disconnected("b", 1)]
    assert "items=0" in repr(incoming)


async def test_what_is_no_message_but_has_an_id_is_shown_once_and_acknowledged_each_time() -> None:
    incoming = new()
    for _ in range(2):
        await incoming.deliver("1", Error(400, "cannot be read"))
        assert incoming.take_acks(10) == ["1"]
    assert "items=1" in repr(incoming)


async def test_after_logout_messages_are_left_for_the_next_login() -> None:
    incoming = new()
    incoming.leave()
    await deliver(incoming, 1)
    assert "items=0" in repr(incoming)
    assert incoming.take_acks(10) == []
