from __future__ import annotations

import base64

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, RejectConnection, RejectData, Request

from qiyu.errors import ProtocolViolation
from qiyu.protocol.handshake import MAX_HEAD_BYTES, Handshake, LoginTarget, UpgradeRequest, parse_target

TOKEN = "c2VjcmV0%10001"
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
HEADERS = {
    "Host": "im.example.org:8086",
    "Upgrade": "websocket",
    "Connection": "keep-alive, Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}


def head(*extra: str, line: str = f"GET /{TOKEN}/10005 HTTP/1.1", end: str = "\r\n", **changed: str | None) -> bytes:
    """An opening handshake; `changed` replaces a header (with _ for -), or leaves it out where it is None."""
    changes = {name.replace("_", "-").lower(): value for name, value in changed.items()}
    headers = {name: changes.get(name.lower(), value) for name, value in HEADERS.items()}
    lines = [f"{name}: {value}" for name, value in headers.items() if value is not None]
    return end.join([line, *lines, *extra, "", ""]).encode("latin-1")


def answer_to(data: bytes) -> tuple[int, dict[str, str], str]:
    """What h11, as the client, makes of the answer to a bad request: status, headers, body."""
    handshake = Handshake()
    assert handshake.receive_data(data) is None
    assert isinstance(handshake.error, ProtocolViolation)
    return parse_response(handshake.answer)


def parse_response(data: bytes, method: str = "GET") -> tuple[int, dict[str, str], str]:
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(data)
    response, body, end = client.next_event(), b"", client.next_event()
    assert isinstance(response, h11.Response)
    while isinstance(end, h11.Data):
        body, end = body + bytes(end.data), client.next_event()
    assert isinstance(end, h11.EndOfMessage)
    assert client.trailing_data[0] == b""
    headers = dict(headers_of(response))
    assert ("connection", "close") in headers_of(response)
    assert headers["cache-control"] == "no-store"
    return response.status_code, headers, body.decode()


def headers_of(response: h11.Response) -> list[tuple[str, str]]:
    return [(name.decode(), value.decode()) for name, value in response.headers]


def test_a_request_and_its_acceptance() -> None:
    handshake = Handshake()
    request = handshake.receive_data(head("Origin: http://localhost:8080"))
    assert request == UpgradeRequest(f"/{TOKEN}/10005", "http://localhost:8080", "im.example.org:8086")
    assert handshake.accept() == (
        b"HTTP/1.1 101 Switching Protocols\r\n"
        b"Upgrade: websocket\r\n"
        b"Connection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"  # RFC 6455, section 1.3
        b"\r\n"
    )


def test_no_origin_is_none() -> None:
    request = Handshake().receive_data(head())
    assert request is not None
    assert request.origin is None


def test_extensions_and_subprotocols_are_not_agreed_to() -> None:
    handshake = Handshake()
    handshake.receive_data(head("Sec-WebSocket-Extensions: permessage-deflate", "Sec-WebSocket-Protocol: chat, im"))
    assert handshake.error is None
    answer = handshake.accept().lower()
    assert b"sec-websocket-extensions" not in answer
    assert b"sec-websocket-protocol" not in answer


def test_names_and_values_that_are_case_insensitive() -> None:
    data = head(Upgrade="WebSocket", Connection="UPGRADE").replace(b"Upgrade:", b"uPGRADE:")
    assert Handshake().receive_data(data) is not None


def test_no_repr_shows_the_token() -> None:
    request = Handshake().receive_data(head())
    assert request is not None
    assert TOKEN not in repr(request)
    assert TOKEN not in repr(parse_target(request.target))


def test_wsproto_as_client_understands_the_acceptance() -> None:
    client = WSConnection(ConnectionType.CLIENT)
    handshake = Handshake()
    assert handshake.receive_data(client.send(Request(host="localhost", target="/t%2510001/10005"))) == UpgradeRequest(
        "/t%2510001/10005", None, "localhost"
    )
    client.receive_data(handshake.accept())
    assert list(client.events()) == [AcceptConnection()]


def test_wsproto_as_client_understands_a_rejection() -> None:
    client = WSConnection(ConnectionType.CLIENT)
    handshake = Handshake()
    handshake.receive_data(client.send(Request(host="localhost", target="/t/10005")))
    client.receive_data(handshake.reject(401, "令牌已过期"))
    rejection, *rest = client.events()
    assert isinstance(rejection, RejectConnection)
    assert rejection.status_code == 401
    assert b"".join(event.data for event in rest if isinstance(event, RejectData)).decode() == "令牌已过期"


def test_a_rejection() -> None:
    handshake = Handshake()
    handshake.receive_data(head())
    status, headers, body = parse_response(handshake.reject(403, "this origin is not allowed"))
    assert (status, body) == (403, "this origin is not allowed")
    assert headers["content-length"] == "26"
    assert headers["content-type"] == "text/plain; charset=utf-8"


def test_a_401_names_a_scheme() -> None:
    handshake = Handshake()
    handshake.receive_data(head())
    assert parse_response(handshake.reject(401, "no"))[1]["www-authenticate"] == "Bearer"


def test_accept_before_there_is_a_request() -> None:
    with pytest.raises(RuntimeError):
        Handshake().accept()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", id="TLS ClientHello"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="HTTP/2"),
        pytest.param(b"\x48\xf1\x00\x00\x03\xe9\x00\x00\x00\x02{}", id="a packet of the TCP port"),
        pytest.param(b"\r\n\n\r\n\r\n", id="an empty line that is none"),
        pytest.param(b"\r\n\r\nhello\r\n\r\n", id="no request line behind empty lines"),
        pytest.param(b"hello\r\n\r\n", id="no request line"),
        pytest.param(head(line="GET / HTTP/1.0"), id="HTTP/1.0"),
        pytest.param(head(line="GET  / HTTP/1.1"), id="two spaces"),
        pytest.param(head(line="GET /\xe9 HTTP/1.1"), id="target not ASCII"),
        pytest.param(head(line=" GET / HTTP/1.1"), id="leading space"),
        pytest.param(head(end="\n") + b"\r\n\r\n", id="bare LF"),
        pytest.param(head("X-A: 1", " folded"), id="folded header"),
        pytest.param(head("X-A: \x00"), id="NUL"),
        pytest.param(head("no colon"), id="no colon"),
        pytest.param(head("X A: 1"), id="space in a name"),
        pytest.param(head(Host=None), id="no Host"),
        pytest.param(head("Host: b"), id="two Hosts"),
        pytest.param(head(Host="a..b\xff"), id="Host not ASCII"),
        pytest.param(head(Host="xn--\x7f"), id="Host with DEL"),
        pytest.param(head(Host=""), id="empty Host"),
        pytest.param(head(Host=":8086"), id="Host without a name"),
        pytest.param(head(Host="a b"), id="Host with a space"),
        pytest.param(head(Host="a/b"), id="Host with a path"),
        pytest.param(head(Host="u@a"), id="Host with a user"),
        pytest.param(head(Host="a, b"), id="two Hosts in one"),
        pytest.param(head(Host="a:x"), id="Host with a port of letters"),
        pytest.param(head(Host="a:65536"), id="Host with a port too large"),
        pytest.param(head(Host="::1"), id="Host of IPv6 without brackets"),
        pytest.param(head(Host="[::g]"), id="Host of no IPv6"),
        pytest.param(head(Host="[::1"), id="Host with half the brackets"),
        pytest.param(head(Host="%zz.example"), id="Host with a bad escape"),
        pytest.param(head(line="GET http:///x HTTP/1.1"), id="absolute without a host"),
        pytest.param(head(line="GET http://u:p@a/x HTTP/1.1"), id="absolute with a user"),
        pytest.param(head(line="GET http://a:99999/x HTTP/1.1"), id="absolute with a bad port"),
        pytest.param(head(Host="a" * 301), id="Host too long"),
        pytest.param(head(Connection=None), id="no Connection"),
        pytest.param(head(Connection="keep-alive"), id="Connection without Upgrade"),
        pytest.param(head(Connection="\xe9, Upgrade"), id="Connection not ASCII"),
        pytest.param(head("Sec-WebSocket-Protocol: \xe9"), id="subprotocol not ASCII"),
        pytest.param(head("Sec-WebSocket-Extensions: \xe9"), id="extension not ASCII"),
        pytest.param(head(Sec_WebSocket_Key=None), id="no key"),
        pytest.param(head(Sec_WebSocket_Key=""), id="empty key"),
        pytest.param(head(Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25jZQ"), id="key without padding"),
        pytest.param(head(Sec_WebSocket_Key=base64.b64encode(bytes(15)).decode()), id="key of 15 bytes"),
        pytest.param(head(Sec_WebSocket_Key=base64.b64encode(bytes(17)).decode()), id="key of 17 bytes"),
        pytest.param(head(Sec_WebSocket_Key="dGhlIHNhbXBsZSBub25j*Q=="), id="key not base64"),
        pytest.param(head(f"Sec-WebSocket-Key: {KEY}"), id="two keys"),
        pytest.param(head(Sec_WebSocket_Version=None), id="no version"),
        pytest.param(head("Sec-WebSocket-Version: 13"), id="two versions"),
        pytest.param(head("Origin: http://a", "Origin: http://b"), id="two origins"),
        pytest.param(head("Origin: http://\xe9"), id="origin not ASCII"),
        pytest.param(head("Content-Length: 5"), id="body with a length"),
        pytest.param(head("Content-Length: x"), id="length not a number"),
        pytest.param(head("Transfer-Encoding: chunked"), id="chunked body"),
        pytest.param(head() + b"\x81", id="bytes after the request"),
        pytest.param(head() + head(), id="two requests"),
    ],
)
def test_400(data: bytes) -> None:
    status, _, body = answer_to(data)
    assert status == 400
    assert body
    assert TOKEN not in body


def test_only_get() -> None:
    status, headers, _ = answer_to(head(line="POST / HTTP/1.1"))
    assert (status, headers["allow"]) == (405, "GET")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (head(line="HEAD / HTTP/1.1"), b"405"),
        (b"\r\n" + head(line="HEAD / HTTP/1.1"), b"405"),
        (b"HEAD / HTTP/1.0\r\n\r\n", b"400"),
        (b"HEAD / HTTP/1.1\r\nX-A: \x00", b"400"),
        (b"HEAD /" + b"a" * MAX_HEAD_BYTES, b"431"),
    ],
)
def test_an_answer_to_head_has_no_body(data: bytes, status: bytes) -> None:
    handshake = Handshake()
    handshake.receive_data(data)
    assert handshake.answer.split(b" ")[1] == status
    assert handshake.answer.endswith(b"\r\n\r\n")
    assert b"Content-Length: 0" not in handshake.answer  # it tells the length that the body would have


