"""Slows down whoever fails again and again: some attempts are free, then the wait doubles with each.

An attempt counts as a failure from its beginning, and is taken back when it turns out to be none: so a hundred guesses
sent at once are not a hundred free ones. An attempt that comes too soon is refused and not counted, so nobody keeps
another out for longer than `longest_seconds` at a time.

Nothing is written down: a restart forgets it all. Each instance counts for itself.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from qiyu.errors import CallRefused

_DOUBLINGS: Final = 64  # more would overflow a float long after any bound is reached


class TooSoon(CallRefused):
    """Refused with 429; `seconds` is how long to wait, a whole number above 0."""

    def __init__(self, seconds: int) -> None:
        super().__init__(429, f"too many attempts: try again in {seconds} s")
        self.seconds = seconds


@dataclass(frozen=True, slots=True)
class ThrottleRules:
    """How much is free, and how long the waits become. `free_attempts` = 0 means no limit."""

    free_attempts: int
    first_seconds: float = 1
    longest_seconds: float = 900
    forget_seconds: float = 900
    """After the last wait is over, for this long the next failure still counts on."""
    keys: int = 10_000
    """The most that are remembered; beyond it, who failed longest ago is forgotten."""


class _Failures:
    __slots__ = ("count", "last")

    def __init__(self) -> None:
        self.count = 0
        self.last = -math.inf


class Throttle:
    """Who failed how often. `now` is in seconds, on a clock that is never set."""

    def __init__(self, rules: ThrottleRules) -> None:
        self._rules = rules
        self._failures: OrderedDict[str, _Failures] = OrderedDict()  # the one that failed longest ago comes first

    def __repr__(self) -> str:
        return f"<Throttle {len(self)} of {self._rules.keys} keys>"

    def __len__(self) -> int:
        """How many keys are remembered."""
        return len(self._failures)

    def begin(self, key: str, now: float) -> None:
        """Count an attempt; raises `TooSoon`, and does not count it, where it has to wait."""
        if not self._rules.free_attempts:
            return
        failures = self._failures.get(key)
        if failures is None:
            failures = self._failures[key] = _Failures()
            if len(self._failures) > self._rules.keys:
                self._failures.popitem(last=False)
        until = failures.last + self._wait_after(failures.count)
        if now < until:
            raise TooSoon(math.ceil(until - now))
        if now >= until + self._rules.forget_seconds:
            failures.count = 0
        failures.count += 1
        failures.last = now
        self._failures.move_to_end(key)

    def take_back(self, key: str) -> None:
        """An attempt that had begun was no failure."""
        failures = self._failures.get(key)
        if failures is not None:
            failures.count -= 1
            if failures.count <= 0:
                del self._failures[key]

    def reset(self, key: str) -> None:
        """Forget every failure of `key`."""
        self._failures.pop(key, None)

    def _wait_after(self, count: int) -> float:
        rules = self._rules
        if count < rules.free_attempts:
            return 0.0
        doublings = min(count - rules.free_attempts, _DOUBLINGS)
        return min(rules.longest_seconds, rules.first_seconds * 2.0**doublings)
