"""TLS handshakes under way: how many there may be, how long each may take, and how many steps one turn does.

A step of a handshake costs a hundred messages. So only so many are done in one turn of the poller; the bytes of the
others stay in the kernel until the next, and everybody else has a turn in between.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from qiyu.metrics import Metrics

if TYPE_CHECKING:
    from qiyu.drivers.tls_connection import TlsConnection

STEPS_A_TURN: Final = 10


@dataclass(slots=True)
class HandshakeRules:
    """They may change while the server runs. 0 means no limit to how many."""

    handshakes: int = 1000
    seconds: float = 10.0


class Handshakes:
    """Those of one poller."""

    def __init__(self, rules: HandshakeRules, metrics: Metrics) -> None:
        self.rules = rules
        self._metrics = metrics
        self._begun: dict[TlsConnection, float] = {}  # the oldest first
        self._turn = -1
        self._steps = 0

    def __repr__(self) -> str:
        return f"<Handshakes {len(self)}>"

    def __len__(self) -> int:
        return len(self._begun)

    @property
    def has_room(self) -> bool:
        """Whether one more may begin."""
        return not self.rules.handshakes or len(self) < self.rules.handshakes

    def begin(self, connection: TlsConnection, now: float) -> None:
        """A connection was accepted that is to begin with one."""
        self._begun[connection] = now

    def may_step(self) -> bool:
        """Whether there is time in this turn for one step more, which is counted."""
        if self._turn != self._metrics.turns:
            self._turn, self._steps = self._metrics.turns, 0
        self._steps += 1
        return self._steps <= STEPS_A_TURN

    def done(self, connection: TlsConnection) -> None:
        """It has come to its end."""
        if self._begun.pop(connection, None) is not None:
            self._metrics.tls_handshakes += 1

    def failed(self, connection: TlsConnection) -> None:
        """The peer does not speak TLS as it should, or has gone."""
        if self._begun.pop(connection, None) is not None:
            self._metrics.tls_handshakes_failed += 1

    def late(self, now: float) -> Iterator[TlsConnection]:
        """Those whose time is up, each once."""
        while self._begun:
            connection, begun = next(iter(self._begun.items()))
            if begun + self.rules.seconds > now:
                return
            self.failed(connection)
            yield connection
