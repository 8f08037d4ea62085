from __future__ import annotations

import ast
from itertools import count
from pathlib import Path

import pytest

import qiyu
from qiyu.metrics import Metrics
from qiyu.routing.inflight import InFlight
from qiyu.routing.publication import Kind, Publication
from qiyu.routing.session import Session
from sessions import make_session

_ids = count(1)


def message(name: str, kind: Kind = Kind.DROPPABLE) -> Publication:
    return Publication(app_id=10_001, biz_code=5555, data=b"{}", kind=kind, msg_id=name)


class Town:
    """An account, and sessions that were sent messages."""

    def __init__(self, window: int = 10) -> None:
        self.metrics = Metrics()
        self.in_flight = InFlight(window, self.metrics)

    def session(self, sent: str = "") -> Session:
        """A session with these messages in flight, each named by a letter: small in a room, capital direct."""
        session = make_session(next(_ids))
        for name in sent:
            assert self.in_flight.note(session, message(name, Kind.KEPT if name.isupper() else Kind.DROPPABLE))
        return session


def tables(session: Session) -> tuple[str, str]:
    """The names of what is in flight in rooms, and direct."""
    return "".join(session.room_in_flight or ()), "".join(session.direct_in_flight or ())


def test_what_is_noted_is_found_by_its_kind() -> None:
    town = Town()
    session = town.session("aBc")
    assert tables(session) == ("ac", "B")
    found = town.in_flight.find(session, "B")
    assert found is not None
    assert (found.msg_id, found.noted) == ("B", 1)
    assert town.in_flight.find(session, "c") is (session.room_in_flight or {})["c"]
    assert town.in_flight.find(session, "d") is None
    assert town.in_flight.find(town.session(), "a") is None
    assert town.in_flight.deliveries == 3


def test_what_is_owed_already_is_not_noted_a_second_time() -> None:
    town = Town()
    session = town.session("aB")
    for again in (message("a"), message("B", Kind.KEPT)):
        assert not town.in_flight.note(session, again)
        assert again.noted == 0
    assert town.in_flight.deliveries == 2


def test_a_room_message_is_noted_for_all_who_got_it() -> None:
    town = Town(window=2)
    full, empty = town.session("ab"), town.session()
    publication = message("c")
    town.in_flight.note_room([full, empty], publication)
    assert (tables(full), tables(empty)) == (("bc", ""), ("c", ""))
    assert publication.noted == 2
    assert (town.in_flight.deliveries, town.metrics.in_flight_evicted) == (3, 1)
    assert town.in_flight.owing([full, empty], publication) == [full, empty]
    assert town.in_flight.owing([full, empty], message("c")) == []  # the same msgId, and another packet


def test_an_ack_ends_what_it_names_and_gives_the_rest_back() -> None:
    town = Town()
    session = town.session("abC")
    publication = (session.room_in_flight or {})["a"]
    assert town.in_flight.take(session, ["a", "a", "C", "x"]) == ["a", "C", "x"]
    assert publication.noted == 0
    assert tables(session) == ("b", "C")
    direct = town.in_flight.take_direct(session, "C")
    assert direct is not None
    assert (direct.msg_id, direct.noted) == ("C", 0)
    for nothing in ("C", "b", "x"):
        assert town.in_flight.take_direct(session, nothing) is None
    assert (town.in_flight.deliveries, town.metrics.deliveries_acknowledged) == (1, 2)
    assert not session.late_acks


def test_an_ack_where_nothing_is_in_flight() -> None:
    town = Town()
    session = town.session()
    assert town.in_flight.take(session, ["a", "b"]) == ["a", "b"]
    assert town.in_flight.take_direct(session, "a") is None
    assert town.metrics.deliveries_acknowledged == 0


@pytest.mark.parametrize(
    ("names", "gone", "late"), [("ab", (2, 0), False), ("aCx", (1, 1), True), ("x", (0, 0), False)]
)
def test_what_is_dropped_is_waited_for_no_longer(names: str, gone: tuple[int, int], late: bool) -> None:
    town = Town()
    session = town.session("abCD")
    assert town.in_flight.drop(session, tuple(names)) == gone
    assert town.in_flight.deliveries == 4 - sum(gone)
    assert session.late_acks == late
    assert town.metrics.deliveries_acknowledged == 0


