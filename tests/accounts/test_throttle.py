from __future__ import annotations

from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qiyu.accounts.throttle import Outcome, Throttle, ThrottleRules, TooSoon

RULES = ThrottleRules(free_failures=5)


def seconds_to_wait(throttle: Throttle, key: str, now: float, outcome: Outcome = Outcome.FAILED) -> int:
    """Make an attempt that ends at once; 0 if it was let in."""
    try:
        with throttle.attempt(key, now) as attempt:
            attempt.outcome = outcome
    except TooSoon as exc:
        return exc.seconds
    return 0


def test_the_first_failures_are_free_and_then_the_wait_doubles() -> None:
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
    throttle = Throttle(ThrottleRules(free_failures=1, first_seconds=10))
    seconds_to_wait(throttle, "a", 0)
    with pytest.raises(TooSoon) as caught, throttle.attempt("a", 7.5):
        pytest.fail("it was let in")
    assert caught.value.code == 429
    assert caught.value.seconds == 3
    assert caught.value.reason == "too many attempts: try again in 3 s"


def test_coming_too_soon_makes_the_wait_no_longer() -> None:
    throttle = Throttle(RULES)
    for _ in range(5):
        seconds_to_wait(throttle, "a", 0)
    for _ in range(100):
        assert seconds_to_wait(throttle, "a", 0.5) == 1
    assert seconds_to_wait(throttle, "a", 1) == 0


def test_one_key_does_not_wait_for_another() -> None:
    throttle = Throttle(ThrottleRules(free_failures=1))
    seconds_to_wait(throttle, "a", 0)
    assert seconds_to_wait(throttle, "b", 0) == 0
    assert seconds_to_wait(throttle, "a", 0) == 1


def test_a_success_forgets_the_failures() -> None:
    throttle = Throttle(RULES)
    for _ in range(4):
        seconds_to_wait(throttle, "a", 0)
    seconds_to_wait(throttle, "a", 0, Outcome.SUCCEEDED)
    assert len(throttle) == 0
    assert [seconds_to_wait(throttle, "a", 0) for _ in range(6)] == [0] * 5 + [1]


def test_what_was_not_decided_does_not_count() -> None:
    throttle = Throttle(RULES)
    for _ in range(100):
        assert seconds_to_wait(throttle, "a", 0, Outcome.UNDECIDED) == 0
    assert len(throttle) == 0
    with pytest.raises(TooSoon), throttle.attempt("a", 0):
        raise TooSoon(1)  # another throttle, further in
    assert len(throttle) == 0


def test_what_ends_with_an_error_is_a_failure() -> None:
    throttle = Throttle(ThrottleRules(free_failures=1))
    with pytest.raises(KeyError), throttle.attempt("a", 0):
        raise KeyError
    assert seconds_to_wait(throttle, "a", 0) == 1


def test_only_so_many_are_under_way_at_once() -> None:
    throttle = Throttle(ThrottleRules(free_failures=5, at_once=3))
    with ExitStack() as under_way:
        for _ in range(3):
            under_way.enter_context(throttle.attempt("a", 0))
        assert seconds_to_wait(throttle, "a", 0) == 1
        assert seconds_to_wait(throttle, "b", 0) == 0
    assert seconds_to_wait(throttle, "a", 0) == 0, "three failures, and all of them free"


def test_one_is_under_way_when_the_free_failures_are_spent() -> None:
    throttle = Throttle(RULES)
    for _ in range(5):
        seconds_to_wait(throttle, "a", 0)
    with throttle.attempt("a", 1):
        assert seconds_to_wait(throttle, "a", 1) == 1
    assert seconds_to_wait(throttle, "a", 1) == 2


def test_failures_are_forgotten_with_time() -> None:
    throttle = Throttle(RULES)
    for _ in range(5):
        seconds_to_wait(throttle, "a", 0)
    assert seconds_to_wait(throttle, "a", 1 + 899) == 0
    assert seconds_to_wait(throttle, "a", 1 + 899) == 2, "not yet forgotten"
    for _ in range(5):
        assert seconds_to_wait(throttle, "a", 900 + 2 + 900) == 0


def test_no_limit() -> None:
    throttle = Throttle(ThrottleRules(free_failures=0))
    for _ in range(1000):
        assert seconds_to_wait(throttle, "a", 0) == 0
    assert len(throttle) == 0


def test_whoever_was_heard_of_longest_ago_is_forgotten_first() -> None:
    throttle = Throttle(ThrottleRules(free_failures=1, first_seconds=100, keys=2))
    for now, key in enumerate("abc"):
        seconds_to_wait(throttle, key, now)
    assert repr(throttle) == "<Throttle 2 of 2 keys>"
    assert seconds_to_wait(throttle, "c", 2) == 100
    assert seconds_to_wait(throttle, "b", 2) == 99
    assert seconds_to_wait(throttle, "a", 2) == 0


STEPS = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(Outcome), st.floats(0, 2000)), max_size=60)


@pytest.mark.property
@given(STEPS)
def test_whoever_waits_as_long_as_told_is_let_in(steps: list[tuple[str, Outcome, float]]) -> None:
    """Invariant: a wait is at most `longest_seconds`, it is enough, and memory stays within its bound."""
    throttle = Throttle(ThrottleRules(free_failures=2, longest_seconds=600, keys=3))
    now = 0.0
    for key, outcome, later in steps:
        now += later
        if wait := seconds_to_wait(throttle, key, now, outcome):
            assert 1 <= wait <= 600
            now += wait
            assert seconds_to_wait(throttle, key, now, outcome) == 0
        assert len(throttle) <= 3


@pytest.mark.property
@given(st.lists(st.tuples(st.floats(0, 60), st.floats(0, 5)), max_size=300))
def test_guessing_stays_slow_whatever_its_rhythm(guesses: list[tuple[float, float]]) -> None:
    """Invariant: in an hour, failures are at most the free ones, `at_once`, one a doubling, and four for the rest.

    Each guess comes some time after the one before and takes some time, so that they overlap.
    """
    throttle = Throttle(RULES)
    now, let_in = 0.0, 0
    under_way: list[tuple[float, ExitStack]] = []
    for pause, lasts in guesses:
        now += pause
        for ended in [each for each in under_way if each[0] <= now]:
            under_way.remove(ended)
            ended[1].close()
        if now > 3600:
            break
        guess = ExitStack()
        try:
            guess.enter_context(throttle.attempt("a", now))
        except TooSoon:
            continue
        let_in += 1
        under_way.append((now + lasts, guess))
    for _, guess in under_way:
        guess.close()
    assert let_in <= RULES.free_failures + RULES.at_once + 10 + 4
    assert len(throttle) <= 1
