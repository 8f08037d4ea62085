"""Sessions that do nothing but be there: what each weighs."""

from __future__ import annotations

import time
from dataclasses import dataclass

from bench.clients import Clients
from bench.figures import Figures
from bench.servers import Can, Server
from bench.workloads import Span

ROOM_SIZE = 100
SETTLE_SECONDS = 0.2


@dataclass(frozen=True)
class Idle:
    """So many `connections`, in rooms of a hundred. The kernel's memory for their sockets is not in the figure."""

    connections: int = 5000
    name = "idle"
    needs = Can.ROOM
    fresh = True

    @property
    def variant(self) -> str:
        return f"{self.connections:,} connections"

    def run(self, server: Server, wire: str, span: Span) -> Figures:  # noqa: ARG002  # it does not last
        with Clients(server, wire) as clients:
            rooms = [(index, 1 + index // ROOM_SIZE) for index in range(self.connections)]
            first = self.connections // 10  # these fill what a process keeps for itself, however many there are
            clients.log_in(rooms[:first])
            time.sleep(SETTLE_SECONDS)
            before = server.process.resident_bytes()
            clients.log_in(rooms[first:])
            time.sleep(SETTLE_SECONDS)
            weight = (server.process.resident_bytes() - before) / (self.connections - first)
            return Figures("connections", bytes_each=weight)
