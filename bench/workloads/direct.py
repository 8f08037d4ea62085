"""Direct messages whose receipts are counted: how many messages a second can be stored, and how soon each is.

Each sender keeps so many messages without a receipt in flight, each to a receiver of its own. One is done when its
receipt is here; the receivers' count is balanced as well.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from dataclasses import dataclass
from typing import Any, Final

from bench.clients import Client, Clients, Fault, NotServed, refused
from bench.figures import Figures, Meter, percentiles
from bench.ledger import balance
from bench.servers import Can, Server
from bench.wires import ACK, BIZ, ERROR, Packet
from bench.workloads import Span

DIRECT: Final = 5556
DRAIN_SECONDS: Final = 10

_SERIAL: Final = b"##########"
_CONTENT: Final = "x" * 40
_CLIENT_MSG_ID: Final = re.compile(rb'"clientMsgId":"[0-9a-f]+-([0-9]+)"')


class Line:
    """What one client says to another: the frames, when each was sent, and the receipts for them."""

    def __init__(self, clients: Clients, sender: Client, receiver: Client, *, receipts: bool) -> None:
        self.sender = sender
        self.receiver = receiver
        self.receipts = receipts
        self.sent_at: list[float] = []
        self.receipted: dict[int, float] = {}  # by serial
        self.doubled = 0  # receipts
        fields: dict[str, Any] = {"appId": 10001, "bizCode": DIRECT}
        if receipts:
            # One that this user, in another run, has used before would get the old receipt, and no delivery.
            fields["clientMsgId"] = f"{secrets.token_hex(8)}-{_SERIAL.decode()}"
        fields["data"] = json.dumps({"objectId": receiver.user, "type": 1, "content": _CONTENT}, separators=(",", ":"))
        body = json.dumps(fields, separators=(",", ":"))
        if receipts:
            self._frame = clients.wire.numbered(body.encode(), _SERIAL)
        else:
            packet = clients.wire.packet(BIZ, body.encode())
            self._frame = lambda _: packet

    def next(self) -> bytes:
        """The frame of one more message, which counts as sent."""
        self.sent_at.append(time.perf_counter())
        return self._frame(len(self.sent_at) - 1)

    def take_receipts(self, packets: list[Packet]) -> int:
        """How many receipts these are. Raises `NotServed` or `Fault` for any other packet."""
        now = time.perf_counter()
        for code, body in packets:
            found = _CLIENT_MSG_ID.search(body)
            if code == ERROR and self.receipts and not self.receipted and b'\\"code\\":503' in body:
                raise NotServed(json.loads(json.loads(body)["data"])["reason"])
            if code != ACK or found is None or not self.receipts:
                raise refused(self.sender, packets)
            serial = int(found[1])
            self.doubled += serial in self.receipted
            self.receipted.setdefault(serial, now)
        return len(packets)

    def count_into(self, figures: Figures) -> None:
        """Was each message delivered once, and each receipt given once?"""
        sent = len(self.sent_at)
        found = balance([self.receiver], sent, {})
        figures.lost += found.lost
        figures.doubled += found.doubled + self.doubled
        if self.receipts:
            figures.lost += sent - len(self.receipted)

    def is_complete(self) -> bool:
        """Whether everything sent has arrived, and its receipt too."""
        sent = len(self.sent_at)
        return len(self.receiver.log) >= sent and (not self.receipts or len(self.receipted) == sent)


def audit(clients: Clients, line: Line, data: bytes) -> None:
    """Look closely at what came over `line`; the floor passes on what it got, with less in it."""
    packets, _ = clients.wire.packets(data)
    for code, body in packets:
        if code != BIZ:
            continue
        fields = json.loads(body)
        inner = json.loads(fields["data"])
        right = (
            fields["bizCode"] == DIRECT
            and fields.get("userId", line.receiver.user) == line.receiver.user
            and inner["objectId"] == line.receiver.user
            and inner.get("userId", line.sender.user) == line.sender.user
            and inner["content"] == _CONTENT
        )
        if not right:
            raise Fault(f"user {line.receiver.user} got a message that nobody sent so: {fields}")


@dataclass(frozen=True)
class Direct:
    """`senders`, each with `in_flight` messages that have no receipt yet."""

    senders: int = 50
    in_flight: int = 16
    name = "direct"
    needs = Can.DIRECT | Can.STORE
    fresh = False

    @property
    def variant(self) -> str:
        return f"{self.senders} senders × {self.in_flight} without a receipt"

    @property
    def connections(self) -> int:
        return 2 * self.senders

    def run(self, server: Server, wire: str, span: Span) -> Figures:
        with Clients(server, wire, orderly=True) as clients:
            clients.log_in((index, None) for index in range(self.connections))
            pairs = zip(clients[: self.senders], clients[self.senders :], strict=True)
            lines = [Line(clients, sender, receiver, receipts=True) for sender, receiver in pairs]
            return _Run(clients, lines).drive(server, self.in_flight, span)


class _Run:
    def __init__(self, clients: Clients, lines: list[Line]) -> None:
        self._clients = clients
        self._from = {line.sender: line for line in lines}
        self._to = {line.receiver: line for line in lines}
        self._sending = True
        self.receipts = 0

    def drive(self, server: Server, in_flight: int, span: Span) -> Figures:
        for line in self._from.values():
            line.sender.send(b"".join(line.next() for _ in range(in_flight)))
        self._go_on(span.warm_up)
        before, start = self.receipts, time.perf_counter()
        meter = Meter(server.process)
        self._go_on(span.seconds)
        figures = meter.read("receipts", self.receipts - before)
        end = time.perf_counter()
        self._sending = False
        self._drain()
        times = [
            at - line.sent_at[serial]
            for line in self._from.values()
            for serial, at in line.receipted.items()
            if start <= line.sent_at[serial] < end
        ]
        figures.latency_ms = percentiles(times)
        for line in self._from.values():
            line.count_into(figures)
        return figures

    def _go_on(self, seconds: float) -> None:
        until = time.perf_counter() + seconds
        while (now := time.perf_counter()) < until:
            self._turn(min(0.5, until - now))

    def _drain(self) -> None:
        deadline = time.perf_counter() + DRAIN_SECONDS
        while time.perf_counter() < deadline:
            self._turn(0.1)
            if all(line.is_complete() for line in self._from.values()):
                break
        self._turn(0.05)

    def _turn(self, seconds: float) -> None:
        wire = self._clients.wire
        for client in self._clients.ready(seconds):
            data = client.read()
            ids, others, client.unread = wire.scan(data)
            line = self._from.get(client)
            if line is not None:
                if ids:
                    raise Fault(f"user {client.user} got messages that nobody sent")
                receipts = line.take_receipts(others)
                self.receipts += receipts
                if self._sending and receipts:
                    client.send(b"".join(line.next() for _ in range(receipts)))
                continue
            if others:
                raise refused(client, others)
            if ids:
                now = time.perf_counter()
                client.log.extend((now, msg_id) for msg_id in ids)
                client.send(b"".join(wire.acks(ids, client.user)))
                if client.audits:
                    client.audits -= 1
                    audit(self._clients, self._to[client], data)
