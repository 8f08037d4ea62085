"""What living rooms wait for, with a database whose failures the test chooses."""

from __future__ import annotations

from collections.abc import Collection

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import MockClock

from harness import Harness
from qiyu.drivers.living import LOOK_UP_SECONDS, run_living_rooms
from qiyu.errors import DatabaseUnavailable
from qiyu.model import Instant


class FakeRooms:
    """Fails as it is told, and notes who asked what."""

    def __init__(self) -> None:
        self.failure: Exception | None = None
        self.hangs = False
        self.refreshed = self.stored = 0

    async def _do(self) -> None:
        if self.hangs:
            await trio.sleep_forever()
        if self.failure is not None:
            raise self.failure

    async def refresh(self, _now: Instant) -> None:
        await self._do()
        self.refreshed += 1

    async def close_away(self, _now: Instant, seconds: float) -> None:
        self.away_seconds = seconds

    async def store_counts(self, _now: Instant) -> None:
        await self._do()
        self.stored += 1

    async def find_open(self, room_ids: Collection[int], _now: Instant) -> Collection[int]:
        await self._do()
        return room_ids


class FakePoller:
    """Acts at once."""

    @staticmethod
    def run_for(_session: object, act: object) -> None:
        act()  # type: ignore[operator]


@pytest.mark.parametrize("failure", [DatabaseUnavailable("gone"), RuntimeError("a bug")])
async def test_a_failure_is_told_once_and_tried_again(failure: Exception, autojump_clock: MockClock) -> None:
    rooms, dispatcher = FakeRooms(), Harness().dispatcher
    with capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_living_rooms, rooms, dispatcher, None, lambda: Instant(0, 0))  # type: ignore[arg-type]
            await trio.sleep(3.5)
            assert (rooms.refreshed, rooms.away_seconds) == (3, 0)
            rooms.failure = failure
            await trio.sleep(10)
            assert (rooms.refreshed, rooms.stored) == (3, 0)
            rooms.failure = None
            await trio.sleep(5)
            assert rooms.refreshed >= 7
            assert rooms.stored == 1
            nursery.cancel_scope.cancel()
    what = [(entry["log_level"], entry.get("so_cannot") or entry.get("so_can")) for entry in logs]
    level = "warning" if isinstance(failure, DatabaseUnavailable) else "error"
    reading, writing = "read living rooms", "write the counts of living rooms"
    assert sorted(what) == sorted([(level, reading), (level, writing), ("info", reading), ("info", writing)])


@pytest.mark.parametrize("how", ["works", "gone", "a bug", "hangs"])
async def test_whoever_waits_is_told_in_time(how: str, autojump_clock: MockClock) -> None:
    rooms, harness = FakeRooms(), Harness()
    rooms.hangs = how == "hangs"
    rooms.failure = {"gone": DatabaseUnavailable("gone"), "a bug": RuntimeError("a bug")}.get(how)
    session = harness.log_in(10_001).session
    told: list[bool | None] = []

    def clock() -> Instant:
        return harness.now

    with capture_logs():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_living_rooms, rooms, harness.dispatcher, FakePoller, clock)  # type: ignore[arg-type]
            await trio.testing.wait_all_tasks_blocked()
            harness.node.entering.lookups.add(7, session, lambda is_open, _now: told.append(is_open))
            await trio.sleep(LOOK_UP_SECONDS + 0.1)
            nursery.cancel_scope.cancel()
    assert told == [True if how == "works" else None]
