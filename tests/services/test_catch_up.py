"""Coming back to a room, with a database that answers when the test says so."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest
from sqlalchemy import event

from harness import (
    ROOM,
    Harness,
    Received,
    TcpClient,
    assert_nothing_is_left,
    assert_nothing_waits,
    error_of,
    ids_of,
    in_flight_of,
    refusal,
)
from memory_database import MemoryStore
from qiyu.services import catch_up, lookups, rings

SENDER, READER = 10_001, 10_002
_users = count(20_000)


class Town:
    """A sender in room 7, whose messages are stored at once, and those who come back to it."""

    def __init__(self, store: MemoryStore | None = None, **sections: dict[str, int]) -> None:
        self.harness = Harness(store, **sections)
        self.sender = self.harness.log_in(SENDER, room=7)
        self.witness = self.harness.log_in(next(_users), room=7)

    def say(self, number: int = 1) -> list[str]:
        """The sender says something, so many times; returns the msgIds."""
        ids = []
        for _ in range(number):
            self.sender.say()
            received = ids_of(self.witness.receive())
            self.witness.acknowledge(*received)
            ids += received
        return ids

    def restarted(self) -> Town:
        """The same database with a new server, which remembers nothing."""
        return Town(self.harness.store)

    def reader(self) -> TcpClient:
        """Somebody who is not in the room."""
        return self.harness.log_in(next(_users))


def back(peer: TcpClient, after: str, room: int = 7) -> None:
    peer.send(ROOM, data={"roomId": room, "afterMsgId": after})


def result(received: list[Received]) -> tuple[bool, list[str]]:
    """Whether all was recovered, as the answer says, and the msgIds that follow it."""
    answer, *rest = received
    assert answer.code == ROOM
    ids = ids_of(rest)
    assert len(ids) == len(rest)
    return answer.data["recovered"], ids


@pytest.fixture
def town() -> Iterator[Town]:
    town = Town()
    yield town
    town.harness.settle()
    assert_nothing_is_left(town.harness)


def test_from_memory_without_a_query(town: Town) -> None:
    ids = town.say(5)
    reader = town.reader()
    queries = []
    event.listen(town.harness.store.engine, "before_cursor_execute", lambda *_: queries.append(1))
    town.harness.stores_at_once = False
    back(reader, ids[1])
    assert result(reader.receive()) == (True, ids[2:])
    assert queries == []
    assert town.harness.metrics.catch_up_replayed == 3


def test_they_are_in_flight_until_acknowledged_and_then_comes_what_is_said_next(town: Town) -> None:
    ids = town.say(3)
    reader = town.reader()
    back(reader, ids[0])
    (later,) = town.say()
    assert result(reader.receive()) == (True, [*ids[1:], later])
    assert list(in_flight_of(reader.session)) == [*ids[1:], later]
    reader.acknowledge(*ids)
    assert list(in_flight_of(reader.session)) == [later]


def test_who_missed_nothing_gets_nothing(town: Town) -> None:
    ids = town.say(2)
    reader = town.reader()
    back(reader, ids[-1])
    assert result(reader.receive()) == (True, [])


def test_ones_own_messages_are_left_out(town: Town) -> None:
    ids = town.say(1)
    town.witness.say("mine")
    later = town.say(1)
    again = town.harness.log_in(town.witness.session.user_id)
    back(again, ids[0])
    assert result(again.receive()) == (True, later)


def test_a_direct_message_is_none_of_the_rooms(town: Town) -> None:
    ids = town.say(1)
    town.sender.whisper(town.witness.session.user_id, "direct")
    later = town.say(1)[1:]
    reader = town.reader()
    back(reader, ids[0])
    recovered, found = result(reader.receive())
    assert recovered
    assert found == later


def test_from_the_database_where_memory_does_not_reach(town: Town) -> None:
    ids = town.say(5)
    town = town.restarted()
    reader = town.reader()
    back(reader, ids[2])
    assert result(reader.receive()) == (True, ids[3:])
    later = town.say(2)
    reader.receive()
    other = town.reader()
    town.harness.stores_at_once = False
    back(other, ids[0])  # the ring has taken what was read
    assert result(other.receive()) == (True, ids[1:] + later)


def test_many_that_come_back_at_once_make_one_query(town: Town) -> None:
    ids = town.say(5)
    town = town.restarted()
    readers = [town.reader() for _ in range(50)]
    town.harness.stores_at_once = False
    for reader in readers:
        back(reader, ids[2])
        assert reader.receive() == []
    pages: list[str] = []
    event.listen(
        town.harness.store.engine,
        "before_cursor_execute",
        lambda *call: pages.append(call[2]) if "t_im_message" in call[2] else None,
    )
    town.harness.read()
    assert len(pages) == 1
    assert all(result(reader.receive()) == (True, ids[3:]) for reader in readers)


def test_no_gap_and_no_double_when_messages_come_during_the_wait(town: Town) -> None:
    before = town.say(3)
    town = town.restarted()
    reader = town.reader()
    town.harness.stores_at_once = False
    town.sender.say("accepted before, not stored", "c-1")
    back(reader, before[0])
    town.sender.say("accepted during the wait", "c-2")
    assert not town.harness.read()  # what was accepted before is not stored yet
    town.harness.write()
    town.sender.say("accepted after the first was stored", "c-3")
    town.harness.read()
    town.sender.say("said afterwards", "c-4")
    town.harness.settle()
    recovered, found = result(reader.receive())
    all_ids = before + ids_of(town.witness.receive())
    assert recovered
    assert found == all_ids[1:]


def test_messages_without_a_client_msg_id_that_come_during_the_wait(town: Town) -> None:
    before = town.say(2)
    town = town.restarted()
    reader = town.reader()
    town.harness.stores_at_once = False
    town.sender.say("delivered before")
    back(reader, before[0])
    town.sender.say("delivered during the wait")
    assert not town.harness.read()
    town.harness.settle()
    assert result(reader.receive()) == (True, [before[1], *ids_of(town.witness.receive())])


def test_what_the_session_sends_meanwhile_waits_as_well(town: Town) -> None:
    ids = town.say(2)
    town = town.restarted()
    reader = town.reader()
    town.harness.stores_at_once = False
    back(reader, ids[0])
    reader.say("here I am", room=7)
    assert reader.receive() == []
    town.harness.settle()
    assert result(reader.receive()) == (True, ids[1:])
    assert town.sender.contents() == ["here I am"]


def test_a_ring_that_is_overrun_during_the_wait(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rings, "RING_MESSAGES", 5)
    monkeypatch.setattr(catch_up, "CATCH_UP_MESSAGES", 3)
    ids = town.say(2)
    town = town.restarted()
    reader = town.reader()
    town.harness.stores_at_once = False
    back(reader, ids[0])
    during = town.say(8)
    town.harness.settle()
    assert result(reader.receive()) == (False, during[-3:])


def test_more_than_200_missed_are_the_newest_200(town: Town) -> None:
    ids = town.say(202)
    for after, recovered in ((ids[0], False), (ids[1], True)):
        reader = town.reader()
        back(reader, after)
        assert result(reader.receive()) == (recovered, ids[2:])


def test_more_than_200_missed_out_of_the_database(town: Town) -> None:
    ids = town.say(260)
    town = town.restarted()
    for after, recovered in ((ids[0], False), (ids[58], False), (ids[59], True)):
        reader = town.reader()
        back(reader, after)
        assert result(reader.receive()) == (recovered, ids[60:])


def test_older_than_what_is_kept_is_not_recovered(town: Town) -> None:
    ids = town.say(3)
    town = town.restarted()
    reader = town.reader()
    town.harness.stores_at_once = False
    back(reader, ids[0])
    town.harness.store.kept_above = int(ids[1])
    town.harness.settle()
    assert result(reader.receive()) == (False, ids[2:])


@pytest.mark.parametrize("in_memory", [True, False])
def test_where_the_database_fails_it_is_what_memory_has(town: Town, in_memory: bool) -> None:
    ids = town.say(2)
    town = town.restarted()
    later = town.say(2) if in_memory else []
    reader = town.reader()
    town.harness.stores_at_once = False
    back(reader, ids[0])
    for session, loaded in town.harness.node.catch_up.take_all():
        town.harness.dispatcher.resume(session, loaded, town.harness.now)
    assert result(reader.receive()) == (False, later)
    assert town.say(1) == ids_of(reader.receive())


def test_no_more_at_once_than_the_soft_bound() -> None:
    town = Town(limits={"outbox_soft_bytes": 10_000, "outbox_hard_bytes": 20_000})
    ids = town.say(100)
    reader = town.reader()
    back(reader, ids[0])
    assert reader.outbox.size <= 10_000
    recovered, found = result(reader.receive())
    assert not recovered
    assert 20 < len(found) < 60
    assert found == ids[-len(found) :]
    assert_nothing_is_left(town.harness)


@pytest.mark.parametrize("after", ["x", "-1", " 1", "1.0", "１", "1" * 20])
def test_no_msg_id(town: Town, after: str) -> None:
    reader = town.reader()
    back(reader, after)
    assert refusal(reader.receive()) == 400
    assert reader.session.room is None


def test_a_room_that_is_closed_during_the_wait(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = town.say(1)
    town = town.restarted()
    reader = town.harness.log_in(READER, room=8)
    town.harness.stores_at_once = False
    reader.send(ROOM, data={"roomId": 7, "afterMsgId": ids[0]}, clientMsgId="c-1")
    monkeypatch.setattr(type(town.harness.node.room_directory), "is_open", lambda *_: False)
    town.harness.settle()
    (refused,) = reader.receive()
    assert (error_of(refused), refused.body["clientMsgId"]) == (404, "c-1")
    assert reader.session.room is not None
    assert reader.session.room.id == 8


def test_too_many_that_wait(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookups, "WAITING_SESSIONS", 2)
    ids = town.say(1)
    town = town.restarted()
    readers = [town.reader() for _ in range(3)]
    town.harness.stores_at_once = False
    for reader in readers:
        back(reader, ids[0])
    assert refusal(readers[2].receive()) == 503
    town.harness.settle()
    assert result(readers[1].receive()) == (True, [])
    back(readers[2], ids[0])
    town.harness.settle()
    assert result(readers[2].receive()) == (True, [])


def test_who_goes_during_the_wait_leaves_nothing_behind(town: Town) -> None:
    ids = town.say(2)
    town = town.restarted()
    reader, other = town.reader(), town.reader()
    town.harness.stores_at_once = False
    for peer in (reader, other):
        back(peer, ids[0])
    reader.hang_up()
    town.harness.settle()
    assert result(other.receive()) == (True, ids[1:])
    assert reader.outbox.size == 0
    assert_nothing_waits(town.harness)
    assert_nothing_is_left(town.harness)


def test_a_room_in_which_nothing_was_ever_said(town: Town) -> None:
    ids = town.say(1)
    reader = town.reader()
    back(reader, ids[0], room=9)
    assert result(reader.receive()) == (True, [])


def test_a_ring_that_is_wanted_is_not_swept_away_during_the_wait(town: Town) -> None:
    ids = town.say(2)
    town.harness.stores_at_once = False
    for peer in (town.sender, town.witness):
        peer.send(ROOM, data={"roomId": None})
    town = town.restarted()
    for peer in (town.sender, town.witness):
        peer.send(ROOM, data={"roomId": None})
    reader = town.reader()
    town.harness.stores_at_once = False
    back(reader, ids[0])
    town.harness.advance(1)
    town.harness.settle()
    assert result(reader.receive()) == (True, ids[1:])


def test_an_id_that_nobody_was_given_proves_nothing(town: Town) -> None:
    ids = town.say(2)
    for after in (str(int(ids[-1]) + 2**40), str(2**63 - 1)):
        reader = town.reader()
        back(reader, after)
        assert result(reader.receive()) == (False, [])
    reader = town.reader()
    back(reader, ids[-1])
    assert result(reader.receive()) == (True, [])


def test_a_ring_that_lost_what_was_said_during_the_wait_proves_nothing() -> None:
    """All that is said is at once forgotten again, for want of memory."""
    town = Town(messages={"recent_bytes": 0})
    ids = town.say(2)
    reader = town.reader()
    town.harness.stores_at_once = False
    back(reader, ids[0])
    catch_up = town.harness.node.catch_up
    wanted = catch_up.take()
    town.say(1)
    for peer in (town.sender, town.witness):
        peer.send(ROOM, data={"roomId": None})
    town.harness.advance(1)  # nobody is there
    for key, room in wanted.items():
        catch_up.loaded(key, room, [], 0)
        for session, loaded in room.entries:
            town.harness.dispatcher.resume(session, loaded, town.harness.now)
    assert result(reader.receive()) == (False, [])


def test_coming_back_to_the_room_one_is_in_brings_nothing_twice(town: Town) -> None:
    ids = town.say(2)
    reader = town.reader()
    back(reader, ids[0])
    later = town.say(1)
    assert result(reader.receive()) == (True, ids[1:] + later)
    back(reader, ids[0])
    assert result(reader.receive()) == (True, [])
    reader.acknowledge(ids[1])
    back(reader, ids[0])
    assert result(reader.receive()) == (True, [ids[1]])


def test_who_comes_back_again_and_again_has_to_wait(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catch_up, "BROUGHT_A_SECOND", 10)
    ids = town.say(6)
    reader, other = town.reader(), town.reader()
    for expected in (ids[1:], []):  # what is in flight is not sent again, and looked for all the same
        back(reader, ids[0])
        assert result(reader.receive()) == (True, expected)
    back(reader, ids[0])
    assert refusal(reader.receive()) == 503
    reader.send(ROOM, data={"roomId": 7})  # brings nothing
    assert reader.receive()[0].code == ROOM
    back(other, ids[0])
    assert result(other.receive()) == (True, ids[1:])
    assert town.harness.metrics.catch_ups_refused == 1
    town.harness.advance(1)
    back(reader, ids[-2])
    assert result(reader.receive()) == (True, [])


def test_rooms_that_must_be_read_count_as_many(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catch_up, "BROUGHT_A_SECOND", 2 * catch_up.LOOK_UP)
    reader = town.restarted().reader()
    for room in range(8, 10):
        back(reader, "0", room)
        assert result(reader.receive()) == (True, [])
    back(reader, "0", 10)
    assert refusal(reader.receive()) == 503
    reader.harness.stores_at_once = False
    reader.send(ROOM, data={"roomId": 11})
    assert reader.receive()[0].code == ROOM  # nobody has read the room for it
