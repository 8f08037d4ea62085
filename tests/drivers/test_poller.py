"""The poller over real socket pairs, with the real core below it and time in the test's own hand."""

from __future__ import annotations

import gc
import socket
import struct
import sys
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from structlog.testing import capture_logs

from certificates import make_certificate, needs_openssl, trusting
from qiyu.app import build_node
from qiyu.config import Settings
from qiyu.drivers import poller as poller_module
from qiyu.drivers.connection import PlainConnection
from qiyu.drivers.event_source import EventSource, SelectorSource, best_source
from qiyu.drivers.poller import LINGER_SECONDS, Poller
from qiyu.drivers.tls import Certificate
from qiyu.drivers.tls_connection import TlsConnection
from qiyu.errors import EndReason
from qiyu.handlers.dispatch import Dispatcher
from qiyu.handlers.registry import LOGGED_IN, tcp_door
from qiyu.model import Instant
from qiyu.protocol.packet import MsgCode
from qiyu.routing.session import Session
from qiyu.services.departures import DEPARTURE_SECONDS
from qiyu.services.limits import Rates
from qiyu.services.tokens import Tokens
from raw_clients import ACK, ERROR, HEARTBEAT, LOGIN, LOGOUT, ROOM, RawTcpClient, body_of, frame
from servers import SECRET

START = Instant(1000.0, 1_700_000_000_000)


class Bench:
    """A poller and what it drives."""

    def __init__(self, source: EventSource) -> None:
        self.now = START
        self.node = build_node(Settings(limits={"outbox_hard_bytes": 0, "packets_per_second": 0}), SECRET)  # type: ignore[arg-type]
        self.dispatcher = Dispatcher(self.node)
        self.poller = Poller(self.dispatcher, source, lambda: self.now)

    def advance(self, seconds: float) -> None:
        """Time goes by, and the clock ticks."""
        self.now = Instant(self.now.monotonic + seconds, self.now.unix_ms + int(1000 * seconds))
        self.poller.expire(self.now)

    def connect(self) -> tuple[RawTcpClient, Session]:
        """A new connection."""
        theirs, ours = socket.socketpair()
        ours.setblocking(False)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        session = cast("Session", self.poller.add(ours, tcp_door(self.node, 65536), b""))
        return RawTcpClient(trio.SocketStream(trio.socket.from_stdlib_socket(theirs))), session

    async def connect_tcp(self) -> tuple[RawTcpClient, Session]:
        """A new connection over real TCP."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            theirs = await trio.open_tcp_stream(*listening.getsockname())
            ours, _ = listening.accept()
        ours.setblocking(False)
        session = cast("Session", self.poller.add(ours, tcp_door(self.node, 65536), b""))
        return RawTcpClient(theirs), session

    def connect_tls(self, certificate: Certificate) -> tuple[socket.socket, TlsConnection]:
        """A new connection that is to begin with a TLS handshake; the client's end of the socket pair."""
        theirs, ours = socket.socketpair()
        ours.setblocking(False)
        session = self.poller.add(ours, tcp_door(self.node, 65536), b"", certificate.context("tcp"))
        return theirs, cast("TlsConnection", session.outbox.owner)

    async def log_in(self, user: int) -> tuple[RawTcpClient, Session]:
        """A new connection, logged in."""
        peer, session = self.connect()
        token = Tokens(SECRET, 300).issue(user, now_ms=self.now.unix_ms)
        await peer.send(LOGIN, appId=10001, userId=user, token=token)
        await peer.expect(LOGIN)
        return peer, session


