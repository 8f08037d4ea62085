from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qiyu.client.backoff import Backoff


@pytest.mark.property
@given(
    base=st.floats(0.001, 10),
    cap=st.floats(0.001, 1000),
    jitters=st.lists(st.floats(0, 1), min_size=1, max_size=200),
)
def test_a_wait_is_never_longer_than_the_doubled_base_or_the_cap(base: float, cap: float, jitters: list[float]) -> None:
    """Invariant: before retry n a client waits from 0 to min(cap, base * 2^n) seconds, whatever n."""
    draws = iter(jitters)
    backoff = Backoff(base, cap, lambda: next(draws))
    for n, jitter in enumerate(jitters):
        seconds = backoff.next_seconds()
        assert 0 <= seconds <= min(cap, base * 2**n)
        assert seconds == pytest.approx(min(cap, base * 2 ** min(n, 64)) * jitter)


def test_a_connection_that_held_lets_it_begin_anew() -> None:
    backoff = Backoff(0.5, 30, lambda: 1.0)
    assert [backoff.next_seconds() for _ in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    backoff.reset()
    assert backoff.next_seconds() == 0.5


def test_a_thousand_retries_overflow_nothing() -> None:
    backoff = Backoff(0.5, 30, lambda: 1.0)
    assert [backoff.next_seconds() for _ in range(2000)][-1] == 30
