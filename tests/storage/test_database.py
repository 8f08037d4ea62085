from __future__ import annotations

import asyncio
import random
import socket
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import pytest
import trio
from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError, ProgrammingError, SQLAlchemyError
from sqlalchemy.pool import QueuePool

from qiyu.errors import ConfigError, DatabaseUnavailable
from qiyu.storage.database import Database, Limits
from qiyu.storage.tables import t_user_tag
from storage.conftest import Urls, only

FOREVER: Final = {
    "sqlite": "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
    "postgresql": "SELECT pg_sleep(60)",
    "mysql": "SELECT sleep(2)",  # MariaDB goes on for seconds after the client is gone, with its locks
}


def count(c: Connection) -> int:
    return int(c.scalar(text("SELECT count(*) FROM t_living_room")) or 0)


def add(c: Connection, anchor_id: int) -> None:
    c.execute(
        text(
            "INSERT INTO t_living_room (anchor_id, type, status, room_name, covert_img, watch_num, good_num,"
            " start_time, update_time) VALUES (:anchor_id, 1, 1, '', '', 0, 0, 0, 0)"
        ),
        {"anchor_id": anchor_id},
    )


def add_two(c: Connection, anchor_id: int) -> None:
    add(c, anchor_id)
    add(c, -anchor_id)


def hang(c: Connection) -> None:
    c.execute(text(FOREVER[c.dialect.name])).all()


class Held:
    """Work that begins and goes on only when told to."""

    def __init__(self) -> None:
        self.begun = trio.Event()
        self._token = trio.lowlevel.current_trio_token()
        self._go_on = threading.Event()

    def __call__(self, c: Connection, then: Callable[[Connection], object] = count) -> None:
        self._token.run_sync_soon(self.begun.set)
        assert self._go_on.wait(10)
        then(c)

    def go_on(self) -> None:
        self._go_on.set()


async def all_done(db: Database) -> None:
    """Wait until the work that nobody waits for any more has come to its end."""
    with trio.fail_after(10):
        while db._jobs:
            await next(iter(db._jobs)).done.wait()


def in_use(db: Database) -> str:
    assert isinstance(db._engine.pool, QueuePool)
    return str(db._engine.pool.checkedout())


async def test_work_is_committed_and_its_result_returned(db: Database) -> None:
    def work(c: Connection, anchor_id: int, *, more: int) -> str:
        add(c, anchor_id)
        return f"{anchor_id} {more}"

    assert await db.run(work, 1, more=2) == "1 2"
    assert await db.read(count) == 1


async def test_what_work_raises_rolls_back_and_comes_out(db: Database) -> None:
    def work(c: Connection) -> None:
        add(c, 1)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await db.run(work)
    assert await db.read(count) == 0


async def test_work_can_lose_a_savepoint_and_go_on(db: Database) -> None:
    def work(c: Connection) -> None:
        add(c, 1)
        with pytest.raises(IntegrityError), c.begin_nested():
            add_two(c, 1)
        add(c, 2)

    await db.run(work)
    assert await db.read(count) == 2


async def test_mistakes_in_the_code_come_out_as_they_are(db: Database) -> None:
    with pytest.raises((ProgrammingError, SQLAlchemyError)) as caught:
        await db.run(lambda c: c.execute(text("SELEKT 1")))
    assert not isinstance(caught.value, DatabaseUnavailable)


async def test_statements_are_counted(db: Database) -> None:
    before = db.queries
    await db.run(lambda c: (count(c), count(c)))
    assert db.queries == before + 2


@pytest.mark.parametrize(
    "written",
    [t_user_tag.insert().values(user_id=1, tag="x"), t_user_tag.update().values(tag="x"), t_user_tag.delete()],
)
async def test_reading_is_no_writing(db: Database, written: object) -> None:
    with pytest.raises(RuntimeError, match="`read` was given work that writes"):
        await db.read(lambda c: c.execute(written))  # type: ignore[call-overload]


async def test_the_body_raises_as_if_there_were_no_nursery(url: str) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with Database.open(url):
            raise KeyError("mine")
    with pytest.raises(ExceptionGroup, match="mine"):
        async with Database.open(url):
            raise ExceptionGroup("mine", [KeyError()])


def test_asyncio_is_not_there(url: str) -> None:
    """What waits is a thread, so nothing hangs on what trio-asyncio needs of it, which Python 3.14 has no more."""

    async def main() -> None:
        async with Database.open(url) as db:
            await db.read(count)
            with pytest.raises(RuntimeError, match="no running event loop"):
                asyncio.get_running_loop()

    # In a thread of its own: a browser that other tests drive leaves its loop running in theirs.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(trio.run, main).result()
    assert "trio_asyncio" not in sys.modules


