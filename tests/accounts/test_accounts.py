from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trio
from argon2 import PasswordHasher
from argon2.profiles import CHEAPEST
from sqlalchemy import select

from qiyu.accounts.accounts import DAY_MS, AccountRules, Accounts
from qiyu.accounts.passwords import Passwords, Verdict
from qiyu.errors import CallRefused, DatabaseUnavailable
from qiyu.model import Instant
from qiyu.storage import users
from qiyu.storage.database import Database, database_url
from qiyu.storage.migrate import upgrade
from qiyu.storage.tables import t_user_session
from qiyu.storage.users import VIP

T = TypeVar("T")

PASSWORD = "correct horse"
HERE = "192.0.2.1"
START = Instant(1000.0, 1_700_000_000_000)


def later(seconds: float) -> Instant:
    return Instant(START.monotonic + seconds, START.unix_ms + int(seconds * 1000))


async def at_once(work: Callable[[], T]) -> T:
    await trio.lowlevel.checkpoint()
    return work()


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with Database.open(database_url("", tmp_path)) as database:
        await upgrade(database)
        yield database


@pytest.fixture
def accounts(database: Database) -> Accounts:
    return make_accounts(database)


def make_accounts(database: Database, **rules: int) -> Accounts:
    return Accounts(database, Passwords(at_once, PasswordHasher.from_parameters(CHEAPEST)), AccountRules(**rules))


async def register(accounts: Accounts, name: str = "ann", **fields: Any) -> tuple[int, str]:
    profile = {"password": PASSWORD, "nick_name": "", "avatar": "", "address": HERE, "now": START} | fields
    return await accounts.register(name, **profile)


async def refusal(call: Any) -> CallRefused:
    with pytest.raises(CallRefused) as caught:
        await call
    return caught.value


async def test_who_registers_is_logged_in(accounts: Accounts) -> None:
    user_id, token = await register(accounts, avatar="/ann.png")
    user = await accounts.user_of(token, START)
    assert user is not None
    assert (user.id, user.name, user.nick_name, user.avatar, user.tags) == (
        user_id,
        "ann",
        "ann",
        "/ann.png",
        frozenset(),
    )
    assert user_id >= 10_000


async def test_a_name_belongs_to_one_account_whatever_its_case_and_width(accounts: Accounts) -> None:
    await register(accounts, "Ann")
    for name in ("Ann", "ANN", " ann ", "Ａｎｎ"):
        error = await refusal(register(accounts, name))
        assert (error.code, "taken" in error.reason) == (501, True)


async def test_everything_that_is_wrong_is_named_and_no_password_is(accounts: Accounts) -> None:
    error = await refusal(register(accounts, "a", password="p4ss", nick_name="n" * 36, avatar="javascript:x"))
    assert error.code == 400
    assert [part.split(":")[0] for part in error.reason.split("; ")] == ["name", "password", "nickName", "avatar"]
    assert "p4ss" not in error.reason


async def test_logging_in_opens_another_session(accounts: Accounts) -> None:
    user_id, first = await register(accounts, "Ann")
    login = await accounts.log_in(" ANN", PASSWORD, address=HERE, now=START)
    assert login.user_id == user_id
    assert login.token != first
    assert await accounts.user_of(first, START) == await accounts.user_of(login.token, START)


async def test_a_password_is_the_same_however_it_is_typed(accounts: Accounts) -> None:
    await register(accounts, password="cafe\u0301 noir")
    await accounts.log_in("ann", "caf\u00e9 noir", address=HERE, now=START)


@pytest.mark.parametrize(
    ("name", "password"), [("ann", "wrong horse"), ("bob", PASSWORD), ("ann", ""), ("", ""), ("\ud800", "\ud800")]
)
async def test_what_is_wrong_with_a_login_is_not_told(accounts: Accounts, name: str, password: str) -> None:
    await register(accounts)
    error = await refusal(accounts.log_in(name, password, address=HERE, now=START))
    assert (error.code, error.reason) == (401, "the name or the password is wrong")


async def test_the_sessions_value_is_not_stored(accounts: Accounts, database: Database) -> None:
    _, token = await register(accounts)
    user = await accounts.user_of(token, START)
    assert user is not None
    assert PASSWORD not in user.password_hash
    [[stored]] = await database.run(lambda c: c.execute(select(t_user_session.c.token_hash)).all())
    assert stored == hashlib.sha256(token.encode()).digest()


