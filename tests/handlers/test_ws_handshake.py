from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from harness import BIZ, HEARTBEAT, LOGIN, ROOM_CHAT, Harness, Received, WsClient, error_of

MAX_ID = 2**53 - 1


def rejected(peer: WsClient) -> tuple[int, str]:
    """The status, and the reason, of an upgrade that was refused; with no packet sent."""
    assert peer.receive() == []
    assert peer.shut
    assert peer.session.ended
    assert peer.session.user_id == 0
    assert len(peer.harness.node.hub) == 0
    head, _, reason = peer.http.decode().partition("\r\n\r\n")
    return int(head.split()[1]), reason


def test_an_upgrade_is_a_login() -> None:
    harness = Harness()
    peer = harness.connect_ws()
    peer.upgrade(f"/{harness.token(10_000, nickname='看客小鱼')}/10000/1001/7")
    assert peer.receive() == [Received(LOGIN, {"appId": 10_001, "userId": 10_000, "data": "true"})]
    assert peer.http.startswith(b"HTTP/1.1 101 ")
    assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in peer.http  # RFC 6455, section 1.3
    assert peer.session.nickname == "看客小鱼"
    assert peer.session.room is not None
    assert peer.session.room.id == 7
    assert peer.answer(HEARTBEAT).code == HEARTBEAT
    assert harness.metrics.logins == 1


def test_a_bare_path_is_followed_by_a_login() -> None:
    harness = Harness()
    peer = harness.connect_ws()
    peer.upgrade("/")
    assert peer.receive() == []
    assert peer.http.startswith(b"HTTP/1.1 101 ")
    assert not peer.session.ended
    peer.send(LOGIN, appId=10_001, userId=10_000, token=harness.token(10_000, nickname="小鱼"), data={"roomId": 7})
    assert peer.receive() == [Received(LOGIN, {"appId": 10_001, "userId": 10_000, "data": "true"})]
    assert (peer.session.nickname, peer.session.is_in(7)) == ("小鱼", True)
    assert peer.answer(HEARTBEAT).code == HEARTBEAT
    assert harness.metrics.logins == 1


@pytest.mark.parametrize("code", [HEARTBEAT, BIZ, 1000, 4711])
def test_a_bare_path_and_something_else_than_a_login(code: int) -> None:
    harness = Harness()
    peer = harness.connect_ws()
    peer.upgrade("/")
    peer.write(peer.packet(code) + peer.packet(LOGIN, appId=10_001, userId=10_000, token=harness.token(10_000)))
    (error,) = peer.receive()
    assert error_of(error) == 401
    assert "expected 1001" in error.data["reason"]
    assert (peer.shut, peer.close_code) == (True, 1008)
    assert len(harness.node.hub) == 0


def test_a_bare_path_and_a_bad_token() -> None:
    harness = Harness()
    older = harness.log_in(10_000)
    peer = harness.connect_ws()
    peer.upgrade("/")
    peer.send(LOGIN, appId=10_001, userId=10_000, token="nonsense%10001")
    (error,) = peer.receive()
    assert error_of(error) == 401
    assert (peer.shut, peer.close_code) == (True, 1008)
    assert not older.session.ended
    assert harness.metrics.logins_refused == 1


def test_a_login_within_the_upgrade_is_too_early() -> None:
    """RFC 6455: the client waits for the answer to its handshake."""
    harness = Harness()
    peer = harness.connect_ws()
    login = peer.packet(LOGIN, appId=10_001, userId=10_000, token=harness.token(10_000))
    write, peer.write = peer.write, lambda data: write(data + login)  # type: ignore[method-assign]
    peer.upgrade("/")
    assert rejected(peer)[0] == 400


@pytest.mark.parametrize("pings", [False, True])
def test_a_bare_path_without_a_login_in_time(pings: bool) -> None:
    harness = Harness()
    peer = harness.connect_ws()
    harness.advance(2)
    peer.upgrade("/")
    for _ in range(11):
        harness.advance(0.25)
        if pings:
            peer.write(peer.masked(0x9, b""))  # a sign of life buys no time
    assert peer.receive() == []
    harness.advance(0.25)
    (error,) = peer.receive()
    assert error_of(error) == 401
    assert error.data["reason"] == "no login within 5 s; the connection is closed"
    assert (peer.shut, peer.close_code) == (True, 1008)
    assert harness.metrics.logins_timed_out == 1


