from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qiyu.errors import PresenceUnavailable
from qiyu.model import InstanceId
from qiyu.presence.memory import MemoryPresence
from qiyu.presence.presence import DropLease, Lease, Leases, RenewLease
from qiyu.services.leases import LeaseKeeper, LeaseRules

RULES = LeaseRules()
ONE, TWO, THREE = InstanceId(1, 4), InstanceId(2, 5), InstanceId(3, 6)


class Instance:
    """A keeper, and a driver that renews whenever it is due."""

    def __init__(self, presence: MemoryPresence, me: InstanceId, now: float = 0.0) -> None:
        self.presence = presence
        self.forgotten = 0
        self.keeper = LeaseKeeper(me, RULES, now, self._forget)

    def _forget(self) -> None:
        self.forgotten += 1

    def run(self, now: float) -> None:
        self.keeper.tick(now)
        if not self.keeper.is_due(now):
            return
        lease = self.keeper.next_lease(Lease(number=self.keeper.me.number, incarnation=self.keeper.me.incarnation))
        [answer] = self.presence.execute([RenewLease(lease)])
        if isinstance(answer, Leases):
            self.keeper.renewed(answer, now, now)
        else:
            self.keeper.failed(now)


class Cluster:
    def __init__(self, *instances: InstanceId) -> None:
        self.presence = MemoryPresence()
        self.now = 0.0
        self.instances = {me: Instance(self.presence, me) for me in instances}
        self.paused: set[InstanceId] = set()
        self.blind: set[InstanceId] = set()
        """Cannot reach presence."""
        self.fenced: list[tuple[InstanceId, InstanceId]] = []

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while self.now < until:
            self.now += 0.25
            for me, instance in self.instances.items():
                if me in self.paused:
                    continue
                if me in self.blind:
                    instance.keeper.tick(self.now)
                    if instance.keeper.is_due(self.now):
                        instance.keeper.failed(self.now)
                else:
                    instance.run(self.now)
                for whom in instance.keeper.to_fence(self.now):
                    self.fenced.append((me, whom))
                    instance.keeper.fenced(whom)
                    self.presence.execute([DropLease(whom)])

    def keeper(self, me: InstanceId) -> LeaseKeeper:
        return self.instances[me].keeper


def unavailable(cluster: Cluster) -> None:
    cluster.presence.failure = PresenceUnavailable("away")


def test_who_lives_is_seen_by_all_and_fenced_by_none() -> None:
    cluster = Cluster(ONE, TWO, THREE)
    cluster.run(120)
    assert cluster.fenced == []
    assert {lease.instance for lease in cluster.keeper(ONE).living(cluster.now)} == {TWO, THREE}
    assert cluster.keeper(ONE).is_living(TWO, cluster.now)
    assert not cluster.keeper(ONE).is_living(TWO._replace(incarnation=4), cluster.now)
    assert cluster.instances[ONE].forgotten == 1


def test_whose_lease_stands_still_is_fenced_after_the_lease_and_not_before() -> None:
    cluster = Cluster(ONE, TWO)
    cluster.run(30)
    cluster.paused.add(TWO)
    cluster.run(RULES.lease_seconds)
    assert cluster.fenced == []
    assert cluster.keeper(ONE).is_living(TWO, cluster.now)
    cluster.run(RULES.renew_seconds + 0.5)
    assert cluster.fenced == [(ONE, TWO)]
    assert not cluster.keeper(ONE).is_living(TWO, cluster.now)


def test_who_starts_later_fences_whom_it_never_saw_renew() -> None:
    cluster = Cluster(TWO)
    cluster.run(5)
    cluster.paused.add(TWO)
    cluster.instances[ONE] = Instance(cluster.presence, ONE, cluster.now)
    cluster.run(RULES.lease_seconds - 1)
    assert cluster.fenced == []
    cluster.run(RULES.renew_seconds + 2)
    assert cluster.fenced == [(ONE, TWO)]