@pytest.mark.parametrize(
    "extra",
    [
        {"Connection": "keep-alive", "more": ["Connection: Upgrade"]},
        {"Connection": "Upgrade", "more": ["Connection: keep-alive"]},
        {"Connection": "close,, UPGRADE ,"},
        {"Upgrade": "h2c, websocket"},
        {"Upgrade": "h2c", "more": ["Upgrade: WebSocket"]},
        {"Upgrade": "websocket", "more": ["Upgrade: h2c"]},
    ],
)
def test_lists_of_several_items_and_lines(extra: dict[str, object]) -> None:
    more = extra.pop("more", [])
    assert isinstance(more, list)
    assert Handshake().receive_data(head(*more, **extra)) is not None  # type: ignore[arg-type]


@pytest.mark.parametrize("upgrade", ["h2c", "websockets", "websocket/13", "", "web, socket"])
def test_another_upgrade(upgrade: str) -> None:
    status, headers, _ = answer_to(head(Upgrade=upgrade))
    assert (status, headers["upgrade"]) == (426, "websocket")


@pytest.mark.parametrize(
    "host",
    [
        "xn--99999999.example",
        "xn--a-ecp.ru:8086",
        "a..b",
        "under_score",
        "a%C3%A9.example",
        "127.0.0.1:8086",
        "[::1]",
        "[2001:db8::192.0.2.1]:443",
        "example.org:",
        "example.org.",
        "a" * 253,
    ],
)
def test_a_host_is_what_rfc_3986_lets_it_be(host: str) -> None:
    request = Handshake().receive_data(head(Host=host))
    assert request is not None
    assert request.host == host


