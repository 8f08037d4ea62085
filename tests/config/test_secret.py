from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from qiyu.config.secret import load_or_create_secret
from qiyu.errors import ConfigError, StartupError


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_is_made_once_and_then_read(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "data"
    secret, created = load_or_create_secret(folder)
    assert created
    assert len(secret) == 43
    assert load_or_create_secret(folder) == (secret, False)
    assert stat.S_IMODE((folder / "secret").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert names(folder) == ["secret"]


def test_processes_that_start_at_once_agree(tmp_path: Path) -> None:
    results: list[tuple[str, bool]] = []
    start = threading.Barrier(8)

    def run() -> None:
        start.wait()
        results.append(load_or_create_secret(tmp_path / "data"))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({secret for secret, _ in results}) == 1
    assert sorted(created for _, created in results) == [False] * 7 + [True]
    assert names(tmp_path / "data") == ["secret"]


def test_who_comes_second_takes_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = Path.hardlink_to

    def lose_the_race(path: Path, target: Path) -> None:
        path.touch(0o600)
        path.write_text("the secret of who was first\n")
        link(path, target)

    monkeypatch.setattr(Path, "hardlink_to", lose_the_race)
    assert load_or_create_secret(tmp_path) == ("the secret of who was first", False)
    assert names(tmp_path) == ["secret"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_others_can_read_it(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "secret"
    path.write_text("a secret long enough\n")
    path.chmod(mode)
    with pytest.raises(ConfigError, match=rf"mode {mode:04o}.*chmod 600 {path}"):
        load_or_create_secret(tmp_path)
    path.chmod(0o600)
    assert load_or_create_secret(tmp_path) == ("a secret long enough", False)


@pytest.mark.parametrize("content", [b"", b"short", b" " * 40, b"\xff" * 40])
def test_it_is_no_secret(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "secret"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError, match=r"at least 16 characters\. Delete it") as caught:
        load_or_create_secret(tmp_path)
    assert "short" not in str(caught.value).replace(str(path), "")


def test_the_folder_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    with pytest.raises(StartupError, match=f"{tmp_path}/data/secret: Not a directory"):
        load_or_create_secret(tmp_path / "data")


def test_the_secret_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    with pytest.raises(ConfigError, match=f"{tmp_path}/secret: is not a file"):
        load_or_create_secret(tmp_path)


def test_the_secret_is_a_pipe_that_nobody_writes_to(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "secret", 0o600)
    with pytest.raises(ConfigError, match=f"{tmp_path}/secret: is not a file"):
        load_or_create_secret(tmp_path)


@pytest.mark.parametrize("call", ["open", "fsync"])
def test_the_folder_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def refuse(*_: object) -> int:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(StartupError, match=f"{tmp_path}/secret: Read-only file system"):
        load_or_create_secret(tmp_path)
    monkeypatch.undo()
    assert names(tmp_path) == []


def test_a_file_that_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "secret").symlink_to("/dev/null")
    with pytest.raises(ConfigError, match="is not a file"):
        load_or_create_secret(tmp_path)