def test_an_emptied_presence_condemns_nobody() -> None:
    cluster = Cluster(ONE, TWO)
    cluster.run(30)
    for _ in range(5):
        cluster.presence.empty()
        cluster.run(4)
    assert cluster.fenced == []
    assert cluster.instances[ONE].forgotten == 6


def test_who_does_not_come_back_after_it_was_emptied_is_fenced_one_period_later() -> None:
    cluster = Cluster(ONE, TWO)
    cluster.run(30)
    cluster.paused.add(TWO)
    cluster.presence.empty()
    cluster.run(RULES.lease_seconds)
    assert cluster.fenced == []
    cluster.run(RULES.renew_seconds + 3.5)
    assert cluster.fenced == [(ONE, TWO)]


def test_while_presence_is_away_nobody_is_judged_and_one_period_after_it() -> None:
    cluster = Cluster(ONE, TWO)
    cluster.run(30)
    unavailable(cluster)
    cluster.run(60)
    cluster.presence.failure = None
    cluster.run(RULES.lease_seconds)
    assert cluster.fenced == []
    assert cluster.instances[ONE].forgotten == 1


def test_who_was_paused_itself_does_not_take_the_others_for_dead() -> None:
    """The machine stood still as a whole: whoever goes on first sees old leases everywhere."""
    cluster = Cluster(ONE, TWO)
    cluster.run(30)
    cluster.paused |= {ONE, TWO}
    cluster.run(60)
    cluster.paused.remove(ONE)
    cluster.run(RULES.lease_seconds - 1)
    assert cluster.fenced == []
    cluster.paused.remove(TWO)
    cluster.run(30)
    assert cluster.fenced == []


def test_who_cannot_reach_presence_judges_nobody_and_asks_the_database_each_second() -> None:
    cluster = Cluster(ONE, TWO)
    cluster.run(30)
    cluster.blind.add(ONE)
    cluster.run(RULES.lease_seconds - RULES.renew_seconds - 0.5)
    keeper = cluster.keeper(ONE)
    assert not keeper.row_check_is_due(cluster.now)
    cluster.run(RULES.renew_seconds + 1)
    assert keeper.row_check_is_due(cluster.now)
    keeper.row_checked(cluster.now)
    assert not keeper.row_check_is_due(cluster.now)
    cluster.run(1)
    assert keeper.row_check_is_due(cluster.now)
    cluster.run(60)
    assert [who for who, _ in cluster.fenced] == [TWO]


def test_after_a_pause_the_database_is_asked_at_once() -> None:
    cluster = Cluster(ONE, TWO)
    cluster.run(30)
    assert not cluster.keeper(ONE).row_check_is_due(cluster.now)
    cluster.paused.add(ONE)
    cluster.run(20)
    cluster.paused.remove(ONE)
    cluster.run(0.25)
    assert cluster.keeper(ONE).row_check_is_due(cluster.now)
    cluster.keeper(ONE).row_checked(cluster.now)
    assert not cluster.keeper(ONE).row_check_is_due(cluster.now)


def test_a_later_incarnation_of_ones_number_says_that_one_was_fenced() -> None:
    cluster = Cluster(ONE)
    cluster.run(5)
    cluster.instances[TWO] = Instance(cluster.presence, ONE._replace(incarnation=5), cluster.now)
    cluster.run(5)
    assert cluster.keeper(ONE).is_superseded


def test_a_port_that_refuses_for_a_second_is_enough() -> None:
    cluster = Cluster(ONE, TWO)
    cluster.run(30)
    keeper = cluster.keeper(ONE)
    keeper.refused(TWO, cluster.now)
    cluster.run(0.75)
    keeper.refused(TWO, cluster.now)
    assert cluster.fenced == []
    cluster.run(0.25)
    assert cluster.fenced == [(ONE, TWO)]


