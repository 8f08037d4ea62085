"""`qiyu instances`; with several of them, flow/test_several_instances.py runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import trio

from qiyu.cli.instances import _line
from qiyu.model import InstanceId
from qiyu.presence.presence import Lease, Leases
from qiyu.storage.database import Database, database_url
from qiyu.storage.instances import Instance, claim

ROW = Instance(3, 2, "host:77", False, 0)
LEASE = Lease(number=3, incarnation=2, link_address="10.0.0.3:8087", connections=12, rooms=4, version="1", links=2)


def leases(lease: Lease) -> Leases:
    return Leases("", {3: lease}, {3: 1540}, is_mine=False)


def test_a_line_says_what_the_lease_says() -> None:
    assert _line(ROW, leases(LEASE)) == (
        "3", "2", "host:77", "10.0.0.3:8087", "1", "serving", "12", "4", "2", "1.5 s",
    )  # fmt: skip


def test_an_earlier_lease_of_its_number_is_none_of_its() -> None:
    old = Lease(number=3, incarnation=1, link_address="10.0.0.3:8087")
    assert _line(ROW, leases(old)) == ("3", "2", "host:77", "-", "-", "no lease", "-", "-", "-", "-")


def test_one_that_is_alone_is_listed_without_redis_and_one_that_has_ended_is_not(tmp_path: Path) -> None:
    async def prepare() -> InstanceId:
        from qiyu.storage.migrate import upgrade

        async with Database.open(database_url("", tmp_path)) as database:
            await upgrade(database)
            await database.run(claim, address="old:1", number=None, alone=True, now_ms=0)
            return await database.run(claim, address="new:2", number=1, alone=True, now_ms=0)

    assert trio.run(prepare) == InstanceId(1, 1)
    environ = os.environ | {"QIYU_DATA__DIR": str(tmp_path)}
    command = [sys.executable, "-m", "qiyu", "instances"]
    done = subprocess.run(command, env=environ, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stdout.split("\t") == ["1", "1", "new:2", *["-"] * 6, "-\n"]


def test_a_redis_that_does_not_answer_is_one_line(tmp_path: Path) -> None:
    environ = os.environ | {"QIYU_DATA__DIR": str(tmp_path), "QIYU_REDIS__URL": "redis://:hunter2@127.0.0.1:1/0"}
    command = [sys.executable, "-m", "qiyu", "instances"]
    done = subprocess.run(command, env=environ, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("qiyu: 127.0.0.1:1: ")
    assert "hunter2" not in done.stderr
