"""Rooms that chat: every message goes to all other members of its room, and each of them acknowledges it.

A message carries its serial number in its content. One member of each room, the witness, reads every packet in full: it
checks the content, and tells which msgId the message with that number was given, from which latencies follow. Everybody
else is looked at so closely in one read; after that, what comes is counted by its ids, all of which are kept and
balanced in the end.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

from bench.clients import Client, Clients, Fault, refused
from bench.ledger import Balance, balance, split_ids
from bench.wires import BIZ, GATHERED

ROOM_CHAT: Final = 5555
DRAIN_SECONDS: Final = 10
LATENCIES: Final = 100_000
"""About so many are worked out at most, at as many members, evenly chosen, as that allows."""

_SERIAL: Final = b"##########"
_PADDING: Final = "x" * 30


class Room:
    """One room: its members, what was sent in it, and what has come."""

    def __init__(self, number: int, members: list[Client], senders: int, clients: Clients) -> None:
        self.number = number
        self.members = members
        self.senders = members[:senders]
        self.others = len(members) - 1
        self.witness = members[-1]
        self.witness.audits = 1 << 60
        self.sent_at: list[float] = []  # by serial; when it was due, where there was a schedule
        self.sent_by: Counter[Client] = Counter()
        self.serials: dict[bytes, int] = {}  # by msgId
        self.completed = 0
        self.got: list[bytes] = []  # since the last `settle`
        self._counts: Counter[bytes] = Counter()
        data = json.dumps(
            {"roomId": number, "type": 1, "content": f"{_SERIAL.decode()}{_PADDING}"}, separators=(",", ":")
        )
        body = json.dumps({"appId": 10001, "bizCode": ROOM_CHAT, "data": data}, separators=(",", ":"))
        self._packet = clients.wire.numbered(body.encode(), _SERIAL)

    @property
    def sent(self) -> int:
        """How many messages."""
        return len(self.sent_at)

    def send(self, due: float) -> None:
        """One more message; the senders take turns."""
        serial = len(self.sent_at)
        sender = self.senders[serial % len(self.senders)]
        self.sent_at.append(due)
        self.sent_by[sender] += 1
        sender.send(self._packet(serial))

    def settle(self) -> tuple[int, int]:
        """Count what has come; returns how many deliveries that was, and how many messages all members have now."""
        deliveries = len(self.got)
        counts = self._counts
        counts.update(self.got)
        self.got.clear()
        everywhere = [msg_id for msg_id, count in counts.items() if count >= self.others]
        for msg_id in everywhere:
            del counts[msg_id]
        self.completed += len(everywhere)
        return deliveries, len(everywhere)


class Chat:
    """The rooms of one run, and the loop that reads and acknowledges."""

    def __init__(self, clients: Clients, rooms: list[Room], acks: str, *, one_by_one: bool) -> None:
        self._clients = clients
        self.rooms = rooms
        self._by_number = {room.number: room for room in rooms}
        self._shape = acks
        self._one_by_one = one_by_one
        self.deliveries = 0
        self.reads = 0

    @property
    def unfinished(self) -> int:
        """Messages that somebody has not got yet."""
        return sum(room.sent - room.completed for room in self.rooms)

    def turn(self, seconds: float) -> list[tuple[Room, int]]:
        """Read whoever has something; returns how many messages are complete in which rooms."""
        touched: set[Room] = set()
        scan, now = self._clients.wire.scan, time.perf_counter
        for client in self._clients.ready(seconds):
            data = client.read()
            self.reads += 1
            ids, others, client.unread = scan(data)
            if others:
                raise refused(client, others)
            joined = b"".join(ids)
            if not joined.isdigit():  # room events are among them
                ids = [msg_id for msg_id in ids if msg_id.isdigit()]
                joined = b"".join(ids)
            if not ids:
                continue
            client.log.append((now(), joined))
            self._acknowledge(client, ids)
            room = self._room_of(client)
            if client.audits:
                client.audits -= 1
                self._audit(client, room, data, ids)
            room.got += ids
            touched.add(room)
        complete = []
        for room in touched:
            deliveries, messages = room.settle()
            self.deliveries += deliveries
            if messages:
                complete.append((room, messages))
        return complete

    def _acknowledge(self, client: Client, ids: list[bytes]) -> None:
        wire = self._clients.wire
        if self._shape == GATHERED:
            client.send(wire.gathered_ack(ids))
            return
        acks = wire.acks(ids, client.user, self._shape)
        if self._one_by_one:
            for ack in acks:
                client.send(ack)
        else:
            client.send(b"".join(acks))

    def drain(self) -> None:
        """Wait until everybody has everything, and a moment more for what nobody should get."""
        deadline = time.perf_counter() + DRAIN_SECONDS
        while self.unfinished and time.perf_counter() < deadline:
            self.turn(0.1)
        for _ in range(3):
            self.turn(0.02)

    def segments(self) -> int:
        """TCP segments with data that have come; of a server without Nagle's algorithm, each is one of its writes."""
        return sum(client.segments() for room in self.rooms for client in room.members)

    def balance(self) -> Balance:
        """Nothing lost, nothing doubled?"""
        total = Balance()
        for room in self.rooms:
            total += balance(room.members, room.sent, room.sent_by)
        return total

    def latencies(self, start: float, end: float) -> list[float]:
        """From sending (or when that was due), for messages of that stretch of time, to each delivery."""
        members = [client for room in self.rooms for client in room.members]
        every = max(1, self.deliveries // LATENCIES)
        found: list[float] = []
        for client in members[::every]:
            room = self._room_of(client)
            for at, joined in client.log:
                for msg_id in split_ids(joined):
                    serial = room.serials.get(msg_id)
                    if serial is not None and start <= room.sent_at[serial] < end:
                        found.append(at - room.sent_at[serial])
        return found

    def _room_of(self, client: Client) -> Room:
        room = self._by_number.get(client.room or 0)
        if room is None:
            raise Fault(f"user {client.user} got messages, and is in no room that chats")
        return room

    def _audit(self, client: Client, room: Room, data: bytes, ids: Iterable[bytes]) -> None:
        packets, _ = self._clients.wire.packets(data)
        bodies = [json.loads(body) for code, body in packets if code == BIZ]
        bodies = [body for body in bodies if "msgId" in body]
        if [body["msgId"].encode() for body in bodies] != list(ids):
            raise Fault(f"user {client.user}: the ids are not where they were taken to be: {data!r}")
        for body in bodies:
            serial = _checked(client, room, body)
            if client is room.witness:
                room.serials[body["msgId"].encode()] = serial


def _checked(client: Client, room: Room, body: dict[str, Any]) -> int:
    """The message's serial, if all else about it is right. The floor passes on what it got, with less in it."""
    data = json.loads(body["data"])
    serial, padding = data["content"][:10], data["content"][10:]
    right = (
        body["bizCode"] == ROOM_CHAT
        and body.get("userId", client.user) == client.user
        and data["roomId"] == room.number
        and padding == _PADDING
        and serial.isdigit()
        and int(serial) < room.sent
        and data.get("userId", room.senders[int(serial) % len(room.senders)].user)
        == room.senders[int(serial) % len(room.senders)].user
    )
    if not right:
        raise Fault(f"user {client.user} got a message that nobody sent so: {body}")
    return int(serial)
