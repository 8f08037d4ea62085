from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qiyu.routing.msgid import EPOCH_MS, LATEST_MS, MAX_ID, MAX_INSTANCE, MsgIds, first_id, time_of

NOW = 1_750_000_000_000
CLOCKS = st.lists(st.integers(NOW - 5, NOW + 5), max_size=50)
ANY_CLOCKS = st.lists(st.integers(-(2**41), 2**42), max_size=20)


@pytest.mark.property
@given(st.integers(0, MAX_INSTANCE), st.one_of(CLOCKS, ANY_CLOCKS))
def test_ids_grow_whatever_the_clock_does(instance: int, clock: list[int]) -> None:
    """Every id is above all earlier ones of its instance, also where the clock stands still, goes back or is wrong."""
    ids = MsgIds(instance)
    made = [ids.next(now) for now in clock]
    assert made == sorted(set(made))
    assert all(10**18 < number <= MAX_ID for number in made)  # 19 digits, and a column can hold it


def test_a_clock_that_cannot_be_right_is_not_believed() -> None:
    ids = MsgIds(5)
    before = ids.next(NOW)
    assert ids.next(LATEST_MS) == before + 1
    assert ids.next(4_000_000_000_000) == before + 2
    assert ids.next(0) == before + 3
    assert time_of(ids.next(NOW + 1000)) == NOW + 1000  # and when it is right again, all is well
    assert first_id(2**62) == MAX_ID


@pytest.mark.property
@given(
    st.lists(st.integers(0, MAX_INSTANCE), min_size=2, max_size=2, unique=True),
    st.one_of(CLOCKS, ANY_CLOCKS),
    st.one_of(CLOCKS, ANY_CLOCKS),
)
@example([1, 2], [0, 0], [0])
def test_no_two_instances_make_the_same_id(numbers: list[int], clock: list[int], other_clock: list[int]) -> None:
    """Two instances with different numbers never make the same id, whatever their clocks say."""
    one, other = (MsgIds(number) for number in numbers)
    assert {one.next(now) for now in clock}.isdisjoint({other.next(now) for now in other_clock})


@pytest.mark.property
@given(st.integers(0, MAX_INSTANCE), st.integers(1_672_531_200_001, LATEST_MS - 1))
def test_19_digits_from_2023_to_2084(instance: int, now: int) -> None:
    """Ids are decimal, and so compare alike as numbers and as texts."""
    assert len(str(MsgIds(instance).next(now))) == 19


@pytest.mark.property
@given(st.integers(0, MAX_INSTANCE), st.integers(0, 2**63 - 2**23), st.lists(st.integers(NOW - 5, NOW + 5), min_size=1))
def test_after_a_restart_ids_are_above_the_largest_stored(instance: int, stored: int, clock: list[int]) -> None:
    """Whatever was stored, by whichever instance and however far ahead of the clock, new ids are above it and grow."""
    ids = MsgIds(instance)
    ids.start_above(stored)
    made = [ids.next(now) for now in clock]
    assert made[0] > stored
    assert made == sorted(set(made))
    assert {number >> 12 & MAX_INSTANCE for number in made} == {instance}


@pytest.mark.property
@given(st.integers(0, MAX_INSTANCE), st.integers(0, 2**63 - 2**23), CLOCKS)
def test_the_last_one_is_where_all_further_ones_begin(instance: int, stored: int, clock: list[int]) -> None:
    """At any time, no id made is above `last`, and the next one is."""
    ids = MsgIds(instance)
    ids.start_above(stored)
    assert ids.last >= stored
    for now in clock:
        before = ids.last
        made = ids.next(now)
        assert before < made == ids.last


@pytest.mark.property
@given(st.integers(0, MAX_INSTANCE), st.integers(1_672_531_200_001, LATEST_MS - 1))
def test_ids_of_a_moment_are_between_its_first_and_the_next_ones(instance: int, now: int) -> None:
    """A range of time is a range of ids."""
    assert first_id(now) <= MsgIds(instance).next(now) < first_id(now + 1)


def test_starting_above_a_small_one_takes_nothing_back() -> None:
    ids = MsgIds(3)
    before = ids.next(NOW)
    ids.start_above(1)
    assert ids.next(NOW) == before + 1


def test_more_than_4096_in_a_millisecond_borrow_from_the_next() -> None:
    ids = MsgIds(7)
    made = [ids.next(NOW) for _ in range(10_000)]
    assert made == sorted(set(made))
    assert {number >> 12 & MAX_INSTANCE for number in made} == {7}
    assert made[-1] >> 22 == NOW - EPOCH_MS + 2
    assert ids.next(NOW + 1000) >> 22 == NOW - EPOCH_MS + 1000  # the clock has caught up


def test_the_millisecond_is_in_it() -> None:
    assert MsgIds(0).next(NOW) >> 22 == NOW - EPOCH_MS


@pytest.mark.parametrize("instance", [-1, MAX_INSTANCE + 1])
def test_an_instance_number_that_does_not_fit(instance: int) -> None:
    with pytest.raises(ValueError, match="expected 0 to 1023"):
        MsgIds(instance)
