from __future__ import annotations

from itertools import count

from qiyu.metrics import Metrics
from qiyu.routing.hub import Hub
from qiyu.routing.inflight import InFlight
from qiyu.routing.session import Session
from sessions import make_session

_ids = count(1)


def session(user_id: int, app_id: int = 10_001) -> Session:
    made = make_session(next(_ids))
    made.identify(app_id, user_id, "", "")
    return made


def test_a_user_is_found_by_app_and_id() -> None:
    hub = Hub(InFlight(100, Metrics()))
    one, other = session(10_000), session(10_000, app_id=20_000)
    assert hub.bind(one) is None
    assert hub.bind(other) is None
    assert hub.find(10_001, 10_000) is one
    assert hub.find(20_000, 10_000) is other
    assert hub.find(10_001, 10_001) is None
    assert hub.find(30_000, 10_000) is None
    assert len(hub) == 2
    assert set(hub) == {one, other}


def test_the_newer_session_takes_the_place_and_the_older_cannot_take_it_away() -> None:
    hub = Hub(InFlight(100, Metrics()))
    older, newer = session(10_000), session(10_000)
    hub.bind(older)
    assert hub.bind(newer) is older
    assert hub.bind(newer) is None
    hub.unbind(older)
    assert hub.find(10_001, 10_000) is newer
    hub.unbind(newer)
    assert hub.find(10_001, 10_000) is None
    assert len(hub) == 0


def test_unbind_leaves_the_room_even_where_the_place_is_taken() -> None:
    hub = Hub(InFlight(100, Metrics()))
    older, newer = session(10_000), session(10_000)
    hub.bind(older)
    hub.enter(older, 1)
    hub.bind(newer)
    hub.unbind(older)
    assert older.room is None
    assert hub.find_room(10_001, 1) is None


def test_who_never_logged_in_is_forgotten_without_harm() -> None:
    hub = Hub(InFlight(100, Metrics()))
    hub.bind(session(10_000))
    hub.unbind(make_session(next(_ids)))
    assert len(hub) == 1


def test_one_room_at_a_time() -> None:
    hub = Hub(InFlight(100, Metrics()))
    one = session(10_000)
    first = hub.enter(one, 1)
    assert first.members == {one}
    second = hub.enter(one, 2)
    assert one.room is second
    assert second.members == {one}
    assert hub.find_room(10_001, 1) is None
    assert hub.find_room(10_001, 2) is second


def test_entering_the_same_room_again_is_nothing() -> None:
    hub = Hub(InFlight(100, Metrics()))
    one = session(10_000)
    assert hub.enter(one, 1) is hub.enter(one, 1)
    assert one.room is not None
    assert one.room.members == {one}


def test_a_room_is_here_while_it_has_members() -> None:
    hub = Hub(InFlight(100, Metrics()))
    one, other = session(10_000), session(10_001)
    room = hub.enter(one, 1)
    assert hub.enter(other, 1) is room
    hub.leave(one)
    hub.leave(one)
    assert hub.find_room(10_001, 1) is room
    assert room.members == {other}
    hub.leave(other)
    assert hub.find_room(10_001, 1) is None
    assert repr(hub) == "<Hub sessions=0 rooms=0>"


def test_the_same_number_in_two_apps_is_two_rooms() -> None:
    hub = Hub(InFlight(100, Metrics()))
    one, other = session(10_000), session(10_000, app_id=20_000)
    assert hub.enter(one, 1) is not hub.enter(other, 1)
    assert repr(one.room) == "<Room 10001/1 members=1>"
