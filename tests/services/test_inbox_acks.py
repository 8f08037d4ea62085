from __future__ import annotations

from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qiyu.services import inbox_acks
from qiyu.services.inbox_acks import InboxAcks
from qiyu.storage.messages import Ack

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(0, 9)),
        st.tuples(st.sampled_from(["take", "written", "put back"]), st.integers(0, 30)),
    ),
    max_size=60,
)


def ack(n: int) -> Ack:
    return (10_001, 10_002, n)


@pytest.mark.property
@given(steps=STEPS)
def test_each_is_written_in_the_order_of_the_numbers_and_none_is_lost(steps: list[tuple[str, int]]) -> None:
    """Those that were added and not written wait or are taken; a batch takes the oldest below its number."""
    acks = InboxAcks()
    waiting: dict[Ack, int] = {}
    taken: dict[Ack, int] = {}
    with patch.object(inbox_acks, "BATCH_ACKS", 3):
        for number, (what, n) in enumerate(steps):
            if what == "add":
                acks.add(ack(n), number)
                waiting.setdefault(ack(n), number)
            elif what == "take" and not taken:
                oldest = sorted((each for each in waiting.items() if each[1] < n), key=lambda each: each[1])[:3]
                assert acks.take(n) == [each for each, _ in oldest]
                taken = dict(oldest)
                waiting = {each: number for each, number in waiting.items() if each not in taken}
            elif what == "written":
                acks.written()
                taken = {}
            elif what == "put back":
                acks.put_back()
                waiting |= taken
                taken = {}
            assert len(acks) == len(waiting)
            assert acks.oldest == min([*waiting.values(), *taken.values()], default=None)


def test_what_may_be_for_nothing_takes_no_place_that_another_may_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_acks, "WAITING_ACKS", 3)
    monkeypatch.setattr(inbox_acks, "UNCERTAIN_ACKS", 1)
    acks = InboxAcks()
    assert acks.has_space(is_certain=False)
    acks.add(ack(1), 1)
    assert not acks.has_space(is_certain=False)
    assert acks.has_space(is_certain=True)
    acks.add(ack(2), 2)
    acks.add(ack(3), 3)
    assert not acks.has_space(is_certain=True)
    acks.take(9)
    assert acks.has_space(is_certain=False)
