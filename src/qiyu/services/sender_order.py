"""The order of one sender whose messages go to different places: the queue here, or one home or another elsewhere.

Each place keeps the order of what it is given. Between two places nothing does; so a message for another place waits
until those before it have been answered. Who talks in one room, as nearly everybody does, never waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Final

HERE: Final = None
"""The queue of this instance."""


@dataclass(eq=False, slots=True)
class SenderOrder:
    """Of one session. Bounded by whoever submits: see `waiting`."""

    _place: Hashable = HERE
    _unanswered: int = 0
    _held: deque[tuple[Hashable, Callable[[], bool]]] = field(default_factory=deque)
    _is_running: bool = False

    @classmethod
    def behind(cls, unanswered: int) -> SenderOrder:
        """Of a session that has so many unanswered messages here, for each of which `answered` will be called."""
        return cls(HERE, unanswered)

    def __repr__(self) -> str:
        return f"<SenderOrder unanswered={self._unanswered} at {self._place} held={len(self._held)}>"

    @property
    def waiting(self) -> int:
        """Messages that have no answer, and those behind them."""
        return self._unanswered + len(self._held)

    def submit(self, place: Hashable, start: Callable[[], bool]) -> None:
        """Start a message when it is its turn. `start` returns whether `answered` will be called for it, perhaps before
        it returns; it answers its sender itself where it fails, and does not raise."""
        self._held.append((place, start))
        self._run()

    def answered(self) -> None:
        """One that was started has been receipted or refused."""
        self._unanswered -= 1
        self._run()

    def _run(self) -> None:
        if self._is_running:
            return
        self._is_running = True
        try:
            while self._held and (not self._unanswered or self._held[0][0] == self._place):
                self._place, start = self._held.popleft()
                self._unanswered += 1
                is_unanswered = False
                try:
                    is_unanswered = start()
                finally:
                    self._unanswered -= not is_unanswered
        finally:
            self._is_running = False
