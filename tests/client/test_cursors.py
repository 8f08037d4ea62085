from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qiyu.client.cursors import Cursors


def test_the_newest_of_each_room() -> None:
    cursors = Cursors(10)
    cursors.arrived(1, "10")
    cursors.arrived(2, "11")
    cursors.arrived(1, "9")
    cursors.arrived(1, "")
    assert [cursors.of(room_id) for room_id in (1, 2, 3, None)] == ["10", "11", "", ""]


@pytest.mark.property
@given(st.lists(st.integers(1, 10**19), min_size=1))
def test_a_position_only_grows(msg_ids: list[int]) -> None:
    """Invariant: in whatever order msgIds come, the position is the greatest so far."""
    cursors = Cursors(1)
    for count, msg_id in enumerate(msg_ids, 1):
        cursors.arrived(7, str(msg_id))
        assert cursors.of(7) == str(max(msg_ids[:count]))


def test_after_a_gap_it_stands_still_until_the_room_is_entered() -> None:
    cursors = Cursors(10)
    cursors.arrived(1, "10")
    cursors.dropped()
    cursors.arrived(1, "12")
    assert cursors.of(1) == "10"
    cursors.entered(1, "10")
    cursors.arrived(1, "11")
    assert cursors.of(1) == "11"


def test_the_server_may_say_what_came_before_the_gap() -> None:
    cursors = Cursors(10)
    cursors.arrived(1, "10")
    cursors.dropped(1, "11")
    assert (cursors.of(1), cursors.has_gap) == ("11", True)
    cursors.dropped(1, "20")  # the next gap; the first is not filled
    assert cursors.of(1) == "11"
    cursors.entered(1, "11")
    assert not cursors.has_gap


def test_what_the_caller_named_is_a_position() -> None:
    cursors = Cursors(10)
    cursors.entered(1, "5")
    cursors.entered(1, "4")
    cursors.entered(2, "")
    cursors.entered(None, "6")
    assert (cursors.of(1), cursors.of(2)) == ("5", "")


def test_a_room_in_which_nothing_was_seen_is_read_from_its_newest_message() -> None:
    cursors = Cursors(10)
    cursors.entered(1, "", "7")
    cursors.entered(2, "", "")  # it has none yet
    cursors.entered(3, "", None)  # nobody said
    cursors.entered(4, "5", "9")  # what lies between is on its way
    assert [cursors.of(room_id) for room_id in (1, 2, 3, 4)] == ["7", "0", "", "5"]
    cursors.arrived(2, "8")
    assert cursors.of(2) == "8"


def test_the_room_used_longest_ago_is_forgotten() -> None:
    cursors = Cursors(2)
    for room_id in (1, 2):
        cursors.arrived(room_id, "1")
    cursors.entered(1, "")
    cursors.arrived(3, "1")
    assert [cursors.of(room_id) for room_id in (1, 2, 3)] == ["1", "", "1"]
    assert repr(cursors) == "<Cursors rooms=2 frozen=False>"


def test_forgetting_leaves_nothing_to_go_on_from() -> None:
    cursors = Cursors(10)
    cursors.entered(1, "", "7")
    cursors.dropped()
    cursors.forget()
    assert cursors.of(1) == ""
    cursors.entered(1, "", "9")
    assert cursors.of(1) == "9"
