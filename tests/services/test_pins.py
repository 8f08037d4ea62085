from __future__ import annotations

from itertools import count

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from qiyu.errors import PresenceUnavailable
from qiyu.metrics import Metrics
from qiyu.model import InstanceId
from qiyu.presence.memory import MemoryPresence
from qiyu.presence.presence import FindPins, Pin, User
from qiyu.protocol.links import Kick, Kicked, LinkMessage
from qiyu.services.kicks import Kicks
from qiyu.services.pins import Pins
from qiyu.services.presence_queue import PresenceQueue

ANNA, BERT = User(10_001, 20_001), User(10_001, 20_002)
AWAY = PresenceUnavailable("away")


class Instance:
    """Pins and kicks of one instance, and its sessions: the newest of each user."""

    def __init__(self, cluster: Cluster, me: InstanceId, clock_ms: int) -> None:
        self.me = me
        self.cluster = cluster
        self.clock_ms = clock_ms
        self.sessions: dict[User, int] = {}
        self.unsettled: list[tuple[User, int]] = []
        self.settled: list[tuple[User, int]] = []
        self.replaced: list[tuple[User, int]] = []
        self.queue = PresenceQueue(Metrics())
        self.kicks = Kicks(
            self.send,
            self.end_session,
            self._write_again,
            self._others,
            cluster.gone.__contains__,
            lambda _: None,
            Metrics(),
        )
        self.pins = Pins(me, self.queue, self.kicks, self._unsettled, self._settled, self._replaced, Metrics())

    def send(self, to: InstanceId, message: LinkMessage) -> bool:
        if frozenset((self.me, to)) in self.cluster.cut:
            return False
        self.cluster.wire.append((self.me, to, message))
        return True

    def end_session(self, user: User, session: int) -> None:
        if self.sessions.get(user) == session:
            del self.sessions[user]
            self.replaced.append((user, session))
            self.pins.log_out(user, session)

    def log_in(self, user: User) -> int:
        self.sessions[user] = session = next(self.cluster.numbers)
        self.pins.log_in(user, session, self.clock_ms + self.cluster.now_ms)
        return session

    def log_out(self, user: User) -> None:
        session = self.sessions.pop(user, None)
        if session is not None:
            self.pins.log_out(user, session)

    def _write_again(self, user: User) -> None:
        self.pins.write_again(user)

    def _others(self) -> list[InstanceId]:
        others = [other.me for other in self.cluster.instances if other is not self]
        return [other for other in others if other not in self.cluster.gone]

    def _unsettled(self, user: User, session: int) -> None:
        self.unsettled.append((user, session))

    def _settled(self, user: User, session: int) -> None:
        self.settled.append((user, session))

    def _replaced(self, user: User, session: int) -> None:
        assert self.sessions.pop(user) == session
        self.replaced.append((user, session))


class Cluster:
    def __init__(self, instances: int = 2) -> None:
        self.presence = MemoryPresence()
        self.numbers = count(1)
        self.now_ms = 1_750_000_000_000
        self.wire: list[tuple[InstanceId, InstanceId, LinkMessage]] = []
        self.gone: set[InstanceId] = set()
        self.cut: set[frozenset[InstanceId]] = set()
        self.instances = [Instance(self, InstanceId(n, n + 1), 3_000 * n) for n in range(instances)]

    def ask(self, instance: Instance) -> None:
        """One round trip."""
        asked = instance.queue.take()
        instance.queue.answered(asked, self.presence.execute([one.request for one in asked]))

    def carry(self) -> None:
        """One message over its link."""
        sender, to, message = self.wire.pop(0)
        instance = self.instances[to.number]
        if isinstance(message, Kick):
            instance.kicks.received(sender, message)
        else:
            assert isinstance(message, Kicked)
            instance.kicks.answered(sender, message)

    def settle(self) -> None:
        for _ in range(10):
            for instance in self.instances:
                while len(instance.queue):
                    self.ask(instance)
                instance.pins.tick(is_reachable=self.presence.failure is None)
            while self.wire:
                self.carry()

    def heal(self) -> None:
        self.presence.failure = None
        self.cut.clear()
        for one in self.instances:
            for other in self.instances:
                one.kicks.link_opened(other.me)
        self.settle()

    def pin(self, user: User) -> Pin | None:
        [[pin]] = self.presence.execute([FindPins((user,))])  # type: ignore[misc]
        return pin

    def where(self, user: User) -> list[tuple[InstanceId, int]]:
        return [(one.me, one.sessions[user]) for one in self.instances if user in one.sessions]


def test_a_login_is_pinned_and_then_its_inbox_may_be_read() -> None:
    cluster = Cluster()
    one, _ = cluster.instances
    session = one.log_in(ANNA)
    assert one.settled == []
    cluster.ask(one)
    assert one.settled == [(ANNA, session)]
    pin = cluster.pin(ANNA)
    assert pin is not None
    assert (pin.instance, pin.session) == (one.me, session)
    one.log_out(ANNA)
    cluster.settle()
    assert cluster.pin(ANNA) is None


