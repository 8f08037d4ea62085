from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio
from sqlalchemy import Connection, text
from structlog.testing import capture_logs

from qiyu.drivers.instance import claim_instance, release_instance, watch_instance
from qiyu.errors import Fenced
from qiyu.model import InstanceId
from qiyu.storage.database import Database, database_url
from qiyu.storage.instances import list_instances
from qiyu.storage.migrate import upgrade


@pytest.fixture
async def databases(tmp_path: Path) -> AsyncIterator[list[Database]]:
    """One database, opened by two servers."""
    url = database_url("", tmp_path)
    async with Database.open(url) as one, Database.open(url) as two:
        await upgrade(one)
        yield [one, two]


async def claimed(database: Database) -> InstanceId:
    return await claim_instance(database, number=None, alone=True, now_ms=1)


def write(c: Connection) -> None:
    c.execute(text("INSERT INTO t_user_session VALUES ('x', 1, 1, 1)"))


async def test_whoever_was_there_before_is_told_and_writes_no_more(databases: list[Database]) -> None:
    one, two = databases
    ended: list[Fenced] = []
    with capture_logs() as logs:
        first = await claimed(one)
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch_instance, one, first, ended.append)
                second = await claimed(two)
                # and it ends by itself, though it writes nothing
    assert (first, second) == (InstanceId(0, 1), InstanceId(0, 2))
    assert "has started since" in str(ended[0])
    with pytest.raises(Fenced):
        await one.run(write)
    assert "this server stops" in [entry["event"] for entry in logs if entry["log_level"] == "error"]


async def test_whoever_writes_learns_it_at_once(databases: list[Database]) -> None:
    one, two = databases
    ended: list[Fenced] = []
    first = await claimed(one)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch_instance, one, first, ended.append)
        await claimed(two)
        with pytest.raises(Fenced):
            await one.run(write)
        with trio.fail_after(0.9):
            while not ended:
                await trio.lowlevel.checkpoint()


async def test_a_number_is_given_back(databases: list[Database]) -> None:
    one, two = databases
    await release_instance(one, await claimed(one))
    assert [each.fenced for each in await two.read(list_instances)] == [True]
