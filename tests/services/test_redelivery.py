from __future__ import annotations

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from harness import (
    LOGOUT,
    ROOM,
    Harness,
    TcpClient,
    assert_nothing_is_left,
    assert_nothing_waits,
    ids_of,
    in_flight_of,
    noted,
    owing,
)
from qiyu.errors import EndReason
from qiyu.routing.publication import Publication
from qiyu.routing.session import Session
from qiyu.services import redelivery

SENDER = 10_001
SECONDS = 4.0
JUST_BEFORE = SECONDS - 0.1


def town(members: int = 3, **sections: dict[str, Any]) -> tuple[Harness, TcpClient, list[TcpClient]]:
    """A sender and others, all in room 7."""
    harness = Harness(None, **sections)
    sender = harness.log_in(SENDER, room=7)
    return harness, sender, [harness.log_in(20_000 + n, room=7) for n in range(members)]


def test_once_more_to_those_who_did_not_acknowledge() -> None:
    harness, sender, members = town()
    sender.say("x")
    first = [peer.receive() for peer in members]
    members[1].acknowledge(*ids_of(first[1]))
    harness.advance(JUST_BEFORE)
    assert [peer.receive() for peer in members] == [[], [], []]
    harness.advance(0.1)
    assert [peer.receive() for peer in members] == [first[0], [], first[2]]
    assert sender.receive() == []
    assert harness.metrics.redeliveries == 2
    assert_nothing_is_left(harness)


def test_a_direct_one_too() -> None:
    harness, sender, (receiver, other, _) = town()
    sender.whisper(receiver.session.user_id, "x")
    sender.whisper(other.session.user_id, "acknowledged")
    first = receiver.receive()
    other.acknowledge(*ids_of(other.receive()))
    harness.advance(JUST_BEFORE)
    assert receiver.receive() == []
    harness.advance(0.1)
    assert receiver.receive() == first
    assert other.receive() == []
    assert_nothing_is_left(harness)


def test_who_acknowledges_the_second_is_sent_no_third() -> None:
    harness, sender, (member, *_) = town(1, ack={"attempts": 3})
    sender.say("x")
    harness.advance(SECONDS)
    ids = ids_of(member.receive())
    assert len(ids) == 2
    member.acknowledge(ids[0])
    harness.advance(SECONDS)
    assert member.receive() == []
    assert harness.metrics.room_deliveries_given_up == 0
    assert len(harness.node.redelivery) == 0


@pytest.mark.parametrize("attempts", [1, 2, 5])
def test_after_the_last_attempt_it_is_taken_off_the_tables(attempts: int) -> None:
    harness, sender, (first, second) = town(2, ack={"attempts": attempts})
    sender.say("room")
    sender.whisper(first.session.user_id, "direct")
    for n in range(1, attempts + 1):
        assert len(in_flight_of(first.session)) == 2
        harness.advance(SECONDS)
        harness.settle()
        assert harness.metrics.redeliveries == 3 * min(n, attempts - 1)
    assert in_flight_of(first.session) == in_flight_of(second.session) == {}
    assert harness.metrics.room_deliveries_given_up == 2
    assert harness.metrics.direct_deliveries_given_up == 1
    assert harness.node.in_flight.deliveries == len(harness.node.redelivery) == 0
    assert len(first.receive()) == 2 * attempts
    harness.advance(2 * SECONDS)
    assert first.receive() == []


def test_a_late_ack_of_a_direct_one_that_was_given_up_counts() -> None:
    harness, sender, (receiver,) = town(1)
    sender.whisper(receiver.session.user_id, "x")
    ids = ids_of(receiver.receive())
    harness.advance(SECONDS)
    harness.advance(SECONDS)
    assert in_flight_of(receiver.session) == {}
    receiver.acknowledge(*ids)
    assert harness.log_in(receiver.session.user_id).receive() == []
    assert_nothing_is_left(harness)


@pytest.mark.parametrize("how", ["room", "direct"])
def test_a_timer_is_let_go_of_as_soon_as_nobody_owes_an_ack(how: str) -> None:
    harness, sender, members = town()
    for _ in range(3):
        if how == "room":
            sender.say("x")
        else:
            sender.whisper(members[0].session.user_id, "x")
    receivers = members if how == "room" else members[:1]
    ids = [ids_of(peer.receive()) for peer in receivers]
    for peer, received in zip(receivers, ids, strict=True):
        peer.acknowledge(*received[:2])
    harness.advance(0.25)
    assert len(harness.node.redelivery) == 1
    for peer, received in zip(receivers, ids, strict=True):
        peer.acknowledge(received[2])
    harness.advance(0.25)
    assert len(harness.node.redelivery) == 0
    harness.advance(SECONDS)
    assert [peer.receive() for peer in receivers] == [[] for _ in receivers]


