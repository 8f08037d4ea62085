"""What is asked of presence, and what it answers.

Presence is a memory that may be lost: leases, by which instances see that others are alive, and pins, by which a user
is found. No promise hangs on it (the database decides), so everything in it can be written again by whoever it is
about.

Requests are plain values. Whoever has some gathers them and has them executed together: on Redis that is one round
trip, however many there are. Every request may be executed twice without harm, since after a lost connection nobody
knows whether it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol, TypeAlias

import msgspec

from qiyu.errors import PresenceUnavailable
from qiyu.model import InstanceId

MAX_INSTANCES: Final = 1024


class User(NamedTuple):
    """A user of an app."""

    app_id: int
    user_id: int


class Pin(NamedTuple):
    """Where a user is: the instance, which of its sessions, and since when (milliseconds since 1970)."""

    instance: InstanceId
    session: int
    login_ms: int

    def is_of(self, other: Pin) -> bool:
        """Whether both are of one session."""
        return self.instance == other.instance and self.session == other.session

    def is_newer_than(self, other: Pin) -> bool:
        """Of two logins exactly one is the newer, for everybody who compares them."""
        return (self.login_ms, self.instance, self.session) > (other.login_ms, other.instance, other.session)


class Lease(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """What an instance says of itself, again and again. Releases may differ: unknown fields are skipped."""

    number: int
    incarnation: int
    renewals: int = 0
    """Goes up with each renewal: who sees it stand still sees an instance that does not renew its lease."""
    link_address: str = ""
    """host:port at which other instances reach it."""
    tcp_address: str = ""
    """host:port that clients are told; empty = the host they asked, and tcp_port."""
    tcp_port: int = 0
    ws_address: str = ""
    ws_port: int = 0
    ws_url: str = ""
    connections: int = 0
    rooms: int = 0
    """At home there."""
    version: str = ""
    is_draining: bool = False
    links: int = 0
    """To other instances."""

    @property
    def instance(self) -> InstanceId:
        return InstanceId(self.number, self.incarnation)


# Requests, each with its answer


@dataclass(frozen=True, slots=True)
class PinUser:
    """Pin a user. A fresh login takes the place of any other; later, only that of an older one.

    Later is: written again because presence was emptied, or because nobody knows whether it was written.
    """

    user: User
    pin: Pin
    is_fresh: bool


class Pinned(NamedTuple):
    """The answer to `PinUser`.

    `pin` is the one that stands now: the one asked for, with a later time where the clock of an older login ran ahead;
    or, with `is_mine` false, that of a newer login. `stood` is another's that stood before, if one did.
    """

    pin: Pin
    stood: Pin | None
    is_mine: bool


@dataclass(frozen=True, slots=True)
class Unpin:
    """Take the pin of a user away, if it is still this session's. The answer: whether it was."""

    user: User
    pin: Pin


@dataclass(frozen=True, slots=True)
class FindPins:
    """Where these users are. The answer: a list of a pin or None for each."""

    users: tuple[User, ...]


@dataclass(frozen=True, slots=True)
class RenewLease:
    """Write one's lease, unless a later incarnation of its number has written one. The answer: `Leases`."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class ListLeases:
    """See all leases. The answer: `Leases`."""


@dataclass(frozen=True, slots=True)
class DropLease:
    """Take a lease away, if it is still that of this incarnation. The answer: whether it was."""

    instance: InstanceId


class Leases(NamedTuple):
    """The answer to `RenewLease` and `ListLeases`."""

    epoch: str
    """Another one after a restart or a loss of what was kept: what is not there then may only be forgotten."""
    by_number: dict[int, Lease]
    ages_ms: dict[int, int]
    """Since each was written, by the clock of presence: for people to read, and not to judge by."""
    is_mine: bool
    """Whether the lease was written."""


Request: TypeAlias = PinUser | Unpin | FindPins | RenewLease | ListLeases | DropLease
Answer: TypeAlias = Pinned | bool | list[Pin | None] | Leases


class Presence(Protocol):
    """Executes requests: memory.py within one process, redis.py between several."""

    def execute(self, requests: Sequence[Request], /) -> list[Answer | PresenceUnavailable]:
        """The answers, in the order of the requests; an error in the place of what could not be answered.

        It may block for as long as its implementation says. One call at a time.
        """
        ...

    def close(self) -> None:
        """End connections. A later `execute` connects again."""
        ...