@pytest.mark.parametrize(
    ("target", "path", "host"),
    [
        ("http://other.example:8086/t/10005", "/t/10005", "other.example:8086"),
        ("WS://other.example/t/10005/1001", "/t/10005/1001", "other.example"),
        ("wss://[::1]:1/", "/", "[::1]:1"),
        ("https://other.example", "/", "other.example"),
        ("http://other.example?x", "/?x", "other.example"),
        ("//other.example/t", "//other.example/t", "im.example.org:8086"),
        ("ftp://other.example/t", "ftp://other.example/t", "im.example.org:8086"),
    ],
)
def test_an_absolute_target_is_its_path_and_its_host(target: str, path: str, host: str) -> None:
    request = Handshake().receive_data(head(line=f"GET {target} HTTP/1.1"))
    assert request == UpgradeRequest(path, None, host)


@pytest.mark.parametrize("lines", [1, 2, 50])
def test_empty_lines_before_the_request(lines: int) -> None:
    handshake = Handshake()
    assert handshake.receive_data(b"\r\n" * lines) is None
    assert handshake.error is None
    assert handshake.receive_data(head()) is not None


def test_empty_lines_are_bounded() -> None:
    assert answer_to(b"\r\n" * MAX_HEAD_BYTES)[0] == 431


@pytest.mark.parametrize("version", ["8", "12", "14", "013", "13, 8"])
def test_another_version(version: str) -> None:
    status, headers, body = answer_to(head(Sec_WebSocket_Version=version))
    assert (status, headers["sec-websocket-version"]) == (426, "13")
    assert "must be 13" in body