def test_a_room_message_is_dropped_for_all_but_who_got_it_again() -> None:
    town = Town()
    one, two, acknowledged, again = (town.session() for _ in range(4))
    publication = message("a")
    town.in_flight.note_room([one, two, acknowledged], publication)
    town.in_flight.take(acknowledged, ["a"])
    town.in_flight.note(again, publication.twin())
    assert town.in_flight.drop_room([one, two, acknowledged, again], publication) == 2
    assert [tables(each) for each in (one, two, acknowledged, again)] == [("", "")] * 3 + [("a", "")]
    assert publication.noted == 0
    assert town.in_flight.drop_room([one, two], publication) == 0
    assert town.in_flight.deliveries == 1


def test_the_oldest_room_message_gives_way_first() -> None:
    town = Town(window=4)
    session = town.session("AbcD")
    oldest = (session.room_in_flight or {})["b"]
    town.in_flight.note(session, message("e"))
    assert tables(session) == ("ce", "AD")
    assert oldest.noted == 0
    assert (town.in_flight.deliveries, town.metrics.in_flight_evicted) == (4, 1)
    assert not session.late_acks


@pytest.mark.parametrize("emptied", [False, True])
def test_a_direct_one_only_when_there_is_no_other_and_its_ack_may_come_yet(emptied: bool) -> None:
    town = Town(window=2)
    session = town.session("aBC") if emptied else town.session("BC")
    town.in_flight.note(session, message("D", Kind.KEPT))
    assert tables(session) == ("", "CD")
    assert session.late_acks
    assert town.in_flight.deliveries == 2


def test_a_window_of_none_still_takes_one() -> None:
    town = Town(window=0)
    session = town.session("ab")
    assert tables(session) == ("b", "")
    assert (town.in_flight.deliveries, town.metrics.in_flight_evicted) == (1, 1)


def test_who_leaves_its_room_owes_no_ack_for_it() -> None:
    town = Town()
    session = town.session("abC")
    publications = list((session.room_in_flight or {}).values())
    town.in_flight.forget_room(session)
    town.in_flight.forget_room(session)
    assert session.room_in_flight is None
    assert tables(session) == ("", "C")
    assert [each.noted for each in publications] == [0, 0]
    assert town.in_flight.deliveries == 1


def test_who_is_gone_owes_none_at_all() -> None:
    town = Town()
    session, other = town.session("abC"), town.session("d")
    town.in_flight.forget(session)
    town.in_flight.forget(session)
    assert session.room_in_flight is session.direct_in_flight is None
    assert tables(other) == ("d", "")
    assert town.in_flight.deliveries == 1


def test_only_empty_tables_are_given_back() -> None:
    town = Town()
    session = town.session("aB")
    town.in_flight.give_back(session)
    assert tables(session) == ("a", "B")
    town.in_flight.take(session, ["a"])
    town.in_flight.take_direct(session, "B")
    assert session.room_in_flight == session.direct_in_flight == {}
    town.in_flight.give_back(session)
    assert session.room_in_flight is session.direct_in_flight is None


def test_repr() -> None:
    town = Town()
    town.session("aB")
    assert repr(town.in_flight) == "<InFlight 2 deliveries>"


OWN = {"noted", "range_start", "room_in_flight", "direct_in_flight", "late_acks"}
CHANGE = {"pop", "popitem", "clear", "update", "setdefault", "__setitem__", "__delitem__"}
BEGIN = {
    "routing/session.py": {"__init__", "write_out"},
    "routing/publication.py": {"__init__", "twin"},
    "routing/room_log.py": {"settle"},
    "routing/router.py": {"_open"},
}
"""Where these facts have their first value, or are written down another way."""


def test_nobody_else_keeps_this_account() -> None:
    """No other module sets these attributes, or changes a table that it took from one of them."""
    root = Path(qiyu.__file__).parent
    found = []
    for path in root.rglob("*.py"):
        name = path.relative_to(root).as_posix()
        if name == "routing/inflight.py":
            continue
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef) and function.name not in BEGIN.get(name, ()):
                found += [f"{name}:{line}" for line in _changes(function)]
    assert found == []


def _changes(function: ast.FunctionDef) -> list[int]:
    lines = []
    for node in ast.walk(function):
        if isinstance(node, ast.Attribute) and node.attr in OWN and not isinstance(node.ctx, ast.Load):
            lines.append(node.lineno)
        elif isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load):
            lines += [
                node.lineno for part in ast.walk(node.value) if isinstance(part, ast.Attribute) and part.attr in OWN
            ]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CHANGE:
            owner = node.func.value
            lines += [node.lineno for part in ast.walk(owner) if isinstance(part, ast.Attribute) and part.attr in OWN]
    return lines
