from __future__ import annotations

from pathlib import Path

import pytest
import trio
from typer.testing import CliRunner

from qiyu.cli.room import room as command
from qiyu.storage.database import Database, database_url
from qiyu.storage.living_rooms import RoomCounts, find_record, start_room, update_counts
from qiyu.storage.migrate import upgrade

runner = CliRunner()


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def opened(*names: str) -> None:
    """Open rooms of these names, of anchors from 10001 on."""

    async def main() -> None:
        async with Database.open(database_url("", Path("data"))) as db:
            await upgrade(db)
            for number, name in enumerate(names, 1):
                await db.run(
                    start_room, anchor_id=10_000 + number, type_=1, room_name=name, covert_img="", now_ms=number
                )
            await db.run(update_counts, {1: RoomCounts(2, 3, 4, 5)}, 9)

    trio.run(main)


def test_rooms_are_listed_and_closed() -> None:
    opened("one", "二")
    listed = runner.invoke(command, ["list"]).stdout.splitlines()
    assert [line.split("\t")[:5] for line in listed] == [["1", "10001", "1", "2", "3"], ["2", "10002", "1", "0", "0"]]
    assert [line.split("\t")[6] for line in listed] == ["one", "二"]

    done = runner.invoke(command, ["close", "1"])
    assert (done.exit_code, done.output) == (0, "")
    assert len(runner.invoke(command, ["list"]).stdout.splitlines()) == 1

    async def record() -> tuple[int, int] | None:
        async with Database.open(database_url("", Path("data"))) as db:
            found = await db.read(find_record, 1)
            return (found.peak_num, found.visit_num) if found else None

    assert trio.run(record) == (4, 5)


def test_a_room_that_is_not_open_is_one_line() -> None:
    done = runner.invoke(command, ["close", "77"])
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr == "qiyu: room 77: there is no such open room\n"