async def test_a_session_ends_by_logging_out_and_with_time(database: Database) -> None:
    accounts = make_accounts(database, session_days=2)
    _, first = await register(accounts)
    _, second = await accounts.log_in("ann", PASSWORD, address=HERE, now=START)
    await accounts.log_out(first, START)
    await accounts.log_out(first, START)
    assert await accounts.user_of(first, START) is None
    assert await accounts.user_of(second, later(2 * DAY_MS / 1000 - 1)) is not None
    assert await accounts.user_of(second, later(2 * DAY_MS / 1000)) is None


@pytest.mark.parametrize("token", ["", "x", "x" * 43, "x" * 100_000, "ä" * 43, "\ud800" * 43, "\0" * 43])
async def test_what_is_no_session_is_nobodys(accounts: Accounts, token: str) -> None:
    assert await accounts.user_of(token, START) is None
    await accounts.log_out(token, START)


async def test_who_has_no_session_logs_out_without_a_write(accounts: Accounts, database: Database) -> None:
    _, token = await register(accounts)
    await accounts.log_out(token, START)
    written: list[object] = []

    async def run(*work: object) -> None:
        await trio.lowlevel.checkpoint()
        written.append(work)

    database.run = run  # type: ignore[method-assign, assignment]
    for invented in ("x" * 43, token, "no token at all"):
        await accounts.log_out(invented, START)
    assert written == []


async def test_one_login_too_many_ends_the_oldest(database: Database) -> None:
    accounts = make_accounts(database, sessions=3)
    tokens = [(await register(accounts))[1]]
    tokens += [(await accounts.log_in("ann", PASSWORD, address=HERE, now=later(n))).token for n in range(1, 5)]
    assert [await accounts.user_of(token, later(9)) is not None for token in tokens] == [False, False, True, True, True]


async def test_without_a_limit_there_may_be_any_number_of_logins(database: Database) -> None:
    accounts = make_accounts(database, sessions=0)
    tokens = [(await register(accounts))[1]]
    tokens += [(await accounts.log_in("ann", PASSWORD, address=HERE, now=later(n))).token for n in range(30)]
    assert [await accounts.user_of(token, later(40)) is not None for token in tokens] == [True] * 31


class Told:
    """What was told of sessions that were ended."""

    def __init__(self) -> None:
        self.numbers: list[int] = []

    def __call__(self, number: int, _user_id: int, _ended_ms: int, _now_ms: int) -> None:
        self.numbers.append(number)


async def number_of(accounts: Accounts, token: str) -> int:
    user = await accounts.user_of(token, START)
    assert user is not None
    return user.http_session


async def test_what_was_ended_is_told_at_once_and_elsewhere_at_the_next_look(database: Database) -> None:
    here, elsewhere, restarted = Told(), Told(), Told()
    accounts = Accounts(database, Passwords(at_once, PasswordHasher.from_parameters(CHEAPEST)), tell_ended=here)
    other = Accounts(database, accounts._passwords, tell_ended=elsewhere)
    await other.refresh_ended(START)
    user_id, first = await register(accounts)
    second = (await accounts.log_in("ann", PASSWORD, address=HERE, now=START)).token
    numbers = [await number_of(accounts, token) for token in (first, second)]
    assert len(set(numbers)) == 2
    await accounts.log_out(first, START)
    assert here.numbers == numbers[:1]
    await other.refresh_ended(later(1))
    assert elsewhere.numbers == numbers[:1]
    await accounts.set_password(user_id, "battery staple", later(2))
    await other.refresh_ended(later(2))
    assert set(elsewhere.numbers) == set(numbers)
    await Accounts(database, accounts._passwords, tell_ended=restarted).refresh_ended(later(300))
    assert set(restarted.numbers) == set(numbers)
    restarted.numbers.clear()
    await Accounts(database, accounts._passwords, tell_ended=restarted).refresh_ended(later(1000))
    assert restarted.numbers == []


async def test_a_clock_that_jumps_ends_no_session_for_good(database: Database) -> None:
    told = Told()
    accounts = Accounts(database, Passwords(at_once, PasswordHasher.from_parameters(CHEAPEST)), tell_ended=told)
    _, token = await register(accounts)
    await accounts.refresh_ended(later(40 * DAY_MS / 1000))
    assert told.numbers == []
    assert await accounts.user_of(token, START) is not None


