from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qiyu.services.throttle import Throttle, ThrottleRules, TooSoon

RULES = ThrottleRules(free_attempts=5)


def seconds_to_wait(throttle: Throttle, key: str, now: float) -> int:
    try:
        throttle.begin(key, now)
    except TooSoon as exc:
        return exc.seconds
    return 0


def test_the_first_attempts_are_free_and_then_the_wait_doubles() -> None:
    throttle = Throttle(RULES)
    for _ in range(5):
        assert seconds_to_wait(throttle, "a", 0) == 0
    waits, now = [], 0.0
    for _ in range(12):
        waits.append(seconds_to_wait(throttle, "a", now))
        now += waits[-1]
        assert seconds_to_wait(throttle, "a", now) == 0
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900]


def test_the_refusal_says_how_long() -> None:
    throttle = Throttle(ThrottleRules(free_attempts=1, first_seconds=10))
    throttle.begin("a", 0)
    with pytest.raises(TooSoon) as caught:
        throttle.begin("a", 7.5)
    assert caught.value.code == 429
    assert caught.value.seconds == 3
    assert caught.value.reason == "too many attempts: try again in 3 s"


def test_coming_too_soon_makes_the_wait_no_longer() -> None:
    throttle = Throttle(RULES)
    for _ in range(5):
        throttle.begin("a", 0)
    for _ in range(100):
        assert seconds_to_wait(throttle, "a", 0.5) == 1
    assert seconds_to_wait(throttle, "a", 1) == 0


def test_one_key_does_not_wait_for_another() -> None:
    throttle = Throttle(ThrottleRules(free_attempts=1))
    throttle.begin("a", 0)
    assert seconds_to_wait(throttle, "b", 0) == 0
    assert seconds_to_wait(throttle, "a", 0) == 1


def test_a_success_forgets_the_failures() -> None:
    throttle = Throttle(RULES)
    for _ in range(5):
        throttle.begin("a", 0)
    throttle.reset("a")
    assert len(throttle) == 0
    for _ in range(5):
        throttle.begin("a", 0)


def test_what_was_taken_back_does_not_count() -> None:
    throttle = Throttle(RULES)
    for _ in range(100):
        throttle.begin("a", 0)
        throttle.take_back("a")
    assert len(throttle) == 0
    throttle.take_back("never begun")


def test_guesses_sent_at_once_are_counted_as_they_begin() -> None:
    throttle = Throttle(RULES)
    begun = [seconds_to_wait(throttle, "a", 0) == 0 for _ in range(100)]
    assert sum(begun) == 5


def test_failures_are_forgotten_with_time() -> None:
    throttle = Throttle(RULES)
    for _ in range(5):
        throttle.begin("a", 0)
    assert seconds_to_wait(throttle, "a", 1 + 899) == 0
    assert seconds_to_wait(throttle, "a", 1 + 899) == 2, "not yet forgotten"
    for _ in range(5):
        assert seconds_to_wait(throttle, "a", 900 + 2 + 900) == 0


def test_no_limit() -> None:
    throttle = Throttle(ThrottleRules(free_attempts=0))
    for _ in range(1000):
        throttle.begin("a", 0)
    assert len(throttle) == 0


def test_who_failed_longest_ago_is_forgotten_first() -> None:
    throttle = Throttle(ThrottleRules(free_attempts=1, first_seconds=100, keys=2))
    throttle.begin("a", 0)
    throttle.begin("b", 1)
    throttle.begin("c", 2)
    assert repr(throttle) == "<Throttle 2 of 2 keys>"
    assert seconds_to_wait(throttle, "c", 2) == 100
    assert seconds_to_wait(throttle, "b", 2) == 99
    assert seconds_to_wait(throttle, "a", 2) == 0


STEPS = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from(["begin", "take_back", "reset"]), st.floats(0, 2000)),
    max_size=60,
)


@pytest.mark.property
@given(STEPS)
def test_whoever_waits_as_long_as_told_is_let_in(steps: list[tuple[str, str, float]]) -> None:
    """Invariant: a wait is at most `longest_seconds`, it is enough, and memory stays within its bound."""
    throttle = Throttle(ThrottleRules(free_attempts=2, longest_seconds=600, keys=3))
    now = 0.0
    for key, step, later in steps:
        now += later
        if step == "take_back":
            throttle.take_back(key)
        elif step == "reset":
            throttle.reset(key)
        elif wait := seconds_to_wait(throttle, key, now):
            assert 1 <= wait <= 600
            now += wait
            assert seconds_to_wait(throttle, key, now) == 0
        assert len(throttle) <= 3


@pytest.mark.property
@given(st.lists(st.floats(0, 30), max_size=400))
def test_guessing_stays_slow_whatever_its_rhythm(pauses: list[float]) -> None:
    """Invariant: in the first hour, nobody gets more attempts than the free ones, one a doubling, and four an hour.

    Forgetting resets the count only after as long a silence as the longest wait, in which no attempt was made at all.
    """
    throttle = Throttle(RULES)
    now, let_in = 0.0, 0
    for pause in pauses:
        now += pause
        if now > 3600:
            break
        let_in += seconds_to_wait(throttle, "a", now) == 0
    assert let_in <= 5 + 10 + 4
