"""Heartbeats: the smallest packet and its answer; each client sends the next when it has the last one's."""

from __future__ import annotations

import time
from dataclasses import dataclass

from bench.clients import Clients, refused
from bench.figures import Figures, Meter
from bench.servers import Can, Server
from bench.wires import HEARTBEAT
from bench.workloads import Span

ANSWER_SECONDS = 2


@dataclass(frozen=True)
class Heartbeat:
    """So many `connections`."""

    connections: int = 500
    name = "heartbeat"
    needs = Can.HEARTBEAT
    fresh = False

    @property
    def variant(self) -> str:
        return f"{self.connections:,} connections"

    def run(self, server: Server, wire: str, span: Span) -> Figures:
        with Clients(server, wire) as clients:
            clients.log_in((index, None) for index in range(self.connections))
            beat = clients.wire.packet(HEARTBEAT, b"{}")
            for client in clients:
                client.send(beat)
            _go_on(clients, beat, span.warm_up)
            meter = Meter(server.process)
            answers = _go_on(clients, beat, span.seconds)
            figures = meter.read("answers", answers)
            last = _go_on(clients, b"", ANSWER_SECONDS, enough=len(clients))
            figures.lost = max(0, len(clients) - last)
            figures.doubled = max(0, last - len(clients))
            return figures


def _go_on(clients: Clients, beat: bytes, seconds: float, enough: int = 1 << 60) -> int:
    """Answer each answer with `beat`; returns how many there were."""
    scan = clients.wire.scan
    answers = 0
    until = time.perf_counter() + seconds
    while (now := time.perf_counter()) < until and answers < enough:
        for client in clients.ready(min(0.5, until - now)):
            ids, others, client.unread = scan(client.read())
            if ids or any(code != HEARTBEAT for code, _ in others):
                raise refused(client, others)
            answers += len(others)
            if beat:
                client.send(beat * len(others))
    return answers
