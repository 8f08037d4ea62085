"""A server process: started on a core of its own, asked what it used, and stopped."""

from __future__ import annotations

import re
import select
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from bench import machine

START_SECONDS: Final = 60
STOP_SECONDS: Final = 15
_LISTENING: Final = re.compile(r"(\w+)\s+listening on .*:(\d+)")


class StartFailed(Exception):
    """A server did not come up; the text says where its own words are."""


class Process:
    """Runs until `stop`. It is to print a line `tcp listening on 127.0.0.1:8085` for each port it has."""

    def __init__(
        self,
        command: Sequence[str],
        ports: set[str],
        log: Path,
        environment: Mapping[str, str],
        folder: str | None = None,
    ) -> None:
        self._command = command
        self._log = log
        with log.open("ab") as stderr:
            self._process = subprocess.Popen(
                [*machine.on_server_core(), *command],
                env=environment,
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=stderr,
                bufsize=0,  # else lines wait in a buffer that `select` does not see
            )
        try:
            self.ports = self._read_ports(ports)
        except StartFailed:
            self.stop()
            raise

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def cpu_seconds(self) -> float:
        """User and system time it has used so far."""
        return machine.cpu_seconds(self.pid)

    def resident_bytes(self) -> int:
        """Memory it holds."""
        return machine.resident_bytes(self.pid)

    def stop(self) -> None:
        """Ask it to stop; after a while, make it."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def _read_ports(self, wanted: set[str]) -> dict[str, int]:
        assert self._process.stdout is not None
        ports: dict[str, int] = {}
        deadline = time.monotonic() + START_SECONDS
        while not wanted <= ports.keys():
            ready, _, _ = select.select([self._process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            line = self._process.stdout.readline().decode(errors="replace") if ready else ""
            if not line:
                raise StartFailed(f"{' '.join(self._command)}: did not start; see {self._log}")
            if match := _LISTENING.match(line):
                ports[match[1]] = int(match[2])
        return ports
