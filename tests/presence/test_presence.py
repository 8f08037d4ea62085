"""What holds for presence of every kind."""

from __future__ import annotations

from typing import Any, TypeVar

import pytest

from qiyu.model import InstanceId
from qiyu.presence.presence import (
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

T = TypeVar("T")
ANNA, BERT = User(10_001, 20_001), User(10_001, 20_002)
ONE, TWO = InstanceId(1, 1), InstanceId(2, 7)


def ask(presence: Presence, request: Request) -> Any:
    [answer] = presence.execute([request])
    return answer


def pin(presence: Presence, user: User, pin: Pin, *, is_fresh: bool = True) -> Pinned:
    answer = ask(presence, PinUser(user, pin, is_fresh))
    assert isinstance(answer, Pinned)
    return answer


def find(presence: Presence, *users: User) -> list[Pin | None]:
    answer = ask(presence, FindPins(users))
    assert isinstance(answer, list)
    return answer


def renew(presence: Presence, lease: Lease) -> Leases:
    answer = ask(presence, RenewLease(lease))
    assert isinstance(answer, Leases)
    return answer


class TestPins:
    def test_nobody_is_anywhere_at_first(self, presence: Presence) -> None:
        assert find(presence, ANNA, BERT) == [None, None]
        assert find(presence) == []

    def test_who_is_pinned_is_found_and_nobody_else(self, presence: Presence) -> None:
        mine = Pin(ONE, 5, 1_750_000_000_123)
        assert pin(presence, ANNA, mine) == Pinned(mine, None, is_mine=True)
        assert find(presence, BERT, ANNA, User(10_002, ANNA.user_id)) == [None, mine, None]

    def test_a_fresh_login_takes_the_place_of_another_and_says_whose(self, presence: Presence) -> None:
        older, newer = Pin(ONE, 5, 1_000), Pin(TWO, 9, 2_000)
        pin(presence, ANNA, older)
        assert pin(presence, ANNA, newer) == Pinned(newer, older, is_mine=True)
        assert find(presence, ANNA) == [newer]

    def test_a_fresh_login_is_the_newer_one_even_where_its_clock_is_behind(self, presence: Presence) -> None:
        ahead, behind = Pin(ONE, 5, 9_000), Pin(TWO, 9, 2_000)
        pin(presence, ANNA, ahead)
        placed = behind._replace(login_ms=9_001)
        assert pin(presence, ANNA, behind) == Pinned(placed, ahead, is_mine=True)
        assert placed.is_newer_than(ahead)
        assert pin(presence, ANNA, ahead, is_fresh=False) == Pinned(placed, None, is_mine=False)

    def test_the_same_login_twice_is_one(self, presence: Presence) -> None:
        mine = Pin(ONE, 5, 1_000)
        pin(presence, ANNA, mine)
        for is_fresh in (True, False):
            assert pin(presence, ANNA, mine, is_fresh=is_fresh) == Pinned(mine, None, is_mine=True)

    @pytest.mark.parametrize(
        ("mine", "stands"),
        [
            (Pin(ONE, 5, 1_000), Pin(TWO, 1, 1_001)),
            (Pin(ONE, 5, 1_000), Pin(TWO, 1, 1_000)),
            (Pin(InstanceId(1, 9), 5, 1_000), Pin(InstanceId(1, 10), 1, 1_000)),
            (Pin(ONE, 9, 1_000), Pin(ONE, 10, 1_000)),
        ],
    )
    def test_written_again_it_gives_way_to_a_newer_login(self, presence: Presence, mine: Pin, stands: Pin) -> None:
        pin(presence, ANNA, stands)
        assert pin(presence, ANNA, mine, is_fresh=False) == Pinned(stands, None, is_mine=False)
        assert find(presence, ANNA) == [stands]
        presence.execute([Unpin(ANNA, stands)])
        pin(presence, ANNA, mine)
        assert pin(presence, ANNA, stands, is_fresh=False) == Pinned(stands, mine, is_mine=True)

    def test_a_late_logout_takes_nobody_elses_pin_away(self, presence: Presence) -> None:
        older, newer = Pin(ONE, 5, 1_000), Pin(ONE, 50, 2_000)
        assert ask(presence, Unpin(ANNA, older)) is False
        pin(presence, ANNA, newer)
        assert ask(presence, Unpin(ANNA, older)) is False
        assert ask(presence, Unpin(ANNA, newer._replace(instance=InstanceId(1, 11)))) is False
        assert find(presence, ANNA) == [newer]
        assert ask(presence, Unpin(ANNA, newer._replace(login_ms=7))) is True  # the time may have been put forward
        assert find(presence, ANNA) == [None]

    def test_the_largest_numbers_are_kept_exactly(self, presence: Presence) -> None:
        huge = User(2**53 - 1, 2**53 - 1)
        mine = Pin(InstanceId(1023, 2**31 - 1), 2**48, 2**45 + 1)
        pin(presence, huge, mine)
        assert find(presence, huge) == [mine]
        newer = pin(presence, huge, Pin(ONE, 1, 5)).pin
        assert newer.login_ms == 2**45 + 2

    def test_many_requests_are_answered_in_their_order(self, presence: Presence) -> None:
        users = [User(10_001, 10_000 + n) for n in range(700)]
        pins = [Pin(ONE, n + 1, 1_000 + n) for n in range(700)]
        requests: list[Request] = [FindPins(tuple(users))]
        requests += [PinUser(user, pin, is_fresh=True) for user, pin in zip(users, pins, strict=True)]
        requests += [Unpin(users[3], pins[3]), FindPins(tuple(reversed(users)))]
        before, *pinned, unpinned, after = presence.execute(requests)
        assert before == [None] * 700
        assert pinned == [Pinned(pin, None, is_mine=True) for pin in pins]
        assert unpinned is True
        pins_after: list[Pin | None] = [*pins]
        pins_after[3] = None
        assert after == list(reversed(pins_after))
        assert presence.execute([]) == []


class TestLeases:
    def test_each_sees_all(self, presence: Presence) -> None:
        one = Lease(number=1, incarnation=1, link_address="127.0.0.1:9000", connections=3, version="0.2.0")
        two = Lease(number=2, incarnation=7, renewals=12, is_draining=True)
        assert renew(presence, one).by_number == {1: one}
        leases = renew(presence, two)
        assert leases.is_mine
        assert leases.by_number == {1: one, 2: two}
        assert leases.ages_ms.keys() == {1, 2}
        assert all(0 <= age < 60_000 for age in leases.ages_ms.values())
        listed = ask(presence, ListLeases())
        assert (listed.epoch, listed.by_number) == (leases.epoch, leases.by_number)

    def test_it_shows_its_renewal(self, presence: Presence) -> None:
        renew(presence, Lease(number=1, incarnation=1, renewals=1))
        assert renew(presence, Lease(number=1, incarnation=1, renewals=2)).by_number[1].renewals == 2

    def test_an_earlier_incarnation_does_not_come_back(self, presence: Presence) -> None:
        newer = Lease(number=1, incarnation=10)
        renew(presence, Lease(number=1, incarnation=9))
        assert renew(presence, newer).is_mine
        late = renew(presence, Lease(number=1, incarnation=9, renewals=100))
        assert not late.is_mine
        assert late.by_number == {1: newer}

    def test_only_the_lease_of_that_incarnation_is_dropped(self, presence: Presence) -> None:
        lease = Lease(number=1, incarnation=10)
        assert ask(presence, DropLease(InstanceId(1, 10))) is False
        renew(presence, lease)
        assert ask(presence, DropLease(InstanceId(1, 1))) is False
        assert ask(presence, ListLeases()).by_number == {1: lease}
        assert ask(presence, DropLease(InstanceId(1, 10))) is True
        assert ask(presence, ListLeases()).by_number == {}

    def test_the_epoch_stays_while_nothing_is_forgotten(self, presence: Presence) -> None:
        epochs = {renew(presence, Lease(number=1, incarnation=1, renewals=n)).epoch for n in range(3)}
        assert len(epochs) == 1
        assert epochs != {""}
