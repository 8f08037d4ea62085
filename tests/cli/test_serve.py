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


def test_who_reads_nothing_does_not_keep_it_from_stopping(server: Process) -> None:
    with socket.create_connection(("127.0.0.1", server.ports["http"]), timeout=PATIENCE_SECONDS) as sock:
        sock.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 500)
        assert sock.recv(1) == b"H"
        started = time.monotonic()
        assert server.stop(signal.SIGTERM) == 0
        assert time.monotonic() - started < 5


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
        ({"QIYU_REDIS__URL": "redis://localhost"}, 2, "database.url is not that of a database server"),
        ({"QIYU_TCP__HOST": "203.0.113.1", "QIYU_AUTH__SECRET": "x" * 32}, 1, "tcp: cannot listen on 203.0.113.1"),
        ({"QIYU_DATA__DIR": "/dev/null/data"}, 1, "/dev/null"),
        ({"QIYU_CONFIG": "nowhere.toml"}, 2, "nowhere.toml"),
        ({"QIYU_TLS__CERTIFICATE": "a.pem", "QIYU_TLS__KEY": "a.key"}, 1, "tls.certificate: cannot read a.pem"),
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


# SIGHUP


def wait_for(process: Process, text: str, times: int = 1) -> str:
    """The log, once it has this in it."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (log := process.errors.read_text()).count(text) < times:
        assert time.monotonic() < deadline, log
        time.sleep(0.02)
    return log


def test_sighup_reads_the_settings_again(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text("[log]\nlevel = 'warning'\n")
    process = Process(tmp_path)
    try:
        config.write_text("[log]\nlevel = 'debug'\n[limits]\ncontent_chars = 4\n[messages]\ninbox = 5\n")
        process._process.send_signal(signal.SIGHUP)
        log = wait_for(process, "only after a restart")
        events = [json.loads(line) for line in log.splitlines()]
        assert events[-2]["changed"] == ["limits.content_chars", "log.level"]
        assert events[-1]["settings"] == ["messages.inbox"]
        with process.log_in(10001, process.token(10001)):
            wait_for(process, '"logged in"')  # it is a line of debugging
        config.write_text("[limits]\ncontent_chars = -1\nbody_bites = 5\n")
        process._process.send_signal(signal.SIGHUP)
        log = wait_for(process, "stay as they were")
        mistakes = json.loads(log.splitlines()[-1])["mistakes"]
        assert len(mistakes) == 2
        assert "limits.content_chars = -1 (from config.toml): expected" in mistakes[1]
        config.write_text("[tcp]\nhost = '0.0.0.0'\n")
        process._process.send_signal(signal.SIGHUP)
        assert "auth.secret is empty" in wait_for(process, "stay as they were", 2)
        config.write_bytes(b"\xff")
        process._process.send_signal(signal.SIGHUP)
        wait_for(process, "is not UTF-8")
        config.unlink()
        process._process.send_signal(signal.SIGHUP)
        log = wait_for(process, "read the settings again", 2)
        assert process.stop(signal.SIGTERM) == 0
        assert "Traceback" not in log
    finally:
        process.kill()


def test_a_terminal_that_is_closed_stops_what_runs_in_it(tmp_path: Path) -> None:
    """The kernel sends SIGHUP then, which is no wish to read settings."""
    master, slave = os.openpty()
    errors = tmp_path / "errors.log"
    # A session of its own, for which the terminal is the one that controls it.
    imports = "import fcntl, os, sys, termios; "
    program = imports + "os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
    with errors.open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", program, *QIYU, "serve"],
            cwd=tmp_path,
            env=os.environ | FREE_PORTS | {"QIYU_DATA__DIR": str(tmp_path / "data")},
            stdin=slave,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        os.close(slave)
        assert process.stdout is not None
        assert process.stdout.readline().startswith("tcp")
        os.close(master)
        assert process.wait(PATIENCE_SECONDS) == 0, errors.read_text()
        assert "the terminal was closed" in errors.read_text()
    finally:
        process.kill()
        process.communicate()


# Signals during the start


def catches(pid: int, number: int) -> bool:
    """Whether the process has a handler for the signal."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("SigCgt:"):
            return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


def wait_to_catch(process: subprocess.Popen[str], pid: int) -> None:
    """Return at the first moment at which the process would notice SIGTERM."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not catches(pid, signal.SIGTERM):
        assert process.poll() is None
        assert time.monotonic() < deadline


needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="there is no /proc to look at")


@needs_proc
def test_sigterm_while_it_is_being_imported(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*QIYU, "serve"],
        cwd=tmp_path,
        env=os.environ | FREE_PORTS | {"QIYU_DATA__DIR": str(tmp_path / "data")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_to_catch(process, process.pid)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert (process.returncode, out) == (0, "")
    assert [json.loads(line)["event"] for line in err.splitlines()] == ["stopped before it served"]


def test_sigterm_while_the_database_does_not_answer(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        port = deaf.getsockname()[1]
        with (tmp_path / "errors.log").open("w") as errors:
            process = subprocess.Popen(
                [*QIYU, "serve"],
                cwd=tmp_path,
                env=os.environ | FREE_PORTS | {"QIYU_DATABASE__URL": f"postgresql://nobody@127.0.0.1:{port}/none"},
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        deaf.settimeout(PATIENCE_SECONDS)
        with deaf.accept()[0]:
            started = time.monotonic()
            process.send_signal(signal.SIGTERM)
            out, _ = process.communicate(timeout=PATIENCE_SECONDS)
        assert time.monotonic() - started < 5
        assert (process.returncode, out) == (0, "")
        assert "stopped before it served" in (tmp_path / "errors.log").read_text()


# As the first process of a container

UNSHARE = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]


def can_unshare() -> bool:
    try:
        return subprocess.run([*UNSHARE, "true"], capture_output=True, check=False, timeout=60).returncode == 0
    except OSError:
        return False


def child_of(pid: int) -> int:
    """The process that has begun in the namespace, by the number that it has outside."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return int(children[0])


@needs_proc
@pytest.mark.parametrize("moment", ["import", "serving"])
def test_as_process_1(tmp_path: Path, moment: str) -> None:
    """The kernel keeps from process 1 each signal that it has no handler for; and it is the parent of all orphans."""
    if not can_unshare():
        pytest.skip("no namespaces of processes may be made here")
    orphan = "(sleep 0.01 & sleep 0.02 & true); exec "
    with (tmp_path / "errors.log").open("w") as errors:
        process = subprocess.Popen(
            [*UNSHARE, "sh", "-c", orphan + '"$@"', "sh", *QIYU, "serve"],
            cwd=tmp_path,
            env=os.environ | FREE_PORTS | {"QIYU_DATA__DIR": str(tmp_path / "data")},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    try:
        first = child_of(process.pid)
        wait_to_catch(process, first)
        if moment == "serving":
            assert process.stdout is not None
            assert process.stdout.readline().startswith("tcp")
            deadline = time.monotonic() + PATIENCE_SECONDS
            while Path(f"/proc/{first}/task/{first}/children").read_text().split():
                assert time.monotonic() < deadline, "orphans are not taken leave of"
                time.sleep(0.01)
        os.kill(first, signal.SIGTERM)
        assert process.wait(PATIENCE_SECONDS) == 0, (tmp_path / "errors.log").read_text()
        log = (tmp_path / "errors.log").read_text()
        assert json.loads(log.splitlines()[-1])["event"] == (
            "stopped" if moment == "serving" else "stopped before it served"
        )
    finally:
        process.kill()
        process.communicate()
