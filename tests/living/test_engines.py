from __future__ import annotations

import pytest

from living.test_streams import ROOM, Studio
from qiyu.living.engines import Engines
from qiyu.living.streams import PushRefused

FIRST, SECOND = ("127.0.0.1", "1"), ("127.0.0.1", "2")


class Theatre(Studio):
    """A studio whose pushes come to an engine."""

    def __init__(self) -> None:
        super().__init__()
        self.engines = Engines(self.streams)

    def pass_by(self, seconds: float) -> None:
        self.seconds += seconds
        self.streams.sweep(self.now)


def test_a_push_goes_on_for_as_long_as_the_engine_says_so() -> None:
    theatre = Theatre()
    theatre.engines.begin(FIRST, ROOM, theatre.now)
    for _ in range(5):
        theatre.pass_by(20)
        assert theatre.engines.goes_on(FIRST, theatre.now)
    theatre.pass_by(31)
    assert not theatre.streams.is_on_air(ROOM)
    assert not theatre.engines.goes_on(FIRST, theatre.now)
    assert theatre.told == [(ROOM, True), (ROOM, False)]


def test_an_engine_that_never_says_so_is_believed_until_the_end() -> None:
    theatre = Theatre()
    theatre.engines.begin(FIRST, ROOM, theatre.now)
    theatre.pass_by(100_000)
    assert theatre.streams.is_on_air(ROOM)
    theatre.engines.finish(FIRST)
    theatre.engines.finish(FIRST)
    assert not theatre.streams.is_on_air(ROOM)


def test_the_end_of_a_refused_push_is_not_the_end_of_the_other() -> None:
    theatre = Theatre()
    theatre.engines.begin(FIRST, ROOM, theatre.now)
    theatre.pass_by(60)
    with pytest.raises(PushRefused, match="is on air already"):
        theatre.engines.begin(SECOND, ROOM, theatre.now)
    theatre.engines.finish(SECOND)
    assert theatre.streams.is_on_air(ROOM)
    assert not theatre.engines.goes_on(SECOND, theatre.now)


def test_a_closed_room_is_said_at_the_next_word() -> None:
    theatre = Theatre()
    theatre.engines.begin(FIRST, ROOM, theatre.now)
    theatre.streams.close_room(ROOM)
    assert not theatre.engines.goes_on(FIRST, theatre.now)
    theatre.engines.begin(SECOND, 8, theatre.now)
    assert repr(theatre.engines) == "<Engines pushes=1>"