def test_a_browser_that_opens_the_port_as_a_page() -> None:
    status, headers, body = answer_to(b"GET / HTTP/1.1\r\nHost: localhost:8086\r\nAccept: text/html\r\n\r\n")
    assert (status, headers["upgrade"]) == (426, "websocket")
    assert "WebSocket port" in body


def test_the_longest_head() -> None:
    padding = MAX_HEAD_BYTES - len(head("X-A: "))
    assert Handshake().receive_data(head("X-A: " + "a" * padding)) is not None
    assert answer_to(head("X-A: " + "a" * (padding + 1)))[0] == 431


def test_an_endless_head_is_not_kept() -> None:
    handshake = Handshake()
    for _ in range(100):
        handshake.receive_data(b"a" * 1000)
    assert parse_response(handshake.answer)[0] == 431
    assert not handshake._head


def test_a_tls_client_is_told_at_its_first_byte() -> None:
    handshake = Handshake()
    handshake.receive_data(b"\x16")
    assert handshake.error is not None


def test_bytes_between_the_request_and_the_answer() -> None:
    handshake = Handshake()
    assert handshake.receive_data(head()) is not None
    assert handshake.receive_data(b"") is None
    assert handshake.error is None
    assert handshake.receive_data(b"\x81") is None
    assert parse_response(handshake.answer)[0] == 400
    assert handshake.request is None
    assert handshake.accept() == handshake.reject(401, "no") == b""


def test_the_read_buffer_may_be_used_again() -> None:
    buffer = bytearray(head())
    handshake = Handshake()
    half = len(buffer) // 2
    handshake.receive_data(memoryview(buffer)[:half])
    rest = bytes(buffer[half:])
    buffer[:] = bytes(len(buffer))
    assert handshake.receive_data(memoryview(rest)) is not None


def outcome(data: bytes, sizes: list[int]) -> tuple[object, ...]:
    """What a handshake comes to that is fed `data` in portions of these sizes, over and over."""
    handshake = Handshake()
    pos = turn = 0
    while pos < len(data):
        size = sizes[turn % len(sizes)]
        handshake.receive_data(data[pos : pos + size])
        pos, turn = pos + size, turn + 1
    return handshake.request, handshake.answer


SIZES = st.lists(st.integers(1, 200), min_size=1, max_size=5)
LINES = st.sampled_from(
    [
        *head("Origin: http://a").split(b"\r\n")[:-2],
        b"Host: a\xff",
        b"Host: xn--a",
        b"Upgrade: h2c",
        b"Connection: Upgrade",
        b"GET http://other.example/t HTTP/1.1",
        b"HEAD /t HTTP/1.1",
        b"Content-Length: 0",
        b"Transfer-Encoding: chunked",
        b"Sec-WebSocket-Version: 8",
        b"Connection: close",
        b" folded",
        b"\n",
        b"",
    ]
)


