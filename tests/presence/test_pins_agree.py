"""A model, memory and Redis are given the same, and answer the same."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from qiyu.model import InstanceId
from qiyu.presence.memory import MemoryPresence
from qiyu.presence.presence import (
    Answer,
    DropLease,
    FindPins,
    Lease,
    Leases,
    ListLeases,
    Pin,
    Pinned,
    PinUser,
    Presence,
    RenewLease,
    Request,
    Unpin,
    User,
)
from qiyu.presence.redis import RedisPresence

USERS = [User(10_001, 10_000), User(10_002, 10_000), User(10_001, 10_256), User(10_001, 10_001)]
PINS = st.builds(
    Pin,
    st.builds(InstanceId, st.sampled_from([0, 9, 10]), st.sampled_from([1, 2, 10])),
    st.sampled_from([1, 2, 10]),
    st.sampled_from([0, 999, 1_000, 1_750_000_000_000]),
)
LEASES = st.builds(
    Lease,
    number=st.integers(0, 3),
    incarnation=st.sampled_from([1, 2, 9, 10]),
    renewals=st.integers(0, 3),
    link_address=st.text(max_size=5),
)


class PinsAgree(RuleBasedStateMachine):
    """Whatever is asked in whatever order, alone or together, twice or once: all three answer alike.

    And of two logins one stands, the later one that was fresh; a pin is taken away by its own session only.
    """

    url: str

    @initialize()
    def begin(self) -> None:
        self.redis = RedisPresence(self.url, prefix=f"qiyu-test-{uuid.uuid4().hex}", timeout_seconds=10)
        self.memory = MemoryPresence()
        self.pins: dict[User, Pin] = {}
        self.leases: dict[int, Lease] = {}

    def teardown(self) -> None:
        if hasattr(self, "redis"):
            self.redis.close()

    def ask(self, *requests: Request) -> list[Answer]:
        expected = [self.model(request) for request in requests]
        for presence in (self.memory, self.redis):
            assert [plain(answer) for answer in execute(presence, requests)] == expected
        return expected

    def model(self, request: Request) -> Answer:  # noqa: C901, PLR0911  # a table
        match request:
            case PinUser(user, pin, is_fresh):
                stood = self.pins.get(user)
                if stood is not None and stood.is_of(pin):
                    return Pinned(stood, None, is_mine=True)
                if stood is not None and is_fresh and pin.login_ms <= stood.login_ms:
                    pin = pin._replace(login_ms=stood.login_ms + 1)
                if stood is not None and not pin.is_newer_than(stood):
                    return Pinned(stood, None, is_mine=False)
                self.pins[user] = pin
                return Pinned(pin, stood, is_mine=True)
            case Unpin(user, pin):
                mine = user in self.pins and self.pins[user].is_of(pin)
                if mine:
                    del self.pins[user]
                return mine
            case FindPins(users):
                return [self.pins.get(user) for user in users]
            case RenewLease(lease):
                stands = self.leases.get(lease.number)
                mine = stands is None or stands.incarnation <= lease.incarnation
                if mine:
                    self.leases[lease.number] = lease
                return Leases("", dict(self.leases), {}, mine)
            case DropLease(instance):
                stands = self.leases.get(instance.number)
                mine = stands is not None and stands.incarnation == instance.incarnation
                if mine:
                    del self.leases[instance.number]
                return mine
            case ListLeases():
                return Leases("", dict(self.leases), {}, False)

    @rule(user=st.sampled_from(USERS), pin=PINS, is_fresh=st.booleans(), twice=st.booleans())
    def log_in(self, user: User, pin: Pin, is_fresh: bool, twice: bool) -> None:
        request = PinUser(user, pin, is_fresh)
        *_, last = self.ask(*[request] * (1 + twice))
        assert isinstance(last, Pinned)
        assert last.is_mine or not is_fresh
        assert self.pins[user] == last.pin

    @rule(user=st.sampled_from(USERS), pin=PINS, of_whom=st.booleans())
    def log_out(self, user: User, pin: Pin, of_whom: bool) -> None:
        self.ask(Unpin(user, self.pins.get(user, pin) if of_whom else pin))

    @rule(lease=LEASES, more=st.lists(PINS, max_size=3))
    def renew(self, lease: Lease, more: list[Pin]) -> None:
        logins = [PinUser(USERS[0], pin, is_fresh=False) for pin in more]
        self.ask(RenewLease(lease), *logins, ListLeases())

    @rule(number=st.integers(0, 3), incarnation=st.sampled_from([1, 2, 9, 10]))
    def drop(self, number: int, incarnation: int) -> None:
        self.ask(DropLease(InstanceId(number, incarnation)))

    @invariant()
    def the_same_is_found(self) -> None:
        if hasattr(self, "redis"):
            self.ask(FindPins(tuple(USERS)), ListLeases())


def execute(presence: Presence, requests: tuple[Request, ...]) -> list[Answer]:
    answers = presence.execute(requests)
    return [answer for answer in answers if not isinstance(answer, Exception)]


def plain(answer: Answer) -> Answer:
    """Without what only a real one has."""
    return answer._replace(epoch="", ages_ms={}) if isinstance(answer, Leases) else answer


@pytest.mark.property
def test_a_model_memory_and_redis_agree(server_url: str) -> None:
    machine = type("OnThisServer", (PinsAgree,), {"url": server_url})
    examples = min(settings().max_examples, 2_000)  # each talks to a real server
    run_state_machine_as_test(machine, settings=settings(max_examples=examples, stateful_step_count=20, deadline=None))


@pytest.mark.property
def test_so_they_do_on_a_cluster(cluster: list[object]) -> None:
    url = cluster[0].url  # type: ignore[attr-defined]
    machine = type("OnThisCluster", (PinsAgree,), {"url": url})
    run_state_machine_as_test(machine, settings=settings(max_examples=15, stateful_step_count=20, deadline=None))
