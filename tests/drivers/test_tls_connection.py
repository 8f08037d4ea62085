from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certificates import make_certificate, needs_openssl, trusting
from qiyu.drivers.connection import PlainConnection
from qiyu.drivers.handshakes import STEPS_A_TURN, HandshakeRules, Handshakes
from qiyu.drivers.tls import Certificate
from qiyu.drivers.tls_connection import TlsConnection
from qiyu.metrics import Metrics
from sessions import make_session

pytestmark = needs_openssl

BUFFER_BYTES = 256 * 1024


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("tls"))


class Pair:
    """A connection of the server's, and a client of Python's own at the other end of its socket."""

    def __init__(self, files: tuple[Path, Path], version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> None:
        ours, self.sock = socket.socketpair()
        ours.setblocking(False)
        self.sock.setblocking(False)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        session = make_session()
        self.metrics = Metrics()
        self.handshakes = Handshakes(HandshakeRules(), self.metrics)
        context = Certificate(*files, ["tcp"]).context("tcp")
        assert context is not None
        self.ours = TlsConnection(ours, session.outbox, session, context, self.handshakes)
        self.handshakes.begin(self.ours, 0.0)
        self.buffer = memoryview(bytearray(BUFFER_BYTES))
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        trust = trusting(files[0])
        trust.maximum_version = version
        self.client = trust.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")

    def receive(self) -> bytes | None:
        """What one call of the server's gets; None for nothing yet."""
        try:
            size = self.ours.receive(self.buffer)
        except BlockingIOError:
            return None
        return bytes(self.buffer[:size])

    def pump(self) -> None:
        """Carry what the server has sent to the client's TLS."""
        while True:
            try:
                data = self.sock.recv(2**20)
            except BlockingIOError:
                return
            if not data:
                self.incoming.write_eof()
                return
            self.incoming.write(data)

    def shake_hands(self) -> None:
        """Until both know that it is done."""
        for _ in range(10):
            try:
                self.client.do_handshake()
            except ssl.SSLWantReadError:
                self.sock.sendall(self.outgoing.read())
                self.receive()
                self.metrics.turns += 1
                self.pump()
                continue
            self.sock.sendall(self.outgoing.read())
            self.receive()
            self.pump()
            return
        raise AssertionError("no handshake")

    def write(self, data: bytes) -> bytes:
        """As it goes over the wire, encrypted."""
        self.client.write(data)
        return self.outgoing.read()

    def read(self) -> bytes:
        """All that the client can decrypt by now."""
        self.pump()
        found = b""
        try:
            while chunk := self.client.read(2**20):
                found += chunk
        except ssl.SSLWantReadError:
            pass
        return found

    def close(self) -> None:
        self.ours.close()
        self.sock.close()


@pytest.fixture
def pair(files: tuple[Path, Path]) -> Iterator[Pair]:
    made = Pair(files)
    yield made
    made.close()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_what_goes_in_comes_out(files: tuple[Path, Path], version: ssl.TLSVersion) -> None:
    pair = Pair(files, version)
    assert pair.ours.version is None
    pair.shake_hands()
    assert pair.ours.version == version.name.replace("_", ".")
    pair.sock.sendall(pair.write(b"hello"))
    assert pair.receive() == b"hello"
    assert pair.receive() is None
    assert pair.ours.send(b"and back") == 8
    assert pair.read() == b"and back"
    assert (pair.metrics.tls_handshakes, pair.metrics.tls_handshakes_failed, len(pair.handshakes)) == (1, 0, 0)
    pair.close()


def test_an_older_version_is_refused(files: tuple[Path, Path]) -> None:
    pair = Pair(files)
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("DEFAULT:@SECLEVEL=0")
    client = old.wrap_bio(pair.incoming, pair.outgoing)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    pair.sock.sendall(pair.outgoing.read())
    with pytest.raises(ssl.SSLError, match=r"(?i)version|protocol"):
        pair.ours.receive(pair.buffer)
    pair.pump()
    with pytest.raises(ssl.SSLError, match=r"(?i)alert"):  # it is told
        client.do_handshake()
    assert pair.metrics.tls_handshakes_failed == 1
    pair.close()


@pytest.mark.property
@given(st.lists(st.binary(min_size=1, max_size=40_000), max_size=6), st.lists(st.integers(1, 20_000), min_size=1))
def test_bytes_arrive_however_they_are_cut(files: tuple[Path, Path], chunks: list[bytes], sizes: list[int]) -> None:
    """Whatever the client writes, in whatever portions its records come, the server reads just that, in order."""
    pair = Pair(files)
    pair.shake_hands()
    wire = b"".join([pair.write(chunk) for chunk in chunks])
    got = b""
    turn = 0
    while wire:
        size = sizes[turn % len(sizes)]
        turn += 1
        pair.sock.sendall(wire[:size])
        wire = wire[size:]
        while (data := pair.receive()) is not None:
            got += data
    assert got == b"".join(chunks)
    pair.close()


@pytest.mark.property
@given(st.lists(st.binary(min_size=1, max_size=300_000), min_size=1, max_size=4), st.lists(st.booleans(), min_size=1))
def test_a_slow_peer_gets_every_byte_once(files: tuple[Path, Path], chunks: list[bytes], reads: list[bool]) -> None:
    """However little the kernel takes, what the poller puts back and sends again arrives once, in order, and whole.

    And while anything is still to be passed on, the poller has a byte left, for which it waits until it can be written.
    """
    pair = Pair(files)
    pair.shake_hands()
    got, left, turn = b"", b"".join(chunks), 0
    while left:
        try:
            sent = pair.ours.send(left)
        except BlockingIOError:
            sent = 0
        left = left[sent:]
        assert left or not pair.ours.owes
        turn += 1
        if reads[turn % len(reads)] or not sent:
            got += pair.read()
    assert got + pair.read() == b"".join(chunks)
    pair.close()


@pytest.mark.property
@given(st.binary(min_size=1, max_size=400))
def test_any_bytes_for_a_handshake(files: tuple[Path, Path], data: bytes) -> None:
    """Whatever comes instead of a handshake, it is waited for, or an OSError that closes this connection alone."""
    pair = Pair(files)
    pair.sock.sendall(data)
    pair.sock.shutdown(socket.SHUT_WR)
    for _ in range(3):
        pair.metrics.turns += 1
        try:
            assert pair.ours.receive(pair.buffer) == 0
        except BlockingIOError:
            continue
        except OSError:
            break
    else:
        raise AssertionError("it still waits, though the peer has ended its side")
    pair.close()
    assert (pair.metrics.tls_handshakes, pair.metrics.tls_handshakes_failed) == (0, 1)


def test_before_the_handshake_nothing_can_be_said(pair: Pair) -> None:
    with pytest.raises(ConnectionAbortedError):
        pair.ours.send(b"no login in time")


def test_the_end_of_the_peers_side(pair: Pair) -> None:
    pair.shake_hands()
    with pytest.raises(ssl.SSLWantReadError):
        pair.client.unwrap()
    pair.sock.sendall(pair.outgoing.read())
    assert pair.receive() == b""
    assert pair.ours.send(b"it may still read") == 17  # a half-close
    assert pair.read() == b"it may still read"


def test_an_end_without_a_good_bye_of_tls(pair: Pair) -> None:
    pair.shake_hands()
    pair.sock.sendall(pair.write(b"last words"))
    pair.sock.shutdown(socket.SHUT_WR)
    assert pair.receive() == b"last words"
    assert pair.receive() == b""


def test_our_good_bye_is_one_of_tls_and_what_comes_then_is_thrown_away(pair: Pair) -> None:
    pair.shake_hands()
    pair.ours.send(b"go")
    pair.ours.shut()
    pair.pump()
    assert pair.client.read(10) == b"go"
    assert pair.client.read(10) == b""  # and not SSLEOFError
    pair.sock.sendall(b"nobody looks whether this is TLS")
    assert pair.receive() is not None


def test_garbage_in_the_middle_closes_the_connection(pair: Pair) -> None:
    pair.shake_hands()
    pair.sock.sendall(b"\x17\x03\x03\x00\x20" + b"x" * 32)
    with pytest.raises(ssl.SSLError):
        pair.ours.receive(pair.buffer)


def test_so_many_steps_are_done_in_one_turn(files: tuple[Path, Path]) -> None:
    """Beyond them the bytes stay in the kernel, where they are seen in the next turn."""
    pair = Pair(files)
    with pytest.raises(ssl.SSLWantReadError):
        pair.client.do_handshake()
    pair.sock.sendall(pair.outgoing.read())
    for _ in range(STEPS_A_TURN):
        assert pair.handshakes.may_step()
    assert pair.receive() is None
    with pytest.raises(BlockingIOError):
        pair.sock.recv(1)
    pair.metrics.turns += 1
    assert pair.receive() is None
    pair.pump()
    pair.client.do_handshake()
    pair.close()


def test_a_handshake_has_its_time(files: tuple[Path, Path]) -> None:
    pair = Pair(files)
    assert list(pair.handshakes.late(9.9)) == []
    assert list(pair.handshakes.late(10.0)) == [pair.ours]
    assert list(pair.handshakes.late(11.0)) == []
    assert pair.metrics.tls_handshakes_failed == 1
    pair.close()
    assert pair.metrics.tls_handshakes_failed == 1


def test_there_is_room_for_so_many(files: tuple[Path, Path]) -> None:
    pair = Pair(files)
    pair.handshakes.rules = HandshakeRules(handshakes=1)
    assert not pair.handshakes.has_room
    pair.shake_hands()
    assert pair.handshakes.has_room
    pair.handshakes.rules = HandshakeRules(handshakes=0)
    assert pair.handshakes.has_room
    pair.close()


def test_what_the_kernel_does_not_take_of_a_handshake_is_owed(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = Pair(files)
    with pytest.raises(ssl.SSLWantReadError):
        pair.client.do_handshake()
    send, calls = PlainConnection.send, 0

    def send_little(connection: PlainConnection, data: bytes) -> int:
        """The socket takes nothing, at first."""
        nonlocal calls
        calls += 1
        if calls == 1:
            raise BlockingIOError
        return send(connection, data[:100])

    monkeypatch.setattr(PlainConnection, "send", send_little)
    pair.sock.sendall(pair.outgoing.read())
    assert pair.receive() is None
    assert pair.ours.owes
    assert pair.ours.flush()
    assert not pair.ours.owes
    pair.pump()
    pair.client.do_handshake()
    pair.close()


def test_what_is_more_than_the_buffer_waits_for_the_next_call(pair: Pair) -> None:
    pair.shake_hands()
    pair.buffer = memoryview(bytearray(512))
    sent = bytes(range(256)) * 80
    pair.client.write(sent)
    pair.sock.sendall(pair.outgoing.read())
    found = b""
    while len(found) < len(sent):
        data = pair.receive()
        found += data or b""
    assert found == sent
    assert pair.receive() is None
