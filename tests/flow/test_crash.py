"""A server process is killed under load, again and again, while its database fails: `python -m crash`, in short."""

from __future__ import annotations

from pathlib import Path

from crash.run import Options, crash


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
