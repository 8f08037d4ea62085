from __future__ import annotations

import errno
import ipaddress
import os
import socket
from collections import Counter
from collections.abc import Callable

import pytest
import trio
from structlog.testing import capture_logs

from qiyu.drivers import listener as listener_module
from qiyu.drivers.listener import Listener, address_of, bind, packed
from qiyu.errors import StartupError
from qiyu.handlers.registry import NOT_LOGGED_IN
from qiyu.metrics import Metrics
from qiyu.model import network_of
from qiyu.protocol.tcp import TcpWire
from qiyu.routing.endpoint import Door
from sessions import NOBODY

DOOR = Door(lambda: TcpWire(0), NOBODY, NOT_LOGGED_IN)


class FakePoller:
    """Takes sockets, and drops them."""

    def __init__(self) -> None:
        self.added = 0
        self.addresses: list[bytes] = []
        self.by_address: Counter[bytes] = Counter()

    def __len__(self) -> int:
        return self.added

    def add(self, sock: socket.socket, door: object, address: bytes, tls: object = None) -> None:
        sock.close()
        self.added += 1
        self.addresses.append(address)
        self.by_address[network_of(address)] += 1


class FailingSocket:
    """A listening socket whose `accept` fails first in the ways it is told."""

    def __init__(self, sock: socket.socket, errors: list[int]) -> None:
        self._sock = sock
        self._errors = errors
        self.fileno = sock.fileno
        self.close = sock.close

    def accept(self) -> tuple[socket.socket, object]:
        if self._errors:
            number = self._errors.pop(0)
            raise OSError(number, os.strerror(number))
        return self._sock.accept()


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(10):
        while not condition():
            await trio.lowlevel.checkpoint()


async def test_accepting_survives_what_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener_module, "OUT_OF_RESOURCES_SECONDS", 0)
    [sock] = bind("tcp", ["127.0.0.1"], 0)
    failing = FailingSocket(sock, [errno.ECONNABORTED, errno.EMFILE, errno.EPROTO, errno.ENFILE])
    poller, metrics = FakePoller(), Metrics()
    listener = Listener(failing, DOOR, poller, 100, metrics)  # type: ignore[arg-type]
    with capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listener.run)
            with socket.create_connection(sock.getsockname()):
                await until(lambda: poller.added == 1)
            nursery.cancel_scope.cancel()
    assert [entry["log_level"] for entry in logs] == ["warning"]  # once for a while of it
    assert sock.fileno() == -1


async def test_over_the_limit_nobody_is_admitted() -> None:
    [sock] = bind("tcp", ["127.0.0.1"], 0)
    poller, metrics = FakePoller(), Metrics()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Listener(sock, DOOR, poller, 1, metrics).run)  # type: ignore[arg-type]
        with socket.create_connection(sock.getsockname()), socket.create_connection(sock.getsockname()):
            await until(lambda: metrics.connections_refused == 1)
        nursery.cancel_scope.cancel()
    assert poller.addresses == [bytes([127, 0, 0, 1])]


@pytest.mark.parametrize(
    ("family", "host", "packed"),
    [
        (socket.AF_INET, "192.0.2.7", bytes([192, 0, 2, 7])),
        (socket.AF_INET6, "2001:db8::7", bytes.fromhex("20010db8") + bytes(11) + b"\7"),
        (socket.AF_INET6, "::ffff:192.0.2.7", bytes([192, 0, 2, 7])),
        (socket.AF_INET6, "fe80::1%eth0", bytes.fromhex("fe80") + bytes(13) + b"\1"),
    ],
)
def test_an_address_is_kept_as_its_bytes(family: int, host: str, packed: bytes) -> None:
    assert listener_module.packed(family, host) == packed
    assert listener_module.packed(family, host) is listener_module.packed(family, host)  # shared by those who have it


def admitted(listener: Listener, family: int, host: str) -> bool:
    ours, theirs = socket.socketpair()
    before = listener._poller.by_address.total()
    listener._add(ours, packed(family, host))
    theirs.close()
    assert ours.fileno() == -1
    return listener._poller.by_address.total() > before


