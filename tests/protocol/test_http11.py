from __future__ import annotations

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qiyu.protocol.http11 import HttpConnection, HttpLimits

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


def events(*pieces: bytes, limits: HttpLimits | None = None) -> list[object]:
    """What the connection tells of these bytes; the last is the status, where it refuses them."""
    connection = HttpConnection(limits)
    found: list[object] = []
    for piece in pieces:
        connection.receive_data(piece)
        try:
            while isinstance(event := connection.next_event(), h11.Event):
                found.append(event)
        except h11.RemoteProtocolError as error:
            return [*found, error.error_status_hint]
    return found


def head_of(fields: int) -> bytes:
    """A head with that many fields, the Host among them."""
    return b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a:b\r\n" * (fields - 1) + b"\r\n"


def test_so_many_fields_and_not_one_more() -> None:
    assert len(events(head_of(100))) == 2  # the request and its end
    assert events(head_of(101)) == [431]
    assert events(head_of(12_000)[:-2]) == [431], "before it is complete"


def test_a_head_of_so_many_bytes_and_not_one_more_though_it_comes_at_once() -> None:
    rest = b" HTTP/1.1\r\nHost: x\r\n\r\n"
    path = b"GET /".ljust(16 * 1024 - len(rest), b"x")
    assert len(events(path + rest)) == 2
    assert events(path + b"x" + rest) == [431]
    assert events(path, b"x" * 100) == [431], "before it is complete"


def test_so_many_chunks_and_not_one_more() -> None:
    chunk = b"1\r\na\r\n"
    assert isinstance(events(CHUNKED + chunk * 256 + b"0\r\n\r\n")[-1], h11.EndOfMessage)
    assert events(CHUNKED + chunk * 257)[-1] == 413


def test_chunks_are_counted_for_each_request() -> None:
    connection = HttpConnection(HttpLimits(chunks=2))
    for _ in range(3):
        connection.receive_data(CHUNKED + b"1\r\na\r\n" * 2 + b"0\r\n\r\n")
        while connection.next_event() is not h11.NEED_DATA:
            pass
        connection.send(h11.Response(status_code=200, headers=[(b"content-length", b"0")]))
        connection.send(h11.EndOfMessage())
        connection.start_next_cycle()


@pytest.mark.parametrize(
    ("head", "must_close"),
    [
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", True),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", True),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", True),
        (CHUNKED, False),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n", False),
        (GET, False),
    ],
)
def test_a_request_with_two_lengths_is_the_last_of_its_connection(head: bytes, must_close: bool) -> None:
    connection = HttpConnection()
    connection.receive_data(head)
    assert isinstance(connection.next_event(), h11.Request)
    assert connection.must_close is must_close


@pytest.mark.parametrize("upgrade", [b"h2c", b"websocket", b"h2c, websocket"])
def test_an_upgrade_is_ignored(upgrade: bytes) -> None:
    fields = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: " + upgrade + b"\r\nHTTP2-Settings: AAMAAABk\r\n"
    request, end = events(GET[:-2] + fields + b"\r\n")
    assert isinstance(request, h11.Request)
    assert b"upgrade" not in dict(request.headers)
    assert dict(request.headers)[b"host"] == b"x"
    assert isinstance(end, h11.EndOfMessage)


@pytest.mark.parametrize("line", [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/3.0\r\nHost: x\r\n\r\n"])
def test_other_versions_are_refused(line: bytes) -> None:
    assert events(line) == [505]


@pytest.mark.parametrize(
    "garbage", [b"\x16\x03\x01\x02\x00\x01", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n"]
)
def test_what_is_not_http_is_refused(garbage: bytes) -> None:
    assert events(garbage) == [400]


def test_an_empty_line_in_front_is_ignored() -> None:
    assert events(b"\r\n", b"\r\n" + GET) == events(GET)


@pytest.mark.property
@given(
    st.lists(
        st.sampled_from([GET[:9], GET[9:], CHUNKED, b"1\r\na\r\n", b"0\r\n\r\n", b"\r\n", b"\n", b"\0"]) | st.binary()
    )
)
def test_whatever_comes_only_documented_errors_are_raised_and_nothing_is_kept_beyond_the_limits(
    pieces: list[bytes],
) -> None:
    """Whatever bytes come, split however: events, or RemoteProtocolError with a status of 400 or more."""
    connection = HttpConnection(HttpLimits(head_bytes=64, fields=4, chunks=4))
    chunks = 0
    for piece in pieces:
        if connection.their_state is h11.MUST_CLOSE or (not piece):
            continue
        connection.receive_data(piece)
        try:
            while isinstance(event := connection.next_event(), h11.Event):
                if isinstance(event, h11.Request):
                    assert len(list(event.headers)) <= 4
                chunks += isinstance(event, h11.Data) and event.chunk_start
        except h11.RemoteProtocolError as error:
            assert 400 <= error.error_status_hint <= 505
            return
    assert chunks <= 4
