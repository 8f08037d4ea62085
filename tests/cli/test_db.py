from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from qiyu.cli.db import db
from qiyu.errors import ConfigError
from qiyu.storage.migrate import latest

runner = CliRunner()
HEAD = latest()

cli = typer.Typer()
cli.add_typer(db)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_it_says_where_the_tables_are_and_brings_them_up_to_date() -> None:
    for command, status, printed in (
        ("current", 1, f"empty (needed: {HEAD})\n"),
        ("upgrade", 0, f"empty -> {HEAD}\n"),
        ("upgrade", 0, f"{HEAD} (was up to date)\n"),
        ("current", 0, f"{HEAD} (up to date)\n"),
    ):
        done = runner.invoke(cli, ["db", command])
        assert (done.exit_code, done.stdout, done.stderr) == (status, printed, "")
    assert Path("data/qiyu.db").exists()


def test_a_newer_database_is_one_line() -> None:
    runner.invoke(cli, ["db", "upgrade"])
    with sqlite3.connect("data/qiyu.db") as connection:
        connection.execute("UPDATE t_qiyu_version SET version_num = '9999'")
    connection.close()
    done = runner.invoke(cli, ["db", "upgrade"])
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("qiyu: the database is at revision 9999")
    assert done.stderr.count("\n") == 1
    assert runner.invoke(cli, ["db", "current"]).stdout == f"9999 (needed: {HEAD})\n"


def test_a_database_that_is_not_there_is_one_line() -> None:
    Path("data").touch()
    done = runner.invoke(cli, ["db", "current"])
    assert (done.exit_code, done.stdout, done.stderr) == (1, "", "qiyu: data: File exists\n")


def test_it_takes_the_settings_of_a_file() -> None:
    Path("other.toml").write_text('[data]\ndir = "elsewhere"\n')
    assert runner.invoke(cli, ["db", "upgrade", "--config", "other.toml"]).exit_code == 0
    assert Path("elsewhere/qiyu.db").exists()
    Path("wrong.toml").write_text('[database]\nurl = "oracle://h/n"\n')
    done = runner.invoke(cli, ["db", "upgrade", "--config", "wrong.toml"])
    assert isinstance(done.exception, ConfigError)


def test_a_backup_is_a_database_and_replaces_nothing() -> None:
    runner.invoke(cli, ["db", "upgrade"])
    done = runner.invoke(cli, ["db", "backup", "copy.db"])
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == f"wrote copy.db ({Path('copy.db').stat().st_size} bytes)\n"
    with sqlite3.connect("copy.db") as connection:
        assert connection.execute("SELECT version_num FROM t_qiyu_version").fetchall() == [(HEAD,)]
    connection.close()
    done = runner.invoke(cli, ["db", "backup", "copy.db"])
    assert (done.exit_code, done.stderr) == (1, "qiyu: copy.db: is there already, and is left as it is\n")
    done = runner.invoke(cli, ["db", "backup", "nowhere/copy.db"])
    assert (done.exit_code, done.stderr) == (1, "qiyu: nowhere/copy.db.unfinished: No such file or directory\n")


@pytest.mark.parametrize(
    ("url", "tool"), [("postgresql://u@h/n", "pg_dump"), ("mariadb://u@h/n", "mariadb-dump or mysqldump")]
)
def test_a_database_on_a_server_has_tools_of_its_own(monkeypatch: pytest.MonkeyPatch, url: str, tool: str) -> None:
    monkeypatch.setenv("QIYU_DATABASE__URL", url)
    done = runner.invoke(cli, ["db", "backup", "copy.db"])
    assert (done.exit_code, done.stderr) == (1, f"qiyu: the database is on a server: back it up with {tool}\n")
    assert not Path("copy.db").exists()


def test_without_a_database_there_is_no_backup() -> None:
    done = runner.invoke(cli, ["db", "backup", "copy.db"])
    assert done.exit_code == 1
    assert "unable to open database file" in done.stderr
    assert not Path("copy.db").exists()
