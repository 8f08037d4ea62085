from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from qiyu.drivers.connection import PlainConnection
from sessions import make_session


@pytest.fixture
def pair() -> Iterator[tuple[PlainConnection, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    session = make_session()
    connection = PlainConnection(ours, session.outbox, session)
    with theirs:
        yield connection, theirs
        connection.close()


def test_what_comes_is_put_into_the_buffer(pair: tuple[PlainConnection, socket.socket]) -> None:
    connection, peer = pair
    buffer = memoryview(bytearray(b"........"))
    with pytest.raises(BlockingIOError):
        connection.receive(buffer)
    peer.send(b"hello")
    assert connection.receive(buffer) == 5
    assert bytes(buffer) == b"hello..."
    peer.shutdown(socket.SHUT_WR)
    assert connection.receive(buffer) == 0


def test_what_is_sent_is_as_much_as_the_socket_takes(pair: tuple[PlainConnection, socket.socket]) -> None:
    connection, peer = pair
    data = bytes(50_000_000)
    taken = connection.send(data)
    assert 0 < taken < len(data)
    with pytest.raises(BlockingIOError):
        connection.send(data[taken:])
    received = 0
    while received < taken:
        received += len(peer.recv(2**20))
    assert received == taken


def test_the_peer_finds_the_end_and_may_still_write(pair: tuple[PlainConnection, socket.socket]) -> None:
    connection, peer = pair
    connection.shut()
    assert peer.recv(1) == b""
    peer.send(b"bye")
    assert connection.receive(memoryview(bytearray(8))) == 3


def test_a_peer_that_is_gone_is_an_os_error(pair: tuple[PlainConnection, socket.socket]) -> None:
    connection, peer = pair
    peer.close()
    with pytest.raises(OSError, match=r"Broken pipe|reset"):
        connection.send(b"x")


def test_repr_shows_its_state(pair: tuple[PlainConnection, socket.socket]) -> None:
    connection, _ = pair
    assert repr(connection) == f"<PlainConnection fd={connection.fd} {connection.endpoint!r}>"
