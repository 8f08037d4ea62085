"""The rings against a plain list of all that was said in each room."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from qiyu.metrics import Metrics
from qiyu.routing.hub import Hub
from qiyu.routing.inflight import InFlight
from qiyu.routing.publication import Kind, Publication
from qiyu.services import rings as services_rings
from qiyu.services.rings import Ring, RingEntry, Rings

KEY = (10_001, 7)


def message(msg_id: int, sender: int = 10_001, content: str = "") -> RingEntry:
    publication = Publication(
        app_id=10_001, biz_code=5555, data=content.encode(), msg_id=str(msg_id), kind=Kind.DROPPABLE
    )
    return RingEntry(msg_id, sender, publication)


def ids(found: list[Publication]) -> list[int]:
    return [int(each.msg_id) for each in found]


def filled(*msg_ids: int, floor: int = 0, max_bytes: int = 2**40) -> tuple[Rings, Ring]:
    """One ring with these messages."""
    rings = Rings(Hub(InFlight(100, Metrics())), max_bytes)
    ring = rings.open(KEY, floor)
    for msg_id in msg_ids:
        rings.add(ring, message(msg_id))
    return rings, ring


def test_a_new_ring_knows_what_comes_after_the_last_id() -> None:
    rings = Rings(Hub(InFlight(100, Metrics())), 2**20)
    assert rings.find(KEY) is None
    ring = rings.open(KEY, 5)
    assert rings.find(KEY) is ring is rings.open(KEY, 9)
    assert ring.floor == 5
    assert ring.since(5, 0) == []


def test_since_is_what_others_said_later_oldest_first() -> None:
    rings, ring = filled(1, 2, 3)
    rings.add(ring, message(4, sender=10_002))
    rings.add(ring, message(5))
    assert ids(ring.since(0, 10_009)) == [1, 2, 3, 4, 5]
    assert ids(ring.since(2, 10_009)) == [3, 4, 5]
    assert ids(ring.since(2, 10_002)) == [3, 5]
    assert ring.since(5, 10_009) == ring.since(0, 10_001)[1:] == []


def test_who_comes_back_gets_a_packet_with_an_account_of_its_own() -> None:
    first = message(1)
    rings, ring = filled()
    rings.add(ring, first)
    first._publication.noted = 3
    (again,) = ring.since(0, 10_009)
    assert again is not first._publication
    assert again.noted == 0
    assert again.spliced is first._publication.spliced  # encoded once
    assert ring.since(0, 10_010) == [again]


def test_the_oldest_is_forgotten_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services_rings, "RING_MESSAGES", 3)
    rings, ring = filled(1, 2, 3, 4, 5)
    assert ids(ring.since(0, 0)) == [3, 4, 5]
    assert ring.floor == 2
    assert ring.size == rings._size == sum(item.size for item in ring.items)


def test_the_quietest_room_is_forgotten_first() -> None:
    size = message(1).size
    rings = Rings(Hub(InFlight(100, Metrics())), 3 * size)
    quiet, loud = rings.open((10_001, 1), 0), rings.open((10_001, 2), 0)
    for msg_id, ring in ((1, quiet), (2, loud), (3, quiet), (4, loud)):
        rings.add(ring, message(msg_id))
    assert (quiet.floor, ids(quiet.since(0, 0))) == (1, [3])
    rings.add(loud, message(5))
    assert (quiet.floor, ids(quiet.since(0, 0))) == (3, [])
    assert ids(loud.since(0, 0)) == [2, 4, 5]


@pytest.mark.parametrize("max_bytes", [0, 1])
def test_without_memory_nothing_is_kept_and_it_says_so(max_bytes: int) -> None:
    _, ring = filled(1, 2, max_bytes=max_bytes)
    assert (ring.floor, list(ring.items), ring.size) == (2, [], 0)


def test_what_was_read_comes_below_what_is_here() -> None:
    rings, ring = filled(11, 12, floor=10)
    rings.load(ring, [message(n) for n in (3, 7, 10, 11, 12, 13)], floor=2)
    assert ring.floor == 2
    assert ids(ring.since(0, 0)) == [3, 7, 10, 11, 12]


def test_what_was_read_and_does_not_reach_down_to_it_is_not_taken() -> None:
    rings, ring = filled(11, floor=10)
    rings.load(ring, [message(n) for n in (13, 14)], floor=12)
    assert ring.floor == 10
    assert ids(ring.since(0, 0)) == [11]


def test_where_there_was_nothing_the_floor_comes_down_all_the_same() -> None:
    rings, ring = filled(floor=10)
    rings.load(ring, [], floor=4)
    assert ring.floor == 4


def test_more_than_there_is_space_for_is_taken_from_its_newer_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services_rings, "RING_MESSAGES", 3)
    rings, ring = filled(11, floor=10)
    rings.load(ring, [message(n) for n in (3, 5, 8, 9)], floor=1)
    assert (ring.floor, ids(ring.since(0, 0))) == (5, [8, 9, 11])
    rings.load(ring, [message(n) for n in (3, 5)], floor=1)  # it is full
    assert (ring.floor, ids(ring.since(0, 0))) == (5, [8, 9, 11])


def test_the_ring_of_a_room_that_is_empty_and_silent_is_swept_away() -> None:
    hub = Hub(InFlight(100, Metrics()))
    rings = Rings(hub, 2**20)
    said, waiting, empty = (rings.open((10_001, room), 0) for room in (1, 2, 3))
    rings.add(said, message(1))
    waiting.waiting = 1
    rings.sweep()
    assert [rings.find(ring.key) for ring in (said, waiting, empty)] == [said, waiting, None]
    waiting.waiting = 0
    rings.sweep()
    assert rings.find(waiting.key) is None
    assert rings._empty == set()


@dataclass
class Model:
    """One room: the id and sender of all that was ever said in it."""

    said: list[tuple[int, int]] = field(default_factory=list)


class RingsMachine(RuleBasedStateMachine):
    """Whatever happens, a ring has every message of its room above its floor, in order, and all of them fit."""

    ROOMS = (1, 2, 3)

    @initialize(most=st.integers(1, 6), max_bytes=st.sampled_from([0, 2000, 5000, 2**40]))
    def begin(self, most: int, max_bytes: int) -> None:
        self.monkeypatch = pytest.MonkeyPatch()
        self.monkeypatch.setattr(services_rings, "RING_MESSAGES", most)
        self.most, self.max_bytes = most, max_bytes
        self.rings = Rings(Hub(InFlight(100, Metrics())), max_bytes)
        self.last = 0
        self.rooms = {room: Model() for room in self.ROOMS}

    @rule(room=st.sampled_from(ROOMS), sender=st.integers(1, 2), length=st.integers(0, 300), skip=st.integers(1, 3))
    def say(self, room: int, sender: int, length: int, skip: int) -> None:
        ring = self.rings.open((10_001, room), self.last)
        self.last += skip
        self.rings.add(ring, message(self.last, sender, "x" * length))
        self.rooms[room].said.append((self.last, sender))

    @rule(room=st.sampled_from(ROOMS), below=st.integers(0, 10), page=st.integers(1, 8), length=st.integers(0, 300))
    def read(self, room: int, below: int, page: int, length: int) -> None:
        ring = self.rings.open((10_001, room), self.last)
        newest = [each for each in self.rooms[room].said if each[0] > below][-page:]
        floor = below if len(newest) < page else newest[0][0] - 1
        self.rings.load(ring, [message(msg_id, sender, "y" * length) for msg_id, sender in newest], floor)

    @rule()
    def sweep(self) -> None:
        self.rings.sweep()
        assert all(ring.items for ring in self.rings._rings.values())

    @rule()
    def restart(self) -> None:
        self.rings = Rings(Hub(InFlight(100, Metrics())), self.max_bytes)

    @rule(room=st.sampled_from(ROOMS), after=st.integers(0, 60), reader=st.integers(1, 3))
    def come_back(self, room: int, after: int, reader: int) -> None:
        ring = self.rings.find((10_001, room))
        if ring is not None and ring.floor <= after:
            missed = [msg_id for msg_id, sender in self.rooms[room].said if msg_id > after and sender != reader]
            assert ids(ring.since(after, reader)) == missed

    @invariant()
    def it_has_all_above_its_floor(self) -> None:
        for ring in self.rings._rings.values():
            said = self.rooms[ring.key[1]].said
            assert [(each.msg_id, each.sender) for each in ring.items] == [
                each for each in said if each[0] > ring.floor
            ]
            assert len(ring.items) <= self.most

    @invariant()
    def the_bytes_are_those_of_what_is_there(self) -> None:
        rings = self.rings._rings.values()
        assert all(ring.size == sum(item.size for item in ring.items) for ring in rings)
        assert self.rings._size == sum(ring.size for ring in rings) <= self.max_bytes
        assert self.rings._empty == {ring for ring in rings if not ring.items}

    def teardown(self) -> None:
        if hasattr(self, "monkeypatch"):
            self.monkeypatch.undo()


TestRings = pytest.mark.property(RingsMachine.TestCase)
