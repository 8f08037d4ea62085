"""The WebSocket transport, against a server on a real socket."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Awaitable, Callable
from contextlib import suppress
from hashlib import sha1
from typing import Any

import pytest
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, serve_websocket

from client.fakes import chat_packet, error_packet, logout_packet, packet_of, receipt_packet
from qiyu.client import (
    ConnectFailed,
    ConnectionLost,
    Disconnected,
    Kicked,
    LoginRefused,
    Message,
    Options,
    Reconnected,
    connect,
)
from qiyu.client.options import DEFAULTS
from qiyu.client.transport import Address, Login
from qiyu.client.websocket import open_websocket
from qiyu.protocol.packet import MAGIC, MsgCode, Packet

Handler = Callable[[WebSocketRequest], Awaitable[None]]
Listen = Callable[[Handler], Awaitable[int]]
Answering = Callable[[bytes], Awaitable[int]]

TOKEN = "abc.def%10001"


def envelope(packet: Packet) -> str:
    body = bytes(packet.body).decode()
    return json.dumps({"magic": MAGIC, "code": packet.code, "len": len(body), "body": body})


async def receive(websocket: WebSocketConnection) -> dict[str, Any]:
    received: dict[str, Any] = json.loads(await websocket.get_message())
    return received


@pytest.fixture
async def listen(nursery: trio.Nursery) -> Listen:
    async def start(handler: Handler) -> int:
        async def handle(request: WebSocketRequest) -> None:
            with suppress(ConnectionClosed):
                await handler(request)

        async def run(task_status: trio.TaskStatus[Any]) -> None:
            await serve_websocket(handle, "127.0.0.1", 0, None, task_status=task_status)

        server = await nursery.start(run)
        return int(server.port)

    return start


def opened(port: int, options: Options = DEFAULTS) -> Any:
    return open_websocket(Address("ws", "127.0.0.1", port, ""), Login(10001, 10001, TOKEN), options)


async def test_the_first_message_is_the_login_and_each_an_envelope(listen: Listen) -> None:
    paths: list[str] = []
    received: list[dict[str, Any]] = []

    async def serve(request: WebSocketRequest) -> None:
        paths.append(request.path)
        websocket = await request.accept()
        login = await receive(websocket)
        assert login["code"] == MsgCode.LOGIN
        assert json.loads(login["body"]) == {"appId": 10001, "userId": 10001, "token": TOKEN}
        await websocket.send_message(envelope(packet_of(MsgCode.LOGIN, data="true")))
        received.append(await receive(websocket))
        client_msg_id = json.loads(received[0]["body"])["clientMsgId"]
        await websocket.send_message(envelope(receipt_packet(client_msg_id, "70")))
        await websocket.send_message(envelope(chat_packet(1, '你好 "q"')))
        received.append(await receive(websocket))
        received.append(await receive(websocket))
        await websocket.send_message(envelope(packet_of(MsgCode.LOGOUT, data="true")))
        await websocket.aclose(1000, "logout")

    url = f"ws://127.0.0.1:{await listen(serve)}"
    async with connect(url, user_id=10001, token=TOKEN) as client:
        assert await client.send_direct(10002, "hällo") == "70"
        item = await anext(client)
        assert isinstance(item, Message)
        assert item.content == '你好 "q"'
    assert paths == ["/"]  # no token in it, for proxies write down what paths they see
    assert [packet["code"] for packet in received] == [MsgCode.BIZ, MsgCode.ACK, MsgCode.LOGOUT]
    assert received[0]["magic"] == MAGIC
    assert received[0]["len"] == len(received[0]["body"].encode())
    assert json.loads(json.loads(received[0]["body"])["data"]) == {
        "objectId": 10002,
        "type": 1,
        "content": "hällo",
    }


@pytest.mark.parametrize(("status", "error"), [(400, LoginRefused), (401, LoginRefused), (503, ConnectFailed)])
async def test_a_refused_upgrade(listen: Listen, status: int, error: type[Exception]) -> None:
    async def serve(request: WebSocketRequest) -> None:
        await request.reject(status, body=b"the login token is malformed")

    url = f"ws://127.0.0.1:{await listen(serve)}"
    with pytest.raises(error, match="the login token is malformed"):
        await connect(url, user_id=10001, token=TOKEN).__aenter__()


async def test_a_refusal_without_a_reason(listen: Listen) -> None:
    async def serve(request: WebSocketRequest) -> None:
        await request.reject(403)

    with pytest.raises(LoginRefused, match="HTTP 403"):
        await opened(await listen(serve)).__aenter__()


@pytest.mark.parametrize(
    ("status", "error", "told"),
    [
        (200, ConnectFailed, r"HTTP 200 OK instead of a WebSocket from 127.0.0.1:\d+/: is that its address\?"),
        (301, ConnectFailed, "HTTP 301 Moved Permanently instead of a WebSocket"),
        (404, ConnectFailed, "HTTP 404 Not Found instead of a WebSocket"),
        (418, ConnectFailed, "HTTP 418 I'm a Teapot instead of a WebSocket"),
        (403, LoginRefused, "HTTP 403 Forbidden instead of a WebSocket"),
        (502, ConnectFailed, "HTTP 502 Bad Gateway$"),
        (599, ConnectFailed, "HTTP 599$"),
    ],
)
@pytest.mark.parametrize("kind", ["text/html", "text/html; charset=utf-8", "text/plain", ""])
async def test_a_page_is_not_thrown_at_the_user(
    raw_port: Answering, status: int, error: type[Exception], told: str, kind: str
) -> None:
    page = b"<html>\r\n<head><title>an error</title></head>\r\n</html>\r\n"
    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(page)}\r\n" + (f"Content-Type: {kind}\r\n" if kind else "")
    port = await raw_port(f"{head}\r\n".encode() + page)
    with pytest.raises(error, match=told) as caught:
        await opened(port).__aenter__()
    assert "html" not in str(caught.value)


async def test_a_token_goes_as_it_is_and_what_is_none_is_the_servers_to_refuse(listen: Listen) -> None:
    logins: list[dict[str, Any]] = []

    async def serve(request: WebSocketRequest) -> None:
        websocket = await request.accept()
        logins.append(await receive(websocket))
        await websocket.send_message(envelope(error_packet(401, "login: malformed")))
        await websocket.aclose(1008, "login: malformed")

    url = f"ws://127.0.0.1:{await listen(serve)}/live/"
    with pytest.raises(LoginRefused, match="malformed") as refused:
        await connect(url, user_id=10001, token="a/b c\r\nx: 中").__aenter__()
    assert refused.value.code == 401
    assert json.loads(logins[0]["body"])["token"] == "a/b c\r\nx: 中"


async def test_what_a_server_says_before_the_login_reaches_it_is_heard(listen: Listen) -> None:
    async def serve(request: WebSocketRequest) -> None:
        websocket = await request.accept()
        await websocket.send_message(envelope(error_packet(503, "too many are coming")))
        await websocket.aclose(1013, "later")

    url = f"ws://127.0.0.1:{await listen(serve)}"
    with pytest.raises(ConnectFailed, match="too many are coming"):
        await connect(url, user_id=10001, token=TOKEN).__aenter__()


async def test_a_kick_is_followed_by_a_close_and_is_still_a_kick(listen: Listen) -> None:
    async def serve(request: WebSocketRequest) -> None:
        websocket = await request.accept()
        await websocket.send_message(envelope(packet_of(MsgCode.LOGIN, data="true")))
        await websocket.send_message(envelope(logout_packet("replaced", reconnect=False)))
        await websocket.aclose(4001, "replaced")

    async def body() -> None:
        url = f"ws://127.0.0.1:{await listen(serve)}"
        async with connect(url, user_id=10001, token=TOKEN) as client:
            async for _ in client:
                pass

    with pytest.raises(Kicked, match="replaced"):
        await body()


async def test_a_close_is_a_lost_connection_with_its_code(listen: Listen) -> None:
    async def serve(request: WebSocketRequest) -> None:
        websocket = await request.accept()
        await websocket.aclose(1011, "internal error")

    async with opened(await listen(serve)) as transport:
        with pytest.raises(ConnectionLost, match="1011 internal error"):
            await transport.receive()
        with pytest.raises(ConnectionLost):
            await transport.send([packet_of(MsgCode.HEARTBEAT)])


@pytest.mark.parametrize("text", ["", "?", "[]", '{"magic":1}', '{"magic":1,"code":1001,"len":2,"body":"{}"}'])
async def test_a_message_that_is_no_envelope_is_a_lost_connection(listen: Listen, text: str) -> None:
    async def serve(request: WebSocketRequest) -> None:
        websocket = await request.accept()
        await websocket.send_message(text)
        await websocket.get_message()

    async with opened(await listen(serve)) as transport:
        with pytest.raises(ConnectionLost, match="does not speak the protocol"):
            await transport.receive()


@pytest.fixture
async def raw_port(nursery: trio.Nursery) -> Answering:
    """A port that answers whatever comes first with the same bytes, and then nothing."""

    async def start(answer: bytes) -> int:
        async def serve(stream: trio.SocketStream) -> None:
            request = await stream.receive_some()
            key = next(line for line in bytes(request).split(b"\r\n") if line.lower().startswith(b"sec-websocket-key"))
            await stream.send_all(answer.replace(b"KEY", _accept(key.partition(b":")[2].strip())))
            await trio.sleep_forever()

        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        return int(listeners[0].socket.getsockname()[1])

    return start


def _accept(key: bytes) -> bytes:
    return b64encode(sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())  # noqa: S324  # RFC 6455


SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: KEY\r\n\r\n"
)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 101 Switching"])
async def test_a_server_that_does_not_finish_the_handshake(raw_port: Answering, answer: bytes) -> None:
    port = await raw_port(answer)
    with pytest.raises(ConnectFailed, match="does not answer the WebSocket handshake"):
        await opened(port, Options(connect_seconds=0.05)).__aenter__()


async def test_a_server_that_speaks_no_http(raw_port: Answering) -> None:
    port = await raw_port(b"\x48\xf1 this is a TCP port of qiyu\r\n\r\n")
    with pytest.raises(ConnectFailed, match="does not speak WebSocket"):
        await opened(port).__aenter__()


async def test_frames_that_are_none_end_the_connection_as_lost(
    raw_port: Answering,
) -> None:
    port = await raw_port(SWITCH + b"\xff\xff\xff\xff")
    with pytest.raises(ConnectionLost):
        async with opened(port) as transport:
            await transport.receive()


async def test_a_server_that_never_closes_does_not_hold_us(raw_port: Answering) -> None:
    close = b"\x88\x02\x0f\xa1"
    port = await raw_port(SWITCH + close)
    with trio.fail_after(5):
        async with opened(port) as transport:
            with pytest.raises(ConnectionLost, match="4001"):
                await transport.receive()


async def test_a_login_that_is_lost_before_its_answer_is_tried_again_later(listen: Listen) -> None:
    attempts: list[str] = []

    async def serve(request: WebSocketRequest) -> None:
        attempts.append(request.path)
        websocket = await request.accept()
        if len(attempts) != 2:
            await websocket.send_message(envelope(packet_of(MsgCode.LOGIN, data="true")))
        await websocket.aclose(1012, "drain")

    url = f"ws://127.0.0.1:{await listen(serve)}"
    async with connect(url, user_id=10001, token=TOKEN, options=Options(jitter=lambda: 0.0)) as client:
        while len(attempts) < 3:
            assert isinstance(await anext(client), Disconnected | Reconnected)