def test_what_the_last_one_owes_is_sent_again_to_it_alone() -> None:
    """Letting go of what came before it takes nothing from who is late."""
    harness, sender, members = town()
    for _ in range(4):
        sender.say("x")
    ids = [ids_of(peer.receive()) for peer in members]
    for peer, received in zip(members[:2], ids[:2], strict=True):
        peer.acknowledge(*received)
    members[2].acknowledge(*ids[2][:2])
    harness.advance(0.25)
    assert len(harness.node.redelivery) == 2
    harness.advance(SECONDS)
    assert [ids_of(peer.receive()) for peer in members] == [[], [], ids[2][2:]]


def test_without_it_the_direct_one_comes_at_the_next_login() -> None:
    harness, sender, (receiver,) = town(1)
    sender.whisper(receiver.session.user_id, "x")
    ids = ids_of(receiver.receive())
    harness.advance(SECONDS)
    harness.advance(SECONDS)
    assert ids_of(harness.log_in(receiver.session.user_id).receive()) == ids


@pytest.mark.parametrize("how", ["leaves", "changes", "hangs up", "is replaced"])
def test_who_is_no_longer_there_is_sent_nothing_and_owes_nothing(how: str) -> None:
    harness, sender, (goes, stays) = town(2)
    sender.say("x")
    sender.whisper(goes.session.user_id, "direct")
    for peer in (goes, stays):
        peer.receive()
    (publication,) = in_flight_of(stays.session).values()
    assert owing(publication, goes.session, stays.session) == [True, True]
    if how == "leaves":
        goes.send(ROOM, data={"roomId": None})
    elif how == "changes":
        goes.send(ROOM, data={"roomId": 8})
    elif how == "hangs up":
        goes.hang_up()
    else:
        harness.log_in(goes.session.user_id, room=7).acknowledge(*in_flight_of(goes.session))
        goes = goes if goes.session.ended else stays
    goes.receive()
    assert owing(publication, goes.session, stays.session) == [False, True]
    assert publication.msg_id not in in_flight_of(goes.session)
    harness.advance(SECONDS)
    assert [packet.data["content"] for packet in stays.receive()] == ["x"]
    assert goes.contents() == (["direct"] if how in {"leaves", "changes"} else [])
    assert_nothing_is_left(harness)


def test_who_comes_back_has_timers_of_its_own() -> None:
    harness, sender, (member,) = town(1)
    sender.say("1")
    harness.advance(2)
    sender.say("2")
    ids = ids_of(member.receive())
    member.send(ROOM, data={"roomId": None})
    member.send(ROOM, data={"roomId": 7, "afterMsgId": str(int(ids[0]) - 1)})
    assert ids_of(member.receive()) == ids
    harness.advance(JUST_BEFORE)
    assert member.receive() == []
    member.acknowledge(ids[1])
    harness.advance(0.1)
    assert ids_of(member.receive()) == ids[:1]
    harness.advance(SECONDS)
    assert in_flight_of(member.session) == {}
    assert harness.metrics.room_deliveries_given_up == 1
    assert_nothing_is_left(harness)


def test_nothing_is_sent_again_to_who_does_not_read_what_it_is_owed() -> None:
    harness, sender, (slow, quick) = town(2, limits={"outbox_soft_bytes": 1000})
    sender.say("x")
    slow.receive()
    quick.receive()
    slow.outbox.push(b" " * 1000)
    harness.advance(SECONDS)
    assert slow.outbox.size == 1000
    assert len(quick.receive()) == 1
    assert len(in_flight_of(slow.session)) == 1


def test_beyond_the_bound_of_the_process_the_oldest_room_message_goes_first_then_the_oldest_direct_one() -> None:
    harness, sender, (first, second) = town(2, ack={"deliveries": 4})
    sender.whisper(first.session.user_id, "direct 1")
    sender.say("room 1")
    assert harness.node.in_flight.deliveries == 3
    sender.say("room 2")
    assert [each.is_direct for each in in_flight_of(first.session).values()] == [True, False]
    assert harness.metrics.in_flight_crowded_out == 2
    for n in range(2, 5):
        sender.whisper(first.session.user_id, f"direct {n}")
    for member in (first, second):
        assert all(each.is_direct for each in in_flight_of(member.session).values())
    sender.whisper(first.session.user_id, "direct 5")
    assert harness.node.in_flight.deliveries == 4
    ids = ids_of(first.receive())
    assert len(ids) == 7  # it got them all
    assert first.session.late_acks
    first.acknowledge(*ids)
    assert harness.log_in(first.session.user_id).receive() == []
    assert harness.metrics.in_flight_crowded_out == 5
    assert_nothing_is_left(harness)


