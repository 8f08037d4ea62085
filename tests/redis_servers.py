"""Real Redis servers of the tests' own: processes on free ports that keep nothing, and a cluster of three."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest
import redis

SERVERS: Final = ("redis-server", "valkey-server")
SLOTS: Final = 16_384
SECONDS: Final = 20.0


def need_redis_server() -> str:
    """The program; where there is none the test is skipped, but not in CI, which has to have one."""
    for name in SERVERS:
        found = shutil.which(name)
        if found is not None:
            return found
    reason = "no redis-server or valkey-server on PATH: install Debian's package redis-server, or Homebrew's redis"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def wait_until(holds: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < until, f"not within {SECONDS:g} s: {what}"
        time.sleep(0.01)


class RedisServer:
    """A process. It forgets everything when it is stopped, as a cache does."""

    def __init__(self, folder: Path, port: int | None = None, *options: str) -> None:
        self.port = port or free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.client = redis.Redis(port=self.port, socket_timeout=SECONDS)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        words = [need_redis_server(), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir"]
        with Path(self._folder, "log").open("ab") as output:
            self._process = subprocess.Popen([*words, str(self._folder), *self._options], stdout=output, stderr=output)
        wait_until(self._answers, f"redis-server on port {self.port} answers; see {self._folder}/log")

    def stop(self) -> None:
        """At once, with no good-bye."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def close(self) -> None:
        self.stop()
        self.client.close()

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, f"redis-server has ended; see {self._folder}/log"
        with suppress(redis.ConnectionError):
            return bool(self.client.ping())
        return False


@contextmanager
def redis_server(folder: Path) -> Iterator[RedisServer]:
    server = RedisServer(folder)
    server.start()
    try:
        yield server
    finally:
        server.close()


@contextmanager
def redis_cluster(folder: Path, nodes: int = 3) -> Iterator[list[RedisServer]]:
    """So many masters that share the slots."""
    with ExitStack() as stack:
        servers = []
        for n in range(nodes):
            bus = str(free_port())
            options = ("--cluster-enabled", "yes", "--cluster-port", bus, "--cluster-node-timeout", "2000")
            server = RedisServer(folder / str(n), None, *options)
            stack.callback(server.close)
            server.start()
            servers.append(server)
        for n, server in enumerate(servers):
            server.client.execute_command("CLUSTER SET-CONFIG-EPOCH", n + 1)
            slots = range(SLOTS * n // nodes, SLOTS * (n + 1) // nodes)
            server.client.execute_command("CLUSTER ADDSLOTS", *slots)
        first = servers[0]
        for server in servers[1:]:
            bus_port = server.client.config_get("cluster-port")["cluster-port"]
            first.client.execute_command("CLUSTER MEET", "127.0.0.1", server.port, bus_port)
        for server in servers:
            wait_until(
                lambda server=server: (  # type: ignore[misc]
                    server.client.cluster("INFO")["cluster_state"] == "ok"
                    and len(server.client.cluster("NODES")) == nodes
                ),
                "the cluster is whole",
            )
        yield servers
