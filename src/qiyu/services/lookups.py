"""Look-ups: sessions that wait for what only the database knows, by what they ask for.

Many may ask for the same; the driver takes them together, and makes one query for all (drivers/living.py,
drivers/message_reader.py).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeAlias, TypeVar

from qiyu.routing.endpoint import Endpoint

WAITING_SESSIONS: Final = 10_000
"""The most sessions that wait for one kind of answer; further ones are told to try again."""

K = TypeVar("K", bound=Hashable)
A = TypeVar("A")

Entries: TypeAlias = list[tuple[Endpoint, A]]
"""Who waits, in the order they came, and what is to be called for each once the answer is there."""


class LookUps(Generic[K, A]):
    """What is to be looked up: a `K` each, and of type `A` what is to be called with the answer."""

    def __init__(self) -> None:
        self._waiting: dict[K, Entries[A]] = {}
        self._sessions = 0
        self.wake: Callable[[], None] = lambda: None
        """Called when there is something more to look up."""

    def __repr__(self) -> str:
        return f"<LookUps of {len(self._waiting)} for {self._sessions} sessions>"

    def __len__(self) -> int:
        """Sessions that wait."""
        return self._sessions

    def __contains__(self, key: K) -> bool:
        """Whether anybody waits for this."""
        return key in self._waiting

    def add(self, key: K, session: Endpoint, then: A) -> bool:
        """Have `then` called for the session once `key` has been looked up; False if too many wait."""
        if self._sessions >= WAITING_SESSIONS:
            return False
        self._waiting.setdefault(key, []).append((session, then))
        self._sessions += 1
        self.wake()
        return True

    def take(self, key: K) -> Entries[A]:
        """Who waits for this; they are not given again."""
        entries = self._waiting.pop(key, [])
        self._sessions -= len(entries)
        return entries

    def take_all(self) -> dict[K, Entries[A]]:
        """Who waits, for what; they are not given again."""
        taken, self._waiting = self._waiting, {}
        self._sessions = 0
        return taken
