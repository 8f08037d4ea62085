"""The calls over HTTP, against whatever may answer them; against a server they are made in flow/test_client.py."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from qiyu.client import Access, Api, ConnectFailed, LoginRefused, Message, Options, RequestRefused
from qiyu.client.api import MAX_ANSWER_BYTES, History

Answering = Callable[[bytes], Awaitable[Api]]

OK = {"code": 200, "msg": "success"}


@pytest.fixture
async def requests() -> list[tuple[list[str], Any]]:
    """What came: the lines of the head, and the body."""
    return []


@pytest.fixture
async def answering(nursery: trio.Nursery, requests: list[tuple[list[str], Any]]) -> Answering:
    """An `Api` whose server answers each request with these bytes, and closes."""

    async def start(answer: bytes) -> Api:
        async def serve(stream: trio.SocketStream) -> None:
            request = b""
            while not request.endswith(b"}"):
                request += await stream.receive_some()
            head, _, body = request.partition(b"\r\n\r\n")
            requests.append((head.decode().split("\r\n"), json.loads(body)))
            await stream.send_all(answer)
            await stream.aclose()

        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        return Api(f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/im/", "s3cret")

    return start


def http(body: Any, status: int = 200) -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data


async def test_a_call_on_the_wire(answering: Answering, requests: list[tuple[list[str], Any]]) -> None:
    api = await answering(http(OK | {"data": {"10001": True, "10002": False}}))
    assert await api.online([10001, 10002]) == {10001: True, 10002: False}
    ((lines, body),) = requests
    assert lines[0] == "POST /im/im/online HTTP/1.1"
    assert f"Host: {repr(api).split()[1]}" in lines
    assert "Authorization: Bearer s3cret" in lines
    assert body == {"userIds": [10001, 10002]}
    assert "s3cret" not in repr(api)


async def test_a_login_is_kept_for_the_calls_that_follow(answering: Answering) -> None:
    api = await answering(http(OK | {"data": {"userId": 10007, "token": "new"}}))
    assert await api.log_in("ann", "correct horse") == 10007
    assert api.session == "new"


@pytest.mark.parametrize(
    ("ws_url", "wire", "url"),
    [
        (None, "ws", "ws://a:1"),
        ("wss://live.example.com/im", "ws", "wss://live.example.com/im"),
        ("wss://live.example.com/im", "tcp", "tcp://b:2"),
    ],
)
async def test_the_way_to_a_server(answering: Answering, ws_url: str | None, wire: Any, url: str) -> None:
    config = {"token": "t", "wsImServerAddress": "a:1", "tcpImServerAddress": "b:2", "wsUrl": ws_url}
    assert await (await answering(http(OK | {"data": config}))).access(wire) == Access(url, "t")


async def test_a_page_of_the_history(answering: Answering, requests: list[tuple[list[str], Any]]) -> None:
    data = json.dumps({"userId": 10001, "roomId": 7, "content": "mine", "type": 1, "createTime": 5})
    body = {"appId": 10001, "userId": 10001, "bizCode": 5555, "data": data, "msgId": "9", "clientMsgId": "c"}
    later = {"appId": 10001, "userId": 10001, "bizCode": 6000, "data": "", "msgId": "10"}
    api = await answering(http(OK | {"data": {"messages": [body, later], "hasMore": True}}))
    assert await api.history(room_id=7, before_msg_id="11", limit=2) == History(
        [
            Message(
                sender_id=10001,
                sender_name="",
                sender_avatar="",
                content="mine",
                type=1,
                created_ms=5,
                msg_id="9",
                room_id=7,
                client_msg_id="c",
            )
        ],
        has_more=True,
    )
    assert requests[0][1] == {"roomId": 7, "beforeMsgId": "11", "limit": 2}


async def test_a_history_is_of_a_room_or_of_a_user() -> None:
    for room_id, user_id in ((None, None), (1, 10002)):
        with pytest.raises(ValueError, match="one of room_id and user_id"):
            await Api("http://127.0.0.1").history(room_id=room_id, user_id=user_id)


@pytest.mark.parametrize(
    ("code", "status", "error"), [(403, 403, RequestRefused), (501, 409, RequestRefused), (401, 401, LoginRefused)]
)
async def test_a_refusal(answering: Answering, code: int, status: int, error: type[Any]) -> None:
    api = await answering(http({"code": code, "msg": "so it is", "data": None}, status))
    with pytest.raises(error, match="so it is") as caught:
        await api.online([10001])
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (http(b"<html>502 Bad Gateway</html>", 502), "/im/im/online: HTTP 502, and no answer of qiyu"),
        (http(b"{}"), "no answer of qiyu"),
        (http(OK | {"data": []}), "no answer of qiyu"),
        (b"\x48\xf1\r\n\r\n", "does not speak HTTP"),
        (b"", "does not speak HTTP"),
        (b"HTTP/1.1 200 X\r\nContent-Length: 9\r\n\r\n{", "does not speak HTTP"),
        (http(b"x" * (MAX_ANSWER_BYTES + 1)), "an answer of more than"),
    ],
)
async def test_an_answer_of_somebody_else(answering: Answering, answer: bytes, told: str) -> None:
    with pytest.raises(ConnectFailed, match=told) as caught:
        await (await answering(answer)).online([10001])
    assert "html" not in str(caught.value)


async def test_a_message_of_the_history_that_cannot_be_read(answering: Answering) -> None:
    api = await answering(http(OK | {"data": {"messages": [5], "hasMore": False}}))
    with pytest.raises(ConnectFailed, match="cannot be read"):
        await api.history(room_id=1)


async def test_a_server_that_does_not_answer(nursery: trio.Nursery) -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")

    async def serve(_stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    nursery.start_soon(trio.serve_listeners, serve, listeners)
    port = listeners[0].socket.getsockname()[1]
    with pytest.raises(ConnectFailed, match=r"does not answer within 0.05 s"):
        await Api(f"http://127.0.0.1:{port}", options=Options(answer_seconds=0.05)).online([])


async def test_nobody_listens(autojump_clock: MockClock) -> None:
    with pytest.raises(ConnectFailed, match=r"cannot connect to 127.0.0.1:1"):
        await Api("http://127.0.0.1:1").online([])


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:8080", "ws://127.0.0.1", "http://", "http://h:x", "http://u@h", "http://h?x"]
)
def test_a_url_of_something_else(url: str) -> None:
    with pytest.raises(ValueError, match="expected http://"):
        Api(url)