async def test_it_works_from_any_task(db: Database) -> None:
    async with trio.open_nursery() as nursery:
        for anchor_id in range(50):
            nursery.start_soon(db.run, add, anchor_id)
    assert await db.read(count) == 50


async def test_its_repr_shows_its_state(db: Database) -> None:
    held = Held()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(db.run, held)
        await held.begun.wait()
        assert repr(db).endswith(": 1 transactions, 0 waiting>")
        held.go_on()


# Cancelling


@pytest.mark.parametrize("seed", range(3))
async def test_cancelling_at_any_point_costs_nothing(db: Database, seed: int) -> None:
    """Invariant: whenever callers leave, each transaction is there as a whole or not at all, and the pool serves on."""
    rnd = random.Random(seed)

    async def leave(scope: trio.CancelScope, moments: int) -> None:
        for _ in range(moments):
            await trio.lowlevel.checkpoint()
        scope.cancel()

    async def call(anchor_id: int) -> None:
        async with trio.open_nursery() as both:
            both.start_soon(leave, both.cancel_scope, rnd.randrange(400))
            if anchor_id % 3:
                await db.run(add_two, anchor_id)
            else:
                await db.read(count)

    async with trio.open_nursery() as nursery:
        for anchor_id in range(1, 120):
            nursery.start_soon(call, anchor_id)
    await all_done(db)
    assert in_use(db) == "0"
    assert db._writing.value == db._writing.max_value
    assert db._reading.value == db._reading.max_value
    before = await db.read(count)
    assert before % 2 == 0
    async with trio.open_nursery() as nursery:
        for anchor_id in range(1000, 1030):
            nursery.start_soon(db.run, add_two, anchor_id)
    assert await db.read(count) == before + 60


async def test_work_goes_on_without_its_caller(db: Database) -> None:
    held = Held()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(db.run, held, lambda c: add(c, 1))
        await held.begun.wait()
        nursery.cancel_scope.cancel()
    held.go_on()
    await all_done(db)
    assert await db.read(count) == 1


async def test_work_that_has_not_begun_never_does(url: str, db: Database) -> None:
    async with Database.open(url, limits=Limits(connections=1)) as narrow:
        held = Held()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(narrow.run, held)
            await held.begun.wait()
            with trio.CancelScope() as scope:
                scope.cancel()
                await narrow.run(add, 1)
            held.go_on()
    assert await db.read(count) == 0


# Bounds


async def test_work_that_takes_too_long_is_cut_off(url: str) -> None:
    async with Database.open(url, limits=Limits(connections=1, work_seconds=0.1)) as db:
        with pytest.raises(DatabaseUnavailable, match=r"no answer within 0.1 s"):
            await db.run(hang)
        await db.run_within(30, count)  # a connection is made anew, for which 0.1 s is little
        assert in_use(db) == "0"


async def test_callers_wait_only_so_long_and_only_so_many(url: str) -> None:
    async with Database.open(url, limits=Limits(connections=1, waiting=1, wait_seconds=0.1)) as db:
        held = Held()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(db.run, held)
            await held.begun.wait()
            nursery.start_soon(expect_busy, db)
            while not db._writing.statistics().tasks_waiting:
                await trio.lowlevel.checkpoint()
            with pytest.raises(DatabaseUnavailable, match="1 others are waiting already"):
                await db.run(count)
            while db._writing.statistics().tasks_waiting:
                await trio.lowlevel.checkpoint()
            held.go_on()
        await db.run(count)


async def expect_busy(db: Database) -> None:
    with pytest.raises(DatabaseUnavailable, match=r"every connection has been busy for 0.1 s"):
        await db.run(count)


# Closing


async def test_closing_waits_for_work_under_way(url: str, db: Database) -> None:
    async with trio.open_nursery() as nursery:
        async with Database.open(url) as closing:
            held = Held()
            nursery.start_soon(closing.run, held, lambda c: add(c, 1))
            await held.begun.wait()
            held.go_on()
    assert await db.read(count) == 1


async def test_closing_rolls_back_what_does_not_end(url: str, db: Database) -> None:
    def work(c: Connection) -> None:
        add(c, 1)
        hang(c)

    async def call(closing: Database) -> None:
        with pytest.raises(DatabaseUnavailable, match="it was closed"):
            await closing.run(work)

    async with trio.open_nursery() as nursery:
        async with Database.open(url) as closing:
            nursery.start_soon(call, closing)
            while not closing.queries:
                await trio.lowlevel.checkpoint()
            begun = trio.current_time()
        assert trio.current_time() - begun < 2
    assert await db.read(count) == 0


