from __future__ import annotations

from functools import partial

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection

from qiyu.storage import users
from qiyu.storage.database import Database
from qiyu.storage.errors import NameTaken, NoSuchUser
from qiyu.storage.tables import FIRST_USER_ID, NAME_CHARS
from qiyu.storage.users import User, name_key

NOW = 1_700_000_000_000
TOKEN = bytes(range(32))

# Text that a database can hold: no U+0000, no half of a surrogate pair.
names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=NAME_CHARS)


def add(c: Connection, name: str, *tags: str) -> int:
    user_id = users.insert_user(c, name=name, password_hash="hash", nick_name=name, avatar="/a.png", now_ms=NOW)
    for tag in tags:
        users.add_tag(c, user_id, tag)
    return user_id


async def test_a_user_comes_back_as_it_was(db: Database) -> None:
    user_id = await db.run(add, "主播 🎤", "vip", "staff")
    user = User(user_id, "主播 🎤", "主播 🎤", "/a.png", "hash", frozenset({"vip", "staff"}))
    assert user_id >= FIRST_USER_ID
    assert await db.read(users.find_user, user_id) == user
    assert await db.read(users.find_user_by_name, "主播 🎤") == user
    assert await db.read(users.find_users, [user_id, 1]) == {user_id: user}
    assert await db.read(users.list_users) == [user]
    assert await db.read(users.find_user, 1) is None
    assert await db.read(users.find_user_by_name, "x") is None
    assert "hash" not in repr(user)


@pytest.mark.parametrize("other", ["alice", "ALICE", "Ａｌｉｃｅ", " Alice "])
async def test_names_that_look_alike_are_one(db: Database, other: str) -> None:
    user_id = await db.run(add, "Alice")

    def add_the_other(c: Connection) -> int:
        with pytest.raises(NameTaken):
            add(c, other)
        return add(c, "Bob")  # the transaction goes on

    bob = await db.run(add_the_other)
    assert await db.read(users.find_user_by_name, other) == await db.read(users.find_user, user_id)
    assert await db.read(users.find_user, bob) is not None


@pytest.mark.parametrize(("one", "other"), [("o", "ö"), ("Strasse", "Straßen"), ("a b", "ab"), ("名", "名️")])
async def test_names_that_differ_are_two(db: Database, one: str, other: str) -> None:
    assert await db.run(add, one) != await db.run(add, other)


