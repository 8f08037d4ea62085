from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from harness import Harness
from qiyu.errors import ErrorCode, ProtocolViolation, Refused, WsClose
from qiyu.handlers.registry import LOGGED_IN, NOT_LOGGED_IN, UPGRADING
from qiyu.model import Address, Instant
from qiyu.protocol.packet import Buffer
from qiyu.protocol.tcp import TcpWire
from qiyu.routing.endpoint import Door, Endpoint, State
from qiyu.routing.outbox import Outbox, Outboxes, OutboxLimits
from qiyu.services.node import Node
from sessions import make_session

HELLO, ADD, WAIT = 1, 2, 3


class Adder(Endpoint):
    """Another kind of peer: it says hello, and then its numbers are added up."""

    __slots__ = ("total",)

    def __init__(self, endpoint_id: int, door: Door, outbox: Outbox, address: Address, now: float) -> None:
        super().__init__(endpoint_id, door, outbox, address, now)
        self.total = 0

    def send_error(self, error: Refused) -> None:
        self.send(error.code, error.reason.encode())


class Adders:
    """Who owns them."""

    def __init__(self) -> None:
        self.open_now: list[Adder] = []
        self.ends: list[str] = []

    def open(self, door: Door, outbox: Outbox, address: Address, now: Instant) -> Adder:
        adder = Adder(len(self.open_now), door, outbox, address, now.monotonic)
        self.open_now.append(adder)
        return adder

    def refuse(self, adder: Adder, violation: ProtocolViolation) -> None:
        self.ends.append(violation.reason)
        adder.send(violation.code, b"refused")
        adder.close(violation.ws_close, violation.reason)

    def dismiss(self, adder: Adder, ws_close: int, reason: str) -> None:
        self.ends.append(reason or str(int(ws_close)))
        adder.close(ws_close, reason)

    def overflowed(self, adder: Adder) -> None:
        adder.make_way()
        self.dismiss(adder, WsClose.NORMAL, "overflowed")

    def closed(self, adder: Adder) -> None:
        self.open_now.remove(adder)


def hello(_node: Node, adder: Adder, _body: Buffer, _now: Instant) -> None:
    adder.state = ADDING


def add(_node: Node, adder: Adder, body: Buffer, _now: Instant) -> None:
    number = int(bytes(body))
    if number < 0:
        raise Refused(ErrorCode.MALFORMED, "no")
    adder.total += number
    adder.send(ADD, b"%d" % adder.total)


def wait(_node: Node, adder: Adder, _body: Buffer, _now: Instant) -> None:
    adder.hold()


def impolite(code: int) -> ProtocolViolation:
    return ProtocolViolation(f"{code} before hello")


def unknown(code: int) -> Refused:
    return Refused(ErrorCode.MALFORMED, f"what is {code}?")


NEW = State("new", {HELLO: hello}, impolite)
ADDING = State("adding", {ADD: add, WAIT: wait}, unknown)


class Line:
    """A connection of an adder."""

    def __init__(self, harness: Harness, adders: Adders, hard: int = 2**62) -> None:
        self.dispatcher = harness.dispatcher
        self.now = harness.now
        self.outbox = Outboxes(OutboxLimits(0, hard)).open(harness.wake)
        door = Door(lambda: TcpWire(100), adders, NEW)
        self.endpoint = self.dispatcher.opened(door, self.outbox, bytes([10, 0, 0, 1]), harness.now)

    def write(self, *packets: tuple[int, bytes]) -> list[tuple[int, bytes]]:
        self.dispatcher.received(self.endpoint, b"".join(TcpWire.encode(*packet) for packet in packets), self.now)
        return self.read()

    def read(self) -> list[tuple[int, bytes]]:
        packets = TcpWire(0).receive_data(self.outbox.take(2**62))
        return [(packet.code, bytes(packet.body)) for packet in packets]


@pytest.fixture
def adders() -> Adders:
    return Adders()


@pytest.fixture
def line(adders: Adders) -> Iterator[Line]:
    made = Line(Harness(), adders)
    yield made
    made.dispatcher.closed(made.endpoint)
    assert adders.open_now == []


def test_a_listener_of_another_kind_brings_its_own_tables_and_objects(line: Line) -> None:
    assert line.write((HELLO, b""), (ADD, b"2"), (ADD, b"-1"), (ADD, b"3"), (9, b"")) == [
        (ADD, b"2"),
        (400, b"no"),
        (ADD, b"5"),
        (400, b"what is 9?"),
    ]
    assert repr(line.endpoint).startswith("<Adder 0 tcp from 10.0.0.1 adding ")


def test_its_owner_ends_it(line: Line, adders: Adders) -> None:
    assert line.write((ADD, b"2"), (HELLO, b"")) == [(400, b"refused")]
    assert line.endpoint.ended
    assert adders.ends == ["2 before hello"]
    assert line.write((HELLO, b"")) == []


def test_its_packets_wait_as_a_clients_do(line: Line, adders: Adders) -> None:
    assert line.write((HELLO, b""), (WAIT, b""), (ADD, b"4")) == []
    line.dispatcher.eof(line.endpoint, line.now)
    assert not line.endpoint.ended
    line.dispatcher.resume(line.endpoint, lambda _now: line.endpoint.send(WAIT, b"done"), line.now)
    assert line.read() == [(WAIT, b"done"), (ADD, b"4")]
    assert line.endpoint.ended
    assert adders.ends == ["1000"]


def test_an_ack_is_no_more_to_it_than_any_packet(line: Line) -> None:
    """The wire reads runs of them for those who have something to acknowledge."""
    run = (1005, b'{"msgId":"%d"}' % 10**18)
    assert line.write((HELLO, b""), run, run)[0] == (400, b"what is 1005?")


def test_its_owner_hears_of_bugs_and_of_slow_ones(adders: Adders) -> None:
    harness = Harness()
    line = Line(harness, adders, hard=20)
    line.write((HELLO, b""))
    line.dispatcher.received(line.endpoint, TcpWire.encode(ADD, b"4") * 3, line.now)
    assert line.outbox.overflowed
    line.dispatcher.overflowed(line.endpoint)
    other = Line(harness, adders)
    other.dispatcher.crashed(other.endpoint)
    assert adders.ends == ["overflowed", "internal error"]
    assert harness.metrics.connections_accepted == 2
    assert harness.metrics.connections_crashed == 1


@pytest.mark.parametrize("state", [UPGRADING, NOT_LOGGED_IN, LOGGED_IN])
def test_a_client_shows_its_state(state: State) -> None:
    client = make_session()
    client.state = state
    assert f" {state.name} " in repr(client)


def test_only_who_is_leaving_leaves_when_it_has_been_answered() -> None:
    left: Mapping[str, list[int]] = {"stayed": [], "left": []}
    stays, leaves = make_session(1), make_session(2)
    leaves.leaving = lambda: left["left"].append(leaves.waiting)
    for session in (stays, leaves):
        session.waiting += 2
        session.settled()
        session.settled()
    leaves.ended = True
    leaves.answered()
    assert left == {"stayed": [], "left": [0]}
