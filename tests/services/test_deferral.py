"""What is put aside while an inbox is on its way, one message at a time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import Harness
from qiyu.routing.publication import Kind, Publication
from qiyu.routing.session import Session
from qiyu.services import deferral
from qiyu.services.deferral import Deferral, RememberingDeferral


def session() -> Session:
    return Harness().connect().session


def message(msg_id: int) -> Publication:
    return Publication(app_id=10_001, biz_code=5556, data=b"{}", msg_id=str(msg_id), kind=Kind.KEPT)


def ids(messages: list[Publication] | None) -> list[int]:
    assert messages is not None
    return [int(each.msg_id) for each in messages]


def test_who_waits_for_no_inbox_gets_everything() -> None:
    assert Deferral().admits(session(), message(1))


def test_what_is_put_aside_follows_the_inbox_in_order() -> None:
    aside, bob = Deferral(), session()
    aside.begin(bob)
    assert not any(aside.admits(bob, message(number)) for number in (5, 6, 7))
    assert aside.admits(session(), message(5))
    assert "3 messages for 1 sessions" in repr(aside)
    assert ids(aside.end(bob, 5)) == [6, 7]
    assert aside.admits(bob, message(8))


def test_what_the_inbox_had_is_not_delivered_late() -> None:
    aside, bob = Deferral(), session()
    aside.begin(bob)
    assert ids(aside.end(bob, 5)) == []
    assert [aside.admits(bob, message(number)) for number in (4, 5, 6)] == [False, False, True]


def test_more_than_can_be_put_aside_is_read_from_the_inbox(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deferral, "DEFERRED_MESSAGES", 2)
    aside, bob = Deferral(), session()
    aside.begin(bob)
    for number in (1, 2, 3, 4):
        assert not aside.admits(bob, message(number))
    assert aside.end(bob, 0) is None
    assert not aside.admits(bob, message(5))  # it waits on
    assert ids(aside.end(bob, 4)) == [5]


def test_nothing_is_left_of_who_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deferral, "DEFERRED_MESSAGES", 1)
    aside, bob, cleo = Deferral(), session(), session()
    aside.begin(bob)
    for number in (1, 2):
        aside.admits(bob, message(number))
    aside.begin(cleo)
    aside.end(cleo, 5)
    for each in (bob, cleo, cleo):
        aside.forget(each)
    assert (aside._newer, aside._overrun, aside._replayed) == ({}, set(), {})


class TestAmongSeveralInstances:
    """msgIds say nothing of the order in which two instances' messages come."""

    def test_what_was_sent_is_not_sent_again_whatever_its_number(self) -> None:
        aside, bob = RememberingDeferral(), session()
        aside.begin(bob)
        assert aside.admits_replayed(bob, message(5))
        assert ids(aside.end(bob, 5)) == []
        assert [aside.admits(bob, message(number)) for number in (5, 4, 6, 4)] == [False, True, True, False]

    def test_what_is_put_aside_comes_after_the_inbox_and_not_what_that_had(self) -> None:
        aside, bob = RememberingDeferral(), session()
        aside.begin(bob)
        assert not any(aside.admits(bob, message(number)) for number in (7, 3, 5))
        aside.begin(bob)  # the inbox is read once more: what was put aside stays
        assert aside.admits_replayed(bob, message(5))
        assert ids(aside.end(bob, 5)) == [7, 3]

    def test_more_than_can_be_put_aside_is_read_from_the_beginning(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(deferral, "DEFERRED_MESSAGES", 1)
        aside, bob = RememberingDeferral(), session()
        aside.begin(bob)
        for number in (1, 2):
            aside.admits(bob, message(number))
        assert aside.end(bob, 9) is None
        assert (Deferral().again_from(9), aside.again_from(9)) == (9, 0)

    def test_what_is_remembered_is_bounded_and_forgotten(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(deferral, "REMEMBERED_MESSAGES", 2)
        aside, bob = RememberingDeferral(), session()
        assert all(aside.admits(bob, message(number)) for number in (1, 2, 3))
        assert [aside.admits(bob, message(number)) for number in (3, 2, 1)] == [False, False, True]
        aside.forget(bob)
        assert (aside._newer, aside._sent) == ({}, {})


@pytest.mark.property
@given(messages=st.lists(st.integers(1, 30), unique=True).map(sorted), data=st.data())
def test_each_message_comes_once_and_in_order(messages: list[int], data: st.DataObject) -> None:
    """Whatever is stored up to the replay's end comes with it, and all else after it, whenever it is delivered."""
    aside, bob = Deferral(), session()
    aside.begin(bob)
    before = data.draw(st.integers(0, len(messages)), label="delivered before the end")
    replayed = data.draw(st.sampled_from([0, *messages]), label="the last one in the inbox")
    got = [number for number in messages if number <= replayed]
    assert not any(aside.admits(bob, message(number)) for number in messages[:before])
    got += ids(aside.end(bob, replayed))
    got += [number for number in messages[before:] if aside.admits(bob, message(number))]
    assert got == messages
