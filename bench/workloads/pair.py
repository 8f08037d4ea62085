"""Direct messages to and fro: in each pair one message is under way, and whoever gets it answers with another.

With `receipts`, each message has a clientMsgId, so it is stored before it is delivered: each way waits for a commit.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from bench.clients import Client, Clients, Fault
from bench.figures import Figures, Meter, percentiles
from bench.servers import Can, Server
from bench.workloads import Span
from bench.workloads.direct import DRAIN_SECONDS, Line, audit


@dataclass(frozen=True)
class Pair:
    """`pairs` of users; a round trip is two messages."""

    pairs: int = 50
    receipts: bool = False
    name = "pair"
    fresh = False

    @property
    def variant(self) -> str:
        return f"{self.pairs} pairs, {'with clientMsgId' if self.receipts else 'without clientMsgId'}"

    @property
    def needs(self) -> Can:
        return Can.DIRECT | Can.STORE if self.receipts else Can.DIRECT

    @property
    def connections(self) -> int:
        return 2 * self.pairs

    def run(self, server: Server, wire: str, span: Span) -> Figures:
        with Clients(server, wire, orderly=True) as clients:
            clients.log_in((index, None) for index in range(self.connections))
            return _Run(clients, self.pairs, receipts=self.receipts).drive(server, span)


class _Run:
    def __init__(self, clients: Clients, pairs: int, *, receipts: bool) -> None:
        self._clients = clients
        self._lines: dict[Client, Line] = {}
        self._partner: dict[Client, Client] = {}
        self._first = clients[:pairs]
        for first, second in zip(self._first, clients[pairs:], strict=True):
            for sender, receiver in ((first, second), (second, first)):
                self._lines[sender] = Line(clients, sender, receiver, receipts=receipts)
                self._partner[sender] = receiver
        self._sending = True
        self._trips: list[float] = []  # how long each took

    def drive(self, server: Server, span: Span) -> Figures:
        for client in self._first:
            client.send(self._lines[client].next())
        self._go_on(span.warm_up)
        before = len(self._trips)
        meter = Meter(server.process)
        self._go_on(span.seconds)
        figures = meter.read("round trips", len(self._trips) - before)
        figures.latency_ms = percentiles(self._trips[before:])
        self._sending = False
        deadline = time.perf_counter() + DRAIN_SECONDS
        while time.perf_counter() < deadline:
            self._turn(0.1)
            if all(line.is_complete() for line in self._lines.values()):
                break
        self._turn(0.05)
        for line in self._lines.values():
            line.count_into(figures)
        return figures

    def _go_on(self, seconds: float) -> None:
        until = time.perf_counter() + seconds
        while (now := time.perf_counter()) < until:
            self._turn(min(0.5, until - now))

    def _turn(self, seconds: float) -> None:
        for client in self._clients.ready(seconds):
            data = client.read()
            ids, others, client.unread = self._clients.wire.scan(data)
            line = self._lines[client]
            if others:
                line.take_receipts(others)
            if ids:
                self._answer(client, line, ids, data)

    def _answer(self, client: Client, line: Line, ids: list[bytes], data: bytes) -> None:
        if len(ids) > 1:
            raise Fault(f"user {client.user} got {len(ids)} messages, and one was under way")
        now = time.perf_counter()
        client.log.append((now, ids[0]))
        if line.sent_at and client.user < self._partner[client].user:
            self._trips.append(now - line.sent_at[-1])
        answer = b"".join(self._clients.wire.acks(ids, client.user))
        client.send(answer + line.next() if self._sending else answer)
        if client.audits:
            client.audits -= 1
            audit(self._clients, self._lines[self._partner[client]], data)
