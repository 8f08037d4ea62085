"""Time and chance: what is to happen, in order, and one source of every random choice."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from heapq import heappop, heappush
from itertools import count


class World:
    """Nothing happens in it but what `after` was told; two runs of one seed are the same."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.log: list[str] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()

    def after(self, seconds: float, do: Callable[[], None]) -> None:
        heappush(self._events, (self.now + seconds, next(self._order), do))

    def soon(self, do: Callable[[], None], longest: float = 0.02) -> None:
        """After a delay like those of a network, which now and then is ten times as long."""
        seconds = self.random.uniform(0.0005, longest)
        self.after(seconds * (10 if self.random.random() < 0.02 else 1), do)

    def run(self, until: float) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, _, do = heappop(self._events)
            do()
        self.now = until

    def say(self, what: str) -> None:
        self.log.append(f"{self.now:9.3f}  {what}")

    def chance(self, of: float) -> bool:
        return self.random.random() < of


@contextmanager
def told(world: World) -> Iterator[None]:
    """Whatever goes wrong comes with the last of what happened."""
    try:
        yield
    except Exception as exc:
        exc.add_note("\n".join(world.log[-60:]))
        raise
