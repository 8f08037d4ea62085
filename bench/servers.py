"""Who is measured: qiyu (this checkout's, and another's beside it), the floor, and peers on the same work."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Flag, auto
from functools import partial
from pathlib import Path
from typing import Final

from bench.process import Process, StartFailed
from bench.wires import Wire
from bench.wires.tcp import Tcp
from bench.wires.websocket import WebSocket

HERE: Final = Path(__file__).parent
FIRST_USER: Final = 10_000
FLOOR_SEND, FLOOR_COALESCE = "floor, a send each", "floor, coalescing"


class Can(Flag):
    """What a server serves."""

    ROOM = auto()
    DIRECT = auto()
    HEARTBEAT = auto()
    STORE = auto()  # receipts, and what was missed: only who keeps messages

    BARE = ROOM | DIRECT | HEARTBEAT
    ALL = BARE | STORE


@dataclass
class Server:
    """A server that runs."""

    name: str
    process: Process
    wires: Mapping[str, tuple[Wire, str]]
    """By the name that figures are filed under: the wire, and the port it is spoken on."""
    tokens: Mapping[int, str] = field(default_factory=dict)
    folder: tempfile.TemporaryDirectory[str] | None = None

    def address(self, wire: str) -> tuple[str, int]:
        """Where to connect to."""
        return "127.0.0.1", self.process.ports[self.wires[wire][1]]

    def stop(self) -> None:
        """Stop it, and remove what it kept."""
        self.process.stop()
        if self.folder is not None:
            self.folder.cleanup()


@dataclass(frozen=True)
class Kind:
    """A server that can be started."""

    name: str
    can: Can
    wires: frozenset[str]
    start: Callable[[], Server]
    is_peer: bool = False
    speaks_qiyu: bool = True
    """On the wire, from the login on as docs/protocol.md has it: what the clients in C need."""


def qiyu(
    name: str, source: Path | None, settings: Mapping[str, str], users: int, output: Path, *, pure: bool = False
) -> Kind:
    """`qiyu serve` with no limits, for so many users; from the checkout `source`, or wherever this Python has it.

    `pure`: without the accelerator.
    """

    def start() -> Server:
        # Beside the results, not on /tmp, which is memory on many machines: writes are part of the work.
        folder = tempfile.TemporaryDirectory(prefix="data-", dir=output)
        environment = _environment(folder.name, settings, source) | ({"QIYU_PURE_PYTHON": "1"} if pure else {})
        command = [sys.executable, "-m", "qiyu"]
        log = output / f"{_file_name(name)}.log"
        try:
            # In its own folder, so that no config.toml has a say.
            process = Process([*command, "serve"], {"tcp", "ws", "http"}, log, environment, folder.name)
        except StartFailed:
            folder.cleanup()
            raise
        ids = f"{FIRST_USER}-{FIRST_USER + users - 1}"
        made = subprocess.run(
            [*command, "token", ids], env=environment, cwd=folder.name, check=True, capture_output=True, text=True
        )
        tokens = {int(user): token for user, token in map(str.split, made.stdout.splitlines())}
        return Server(name, process, {"tcp": (Tcp(), "tcp"), "websocket": (WebSocket(), "ws")}, tokens, folder)

    return Kind(name, Can.ALL, frozenset({"tcp", "websocket"}), start)


def accelerator(source: Path | None) -> str:
    """Whether that checkout's qiyu has its accelerator on, in its own words."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "qiyu", "config"]
        environment = _environment(folder, {}, source)
        done = subprocess.run(command, env=environment, cwd=folder, check=True, capture_output=True, text=True)
    return next((line.partition(": ")[2] for line in done.stdout.splitlines() if "# the accelerator" in line), "none")


def _environment(folder: str, settings: Mapping[str, str], source: Path | None) -> dict[str, str]:
    """No limits, any room, any port; and tokens and sessions that outlast a long run."""
    ours = {
        "LIMITS__MESSAGES_PER_SECOND": "0",
        "LIMITS__PACKETS_PER_SECOND": "0",
        "LIMITS__LOGINS_PER_SECOND": "0",
        "LIMITS__CONNECTIONS_PER_ADDRESS": "0",
        "LIVING__REQUIRE_OPEN_ROOM": "false",
        "AUTH__TOKEN_SECONDS": "86400",
        "SESSION__HEARTBEAT_SECONDS": "3600",
        "TCP__PORT": "0",
        "WS__PORT": "0",
        "HTTP__PORT": "0",
        "RTMP__PORT": "0",
        "DATA__DIR": folder,
    }
    environment = {name: value for name, value in os.environ.items() if not name.upper().startswith("QIYU_")}
    if source is not None:
        environment["PYTHONPATH"] = str(source.resolve() / "src")
        known = (source / "config.toml").read_text()
        for name in ("RTMP__PORT", "LIMITS__PACKETS_PER_SECOND", "LIMITS__LOGINS_PER_SECOND"):
            section, _, key = name.lower().partition("__")
            if f"[{section}]" not in known or f"#{key} =" not in known:
                del ours[name]  # an older version does not start with a setting it does not know
    return environment | {f"QIYU_{name}": value for name, value in (ours | dict(settings)).items()}


def floors(output: Path) -> list[Kind]:
    """The C server, sending to each receiver at once, and coalescing as qiyu does. Empty without a compiler."""
    program = compiled(HERE / "floor.c", output)
    if program is None:
        return []

    def kind(name: str, mode: str) -> Kind:
        start = partial(_plain, name, [str(program), "0", mode], output, Tcp())
        return Kind(name, Can.BARE, frozenset({"tcp"}), start)

    return [kind(FLOOR_SEND, "send"), kind(FLOOR_COALESCE, "coalesce")]


def compiled(source: Path, folder: Path) -> Path | None:
    """The program of a C file; None without a compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return None
    program = folder / source.stem
    subprocess.run([compiler, "-O2", "-Wall", "-Wextra", "-o", str(program), str(source)], check=True)
    return program


def peer(name: str, command: list[str], output: Path, speaks: Wire) -> Kind:
    """Another server on the same room work (bench/rivals/)."""
    ours = isinstance(speaks, Tcp | WebSocket)
    start = partial(_plain, name, command, output, speaks)
    return Kind(name, Can.ROOM, frozenset({speaks.name}), start, is_peer=True, speaks_qiyu=ours)


def _plain(name: str, command: list[str], output: Path, speaks: Wire) -> Server:
    environment = dict(os.environ) | {"PYTHONPATH": str(HERE.parent), "PYTHONUNBUFFERED": "1"}
    port = "tcp" if speaks.name == "tcp" else "ws"
    process = Process(command, {port}, output / f"{_file_name(name)}.log", environment)
    return Server(name, process, {speaks.name: (speaks, port)})


def _file_name(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name)
