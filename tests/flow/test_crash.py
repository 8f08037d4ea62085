"""A server process is killed under load, again and again, while its database fails: `python -m crash`, in short."""

from __future__ import annotations

import os
from pathlib import Path

from crash.run import Options, crash
from installation import postgresql
from redis_servers import need_redis_server


async def test_nothing_that_was_promised_is_lost_when_the_server_is_killed(tmp_path: Path) -> None:
    options = Options(
        seconds=2.5, kills=4, clients=10, rooms=2, pause=0.05, fault_seconds=(0.1, 0.6), quiet_seconds=0.2, seed=1
    )
    result = await crash(options, print, tmp_path)
    assert result.is_good, result.summary()
    counts = result.history.summary()
    assert result.kills == 4
    assert counts["receipted"] > 100
    assert counts["received"] > 200
    assert counts["doubles"] > 0
    assert counts["recovered"] > 10


async def test_nor_when_one_of_three_instances_or_what_they_share_fails(tmp_path: Path) -> None:
    """`make crash CRASH_INSTANCES=3`, in short."""
    need_redis_server()
    with postgresql("qiyu_reach"):
        pass  # else it is skipped
    options = Options(
        seconds=20, kills=4, clients=8, rooms=2, pause=0.1, faults=False, quiet_seconds=0.4, database="postgresql",
        url=os.environ.get("TEST_POSTGRES_URL", ""), seed=3, instances=3,
    )  # fmt: skip
    result = await crash(options, print, tmp_path)
    assert result.is_good, result.summary()
    counts = result.history.summary()
    assert sum(result.injected.values()) >= 2
    assert counts["receipted"] > 50
    assert counts["received"] > 100
