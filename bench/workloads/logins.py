"""Everybody comes at once, as after a restart of a proxy: connect, log in, enter a room."""

from __future__ import annotations

from dataclasses import dataclass

from bench.clients import Clients
from bench.figures import Figures, Meter
from bench.servers import Can, Server
from bench.workloads import Span

ROOM_SIZE = 100


@dataclass(frozen=True)
class Logins:
    """So many `connections`; 512 at a time wait for their answer."""

    connections: int = 5000
    name = "logins"
    needs = Can.ROOM
    fresh = False

    @property
    def variant(self) -> str:
        return f"{self.connections:,} at once"

    def run(self, server: Server, wire: str, span: Span) -> Figures:  # noqa: ARG002  # it takes as long as it takes
        with Clients(server, wire) as clients:
            meter = Meter(server.process)
            clients.log_in((index, 1_000_000 + index // ROOM_SIZE) for index in range(self.connections))
            return meter.read("logins", len(clients))
