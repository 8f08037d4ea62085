"""A room loses its connections, misses messages, and comes back at once: every member asks for what it missed.

Needs a server that keeps messages; one that answers `recovered: false` is noted as not serving this.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

from bench.clients import Client, Clients, Fault, NotServed, refused
from bench.figures import Figures, Meter, percentiles
from bench.ledger import received, split_ids
from bench.servers import Can, Server
from bench.wires import ROOM, Packet
from bench.workloads import Span
from bench.workloads.chat import Chat
from bench.workloads.room import RoomChat, enter

SEEN = 20
STAY = 2  # the sender, and the witness
NOTICE_SECONDS = 0.5
PATIENCE_SECONDS = 30


@dataclass(frozen=True)
class CatchUp:
    """`members` come back and are each brought the `missed` messages."""

    members: int = 1000
    missed: int = 100
    name = "catch-up"
    needs = Can.ROOM | Can.STORE
    fresh = False

    @property
    def variant(self) -> str:
        return f"{self.members:,} members × {self.missed} missed messages"

    @property
    def connections(self) -> int:
        return self.members + STAY

    def run(self, server: Server, wire: str, span: Span) -> Figures:  # it takes as long as it takes
        with Clients(server, wire) as clients:
            chat = enter(clients, RoomChat(members=self.connections, senders=1), span)
            last_seen = _say(chat, SEEN)[-1]
            (room,) = chat.rooms
            _hang_up(clients, room.members[1:-1])
            room.members[1:-1] = []
            room.others = 1
            time.sleep(NOTICE_SECONDS)
            missed = _say(chat, self.missed)
            figures = _come_back(clients, server, room.number, last_seen, missed, self.members)
            found = chat.balance()
            figures.lost += found.lost
            figures.doubled += found.doubled
            return figures


def _say(chat: Chat, messages: int) -> list[bytes]:
    """Send them; returns their ids, as the witness got them."""
    (room,) = chat.rooms
    before = len(split_ids(received(room.witness)))
    for _ in range(messages):
        room.send(time.perf_counter())
    chat.drain()
    return split_ids(received(room.witness))[before:]


def _hang_up(clients: Clients, gone: list[Client]) -> None:
    for client in gone:
        clients.epoll.unregister(client.sock.fileno())
        del clients.by_fd[client.sock.fileno()]
        clients.remove(client)
    clients.close(gone)


def _come_back(
    clients: Clients, server: Server, room: int, last_seen: bytes, missed: list[bytes], members: int
) -> Figures:
    data = json.dumps(json.dumps({"roomId": room, "afterMsgId": last_seen.decode()}))
    ask = clients.wire.packet(ROOM, b'{"data":%b}' % data.encode())
    meter = Meter(server.process)
    # Without a room: so nothing of it comes before what was missed.
    back = clients.log_in((index, None) for index in range(1, members + 1))
    asked = {}
    for client in back:
        client.send(ask)
        asked[client] = time.perf_counter()
    times = _read_all(clients, asked, len(missed))
    figures = meter.read("members", members)
    figures.latency_ms = percentiles(times)
    for client in back:
        ids = split_ids(received(client))
        figures.doubled += len(ids) - len(set(ids))
        figures.lost += len(set(missed) - set(ids))
        if set(ids) <= set(missed) and ids != missed and len(ids) == len(missed):
            raise Fault(f"user {client.user} got what was missed in another order")
    return figures


def _read_all(clients: Clients, asked: dict[Client, float], missed: int) -> list[float]:
    """Read and acknowledge until everybody has an answer and so many messages; returns how long each took."""
    waiting = dict.fromkeys(asked, missed + 1)
    times = []
    deadline = time.perf_counter() + PATIENCE_SECONDS
    while waiting and time.perf_counter() < deadline:
        for client in clients.ready(0.5):
            ids, others, client.unread = clients.wire.scan(client.read())
            ids = [msg_id for msg_id in ids if msg_id.isdigit()]  # the others are room events
            answers = sum(_is_answer(client, packet) for packet in others)
            now = time.perf_counter()
            if ids:
                client.log.append((now, b"".join(ids)))
                client.send(b"".join(clients.wire.acks(ids, client.user)))
            if client in waiting:
                waiting[client] -= len(ids) + answers
            if waiting.get(client, 1) <= 0:
                del waiting[client]
                times.append(now - asked[client])
    return times


def _is_answer(client: Client, packet: Packet) -> bool:
    code, body = packet
    if code != ROOM:
        raise refused(client, [packet])
    if not json.loads(json.loads(body)["data"]).get("recovered"):
        raise NotServed("ROOM with afterMsgId is answered with recovered: false")
    return True
