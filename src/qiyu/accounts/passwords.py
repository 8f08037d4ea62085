"""Passwords: hashed with Argon2id, in threads, and never too many at once.

A hash takes 19 MiB and about 20 ms of one node by intention, so the threads must be few (whoever builds this says how
many), and the queue for them must be short: a flood of logins is turned away, and the messages flow on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple, Protocol, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from qiyu.errors import CallRefused

T = TypeVar("T")

MAX_WAITING: Final = 64
"""Hashes that may wait or be made at once: about a second's work for two threads."""

# OWASP, Password Storage Cheat Sheet: Argon2id with 19 MiB, two passes, one lane.
TIME_COST: Final = 2
MEMORY_KIB: Final = 19_456
LANES: Final = 1


def default_hasher() -> PasswordHasher:
    """Argon2id as OWASP recommends it for a server that has other things to do."""
    return PasswordHasher(time_cost=TIME_COST, memory_cost=MEMORY_KIB, parallelism=LANES)


class RunInThread(Protocol):
    """Runs `work` in a thread, and no more of them at once than memory and cores allow."""

    def __call__(self, work: Callable[[], T], /) -> Awaitable[T]:
        """The result of `work`, to be awaited."""


class Verdict(NamedTuple):
    """Whether a password is right and, if it should be stored anew, its hash by today's parameters."""

    right: bool
    new_hash: str = ""


class Passwords:
    """Makes and checks hashes."""

    def __init__(
        self, run_in_thread: RunInThread, hasher: PasswordHasher | None = None, max_waiting: int = MAX_WAITING
    ) -> None:
        self._run_in_thread = run_in_thread
        self._hasher = hasher or default_hasher()
        self._max_waiting = max_waiting
        self._waiting = 0
        self._nobodys = self._hasher.hash("nobody has this password")

    async def hash(self, password: str) -> str:
        """What to store of a password. Raises `CallRefused` 503 when there is too much to do."""
        return await self._run(lambda: self._hasher.hash(password))

    async def verify(self, password_hash: str | None, password: str) -> Verdict:
        """Whether `password` made `password_hash`; None, for a user who is not there, takes as long as one who is.

        Raises `CallRefused` 503 when there is too much to do.
        """
        return await self._run(lambda: self._verify(password_hash, password))

    def _verify(self, password_hash: str | None, password: str) -> Verdict:
        try:
            self._hasher.verify(password_hash or self._nobodys, password)
        except (VerificationError, InvalidHashError):
            return Verdict(right=False)
        if not password_hash:
            return Verdict(right=False)
        if self._hasher.check_needs_rehash(password_hash):
            return Verdict(right=True, new_hash=self._hasher.hash(password))
        return Verdict(right=True)

    async def _run(self, work: Callable[[], T]) -> T:
        if self._waiting >= self._max_waiting:
            raise CallRefused(503, "too many people are logging in: try again in a few seconds")
        self._waiting += 1
        try:
            return await self._run_in_thread(work)
        finally:
            self._waiting -= 1
