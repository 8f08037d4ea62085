"""The server as a process, to be killed and started again in the same folder and on the same ports."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

import trio

from qiyu.services.tokens import Tokens

SECRET: Final = "a secret for the crash program alone"
UNLIMITED: Final = [
    f"QIYU_LIMITS__{name}"
    for name in ("MESSAGES_PER_SECOND", "PACKETS_PER_SECOND", "LOGINS_PER_SECOND", "CONNECTIONS_PER_ADDRESS")
]
START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 10.0
SUSPICIOUS: Final = ("Traceback", "because of a bug", "[error", "[critical")


class StartFailed(Exception):
    """The process ended, or did not say that it listens."""


class Server(Protocol):
    """What clients and the run need of it, be it one process or several."""

    folder: Path

    @property
    def tcp(self) -> str: ...
    @property
    def ws(self) -> str: ...
    @property
    def pid(self) -> int: ...
    @property
    def has_ended(self) -> bool: ...
    def token(self, user: int) -> str: ...
    async def start(self, nursery: trio.Nursery) -> None: ...
    def kill(self) -> None: ...
    async def stop(self) -> int: ...
    def complaints(self) -> list[str]: ...


class ServerProcess:
    """`qiyu serve` with its data in `folder`; what it writes is kept in server.log there."""

    def __init__(
        self,
        folder: Path,
        database_url: str,
        more: Mapping[str, str] = types.MappingProxyType({}),
        checkout: Path | None = None,
    ) -> None:
        """`more` are settings, without their `QIYU_`; `checkout` has the server that runs, if that is not this one."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.log = folder / "server.log"
        ports = _free_ports(3)
        self._tcp, self._ws, self.http = (f"127.0.0.1:{port}" for port in ports)
        names = ("TCP", "WS", "HTTP")
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("QIYU_")} | {
            **{f"QIYU_{name}__PORT": str(port) for name, port in zip(names, ports, strict=True)},
            "QIYU_RTMP__PORT": "0",
            "QIYU_DATA__DIR": str(folder / "data"),
            "QIYU_DATABASE__URL": database_url,
            "QIYU_AUTH__SECRET": SECRET,
            "QIYU_LIVING__REQUIRE_OPEN_ROOM": "false",
            **dict.fromkeys(UNLIMITED, "0"),
            **{f"QIYU_{name}": value for name, value in more.items()},
            **({"PYTHONPATH": str(checkout.resolve() / "src")} if checkout is not None else {}),
        }
        self._tokens = Tokens(SECRET, 300)
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: trio.CancelScope | None = None

    @property
    def tcp(self) -> str:
        return self._tcp

    @property
    def ws(self) -> str:
        return self._ws

    def token(self, user: int) -> str:
        """A token that is good for five minutes."""
        return self._tokens.issue(user, now_ms=time.time_ns() // 1_000_000)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """It was started, and is there no more."""
        return self._process is not None and self._process.poll() is not None

    async def start(self, nursery: trio.Nursery) -> None:
        """Returns when it listens. Raises `StartFailed`."""
        self._process = self._spawn()
        assert self._process.stdout is not None
        output = trio.lowlevel.FdStream(os.dup(self._process.stdout.fileno()))
        self._process.stdout.close()
        listening = trio.Event()
        nursery.start_soon(self._keep, output, listening)
        with trio.move_on_after(START_SECONDS):
            await listening.wait()
        if self.has_ended or not listening.is_set():
            self.kill()
            raise StartFailed(f"see {self.log}")

    def _spawn(self) -> subprocess.Popen[bytes]:
        # A pipe, for a limit on the size of its files is not to be one on its log.
        return subprocess.Popen(
            [sys.executable, "-m", "qiyu", "serve"],
            cwd=self.folder,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def kill(self) -> None:
        """SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    async def stop(self) -> int:
        """SIGTERM; returns its exit code, or 137 if it had to be killed."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        with trio.move_on_after(STOP_SECONDS):
            await trio.to_thread.run_sync(self._process.wait, abandon_on_cancel=True)
            return self._process.returncode
        self.kill()
        return 137

    def complaints(self) -> list[str]:
        """Lines of its log that no server should write, whatever is done to it."""
        if not self.log.exists():
            return []
        lines = self.log.read_text(errors="replace").splitlines()
        return [line for line in lines if any(each in line for each in SUSPICIOUS)]

    async def _keep(self, output: trio.lowlevel.FdStream, listening: trio.Event) -> None:
        """Copy its log; the last listener's line says that all of them listen."""
        head = b""
        with self.log.open("ab") as file:
            async with output:
                async for data in output:
                    file.write(data)
                    file.flush()
                    if not listening.is_set():
                        head += data
                        if b"http listening on" in head:
                            listening.set()
        listening.set()


def _free_ports(number: int) -> Sequence[int]:
    sockets = [socket.socket() for _ in range(number)]
    try:
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]
    finally:
        for sock in sockets:
            sock.close()
