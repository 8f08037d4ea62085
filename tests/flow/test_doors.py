"""The front doors of a whole server: what may come through them, told by the bytes on the wire."""

from __future__ import annotations

import pytest
import trio

from flow.test_video import ON_ONE_SOURCE
from servers import Start

pytestmark = ON_ONE_SOURCE

UPGRADE = (
    "Upgrade: h2c, websocket\r\nConnection: keep-alive\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


async def answer_to(address: str, request: str) -> str:
    """What comes first."""
    host, _, port = address.rpartition(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        await stream.send_all(request.encode())
        with trio.fail_after(10):
            answer = b""
            while b"\r\n\r\n" not in answer:
                data = await stream.receive_some()
                if not data:
                    break
                answer += data
    return answer.decode()


async def test_a_websocket_may_come_as_proxies_send_it(start_server: Start) -> None:
    async with start_server() as server:
        host = "Host: xn--99999999.example\r\n"
        for target in ("/", f"http://{server.ws}/", f"ws://{server.ws}"):
            answer = await answer_to(server.ws, f"\r\nGET {target} HTTP/1.1\r\n{host}{UPGRADE}\r\n")
            assert answer.startswith("HTTP/1.1 101 "), target
        answer = await answer_to(server.ws, f"HEAD / HTTP/1.1\r\n{host}\r\n")
        assert answer.startswith("HTTP/1.1 405 ")
        assert answer.endswith("\r\n\r\n")


@pytest.mark.parametrize("path", ["/healthz", "/healthz?x=http://y/"])
async def test_http_may_be_asked_with_a_whole_address(start_server: Start, path: str) -> None:
    async with start_server() as server:
        for target in (path, f"http://xn--99999999.example{path}"):
            answer = await answer_to(server.http, f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")
            assert answer.startswith("HTTP/1.1 200 "), target
        answer = await answer_to(server.http, f"GET http://a..b{path} HTTP/1.1\r\nHost: a\r\n\r\n")
        assert answer.startswith("HTTP/1.1 400 ")