def test_an_address_has_so_many_connections_and_of_ipv6_a_network() -> None:
    metrics = Metrics()
    listener = Listener(None, DOOR, FakePoller(), 100, metrics)  # type: ignore[arg-type]
    listener.per_address = 2
    assert [admitted(listener, socket.AF_INET, "192.0.2.1") for _ in range(3)] == [True, True, False]
    assert admitted(listener, socket.AF_INET, "192.0.2.2")
    hosts = ("2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8:0:1::1")
    assert [admitted(listener, socket.AF_INET6, host) for host in hosts] == [True, True, False, True]
    assert metrics.connections_refused_address == 2
    listener.many_clients = (ipaddress.ip_network("192.0.2.0/24"),)
    assert admitted(listener, socket.AF_INET, "192.0.2.1")
    listener.many_clients = ()
    listener.per_address = 0
    assert admitted(listener, socket.AF_INET, "192.0.2.1")


def test_a_port_that_is_taken_stops_the_start() -> None:
    [sock] = bind("tcp", ["127.0.0.1"], 0)
    with sock, pytest.raises(StartupError, match=r"ws: cannot listen on 127\.0\.0\.1 port \d+: Address already in use"):
        bind("ws", ["127.0.0.1"], sock.getsockname()[1])


def test_a_host_that_is_none_stops_the_start() -> None:
    with pytest.raises(StartupError, match=r"tcp: cannot listen on 203\.0\.113\.1 port 0"):
        bind("tcp", ["203.0.113.1"], 0)


def test_every_address_of_a_host_gets_the_same_port(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.2", 0)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: addresses)
    one, two = bind("tcp", ["both.example"], 0)
    with one, two:
        assert one.getsockname()[1] == two.getsockname()[1] != 0
        assert address_of(two) == f"127.0.0.2:{one.getsockname()[1]}"


def test_an_ipv6_address_is_written_in_brackets() -> None:
    with one_socket("::1") as sock:
        assert address_of(sock) == f"[::1]:{sock.getsockname()[1]}"


def one_socket(host: str) -> socket.socket:
    try:
        [sock] = bind("tcp", [host], 0)
    except StartupError:
        pytest.skip("this machine has no IPv6: switch it on in the kernel")
    return sock


def test_any_address_serves_ipv4_as_well() -> None:
    with one_socket("::") as sock, socket.create_connection(("127.0.0.1", sock.getsockname()[1])) as client:
        assert client.getpeername()[0] == "127.0.0.1"


def test_any_address_of_both_kinds() -> None:
    one_socket("::").close()
    six, four = bind("tcp", ["::", "0.0.0.0"], 0)
    with six, four:
        assert six.getsockname()[1] == four.getsockname()[1]
        assert six.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)


def test_several_hosts_get_the_same_port_and_none_is_left_open_where_one_fails() -> None:
    one, two = bind("tcp", ["127.0.0.1", "127.0.0.2"], 0)
    port = one.getsockname()[1]
    with one, two:
        assert two.getsockname() == ("127.0.0.2", port)
    with pytest.raises(StartupError, match=r"tcp: cannot listen on 203\.0\.113\.1 port \d+"):
        bind("tcp", ["127.0.0.1", "203.0.113.1"], port)
    with bind("tcp", ["127.0.0.1"], port)[0]:  # it is free again
        pass


def test_localhost_where_there_is_no_ipv6_listens_on_ipv4_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("203.0.113.1", 0)),  # as ::1 is then: no address of this machine
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", 0)),
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: addresses)
    with capture_logs() as logs:
        [sock] = bind("tcp", ["localhost"], 0)
    with sock:
        assert sock.getsockname()[0] == "127.0.0.1"
    assert [(entry["log_level"], entry["address"]) for entry in logs] == [("warning", "203.0.113.1")]


def test_files_are_left_for_http(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (1000, 1000))
    assert listener_module.capacity(900) == 1000 - listener_module.SPARE_FILES
    assert listener_module.capacity(900, 200) == 1000 - listener_module.SPARE_FILES - 200
    assert listener_module.capacity(900, 2000) == 500, "half of them at least are for clients"
    assert listener_module.capacity(400, 200) == 400


async def test_an_address_of_which_too_much_came_to_nothing_is_closed_at_accept() -> None:
    [sock] = bind("tcp", ["127.0.0.1"], 0)
    poller, metrics = FakePoller(), Metrics()
    listener = Listener(sock, DOOR, poller, 100, metrics)  # type: ignore[arg-type]
    listener.is_spent = lambda address: address == bytes([127, 0, 0, 1]) and poller.added == 1
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listener.run)
        with socket.create_connection(sock.getsockname()), socket.create_connection(sock.getsockname()) as second:
            await until(lambda: metrics.connections_refused_fruitless == 1)
            assert second.recv(1) == b""
        nursery.cancel_scope.cancel()
    assert poller.added == 1