def test_a_port_that_refuses_once_is_not() -> None:
    cluster = Cluster(ONE, TWO)
    cluster.run(30)
    keeper = cluster.keeper(ONE)
    keeper.refused(TWO, cluster.now)
    keeper.reached(TWO)
    cluster.run(2)
    assert cluster.fenced == []


def test_whom_the_database_knows_and_presence_never_saw_is_judged_too() -> None:
    cluster = Cluster(ONE)
    cluster.run(30)
    cluster.keeper(ONE).watch(TWO, cluster.now)
    cluster.keeper(ONE).watch(ONE, cluster.now)
    cluster.run(RULES.lease_seconds)
    assert cluster.fenced == []
    cluster.run(RULES.renew_seconds)
    assert cluster.fenced == [(ONE, TWO)]


def test_all_learn_that_one_has_departed_whoever_fenced_it() -> None:
    cluster = Cluster(ONE, TWO, THREE)
    departed: list[tuple[InstanceId, InstanceId]] = []
    for me, instance in cluster.instances.items():
        instance.keeper.departed = lambda whom, me=me: departed.append((me, whom))  # type: ignore[misc]
    cluster.run(30)
    cluster.presence.empty()
    cluster.run(30)
    assert departed == []
    cluster.paused.add(TWO)
    cluster.run(30)
    assert sorted(departed) == [(ONE, TWO), (THREE, TWO)]
    assert len(cluster.fenced) == 1
    assert cluster.keeper(THREE).is_gone(TWO)
    assert not cluster.keeper(THREE).is_gone(ONE)
    assert not cluster.keeper(THREE).is_gone(THREE)


def test_one_that_starts_again_at_once_has_departed_as_what_it_was() -> None:
    cluster = Cluster(ONE, TWO)
    departed: list[InstanceId] = []
    cluster.keeper(ONE).departed = departed.append
    cluster.run(30)
    again = TWO._replace(incarnation=TWO.incarnation + 1)
    cluster.paused.add(TWO)
    cluster.instances[again] = Instance(cluster.presence, again, cluster.now)
    cluster.run(4)
    assert departed == [TWO]
    assert cluster.keeper(ONE).is_living(again, cluster.now)
    assert cluster.keeper(ONE).is_gone(TWO)
    cluster.keeper(ONE).watch(TWO, cluster.now)
    cluster.run(30)
    assert departed == [TWO]


def test_a_link_may_know_of_a_new_start_before_presence_does() -> None:
    cluster = Cluster(ONE, TWO)
    departed: list[InstanceId] = []
    cluster.keeper(ONE).departed = departed.append
    cluster.run(30)
    cluster.keeper(ONE).watch(TWO._replace(incarnation=9), cluster.now)
    assert departed == [TWO]


def test_rules_that_would_lose_leases_are_refused() -> None:
    with pytest.raises(ValueError, match="a third of lease_seconds"):
        LeaseRules(lease_seconds=5, renew_seconds=2)


@pytest.mark.property
@given(
    st.lists(
        st.tuples(st.sampled_from(["pause", "blind", "empty", "away", "back", "calm"]), st.floats(0.25, 30)),
        max_size=12,
    )
)
def test_only_who_stood_still_for_a_lease_is_fenced(events: list[tuple[str, float]]) -> None:
    """Whatever happens to presence and to the others: an instance that has renewed within the last lease period, as
    far as presence let it, is fenced by nobody."""
    cluster = Cluster(ONE, TWO, THREE)
    cluster.run(15)
    for event, seconds in events:
        if event == "pause":
            cluster.paused ^= {ONE}
        elif event == "blind":
            cluster.blind ^= {ONE}
        elif event == "empty":
            cluster.presence.empty()
        elif event == "away":
            unavailable(cluster)
        elif event == "back":
            cluster.presence.failure = None
        cluster.run(seconds)
        assert {whom for _, whom in cluster.fenced} <= {ONE}
