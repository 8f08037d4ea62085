from __future__ import annotations

import pytest

from harness import Harness
from qiyu.routing.session import Session
from qiyu.services import lookups
from qiyu.services.lookups import LookUps


def session() -> Session:
    return Harness().connect().session


def test_all_who_ask_for_the_same_are_taken_together_and_once() -> None:
    asked: LookUps[int, str] = LookUps()
    one, two, three = session(), session(), session()
    for each, key, then in ((one, 7, "a"), (two, 8, "b"), (three, 7, "c")):
        assert asked.add(key, each, then)
    assert (len(asked), repr(asked)) == (3, "<LookUps of 2 for 3 sessions>")
    assert asked.take(7) == [(one, "a"), (three, "c")]
    assert asked.take(7) == []
    assert len(asked) == 1
    assert asked.add(7, one, "d")
    assert asked.take_all() == {8: [(two, "b")], 7: [(one, "d")]}
    assert (asked.take_all(), len(asked)) == ({}, 0)


def test_each_that_is_added_wakes_the_driver() -> None:
    asked: LookUps[int, str] = LookUps()
    found: list[int] = []
    asked.wake = lambda: found.append(len(asked))
    asked.add(7, session(), "a")
    asked.add(7, session(), "b")
    assert found == [1, 2]


@pytest.mark.parametrize("how", ["one", "all"])
def test_no_more_wait_than_the_bound_and_whoever_is_taken_makes_space(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookups, "WAITING_SESSIONS", 2)
    asked: LookUps[int, str] = LookUps()
    woken: list[None] = []
    asked.wake = lambda: woken.append(None)
    assert asked.add(7, session(), "a")
    assert asked.add(8, session(), "b")
    assert not asked.add(7, session(), "c")
    assert len(woken) == 2
    if how == "one":
        assert len(asked.take(7)) == 1
    else:
        assert sum(map(len, asked.take_all().values())) == 2
    assert asked.add(9, session(), "d")
