"""How much a connection, an address and a room may do in a second.

Each is a leaky bucket, kept as one number: the moment at which all that was done is paid for (the generic cell rate
algorithm of ITU-T I.371). What would be paid for later than the burst allows is over the limit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from qiyu.errors import ErrorCode, Refused
from qiyu.metrics import Metrics
from qiyu.model import Address, Instant, Network, is_within, network_of
from qiyu.routing.endpoint import Endpoint
from qiyu.routing.session import Room, Session

ADDRESSES: Final = 100_000
"""The most that are remembered; beyond it, whoever came first is forgotten."""
UNKNOWN_ACKS_A_PACKET: Final = 16
"""So many ACKs of what a connection is not owed count as a packet: some come too late without any fault of a client."""
SWEPT_SECONDS: Final = 1.0
_ROUNDING_SECONDS: Final = 1e-6


@dataclass(slots=True)
class Rates:
    """Plain numbers, 0 for no limit; others may be set while the server runs."""

    messages_per_second: int = 0
    messages_burst: int = 0
    packets_per_second: int = 0
    packets_burst: int = 0
    room_messages_per_second: int = 0
    logins_per_second: int = 0


def spend(due: float, now: float, count: float, rate: float, burst: float) -> tuple[float, float]:
    """`count` more at `rate` a second: when all of it is paid for, and how many seconds that is beyond the burst.

    Not above 0 is within the limit.
    """
    due = max(due, now) + count / rate
    return due, due - now - max(burst, 1) / rate - _ROUNDING_SECONDS


class Limits:
    """Keeps to the rates. From `proxies` come many clients: nothing is counted to their addresses."""

    def __init__(self, rates: Rates, metrics: Metrics, proxies: tuple[Network, ...] = ()) -> None:
        self.rates = rates
        self._metrics = metrics
        self.proxies = proxies
        self._logins: dict[Address, float] = {}
        self._swept = 0.0  # when it was last: an end has no time of its own

    def __repr__(self) -> str:
        return f"<Limits {self.rates} addresses={len(self._logins)}>"

    def check_message(self, session: Session, now: Instant) -> None:
        """One more message of this connection. Raises `Refused` (429); such a message does not count."""
        rate, burst = self.rates.messages_per_second, self.rates.messages_burst
        if not rate:
            return
        due, over = spend(session.messages_due, now.monotonic, 1, rate, burst)
        if over > 0:
            self._metrics.messages_too_fast += 1
            reason = f"too many messages: expected {rate} a second at most, and {max(burst, 1)} at once"
            raise Refused(ErrorCode.TOO_FAST, reason)
        session.messages_due = due

    def why_not_in_room(self, room: Room, now: Instant) -> Refused | None:
        """Why one more message may not be said in this room now; it counts if it may."""
        rate = self.rates.room_messages_per_second
        if not rate:
            return None
        due, over = spend(room.messages_due, now.monotonic, 1, rate, rate)
        if over > 0:
            self._metrics.room_messages_too_fast += 1
            return Refused(ErrorCode.TOO_FAST, f"too many messages in room {room.id}: expected {rate} a second at most")
        room.messages_due = due
        return None

    def pace(self, endpoint: Endpoint, count: int, now: Instant) -> None:
        """So many packets of this connection were handled: it is read no further before they are paid for."""
        rate, burst = self.rates.packets_per_second, self.rates.packets_burst
        if not rate:
            return
        endpoint.packets_due, over = spend(endpoint.packets_due, now.monotonic, count, rate, burst)
        if over <= 0 or endpoint.ended:
            return
        endpoint.read_from = now.monotonic + over
        self._metrics.reads_paced += 1
        if endpoint.told_pace + 1 <= now.monotonic:
            endpoint.told_pace = now.monotonic
            self._metrics.packets_too_fast += 1
            reason = f"too many packets: {rate} a second are read, and {max(burst, 1)} at once; the others wait"
            endpoint.send_error(Refused(ErrorCode.TOO_FAST, reason))

    def takes_login(self, address: Address, now: Instant) -> bool:
        """Whether one more login may be tried from this address; of IPv6, the network counts."""
        rate = self.rates.logins_per_second
        if not rate or self._is_exempt(address):
            return True
        key = network_of(address)
        due, over = spend(self._logins.get(key, 0.0), now.monotonic, 1, rate, rate)
        if over > 0:
            self._metrics.logins_too_fast += 1
            return False
        self._remember(key, due)
        return True

    def came_to_nothing(self, address: Address) -> None:
        """A connection from there has ended without a login: it counts as one, or garbage would be free."""
        rate = self.rates.logins_per_second
        if not rate or self._is_exempt(address):
            return
        key = network_of(address)
        most = self._swept + (rate + 1) / rate + SWEPT_SECONDS  # not for long: an address may have many users
        due = self._logins.get(key, 0.0)
        self._remember(key, max(due, min(max(due, self._swept) + 1 / rate, most)))

    def is_spent(self, address: Address, now: Instant) -> bool:
        """Whether this address may have no connection just now, for so much came to nothing."""
        rate = self.rates.logins_per_second
        if not rate or not self._logins:
            return False
        return self._logins.get(network_of(address), 0.0) - now.monotonic > 1 + 1 / rate

    def _is_exempt(self, address: Address) -> bool:
        return not address or (bool(self.proxies) and is_within(address, self.proxies))

    def _remember(self, key: Address, due: float) -> None:
        if key not in self._logins and len(self._logins) >= ADDRESSES:
            del self._logins[next(iter(self._logins))]
        self._logins[key] = due

    def sweep(self, now: Instant) -> None:
        """About once a second: forget addresses whose logins are paid for."""
        self._swept = now.monotonic
        paid = [key for key, due in self._logins.items() if due <= now.monotonic]
        for key in paid:
            del self._logins[key]
