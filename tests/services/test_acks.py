"""What an ACK ends, and when the inbox is asked. Which packets are ACKs is tested in handlers/test_ack.py."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from harness import Harness, TcpClient, assert_nothing_is_left, ids_of, in_flight_of
from qiyu.services.batch import Store


def waiting(peer: TcpClient) -> list[str]:
    return list(in_flight_of(peer.session))


class Direct:
    """Alice, who writes to Bob, and what is in his inbox."""

    def __init__(self, ack: dict[str, int] | None = None) -> None:
        self.harness = Harness(ack=ack or {})
        self.alice, self.bob = self.harness.log_in(10_000), self.harness.log_in(10_001)

    def write(self, number: int = 1) -> list[str]:
        """Bob is sent so many messages; returns their msgIds."""
        for _ in range(number):
            self.alice.whisper(10_001)
        return ids_of(self.bob.receive())

    def inbox(self) -> list[str]:
        with self.harness.store.engine.begin() as c:
            return [str(each) for each in c.exec_driver_sql("SELECT msg_id FROM t_im_inbox ORDER BY msg_id").scalars()]


@pytest.fixture
def direct() -> Iterator[Direct]:
    direct = Direct()
    yield direct
    direct.harness.settle()
    assert_nothing_is_left(direct.harness)


def test_a_direct_message_is_taken_out_of_the_inbox(direct: Direct) -> None:
    ids = direct.write(3)
    assert direct.inbox() == ids
    direct.bob.acknowledge(ids[1])
    assert direct.inbox() == [ids[0], ids[2]]
    direct.bob.acknowledge(*ids)
    assert direct.inbox() == []
    assert direct.harness.metrics.inbox_acknowledged == 3


def test_an_ack_that_comes_before_the_row_is_written_cancels_it(direct: Direct) -> None:
    direct.harness.stores_at_once = False
    direct.bob.acknowledge(*direct.write())
    for _ in range(2):
        batch = direct.harness.take()
        step = batch.next()
        assert isinstance(step, Store)
        assert [message.into_inbox for message in step.messages] == [False]
        assert step.acks == []
        direct.harness.lose(batch)
        direct.harness.finish(batch)


def test_twice_is_nothing(direct: Direct) -> None:
    ids = direct.write()
    direct.harness.stores_at_once = False
    direct.bob.acknowledge(*ids)
    direct.harness.write()
    direct.bob.acknowledge(*ids, *ids)
    assert direct.harness.node.message_queue.is_idle
    assert direct.harness.metrics.deliveries_acknowledged == 1
    assert direct.bob.receive() == []


def test_another_users_ack_takes_nothing_out_of_the_inbox(direct: Direct) -> None:
    ids = direct.write()
    direct.alice.session.late_acks = True  # so that it is asked of the database
    direct.alice.acknowledge(*ids)
    stranger = direct.harness.log_in(10_001, app=20_000)
    stranger.session.late_acks = True
    stranger.acknowledge(*ids)
    assert direct.inbox() == ids
    assert len(waiting(direct.bob)) == 1


def test_on_a_new_connection_while_its_inbox_comes(direct: Direct) -> None:
    ids = direct.write(2)
    direct.harness.stores_at_once = False
    again = direct.harness.log_in(10_001)
    assert direct.harness.node.replays.is_replaying(again.session)
    again.acknowledge(ids[0])  # what came on the connection before
    direct.harness.write()
    assert direct.inbox() == ids[1:]
    direct.harness.settle()
    assert ids_of(again.receive()) == ids[1:]


def test_on_a_new_connection_what_has_just_come_again(direct: Direct) -> None:
    ids = direct.write(2)
    again = direct.harness.log_in(10_001)
    assert ids_of(again.receive()) == ids
    again.acknowledge(*ids)
    assert direct.inbox() == []


def test_of_the_older_connection_it_counts_no_longer(direct: Direct) -> None:
    ids = direct.write()
    direct.harness.log_in(10_001)
    direct.bob.acknowledge(*ids)
    assert direct.inbox() == ids


def test_late_after_it_made_room_in_the_window() -> None:
    direct = Direct(ack={"window": 1})
    ids = direct.write(3)
    assert waiting(direct.bob) == ids[2:]
    direct.bob.acknowledge(*ids[:2])
    assert direct.inbox() == ids[2:]
    assert_nothing_is_left(direct.harness)


def test_late_after_its_attempts_were_spent() -> None:
    direct = Direct(ack={"attempts": 1})
    ids = direct.write()
    direct.harness.advance(4)
    assert waiting(direct.bob) == []
    direct.bob.acknowledge(*ids)
    assert direct.inbox() == []


@pytest.mark.parametrize("stored", [True, False])
def test_late_and_before_or_after_it_was_stored(stored: bool) -> None:
    direct = Direct(ack={"window": 1})
    direct.harness.stores_at_once = stored
    ids = direct.write(2)
    direct.bob.acknowledge(ids[0])
    direct.harness.settle()
    assert direct.inbox() == ids[1:]


@pytest.mark.parametrize("msg_id", ["9" * 19, "9" * 18, "1" * 20, "１" * 19, "x" * 19, "-" + "1" * 18, " " + "1" * 18])
def test_what_can_be_no_msg_id_is_not_asked_of_the_database(direct: Direct, msg_id: str) -> None:
    direct.harness.stores_at_once = False
    direct.bob.session.late_acks = True
    direct.bob.acknowledge(msg_id)
    assert direct.harness.node.message_queue.is_idle


def test_what_was_never_late_is_not_either(direct: Direct) -> None:
    direct.harness.stores_at_once = False
    direct.bob.acknowledge("1" * 19)
    assert direct.harness.node.message_queue.is_idle


def test_the_largest_number_that_can_be_a_msg_id(direct: Direct) -> None:
    direct.bob.session.late_acks = True
    direct.bob.acknowledge(str(2**63 - 1), str(2**63))
    assert direct.harness.node.message_queue.is_idle
