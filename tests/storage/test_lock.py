from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from qiyu.errors import StartupError
from qiyu.storage.database import Database, database_url
from qiyu.storage.lock import serving_alone

HOLDER = """
import sys
from qiyu.storage.lock import serving_alone
with serving_alone(sys.argv[1]):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_second_server_is_refused_with_the_pid_of_the_first(tmp_path: Path) -> None:
    url = database_url("", tmp_path / "data")
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "locked\n"
        expected = rf"another server \(process {first.pid}\) uses .*qiyu\.db: stop that one first"
        with pytest.raises(StartupError, match=expected), serving_alone(url):
            pytest.fail("it was let in")
        first.kill()  # the lock dies with it
    with serving_alone(url):
        assert (tmp_path / "data" / "qiyu.db.lock").read_text() == f"{os.getpid()}\n"
        with pytest.raises(StartupError, match=f"process {os.getpid()}"), serving_alone(url):
            pytest.fail("it was let in")
    with serving_alone(url):
        pass


def test_another_path_to_the_same_file_is_the_same(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    with serving_alone(database_url("", tmp_path / "data")):
        with pytest.raises(StartupError, match="another server"), serving_alone(database_url("", tmp_path / "link")):
            pytest.fail("it was let in")
        with serving_alone(database_url("", tmp_path / "elsewhere")):
            pass


async def test_others_than_servers_can_open_it(tmp_path: Path) -> None:
    url = database_url("", tmp_path)
    with serving_alone(url):
        async with Database.open(url) as db:
            assert await db.run(lambda c: c.dialect.name) == "sqlite"


def test_a_server_of_databases_is_not_locked(tmp_path: Path) -> None:
    with serving_alone("postgresql+psycopg://h/n"), serving_alone("postgresql+psycopg://h/n"):
        pass


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    with pytest.raises(StartupError, match="data: File exists"), serving_alone(database_url("", tmp_path / "data")):
        pytest.fail("it was let in")