def test_a_login_elsewhere_ends_the_older_session() -> None:
    cluster = Cluster()
    one, two = cluster.instances
    old = two.log_in(ANNA)  # whose clock runs ahead
    cluster.settle()
    new = one.log_in(ANNA)
    cluster.settle()
    assert two.replaced == [(ANNA, old)]
    assert cluster.where(ANNA) == [(one.me, new)]
    assert len(one.kicks) == 0
    assert cluster.pin(ANNA) is not None


def test_a_late_logout_harms_no_newer_login() -> None:
    cluster = Cluster()
    one, two = cluster.instances
    one.log_in(ANNA)
    cluster.settle()
    new = two.log_in(ANNA)
    cluster.ask(two)
    one.log_out(ANNA)
    cluster.settle()
    assert cluster.where(ANNA) == [(two.me, new)]
    pin = cluster.pin(ANNA)
    assert pin is not None
    assert pin.session == new


def test_a_login_that_ends_before_it_was_pinned_leaves_no_pin_and_still_replaces_the_older_one() -> None:
    cluster = Cluster()
    one, two = cluster.instances
    one.log_in(ANNA)
    cluster.settle()
    two.log_in(ANNA)
    two.log_out(ANNA)
    cluster.settle()
    assert cluster.where(ANNA) == []
    assert cluster.pin(ANNA) is None
    assert two.settled == []


def test_a_kick_is_repeated_until_it_is_answered() -> None:
    cluster = Cluster()
    one, two = cluster.instances
    one.log_in(ANNA)
    cluster.settle()
    cluster.cut.add(frozenset((one.me, two.me)))
    two.log_in(ANNA)
    cluster.settle()
    assert len(cluster.where(ANNA)) == 2
    assert len(two.kicks) == 1
    cluster.heal()
    assert [where for where, _ in cluster.where(ANNA)] == [two.me]
    assert len(two.kicks) == 0


def test_an_instance_that_is_fenced_need_not_answer() -> None:
    cluster = Cluster()
    one, two = cluster.instances
    one.log_in(ANNA)
    cluster.settle()
    cluster.cut.add(frozenset((one.me, two.me)))
    two.log_in(ANNA)
    cluster.settle()
    cluster.instances.remove(one)
    two.kicks.fenced(one.me)
    assert len(two.kicks) == 0


def test_nor_need_it_say_whom_it_displaced_for_all_are_asked() -> None:
    cluster = Cluster(3)
    one, two, three = cluster.instances
    cluster.cut.add(frozenset((one.me, two.me)))
    for instance in (one, two, three):
        instance.log_in(ANNA)
        cluster.ask(instance)
    cluster.gone.add(two.me)
    three.kicks.fenced(two.me)
    two.sessions.clear()
    cluster.settle()
    assert [where for where, _ in cluster.where(ANNA)] == [three.me]


def test_a_kick_for_a_session_that_is_not_the_one_is_answered_and_ends_nothing() -> None:
    cluster = Cluster()
    one, two = cluster.instances
    session = one.log_in(ANNA)
    one.kicks.received(two.me, Kick(*ANNA, session + 1))
    assert cluster.where(ANNA) == [(one.me, session)]
    assert cluster.wire == [(one.me, two.me, Kicked(*ANNA, session + 1))]


def test_while_presence_is_away_logins_go_on_and_are_pinned_when_it_is_back() -> None:
    cluster = Cluster()
    one, _ = cluster.instances
    cluster.presence.failure = AWAY
    session = one.log_in(ANNA)
    cluster.settle()
    assert one.settled == [(ANNA, session)]
    assert one.pins.unwritten == 1
    cluster.heal()
    assert cluster.pin(ANNA) is not None
    assert one.settled == [(ANNA, session)] * 2
    assert one.pins.unwritten == 0


def test_of_two_logins_while_presence_is_away_one_survives() -> None:
    cluster = Cluster()
    one, two = cluster.instances
    cluster.presence.failure = AWAY
    for instance in (one, two):
        instance.log_in(ANNA)
    cluster.settle()
    cluster.heal()
    assert len(cluster.where(ANNA)) == 1
    pin = cluster.pin(ANNA)
    assert pin is not None
    assert [(pin.instance, pin.session)] == cluster.where(ANNA)


def test_what_presence_has_forgotten_is_written_again_and_inboxes_are_read_once_more() -> None:
    cluster = Cluster()
    one, _ = cluster.instances
    session = one.log_in(ANNA)
    cluster.settle()
    cluster.presence.empty()
    one.pins.forgotten()
    one.pins.tick(is_reachable=True)
    assert one.unsettled == [(ANNA, session)]  # before anybody can find the pin
    assert cluster.pin(ANNA) is None
    cluster.settle()
    assert cluster.pin(ANNA) is not None
    assert one.settled == [(ANNA, session)] * 2


def test_a_logout_while_presence_is_away_is_told_later() -> None:
    cluster = Cluster()
    one, _ = cluster.instances
    one.log_in(ANNA)
    cluster.settle()
    cluster.presence.failure = AWAY
    one.log_out(ANNA)
    cluster.settle()
    cluster.presence.failure = None
    assert cluster.pin(ANNA) is not None
    cluster.heal()
    assert cluster.pin(ANNA) is None