def test_a_bound_below_one_room_message() -> None:
    harness, sender, members = town(5, ack={"deliveries": 3})
    sender.say("x")
    assert [len(peer.receive()) for peer in members] == [1] * 5
    assert harness.node.in_flight.deliveries == 0
    assert_nothing_is_left(harness)


def test_what_was_acknowledged_makes_room_without_being_counted_as_crowded_out() -> None:
    harness, sender, (member,) = town(1, ack={"deliveries": 2})
    for n in range(10):
        sender.say(str(n))
        member.acknowledge(*ids_of(member.receive()))
    assert harness.metrics.in_flight_crowded_out == 0


def test_a_full_window_forgets_room_messages_first() -> None:
    harness, sender, (member,) = town(1, ack={"window": 3})
    sender.whisper(member.session.user_id, "direct 1")
    for n in range(4):
        sender.say(str(n))
    sender.whisper(member.session.user_id, "direct 2")
    assert [each.is_direct for each in in_flight_of(member.session).values()] == [True, False, True]
    for n in range(3, 5):
        sender.whisper(member.session.user_id, f"direct {n}")
    assert [each.is_direct for each in in_flight_of(member.session).values()] == [True] * 3
    ids = ids_of(member.receive())
    assert harness.metrics.in_flight_evicted == 2 + 1 + 1 + 1
    member.acknowledge(*ids)  # the one that was evicted too
    assert harness.log_in(member.session.user_id).receive() == []
    assert_nothing_is_left(harness)


def test_what_a_tick_does_not_get_to_is_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redelivery, "RESENDS_A_TICK", 5)
    harness, sender, members = town(3)
    for n in range(4):
        sender.say(str(n))
    for peer in members:
        peer.receive()
    harness.advance(SECONDS)
    assert [len(peer.receive()) for peer in members] == [2, 2, 2]
    harness.advance(0.25)
    assert [len(peer.receive()) for peer in members] == [2, 2, 2]


