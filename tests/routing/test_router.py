from __future__ import annotations

import json
from itertools import count

import pytest

from harness import in_flight_of, owing
from qiyu.metrics import Metrics
from qiyu.protocol.packet import MAX_ID
from qiyu.protocol.tcp import TcpWire
from qiyu.protocol.websocket import WebSocketWire
from qiyu.protocol.wire import Wire
from qiyu.routing.hub import Hub
from qiyu.routing.inflight import InFlight
from qiyu.routing.outbox import Outboxes, OutboxLimits
from qiyu.routing.publication import Kind, Publication
from qiyu.routing.router import Router
from qiyu.routing.session import Session
from sessions import make_session

_ids = count(1)
_msg_ids = count(10**18)


def message(*, is_direct: bool = False, content: str = "") -> Publication:
    kind = Kind.KEPT if is_direct else Kind.DROPPABLE
    return Publication(app_id=10_001, biz_code=5555, data=content.encode(), kind=kind, msg_id=str(next(_msg_ids)))


def event(kind: Kind = Kind.MERGEABLE) -> Publication:
    return Publication(app_id=10_001, biz_code=5557, data=b"", kind=kind)


class Town:
    """A hub and a router, with room 1."""

    def __init__(self, *, soft: int = 0, hard: int = 0, window: int = 100) -> None:
        self.outboxes = Outboxes(OutboxLimits(soft, hard))
        self.metrics = Metrics()
        self.in_flight = InFlight(window, self.metrics)
        self.hub = Hub(self.in_flight)
        self.router = Router(self.outboxes, self.in_flight, self.metrics)

    def member(self, user_id: int, wire: Wire | None = None) -> Session:
        session = make_session(next(_ids), wire, self.outboxes.open(lambda _: None))
        session.identify(10_001, user_id, "", "")
        self.hub.bind(session)
        self.hub.enter(session, 1)
        return session

    def say(self, publication: Publication, sender: Session | None = None) -> None:
        room = self.hub.find_room(10_001, 1)
        assert room is not None
        self.router.to_room(room, publication, sender)


def bodies(session: Session) -> list[dict[str, object]]:
    """What a TCP session is owed."""
    packets = TcpWire(0).receive_data(session.outbox.take(2**62))
    return [json.loads(bytes(packet.body)) for packet in packets]


def test_each_member_gets_it_with_its_own_id_and_the_sender_none() -> None:
    town = Town()
    sender, short, long = town.member(10_000), town.member(10_001), town.member(MAX_ID)
    publication = message()
    town.say(publication, sender)
    assert bodies(sender) == []
    assert [body["userId"] for body in bodies(short)] == [10_001]
    assert [body["userId"] for body in bodies(long)] == [MAX_ID]
    assert town.metrics.deliveries == 2
    assert in_flight_of(sender) == {}
    assert in_flight_of(short) == {publication.msg_id: publication}


def test_it_is_encoded_once_for_a_kind_and_a_width() -> None:
    town = Town()
    members = [town.member(user_id) for user_id in range(10_000, 10_010)]
    members += [town.member(user_id, WebSocketWire(0)) for user_id in range(10_010, 10_020)]
    publication = message()
    town.say(publication)
    assert set(publication.spliced) == {members[0].splice, members[-1].splice}
    assert town.metrics.deliveries == 20


def test_a_sender_that_is_no_member_takes_nothing_from_the_count() -> None:
    town = Town()
    member, sender = town.member(10_000), town.member(10_001)
    town.hub.leave(sender)
    town.say(message(), sender)
    assert len(bodies(member)) == 1
    assert town.metrics.deliveries == 1


def test_an_event_is_nobodys_to_acknowledge() -> None:
    town = Town()
    member = town.member(10_000)
    town.say(event())
    assert len(bodies(member)) == 1
    assert in_flight_of(member) == {}
    assert town.in_flight.deliveries == 0


def test_above_the_soft_bound_room_messages_are_dropped_and_it_is_told_once() -> None:
    town = Town(soft=100)
    slow, quick = town.member(10_000), town.member(10_001)
    sent = [message() for _ in range(5)]
    for publication in sent:
        town.say(publication)
        assert len(bodies(quick)) == 1
    received = bodies(slow)
    (gap,) = [body for body in received if "bizCode" not in body]
    assert json.loads(str(gap["data"]))["code"] == 206
    assert received.index(gap) == len(received) - 1  # at its very place
    kept = len(received) - 1
    assert 0 < kept < 5
    assert [owing(each, slow, quick) for each in sent] == [[True, True]] * kept + [[False, True]] * (5 - kept)
    assert town.in_flight.deliveries == 5 + kept
    assert town.metrics.deliveries_dropped == 5 - kept
    assert town.metrics.deliveries == 5 + kept
    assert list(in_flight_of(slow)) == [each.msg_id for each in sent[:kept]]

    town.say(message())
    assert [body.get("bizCode") for body in bodies(slow)] == [5555]
    assert not slow.outbox.gap