def test_who_displaces_the_pin_of_an_instance_that_is_gone_has_all_pins_judged() -> None:
    """It stood still, was fenced, and pinned a last login as it went on."""
    cluster = Cluster(3)
    one, two, three = cluster.instances
    one.log_in(ANNA)
    cluster.settle()
    two.log_in(ANNA)
    asked = two.queue.take()
    cluster.presence.execute([item.request for item in asked])
    two.sessions.clear()
    cluster.gone.add(two.me)
    new = three.log_in(ANNA)
    cluster.settle()
    assert cluster.where(ANNA) == [(three.me, new)]


def test_who_was_displaced_by_an_instance_that_had_no_time_to_say_so_finds_out() -> None:
    cluster = Cluster(3)
    one, two, three = cluster.instances
    old = one.log_in(ANNA)
    bert = one.log_in(BERT)
    cluster.settle()
    cluster.cut.add(frozenset((one.me, two.me)))
    two.log_in(ANNA)
    cluster.settle()
    two.log_out(ANNA)
    cluster.settle()
    new = three.log_in(ANNA)
    cluster.settle()
    assert cluster.where(ANNA) == [(one.me, old), (three.me, new)]
    cluster.instances.remove(two)
    one.pins.doubt()
    cluster.settle()
    assert cluster.where(ANNA) == [(three.me, new)]
    assert cluster.where(BERT) == [(one.me, bert)]


@pytest.mark.parametrize("logs_out", [False, True])
def test_a_login_whose_answer_was_lost_still_ends_the_older_session(logs_out: bool) -> None:
    cluster = Cluster()
    one, two = cluster.instances
    one.log_in(ANNA)
    cluster.settle()
    new = two.log_in(ANNA)
    asked = two.queue.take()
    cluster.presence.execute([item.request for item in asked])
    two.queue.answered(asked, [AWAY])
    if logs_out:
        two.log_out(ANNA)
    cluster.settle()
    pin = cluster.pin(ANNA)
    assert pin is not None
    # Who was displaced by a login that is over already may stay, but then it is to be found again.
    assert cluster.where(ANNA) == [(pin.instance, pin.session)]
    assert (pin.session == new) is not logs_out


class PinsOfACluster(RuleBasedStateMachine):
    """Three instances whose clocks differ by seconds, presence that goes away and forgets, links that are cut.

    When all is well again and everything has settled, each user has one session at most, and is pinned exactly there.
    """

    @initialize()
    def begin(self) -> None:
        self.cluster = Cluster(3)

    @rule(n=st.integers(0, 2), user=st.sampled_from([ANNA, BERT]))
    def log_in(self, n: int, user: User) -> None:
        self.cluster.now_ms += 1
        instance = self.cluster.instances[n]
        instance.log_in(user)

    @rule(n=st.integers(0, 2), user=st.sampled_from([ANNA, BERT]))
    def log_out(self, n: int, user: User) -> None:
        self.cluster.instances[n].log_out(user)

    @rule(n=st.integers(0, 2))
    def ask(self, n: int) -> None:
        self.cluster.ask(self.cluster.instances[n])

    @rule(n=st.integers(0, 2))
    def ask_and_never_hear(self, n: int) -> None:
        instance = self.cluster.instances[n]
        asked = instance.queue.take()
        self.cluster.presence.execute([one.request for one in asked])
        instance.queue.answered(asked, [AWAY] * len(asked))

    @precondition(lambda self: self.cluster.wire)
    @rule()
    def carry(self) -> None:
        self.cluster.carry()

    @rule(n=st.integers(0, 2), other=st.integers(0, 2))
    def cut(self, n: int, other: int) -> None:
        pair = frozenset((self.cluster.instances[n].me, self.cluster.instances[other].me))
        self.cluster.cut.add(pair)
        self.cluster.wire = [item for item in self.cluster.wire if frozenset(item[:2]) != pair]

    @rule(is_away=st.booleans())
    def presence_goes_or_comes(self, is_away: bool) -> None:
        self.cluster.presence.failure = AWAY if is_away else None

    @rule()
    def presence_forgets(self) -> None:
        self.cluster.presence.empty()
        for instance in self.cluster.instances:
            instance.pins.forgotten()

    @rule(n=st.integers(0, 2))
    def tick(self, n: int) -> None:
        self.cluster.instances[n].pins.tick(is_reachable=self.cluster.presence.failure is None)

    def teardown(self) -> None:
        if not hasattr(self, "cluster"):
            return
        self.cluster.heal()
        for user in (ANNA, BERT):
            where = self.cluster.where(user)
            pin = self.cluster.pin(user)
            assert len(where) <= 1
            assert where == ([] if pin is None else [(pin.instance, pin.session)])
        assert all(len(instance.kicks) == 0 for instance in self.cluster.instances)


@pytest.mark.property
def test_one_session_a_user_and_its_pin_leads_there() -> None:
    run_state_machine_as_test(PinsOfACluster, settings=settings(deadline=None, stateful_step_count=40))
