"""Slows down whoever fails again and again: some failures are free, then the wait doubles with each.

Attempts under way are bounded too, and become one when the free failures are spent: so a hundred guesses sent at once
are not a hundred free ones. What comes too soon is refused and not counted, so that nobody keeps another out for longer
than `longest_seconds` at a time.

Nothing is written down: a restart forgets it all. Each instance counts for itself.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
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
    """How much is free, and how long the waits become. `free_failures` = 0 means no limit."""

    free_failures: int
    at_once: int = 8
    """Attempts under way for one key, as long as its failures are free."""
    first_seconds: float = 1
    longest_seconds: float = 900
    forget_seconds: float = 900
    """After the last wait is over, for this long the next failure still counts on."""
    keys: int = 10_000
    """The most that are remembered; beyond it, whoever was heard of longest ago is forgotten."""


class KnownAddresses:
    """From where somebody has given the right password for a name; the latest are remembered."""

    def __init__(self, most: int = 10_000) -> None:
        self._most = most
        self._known: OrderedDict[str, None] = OrderedDict()  # whoever was right longest ago comes first

    def __repr__(self) -> str:
        return f"<KnownAddresses {len(self._known)} of {self._most}>"

    def __contains__(self, key: object) -> bool:
        """Whether the right password came from there."""
        return key in self._known

    def add(self, key: str) -> None:
        """The right password came from there just now."""
        self._known[key] = None
        self._known.move_to_end(key)
        if len(self._known) > self._most:
            self._known.popitem(last=False)


class Outcome(Enum):
    """What became of an attempt."""

    FAILED = auto()
    SUCCEEDED = auto()  # the key's failures are forgotten
    UNDECIDED = auto()  # nothing was learnt, so nothing counts


class Attempt:
    """An attempt under way: a failure, unless something better becomes of it."""

    __slots__ = ("outcome",)

    def __init__(self) -> None:
        self.outcome = Outcome.FAILED


class _Record:
    __slots__ = ("failures", "last", "under_way")

    def __init__(self) -> None:
        self.failures = 0
        self.last = -math.inf
        self.under_way = 0


class Throttle:
    """Who failed how often. `now` is in seconds, on a clock that is never set."""

    def __init__(self, rules: ThrottleRules) -> None:
        self._rules = rules
        self._records: OrderedDict[str, _Record] = OrderedDict()  # whoever was heard of longest ago comes first

    def __repr__(self) -> str:
        return f"<Throttle {len(self)} of {self._rules.keys} keys>"

    def __len__(self) -> int:
        """How many keys are remembered."""
        return len(self._records)

    @contextmanager
    def attempt(self, key: str, now: float) -> Iterator[Attempt]:
        """Around an attempt. Raises `TooSoon` where it has to wait; one that is raised inside decides nothing."""
        attempt = Attempt()
        if not self._rules.free_failures:
            yield attempt
            return
        record = self._records.get(key) or _Record()
        self._check(record, now)
        record.under_way += 1
        self._keep(key, record)
        try:
            yield attempt
        except TooSoon:
            attempt.outcome = Outcome.UNDECIDED
            raise
        finally:
            record.under_way -= 1
            self._note(record, attempt.outcome, now)
            self._keep(key, record)

    def _check(self, record: _Record, now: float) -> None:
        until = record.last + self._wait_after(record.failures)
        if now < until:
            raise TooSoon(math.ceil(until - now))
        if now >= until + self._rules.forget_seconds:
            record.failures = 0
        if record.under_way >= (self._rules.at_once if record.failures < self._rules.free_failures else 1):
            raise TooSoon(1)

    def _note(self, record: _Record, outcome: Outcome, now: float) -> None:
        if outcome is Outcome.FAILED:
            record.failures += 1
            record.last = max(record.last, now)
        elif outcome is Outcome.SUCCEEDED:
            record.failures = 0

    def _keep(self, key: str, record: _Record) -> None:
        self._records.pop(key, None)
        if record.failures or record.under_way:
            self._records[key] = record
        if len(self._records) > self._rules.keys:
            self._records.popitem(last=False)

    def _wait_after(self, failures: int) -> float:
        rules = self._rules
        if failures < rules.free_failures:
            return 0.0
        doublings = min(failures - rules.free_failures, _DOUBLINGS)
        return min(rules.longest_seconds, rules.first_seconds * 2.0**doublings)
