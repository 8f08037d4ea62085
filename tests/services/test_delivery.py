from __future__ import annotations

import pytest

from harness import Harness, assert_nothing_is_left, ids_of, in_flight_of
from qiyu.routing.publication import Kind, Publication

ALICE, BOB = 10_001, 10_002


def message(msg_id: int = 1, *, is_direct: bool = True) -> Publication:
    return Publication(
        app_id=10_001, biz_code=5556, data=b"{}", msg_id=str(msg_id), kind=Kind.KEPT if is_direct else Kind.DROPPABLE
    )


def test_a_room_where_nobody_is_remembers_all_the_same() -> None:
    harness = Harness()
    ring = harness.node.rings.open((10_001, 7), 0)
    harness.node.message_queue.settlement.delivery.to_room(ring, 1, ALICE, message(is_direct=False), harness.now)
    assert [item.msg_id for item in ring.items] == [1]
    assert len(harness.node.redelivery) == 0
    assert harness.metrics.deliveries == 0


def test_a_senders_other_session_gets_nothing_of_its_own() -> None:
    """What waited to be stored is delivered when its sender may have come back."""
    harness = Harness()
    listener = harness.log_in(BOB, room=7)
    harness.stores_at_once = False
    harness.log_in(ALICE, room=7).say("x", "c-1")
    again = harness.log_in(ALICE, room=7)
    harness.settle()
    assert listener.contents() == ["x"]
    assert again.receive() == []


def test_to_nobody_is_nothing() -> None:
    harness = Harness()
    harness.node.message_queue.settlement.delivery.to_user(10_001, BOB, message(), harness.now)
    assert harness.metrics.deliveries == 0


def test_a_message_that_nobody_has_to_acknowledge_has_no_timer() -> None:
    harness = Harness()
    harness.log_in(ALICE, room=7).say("alone")
    assert len(harness.node.redelivery) == 0


def test_what_is_in_flight_already_is_neither_sent_nor_timed_twice() -> None:
    harness = Harness()
    bob = harness.log_in(BOB)
    to_session = harness.node.message_queue.settlement.delivery.to_session
    to_session(bob.session, [message(1), message(2)], harness.now)
    to_session(bob.session, [message(1), message(2)], harness.now)
    assert ids_of(bob.receive()) == ["1", "2"]
    assert len(harness.node.redelivery) == 1
    assert harness.node.in_flight.deliveries == 2
    assert_nothing_is_left(harness)


@pytest.mark.parametrize("cid", ["", "c-1"])
def test_what_was_dropped_for_a_slow_receiver_is_not_waited_for(cid: str) -> None:
    harness = Harness(limits={"outbox_soft_bytes": 1000})
    alice, slow = harness.log_in(ALICE, room=7), harness.log_in(BOB, room=7)
    for n in range(20):
        alice.say("x" * 100, cid and f"{cid}-{n}")
    received = slow.receive()
    sent = ids_of(received)
    assert 0 < len(sent) < 20
    assert harness.metrics.deliveries_dropped == 20 - len(sent)
    assert list(in_flight_of(slow.session)) == sent
    assert harness.node.in_flight.deliveries == len(sent)
    harness.advance(4)
    assert ids_of(slow.receive()) == sent
    assert_nothing_is_left(harness)
