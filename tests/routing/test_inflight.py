from __future__ import annotations

from itertools import count

import pytest

from qiyu.metrics import Metrics
from qiyu.routing.inflight import InFlight
from qiyu.routing.publication import Publication
from qiyu.routing.session import Session, Table
from sessions import make_session

_ids = count(1)


class Town:
    """An account, and sessions whose tables are filled by hand."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.in_flight = InFlight(10, self.metrics)

    def session(self, *, room: str = "", direct: str = "") -> Session:
        """A session with these messages in flight, each named by a letter."""
        session = make_session(next(_ids))
        session.room_in_flight = self._table(room)
        session.direct_in_flight = self._table(direct)
        return session

    def _table(self, names: str) -> Table | None:
        table = {}
        for name in names:
            table[name] = Publication(app_id=10_001, biz_code=5555, data=b"{}", msg_id=name)
            table[name].unacked += 1
            self.in_flight.deliveries += 1
        return table or None


def test_the_oldest_room_message_goes_first() -> None:
    town = Town()
    session = town.session(room="bc", direct="ad")
    assert session.room_in_flight is not None
    oldest = session.room_in_flight["b"]
    town.in_flight.evict(session)
    assert (list(session.room_in_flight), list(session.direct_in_flight or ())) == (["c"], ["a", "d"])
    assert oldest.unacked == 0
    assert (town.in_flight.deliveries, town.metrics.in_flight_evicted) == (3, 1)
    assert not session.late_acks


@pytest.mark.parametrize("emptied", [False, True])
def test_a_direct_one_only_when_there_is_no_other_and_its_ack_may_come_yet(emptied: bool) -> None:
    town = Town()
    session = town.session(direct="ab")
    session.room_in_flight = {} if emptied else None
    town.in_flight.evict(session)
    assert list(session.direct_in_flight or ()) == ["b"]
    assert session.late_acks
    assert town.in_flight.deliveries == 1


def test_where_there_is_nothing_nothing_goes() -> None:
    town = Town()
    town.in_flight.evict(town.session())
    assert (town.in_flight.deliveries, town.metrics.in_flight_evicted) == (0, 0)


def test_who_leaves_its_room_owes_no_ack_for_it() -> None:
    town = Town()
    session = town.session(room="ab", direct="c")
    publications = list((session.room_in_flight or {}).values())
    town.in_flight.forget_room(session)
    town.in_flight.forget_room(session)
    assert session.room_in_flight is None
    assert list(session.direct_in_flight or ()) == ["c"]
    assert [each.unacked for each in publications] == [0, 0]
    assert town.in_flight.deliveries == 1


def test_who_is_gone_owes_none_at_all() -> None:
    town = Town()
    session, other = town.session(room="ab", direct="c"), town.session(room="d")
    town.in_flight.forget(session)
    town.in_flight.forget(session)
    assert session.room_in_flight is session.direct_in_flight is None
    assert town.in_flight.deliveries == len(other.room_in_flight or ()) == 1
