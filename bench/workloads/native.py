"""The room workload with clients in C (crowd.c), which were written from docs/protocol.md and share nothing with these.

A second opinion: whatever is an artefact of one generator is not seen by the other.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Final

from bench.clients import PATIENCE_SECONDS, Fault
from bench.figures import SATURATED, Figures
from bench.servers import FIRST_USER, HERE, Server, compiled
from bench.wires import SHORTEST
from bench.workloads import Span
from bench.workloads.room import RoomChat, room_numbers

SOURCE: Final = HERE / "crowd.c"


@dataclass(frozen=True)
class NativeRoomChat(RoomChat):
    """Without idle connections, and without gathered ACKs."""

    @property
    def variant(self) -> str:
        return f"{super().variant}, generator in C"

    def run(self, server: Server, wire: str, span: Span) -> Figures:
        kind = server.wires[wire][0].name
        numbers = list(islice(room_numbers, self.rooms))
        arguments = [
            server.address(wire)[1], kind,
            self.rooms, self.members, min(self.senders, self.members - 1), self.in_flight,
            "shortest" if self.acks == SHORTEST else "tutorial", "single" if span.single_writes else "joined",
            span.read_bytes, span.warm_up, span.seconds, server.process.pid, numbers[0],
        ]  # fmt: skip
        users = range(FIRST_USER, FIRST_USER + self.connections)
        done = subprocess.run(
            [_program(), *map(str, arguments)],
            input="".join(f"{user} {server.tokens.get(user, '-')}\n" for user in users),
            capture_output=True,
            text=True,
            timeout=span.warm_up + span.seconds + 3 * PATIENCE_SECONDS,
            check=False,
        )
        if done.returncode:
            raise Fault(done.stderr.strip() or f"the generator ended with status {done.returncode}")
        found = json.loads(done.stdout)
        latency = {name: found.pop(name) for name in ("p50", "p99")}
        figures = Figures("deliveries", latency_ms=latency, **found)
        if figures.generator_cpu / figures.seconds > SATURATED:
            figures.notes.append("generator saturated")
        return figures


@cache
def _program() -> str:
    folder = tempfile.mkdtemp(prefix="qiyu-bench-")
    program = compiled(SOURCE, Path(folder))
    if program is None:
        raise Fault("the generator in C needs a C compiler")
    return str(program)
