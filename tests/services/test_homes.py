from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from qiyu.metrics import Metrics
from qiyu.model import InstanceId
from qiyu.protocol import links
from qiyu.protocol.links import LinkMessage, NotHome, RoomMessage, StoredMessage, Subscribe, Subscribed, Unsubscribe
from qiyu.services.homes import TRANSITIONS, Claimed, Event, Homes, Release, RoomKey, State

ROOM = RoomKey(10_001, 42)


class Database:
    """Who has which home, and what is stored."""

    def __init__(self) -> None:
        self.fenced: set[InstanceId] = set()
        self.holder: InstanceId | None = None
        self.term = 0
        self.ids: list[int] = []

    def claim(self, me: InstanceId) -> Claimed:
        assert me not in self.fenced
        if self.holder is None or self.holder in self.fenced:
            self.holder = me
            self.term += 1
        return Claimed(self.holder, self.ids[-1] if self.ids else 0, self.term)

    def release(self, me: InstanceId, release: Release) -> None:
        if self.holder == me and self.term == release.term:
            self.holder = None


class Side:
    """The room on one instance: it needs no database, for the test has all messages."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.people = 0
        self.seen: list[int] = []
        """By who is here, since the first of them came."""
        self.since_id = 0
        self.missed: list[int] = []
        """What the last answer of a home brought."""
        self.unsettled = 0
        self.is_open = False
        self.memory = True
        self.events: list[str] = []

    def became_home(self, key: RoomKey, after: int, last_msg_id: int) -> None:
        self._opened(after, last_msg_id)

    def joined(self, key: RoomKey, after: int, answer: Subscribed) -> None:
        if answer.is_complete and after:
            assert [m.msg_id for m in answer.missed] == self.cluster.between(after, answer.last_msg_id)
        self.missed = [message.msg_id for message in answer.missed]
        self._opened(after, answer.last_msg_id)

    def _opened(self, after: int, last: int) -> None:
        self.is_open = True
        if after:
            self.seen += self.cluster.between(after, last)
        else:
            self.seen.clear()
            self.since_id = last

    def deliver(self, key: RoomKey, message: StoredMessage) -> None:
        self.seen.append(message.msg_id)

    def interrupted(self, key: RoomKey) -> None:
        self.events.append("interrupted")

    def lost(self, key: RoomKey) -> None:
        self.events.append("lost")
        self.people = 0

    def is_wanted(self, key: RoomKey) -> bool:
        return self.people > 0

    def members(self, key: RoomKey) -> int:
        return self.people if self.is_open else 0

    def is_settled(self, key: RoomKey) -> bool:
        return self.unsettled == 0

    def counts(self, key: RoomKey) -> tuple[int, int]:
        return self.members(key), 0

    def since(self, key: RoomKey, after: int) -> Sequence[StoredMessage] | None:
        if not self.memory:
            return None
        return [stored(msg_id) for msg_id in self.cluster.between(after, self.cluster.said)]


class Instance:
    def __init__(self, cluster: Cluster, number: int) -> None:
        self.me = InstanceId(number, 1)
        self.side = Side(cluster)
        self.watched: list[InstanceId] = []
        self.homes = Homes(
            self.me,
            self.side,
            lambda to, message: cluster.send(self.me, to, message),
            lambda to: cluster.has_link(self.me, to),
            self.watched.append,
            Metrics(),
        )
        self.is_over = False

    def is_in(self, state: State | None) -> bool:
        return self.state is state

    @property
    def state(self) -> State | None:
        room = self.homes.find(ROOM)
        return None if room is None else room.state


class Cluster:
    """Instances, one room, one database, and links that keep their order until they are cut."""

    def __init__(self, instances: int = 2) -> None:
        self.now = 0.0
        self.database = Database()
        self.wires: dict[tuple[InstanceId, InstanceId], deque[LinkMessage]] = {}
        self.said = 0
        """The last msgId that a home has sent out."""
        self.instances = [Instance(self, n) for n in range(instances)]
        for one in self.instances:
            for other in self.instances:
                if one is not other:
                    self.wires[one.me, other.me] = deque()

    def between(self, after: int, up_to: int) -> list[int]:
        return [msg_id for msg_id in self.database.ids if after < msg_id <= up_to]

    def has_link(self, one: InstanceId, other: InstanceId) -> bool:
        return (one, other) in self.wires

    def send(self, sender: InstanceId, to: InstanceId, message: LinkMessage) -> bool:
        wire = self.wires.get((sender, to))
        if wire is not None:
            wire.append(message)
        return wire is not None

    def carry(self, sender: InstanceId, to: InstanceId) -> None:
        wire = self.wires.get((sender, to))
        if not wire:
            return
        message = wire.popleft()
        homes = self.instances[to.number].homes
        receive: dict[type[LinkMessage], Callable[..., None]] = {
            links.Subscribed: homes.subscribed,
            links.Unsubscribe: homes.unsubscribe,
            links.Handover: homes.handover,
            links.RoomMessage: homes.room_message,
        }
        if isinstance(message, Subscribe):
            homes.subscribe(sender, message, self.now)
        elif isinstance(message, NotHome):
            homes.not_home(sender, message, self.now)
        else:
            receive[type(message)](sender, message)

    def ask(self, instance: Instance, *, is_lost: bool = False, is_done: bool = True) -> None:
        """The database is asked; whether it was done, and whether that is known, the caller says."""
        homes = instance.homes
        if instance.me in self.database.fenced:
            return
        if keys := homes.take_claims():
            claims = {key: self.database.claim(instance.me) for key in keys} if is_done else {}
            if is_lost or not is_done:
                homes.claims_failed(keys, self.now)
            else:
                homes.claimed(claims, self.now)
        if releases := homes.take_releases():
            gone = [release.key for release in releases]
            for release in releases if is_done else ():
                self.database.release(instance.me, release)
            if is_lost or not is_done:
                homes.releases_failed(gone)
            else:
                homes.released(gone, self.now)

    def cut(self, one: InstanceId, other: InstanceId) -> None:
        if self.has_link(one, other):
            del self.wires[one, other], self.wires[other, one]
            self.instances[one.number].homes.link_lost(other, self.now)
            self.instances[other.number].homes.link_lost(one, self.now)

    def mend(self, one: InstanceId, other: InstanceId) -> None:
        if one == other or self.has_link(one, other) or self.database.fenced & {one, other}:
            return
        self.wires[one, other], self.wires[other, one] = deque(), deque()
        self.instances[one.number].homes.link_opened(other, self.now)
        self.instances[other.number].homes.link_opened(one, self.now)

    def say(self, instance: Instance) -> bool:
        """The home stores a message, and sends it out."""
        if instance.state is not State.HOME or instance.me in self.database.fenced:
            return False
        assert self.database.holder == instance.me
        msg_id = max(self.said, self.database.ids[-1] if self.database.ids else 0) + 10
        self.database.ids.append(msg_id)
        self.said = msg_id
        instance.side.seen.append(msg_id)
        instance.homes.said(ROOM, stored(msg_id))
        return True

    def want(self, instance: Instance) -> None:
        instance.side.people += 1
        instance.homes.want(ROOM, self.now)

    def settle(self, seconds: float = 3.0) -> None:
        until = self.now + seconds
        while self.now < until:
            self.now += 0.25
            for instance in self.instances:
                if instance.me in self.database.fenced:
                    continue
                instance.homes.tick(self.now)
                self.ask(instance)
            for _ in range(20):
                for pair in list(self.wires):
                    self.carry(*pair)


def stored(msg_id: int) -> StoredMessage:
    return StoredMessage(msg_id, 20_001, 5555, b"{}")


def joined(instances: int = 2) -> tuple[Cluster, list[Instance]]:
    """The first is the home, the others have joined."""
    cluster = Cluster(instances)
    for instance in cluster.instances:
        cluster.want(instance)
        cluster.settle(0.5)
    assert [instance.state for instance in cluster.instances] == [State.HOME] + [State.JOINED] * (instances - 1)
    return cluster, cluster.instances


def test_the_first_who_wants_a_room_is_its_home_and_the_others_subscribe() -> None:
    cluster, (one, two, three) = joined(3)
    assert one.homes.here == 1
    assert two.homes.here == 0
    assert two.watched == [one.me]
    for _ in range(3):
        assert cluster.say(one)
    cluster.settle(0.5)
    assert one.side.seen == two.side.seen == three.side.seen == [10, 20, 30]
    assert one.homes.metrics.room_messages_sent_on == 6


def test_who_comes_later_has_what_comes_later() -> None:
    cluster = Cluster()
    one, two = cluster.instances
    cluster.want(one)
    cluster.settle(0.5)
    cluster.say(one)
    cluster.want(two)
    cluster.settle(0.5)
    cluster.say(one)
    cluster.settle(0.5)
    assert two.side.since_id == 10
    assert two.side.seen == [20]


@pytest.mark.parametrize("memory", [True, False])
def test_after_a_cut_who_had_joined_gets_what_it_missed(memory: bool) -> None:
    cluster, (one, two) = joined()
    one.side.memory = memory
    cluster.say(one)
    cluster.settle(0.5)
    cluster.cut(one.me, two.me)
    assert two.is_in(State.JOINING)
    assert two.side.events == ["interrupted"]
    cluster.say(one)
    cluster.mend(one.me, two.me)
    cluster.settle(1)
    assert two.is_in(State.JOINED)
    cluster.say(one)
    cluster.settle(0.5)
    assert two.side.seen == [10, 20, 30]


def test_after_a_cut_members_who_had_seen_nothing_yet_get_what_they_missed() -> None:
    cluster, (one, two) = joined()
    cluster.cut(one.me, two.me)
    cluster.say(one)
    cluster.say(one)
    cluster.mend(one.me, two.me)
    cluster.settle(1)
    assert two.is_in(State.JOINED)
    assert two.side.missed == [10, 20]


def test_who_cannot_reach_the_home_for_too_long_loses_its_members() -> None:
    cluster, (one, two) = joined()
    cluster.cut(one.me, two.me)
    cluster.settle(9)
    assert "lost" not in two.side.events
    cluster.settle(2)
    assert two.side.events.count("lost") == 1
    cluster.settle(2)
    assert two.is_in(None)
    assert one.is_in(State.HOME)


def test_the_home_of_who_is_fenced_is_claimed_by_another() -> None:
    cluster, (one, two, three) = joined(3)
    cluster.say(one)
    cluster.settle(0.5)
    cluster.database.fenced.add(one.me)
    for other in (two, three):
        cluster.cut(one.me, other.me)
        other.homes.fenced(one.me)
    cluster.settle(1)
    states = {instance.state for instance in (two, three)}
    assert states == {State.HOME, State.JOINED}
    home = two if two.state is State.HOME else three
    cluster.say(home)
    cluster.settle(0.5)
    assert two.side.seen == three.side.seen == [10, 20]


def test_it_is_claimed_even_by_who_was_not_told_of_the_fence() -> None:
    cluster, (one, two) = joined()
    cluster.database.fenced.add(one.me)
    cluster.cut(one.me, two.me)
    cluster.settle(3)
    assert two.is_in(State.HOME)


def test_a_home_is_handed_over_when_all_is_settled() -> None:
    cluster, (one, two) = joined()
    one.side.unsettled = 1
    one.homes.drain()
    assert one.is_in(State.LEAVING)
    assert not one.homes.accepts(two.me, ROOM)
    cluster.settle(1)
    assert one.is_in(State.LEAVING)
    one.homes.said(ROOM, stored(10))
    cluster.database.ids.append(10)
    one.side.unsettled = 0
    one.side.people = 0
    cluster.settle(1)
    assert one.is_in(None)
    assert one.homes.is_idle
    assert two.is_in(State.HOME)
    assert two.side.seen == [10]
    assert two.homes.metrics.homes_claimed == 1


def test_an_empty_home_is_kept_a_while_and_then_released() -> None:
    cluster, (one, two) = joined()
    two.side.people = 0
    cluster.settle(1)
    assert two.is_in(None)
    one.side.people = 0
    cluster.settle(50)
    assert one.is_in(State.HOME)
    cluster.settle(15)
    assert one.is_in(None)
    assert cluster.database.holder is None


def test_a_message_that_is_not_from_the_home_or_not_new_is_ignored() -> None:
    cluster, (one, two, three) = joined(3)
    cluster.say(one)
    cluster.settle(0.5)
    two.homes.room_message(three.me, RoomMessage(*ROOM, stored(99)))
    two.homes.room_message(one.me, RoomMessage(*ROOM, stored(10)))
    two.homes.room_message(one.me, RoomMessage(10_001, 43, stored(99)))
    assert two.side.seen == [10]
    assert two.homes.metrics.room_messages_ignored == 3


def test_the_answer_to_an_earlier_subscribe_is_not_taken_for_that_to_a_later_one() -> None:
    cluster, (one, two) = joined()
    two.side.people = 0
    cluster.settle(1)
    cluster.want(two)
    two.homes.tick(cluster.now)
    cluster.ask(two)
    room = two.homes.find(ROOM)
    assert room is not None
    assert room.state is State.JOINING
    two.homes.subscribed(one.me, Subscribed(*ROOM, room.reference - 1, 0))
    assert two.is_in(State.JOINING)
    two.homes.subscribed(one.me, Subscribed(*ROOM, room.reference, 0))
    assert two.is_in(State.JOINED)


def test_who_is_asked_and_is_not_the_home_says_so_and_the_asker_looks_again() -> None:
    cluster, (one, two, three) = joined(3)
    two.homes.subscribe(three.me, Subscribe(*ROOM, 1), cluster.now)
    assert not two.homes.accepts(three.me, ROOM)
    assert list(cluster.wires[two.me, three.me]) == [NotHome(*ROOM)] * 2
    room = three.homes.find(ROOM)
    assert room is not None
    room.holder = two.me
    cluster.settle(1)
    assert three.state is State.JOINED
    assert room.holder == one.me


def test_a_home_that_the_database_knows_of_and_its_instance_does_not_is_found_by_asking_it() -> None:
    """A claim whose outcome was lost, for a room that nobody there wanted any longer."""
    cluster = Cluster()
    one, two = cluster.instances
    cluster.database.claim(one.me)
    cluster.want(two)
    cluster.settle(1)
    assert one.is_in(State.HOME)
    assert two.is_in(State.JOINED)


def test_a_release_that_is_carried_out_late_takes_no_later_claim_away() -> None:
    cluster, (one, _) = joined()
    late = Release(ROOM, cluster.database.term)
    cluster.database.release(one.me, late)
    cluster.database.claim(one.me)
    cluster.database.release(one.me, late)
    assert cluster.database.holder == one.me


def test_unsubscribed_is_who_has_nobody_left() -> None:
    cluster, (one, two) = joined()
    two.homes._rooms[ROOM].empty_since = None
    two.side.people = 0
    two.homes.tick(cluster.now)
    assert cluster.wires[two.me, one.me][-1] == Unsubscribe(*ROOM)
    cluster.settle(0.5)
    room = one.homes.find(ROOM)
    assert room is not None
    assert room.subscribers == {}


def test_every_state_is_reached_and_left_and_every_event_leads_somewhere() -> None:
    assert {state for state, _ in TRANSITIONS} == set(State)
    assert set(TRANSITIONS.values()) == set(State)
    assert {event for _, event in TRANSITIONS} == set(Event)


class OneRoom(RuleBasedStateMachine):
    """One room on three instances; claims and releases of unknown outcome, cuts, fences, people who come and go.

    No two living instances are its home. What the members of an instance see is what was stored, in order, without a
    hole, from when the first of them came; and when all is well, all see all of it.
    """

    NUMBERS: ClassVar = st.integers(0, 2)

    @initialize()
    def begin(self) -> None:
        self.cluster = Cluster(3)

    def pick(self, n: int) -> Instance:
        return self.cluster.instances[n]

    def lives(self, n: int) -> bool:
        return self.pick(n).me not in self.cluster.database.fenced

    @rule(n=NUMBERS)
    def somebody_comes(self, n: int) -> None:
        if self.lives(n):
            self.cluster.want(self.pick(n))

    @rule(n=NUMBERS)
    def all_leave(self, n: int) -> None:
        side = self.pick(n).side
        side.people = 0
        side.is_open = False

    @rule(n=NUMBERS, is_lost=st.booleans(), is_done=st.booleans())
    def ask(self, n: int, is_lost: bool, is_done: bool) -> None:
        self.cluster.ask(self.pick(n), is_lost=is_lost, is_done=is_done)

    @rule(n=NUMBERS)
    def ask_and_know(self, n: int) -> None:
        self.cluster.ask(self.pick(n))

    @rule(n=NUMBERS)
    def say(self, n: int) -> None:
        self.cluster.say(self.pick(n))

    @rule(n=NUMBERS, m=NUMBERS)
    def carry(self, n: int, m: int) -> None:
        self.cluster.carry(self.pick(n).me, self.pick(m).me)

    @rule(n=NUMBERS, m=NUMBERS)
    def cut(self, n: int, m: int) -> None:
        self.cluster.cut(self.pick(n).me, self.pick(m).me)

    @rule(n=NUMBERS, m=NUMBERS)
    def mend(self, n: int, m: int) -> None:
        self.cluster.mend(self.pick(n).me, self.pick(m).me)

    @rule(n=NUMBERS, seconds=st.sampled_from([0.25, 1.0, 30.0, 70.0]))
    def tick(self, n: int, seconds: float) -> None:
        self.cluster.now += seconds
        if self.lives(n):
            self.pick(n).homes.tick(self.cluster.now)

    @rule(n=NUMBERS)
    def leave(self, n: int) -> None:
        room = self.pick(n).homes.find(ROOM)
        if self.lives(n) and room is not None and room.state is State.HOME:
            self.pick(n).homes._leave(room)

    @precondition(lambda self: len(self.cluster.database.fenced) < 2)
    @rule(n=NUMBERS, told=st.booleans())
    def fence(self, n: int, told: bool) -> None:
        fenced = self.pick(n)
        self.cluster.database.fenced.add(fenced.me)
        for other in self.cluster.instances:
            self.cluster.cut(fenced.me, other.me)
            if told and other is not fenced:
                other.homes.fenced(fenced.me)

    @rule(memory=st.booleans(), n=NUMBERS)
    def memory(self, memory: bool, n: int) -> None:
        self.pick(n).side.memory = memory

    @invariant()
    def one_home_at_most(self) -> None:
        if not hasattr(self, "cluster"):
            return
        at_home = [
            instance.me
            for n, instance in enumerate(self.cluster.instances)
            if self.lives(n) and instance.state in {State.HOME, State.LEAVING}
        ]
        assert len(at_home) <= 1 or self._is_released(at_home)
        acting = [me for me in at_home if self.pick(me.number).state is State.HOME]
        assert acting in ([], [self.cluster.database.holder])

    def _is_released(self, at_home: list[InstanceId]) -> bool:
        """One that has released it, and does not know so yet, accepts nothing any longer."""
        return sum(self.pick(me.number).state is State.HOME for me in at_home) <= 1

    @invariant()
    def nobody_misses_anything(self) -> None:
        if not hasattr(self, "cluster"):
            return
        for n, instance in enumerate(self.cluster.instances):
            side = instance.side
            if self.lives(n) and side.people and side.is_open and side.seen:
                assert side.seen == self.cluster.between(side.since_id, side.seen[-1])

    def teardown(self) -> None:
        if not hasattr(self, "cluster"):
            return
        cluster = self.cluster
        for one in cluster.instances:
            for other in cluster.instances:
                cluster.mend(one.me, other.me)
        cluster.settle(2)  # who was without a home for too long has been told so
        for n, instance in enumerate(cluster.instances):
            if self.lives(n):
                cluster.want(instance)
        cluster.settle(8)
        living = [instance for n, instance in enumerate(cluster.instances) if self.lives(n)]
        assert sorted(str(instance.state) for instance in living) == sorted(
            map(str, [State.HOME, *[State.JOINED] * (len(living) - 1)])
        )
        assert cluster.say(next(instance for instance in living if instance.state is State.HOME))
        cluster.settle(1)
        for instance in living:
            assert instance.side.seen == cluster.between(instance.side.since_id, cluster.said)


@pytest.mark.property
def test_one_home_and_no_hole() -> None:
    run_state_machine_as_test(OneRoom, settings=settings(deadline=None, stateful_step_count=50))
