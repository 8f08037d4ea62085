"""`qiyu serve` as a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from qiyu.protocol import accelerator
from raw_clients import HEADER, LOGIN, LOGOUT, body_of, frame

QIYU = [sys.executable, "-m", "qiyu"]
FREE_PORTS = {f"QIYU_{name}__PORT": "0" for name in ("TCP", "WS", "HTTP", "RTMP")}  # RTMP none
PATIENCE_SECONDS = 30


class Process:
    """A server that has said where it listens."""

    def __init__(self, folder: Path, **environ: str) -> None:
        self.errors = folder / "errors.log"
        self.environ = os.environ | FREE_PORTS | {"QIYU_DATA__DIR": str(folder / "data")} | environ
        with self.errors.open("w") as errors:
            self._process = subprocess.Popen(
                [*QIYU, "serve"], cwd=folder, env=self.environ, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        assert self._process.stdout is not None
        self.lines = [self._process.stdout.readline() for _ in range(3)]
        found = [re.fullmatch(r"(tcp|ws|http) +listening on 127\.0\.0\.1:(\d+)\n", line) for line in self.lines]
        self.ports = {match[1]: int(match[2]) for match in found if match}

    def token(self, user: int) -> str:
        """A token by the command line, with the same settings."""
        command = [*QIYU, "token", str(user)]
        done = subprocess.run(command, env=self.environ, check=True, capture_output=True, text=True)
        name, token = done.stdout.split()
        assert name == str(user)
        return token

    def log_in(self, user: int, token: str) -> socket.socket:
        """A TCP client that has its answer."""
        sock = socket.create_connection(("127.0.0.1", self.ports["tcp"]), timeout=PATIENCE_SECONDS)
        sock.sendall(frame(LOGIN, body_of(appId=10001, userId=user, token=token)))
        assert self.packet(sock)[0] == LOGIN
        return sock

    @staticmethod
    def packet(sock: socket.socket) -> tuple[int, dict[str, object]]:
        """The next packet."""
        _, code, length = HEADER.unpack(sock.recv(HEADER.size, socket.MSG_WAITALL))
        body: dict[str, object] = json.loads(sock.recv(length, socket.MSG_WAITALL))
        return code, body

    def stop(self, number: int) -> int:
        """Send a signal; the exit status."""
        self._process.send_signal(number)
        return self.status()

    def status(self) -> int:
        """The exit status, once it has ended."""
        return self._process.wait(PATIENCE_SECONDS)

    def kill(self) -> None:
        """Whatever happened, it does not outlive the test."""
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Process]:
    process = Process(tmp_path, QIYU_LOG__LEVEL="debug")
    yield process
    process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_a_signal_and_says_good_bye(server: Process, number: int) -> None:
    assert set(server.ports) == {"tcp", "ws", "http"}, server.errors.read_text()
    with urllib.request.urlopen(f"http://127.0.0.1:{server.ports['http']}/healthz", timeout=10) as answer:
        assert json.load(answer)["code"] == 200
    token = server.token(10001)
    with server.log_in(10001, token) as sock:
        started = time.monotonic()
        status = server.stop(number)
        assert status == 0
        assert time.monotonic() - started < 5
        events = [json.loads(line) for line in server.errors.read_text().splitlines()]
        (line,) = (line for line in events if line["event"] == "started")
        assert line["accelerator"] == accelerator.STATE
        code, body = server.packet(sock)
        assert code == LOGOUT
        assert json.loads(str(body["data"]))["reason"] == "drain"
        assert sock.recv(1) == b""
    log = server.errors.read_text()
    assert token not in log
    assert token.split("%")[0] not in log
    events = [json.loads(line)["event"] for line in log.splitlines()]  # no terminal: JSON, and nothing else
    assert "logged in" in events
    assert events[-1] == "stopped"


def test_a_second_signal_does_not_wait(server: Process) -> None:
    with server.log_in(10001, server.token(10001)):  # it never closes: good-byes take a second
        started = time.monotonic()
        server._process.send_signal(signal.SIGTERM)
        while '"stopping"' not in server.errors.read_text():
            assert time.monotonic() - started < PATIENCE_SECONDS
        assert server.stop(signal.SIGTERM) == 0


def test_it_makes_a_secret_once_and_says_so(server: Process, tmp_path: Path) -> None:
    secret = tmp_path / "data" / "secret"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert "secret" in server.errors.read_text()
    kept = secret.read_text()
    assert kept.strip() not in server.errors.read_text()
    token = server.token(10001)
    server.stop(signal.SIGTERM)
    again = Process(tmp_path)
    try:
        assert secret.read_text() == kept
        again.log_in(10001, token).close()
        assert "made a secret" not in again.errors.read_text()
    finally:
        again.kill()


def test_killing_it_leaves_nothing_that_hinders_the_next_start(server: Process, tmp_path: Path) -> None:
    server.stop(signal.SIGKILL)
    ports = {f"QIYU_{name.upper()}__PORT": str(port) for name, port in server.ports.items()}
    again = Process(tmp_path, **ports)
    try:
        assert again.ports == server.ports
        assert again.stop(signal.SIGTERM) == 0
    finally:
        again.kill()


@pytest.mark.parametrize(
    ("environ", "status", "said"),
    [
        ({"QIYU_TCP__PORT": "99999"}, 2, "tcp.port = 99999 (from QIYU_TCP__PORT): expected a whole number from 0 to"),
        ({"QIYU_TCP__PROT": "1"}, 2, "did you mean tcp.port?"),
        ({"QIYU_TCP__HOST": "0.0.0.0"}, 2, "auth.secret is empty"),
        ({"QIYU_REDIS__URL": "redis://localhost"}, 2, "auth.secret is empty"),
        ({"QIYU_TCP__HOST": "203.0.113.1", "QIYU_AUTH__SECRET": "x" * 32}, 1, "tcp: cannot listen on 203.0.113.1"),
        ({"QIYU_DATA__DIR": "/dev/null/data"}, 1, "/dev/null"),
        ({"QIYU_CONFIG": "nowhere.toml"}, 2, "nowhere.toml"),
        ({"QIYU_DATABASE__URL": "oracle://host/name"}, 2, "oracle"),
        ({"QIYU_DATABASE__URL": "postgresql://user:hidden@127.0.0.1:1/name"}, 1, "127.0.0.1:1/name"),
    ],
)
def test_what_stops_the_start_is_said_on_one_line(
    tmp_path: Path, environ: dict[str, str], status: int, said: str
) -> None:
    done = subprocess.run(
        [*QIYU, "serve"],
        cwd=tmp_path,
        env=os.environ | FREE_PORTS | environ,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    assert done.returncode == status, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "hidden" not in done.stderr
    assert done.stdout == ""
