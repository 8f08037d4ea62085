"""Room chat as fast as it goes: each sender keeps so many messages in flight; one is done when all others have it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import count

from bench.clients import Clients
from bench.figures import Figures, Meter, percentiles
from bench.servers import Can, Server
from bench.wires import TUTORIAL
from bench.workloads import Span
from bench.workloads.chat import Chat, Room

room_numbers = count(1)
IDLE_ROOM_SIZE = 100


@dataclass(frozen=True)
class RoomChat:
    """`rooms` of `members` each; `idle` connections more sit in quiet rooms of their own."""

    rooms: int = 1
    members: int = 500
    senders: int = 4
    in_flight: int = 4
    acks: str = TUTORIAL
    idle: int = 0
    name: str = "room"
    needs = Can.ROOM
    fresh = False

    @property
    def variant(self) -> str:
        among = f" among {self.connections:,} connections" if self.idle else ""
        return f"{self.rooms}×{self.members}{among}, {self.senders}×{self.in_flight} in flight, {self.acks}"

    @property
    def connections(self) -> int:
        return self.rooms * self.members + self.idle

    def run(self, server: Server, wire: str, span: Span) -> Figures:
        with Clients(server, wire, read_bytes=span.read_bytes) as clients:
            chat = enter(clients, self, span)
            return self._drive(chat, server, span)

    def _drive(self, chat: Chat, server: Server, span: Span) -> Figures:
        for room in chat.rooms:
            for _ in range(self.in_flight * len(room.senders)):
                room.send(time.perf_counter())
        go_on(chat, time.perf_counter() + span.warm_up)
        flow = Flow(chat)
        before, start = chat.deliveries, time.perf_counter()
        meter = Meter(server.process)
        go_on(chat, start + span.seconds)
        figures = meter.read("deliveries", chat.deliveries - before)
        end = time.perf_counter()
        flow.read_into(figures)
        chat.drain()
        figures.latency_ms = percentiles(chat.latencies(start, end))
        found = chat.balance()
        figures.lost, figures.doubled = found.lost, found.doubled
        return figures


class Flow:
    """What came in how many reads and segments, from when it was made."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat
        self._reads = chat.reads
        self._segments = chat.segments()

    def read_into(self, figures: Figures) -> None:
        """Since then."""
        figures.reads = self._chat.reads - self._reads
        figures.segments = self._chat.segments() - self._segments


def enter(clients: Clients, what: RoomChat, span: Span) -> Chat:
    """Log in who is needed, into rooms that nobody was in before."""
    rooms, members = what.rooms, what.members
    numbers = [next(room_numbers) for _ in range(rooms)]
    quiet = [next(room_numbers) for _ in range(-(-what.idle // IDLE_ROOM_SIZE))]
    chatting = [number for number in numbers for _ in range(members)]
    waiting = [number for number in quiet for _ in range(IDLE_ROOM_SIZE)][: what.idle]
    clients.log_in(enumerate(chatting + waiting))
    made = [
        Room(number, clients[i * members : (i + 1) * members], min(what.senders, members - 1), clients)
        for i, number in enumerate(numbers)
    ]
    chat = Chat(clients, made, what.acks, one_by_one=span.single_writes)
    for _ in range(2):  # who enters and leaves is news for who is there; let it come first
        chat.turn(0.05)
    return chat


def go_on(chat: Chat, until: float) -> None:
    """Whenever a message is complete, send another in that room."""
    while (now := time.perf_counter()) < until:
        for room, complete in chat.turn(min(0.5, until - now)):
            sent_at = time.perf_counter()
            for _ in range(complete):
                room.send(sent_at)