async def test_sessions_that_expired_do_not_gather(database: Database) -> None:
    accounts = make_accounts(database, session_days=1)
    for n in range(5):
        await register(accounts, f"user{n}")
    await accounts.log_in("user0", PASSWORD, address=HERE, now=later(DAY_MS / 1000))
    assert await database.run(users.prune_sessions, later(DAY_MS / 1000).unix_ms) == 0


async def test_a_session_is_one_query_and_shows_a_tag_at_once(accounts: Accounts, database: Database) -> None:
    user_id, token = await register(accounts)
    assert await accounts.tag(user_id, VIP)
    assert not await accounts.tag(user_id, VIP)
    before = database.queries
    user = await accounts.user_of(token, START)
    assert database.queries == before + 1
    assert user is not None
    assert user.tags == {VIP}
    assert await accounts.untag(user_id, VIP)
    user = await accounts.user_of(token, START)
    assert user is not None
    assert user.tags == frozenset()


async def test_only_tags_that_mean_something_are_given(accounts: Accounts) -> None:
    user_id, _ = await register(accounts)
    assert (await refusal(accounts.tag(user_id, "vpi"))).reason == "tag 'vpi': expected vip"
    assert (await refusal(accounts.add("bob", PASSWORD, "", "", tags=["king"], now=START))).code == 400
    assert (await refusal(accounts.find_by_name("bob"))).code == 404


async def test_accounts_can_be_added_without_a_session(accounts: Accounts) -> None:
    user_id = await accounts.add("bob", PASSWORD, "Bob", "", tags=[VIP], now=START)
    user = await accounts.find_by_name("BOB")
    assert (user.id, user.nick_name, user.tags) == (user_id, "Bob", frozenset([VIP]))


async def test_many_are_found_with_one_query(accounts: Accounts, database: Database) -> None:
    ids = [(await register(accounts, f"user{n}"))[0] for n in range(3)]
    before = database.queries
    found = await accounts.batch([*ids, 99_999])
    assert database.queries == before + 1
    assert sorted(found) == sorted(ids)
    assert await accounts.batch([]) == {}
    assert database.queries == before + 1


async def test_a_new_password_ends_every_session(accounts: Accounts) -> None:
    user_id, token = await register(accounts)
    await accounts.set_password(user_id, "battery staple", START)
    assert await accounts.user_of(token, START) is None
    assert (await refusal(accounts.log_in("ann", PASSWORD, address=HERE, now=START))).code == 401
    await accounts.log_in("ann", "battery staple", address=HERE, now=START)
    assert (await refusal(accounts.set_password(user_id, "short", START))).code == 400


async def test_a_hash_by_older_parameters_is_replaced_at_the_login(accounts: Accounts, database: Database) -> None:
    await register(accounts)
    today = PasswordHasher(time_cost=2, memory_cost=16, parallelism=1)
    await Accounts(database, Passwords(at_once, today)).log_in("ann", PASSWORD, address=HERE, now=START)
    stored = (await accounts.find_by_name("ann")).password_hash
    assert not today.check_needs_rehash(stored)
    await accounts.log_in("ann", PASSWORD, address=HERE, now=START)


async def test_a_password_that_changes_during_the_login_wins(accounts: Accounts, database: Database) -> None:
    user_id, _ = await register(accounts)

    class Slow(Passwords):
        async def verify(self, password_hash: str | None, password: str) -> Verdict:
            verdict = await super().verify(password_hash, password)
            await accounts.set_password(user_id, "battery staple", START)
            return verdict

    slow = Accounts(database, Slow(at_once, PasswordHasher.from_parameters(CHEAPEST)))
    assert (await refusal(slow.log_in("ann", PASSWORD, address=HERE, now=START))).code == 401


# Slowing down


async def fail(accounts: Accounts, name: str = "ann", address: str = HERE, now: Instant = START) -> int:
    return (await refusal(accounts.log_in(name, "wrong horse", address=address, now=now))).code


async def test_a_name_is_slowed_down_from_wherever_the_guesses_come(accounts: Accounts) -> None:
    await register(accounts)
    codes = [await fail(accounts, address=f"192.0.2.{n}") for n in range(7)]
    assert codes == [401] * 5 + [429] * 2
    error = await refusal(accounts.log_in("ANN", PASSWORD, address="198.51.100.1", now=START))
    assert error.reason == "too many attempts: try again in 1 s"
    await accounts.log_in("ann", PASSWORD, address="198.51.100.1", now=later(1))
    assert [await fail(accounts, now=later(1)) for _ in range(6)] == [401] * 5 + [429]