async def test_a_cancelled_body_can_still_write_what_it_must(url: str, db: Database) -> None:
    with trio.CancelScope() as scope:
        async with Database.open(url) as closing:
            try:
                scope.cancel()
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await closing.run(add, 1)
    assert await db.read(count) == 1


async def test_after_closing_it_says_so(url: str) -> None:
    async with Database.open(url) as db:
        pass
    with pytest.raises(DatabaseUnavailable, match="it was closed"):
        await db.run(count)


# Servers


SCHEMES: Final = {"postgresql": "postgresql+psycopg", "mariadb": "mysql+pymysql"}
servers = only(*SCHEMES)


@servers
async def test_the_victim_of_a_deadlock_is_run_again(urls: Urls, db: Database) -> None:
    """Two transactions take two rows in opposite order: the database undoes one of them."""
    await db.run(add_two, 1)
    half_way = threading.Barrier(2)
    runs = [0, 0]

    def work(c: Connection, me: int) -> None:
        runs[me] += 1
        for step, anchor_id in enumerate((1, -1) if me else (-1, 1)):
            c.execute(
                text("UPDATE t_living_room SET good_num = good_num + 1 WHERE anchor_id = :anchor_id"),
                {"anchor_id": anchor_id},
            )
            if step == 0 and runs[me] == 1:
                half_way.wait(10)

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(db.run, work, 0)
            nursery.start_soon(db.run, work, 1)
    assert sorted(runs) == [1, 2]
    assert await db.read(lambda c: c.scalar(text("SELECT sum(good_num) FROM t_living_room"))) == 4


@servers
async def test_a_lost_connection_is_replaced(urls: Urls, db: Database) -> None:
    mine, kill = {
        "postgresql": ("SELECT pg_backend_pid()", "SELECT pg_terminate_backend({})"),
        "mariadb": ("SELECT connection_id()", "KILL {}"),
    }[urls.kind]
    idle = await db.run(lambda c: c.scalar(text(mine)))
    async with Database.open(str(db._url.render_as_string(hide_password=False))) as other:
        await other.run(lambda c: c.execute(text(kill.format(idle))))
    assert await db.run(lambda c: c.scalar(text(mine))) != idle

    def lose(c: Connection) -> None:
        add(c, 1)
        c.execute(text(kill.format(c.scalar(text(mine)))))
        count(c)

    with pytest.raises(DatabaseUnavailable):
        await db.run(lose)
    assert await db.run(count) == 0


@servers
async def test_a_server_that_is_not_there(urls: Urls) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        port = taken.getsockname()[1]
        with pytest.raises(DatabaseUnavailable, match=f"database 127.0.0.1:{port}/test: ") as caught:
            async with Database.open(f"{SCHEMES[urls.kind]}://root:secret@127.0.0.1:{port}/test"):
                pytest.fail("it opened")
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@servers
async def test_a_server_that_does_not_answer_can_be_left(urls: Urls) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        begun = trio.current_time()
        with trio.move_on_after(0.1):
            async with Database.open(f"{SCHEMES[urls.kind]}://root@127.0.0.1:{silent.getsockname()[1]}/test"):
                pytest.fail("it opened")
        assert trio.current_time() - begun < 2


@servers
async def test_what_the_operator_mends(urls: Urls, url: str) -> None:
    with pytest.raises(DatabaseUnavailable, match=r"database 127\.0\.0\.1:?\d*/no_such_database: .*no_such_database"):
        async with Database.open(url.replace("qiyu_test", "no_such_database_").partition("database_")[0] + "database"):
            pytest.fail("it opened")
    user = {"postgresql": "postgres@", "mariadb": "root@"}[urls.kind]
    with pytest.raises(DatabaseUnavailable) as caught:
        async with Database.open(url.replace(user, "nobody:secret@")):
            pytest.fail("it opened")
    assert "nobody" in str(caught.value)
    assert "secret" not in str(caught.value)


@servers
async def test_an_option_that_the_driver_does_not_take(url: str) -> None:
    with pytest.raises(ConfigError, match=r"database\.url: the driver does not take an option in it: .*colour"):
        async with Database.open(url + ("&" if "?" in url else "?") + "colour=red"):
            pytest.fail("it opened")
