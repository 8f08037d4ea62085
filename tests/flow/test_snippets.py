"""The programs of the README and in examples/ go on after their token has expired and their server was away.

The one for browsers runs in one: browser/test_snippet.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from browser.house import PASSWORD, SECRET, House
from documents import ROOT, blocks

USER = 10001
"""Of the programs."""
TOKEN_SECONDS = 1
PATIENCE_SECONDS = 60


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path, auth__token_seconds=TOKEN_SECONDS, living__require_open_room="false")
    house.start()
    yield house
    house.stop()


class Program:
    """One of them, and what it has printed."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process = process
        self._log = log

    def until_it_printed(self, text: str, do: Callable[[], object] = lambda: None) -> None:
        """Wait for it, doing something in between."""
        until = time.monotonic() + PATIENCE_SECONDS
        while text not in self._log.read_text():
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < until, self._log.read_text()
            do()
            time.sleep(0.1)


@contextmanager
def program(house: House, command: list[str], **environ: str) -> Iterator[Program]:
    log = house.folder / "program.log"
    env = {name: value for name, value in os.environ.items() if not name.upper().startswith("QIYU_")}
    env |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}",
        "QIYU_DATA__DIR": str(house.folder),
        "QIYU_AUTH__SECRET": SECRET,
        "QIYU_AUTH__TOKEN_SECONDS": str(TOKEN_SECONDS),
    }
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=env | environ, cwd=house.folder)
    try:
        yield Program(process, log)
    finally:
        process.kill()
        process.wait()


def here(house: House, code: str) -> str:
    """With the ports of this server."""
    for name, port in {"tcp": 8085, "ws": 8086, "http": 8080}.items():
        code = code.replace(f"127.0.0.1:{port}", f"127.0.0.1:{house.ports[name]}")
    return code


def goes_on(house: House, running: Program) -> None:
    """It hears others now, and when the server has been away for longer than its token was good."""
    person = house.person()
    assert person.user_id != USER
    with house.tcp(person, 1) as other:
        running.until_it_printed("now", lambda: other.say(1, "now"))
    house.stop()
    time.sleep(TOKEN_SECONDS)
    house.start()
    with house.tcp(person, 1) as other:
        running.until_it_printed("later", lambda: other.say(1, "later"))


def test_the_python_of_the_readme(house: House) -> None:
    (code,) = blocks("README.md", "python")
    path = house.folder / "snippet.py"
    path.write_text(here(house, code))
    with program(house, [sys.executable, str(path)]) as running:
        goes_on(house, running)


def test_the_room_chat_of_the_examples(house: House) -> None:
    path = house.folder / "example.py"
    path.write_text(here(house, (ROOT / "examples" / "tcp_room_chat.py").read_text()))
    with program(house, [sys.executable, str(path), "10001", "1"]) as running:
        goes_on(house, running)


def test_the_direct_chat_of_the_examples(house: House) -> None:
    path = house.folder / "example.py"
    path.write_text(here(house, (ROOT / "examples" / "websocket_direct_chat.py").read_text()))
    echo = house.person("echo")
    with program(house, [sys.executable, str(path), echo.name], ECHO_PASSWORD=PASSWORD) as running:
        running.until_it_printed(f"answering as {echo.user_id}")
        house.stop()
        time.sleep(TOKEN_SECONDS)
        house.start()
        command = [sys.executable, "-m", "qiyu", "chat", "--user", "20000", "--to", str(echo.user_id)]
        env = {name: value for name, value in os.environ.items() if not name.upper().startswith("QIYU_")}
        env |= {"QIYU_DATA__DIR": str(house.folder), "QIYU_AUTH__SECRET": SECRET}
        with subprocess.Popen(
            [*command, "--stay", "--port", str(house.ports["tcp"])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=env,
            cwd=house.folder,
        ) as talking:
            assert talking.stdin is not None
            assert talking.stdout is not None
            talking.stdin.write(b"hello\n")
            talking.stdin.flush()
            assert talking.stdout.readline() == f"{echo.user_id} (echo): you said: hello\n".encode()
            talking.terminate()