@pytest.mark.parametrize(
    ("origin", "status"), [(None, 101), ("http://localhost:8000", 101), ("https://a.example", 403)]
)
def test_a_bare_path_and_an_origin(origin: str | None, status: int) -> None:
    peer = Harness().connect_ws()
    peer.upgrade("/", origin=origin)
    peer.receive()
    assert peer.http.startswith(b"HTTP/1.1 %d " % status)


@pytest.mark.parametrize("rest", ["", "/", "/1001", "/1001/"])
def test_code_and_room_may_be_left_out(rest: str) -> None:
    harness = Harness()
    peer = harness.connect_ws()
    peer.upgrade(f"/{harness.token(10_000)}/10000{rest}")
    assert [packet.code for packet in peer.receive()] == [LOGIN]
    assert peer.session.room is None


def test_the_percent_of_the_token_may_be_escaped_and_its_app_counts() -> None:
    harness = Harness()
    peer = harness.connect_ws()
    peer.upgrade(f"/{harness.token(10_000, app=20_000).replace('%', '%25')}/10000")
    assert peer.receive() == [Received(LOGIN, {"appId": 20_000, "userId": 10_000, "data": "true"})]


@pytest.mark.parametrize("param", ["0", "x", "-7", "7.0", str(MAX_ID + 1), "9" * 30, "%37", "１"])
def test_a_room_that_cannot_be_entered_costs_the_room_only(param: str) -> None:
    if not param.isascii():
        param = "%EF%BC%91"
    harness = Harness()
    peer = harness.connect_ws()
    peer.upgrade(f"/{harness.token(10_000)}/10000/1001/{param}")
    login, error = peer.receive()
    assert login.code == LOGIN
    assert error_of(error) == 400
    assert peer.session.room is None
    assert peer.answer(HEARTBEAT).code == HEARTBEAT


@pytest.mark.parametrize(
    "path",
    [
        "/?room=7",
        "/{token}",
        "/{token}/10000/1001/7/8",
        "/{token}/9999",
        "/{token}/9007199254740992",
        "/{token}/x",
        "/{token}/10000/1002",
        "/{token}/10000/x",
        "//10000",
        "/{token}/10000?room=7",
    ],
)
def test_a_bad_path(path: str) -> None:
    harness = Harness()
    peer = harness.connect_ws()
    token = harness.token(10_000)
    peer.upgrade(path.format(token=token))
    status, reason = rejected(peer)
    assert status == 400
    assert reason
    assert token[:20] not in reason
    assert harness.metrics.logins_refused == 1


@pytest.mark.parametrize(
    ("user", "token_of", "seconds", "reason"),
    [
        (10_000, 10_001, 0, "for another user"),
        (10_000, 10_000, 300, "expired"),
        (10_000, None, 0, "malformed"),
    ],
)
def test_a_bad_token(user: int, token_of: int | None, seconds: float, reason: str) -> None:
    harness = Harness()
    token = harness.token(token_of) if token_of else "nonsense%10001"
    harness.advance(seconds)
    peer = harness.connect_ws()
    peer.upgrade(f"/{token}/{user}/1001/7")
    status, said = rejected(peer)
    assert status == 401
    assert reason in said
    assert harness.node.hub.find_room(10_001, 7) is None


@pytest.mark.parametrize(
    ("allowed", "origin", "works"),
    [
        ([], None, True),
        ([], "http://localhost:8080", True),
        ([], "https://127.0.0.1", True),
        ([], "http://[::1]:3000", True),
        ([], "https://live.example.com", False),
        ([], "http://localhost.example.com", False),
        ([], "http://localhost:8080.example.com", False),
        ([], "null", False),
        ([], "", False),
        (["https://live.example.com"], None, True),
        (["https://live.example.com"], "https://live.example.com", True),
        (["https://live.example.com"], "http://live.example.com", False),
        (["https://live.example.com"], "https://live.example.com:8443", False),
        (["https://live.example.com"], "http://localhost", False),
        (["*"], "https://anywhere.example", True),
        ([], "http://localhost:8086", True),
        (["https://live.example.com"], "http://localhost:8086", True),
    ],
)
def test_origins(allowed: list[str], origin: str | None, works: bool) -> None:
    harness = Harness(ws={"allowed_origins": allowed})
    peer = harness.connect_ws()
    peer.upgrade(f"/{harness.token(10_000)}/10000", origin=origin)
    if works:
        assert [packet.code for packet in peer.receive()] == [LOGIN]
    else:
        assert rejected(peer) == (403, "Origin is not among [ws] allowed_origins")


