from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest
import trio
import typer
from argon2 import PasswordHasher
from argon2.profiles import CHEAPEST
from typer.testing import CliRunner, Result

from qiyu.accounts import passwords
from qiyu.accounts.accounts import Accounts
from qiyu.accounts.passwords import Passwords
from qiyu.cli import user as command
from qiyu.drivers.clock import read_clock
from qiyu.errors import CallRefused
from qiyu.storage.database import Database, database_url
from qiyu.storage.users import User

T = TypeVar("T")

runner = CliRunner()
PASSWORD = "correct horse"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(passwords, "default_hasher", lambda: PasswordHasher.from_parameters(CHEAPEST))


def run(*arguments: str, stdin: str = "") -> Result:
    return runner.invoke(command.user, arguments, input=stdin)


def done(*arguments: str, stdin: str = "") -> str:
    """Of a command that succeeded, what it printed."""
    result = run(*arguments, stdin=stdin)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*arguments: str, stdin: str = "") -> str:
    """Of a command that did not, the one line that says why."""
    result = run(*arguments, stdin=stdin)
    assert (result.exit_code, result.stdout) == (1, "")
    [line] = result.stderr.splitlines()
    assert line.startswith("qiyu: ")
    return line.removeprefix("qiyu: ")


def with_accounts(work: Callable[[Accounts], Awaitable[T]]) -> T:
    """As a running server would."""

    async def opened() -> T:
        async with Database.open(database_url("", Path("data"))) as database:
            return await work(Accounts(database, Passwords(trio.to_thread.run_sync)))

    return trio.run(opened)


def log_in(name: str, password: str) -> int:
    async def work(accounts: Accounts) -> int:
        return (await accounts.log_in(name, password, address="", now=read_clock())).user_id

    return with_accounts(work)


def test_an_account_is_added_and_can_log_in() -> None:
    user_id = int(done("add", "ann", stdin=f"{PASSWORD}\nnot read\n"))
    assert log_in("ann", PASSWORD) == user_id
    assert done("list") == f"{user_id}\tann\tann\t\n"


def test_everything_about_an_account_can_be_said_at_once() -> None:
    user_id = done("add", "Ann", "--vip", "--nick-name", "李雷", "--avatar", "/a.png", stdin=PASSWORD).strip()
    assert done("list") == f"{user_id}\tAnn\t李雷\tvip\n"


@pytest.mark.parametrize(
    ("arguments", "password", "reason"),
    [
        (["a"], PASSWORD, "name: expected 2 to 30"),
        (["ann"], "short", "password: expected 8 to 128"),
        (["ann"], "", "password: expected 8 to 128"),
        (["ann", "--avatar", "x"], PASSWORD, "avatar: expected"),
        (["bob"], PASSWORD, "the name 'bob' is taken"),
        (["BOB"], PASSWORD, "the name 'BOB' is taken"),
    ],
)
def test_what_cannot_be_added(arguments: list[str], password: str, reason: str) -> None:
    done("add", "bob", stdin=PASSWORD)
    line = refused("add", *arguments, stdin=password)
    assert line.startswith(reason)
    assert not password or password not in line


def test_a_password_is_no_argument() -> None:
    assert run("add", "ann", PASSWORD).exit_code == 2
    assert "--password" not in run("add", "--help").output


def test_on_a_terminal_the_password_is_asked_for_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, object]] = []

    def prompt(_text: str, **how: object) -> str:
        asked.append(how)
        return PASSWORD

    class Terminal:
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(typer, "prompt", prompt)
    monkeypatch.setattr("sys.stdin", Terminal())
    command.add("ann")
    assert log_in("ann", PASSWORD)
    assert asked == [{"hide_input": True, "confirmation_prompt": True, "err": True}]


def test_tags() -> None:
    done("add", "ann", stdin=PASSWORD)
    done("tag", "ANN", "vip")
    assert done("list").endswith("\tvip\n")
    assert run("tag", "ann", "vip").stderr == "ann had the tag vip already\n"
    done("untag", "ann", "vip")
    assert done("list").endswith("\t\n")
    assert run("untag", "ann", "vip").stderr == "ann did not have the tag vip\n"
    assert refused("tag", "ann", "vpi") == "tag 'vpi': expected vip"
    assert refused("tag", "bob", "vip") == "there is no account named 'bob'"


def test_a_new_password_ends_the_sessions() -> None:
    done("add", "ann", stdin=PASSWORD)

    async def session(accounts: Accounts) -> str:
        return (await accounts.log_in("ann", PASSWORD, address="", now=read_clock())).token

    token = with_accounts(session)
    done("password", "ann", stdin="battery staple\r\n")
    assert log_in("ann", "battery staple")
    with pytest.raises(CallRefused):
        log_in("ann", PASSWORD)

    async def user(accounts: Accounts) -> User | None:
        return await accounts.user_of(token, read_clock())

    assert with_accounts(user) is None
    assert refused("password", "ann", stdin="short") == "password: expected 8 to 128 characters"
    assert refused("password", "bob", stdin=PASSWORD) == "there is no account named 'bob'"


def test_a_list_of_none_and_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    assert done("list") == ""
    for number in range(5):
        done("add", f"user{number}", stdin=PASSWORD)
    monkeypatch.setattr(command, "PAGE", 2)
    assert [line.split("\t")[1] for line in done("list").splitlines()] == [f"user{number}" for number in range(5)]


def test_on_a_terminal_the_list_is_a_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    done("add", "[red]", "--vip", stdin=PASSWORD)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    command.list_all()
    printed = capsys.readouterr().out
    for text in ("userId", "nickName", "[red]", "vip"):
        assert text in printed


def test_a_database_that_cannot_be_used() -> None:
    Path("data").mkdir()
    Path("data/qiyu.db").mkdir()
    assert "qiyu.db" in refused("list")
    Path("data/qiyu.db").rmdir()
    with sqlite3.connect("data/qiyu.db") as connection:
        connection.execute("CREATE TABLE t_qiyu_version (version_num VARCHAR(32))")
        connection.execute("INSERT INTO t_qiyu_version VALUES ('9999')")
    connection.close()
    assert "9999" in refused("list")
