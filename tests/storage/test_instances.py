from __future__ import annotations

import threading

import pytest
import trio
from sqlalchemy import Connection, text

from qiyu.errors import DatabaseUnavailable, Fenced, StartupError
from qiyu.model import InstanceId
from qiyu.storage.database import Database
from qiyu.storage.instances import check, claim, fence, find, hold, list_instances, try_to_write
from qiyu.storage.tables import INSTANCES
from storage.conftest import Urls, only

NOW = 1_750_000_000_000


async def claimed(db: Database, *, alone: bool = False, number: int | None = None, address: str = "a:1") -> InstanceId:
    return await db.run(claim, address=address, number=number, alone=alone, now_ms=NOW)


async def test_each_takes_the_smallest_free_number(db: Database) -> None:
    made = [await claimed(db) for _ in range(3)]
    assert made == [InstanceId(0, 1), InstanceId(1, 1), InstanceId(2, 1)]
    assert await db.run(fence, made[1])
    assert await claimed(db) == InstanceId(1, 2)
    assert await claimed(db, number=7) == InstanceId(7, 1)
    assert [each.number for each in await db.read(list_instances)] == [0, 1, 2, 7]


async def test_a_number_that_is_taken_is_refused(db: Database) -> None:
    await claimed(db, number=7, address="here:123")
    with pytest.raises(StartupError, match=r"instance\.number = 7: taken by here:123; expected a number that is free"):
        await claimed(db, number=7)


async def test_all_numbers_can_be_taken(db: Database) -> None:
    rows = [(number, 1, "a", 0, NOW, 0) for number in range(INSTANCES)]
    values = ", ".join(map(str, rows))
    await db.run(lambda c: c.execute(text(f"INSERT INTO t_im_instance VALUES {values}")))  # noqa: S608
    with pytest.raises(StartupError, match="all 1024 instance numbers are taken"):
        await claimed(db)
    assert await db.run(fence, InstanceId(77, 1))
    assert await claimed(db) == InstanceId(77, 2)


async def test_who_starts_alone_fences_everybody(db: Database) -> None:
    one, two = await claimed(db), await claimed(db)
    three = await claimed(db, alone=True, address="new:9")
    assert three == InstanceId(0, 2)
    for fenced in (one, two):
        for ask in (hold, check):
            with pytest.raises(Fenced, match=f"instance {fenced.number}, incarnation 1.*may write no more"):
                await db.run(ask, fenced)
    with pytest.raises(Fenced, match="new:9 has started since"):
        await db.run(hold, one)
    for ask in (hold, check):
        await db.run(ask, three)


async def test_fencing_is_told_once(db: Database) -> None:
    one = await claimed(db)
    assert await db.run(fence, one)
    assert not await db.run(fence, one)
    two = await claimed(db)
    assert not await db.run(fence, one)  # a later incarnation of the same number is not meant
    await db.run(hold, two)
    found = await db.read(find, 0)
    assert found is not None
    assert found == (0, 2, "a:1", False, NOW)
    assert await db.read(find, 1) is None


async def test_of_many_who_start_at_once_each_has_a_number(url: str, db: Database) -> None:
    made: list[InstanceId] = []

    async def start() -> None:
        async with Database.open(url) as mine:
            made.append(await claimed(mine))

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(start)
    assert sorted(made) == [InstanceId(number, 1) for number in range(4)]


async def test_of_many_who_start_alone_one_is_left(url: str, db: Database) -> None:
    made: list[InstanceId] = []

    async def start() -> None:
        async with Database.open(url) as mine:
            made.append(await claimed(mine, alone=True))

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(start)
    assert len(set(made)) == 4
    left = [each for each in await db.read(list_instances) if not each.fenced]
    assert [(each.number, each.incarnation) for each in left] == [max(made)]


async def test_every_transaction_that_writes_is_guarded(db: Database) -> None:
    """Invariant: once fenced, nothing more is written, and whoever owns the database learns of it."""
    mine = await claimed(db)
    db.guard(lambda c: hold(c, mine))
    insert = text("INSERT INTO t_user_tag (user_id, tag) VALUES (1, 'x')")
    await db.run(fence, mine)
    with pytest.raises(Fenced):
        await db.run(lambda c: c.execute(insert))
    with pytest.raises(DatabaseUnavailable):  # so that whoever waits for a receipt is refused, and nothing is lost
        await db.run_within(5, lambda c: c.execute(insert))
    assert db.fenced.is_set()
    assert await db.read(lambda c: c.scalar(text("SELECT count(*) FROM t_user_tag"))) == 0


@only("postgresql", "mariadb")  # SQLite has one writer at a time
async def test_fencing_waits_for_what_is_under_way(urls: Urls, url: str, db: Database) -> None:
    """Invariant: what the fenced one has written when `fence` has returned is all there will ever be."""
    mine = await claimed(db)
    db.guard(lambda c: hold(c, mine))
    token = trio.lowlevel.current_trio_token()
    begun, go_on = trio.Event(), threading.Event()
    order: list[str] = []

    def work(c: Connection) -> None:
        token.run_sync_soon(begun.set)
        assert go_on.wait(10)
        order.append("written")

    async def fence_it(other: Database) -> None:
        assert await other.run(fence, mine)
        order.append("fenced")

    async with Database.open(url) as other, trio.open_nursery() as nursery:
        nursery.start_soon(db.run, work)
        await begun.wait()
        nursery.start_soon(fence_it, other)
        while not other.queries:
            await trio.lowlevel.checkpoint()
        go_on.set()
    assert order == ["written", "fenced"]


@only("sqlite")
async def test_to_try_to_write_is_to_write(urls: Urls, db: Database) -> None:
    """A disk that is full says so only to who writes."""
    await claimed(db)
    before = await db.read(lambda c: c.scalar(text("SELECT sum(beats) FROM t_im_instance")))
    await db.run(try_to_write)
    assert await db.read(lambda c: c.scalar(text("SELECT sum(beats) FROM t_im_instance"))) == before + 1
