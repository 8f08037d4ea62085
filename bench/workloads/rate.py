"""Room chat at a given rate: what a user feels.

Messages leave by the clock, whether or not the last ones have arrived, and a latency counts from when its message was
due: a server that stands still for a while cannot hide it by holding up its clients (coordinated omission).
"""

from __future__ import annotations

import select
import time
from dataclasses import dataclass, replace

from bench.clients import Clients
from bench.figures import Figures, Meter, percentiles
from bench.servers import Can, Server
from bench.workloads import Span
from bench.workloads.chat import Chat
from bench.workloads.room import RoomChat, enter

CALIBRATION = Span(seconds=1.0, warm_up=0.3)


@dataclass(frozen=True)
class Rate:
    """`per_second` messages in a room of `members`; 0 means half of what the server can do, found out just before."""

    members: int = 500
    senders: int = 4
    per_second: float = 40
    name = "rate"
    needs = Can.ROOM
    fresh = False

    @property
    def variant(self) -> str:
        rate = f"{self.per_second:g} messages/s" if self.per_second else "half of its highest rate"
        return f"1×{self.members}, {rate}"

    @property
    def connections(self) -> int:
        return self.members

    def run(self, server: Server, wire: str, span: Span) -> Figures:
        if not self.per_second:
            span_before = replace(span, seconds=CALIBRATION.seconds, warm_up=CALIBRATION.warm_up)
            most = RoomChat(members=self.members, senders=self.senders).run(server, wire, span_before)
            half = most.done / most.seconds / (self.members - 1) / 2
            figures = replace(self, per_second=half).run(server, wire, span)
            figures.lost += most.lost
            figures.doubled += most.doubled
            return figures
        with Clients(server, wire, read_bytes=span.read_bytes) as clients:
            chat = enter(clients, RoomChat(members=self.members, senders=self.senders), span)
            return self._drive(chat, clients, server, span)

    def _drive(self, chat: Chat, clients: Clients, server: Server, span: Span) -> Figures:
        due = self._send_until(chat, clients, time.perf_counter(), span.warm_up)
        before, start = chat.deliveries, time.perf_counter()
        meter = Meter(server.process)
        self._send_until(chat, clients, due, span.seconds)
        end = time.perf_counter()
        figures = meter.read("deliveries", chat.deliveries - before)
        chat.drain()
        figures.latency_ms = percentiles(chat.latencies(start, end))
        found = chat.balance()
        figures.lost, figures.doubled = found.lost, found.doubled
        return figures

    def _send_until(self, chat: Chat, clients: Clients, due: float, seconds: float) -> float:
        """Send by the clock from `due` on, for so long; returns when the next one is due."""
        (room,) = chat.rooms
        end = time.perf_counter() + seconds
        while True:
            now = time.perf_counter()
            while due <= now and due < end:
                room.send(due)
                due += 1 / self.per_second
            if now >= end:
                return due
            # epoll counts in milliseconds, which would be seen in the latencies; select in microseconds.
            select.select([clients.epoll], [], [], max(0.0, min(due, end) - time.perf_counter()))
            chat.turn(0)
