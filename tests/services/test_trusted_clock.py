from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from qiyu.model import Instant
from qiyu.services.trusted_clock import CATCH_UP, DAY_MS, DAY_SECONDS, JUMP_MS, TrustedClock

NOW = 1_750_000_000_000
HOUR = 3600.0


def at(seconds: float, wall_ms: int | None = None) -> Instant:
    return Instant(1000 + seconds, NOW + int(seconds * 1000) if wall_ms is None else wall_ms)


def test_it_goes_with_a_clock_that_is_right() -> None:
    clock = TrustedClock(at(0), NOW - 1000)
    with capture_logs() as logs:
        for seconds in (0.0, 60.0, 3600.0, 90_000.0):
            assert clock.read(at(seconds)) == at(seconds).unix_ms
        # a clock that is kept right is set by less than a minute
        assert clock.read(at(90_060, at(90_060).unix_ms + 900)) == at(90_060).unix_ms + 900
    assert logs == []


def test_a_wrong_clock_for_a_minute_moves_nothing() -> None:
    """40 days ahead for 75 seconds, and back: it never shows more than the time that went by."""
    clock = TrustedClock(at(0), NOW)
    ahead = 40 * DAY_MS
    with capture_logs() as logs:
        for seconds in range(10, 85, 5):
            assert clock.read(at(seconds, at(seconds).unix_ms + ahead)) == at(seconds).unix_ms
        for seconds in range(85, 400, 5):
            assert clock.read(at(seconds)) == at(seconds).unix_ms
    assert [entry["seconds"] for entry in logs] == [40 * DAY_SECONDS, -40 * DAY_SECONDS]


def test_a_clock_that_stays_ahead_is_followed_after_a_day_and_slowly() -> None:
    clock = TrustedClock(at(0), NOW)
    ahead = 40 * DAY_MS
    shown = [clock.read(at(hour * HOUR, at(hour * HOUR).unix_ms + ahead)) for hour in range(1, 72)]
    behind = [at(hour * HOUR).unix_ms + ahead - ms for hour, ms in enumerate(shown, 1)]
    assert behind[:24] == [ahead] * 24
    assert behind[25] - behind[26] == (CATCH_UP - 1) * int(HOUR * 1000)
    assert behind[-1] == 0


def test_a_clock_that_goes_back_is_followed_at_once() -> None:
    clock = TrustedClock(at(0), NOW)
    assert clock.read(at(10, NOW - 5 * DAY_MS)) == NOW - 5 * DAY_MS


@pytest.mark.parametrize("newest_ms", [NOW - DAY_MS // 2, NOW + 40 * DAY_MS, 0])
def test_a_start_that_the_rows_do_not_contradict(newest_ms: int) -> None:
    assert TrustedClock(at(0), newest_ms).read(at(1)) == NOW + 1000


def test_a_start_long_after_the_newest_row_is_looked_at_twice() -> None:
    """A server that was off for ten days, or one whose clock is wrong: for a day, nobody can know."""
    newest_ms = NOW - 10 * DAY_MS
    clock = TrustedClock(at(0), newest_ms)
    assert clock.read(at(60)) == newest_ms + 60_000
    assert clock.read(at(23 * HOUR)) == newest_ms + 23 * 3_600_000
    for hour in range(24, 60):
        shown = clock.read(at(hour * HOUR))
    assert shown == at(59 * HOUR).unix_ms


STEPS = st.lists(st.tuples(st.floats(0, 10_000), st.integers(-50 * DAY_MS, 50 * DAY_MS)), max_size=50)


@pytest.mark.property
@given(STEPS, st.integers(NOW - 100 * DAY_MS, NOW + 100 * DAY_MS))
def test_whatever_the_clock_does(steps: list[tuple[float, int]], newest_ms: int) -> None:
    """It never shows more than the wall's clock, and never goes forward more than CATCH_UP times as fast as time."""
    clock = TrustedClock(at(0), newest_ms)
    seconds, before = 0.0, clock.read(at(0))
    for elapsed, offset in steps:
        seconds += elapsed
        now = at(seconds, at(seconds).unix_ms + offset)
        shown = clock.read(now)
        assert shown <= now.unix_ms
        assert shown - before <= CATCH_UP * elapsed * 1000 + JUMP_MS + 2
        before = shown
