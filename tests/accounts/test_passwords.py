from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Literal, TypeVar

import pytest
import trio
import trio.testing
from argon2 import PasswordHasher
from argon2.profiles import CHEAPEST

from qiyu.accounts.passwords import Passwords, Verdict, default_hasher
from qiyu.errors import CallRefused

T = TypeVar("T")

CHEAP = PasswordHasher.from_parameters(CHEAPEST)


async def at_once(work: Callable[[], T]) -> T:
    """Runs it in no thread at all."""
    await trio.lowlevel.checkpoint()
    return work()


async def test_a_password_is_right_or_wrong() -> None:
    passwords = Passwords(at_once, CHEAP)
    stored = await passwords.hash("the right one")
    assert "the right one" not in stored
    assert await passwords.verify(stored, "the right one") == Verdict(right=True)
    assert await passwords.verify(stored, "a wrong one") == Verdict(right=False)


@pytest.mark.parametrize("stored", [None, "", "no hash", "$argon2id$v=19$m=8,t=1,p=1$AAAA$AAAA"])
async def test_nobody_and_a_broken_hash_have_no_password(stored: str | None) -> None:
    passwords = Passwords(at_once, CHEAP)
    assert not (await passwords.verify(stored, "nobody has this password")).right


class CountingHasher(PasswordHasher):
    """Counts the hashes it makes and checks."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=8, parallelism=1)
        self.checked: list[str] = []

    def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:  # noqa: A002
        self.checked.append(str(hash))
        return super().verify(hash, password)


async def test_nobody_takes_as_much_work_as_somebody() -> None:
    hasher = CountingHasher()
    passwords = Passwords(at_once, hasher)
    await passwords.verify(None, "anything")
    [checked] = hasher.checked
    assert not hasher.check_needs_rehash(checked), "the stand-in has the parameters of real ones"


async def test_a_hash_by_older_parameters_is_made_anew() -> None:
    today = PasswordHasher(time_cost=2, memory_cost=8, parallelism=1)
    stored = CHEAP.hash("the right one")
    verdict = await Passwords(at_once, today).verify(stored, "the right one")
    assert verdict.right
    assert not today.check_needs_rehash(verdict.new_hash)
    assert today.verify(verdict.new_hash, "the right one")
    assert await Passwords(at_once, today).verify(stored, "a wrong one") == Verdict(right=False)


async def test_hashes_are_made_in_threads_and_no_more_at_once_than_allowed() -> None:
    running, most, lock = 0, 0, threading.Lock()
    threads = set()

    class Watched(PasswordHasher):
        def hash(self, password: str | bytes, *, salt: bytes | None = None) -> str:
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
                threads.add(threading.current_thread())
            made = super().hash(password, salt=salt)
            with lock:
                running -= 1
            return made

    hasher = Watched(time_cost=1, memory_cost=512, parallelism=1)
    passwords = Passwords(partial(trio.to_thread.run_sync, limiter=trio.CapacityLimiter(2)), hasher)
    threads.clear()
    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(passwords.hash, "a password")
    assert most <= 2
    assert threading.current_thread() not in threads


async def test_a_flood_is_turned_away() -> None:
    go_on = trio.Event()

    async def slowly(work: Callable[[], T]) -> T:
        await go_on.wait()
        return work()

    passwords = Passwords(slowly, CHEAP, max_waiting=3)
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(passwords.hash, "a password")
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(CallRefused) as caught:
            await passwords.hash("a password")
        assert caught.value.code == 503
        go_on.set()
    await passwords.hash("a password")


def test_the_usual_parameters_are_those_that_owasp_recommends() -> None:
    assert default_hasher().hash("x").startswith("$argon2id$v=19$m=19456,t=2,p=1$")
