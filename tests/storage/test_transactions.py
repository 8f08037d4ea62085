from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
import trio
from sqlalchemy import Connection, text

from qiyu.errors import DatabaseUnavailable
from qiyu.storage.database import Database, Limits
from storage.conftest import Urls, only

GONE_IN_3_14: Final = (
    "AbstractChildWatcher",
    "FastChildWatcher",
    "MultiLoopChildWatcher",
    "PidfdChildWatcher",
    "SafeChildWatcher",
    "ThreadedChildWatcher",
    "get_child_watcher",
    "set_child_watcher",
)


@only("postgresql")
async def test_a_server_is_told_to_stop(urls: Urls, url: str) -> None:
    """It would go on, with its locks, without a client."""
    async with Database.open(url, limits=Limits(work_seconds=0.2)) as db:

        def hold(c: Connection) -> None:
            c.execute(text("LOCK TABLE t_living_room"))
            c.execute(text("SELECT pg_sleep(60)"))

        with pytest.raises(DatabaseUnavailable, match=r"no answer within 0.2 s"):
            await db.run(hold)
    async with Database.open(url) as db:
        with trio.fail_after(5):
            await db.run(lambda c: c.execute(text("LOCK TABLE t_living_room")))


async def test_what_ends_in_the_moment_of_the_cut_commits_nothing(urls: Urls, url: str) -> None:
    """Invariant: of work that was cut off before it asked for its commit, nothing is kept."""
    async with Database.open(url, limits=Limits(work_seconds=0.05)) as db:

        def slow(c: Connection) -> None:
            c.execute(
                text(
                    "INSERT INTO t_living_room (anchor_id, type, status, room_name, covert_img, watch_num, good_num,"
                    " start_time, update_time) VALUES (77, 1, 1, '', '', 0, 0, 0, 0)"
                )
            )
            job = c.get_execution_options()["qiyu_job"]
            while not job.is_cut_off:
                pass

        with pytest.raises(DatabaseUnavailable, match=r"no answer within 0.05 s"):
            await db.run(slow)
    async with Database.open(url) as db:
        found = await db.read(lambda c: c.scalar(text("SELECT count(*) FROM t_living_room WHERE anchor_id = 77")))
        assert found == 0


def test_nothing_needs_what_python_3_14_has_no_more(tmp_path: Path) -> None:
    """The whole server is loaded, and a database made, without the names that are gone there."""
    script = f"""
import asyncio, asyncio.unix_events, sys
for name in {GONE_IN_3_14!r}:
    for module in (asyncio, asyncio.unix_events, asyncio.events):
        vars(module).pop(name, None)
import qiyu.app
from qiyu.__main__ import main
sys.argv = ["qiyu", "db", "upgrade"]
main()
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("empty -> ")