@pytest.mark.property
@settings(max_examples=max(8, settings.default.max_examples // 12))  # type: ignore[union-attr]
@given(wanted=st.lists(names, min_size=1, max_size=30, unique_by=name_key))
def test_any_name_comes_back(url: str, wanted: list[str]) -> None:
    """Invariant: names with different keys are different users, and each comes back as it was, by any spelling."""

    def work(c: Connection) -> None:
        ids = {name: add(c, name) for name in wanted}
        found = users.find_users(c, ids.values())
        assert {name: found[user_id].name for name, user_id in ids.items()} == {name: name for name in wanted}
        for name, user_id in ids.items():
            by_key = users.find_user_by_name(c, name_key(name))
            assert by_key is not None
            assert by_key.id == user_id
        raise Done

    async def main() -> None:
        async with Database.open(url) as db:
            with pytest.raises(Done):
                await db.run(work)

    trio.run(main)


class Done(Exception):
    """Rolls back."""


@pytest.mark.property
@given(names)
def test_the_key_of_a_key_is_that_key(name: str) -> None:
    """Invariant: a key stays as it is, and fits its column."""
    assert name_key(name_key(name)) == name_key(name)
    assert len(name_key(name)) <= 18 * NAME_CHARS


@pytest.mark.parametrize("name", ["x" * (NAME_CHARS + 1), "a\0b"])
async def test_what_a_column_cannot_hold_is_refused_everywhere(db: Database, name: str) -> None:
    with pytest.raises(Exception, match="expected at most 35 characters, U\\+0000 not among them"):
        await db.run(add, name)
    assert await db.read(users.list_users) == []


async def test_one_of_many_gets_a_name(db: Database) -> None:
    got: list[int] = []
    refused: list[NameTaken] = []

    async def register(name: str) -> None:
        try:
            got.append(await db.run(add, name))
        except NameTaken as exc:
            refused.append(exc)

    async with trio.open_nursery() as nursery:
        for name in ("Race", "RACE", "race", "raCe") * 3:
            nursery.start_soon(register, name)
    assert (len(got), len(refused)) == (1, 11)


async def test_many_are_found_with_one_query(db: Database) -> None:
    ids = await db.run(lambda c: [add(c, f"user {n}", "vip") for n in range(20)])
    before = db.queries
    found = await db.read(users.find_users, ids)
    assert db.queries == before + 1
    assert list(found) == ids
    assert found[ids[7]].tags == {"vip"}
    assert await db.read(users.find_users, []) == {}
    assert db.queries == before + 1
    assert set(await db.read(users.find_users, range(ids[0], ids[0] + 2500))) == set(ids)
    assert db.queries == before + 4


async def test_users_are_listed_in_pages(db: Database) -> None:
    ids = await db.run(lambda c: [add(c, f"user {n}", "a", "b") for n in range(5)])
    assert [user.id for user in await db.read(users.list_users, limit=2)] == ids[:2]
    assert [user.id for user in await db.read(users.list_users, after_id=ids[1], limit=2)] == ids[2:4]
    assert (await db.read(users.list_users, after_id=ids[3]))[0].tags == {"a", "b"}


async def test_a_password_is_changed(db: Database) -> None:
    user_id = await db.run(add, "Alice")
    assert await db.run(users.set_password, user_id, "new")
    assert await db.run(users.set_password, user_id, "new")  # as it was already: there is such a user
    assert not await db.run(users.set_password, 1, "new")
    user = await db.read(users.find_user, user_id)
    assert user is not None
    assert user.password_hash == "new"


async def test_a_tag_is_given_and_taken_once(db: Database) -> None:
    user_id = await db.run(add, "Alice")
    given_to: list[bool] = []
    taken: list[bool] = []

    async def give() -> None:
        given_to.append(await db.run(users.add_tag, user_id, "vip"))

    async def take() -> None:
        taken.append(await db.run(users.remove_tag, user_id, "vip"))

    for work in (give, take):
        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(work)
    assert sorted(given_to) == sorted(taken) == [False] * 7 + [True]


async def test_tags_are_exact(db: Database) -> None:
    user_id = await db.run(add, "Alice", "vip")
    assert not await db.run(users.remove_tag, user_id, "VIP")
    assert await db.run(users.add_tag, user_id, "VIP")
    assert await db.run(users.add_tag, user_id, "víp")


async def test_nobody_has_no_tag_and_no_session(db: Database) -> None:
    with pytest.raises(NoSuchUser, match="there is no user 1"):
        await db.run(users.add_tag, 1, "vip")
    with pytest.raises(NoSuchUser, match="there is no user 1"):
        await db.run(users.insert_session, token_hash=TOKEN, user_id=1, now_ms=NOW, expire_ms=NOW + 1)


async def test_a_session_has_its_user_until_it_expires_or_is_ended(db: Database) -> None:
    user_id = await db.run(add, "Alice", "vip")
    await db.run(users.insert_session, token_hash=TOKEN, user_id=user_id, now_ms=NOW, expire_ms=NOW + 10)
    before = db.queries
    user = await db.read(users.find_session_user, TOKEN, NOW + 9)
    assert db.queries == before + 1
    assert user is not None
    assert user.id == user_id
    assert user.tags == {"vip"}
    assert await db.read(users.find_session_user, TOKEN, NOW + 10) is None
    assert await db.read(users.find_session_user, bytes(32), NOW) is None
    assert user.http_session == users.session_number(TOKEN)
    assert await db.run(users.end_session, TOKEN, NOW + 5)
    assert not await db.run(users.end_session, TOKEN, NOW + 6)
    assert await db.read(users.find_session_user, TOKEN, NOW) is None
    assert await db.read(users.find_ended_sessions, NOW + 5) == [(TOKEN, user_id, NOW + 5)]
    assert await db.read(users.find_ended_sessions, NOW + 6) == []


async def test_all_sessions_of_a_user_end_at_once(db: Database) -> None:
    alice, bob = await db.run(lambda c: (add(c, "Alice"), add(c, "Bob")))
    for n in range(6):
        await db.run(
            users.insert_session, token_hash=bytes([n] * 32), user_id=(alice, bob)[n % 2], now_ms=NOW, expire_ms=NOW + 1
        )
    assert await db.run(users.end_sessions_of, alice, NOW) == 3
    assert await db.run(users.end_sessions_of, alice, NOW) == 0
    assert await db.read(users.find_session_user, bytes([1] * 32), NOW) is not None


async def test_expired_sessions_are_pruned_oldest_first(db: Database) -> None:
    user_id = await db.run(add, "Alice")
    for n in range(5):
        await db.run(users.insert_session, token_hash=bytes([n] * 32), user_id=user_id, now_ms=NOW, expire_ms=NOW + n)
    assert await db.run(users.prune_sessions, NOW + 3, 3) == 3
    assert await db.read(users.find_session_user, bytes([3] * 32), NOW) is not None
    assert await db.run(users.prune_sessions, NOW + 3) == 1
    assert await db.run(users.prune_sessions, NOW + 3) == 0
    assert await db.read(users.find_session_user, bytes([4] * 32), NOW + 3) is not None


async def test_sessions_that_were_ended_are_kept_as_long_as_somebody_may_ask(db: Database) -> None:
    user_id = await db.run(add, "Alice")
    for n in range(3):
        token = bytes([n] * 32)
        await db.run(users.insert_session, token_hash=token, user_id=user_id, now_ms=NOW, expire_ms=NOW + 10_000)
        await db.run(users.end_session, token, NOW + n)
    assert await db.run(partial(users.prune_sessions, ended_ms=100), NOW + 101) == 2
    assert [row[2] for row in await db.read(users.find_ended_sessions, NOW)] == [NOW + 2]


async def test_the_newest_sessions_may_stay(db: Database) -> None:
    user_id = await db.run(add, "Alice")
    for n in range(5):
        token = bytes([n] * 32)
        await db.run(users.insert_session, token_hash=token, user_id=user_id, now_ms=NOW + n, expire_ms=NOW + 100)
    assert await db.run(partial(users.end_sessions_of, but=2), user_id, NOW + 9) == 3
    assert [await db.read(users.find_session_user, bytes([n] * 32), NOW + 9) is not None for n in range(5)] == [
        False,
        False,
        False,
        True,
        True,
    ]
