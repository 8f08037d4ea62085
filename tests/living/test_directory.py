"""What an instance knows of living rooms by itself: there is no database here."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness import APP, BIZ, ROOM, Harness, error_of
from qiyu.living import directory
from qiyu.living.directory import ABSENT_SECONDS, CACHED_SECONDS, LISTED_ROOMS, RoomDirectory
from qiyu.storage.living_rooms import LivingRoom, RoomCounts


class Town(Harness):
    """An instance that requires rooms to be open."""

    def __init__(self) -> None:
        super().__init__(living={"require_open_room": True, "events": True})
        self.directory: RoomDirectory = self.node.room_directory

    def later(self, seconds: float) -> None:
        """Time goes by, and nothing else."""
        self.now = self.now._replace(monotonic=self.now.monotonic + seconds)

    def is_open(self, room_id: int) -> bool | None:
        return self.directory.is_open(APP, room_id, self.now)

    def listed(self, type_: int = 1) -> list[int]:
        return [room.id for room in self.directory.page(type_, 1, 100)[0]]


@pytest.fixture
def town() -> Town:
    return Town()


def room(room_id: int, *, type_: int = 1, likes: int = 0) -> LivingRoom:
    return LivingRoom(room_id, 10_000 + room_id, type_, "a room", "", 0, likes, 1)


def test_where_it_knows_nothing_only_the_database_does(town: Town) -> None:
    assert town.is_open(1) is None
    assert town.directory.find(1, town.now) is None


def test_where_no_room_needs_to_be_open_each_may_be_entered() -> None:
    open_house = Harness().node.room_directory
    assert open_house.is_open(APP, 1, Harness().now) is True
    assert open_house.is_open(APP + 1, 1, Harness().now) is True


def test_living_rooms_are_those_of_one_app(town: Town) -> None:
    town.directory.started(room(1), town.now)
    assert town.is_open(1) is True
    assert town.directory.is_open(APP + 1, 1, town.now) is False


@pytest.mark.parametrize(("found", "seconds"), [({}, ABSENT_SECONDS), ({1: room(1)}, CACHED_SECONDS)])
def test_presence_and_absence_are_forgotten_in_time(town: Town, found: dict[int, LivingRoom], seconds: float) -> None:
    town.directory.looked_up([1], found, town.now)
    town.later(seconds - 1)
    assert town.is_open(1) is bool(found)
    town.later(1)
    assert town.is_open(1) is None


def test_what_is_remembered_is_bounded_and_the_oldest_goes(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "CACHED_ROOMS", 10)
    town.directory.looked_up(range(1, 31), {}, town.now)
    assert "cached=10" in repr(town.directory)
    assert (town.is_open(20), town.is_open(21)) == (None, False)


def test_a_start_and_a_close_are_known_at_once_and_make_older_reads_worthless(town: Town) -> None:
    generation = town.directory.generation
    town.directory.started(room(1), town.now)
    assert (town.is_open(1), town.listed(), town.directory.generation) == (True, [1], generation + 1)
    town.directory.closed(room(1), town.now)
    assert (town.is_open(1), town.listed(), town.directory.generation) == (False, [], generation + 2)


def test_a_close_sends_everybody_out(town: Town) -> None:
    town.directory.started(room(1), town.now)
    viewer = town.log_in(10_002, room=1)
    town.directory.closed(room(1), town.now)
    assert viewer.receive()[-1].data["event"] == "closed"
    assert viewer.session.room is None
    assert error_of(viewer.answer(ROOM, data={"roomId": 1})) == 404


def test_lists_are_newest_first_in_pages_and_each_type_has_its_own(town: Town) -> None:
    for number in range(1, 6):
        town.directory.started(room(number), town.now)
    town.directory.started(room(9, type_=2), town.now)
    pages = [town.directory.page(1, number, 2) for number in (1, 2, 3, 4)]
    assert [([each.id for each in rooms], more) for rooms, more in pages] == [
        ([5, 4], True),
        ([3, 2], True),
        ([1], False),
        ([], False),
    ]
    assert town.listed(2) == [9]


def test_what_is_missing_in_a_whole_list_was_closed_elsewhere(town: Town) -> None:
    town.directory.listed(1, [room(2), room(1)], town.now)
    town.directory.listed(1, [room(2)], town.now)
    assert (town.listed(), town.is_open(1), town.is_open(2)) == ([2], False, True)


def test_what_is_missing_in_a_list_that_is_full_may_only_be_too_old(town: Town) -> None:
    town.directory.listed(1, [room(1)], town.now)
    town.directory.listed(1, [room(number) for number in range(2, LISTED_ROOMS + 2)], town.now)
    assert town.is_open(1) is True


def test_counts_are_those_of_this_moment(town: Town) -> None:
    town.directory.started(room(1, likes=50), town.now)
    viewer = town.log_in(10_002, room=1)
    viewer.send(BIZ, bizCode=5558, data={"roomId": 1, "count": 3})
    assert town.directory.page(1, 1, 1)[0] == [replace(room(1), watch_num=1, good_num=53, peak_num=1, visit_num=1)]
    assert town.directory.take_unstored() == {1: RoomCounts(1, 53, 1, 1)}
    assert town.directory.take_unstored() == {}
    town.directory.put_back_unstored([1])
    assert town.directory.take_unstored() == {1: RoomCounts(1, 53, 1, 1)}


def test_the_peak_and_the_visits_outlast_who_came(town: Town) -> None:
    """Three come, at most two at once, one of them twice; then all have left."""
    town.directory.started(replace(room(1), peak_num=1, visit_num=10), town.now)
    one, two = town.log_in(10_002, room=1), town.log_in(10_003, room=1)
    one.hang_up()
    again = town.log_in(10_002, room=1)
    again.send(ROOM, data={"roomId": 1})  # entering the room one is in is no visit
    again.hang_up()
    two.hang_up()
    assert town.directory.counts(1) == RoomCounts(0, 0, 2, 13)


def test_another_name_is_seen_at_once(town: Town) -> None:
    town.directory.started(room(1), town.now)
    generation = town.directory.generation
    town.directory.changed(room(1), town.now)  # it is as it was
    assert town.directory.generation == generation
    town.directory.changed(replace(room(1), room_name="另一个"), town.now)
    assert town.directory.generation == generation + 1
    assert [each.room_name for each in town.directory.page(1, 1, 9)[0]] == ["另一个"]


def test_an_anchor_is_away_when_nobody_has_seen_it_for_long(town: Town) -> None:
    town.directory.started(room(1), town.now)
    anchor_id = room(1).anchor_id
    assert town.directory.away(town.now, 60) == []  # the time begins
    town.advance(59)
    assert town.directory.away(town.now, 60) == []
    anchor = town.log_in(anchor_id)
    assert town.directory.away(town.now, 60) == []
    anchor.hang_up()
    town.advance(59)
    assert town.directory.away(town.now, 60) == []
    town.advance(1)
    assert [each.id for each in town.directory.away(town.now, 60)] == [1]
    town.directory.is_anchor_here = lambda other: other == anchor_id  # on air, say
    assert town.directory.away(town.now, 60) == []


def test_of_a_room_that_no_list_has_nothing_is_to_be_stored(town: Town) -> None:
    open_house = Harness()
    open_house.log_in(10_002, room=1)
    assert open_house.node.room_directory.take_unstored() == {}
