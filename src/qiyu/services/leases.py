"""Which instances live, by the leases that they renew, and who may be fenced.

An instance watches the others' counts of renewals on its own monotonic clock: a lease whose count has stood still for
`lease_seconds` is lost. No clock is compared with another's, none can be set, and an instance that was itself paused
or cut off knows that it has not been watching.

To fence is to say in the database that an incarnation may commit nothing more. It is always safe, for the fenced one
finds out before it does harm; but it costs that one's users a reconnect, so it is done for two reasons only:

- its lease is lost, while presence answered all the time, had not forgotten anything, and this instance's own lease
  stood. Whoever sees somebody else's lease stand still because it looks at a broken mirror would fence all.
- its link port has refused connections for `refused_seconds`, or another instance has proved to be there: the machine
  is there, and the process is not.

Whoever cannot renew its own lease for as long as that lasts may have been fenced: it asks the database, each second.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

import msgspec

from qiyu.model import InstanceId
from qiyu.presence.presence import Lease, Leases

ROW_CHECK_SECONDS: Final = 1.0
PAUSE_SECONDS: Final = 1.0
"""A tick that comes so much later than the one before shows that this process stood still, or was starved."""


@dataclass(frozen=True, slots=True)
class LeaseRules:
    """In seconds. A lease is renewed so often that two renewals may fail before it is lost."""

    lease_seconds: float = 10.0
    renew_seconds: float = 3.0
    refused_seconds: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < 3 * self.renew_seconds <= self.lease_seconds:
            raise ValueError(
                f"renew_seconds {self.renew_seconds:g}: expected a third of lease_seconds ({self.lease_seconds:g})"
                " at most"
            )


@dataclass(slots=True)
class _Watched:
    """What is known of another instance."""

    instance: InstanceId
    moved_at: float
    """When its count of renewals was last seen to move, or when it was first asked about."""
    lease: Lease | None = None
    lease_stands: bool = False
    """It was in presence when that was last looked at: it goes when it is dropped, or all is forgotten."""
    refused_since: float | None = None


@dataclass(slots=True)
class LeaseKeeper:
    """Renews one's own lease, and watches those of others. All times are monotonic seconds.

    `forgotten` is called when presence may have lost what this instance has written to it, and once at the start;
    `departed` when another instance is found to be fenced, or to have stopped in order, by whomever: its lease has been
    dropped. What it had stored last it may have told nobody.
    """

    me: InstanceId
    rules: LeaseRules
    started_at: float
    forgotten: Callable[[], None] = lambda: None
    departed: Callable[[InstanceId], None] = lambda _: None
    is_superseded: bool = False
    """A later incarnation has this instance's number: this one has been fenced."""
    _renewals: int = 0
    _is_asking: bool = False
    _due_at: float = -math.inf
    _valid_until: float = -math.inf
    _answered_at: float = -math.inf
    _watching_since: float = math.inf
    _epoch: str = ""
    _checked_at: float = field(init=False)
    _ticked_at: float = field(init=False)
    _was_paused: bool = False
    _others: dict[int, _Watched] = field(default_factory=dict)
    _gone: dict[int, int] = field(default_factory=dict)
    """By number, the last incarnation that has departed."""

    def __post_init__(self) -> None:
        self._checked_at = self._ticked_at = self.started_at

    def __repr__(self) -> str:
        return f"<LeaseKeeper of {self.me}: {len(self._others)} others, {self._renewals} renewals>"

    # One's own

    def tick(self, now: float) -> None:
        """Time has passed; to be called several times a second."""
        if now - self._ticked_at > PAUSE_SECONDS:
            self._was_paused = True
            self._due_at = now
        self._ticked_at = now

    @property
    def renewals(self) -> int:
        """How often it was renewed, or was to be."""
        return self._renewals

    def is_due(self, now: float) -> bool:
        """Whether the lease is to be renewed now."""
        return not self._is_asking and now >= self._due_at

    def next_lease(self, lease: Lease) -> Lease:
        """What to write; `lease` has all but the count. To be followed by `renewed` or `failed`."""
        self._is_asking = True
        self._renewals += 1
        return msgspec.structs.replace(lease, renewals=self._renewals)

    def failed(self, now: float) -> None:
        """Presence did not answer."""
        self._is_asking = False
        self._due_at = now + min(self.rules.renew_seconds, ROW_CHECK_SECONDS)

    def renewed(self, answer: Leases, asked_at: float, now: float) -> None:
        """Presence answered a renewal that was asked for at `asked_at`."""
        self._is_asking = False
        self._due_at = asked_at + self.rules.renew_seconds
        if not answer.is_mine:
            self.is_superseded = True
            return
        if now - asked_at <= self.rules.renew_seconds:  # later, it may be from before a pause
            self._valid_until = asked_at + self.rules.lease_seconds
        has_gap = now - self._answered_at > 2 * self.rules.renew_seconds
        self._answered_at = now
        if answer.epoch != self._epoch:
            self._epoch = answer.epoch
            self._watching_since = now
            for watched in self._others.values():
                watched.lease_stands = False
            self.forgotten()
        elif has_gap:
            self._watching_since = now
        self._look_at(answer, now)

    def row_check_is_due(self, now: float) -> bool:
        """Whether to ask the database whether this instance is fenced: after a pause, or without a valid lease."""
        without_lease = now > max(self._valid_until, self.started_at + self.rules.lease_seconds)
        return self._was_paused or (without_lease and now - self._checked_at >= ROW_CHECK_SECONDS)

    def row_checked(self, now: float) -> None:
        """It is not: the database said so, or it does not answer, and then whoever is fenced writes nothing either."""
        self._checked_at = now
        self._was_paused = False

    def is_reachable(self, now: float) -> bool:
        """Whether presence has answered lately."""
        return now - self._answered_at <= 2 * self.rules.renew_seconds

    # Others

    def watch(self, instance: InstanceId, now: float) -> None:
        """Somebody met this instance, in the database or on a link: judge it even if it never had a lease here."""
        if instance != self.me and not self.is_gone(instance):
            self._watched(instance, now)

    def others(self) -> list[InstanceId]:
        """All that are known and not gone."""
        return [watched.instance for watched in self._others.values()]

    def lease_of(self, instance: InstanceId) -> Lease | None:
        """Its lease, as last seen."""
        watched = self._others.get(instance.number)
        return watched.lease if watched is not None and watched.instance == instance else None

    def refused(self, instance: InstanceId, now: float) -> None:
        """Its link port refused a connection, or another instance has it now."""
        watched = self._others.get(instance.number)
        if watched is not None and watched.instance == instance and watched.refused_since is None:
            watched.refused_since = now

    def reached(self, instance: InstanceId) -> None:
        """A link to it opened, or an attempt ended otherwise than in a refusal."""
        watched = self._others.get(instance.number)
        if watched is not None and watched.instance == instance:
            watched.refused_since = None

    def living(self, now: float) -> Iterator[Lease]:
        """The leases of others that are not lost."""
        for watched in self._others.values():
            if watched.lease is not None and not self._is_lost(watched, now):
                yield watched.lease

    def is_living(self, instance: InstanceId, now: float) -> bool:
        """Whether it has a lease that is not lost."""
        watched = self._others.get(instance.number)
        if watched is None or watched.instance != instance or watched.lease is None:
            return False
        return not self._is_lost(watched, now)

    def is_gone(self, instance: InstanceId) -> bool:
        """Whether it was fenced, or has stopped. Who is only unknown is not gone: it may just have started."""
        watched = self._others.get(instance.number)
        if watched is not None and watched.instance.incarnation > instance.incarnation:
            return True
        return instance.incarnation <= self._gone.get(instance.number, -1)

    def to_fence(self, now: float) -> list[InstanceId]:
        """Whom to fence now."""
        can_judge = self.is_reachable(now) and now <= self._valid_until
        return [
            watched.instance
            for watched in self._others.values()
            # By the last answer: it may have renewed since, with nobody looking.
            if (can_judge and self._is_lost(watched, self._answered_at)) or self._is_refused(watched, now)
        ]

    def fenced(self, instance: InstanceId) -> None:
        """It is fenced, or has stopped: nothing more is to be known of it."""
        watched = self._others.get(instance.number)
        if watched is not None and watched.instance == instance:
            del self._others[instance.number]
            self._gone[instance.number] = instance.incarnation
            self.departed(instance)

    def _watched(self, instance: InstanceId, now: float) -> _Watched:
        watched = self._others.get(instance.number)
        if watched is not None and watched.instance.incarnation < instance.incarnation:
            self.fenced(watched.instance)
            watched = None
        if watched is None:
            watched = self._others[instance.number] = _Watched(instance, now)
        return watched

    def _is_lost(self, watched: _Watched, now: float) -> bool:
        return now - max(watched.moved_at, self._watching_since) > self.rules.lease_seconds

    def _is_refused(self, watched: _Watched, now: float) -> bool:
        return watched.refused_since is not None and now - watched.refused_since >= self.rules.refused_seconds

    def _look_at(self, answer: Leases, now: float) -> None:
        for watched in list(self._others.values()):
            found = answer.by_number.get(watched.instance.number)
            if watched.lease_stands and (found is None or found.instance != watched.instance):
                self.fenced(watched.instance)
        for number, lease in answer.by_number.items():
            if number == self.me.number:
                continue
            if self.is_gone(lease.instance):
                continue
            watched = self._watched(lease.instance, now)
            if watched.instance == lease.instance:
                if watched.lease is None or watched.lease.renewals != lease.renewals:
                    watched.moved_at = now
                watched.lease = lease
                watched.lease_stands = True
