"""What this instance has to ask of presence, in order, each with what to do with the answer.

A driver takes what has gathered, has it executed together, and hands the answers back: one round trip at a time, with
whatever came meanwhile in the next. Bounded: what goes over it is answered as if presence did not answer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias

from qiyu.errors import PresenceUnavailable
from qiyu.metrics import Metrics
from qiyu.presence.presence import Answer, Request

BATCH_REQUESTS: Final = 1_000
WAITING_REQUESTS: Final = 200_000
"""Twice the connections that one instance is meant for: each of them may log in or out."""

Outcome: TypeAlias = Answer | PresenceUnavailable
Then: TypeAlias = Callable[[Outcome], None]


class Asked(NamedTuple):
    """A request, and what to do then."""

    request: Request
    then: Then


@dataclass(slots=True)
class PresenceQueue:
    """First in, first out."""

    metrics: Metrics
    max_waiting: int = WAITING_REQUESTS
    wake: Callable[[], None] = lambda: None
    """Called when `take` has something to give."""
    _waiting: deque[Asked] = field(default_factory=deque)

    def __repr__(self) -> str:
        return f"<PresenceQueue waiting={len(self._waiting)}>"

    def __len__(self) -> int:
        """Requests that wait to be asked."""
        return len(self._waiting)

    def ask(self, request: Request, then: Then) -> None:
        """Ask when it is this request's turn. `then` is called at once only where too many wait."""
        if len(self._waiting) >= self.max_waiting:
            self.metrics.presence_requests_dropped += 1
            then(PresenceUnavailable(f"{self.max_waiting} requests wait for presence already"))
            return
        self._waiting.append(Asked(request, then))
        self.wake()

    def take(self) -> list[Asked]:
        """The oldest requests. To be handed to `answered`, whatever became of them."""
        return [self._waiting.popleft() for _ in range(min(len(self._waiting), BATCH_REQUESTS))]

    def answered(self, asked: Sequence[Asked], outcomes: Sequence[Outcome]) -> None:
        """Presence has answered, or has not."""
        self.metrics.presence_round_trips += 1
        for one, outcome in zip(asked, outcomes, strict=True):
            if isinstance(outcome, PresenceUnavailable):
                self.metrics.presence_requests_failed += 1
            one.then(outcome)
