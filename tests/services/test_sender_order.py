from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qiyu.services.sender_order import HERE, SenderOrder


class Places:
    """Each keeps its own order, and answers when it likes."""

    def __init__(self) -> None:
        self.order = SenderOrder()
        self.unanswered: dict[object, deque[int]] = {}
        self.answered: list[int] = []

    def submit(self, place: object, number: int, *, fails: bool = False, at_once: bool = False) -> None:
        def start() -> bool:
            if fails:
                self.answered.append(number)
                return False
            self.unanswered.setdefault(place, deque()).append(number)
            if at_once:
                self.answer(place)
            return True

        self.order.submit(place, start)

    def answer(self, place: object) -> None:
        if self.unanswered.get(place):
            self.answered.append(self.unanswered[place].popleft())
            self.order.answered()


def test_for_one_place_nothing_waits() -> None:
    places = Places()
    for n in range(3):
        places.submit("room", n)
    assert list(places.unanswered["room"]) == [0, 1, 2]
    assert places.order.waiting == 3


def test_for_another_place_a_message_waits_until_those_before_it_are_answered() -> None:
    places = Places()
    places.submit("room", 0)
    places.submit("room", 1)
    places.submit(HERE, 2)
    places.submit("room", 3)
    assert HERE not in places.unanswered
    places.answer("room")
    assert HERE not in places.unanswered
    places.answer("room")
    assert list(places.unanswered[HERE]) == [2]
    assert not places.unanswered["room"]
    places.answer(HERE)
    assert list(places.unanswered["room"]) == [3]


def test_one_that_fails_at_its_start_holds_up_nothing() -> None:
    places = Places()
    places.submit("room", 0, fails=True)
    places.submit(HERE, 1, at_once=True)
    assert places.answered == [0, 1]
    assert places.order.waiting == 0


@pytest.mark.property
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("submit"), st.sampled_from([HERE, "a", "b"]), st.sampled_from(["", "fails", "at once"])),
            st.tuples(st.just("answer"), st.sampled_from([HERE, "a", "b"]), st.just("")),
        ),
        max_size=40,
    )
)
def test_answers_come_in_the_order_said_and_none_is_missing(steps: list[tuple[str, object, str]]) -> None:
    """Wherever messages go and whenever they are answered: in their order, and all of them in the end."""
    places = Places()
    said = 0
    for step, place, how in steps:
        if step == "submit":
            places.submit(place, said, fails=how == "fails", at_once=how == "at once")
            said += 1
        else:
            places.answer(place)
        under_way = [place for place, numbers in places.unanswered.items() if numbers]
        assert len(under_way) <= 1
    for _ in range(said):
        for place in (HERE, "a", "b"):
            places.answer(place)
    # A failure is told at once, when it is its turn; within one place it may pass those that wait for an answer.
    assert sorted(places.answered) == list(range(said))
    assert places.order.waiting == 0