def test_the_bound_itself_is_enough_to_be_slow() -> None:
    town = Town(soft=100)
    member = town.member(10_000)
    member.outbox.push(b"x" * 99)
    town.say(message())
    assert town.metrics.deliveries_dropped == 0
    member.outbox.take(2**62)
    member.outbox.push(b"x" * 100)
    town.say(message())
    assert town.metrics.deliveries_dropped == 1


def test_mergeable_ones_go_first_and_silently() -> None:
    town = Town(soft=100)
    member = town.member(10_000)
    member.outbox.push(b"x" * 49)
    town.say(event())
    assert town.metrics.deliveries_dropped == 0
    member.outbox.take(2**62)
    member.outbox.push(b"x" * 50)
    town.say(event())
    assert town.metrics.deliveries_dropped == 1
    assert member.outbox.size == 50
    assert not member.outbox.gap


@pytest.mark.parametrize("waiting", [99, 100, 1000])
def test_a_kept_one_passes_the_soft_bound(waiting: int) -> None:
    town = Town(soft=100, hard=1000)
    member = town.member(10_000)
    member.outbox.push(b"x" * waiting)
    town.say(event(Kind.KEPT))
    assert member.outbox.size > waiting
    assert (town.metrics.deliveries, town.metrics.deliveries_dropped) == (1, 0)
    assert in_flight_of(member) == {}


def test_a_kept_one_cannot_reach_who_is_owed_too_much_already() -> None:
    town = Town(soft=100, hard=1000)
    member = town.member(10_000)
    member.outbox.push(b"x" * 1001)
    town.say(event(Kind.KEPT))
    assert member.outbox.size == 1001
    assert (town.metrics.deliveries, town.metrics.deliveries_dropped) == (0, 1)


def test_an_event_to_one_session_is_nobodys_to_acknowledge_either() -> None:
    town = Town()
    member = town.member(10_000)
    assert town.router.to_session(member, event(Kind.KEPT))
    assert town.router.to_session(member, event(Kind.KEPT))
    assert len(bodies(member)) == 2
    assert in_flight_of(member) == {}


def test_a_direct_message_passes_the_soft_bound_and_not_the_hard_one() -> None:
    town = Town(soft=10, hard=1000)
    slow = town.member(10_000)
    count_sent = 0
    while not slow.outbox.overflowed:
        town.router.to_session(slow, message(is_direct=True))
        count_sent += 1
    assert slow.outbox.size > 1000
    assert count_sent > 5
    assert town.metrics.deliveries == count_sent


def test_what_an_overflowed_outbox_does_not_take_counts_as_dropped() -> None:
    town = Town(hard=100)
    slow = town.member(10_000)
    slow.outbox.push(b"x" * 101)
    town.say(message())
    assert slow.outbox.size == 101
    assert town.metrics.deliveries == 0
    assert town.metrics.deliveries_dropped == 1
    assert in_flight_of(slow) == {}
    assert town.in_flight.deliveries == 0


def test_a_full_window_forgets_the_oldest_room_message() -> None:
    town = Town(window=3)
    member = town.member(10_000)
    direct = message(is_direct=True)
    said = [message() for _ in range(4)]
    town.router.to_session(member, direct)
    for publication in said:
        town.say(publication)
    assert list(in_flight_of(member)) == [direct.msg_id, said[2].msg_id, said[3].msg_id]
    assert town.metrics.in_flight_evicted == 2
    assert len(bodies(member)) == 5  # it got them all the same
    assert [owing(each, member) for each in (direct, *said)] == [[True], [False], [False], [True], [True]]
    assert town.in_flight.deliveries == 3


def test_a_window_of_one() -> None:
    town = Town(window=1)
    member = town.member(10_000)
    for _ in range(3):
        town.say(message())
    assert len(in_flight_of(member)) == 1
    assert town.in_flight.deliveries == 1


def test_what_is_in_flight_to_a_session_is_not_sent_to_it_a_second_time() -> None:
    town = Town()
    member = town.member(10_000)
    room, direct = message(), message(is_direct=True)
    for publication in (room, direct):
        assert town.router.to_session(member, publication)
        assert not town.router.to_session(member, publication)
        assert not town.router.to_session(member, publication.twin())
        assert publication.noted == 1
    assert len(bodies(member)) == 2
    assert town.metrics.deliveries == town.in_flight.deliveries == 2


def test_again_is_the_same_packet_and_no_further_delivery() -> None:
    town = Town()
    member = town.member(10_000)
    publication = message()
    town.router.to_session(member, publication)
    first = bodies(member)
    town.router.again(member, publication)
    assert bodies(member) == first
    assert (town.metrics.deliveries, town.metrics.redeliveries, town.in_flight.deliveries) == (1, 1, 1)


def test_nothing_is_sent_again_to_who_does_not_read() -> None:
    town = Town(soft=100)
    member = town.member(10_000)
    member.outbox.push(b"x" * 100)
    town.router.again(member, message())
    assert member.outbox.size == 100
    assert town.metrics.redeliveries == 0
