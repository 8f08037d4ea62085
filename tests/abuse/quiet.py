"""One quiet client's round trip, undisturbed and under each flood of little frames."""

from __future__ import annotations

import json
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from abuse.attacks import ATTACKS
from crash.server import ServerProcess
from raw_clients import HEARTBEAT, LOGIN, body_of, frame

FLOODS: Final = ("pings", "pongs", "empty continuations", "empty ACKs", "second LOGINs", "heartbeats")
ROOM: Final = 77
QUIET_USER: Final = 20_000
FIRST_ATTACKER: Final = 30_000
PAUSE_SECONDS: Final = 0.005
START_SECONDS: Final = 20.0


class Quiet:
    """Somebody who is logged in, and sends one heartbeat after the other."""

    def __init__(self, server: ServerProcess) -> None:
        host, port = server.tcp.rsplit(":", 1)
        self._sock = socket.create_connection((host, int(port)), timeout=60)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock.sendall(frame(LOGIN, body_of(appId=10001, userId=QUIET_USER, token=server.token(QUIET_USER))))
        self._sock.recv(4096)

    def round_trips(self, seconds: float) -> list[float]:
        """In milliseconds, sorted."""
        beat = frame(HEARTBEAT, b"{}")
        found = []
        until = time.perf_counter() + seconds
        while (begun := time.perf_counter()) < until:
            self._sock.sendall(beat)
            self._sock.recv(4096)
            found.append(1000 * (time.perf_counter() - begun))
            time.sleep(PAUSE_SECONDS)
        return sorted(found)

    def close(self) -> None:
        """Leave."""
        self._sock.close()


@contextmanager
def attacking(server: ServerProcess, name: str, count: int, room: int, seconds: float) -> Iterator[None]:
    """So many connections attack while this lasts."""
    people = [(user, server.token(user)) for user in range(FIRST_ATTACKER, FIRST_ATTACKER + count)]
    task = {
        "attack": name,
        "address": server.ws if ATTACKS[name].websocket else server.tcp,
        "room": room,
        "people": people,
        "seconds": seconds,
    }
    command = [sys.executable, "-m", "abuse.attacks"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(task) + "\n")
        process.stdin.flush()
        if process.stdout.readline() != "ready\n":
            raise RuntimeError(f"{name}: the attack could not begin")
        yield
    finally:
        process.kill()
        process.communicate()


def percentile(values: list[float], of_hundred: int) -> float:
    """Of sorted values."""
    return values[min(len(values) - 1, len(values) * of_hundred // 100)]


def measure(server: ServerProcess, seconds: float, names: tuple[str, ...], counts: tuple[int, ...]) -> bool:
    """Print a line for each flood; whether all are within what is wanted."""
    quiet = Quiet(server)
    quiet.round_trips(0.5)
    undisturbed = quiet.round_trips(seconds)
    bound = max(3 * statistics.median(undisturbed), 5.0)
    say(f"{'undisturbed':34} {line_of(undisturbed)}")
    is_good = True
    for name in names:
        for count in counts:
            with attacking(server, name, count, ROOM, 10 * seconds + 10):
                time.sleep(0.3)
                found = quiet.round_trips(seconds)
            late = percentile(found, 50) > bound
            is_good = is_good and not late
            say(f"{f'{name}, {count}':34} {line_of(found)}{'  TOO LATE' if late else ''}")
            time.sleep(0.3)
    quiet.close()
    return is_good


def say(line: str) -> None:
    """Now, though nobody may be looking."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def line_of(values: list[float]) -> str:
    """The figures of one line."""
    return f"p50 {percentile(values, 50):8.2f} ms   p99 {percentile(values, 99):8.2f} ms   n {len(values)}"
