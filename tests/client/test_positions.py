from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qiyu.client.positions import Positions


def test_the_newest_of_each_room() -> None:
    positions = Positions(10)
    positions.arrived(1, "10")
    positions.arrived(2, "11")
    positions.arrived(1, "9")
    positions.arrived(1, "")
    assert [positions.of(room_id) for room_id in (1, 2, 3, None)] == ["10", "11", "", ""]


@pytest.mark.property
@given(st.lists(st.integers(1, 10**19), min_size=1))
def test_a_position_only_grows(msg_ids: list[int]) -> None:
    """Invariant: in whatever order msgIds come, the position is the greatest so far."""
    positions = Positions(1)
    for count, msg_id in enumerate(msg_ids, 1):
        positions.arrived(7, str(msg_id))
        assert positions.of(7) == str(max(msg_ids[:count]))


def test_after_a_gap_it_stands_still_until_the_room_is_entered() -> None:
    positions = Positions(10)
    positions.arrived(1, "10")
    positions.dropped()
    positions.arrived(1, "12")
    assert positions.of(1) == "10"
    positions.entered(1, "10")
    positions.arrived(1, "11")
    assert positions.of(1) == "11"


def test_what_the_caller_named_is_a_position() -> None:
    positions = Positions(10)
    positions.entered(1, "5")
    positions.entered(1, "4")
    positions.entered(2, "")
    positions.entered(None, "6")
    assert (positions.of(1), positions.of(2)) == ("5", "")


def test_the_room_used_longest_ago_is_forgotten() -> None:
    positions = Positions(2)
    for room_id in (1, 2):
        positions.arrived(room_id, "1")
    positions.entered(1, "")
    positions.arrived(3, "1")
    assert [positions.of(room_id) for room_id in (1, 2, 3)] == ["1", "", "1"]
    assert repr(positions) == "<Positions rooms=2 frozen=False>"
