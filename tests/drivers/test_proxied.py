from __future__ import annotations

import ipaddress
import socket

import pytest
import trio
import trio.testing

from protocol.test_proxy import addresses, header
from qiyu.drivers.proxied import HEADER_SECONDS, ProxyGone, read_source
from qiyu.errors import ProtocolViolation
from qiyu.model import is_within

PROXY = bytes([127, 0, 0, 1])
HEADER = b"".join(header(addresses("203.0.113.7", "192.0.2.1")))


def pair() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    return ours, theirs


@pytest.mark.parametrize("sizes", [[len(HEADER) + 4], [1], [16, 1, 20]])
async def test_the_header_is_read_and_nothing_after_it(sizes: list[int]) -> None:
    ours, theirs = pair()
    with ours, theirs:
        data, turn = HEADER + b"more", 0
        async with trio.open_nursery() as nursery:
            found: list[bytes] = []

            async def read() -> None:
                found.append(await read_source(ours, PROXY))

            nursery.start_soon(read)
            while data:
                await trio.testing.wait_all_tasks_blocked()
                size = sizes[turn % len(sizes)]
                turn += 1
                theirs.sendall(data[:size])
                data = data[size:]
        assert found == [bytes([203, 0, 113, 7])]
        assert ours.recv(10) == b"more"


async def test_a_proxy_that_comes_for_itself() -> None:
    ours, theirs = pair()
    with ours, theirs:
        theirs.sendall(b"".join(header(b"", 0x20)))
        assert await read_source(ours, PROXY) == PROXY


@pytest.mark.parametrize(
    ("sent", "error"), [(b"", ProxyGone), (HEADER[:5], ProtocolViolation), (HEADER[:20], ProtocolViolation)]
)
async def test_a_proxy_that_leaves(sent: bytes, error: type[Exception]) -> None:
    ours, theirs = pair()
    with ours, theirs:
        theirs.sendall(sent)
        theirs.close()
        with pytest.raises(error):
            await read_source(ours, PROXY)


async def test_a_proxy_that_says_nothing(autojump_clock: trio.testing.MockClock) -> None:
    ours, theirs = pair()
    with ours, theirs:
        with pytest.raises(ProtocolViolation, match=r"within 5 s"):
            await read_source(ours, PROXY)
    assert trio.current_time() >= HEADER_SECONDS


def test_networks() -> None:
    networks = [ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("2001:db8::/32")]
    assert is_within(bytes([10, 1, 2, 3]), networks)
    assert is_within(ipaddress.ip_address("2001:db8::1").packed, networks)
    assert not is_within(bytes([11, 1, 2, 3]), networks)
    assert not is_within(PROXY, [])