@pytest.fixture(params=[best_source, SelectorSource], ids=["best", "selectors"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    make: Callable[[], EventSource] = request.param
    bench = Bench(make())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.poller.run)
        yield bench
        nursery.cancel_scope.cancel()


async def test_what_another_task_pushes_is_sent_without_anything_to_read(bench: Bench) -> None:
    peer, session = await bench.log_in(10001)
    async with peer:
        for n in range(3):
            await trio.testing.wait_all_tasks_blocked()  # the poller sleeps
            session.answer(HEARTBEAT, str(n))  # type: ignore[arg-type]
            assert (await peer.expect(HEARTBEAT))["data"] == str(n)


async def test_connections_share_what_wakes_the_poller(bench: Bench) -> None:
    (one, first), (two, second) = bench.connect(), bench.connect()
    async with one, two:
        assert first.outbox.wake is second.outbox.wake


async def test_what_the_socket_does_not_take_waits_until_it_does(bench: Bench) -> None:
    peer, session = await bench.log_in(10001)
    async with peer:
        sent = [bytes([n]) * 50_000 for n in range(20)]
        for data in sent:
            session.outbox.push(frame(HEARTBEAT, b'{"data":"%s"}' % data.hex().encode()))
        for data in sent:
            assert (await peer.expect(HEARTBEAT))["data"] == data.hex()
        await trio.testing.wait_all_tasks_blocked()  # it no longer waits to write: it would spin otherwise
        assert session.outbox.size == 0
        assert not session.outbox.is_awake


async def test_nobody_is_owed_what_waited_for_a_connection_that_is_gone(bench: Bench) -> None:
    peer, session = await bench.log_in(10001)
    async with peer:
        session.outbox.push(frame(HEARTBEAT, b'{"data":"%s"}' % (b"x" * 3_000_000)))
        await trio.testing.wait_all_tasks_blocked()
        assert 0 < bench.node.outboxes.bytes == session.outbox.size
    await trio.testing.wait_all_tasks_blocked()
    assert len(bench.poller) == 0
    assert bench.node.outboxes.bytes == 0


async def test_good_bye_is_read_before_the_connection_closes(bench: Bench) -> None:
    peer, session = await bench.log_in(10001)
    async with peer:
        bench.node.sessions.end(session, EndReason.DRAIN)
        await peer.stream.send_all(frame(HEARTBEAT, b"{}") * 1000)  # thrown away
        assert (await peer.expect(LOGOUT))["data"]["reason"] == "drain"
        await peer.expect_closed()  # our side is shut, and theirs is still open
        assert len(bench.poller) == 1
    with trio.fail_after(5):
        await bench.poller.drained()


async def test_who_does_not_close_is_closed_within_a_second(bench: Bench) -> None:
    reader, one = await bench.log_in(10001)
    deaf, two = await bench.log_in(10002)
    async with reader, deaf:
        two.outbox.push(frame(HEARTBEAT, b" " * 10_000_000))  # more than the kernel keeps
        for session in (one, two):
            bench.node.sessions.end(session, EndReason.IDLE)
        await reader.expect(LOGOUT)
        bench.advance(LINGER_SECONDS - 0.1)
        assert len(bench.poller) == 2
        bench.advance(0.2)
        assert len(bench.poller) == 0


async def test_a_bug_is_logged_with_its_session_and_ends_no_other(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim, session = await bench.log_in(10001)
    other, _ = await bench.log_in(10002)

    def received(which: Session, data: object, now: Instant) -> None:
        if which is session:
            raise ZeroDivisionError
        Dispatcher.received(bench.dispatcher, which, data, now)  # type: ignore[arg-type]

    monkeypatch.setattr(bench.dispatcher, "received", received)
    async with victim, other:
        with capture_logs() as logs:
            await victim.send(HEARTBEAT)
            await victim.expect_closed()
        assert any("user=10001/10001" in entry.get("session", "") for entry in logs if entry["log_level"] == "error")
        await other.send(HEARTBEAT)
        await other.expect(HEARTBEAT)
    assert bench.node.metrics.connections_crashed == 1


async def test_a_bug_in_saying_good_bye_still_closes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    peer, _ = await bench.log_in(10001)
    for name in ("received", "crashed", "closed"):
        monkeypatch.setattr(bench.dispatcher, name, broken)
    async with peer:
        with capture_logs():
            await peer.send(HEARTBEAT)
            await peer.expect_closed()
    assert len(bench.poller) == 0


async def test_events_of_a_connection_that_ended_in_the_same_turn_are_ignored(bench: Bench) -> None:
    first, old = await bench.log_in(10001)
    second, _ = bench.connect()
    async with first, second:
        token = Tokens(SECRET, 300).issue(10001, now_ms=bench.now.unix_ms)
        # Both become readable before the poller runs: the login kicks the first, whose packets come to nothing.
        await second.send(LOGIN, appId=10001, userId=10001, token=token)
        await first.stream.send_all(frame(HEARTBEAT, b"{}"))
        await second.expect(LOGIN)
        with trio.fail_after(5):
            code = 0
            while code != LOGOUT:
                code, _ = await first.next_packet()
        assert old.ended
        await first.expect_closed()


async def test_a_new_connection_may_get_the_number_of_one_that_closed(bench: Bench) -> None:
    numbers = set()
    for _ in range(20):
        peer, session = await bench.log_in(10001)
        numbers.add(session.outbox.owner.fd)
        async with peer:
            await peer.send(LOGOUT)
            await peer.expect(LOGOUT)
            await peer.expect_closed()
        with trio.fail_after(5):
            await bench.poller.drained()
    assert len(numbers) < 20
    assert len(bench.node.hub) == 0


async def test_a_peer_that_ends_in_the_middle_of_a_packet(bench: Bench) -> None:
    peer, _ = bench.connect()
    async with peer:
        await peer.stream.send_all(frame(LOGIN, body_of(userId=10001))[:-1])
        await peer.stream.send_eof()
        await peer.expect_closed()
    assert len(bench.poller) == 0
    assert bench.node.metrics.protocol_violations == 1


async def test_cancelling_it_closes_every_socket() -> None:
    bench = Bench(best_source())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.poller.run)
        peer, session = await bench.log_in(10001)
        nursery.cancel_scope.cancel()
    async with peer:
        await peer.expect_closed()
    assert session.ended
    assert len(bench.poller) == len(bench.node.hub) == 0


async def test_the_outbox_of_a_slow_peer_is_sent_in_slices(bench: Bench) -> None:
    slow, session = await bench.log_in(10001)
    quick, _ = await bench.log_in(10002)
    async with slow, quick:
        session.outbox.push(frame(ERROR, b'{"data":"%s"}' % (b"x" * 3_000_000)))
        for _ in range(10):
            session.outbox.push(frame(HEARTBEAT, b"{}"))
        await quick.send(HEARTBEAT)
        await quick.expect(HEARTBEAT)
        await slow.expect(ERROR)
        for _ in range(10):
            await slow.expect(HEARTBEAT)


async def test_a_peer_that_shuts_its_side_gets_what_waited_for_the_database(bench: Bench) -> None:
    peer, session = await bench.log_in(10001)
    async with peer:
        session.hold()  # as a ROOM packet does whose room only the database knows
        await peer.send(HEARTBEAT)
        await peer.stream.send_eof()
        await trio.testing.wait_all_tasks_blocked()  # it neither closes nor spins
        assert len(bench.poller) == 1
        act = partial(bench.dispatcher.resume, session, lambda _now: session.answer(MsgCode.ROOM, "{}"), bench.now)
        bench.poller.run_for(session, act)
        await peer.expect(ROOM)
        await peer.expect(HEARTBEAT)
        await peer.expect_closed()
    with trio.fail_after(5):
        await bench.poller.drained()


async def test_a_peer_that_shut_its_side_is_closed_even_if_no_answer_comes(bench: Bench) -> None:
    peer, session = await bench.log_in(10001)
    async with peer:
        session.hold()
        await peer.stream.send_eof()
        await trio.testing.wait_all_tasks_blocked()
        bench.node.sessions.end(session, EndReason.IDLE)
        await peer.expect(LOGOUT)
        await peer.expect_closed()
    assert len(bench.poller) == 0


async def test_a_peer_that_shuts_its_side_gets_the_receipt_that_waited_for_the_database(bench: Bench) -> None:
    peer, session = await bench.log_in(10001)
    async with peer:
        session.waiting += 2  # as messages do that are to be stored
        await peer.send(HEARTBEAT)
        await peer.stream.send_eof()
        await peer.expect(HEARTBEAT)
        for _ in range(2):
            await trio.testing.wait_all_tasks_blocked()  # it neither closes nor spins
            assert len(bench.poller) == 1
            session.send_receipt("a", 7)
            session.settled()
            assert (await peer.expect(ACK))["clientMsgId"] == "a"
        await peer.expect_closed()
    with trio.fail_after(5):
        await bench.poller.drained()


async def test_a_peer_that_shut_its_side_goes_on_being_sent_what_it_is_owed(bench: Bench) -> None:
    peer, session = await bench.log_in(10001)
    async with peer:
        session.outbox.push(frame(HEARTBEAT, b'{"data":"%b"}' % (b"x" * 3_000_000)))  # more than the kernel takes
        await peer.stream.send_eof()
        await trio.testing.wait_all_tasks_blocked()
        assert session.ended
        assert len(bench.poller) == 1
        await peer.expect(HEARTBEAT)
        await peer.expect_closed()
    with trio.fail_after(5):
        await bench.poller.drained()


async def test_a_peer_that_shut_its_side_and_does_not_read_has_its_second(bench: Bench) -> None:
    peer, session = await bench.log_in(10001)
    async with peer:
        session.outbox.push(frame(HEARTBEAT, b" " * 10_000_000))
        await peer.stream.send_eof()
        await trio.testing.wait_all_tasks_blocked()
        bench.advance(LINGER_SECONDS - 0.1)
        assert len(bench.poller) == 1
        bench.advance(0.2)
        assert len(bench.poller) == 0


@pytest.mark.parametrize("waits", ["held", "stored", "unread"])
async def test_a_peer_that_shuts_its_side_and_then_resets_ends(waits: str) -> None:
    await reset_after_shutting(Bench(best_source()), waits, at_once=sys.platform == "linux")
    await reset_after_shutting(Bench(SelectorSource()), waits, at_once=False)


async def reset_after_shutting(bench: Bench, waits: str, *, at_once: bool) -> None:
    """epoll tells of the reset; elsewhere it is noticed when something is sent, or the peer has had its time."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.poller.run)
        peer, session = await bench.connect_tcp()
        if waits == "held":
            session.hold()
        elif waits == "stored":
            session.waiting += 1
        else:
            session.outbox.push(frame(HEARTBEAT, b" " * 10_000_000))
        await peer.stream.send_eof()
        await trio.testing.wait_all_tasks_blocked()
        assert len(bench.poller) == 1
        peer.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await trio.aclose_forcefully(peer.stream)
        await trio.testing.wait_all_tasks_blocked()
        if not at_once and len(bench.poller):
            bench.advance(DEPARTURE_SECONDS)
            bench.dispatcher.sweep(bench.now)
        with trio.fail_after(5):
            await bench.poller.drained()
        assert session.ended
        assert len(bench.node.departures) == 0
        nursery.cancel_scope.cancel()


async def test_what_a_closed_session_held_is_let_go_within_its_second(bench: Bench) -> None:
    peer, session = await bench.log_in(10001)
    number = id(session.outbox.owner)
    session.outbox.push(b"x" * 10_000_000)
    await trio.aclose_forcefully(peer.stream)
    gc.disable()
    try:
        with trio.fail_after(5):
            await bench.poller.drained()
        del session
        bench.advance(LINGER_SECONDS + 0.1)
        left = [each for each in gc.get_objects() if id(each) == number and isinstance(each, PlainConnection)]
        assert left == []  # without the collector
    finally:
        gc.enable()


async def test_a_bug_in_what_another_task_does_for_a_session_ends_that_session(bench: Bench) -> None:
    def broken() -> None:
        raise ZeroDivisionError

    peer, session = await bench.log_in(10001)
    async with peer:
        with capture_logs():
            bench.poller.run_for(session, broken)
        await peer.expect_closed()
    with trio.fail_after(5):
        await bench.poller.drained()
    bench.poller.run_for(session, broken)  # it is gone: nothing is done for it


async def test_who_makes_much_work_does_not_keep_others_from_being_read(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poller_module, "DELIVERIES_A_TURN", 10)
    busy, first = await bench.log_in(10001)
    quiet, second = await bench.log_in(10002)
    read: list[int] = []
    enough = 20

    def received(which: Session, data: object, now: Instant) -> None:
        read.append(which.user_id)
        if which is first and len(read) < enough:  # as a sender does who has all of it back at once
            bench.node.metrics.deliveries += 1_000
            busy_socket.send(b"x")

    busy_socket = cast("Any", busy.stream.socket)._sock
    monkeypatch.setattr(bench.dispatcher, "received", received)
    async with busy, quiet:
        # Both are ready before the poller looks, the busy one in front, and it is ready again each time.
        busy_socket.send(b"x")
        cast("Any", quiet.stream.socket)._sock.send(b"x")
        with trio.fail_after(5):
            while len(read) < enough:
                await trio.lowlevel.checkpoint()
        assert second.user_id in read[:3]


async def test_what_one_turn_does_not_send_the_next_one_does(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poller_module, "FLUSHES_A_TURN", 2)
    members = [await bench.log_in(user) for user in range(10001, 10008)]
    for _, session in members:
        session.answer(MsgCode.HEARTBEAT, "all of you")
    for peer, _ in members:
        async with peer:
            assert (await peer.expect(HEARTBEAT))["data"] == "all of you"


def flushed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, *, meanwhile: Callable[[], None] = lambda: None
) -> list[int]:
    """Whose outboxes the poller sends from here on, in order; `meanwhile` happens during the first."""
    order: list[int] = []
    flush = bench.poller._flush

    def flush_and_tell(connection: PlainConnection, now: Instant) -> None:
        order.append(cast("Session", connection.endpoint).user_id)
        flush(connection, now)
        if len(order) == 1:
            meanwhile()

    monkeypatch.setattr(bench.poller, "_flush", flush_and_tell)
    return order


async def test_what_may_wait_is_sent_after_everything_else(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    members = [await bench.log_in(user) for user in range(10001, 10005)]
    (_, first), (_, second), (_, third), (_, fourth) = members
    first.outbox.is_bulk = third.outbox.is_bulk = True
    order = flushed(bench, monkeypatch)
    for session in (first, second, third, fourth):
        session.answer(MsgCode.HEARTBEAT, "to you")
    for peer, _ in members:
        async with peer:
            assert (await peer.expect(HEARTBEAT))["data"] == "to you"
    assert order[:4] == [10002, 10004, 10001, 10003]


async def test_what_may_wait_has_a_part_of_a_turn(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the time is up, others come first again, and the rest of it after them."""
    monkeypatch.setattr(poller_module, "BULK_SECONDS", 0)  # up after the first
    viewers = [await bench.log_in(user) for user in (10001, 10002, 10003)]
    member, session = await bench.log_in(10009)
    for _, viewer in viewers:
        viewer.outbox.is_bulk = True
    order = flushed(bench, monkeypatch, meanwhile=lambda: session.answer(MsgCode.HEARTBEAT, "meanwhile"))
    for _, viewer in viewers:
        viewer.answer(MsgCode.HEARTBEAT, "a frame")
    for peer, _ in (*viewers, (member, session)):
        async with peer:
            await peer.expect(HEARTBEAT)
    assert order[:4] == [10001, 10009, 10002, 10003]


async def test_what_may_wait_for_a_slow_viewer_comes_whole(bench: Bench) -> None:
    viewer, session = await bench.log_in(10001)
    member, _ = await bench.log_in(10002)
    session.outbox.is_bulk = True
    async with viewer, member:
        session.outbox.push(frame(ERROR, b'{"data":"%s"}' % (b"x" * 3_000_000)))
        session.answer(MsgCode.HEARTBEAT, "and the next")
        await member.send(HEARTBEAT)
        await member.expect(HEARTBEAT)
        assert session.outbox.held, "it reads nothing yet"
        await viewer.expect(ERROR)
        assert (await viewer.expect(HEARTBEAT))["data"] == "and the next"
        assert not session.outbox.is_due


async def test_who_has_gone_is_not_sent_what_may_wait(bench: Bench) -> None:
    viewers = [await bench.log_in(user) for user in (10001, 10002)]
    (gone, first), (peer, _) = viewers
    for _, session in viewers:
        session.outbox.is_bulk = True
    connection = first.outbox.owner
    for _, session in viewers:
        session.answer(MsgCode.HEARTBEAT, "a frame")
    bench.poller._close_later(connection)  # as when its socket fails before its turn comes
    bench.poller._close_now()
    async with gone, peer:
        assert (await peer.expect(HEARTBEAT))["data"] == "a frame"
        assert first.outbox.owner is None
        assert len(bench.poller) == 1


async def test_long_turns_are_counted(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    peer, _ = await bench.log_in(10001)
    turns = bench.node.metrics.turns

    def received(which: Session, data: object, now: Instant) -> None:
        bench.now = Instant(bench.now.monotonic + 0.1, bench.now.unix_ms + 100)
        which.answer(MsgCode.HEARTBEAT)

    monkeypatch.setattr(bench.dispatcher, "received", received)
    async with peer:
        await peer.send(HEARTBEAT)
        await peer.expect(HEARTBEAT)
        await trio.testing.wait_all_tasks_blocked()
    assert bench.node.metrics.turns > turns
    assert bench.node.metrics.turns_long >= 1


# TLS


@pytest.fixture
def reluctant(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sockets take nothing three times, and then a few bytes at a time."""
    send = PlainConnection.send
    refusals = [True] * 3

    def send_little(connection: PlainConnection, data: bytes) -> int:
        if refusals:
            refusals.pop()
            raise BlockingIOError
        return send(connection, data[:50])

    monkeypatch.setattr(PlainConnection, "send", send_little)


@needs_openssl
@pytest.mark.usefixtures("reluctant")
async def test_a_handshake_that_the_kernel_does_not_take_at_once(bench: Bench, tmp_path: Path) -> None:
    files = make_certificate(tmp_path)
    theirs, _ = bench.connect_tls(Certificate(*files, ["tcp"]))
    stream = trio.SSLStream(
        trio.SocketStream(trio.socket.from_stdlib_socket(theirs)), trusting(files[0]), server_hostname="localhost"
    )
    with trio.fail_after(10):
        await stream.do_handshake()
        await stream.send_all(frame(HEARTBEAT, b""))
        assert b"expected 1001" in await stream.receive_some()
    assert bench.node.metrics.tls_handshakes == 1
    await trio.aclose_forcefully(stream)


@needs_openssl
async def test_a_peer_that_leaves_in_the_middle_of_a_handshake(bench: Bench, tmp_path: Path) -> None:
    theirs, _ = bench.connect_tls(Certificate(*make_certificate(tmp_path), ["tcp"]))
    theirs.close()
    with trio.fail_after(10):
        await bench.poller.drained()
    assert bench.node.metrics.tls_handshakes_failed == 1


@needs_openssl
async def test_a_handshake_that_takes_too_long(bench: Bench, tmp_path: Path) -> None:
    theirs, _ = bench.connect_tls(Certificate(*make_certificate(tmp_path), ["tcp"]))
    with theirs:
        bench.advance(9.9)
        assert len(bench.poller) == 1
        bench.advance(0.1)
        assert len(bench.poller) == 0
    assert bench.node.metrics.tls_handshakes_failed == 1


async def test_little_frames_wait_for_their_turn_in_the_kernel(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    flooding, flood = await bench.log_in(10001)
    quiet, patient = await bench.log_in(10002)
    metrics = bench.node.metrics
    handled: list[int] = []

    def received(which: Session, data: memoryview, now: Instant) -> None:
        Dispatcher.received(bench.dispatcher, which, data, now)
        if which is patient:
            handled.append(metrics.packets_received)

    monkeypatch.setattr(bench.dispatcher, "received", received)
    beat = frame(HEARTBEAT, b"{}")
    async with flooding, quiet:
        for _ in range(20):
            # Both are ready before the poller looks, the one with the flood in front.
            sent = socket_of(flooding).send(beat * 1000)
            before = metrics.packets_received
            socket_of(quiet).send(beat)
            await quiet.expect(HEARTBEAT)
            assert handled.pop() - before <= poller_module.FIRST_READ_BYTES / len(beat) + 1
            await read_all(flooding, sent // len(beat))
        assert flood.outbox.owner.share.buffer.nbytes == poller_module.LEAST_READ_BYTES
        assert metrics.turns_waited > 0


async def test_who_has_more_than_a_share_has_it_in_turns(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    flooding = [await bench.log_in(user) for user in (10001, 10002, 10003)]
    order: list[int] = []

    def received(session: Session, data: object, now: Instant) -> None:
        order.append(session.user_id)
        bench.node.metrics.work += 200 if session.user_id == 10003 else 100

    monkeypatch.setattr(bench.dispatcher, "received", received)
    for peer, _ in flooding:
        socket_of(peer).send(bytes(20_000))
    with trio.fail_after(5):
        while len(order) < 24:
            await trio.lowlevel.checkpoint()
    # Each read of the third makes twice as much work, so it is read half as often: the shares are of work.
    work = [cost * order[:24].count(user) for cost, user in ((100, 10001), (100, 10002), (200, 10003))]
    assert max(work) - min(work) <= 200, work
    for peer, _ in flooding:
        await trio.aclose_forcefully(peer.stream)


async def test_what_makes_little_work_is_read_in_large_pieces(bench: Bench) -> None:
    peer, session = await bench.log_in(10001)
    body = b'{"data":"%s"}' % (b"x" * 60_000)
    async with peer, trio.open_nursery() as nursery:
        nursery.start_soon(peer.stream.send_all, frame(HEARTBEAT, body) * 30)
        for _ in range(30):
            await peer.expect(HEARTBEAT)
        assert session.outbox.owner.share.buffer.nbytes >= 8 * poller_module.FIRST_READ_BYTES


async def test_who_does_not_read_what_it_is_owed_is_not_read_either(bench: Bench) -> None:
    peer, session = await bench.log_in(10001)
    metrics = bench.node.metrics
    async with peer:
        session.outbox.push(frame(ERROR, b'{"data":"%s"}' % (b"x" * 1_000_000)))
        await trio.testing.wait_all_tasks_blocked()
        before = metrics.packets_received
        socket_of(peer).send(frame(HEARTBEAT, b"{}") * 5)
        await trio.testing.wait_all_tasks_blocked()  # it neither reads on nor spins
        assert metrics.packets_received - before == 5  # once, for it may have been the end
        for _ in range(3):
            socket_of(peer).send(frame(HEARTBEAT, b"{}") * 5)
            await trio.testing.wait_all_tasks_blocked()
        assert metrics.packets_received - before == 5
        assert metrics.reads_stopped == 1
        bench.now = Instant(bench.now.monotonic + 50, bench.now.unix_ms)
        await peer.expect(ERROR)
        for _ in range(20):
            await peer.expect(HEARTBEAT)
        assert session.last_seen == bench.now.monotonic
        await peer.send(HEARTBEAT)
        await peer.expect(HEARTBEAT)


async def test_who_sends_faster_than_it_may_is_read_no_faster(bench: Bench) -> None:
    peer, session = await bench.log_in(10001)
    bench.node.limits.rates = Rates(packets_per_second=100, packets_burst=100)
    metrics = bench.node.metrics
    beat = frame(HEARTBEAT, b"{}")
    async with peer:
        before = metrics.packets_received
        socket_of(peer).send(beat * 1000)
        await trio.testing.wait_all_tasks_blocked()  # it does not spin
        first = metrics.packets_received - before
        assert 100 <= first <= 100 + poller_module.FIRST_READ_BYTES / len(beat)
        bench.advance(0.25)
        await trio.testing.wait_all_tasks_blocked()
        assert metrics.packets_received - before == first
        for _ in range(60):
            bench.advance(0.25)
            await trio.testing.wait_all_tasks_blocked()
        assert metrics.packets_received - before == 1000
        answers = [await peer.next_packet() for _ in range(1000)]
        assert {code for code, _ in answers} == {HEARTBEAT, ERROR}
        assert not session.ended


@pytest.mark.parametrize("way", ["reset", "ended"])
async def test_who_is_not_read_for_a_while_may_go(bench: Bench, way: str) -> None:
    peer, session = await bench.connect_tcp()
    session.state = LOGGED_IN
    bench.node.limits.rates = Rates(packets_per_second=1, packets_burst=1)
    await peer.stream.send_all(frame(HEARTBEAT, b"{}") * 100)
    await trio.testing.wait_all_tasks_blocked()
    assert session.outbox.owner.share.is_paused
    if way == "ended":
        bench.node.sessions._not_logged_in.pop(session)
        bench.node.sessions.end(session, EndReason.IDLE)
        bench.advance(0.25)
    else:
        peer.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await trio.aclose_forcefully(peer.stream)
    if bench.poller._source.__class__ is SelectorSource:
        bench.advance(100)  # it does not tell of errors
    with trio.fail_after(5):
        await bench.poller.drained()
    assert not bench.poller.by_address


async def test_who_reads_slowly_is_read_as_it_reads(bench: Bench) -> None:
    peer, session = await bench.log_in(10001)
    async with peer:
        session.outbox.push(frame(ERROR, b'{"data":"%s"}' % (b"x" * 1_000_000)))
        await trio.testing.wait_all_tasks_blocked()
        socket_of(peer).send(frame(HEARTBEAT, b"{}"))
        await trio.testing.wait_all_tasks_blocked()
        before = bench.node.metrics.packets_received
        socket_of(peer).send(frame(HEARTBEAT, b"{}"))
        await peer.stream.receive_some(300_000)
        await trio.testing.wait_all_tasks_blocked()
        assert session.outbox.size > poller_module.CLOGGED_BYTES
        assert bench.node.metrics.packets_received == before + 1


async def test_a_peer_that_is_not_read_and_resets_ends(bench: Bench) -> None:
    peer, session = await bench.connect_tcp()
    session.outbox.push(frame(ERROR, b" " * 10_000_000))
    for _ in range(2):
        await peer.stream.send_all(frame(HEARTBEAT, b"{}"))
        await trio.testing.wait_all_tasks_blocked()
    peer.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    await trio.aclose_forcefully(peer.stream)
    with trio.fail_after(5):
        await bench.poller.drained()


def socket_of(peer: RawTcpClient) -> socket.socket:
    return cast("socket.socket", cast("Any", peer.stream.socket)._sock)


async def read_all(peer: RawTcpClient, count: int) -> None:
    for _ in range(count):
        await peer.expect(HEARTBEAT)
