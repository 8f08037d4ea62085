"""Presence in the memory of one process: what a simulated cluster shares, and the rules in their plainest form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count

import msgspec

from qiyu.errors import PresenceUnavailable
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
    RenewLease,
    Request,
    Unpin,
    User,
)


def _stands_still() -> int:
    return 0


class MemoryPresence:
    """Never blocks, and is unavailable only while `failure` says so. `clock_ms` gives the ages of leases."""

    def __init__(self, clock_ms: Callable[[], int] = _stands_still) -> None:
        self.failure: PresenceUnavailable | None = None
        self._clock_ms = clock_ms
        self._lives = count(1)
        self.empty()

    def __repr__(self) -> str:
        return f"<MemoryPresence leases={len(self._leases)} pins={len(self._pins)}>"

    def empty(self) -> None:
        """Forget everything, as a Redis does that is restarted."""
        self._epoch = str(next(self._lives))
        self._leases: dict[int, tuple[Lease, int]] = {}
        self._pins: dict[User, Pin] = {}

    def execute(self, requests: Sequence[Request], /) -> list[Answer | PresenceUnavailable]:
        """See `Presence.execute`."""
        return [self.failure or self._answer(request) for request in requests]

    def close(self) -> None:
        """See `Presence.close`."""

    def _answer(self, request: Request) -> Answer:  # noqa: PLR0911  # a table
        match request:
            case PinUser():
                return self._pin(request)
            case Unpin(user, pin):
                stands = self._pins.get(user)
                if stands is None or not stands.is_of(pin):
                    return False
                del self._pins[user]
                return True
            case FindPins(users):
                return [self._pins.get(user) for user in users]
            case RenewLease(lease):
                return self._renew(lease)
            case ListLeases():
                return self._all_leases(is_mine=False)
            case DropLease(instance):
                held = self._leases.get(instance.number)
                if held is None or held[0].instance != instance:
                    return False
                del self._leases[instance.number]
                return True

    def _pin(self, request: PinUser) -> Pinned:
        user, pin = request.user, request.pin
        stood = self._pins.get(user)
        if stood is None:
            self._pins[user] = pin
        elif stood.is_of(pin):
            return Pinned(stood, None, is_mine=True)
        elif request.is_fresh:
            self._pins[user] = pin._replace(login_ms=max(pin.login_ms, stood.login_ms + 1))
        elif pin.is_newer_than(stood):
            self._pins[user] = pin
        else:
            return Pinned(stood, None, is_mine=False)
        return Pinned(self._pins[user], stood, is_mine=True)

    def _renew(self, lease: Lease) -> Leases:
        held = self._leases.get(lease.number)
        is_mine = held is None or held[0].incarnation <= lease.incarnation
        if is_mine:
            # Through bytes, as on Redis: nothing that a wire would not carry gets from one to another.
            copied = msgspec.json.decode(msgspec.json.encode(lease), type=Lease)
            self._leases[lease.number] = (copied, self._clock_ms())
        return self._all_leases(is_mine=is_mine)

    def _all_leases(self, *, is_mine: bool) -> Leases:
        now = self._clock_ms()
        return Leases(
            self._epoch,
            {number: lease for number, (lease, _) in self._leases.items()},
            {number: max(now - written, 0) for number, (_, written) in self._leases.items()},
            is_mine,
        )