@pytest.mark.parametrize(
    "request_", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x48\xf1\x00\x00", b"POST / HTTP/1.1\r\n\r\n", b"\x16\x03\x01"]
)
def test_what_is_no_upgrade_is_answered_in_http(request_: bytes) -> None:
    peer = Harness().connect_ws()
    peer.write(request_)
    status, reason = rejected(peer)
    assert 400 <= status < 500
    assert reason


def test_data_before_the_answer() -> None:
    harness = Harness()
    peer = harness.connect_ws()
    path = f"/{harness.token(10_000)}/10000"
    lines = ["Host: x", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"]
    head = "\r\n".join([f"GET {path} HTTP/1.1", *lines, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "\r\n"])
    peer.write(head.encode() + peer.packet(HEARTBEAT))
    assert rejected(peer)[0] == 400
    assert harness.metrics.logins == 0


def test_nothing_reaches_a_connection_before_its_upgrade() -> None:
    harness = Harness()
    half = harness.connect_ws()
    half.write(b"GET /")
    member = harness.log_in(10_000, room=7)
    member.send(BIZ, bizCode=ROOM_CHAT, data={"roomId": 7})
    harness.advance(1)
    assert half.receive() == []
    assert half.http == b""
    assert not half.shut


def test_a_newer_login_over_websocket_that_fails_replaces_nobody() -> None:
    harness = Harness()
    older = harness.log_in_ws(10_000)
    peer = harness.connect_ws()
    peer.upgrade("/nonsense%10001/10000")
    peer.receive()
    assert peer.shut
    assert not older.session.ended
    assert harness.node.hub.find(10_001, 10_000) is older.session


@pytest.mark.parametrize("rest", ["", "/", "/{token}/10000", "/{token}/10000/1001/7", "/live/7"])
def test_what_a_proxy_left_before_the_path(rest: str) -> None:
    harness = Harness(ws={"path": "/apps/im"})
    peer = harness.connect_ws()
    peer.upgrade("/apps/im" + rest.format(token=harness.token(10_000)))
    codes = [packet.code for packet in peer.receive()]
    assert peer.http.startswith(b"HTTP/1.1 101 ")
    assert codes == ([LOGIN] if "token" in rest else [])


@pytest.mark.parametrize(
    "path", ["/", "/apps", "/apps/imx", "/apps/imx/", "/APPS/im/", "/{token}/10000", "/live/7", "*"]
)
def test_a_path_without_what_a_proxy_leaves(path: str) -> None:
    harness = Harness(ws={"path": "/apps/im"})
    peer = harness.connect_ws()
    peer.upgrade(path.format(token=harness.token(10_000)))
    assert rejected(peer) == (400, "the path must begin with /apps/im/")


@pytest.mark.parametrize(
    ("host", "origin", "works"),
    [
        ("live.example.com", "https://live.example.com", True),
        ("live.example.com:443", "https://live.example.com", True),
        ("live.example.com:8086", "https://live.example.com", False),
        ("live.example.com", "http://localhost:3000", False),
        ("127.0.0.1:8086", "http://localhost:3000", True),
    ],
)
def test_origins_and_the_host_that_was_called(host: str, origin: str, works: bool) -> None:
    """A page may come that calls just where it is from: behind a proxy, both are one. The rule of HTTP as well."""
    peer = Harness().connect_ws()
    peer.upgrade("/", origin=origin, host=host)
    peer.receive()
    assert peer.http.startswith(b"HTTP/1.1 %d " % (101 if works else 403))


def test_what_is_refused_is_logged_with_its_reason() -> None:
    harness = Harness()
    token = harness.token(10_000)
    with capture_logs() as logs:
        for path, origin in (("/", "https://a.example"), (f"/{token}/10001", None), (f"/{token}/1", None)):
            harness.connect_ws().upgrade(path, origin=origin)
        harness.connect_ws().write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    told = [(each["status"], each["reason"][:9], each.get("origin")) for each in logs if each["log_level"] == "info"]
    assert told == [
        (403, "Origin is", "https://a.example"),
        (401, "the login", None),
        (400, "userId (s", None),
        (426, "this is a", None),
    ]
    assert token[:20] not in str(logs)