@pytest.mark.property
@given(st.one_of(st.binary(max_size=300), st.lists(LINES, max_size=12).map(b"\r\n".join)), st.binary(max_size=8), SIZES)
@example(head()[:-4], b"", [1])
@example(head(), b"x", [1])
@example(head("X-A: " + "a" * MAX_HEAD_BYTES), b"", [7])
@example(b"\r\n\r\n" + head()[:-4], b"", [3])
@example(b"\r\nHEAD / HTTP/1.1", b"", [1])
def test_any_bytes_give_a_request_or_an_answer(start: bytes, rest: bytes, sizes: list[int]) -> None:
    """Whatever comes, in whatever portions, the outcome is the same: a request, an HTTP error or the wish for more."""
    data = start + b"\r\n\r\n" + rest
    whole = outcome(data, [len(data)])
    assert outcome(data, [1]) == whole
    assert outcome(data, sizes) == whole
    request, answer = whole
    assert request is None or not answer
    if answer:
        assert isinstance(answer, bytes)
        is_head = data.lstrip(b"\r\n").startswith(b"HEAD ")
        assert parse_response(answer, "HEAD" if is_head else "GET")[0] in {400, 405, 426, 431}


@pytest.mark.property
@given(st.text(st.characters(codec="latin-1"), max_size=40), st.sampled_from(["Host", "Upgrade", "Origin", "X-A"]))
def test_no_answer_repeats_the_request(value: str, name: str) -> None:
    """The head of an answer is one of a few constant ones, whatever a header of the request holds."""
    handshake = Handshake()
    handshake.receive_data(head(f"{name}: {value}", line="GET /marker HTTP/1.1"))
    answer = handshake.answer or handshake.accept()
    assert b"marker" not in answer
    assert answer.count(b"\r\n\r\n") == 1
    names = {line.split(b":")[0].lower() for line in answer.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]}
    assert names <= {
        b"upgrade", b"connection", b"sec-websocket-accept", b"sec-websocket-version",
        b"content-type", b"content-length", b"cache-control", b"allow",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (f"/{TOKEN}/10005/1001/77", LoginTarget(TOKEN, 10005, 1001, "77")),
        (f"/{TOKEN}/10005/1001/77/", LoginTarget(TOKEN, 10005, 1001, "77")),
        (f"/{TOKEN}/10005/1002", LoginTarget(TOKEN, 10005, 1002, "")),
        (f"/{TOKEN}/10005", LoginTarget(TOKEN, 10005, 1001, "")),
        (f"/{TOKEN}/10005/", LoginTarget(TOKEN, 10005, 1001, "")),
        ("/abc%2510001/10005", LoginTarget("abc%10001", 10005, 1001, "")),
        ("/a%2Fb%2525/10005/1/%25", LoginTarget("a%2Fb%25", 10005, 1, "%25")),
        ("/t/9007199254740991", LoginTarget("t", 2**53 - 1, 1001, "")),
    ],
)
def test_a_target(target: str, expected: LoginTarget) -> None:
    assert parse_target(target) == expected


@pytest.mark.parametrize(
    ("target", "wrong"),
    [
        ("", "path"),
        ("*", "path"),
        ("ws://host/secret/10005", "path"),
        ("/secret/10005?room=1", "query"),
        ("/", "1 parts"),
        ("/secret", "1 parts"),
        ("/secret/10005/1001/77/8", "5 parts"),
        ("//10005", "token"),
        ("/secret//1001", "userId"),
        ("/secret/9999", "userId"),
        ("/secret/9007199254740992", "userId"),
        ("/secret/-10005", "userId"),
        ("/secret/+10005", "userId"),
        ("/secret/10_005", "userId"),
        ("/secret/10005\n", "userId"),
        ("/secret/\u0661\u0660\u0660\u0660\u0665", "userId"),
        ("/10005/secret", "userId"),
        ("/secret/" + "1" * 5000, "userId"),
        ("/secret/10005/x", "code"),
        ("/secret/10005//77", "code"),
        ("/secret/10005/1234567890", "code"),
    ],
)
def test_a_bad_target(target: str, wrong: str) -> None:
    with pytest.raises(ProtocolViolation, match=wrong) as caught:
        parse_target(target)
    assert "secret" not in caught.value.reason


@pytest.mark.property
@given(st.text(st.sampled_from("/%25?01a9"), max_size=30))
def test_any_target_is_read_or_refused(target: str) -> None:
    """A path is read, and then says what it was made from, or it is refused; no other error leaves the parser."""
    try:
        found = parse_target(target)
    except ProtocolViolation:
        return
    again = f"/{found.token.replace('%', '%25')}/{found.user_id}/{found.code}/{found.param}"
    assert parse_target(again) == found