async def test_an_address_is_slowed_down_whatever_names_it_tries(database: Database) -> None:
    accounts = make_accounts(database, address_failures=10)
    await register(accounts)
    assert [await fail(accounts, f"user{n}") for n in range(12)] == [401] * 10 + [429] * 2
    assert await fail(accounts, "ann") == 429
    assert await fail(accounts, "ann", address="198.51.100.1") == 401
    await accounts.log_in("ann", PASSWORD, address=HERE, now=later(1))


async def test_a_guesser_does_not_keep_out_an_address_that_was_right_before(database: Database) -> None:
    accounts = make_accounts(database, address_failures=10)
    await register(accounts)
    await accounts.log_in("ann", PASSWORD, address=HERE, now=START)
    for n in range(30):  # one guess each 50 ms, from elsewhere, and from the same network
        now = later(n / 20)
        await fail(accounts, address="198.51.100.1", now=now)
        await fail(accounts, f"user{n}", now=now)
        await accounts.log_in("ann", PASSWORD, address=HERE, now=now)
    assert await fail(accounts, address="198.51.100.2", now=later(1.5)) == 429
    assert await fail(accounts, "bob", now=later(1.5)) == 429


async def test_an_address_that_was_right_before_may_not_guess_either(accounts: Accounts) -> None:
    await register(accounts)
    await accounts.log_in("ann", PASSWORD, address=HERE, now=START)
    assert [await fail(accounts) for _ in range(7)] == [401] * 5 + [429] * 2
    await accounts.log_in("ann", PASSWORD, address="198.51.100.1", now=START)


async def test_logins_that_succeed_slow_nobody_down(accounts: Accounts) -> None:
    await register(accounts)
    for _ in range(50):
        await accounts.log_in("ann", PASSWORD, address=HERE, now=START)


async def test_guesses_made_at_once_are_counted(accounts: Accounts) -> None:
    await register(accounts)
    codes: list[int] = []

    async def guess() -> None:
        codes.append(await fail(accounts))

    async with trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(guess)
    assert codes.count(401) == 8
    assert codes.count(429) == 12


async def test_many_may_log_in_at_once(accounts: Accounts) -> None:
    for n in range(20):
        await register(accounts, f"user{n}")

    async def log_in(n: int) -> None:
        await accounts.log_in(f"user{n % 20}", PASSWORD, address=HERE, now=START)

    async with trio.open_nursery() as nursery:
        for n in range(60):
            nursery.start_soon(log_in, n)


async def test_a_guesser_who_leaves_has_failed(accounts: Accounts, database: Database) -> None:
    await register(accounts)

    class Endless(Passwords):
        async def verify(self, password_hash: str | None, password: str) -> Verdict:
            await trio.sleep_forever()
            raise AssertionError

    slow = Accounts(database, Endless(at_once, PasswordHasher.from_parameters(CHEAPEST)))
    for _ in range(5):
        with trio.move_on_after(0) as scope:
            await slow.log_in("ann", "wrong horse", address=HERE, now=START)
        assert scope.cancelled_caught
    assert await fail(slow) == 429


async def test_what_was_not_decided_does_not_count(accounts: Accounts, database: Database) -> None:
    await register(accounts)

    class Away(Passwords):
        async def verify(self, password_hash: str | None, password: str) -> Verdict:
            raise DatabaseUnavailable("gone")

    away = Accounts(database, Away(at_once, PasswordHasher.from_parameters(CHEAPEST)))
    for _ in range(50):
        with pytest.raises(DatabaseUnavailable):
            await away.log_in("ann", PASSWORD, address=HERE, now=START)


async def test_an_address_makes_only_so_many_accounts(database: Database) -> None:
    accounts = make_accounts(database, address_registrations=3)
    for _ in range(10):
        assert (await refusal(register(accounts, "a"))).code == 400, "what is wrong does not count"
    for n in range(3):
        await register(accounts, f"user{n}")
    assert (await refusal(register(accounts, "user3"))).code == 429
    await register(accounts, "user3", address="198.51.100.1")
    await register(accounts, "user4", now=later(1))
