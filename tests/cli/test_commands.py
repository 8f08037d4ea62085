"""The commands that do one thing and end."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from qiyu.__main__ import cli, main
from qiyu.cli.commands import COMMANDS, load
from qiyu.config import Settings, load_settings
from qiyu.errors import ConfigError
from qiyu.protocol import accelerator
from qiyu.services.tokens import Tokens

runner = CliRunner()
SECRET = "a secret for tests alone"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_token_prints_a_line_for_each_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QIYU_AUTH__SECRET", SECRET)
    done = runner.invoke(cli, ["token", "10000-10004", "--app", "10002", "--name", "一"])
    assert done.exit_code == 0, done.output
    lines = [line.split(" ") for line in done.stdout.splitlines()]
    assert [user for user, _ in lines] == ["10000", "10001", "10002", "10003", "10004"]
    for user, token in lines:
        identity = Tokens(SECRET, 300).verify(
            token, user_id=int(user), app_id=10002, now_ms=time.time_ns() // 1_000_000
        )
        assert identity.nickname == "一"


@pytest.mark.parametrize("arguments", [["5"], ["x"], ["10002-10001"], ["10001", "--app", "5"]])
def test_token_refuses_what_can_be_no_user(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QIYU_AUTH__SECRET", SECRET)
    done = runner.invoke(cli, ["token", *arguments])
    assert done.exit_code == 2
    assert "expected" in re.sub(r"[\s│]+", " ", done.output)


def test_config_check_looks_at_the_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QIYU_TLS__CERTIFICATE", "none.pem")
    monkeypatch.setenv("QIYU_TLS__KEY", "none.key")
    done = runner.invoke(cli, ["config", "check"])
    assert isinstance(done.exception, ConfigError)
    assert str(done.exception) == "tls.certificate: cannot read none.pem: No such file or directory"


def test_config_prints_toml_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QIYU_AUTH__SECRET", SECRET)
    monkeypatch.setenv("QIYU_TCP__PORT", "9000")
    Path("other.toml").write_text("[ws]\nport = 9001\n")
    done = runner.invoke(cli, ["config", "--config", "other.toml"])
    assert done.exit_code == 0, done.output
    printed = tomllib.loads(done.stdout)
    assert (printed["tcp"]["port"], printed["ws"]["port"], printed["http"]["port"]) == (9000, 9001, 8080)
    assert SECRET not in done.output
    assert printed["auth"]["secret"]
    assert done.stdout.endswith(f"\n# the accelerator (docs/performance.md): {accelerator.STATE}\n")


def test_config_says_when_the_accelerator_is_switched_off() -> None:
    command = [sys.executable, "-m", "qiyu", "config"]
    environ = os.environ | {"QIYU_PURE_PYTHON": "1"}
    done = subprocess.run(command, env=environ, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1].endswith(": off, by QIYU_PURE_PYTHON")
    assert done.stderr == ""


def test_a_wrong_setting_is_an_error_of_whoever_runs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("QIYU_TCP__PORT", "many")
    assert isinstance(runner.invoke(cli, ["config"]).exception, ConfigError)
    monkeypatch.setattr("sys.argv", ["qiyu", "config"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert 'tcp.port = "many" (from QIYU_TCP__PORT)' in capsys.readouterr().err


def test_it_tells_its_version_and_its_commands() -> None:
    assert re.fullmatch(r"qiyu \d+\.\d+\.\d+\n", runner.invoke(cli, ["--version"]).stdout)
    text = runner.invoke(cli, ["--help"]).output
    for command in ("serve", "chat", "token", "config"):
        assert command in text


def test_config_init_writes_a_file_to_begin_with_once(tmp_path: Path) -> None:
    done = runner.invoke(cli, ["config", "init"])
    assert (done.exit_code, done.stdout) == (0, "wrote config.toml\n")
    text = Path("config.toml").read_text("utf-8")
    assert "#port = 8085" in text
    assert load_settings(Path("config.toml"), {}) == Settings()
    Path("config.toml").write_text("[tcp]\nport = 1\n")
    refused = runner.invoke(cli, ["config", "init"])
    assert isinstance(refused.exception, ConfigError)
    assert Path("config.toml").read_text("utf-8") == "[tcp]\nport = 1\n"
    assert isinstance(runner.invoke(cli, ["config", "init", "nowhere/x.toml"]).exception, ConfigError)


def test_config_check(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("a.toml").write_text("[tcp]\nport = 9000\n")
    done = runner.invoke(cli, ["config", "check", "--config", "a.toml"], env={"QIYU_TCP_PORT": "1"})
    assert (done.exit_code, done.stdout) == (0, "the settings are fine (a.toml)\n")
    assert "did you mean QIYU_TCP__PORT" in done.stderr
    Path("a.toml").write_text("[tcp]\nhost = '0.0.0.0'\n")
    assert "auth.secret is empty" in str(runner.invoke(cli, ["config", "check", "--config", "a.toml"]).exception)
    Path("a.toml").write_text("[tcp]\nport = 'x'\n[ws]\nprot = 1\n")
    mistakes = str(runner.invoke(cli, ["config", "check", "--config", "a.toml"]).exception)
    assert "tcp.port" in mistakes
    assert "ws.prot" in mistakes


def test_help_says_of_each_command_what_the_command_says_of_itself() -> None:
    for name, summary in COMMANDS.items():
        assert (load(name).help or "").partition("\n")[0] == summary
    assert sorted(COMMANDS) == sorted(
        path.stem
        for path in Path(load.__code__.co_filename).parent.glob("[!_]*.py")
        if path.stem not in {"commands", "options", "pipe", "shown", "terminal"}
    )


def test_a_command_that_is_none() -> None:
    done = runner.invoke(cli, ["sreve"])
    assert done.exit_code == 2
    assert "No such command 'sreve'" in done.output


LOADED = """
import sys
from qiyu.__main__ import main
sys.argv = ["qiyu", *{arguments!r}]
try:
    main()
except SystemExit as stopped:
    assert not stopped.code, stopped.code
print(" ".join(sys.modules), file=sys.stderr)
"""


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["config"], ["token", "10001"]], ids=" ".join)
def test_what_is_asked_often_does_not_wait_for_the_server_to_load(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED.format(arguments=arguments)],
        capture_output=True,
        text=True,
        check=True,
        env={"QIYU_AUTH__SECRET": SECRET, "PATH": ""},
    )
    loaded = set(done.stderr.split())
    assert "qiyu.cli.commands" in loaded
    assert not loaded & {"trio", "sqlalchemy", "quart", "hypercorn", "qiyu.app", "qiyu.run", "qiyu.client", "structlog"}
