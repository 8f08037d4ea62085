from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from harness import GONE, ROOM, Received, ids_of
from message_tasks import Bench
from qiyu.drivers.message_reader import READ_SECONDS
from qiyu.model import Instant
from qiyu.storage.messages import (
    inbox_page,
    read_pages,
    users_with_inbox,
)

ALICE, BOB = 10_001, 10_002


async def test_an_inbox_of_many_pages(autojump_clock: MockClock, bench: Bench) -> None:
    alice = bench.harness.log_in(ALICE)
    for n in range(250):
        alice.whisper(BOB, str(n))
    bob = bench.harness.log_in(BOB)
    await bench.rest()
    assert bob.contents() == [str(n) for n in range(250)]
    alice.whisper(BOB, "live")
    assert bob.contents() == ["live"]


async def test_who_log_in_at_once_are_asked_for_with_one_query(autojump_clock: MockClock, bench: Bench) -> None:
    await bench.rest()
    for n in range(50):
        bench.harness.log_in(20_000 + n)
    await bench.rest()
    assert bench.fake.asked == [users_with_inbox]


@pytest.mark.parametrize("failing", [users_with_inbox, inbox_page])
async def test_an_inbox_is_read_once_the_database_answers(
    autojump_clock: MockClock, bench: Bench, failing: Any
) -> None:
    alice = bench.harness.log_in(ALICE)
    alice.whisper(BOB, "x")
    await bench.rest()
    bench.fake.fails_before = lambda work: GONE if work is failing else None
    bob = bench.harness.log_in(BOB)
    await trio.sleep(5)
    assert bob.receive() == []
    alice.whisper(BOB, "newer")
    bench.fake.fails_before = lambda _work: None
    await trio.sleep(1.1)
    assert bob.contents() == ["x", "newer"]


def result(received: list[Received]) -> tuple[bool, list[str]]:
    (answer, *rest) = received
    assert answer.code == ROOM
    return answer.data["recovered"], ids_of(rest)


async def remembers_nothing(bench: Bench) -> list[str]:
    """Three messages in room 7, which the server has forgotten; returns the msgIds."""
    alice, bob = bench.harness.log_in(ALICE, room=7), bench.harness.log_in(BOB, room=7)
    for n in range(3):
        alice.say(str(n))
    await bench.rest()
    ids = ids_of(bob.receive())
    bob.acknowledge(*ids)
    recent = bench.harness.node.rings
    recent._rings.clear()
    recent._size = 0
    bench.fake.asked.clear()
    return ids


async def test_those_who_come_back_are_served_with_one_query(autojump_clock: MockClock, bench: Bench) -> None:
    ids = await remembers_nothing(bench)
    readers = [bench.harness.log_in(20_000 + n) for n in range(20)]
    await bench.rest()
    bench.fake.asked.clear()
    for reader in readers:
        reader.send(ROOM, data={"roomId": 7, "afterMsgId": ids[0]})
    await bench.rest()
    assert bench.fake.asked == [read_pages]
    assert {(recovered, tuple(found)) for recovered, found in (result(reader.receive()) for reader in readers)} == {
        (True, tuple(ids[1:]))
    }


@pytest.mark.parametrize("how", ["fails", "hangs"])
async def test_who_comes_back_while_the_database_does_not_answer_waits_for_seconds_at_most(
    autojump_clock: MockClock, bench: Bench, how: str
) -> None:
    ids = await remembers_nothing(bench)
    reader = bench.harness.log_in(20_000)
    await bench.rest()
    if how == "fails":
        bench.fake.fails_before = lambda work: GONE if work is read_pages else None
    else:
        bench.fake.hangs = lambda work: work is read_pages
    reader.send(ROOM, data={"roomId": 7, "afterMsgId": ids[0]})
    await trio.sleep(READ_SECONDS + 0.1)
    assert result(reader.receive()) == (False, [])


async def test_nor_is_it_waited_for_a_message_whose_fate_is_unknown(autojump_clock: MockClock, bench: Bench) -> None:
    ids = await remembers_nothing(bench)
    reader = bench.harness.log_in(20_000)
    await bench.rest()
    bench.fake.fails_before = lambda _work: GONE
    bench.harness.log_in(20_001, room=7).say("x", "c-1")
    reader.send(ROOM, data={"roomId": 7, "afterMsgId": ids[0]})
    await trio.sleep(1.1)
    assert result(reader.receive()) == (False, [])
    reader.send(ROOM, data={"roomId": 8, "afterMsgId": ids[0]})  # and who comes while that is so
    await trio.sleep(1.1)
    assert result(reader.receive()) == (False, [])


async def test_older_than_the_history_reaches_is_not_recovered(autojump_clock: MockClock, bench: Bench) -> None:
    ids = await remembers_nothing(bench)
    bench.harness.now = Instant(bench.harness.now.monotonic, bench.harness.now.unix_ms + 86_400_001)
    reader = bench.harness.log_in(20_000)
    reader.send(ROOM, data={"roomId": 7, "afterMsgId": ids[0]})
    await bench.rest()
    assert result(reader.receive()) == (False, [])