class Accounts(RuleBasedStateMachine):
    """Whatever users do and whatever is done to them, the accounts of what is in flight are those of the tables, and
    within their bounds; and nothing is in flight that will not be sent again or given up.
    """

    USERS = range(20_000, 20_004)
    ROOMS = (7, 8)

    @initialize(
        window=st.integers(1, 4), deliveries=st.integers(1, 12), attempts=st.integers(1, 3), inbox=st.integers(0, 5)
    )
    def begin(self, window: int, deliveries: int, attempts: int, inbox: int) -> None:
        ack = {"window": window, "deliveries": deliveries, "attempts": attempts}
        self.harness = Harness(
            ack=ack,
            messages={"inbox": inbox, "recent_bytes": 3000},
            limits={"outbox_soft_bytes": 3000, "outbox_hard_bytes": 6000},
        )
        self.window, self.deliveries = window, deliveries
        self.peers: dict[int, TcpClient] = {}
        self.sessions: set[Session] = set()
        self.ever: set[Publication] = set()
        self.seen: list[str] = ["1000000000000000000"]
        self.sent = 0
        for user in self.USERS:  # so that there is something to do from the first step on
            self.log_in(user, self.ROOMS[0])

    @rule(user=st.sampled_from(USERS), room=st.sampled_from((*ROOMS, None)))
    def log_in(self, user: int, room: int | None) -> None:
        self.peers[user] = self.harness.log_in(user, room=room)
        self.sessions.add(self.peers[user].session)

    @rule(user=st.sampled_from(USERS))
    def hang_up(self, user: int) -> None:
        if user in self.peers:
            self.peers.pop(user).hang_up()

    @rule(user=st.sampled_from(USERS), how=st.sampled_from(("idle", "log out", "violate", "crash")))
    def end(self, user: int, how: str) -> None:
        if user not in self.peers:
            return
        peer = self.peers[user]
        if how == "idle":
            self.harness.node.sessions.end(peer.session, EndReason.IDLE)
        elif how == "log out":
            peer.send(LOGOUT)
        elif how == "violate":
            peer.write(b"no packet begins like this")
        else:
            self.harness.dispatcher.crashed(peer.session)
        # What came before is answered before a good-bye.
        waits = peer.session.held is not None or peer.session.waiting > 0
        assert peer.session.ended or (waits and how in {"log out", "violate"})
        if peer.session.ended:
            del self.peers[user]

    @rule(room=st.sampled_from(ROOMS))
    def close_room(self, room: int) -> None:
        self.harness.node.room_directory.dissolve(room)

    @rule(user=st.sampled_from(USERS))
    def connection_goes(self, user: int) -> None:
        if user in self.peers:
            self.harness.dispatcher.closed(self.peers.pop(user).session)

    @rule(user=st.sampled_from(USERS), capacity=st.sampled_from((0, 100, 5000)))
    def flush(self, user: int, capacity: int) -> None:
        if user in self.peers:
            self.peers[user].flush(capacity)
            if self.peers[user].session.ended:  # as slow
                del self.peers[user]

    @rule(user=st.sampled_from(USERS), room=st.sampled_from((*ROOMS, None)), after=st.integers(-1, 100))
    def move(self, user: int, room: int | None, after: int) -> None:
        if user in self.peers:
            data: dict[str, Any] = {"roomId": room}
            if room is not None and after >= 0:
                data["afterMsgId"] = self.seen[after % len(self.seen)]
            self.peers[user].send(ROOM, data=data)

    @rule(user=st.sampled_from(USERS), named=st.booleans(), length=st.sampled_from((0, 300)))
    def say(self, user: int, named: bool, length: int) -> None:
        if user in self.peers:
            self.sent += 1
            self.peers[user].say("x" * length, f"c-{self.sent}" if named else "")

    @rule(user=st.sampled_from(USERS), to=st.sampled_from(USERS), named=st.booleans(), times=st.integers(1, 4))
    def whisper(self, user: int, to: int, named: bool, times: int) -> None:
        if user in self.peers:
            for _ in range(times):
                self.sent += 1
                self.peers[user].whisper(to, str(self.sent), f"c-{self.sent}" if named else "")

    @rule(user=st.sampled_from(USERS), all_of_them=st.booleans())
    def read(self, user: int, all_of_them: bool) -> None:
        if user in self.peers:
            ids = ids_of(self.peers[user].receive())
            self.seen += ids
            self.peers[user].acknowledge(*(ids if all_of_them else ids[::2]))

    @rule(user=st.sampled_from(USERS), which=st.lists(st.integers(0, 100), max_size=4))
    def acknowledge_anything(self, user: int, which: list[int]) -> None:
        if user in self.peers:
            self.peers[user].acknowledge(*(self.seen[each % len(self.seen)] for each in which))

    @rule(at_once=st.booleans())
    def store(self, at_once: bool) -> None:
        self.harness.stores_at_once = at_once
        self.harness.settle()

    @rule()
    def fail(self) -> None:
        log = self.harness.node.message_queue
        if not log.is_idle:
            batch = self.harness.take()
            self.harness.lose(batch, committed=len(log) % 2 == 1)
            self.harness.finish(batch)

    @rule(seconds=st.sampled_from((0.25, 2.0, SECONDS)))
    def wait(self, seconds: float) -> None:
        self.harness.advance(seconds)

    @invariant()
    def the_accounts_are_those_of_the_tables(self) -> None:
        tables = [in_flight_of(session) for session in self.sessions]
        account = self.harness.node.in_flight
        assert account.deliveries == sum(map(len, tables)) <= self.deliveries
        assert all(len(table) <= self.window for table in tables)
        self.ever.update(publication for table in tables for publication in table.values())
        counted = noted(*self.sessions)
        assert all(publication.noted == counted[publication] for publication in self.ever)

    @invariant()
    def who_has_ended_owes_nothing(self) -> None:
        assert not any(in_flight_of(session) for session in self.sessions if session.ended)

    @invariant()
    def who_is_in_no_room_owes_nothing_of_one(self) -> None:
        assert not any(session.room_in_flight or session.feed for session in self.sessions if session.room is None)

    @invariant()
    def nothing_is_in_flight_without_a_timer(self) -> None:
        timers = self.harness.node.redelivery
        to_rooms = {(timer.room, timer.publication) for timer in timers._to_rooms}
        to_sessions = {(timer.session, msg_id) for timer in timers._to_sessions for msg_id in timer.msg_ids}
        for session in self.sessions:
            for msg_id, publication in in_flight_of(session).items():
                assert (session, msg_id) in to_sessions or (session.room, publication) in to_rooms

    @invariant()
    def what_is_owed_to_all_is_what_is_owed_to_each(self) -> None:
        outboxes = [session.outbox for session in self.sessions]
        assert self.harness.node.outboxes.bytes == sum(outbox.size for outbox in outboxes)

    def teardown(self) -> None:
        if hasattr(self, "harness"):
            self.harness.settle()
            assert_nothing_waits(self.harness)
            assert_nothing_is_left(self.harness)
            assert all(publication.noted == 0 for publication in self.ever)
            for session in self.sessions:
                self.harness.dispatcher.closed(session)
            assert self.harness.node.outboxes.bytes == 0
            assert {session.waiting for session in self.sessions} <= {0}


TestAccounts = pytest.mark.property(Accounts.TestCase)
