from __future__ import annotations

import gc
import json
import sys
from collections.abc import Iterable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    Pong,
    RejectConnection,
    Request,
    TextMessage,
)

from qiyu.errors import ErrorCode, WsClose
from qiyu.protocol.packet import MAGIC, MsgCode, Packet
from qiyu.protocol.websocket import WebSocketWire
from qiyu.protocol.wire import Wire

REQUEST = (
    b"GET /c2VjcmV0%2510001/10005/1001/77 HTTP/1.1\r\n"
    b"Host: localhost:8086\r\n"
    b"Upgrade: websocket\r\n"
    b"Connection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Version: 13\r\n"
    b"\r\n"
)
FIN, MASKED = 0x80, 0x80
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
HEARTBEAT = Packet(1004, b"{}")


def opened(max_body_bytes: int = 65_536) -> WebSocketWire:
    wire = WebSocketWire(max_body_bytes)
    wire.receive_data(REQUEST)
    wire.accept()
    return wire


def frame(first: int, payload: bytes = b"", mask: bytes = b"\x12\x34\x56\x78") -> bytes:
    """A client's frame, made the plain way: RFC 6455, sections 5.2 and 5.3."""
    length = len(payload)
    if length < 126:
        header = bytes([first, MASKED | length])
    elif length < 1 << 16:
        header = bytes([first, MASKED | 126]) + length.to_bytes(2)
    else:
        header = bytes([first, MASKED | 127]) + length.to_bytes(8)
    return header + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


def envelope(code: int = 1004, body: str = "{}", **more: object) -> bytes:
    return json.dumps({"magic": MAGIC, "code": code, "len": len(body), "body": body} | more).encode()


def text(code: int = 1004, body: str = "{}") -> bytes:
    return frame(FIN | TEXT, envelope(code, body))


def close_frame(code: int, reason: bytes = b"") -> bytes:
    return frame(FIN | CLOSE, code.to_bytes(2) + reason)


def portions(data: bytes, sizes: list[int]) -> Iterable[bytes]:
    """`data` in portions of these sizes, over and over."""
    pos = turn = 0
    while pos < len(data):
        yield data[pos : pos + sizes[turn % len(sizes)]]
        pos, turn = pos + sizes[turn % len(sizes)], turn + 1


def feed(wire: WebSocketWire, data: bytes, sizes: list[int]) -> list[Packet]:
    return [packet for portion in portions(data, sizes) for packet in wire.receive_data(portion)]


def fault(wire: WebSocketWire) -> tuple[int, ErrorCode]:
    assert wire.error is not None
    return int(wire.error.ws_close), wire.error.code


def client() -> tuple[WSConnection, WebSocketWire]:
    """wsproto as the client of a wire, both past the upgrade."""
    peer, wire = WSConnection(ConnectionType.CLIENT), WebSocketWire(65_536)
    wire.receive_data(peer.send(Request(host="localhost", target="/t/10005")))
    peer.receive_data(wire.accept())
    assert list(peer.events()) == [AcceptConnection()]
    return peer, wire


SIZES = st.lists(st.integers(1, 300), min_size=1, max_size=6)
CODES = st.integers(-(2**31), 2**31 - 1)
BODIES = st.one_of(
    st.text(max_size=60),
    st.text(st.sampled_from('ab"\\/\n\t\x00\x7f\u2028你好😀'), max_size=400),
    st.integers(0, 600).map("x".__mul__),
)


# The upgrade


def test_the_upgrade_is_one_packet() -> None:
    wire: Wire = WebSocketWire(100)
    assert wire.receive_data(REQUEST[:30]) == []
    assert wire.receive_data(REQUEST[30:]) == [Packet(MsgCode.WS_HANDSHAKE, b"")]
    assert wire.receive_data(b"") == []
    assert isinstance(wire, WebSocketWire)
    assert wire.upgrade is not None
    assert wire.upgrade.target == "/c2VjcmV0%2510001/10005/1001/77"
    assert not wire.is_open
    assert wire.accept().startswith(b"HTTP/1.1 101 ")
    assert wire.upgrade is None
    assert wire.is_open
    assert wire.receive_data(text()) == [HEARTBEAT]


def test_a_rejection_ends_the_wire() -> None:
    wire = WebSocketWire(100)
    wire.receive_data(REQUEST)
    assert wire.reject(401, "the token has expired").startswith(b"HTTP/1.1 401 ")
    assert wire.receive_data(text()) == []
    wire.receive_eof()
    assert wire.error is None
    assert wire.upgrade is None
    assert not wire.is_open
    assert not wire.has_output
    assert wire.accept() == wire.reject(400, "") == wire.close(1000, "") == b""


@pytest.mark.parametrize(
    ("data", "status"),
    [(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"426"), (b"\x16\x03", b"400"), (REQUEST + text(), b"400")],
)
def test_a_bad_handshake_is_answered_in_http(data: bytes, status: bytes) -> None:
    wire = WebSocketWire(100)
    assert wire.receive_data(data) == []
    assert wire.error is not None
    assert wire.close(1002, "") == b""
    assert wire.has_output
    assert wire.data_to_send().startswith(b"HTTP/1.1 " + status)
    assert not wire.has_output
    assert wire.receive_data(REQUEST) == []


def test_bytes_that_come_before_the_answer() -> None:
    wire = WebSocketWire(100)
    wire.receive_data(REQUEST)
    assert wire.receive_data(b"\x81") == []
    assert wire.error is not None
    assert wire.upgrade is None
    assert wire.accept() == wire.reject(401, "") == b""
    assert wire.data_to_send().startswith(b"HTTP/1.1 400 ")


def test_wsproto_is_told_of_a_rejection() -> None:
    peer, wire = WSConnection(ConnectionType.CLIENT), WebSocketWire(65_536)
    wire.receive_data(peer.send(Request(host="localhost", target="/t/10005")))
    peer.receive_data(wire.reject(400, "no such path"))
    assert any(isinstance(event, RejectConnection) and event.status_code == 400 for event in peer.events())


@pytest.mark.property
@given(st.binary(max_size=400), SIZES)
@example(REQUEST + b"x", [5])
def test_any_bytes_before_the_upgrade(data: bytes, sizes: list[int]) -> None:
    """Whatever a client opens with, it gets the packet of the upgrade or one answer in HTTP, and no exception."""
    wire = WebSocketWire(100)
    packets = feed(wire, data, sizes)
    assert packets in ([], [Packet(MsgCode.WS_HANDSHAKE, b"")])
    wire.receive_eof()
    assert wire.data_to_send() == b"" or wire.error is not None


# Messages


def test_an_idle_wire_is_small() -> None:
    wire = opened()
    wire.receive_data(text()[:20])
    wire.receive_data(text()[20:] + frame(FIN | PING))
    wire.data_to_send()
    assert sys.getsizeof(wire) <= 128
    held = [value for value in gc.get_referents(wire) if value is not WebSocketWire]
    assert {type(value) for value in held} <= {int, bool, type(None)}


def test_a_client_that_leaves_len_out_or_counts_otherwise() -> None:
    for more in ({"len": -1}, {"len": 2**80}, {"len": "57"}, {"len": None}, {"extra": [1, {"a": 2}]}):
        assert opened().receive_data(frame(FIN | TEXT, envelope(**more))) == [HEARTBEAT]
    assert opened().receive_data(frame(FIN | TEXT, b'{"body":"{}","magic":18673,"code":1004}')) == [HEARTBEAT]


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"hello",
        b"{" * 100_000,
        b'{"a":' + b"[" * 100_000,
        envelope() + b"x",
        b"\xef\xbb\xbf" + envelope(),
        envelope(magic=18674),
        envelope(magic="18674"),
        envelope(magic=True),
        envelope(code=2**31),
        envelope(code=-(2**31) - 1),
        envelope(code=10**400),
        b'{"magic":18673,"code":1.5,"body":""}',
        b'{"magic":18673,"code":1004}',
        b'{"magic":18673,"code":1004,"body":{}}',
        b'{"magic":18673,"code":1004,"body":null}',
        b'{"magic":18673,"code":1004,"body":"\\ud800"}',
        b'{"magic":18673,"code":1004,"body":"\\udc00x"}',
    ],
    ids=lambda message: repr(message[:40]),
)
def test_what_is_no_envelope(message: bytes) -> None:
    wire = opened(1 << 20)
    assert wire.receive_data(text() + frame(FIN | TEXT, message) + text()) == [HEARTBEAT]
    assert fault(wire) == (WsClose.POLICY_VIOLATION, ErrorCode.MALFORMED)
    assert wire.receive_data(text()) == []


def test_a_fault_holds_on_to_nothing() -> None:
    wire = opened()
    wire.receive_data(frame(FIN | TEXT, b"\xff" * 1000))
    assert wire.error is not None
    assert wire.error.__traceback__ is None
    assert wire.error.__context__ is None
    assert wire.error.__cause__ is None


@pytest.mark.property
@given(CODES, BODIES, SIZES)
@example(1003, "\U0001f600", [1])
@example(1003, "x" * 70_000, [4096])
def test_what_is_encoded_is_decoded(code: int, body: str, sizes: list[int]) -> None:
    """A packet that is encoded, masked as a client must, and fed in any portions is the same packet again."""
    encoded = WebSocketWire.encode(code, body.encode())
    data = frame(FIN | TEXT, encoded[2 if encoded[1] < 126 else 4 if encoded[1] == 126 else 10 :])
    wire = opened(0)
    assert feed(wire, data + text(), sizes) == [Packet(code, body.encode()), HEARTBEAT]
    assert wire.error is None


@pytest.mark.property
@given(CODES, BODIES, BODIES, st.integers(10_000, 2**53 - 1))
@example(1003, "", "", 10_000)
@example(1003, "", "x" * (125 - 45), 10_000)
def test_splice_is_encode(code: int, before: str, after: str, user_id: int) -> None:
    """The spliced parts with a receiver's id between them are the bytes of the whole packet encoded at once."""
    digits = b"%d" % user_id
    head, tail = WebSocketWire.splice(code, before.encode(), after.encode(), len(digits))
    assert head + digits + tail == WebSocketWire.encode(code, before.encode() + digits + after.encode())


@pytest.mark.property
@given(CODES, BODIES)
@example(1003, "x" * 70_000)
def test_wsproto_reads_what_is_encoded(code: int, body: str) -> None:
    """To wsproto's client, a packet is one text message that holds the envelope, and `len` counts bytes."""
    peer, _ = client()
    peer.receive_data(WebSocketWire.encode(code, body.encode()))
    message = "".join(event.data for event in peer.events() if isinstance(event, TextMessage))
    assert json.loads(message) == {"magic": 18673, "code": code, "len": len(body.encode()), "body": body}
    assert list(json.loads(message)) == ["magic", "code", "len", "body"]


@pytest.mark.property
@given(
    st.lists(st.tuples(BODIES, st.lists(st.integers(0, 120), max_size=4), st.binary(max_size=125)), max_size=6), SIZES
)
def test_we_read_what_wsproto_sends(messages: list[tuple[str, list[int], bytes]], sizes: list[int]) -> None:
    """Messages that wsproto's client sends, in fragments with a ping after each, come out as they went in."""
    peer, wire = client()
    data = b""
    for body, cuts, ping in messages:
        message = json.dumps({"magic": MAGIC, "code": 1003, "body": body}, ensure_ascii=False)
        pos = 0
        for cut in cuts:
            data += peer.send(TextMessage(message[pos : pos + cut], message_finished=False))
            data += peer.send(Ping(ping))
            pos += cut
        data += peer.send(TextMessage(message[pos:]))
    assert feed(wire, data, sizes) == [Packet(1003, body.encode()) for body, _, _ in messages]
    assert wire.error is None
    pings = [ping for _, cuts, ping in messages for _ in cuts]
    peer.receive_data(wire.data_to_send())
    assert list(peer.events()) == [Pong(ping) for ping in pings[-1:]]


@pytest.mark.property
@given(
    st.sampled_from([0, 1, 3, 125, 126, 127, 511, 512, 513, 4096, 65_535, 65_536]), st.binary(min_size=4, max_size=4)
)
def test_every_size_is_unmasked(size: int, mask: bytes) -> None:
    """A message of any size, under any mask, is read as it was before masking."""
    envelope_size = len(envelope(body=""))
    body = "".join(chr(33 + i % 90) for i in range(max(0, size - envelope_size))).replace('"', "!").replace("\\", "!")
    data = frame(FIN | TEXT, envelope(body=body), mask)
    assert opened(0).receive_data(memoryview(data)) == [Packet(1004, body.encode())]


def test_the_read_buffer_may_be_used_again() -> None:
    wire = opened()
    buffer = bytearray(text(1003, "first")[:50])
    rest = text(1003, "first")[50:]
    assert wire.receive_data(memoryview(buffer)) == []
    buffer[:] = bytes(50)
    assert wire.receive_data(memoryview(rest)) == [Packet(1003, b"first")]
    buffer = bytearray(text(1003, "second"))
    packets = wire.receive_data(memoryview(buffer))
    buffer[:] = bytes(len(buffer))
    assert packets == [Packet(1003, b"second")]


def test_utf_8_may_be_cut_between_fragments() -> None:
    message = json.dumps({"magic": MAGIC, "code": 1003, "body": "你好😀"}, ensure_ascii=False).encode()
    data = frame(TEXT, message[:1]) + b"".join(frame(CONTINUATION, message[i : i + 1]) for i in range(1, len(message)))
    wire = opened()
    assert wire.receive_data(data + frame(FIN | CONTINUATION)) == [Packet(1003, "你好😀".encode())]


@pytest.mark.parametrize("bad", [b"\xff", b"\xe4\xbd", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80"])
def test_text_that_is_not_utf_8(bad: bytes) -> None:
    message = b'{"magic":18673,"code":1003,"len":"%b","body":"%b"}'
    for data in (message % (b"", bad), message % (bad, b"")):  # in a value that is skipped as well
        wire = opened()
        assert wire.receive_data(frame(FIN | TEXT, data)) == []
        assert fault(wire) == (WsClose.INVALID_DATA, ErrorCode.MALFORMED)
        wire = opened()
        assert wire.receive_data(frame(TEXT, data[:-2]) + frame(FIN | CONTINUATION, data[-2:])) == []
        assert fault(wire)[0] == WsClose.INVALID_DATA


# The rules of frames


@pytest.mark.parametrize(
    ("data", "close"),
    [
        pytest.param(b"\x81\x02{}", 1002, id="not masked"),
        pytest.param(b"\x89\x00", 1002, id="ping not masked"),
        pytest.param(frame(FIN | TEXT | 0x40), 1002, id="RSV1"),
        pytest.param(frame(FIN | TEXT | 0x20), 1002, id="RSV2"),
        pytest.param(frame(FIN | PING | 0x10), 1002, id="RSV3"),
        *(pytest.param(frame(FIN | op), 1002, id=f"opcode {op}") for op in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),
        pytest.param(frame(FIN | BINARY, b"x"), 1003, id="binary"),
        pytest.param(frame(BINARY), 1003, id="binary fragment"),
        pytest.param(frame(FIN | CONTINUATION, b"x"), 1002, id="nothing to continue"),
        pytest.param(frame(TEXT, b"x") + text(), 1002, id="text within a message"),
        pytest.param(frame(TEXT, b"x") + frame(FIN | BINARY), 1002, id="binary within a message"),
        pytest.param(frame(PING), 1002, id="ping in fragments"),
        pytest.param(frame(CLOSE), 1002, id="close in fragments"),
        pytest.param(frame(FIN | PING, bytes(126)), 1002, id="ping of 126 bytes"),
        pytest.param(frame(FIN | CLOSE, b"\x03\xe8" + b"a" * 124), 1002, id="close of 126 bytes"),
        pytest.param(b"\x81\xfe\x00\x7d", 1002, id="125 in 16 bits"),
        pytest.param(b"\x81\xfe\x00\x7d\x00\x00\x00\x00" + bytes(125), 1002, id="125 in 16 bits, whole"),
        pytest.param(b"\x81\xff" + (65_535).to_bytes(8), 1002, id="65535 in 64 bits"),
        pytest.param(b"\x81\xff" + (1 << 63).to_bytes(8), 1002, id="the top bit of 64"),
        pytest.param(b"\x81\xff" + ((1 << 63) - 1).to_bytes(8), 1009, id="the longest length"),
        pytest.param(frame(FIN | CLOSE, b"\x03"), 1002, id="close of one byte"),
        pytest.param(close_frame(1000, b"\xff"), 1007, id="close reason not UTF-8"),
    ],
)
def test_a_broken_rule(data: bytes, close: int) -> None:
    for sizes in ([len(data) + 200], [1], [2, 3]):
        wire = opened()
        assert feed(wire, text() + data + text(), sizes) == [HEARTBEAT]
        assert fault(wire) == (close, ErrorCode.MALFORMED)
        assert not wire.has_output
        assert not wire.peer_closed
        assert wire.close(close, "x")


@pytest.mark.parametrize("limit", [1, 100, 65_536])
def test_a_message_too_long_is_refused_at_its_header(limit: int) -> None:
    most = 2 * limit + 1024
    wire = opened(limit)
    assert wire.receive_data(frame(FIN | TEXT, bytes(most + 1))[: 4 if most < 65_535 else 10]) == []
    assert fault(wire)[0] == WsClose.MESSAGE_TOO_BIG
    assert "buffered=0" in repr(wire)
    wire = opened(limit)
    wire.receive_data(frame(FIN | TEXT, bytes(most))[:-1])
    assert wire.error is None


def test_the_fragments_of_a_message_count_together() -> None:
    wire = opened(100)
    wire.receive_data(frame(TEXT, bytes(1000)) + frame(CONTINUATION, bytes(224)))
    assert wire.error is None
    wire.receive_data(frame(FIN | PING, bytes(125)))
    assert wire.error is None
    wire.receive_data(frame(FIN | CONTINUATION, bytes(1))[:2])
    wire.receive_data(frame(FIN | CONTINUATION, bytes(1))[2:])
    assert fault(wire)[0] == WsClose.MESSAGE_TOO_BIG


def test_a_body_too_long_once_unescaped() -> None:
    assert opened(100).receive_data(text(1003, "x" * 100)) == [Packet(1003, b"x" * 100)]
    assert opened(100).receive_data(text(1003, "\u0001" * 100)) == [Packet(1003, b"\x01" * 100)]
    for body in ("x" * 101, "好" * 34):
        wire = opened(100)
        assert wire.receive_data(text(1003, body)) == []
        assert fault(wire)[0] == WsClose.MESSAGE_TOO_BIG


def test_no_limit() -> None:
    body = "x" * 1_000_000
    assert opened(0).receive_data(text(1003, body)) == [Packet(1003, body.encode())]


def test_empty_fragments_take_no_memory() -> None:
    wire = opened()
    wire.receive_data(frame(TEXT) + frame(CONTINUATION) * 10_000)
    assert "buffered=0" in repr(wire)
    assert wire.receive_data(frame(FIN | CONTINUATION, envelope())) == [HEARTBEAT]


# Pings, and the good-bye


def test_a_ping_is_answered() -> None:
    wire = opened()
    assert wire.receive_data(frame(FIN | PING, b"are you there")) == []
    assert wire.has_output
    assert wire.data_to_send() == b"\x8a\x0dare you there"
    assert not wire.has_output
    assert wire.data_to_send() == b""


def test_a_flood_of_pings_owes_one_pong() -> None:
    wire = opened()
    flood = b"".join(frame(FIN | PING, b"%d" % i) for i in range(1000))
    wire.receive_data(flood)
    wire.receive_data(flood)
    assert wire.data_to_send() == b"\x8a\x03999"


def test_a_pong_is_ignored() -> None:
    wire = opened()
    assert wire.receive_data(frame(FIN | PONG, b"unasked") + text()) == [HEARTBEAT]
    assert not wire.has_output


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1011, 1014, 3000, 3999, 4000, 4999])
def test_a_close_is_echoed_and_the_last(code: int) -> None:
    wire = opened()
    assert wire.receive_data(text() + close_frame(code, "再见".encode()) + text()) == [HEARTBEAT]
    assert wire.peer_closed
    assert wire.is_open  # for the answers to what came before
    assert wire.data_to_send() == b"\x88\x02" + code.to_bytes(2)
    assert not wire.is_open
    assert wire.receive_data(text()) == []
    assert wire.close(1000, "") == b""
    wire.receive_eof()
    assert wire.error is None


def test_a_close_without_a_code() -> None:
    wire = opened()
    wire.receive_data(frame(FIN | CLOSE))
    assert wire.peer_closed
    assert wire.data_to_send() == b"\x88\x00"


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535])
def test_a_close_with_a_code_that_must_not_be_sent(code: int) -> None:
    wire = opened()
    wire.receive_data(close_frame(code))
    assert fault(wire)[0] == WsClose.PROTOCOL_ERROR
    assert not wire.peer_closed


def test_frames_that_are_no_packets_are_counted_for_each_read() -> None:
    wire = opened()
    message = frame(FIN | TEXT, json.dumps({"magic": MAGIC, "code": 1004, "len": 2, "body": "{}"}).encode())
    assert len(wire.receive_data(message * 3)) == 3
    assert wire.frames == 0
    wire.receive_data(frame(FIN | PING) + message + frame(FIN | PONG) * 2)
    assert wire.frames == 3
    wire.receive_data(frame(TEXT, b"{") + frame(CONTINUATION) * 4)
    assert wire.frames == 5
    wire.receive_data(b"")
    assert wire.frames == 0


def test_a_ping_and_a_close_in_one_read() -> None:
    wire = opened()
    wire.receive_data(frame(FIN | PING, b"1") + close_frame(1000))
    assert wire.data_to_send() == b"\x8a\x011\x88\x02\x03\xe8"


def test_a_close_within_a_message() -> None:
    wire = opened()
    wire.receive_data(frame(TEXT, b'{"magic"') + close_frame(1001))
    assert wire.peer_closed
    assert wire.error is None
    assert "buffered=0" in repr(wire)


def test_after_our_close_nothing_more_is_sent() -> None:
    wire = opened()
    assert wire.close(4001, "replaced") == b"\x88\x0a\x0f\xa1replaced"
    assert not wire.is_open
    assert wire.close(1000, "") == b""
    wire.receive_data(frame(FIN | PING))
    assert not wire.has_output
    wire.receive_data(close_frame(4001))
    assert wire.peer_closed
    assert not wire.has_output


@pytest.mark.property
@given(st.sampled_from([1000, 1002, 1007, 1008, 1009, 1012, 4001, 4009]), st.text(max_size=200))
@example(1008, "好" * 42)
@example(1008, "\ud800")
def test_wsproto_reads_our_close(code: int, reason: str) -> None:
    """A close frame holds the code and as many whole characters of the reason as fit; wsproto's answer ends it."""
    peer, wire = client()
    peer.receive_data(wire.close(code, reason))
    (event,) = peer.events()
    assert isinstance(event, CloseConnection)
    sent = reason.encode(errors="replace").decode()
    assert event.code == code
    assert sent.startswith(event.reason or "")
    kept = len((event.reason or "").encode())
    assert kept == len(sent.encode()) or 120 <= kept <= 123
    assert wire.receive_data(peer.send(event.response())) == []
    assert wire.peer_closed
    assert wire.error is None


def test_wsproto_closes() -> None:
    peer, wire = client()
    wire.receive_data(peer.send(CloseConnection(4000, "好")))
    peer.receive_data(wire.data_to_send())
    assert list(peer.events()) == [CloseConnection(4000, "")]
    assert peer.state is ConnectionState.CLOSED


# The end of the bytes


@pytest.mark.parametrize(
    ("data", "broken"),
    [
        (b"", False),
        (text(), False),
        (text() + b"\x81", True),
        (text()[:-1], True),
        (frame(TEXT, b"x"), True),
        (close_frame(1000) + b"\x81", False),
    ],
)
def test_eof(data: bytes, broken: bool) -> None:
    wire = opened()
    wire.receive_data(data)
    wire.receive_eof()
    assert (wire.error is not None) == broken


@pytest.mark.parametrize(("data", "broken"), [(b"", False), (REQUEST[:9], True), (REQUEST, False)])
def test_eof_before_the_upgrade(data: bytes, broken: bool) -> None:
    wire = WebSocketWire(100)
    wire.receive_data(data)
    wire.receive_eof()
    assert (wire.error is not None) == broken


def test_eof_keeps_the_first_error() -> None:
    wire = opened()
    wire.receive_data(b"\x81\x00")
    first = wire.error
    wire.receive_eof()
    assert wire.error is first


# Whatever comes


FRAMES: st.SearchStrategy[bytes] = st.one_of(
    st.binary(max_size=20),
    st.builds(text, CODES, st.text(max_size=200)),
    st.builds(frame, st.integers(0, 255), st.binary(max_size=140), st.binary(min_size=4, max_size=4)),
    st.builds(frame, st.sampled_from([TEXT, CONTINUATION, FIN | CONTINUATION]), st.sampled_from([b"", envelope()])),
    st.builds(frame, st.sampled_from([FIN | PING, FIN | PONG]), st.binary(max_size=125)),
    st.builds(close_frame, st.integers(0, 0xFFFF), st.binary(max_size=10)),
    st.builds(lambda n: frame(FIN | TEXT, bytes(n)), st.integers(120, 1500)),
)


@pytest.mark.property
@given(st.lists(FRAMES, max_size=8).map(b"".join), SIZES)
def test_any_bytes_in_any_portions_come_to_the_same(data: bytes, sizes: list[int]) -> None:
    """Packets, the error and the good-bye depend on the bytes alone, not on how they were cut; nothing is raised,
    and no more is kept than a message may have."""
    outcomes = []
    for cut in ([len(data) + 1], [1], sizes):
        wire = opened(100)
        packets = []
        for portion in portions(data, cut):
            packets += wire.receive_data(portion)
            held = sum(len(part) for part in gc.get_referents(wire) if isinstance(part, bytearray))
            assert held <= 2 * (2 * 100 + 1024) + 14
        wire.receive_eof()
        reason = None if wire.error is None else (wire.error.reason, wire.error.ws_close)
        outcomes.append((packets, reason, wire.peer_closed))
        assert len(wire.data_to_send()) <= 127 + 4
        assert all(len(packet.body) <= 100 for packet in packets)
    assert outcomes[0] == outcomes[1] == outcomes[2]


def judged_by_wsproto(data: bytes) -> list[Event]:
    """What wsproto's server makes of frames: messages joined, up to a close or an error."""
    peer, server = WSConnection(ConnectionType.CLIENT), WSConnection(ConnectionType.SERVER)
    server.receive_data(peer.send(Request(host="a", target="/")))
    list(server.events())
    server.send(AcceptConnection())
    server.receive_data(data)
    found: list[Event] = []
    part = ""
    for event in server.events():
        if isinstance(event, TextMessage):
            part += event.data
            if event.message_finished:
                found.append(TextMessage(part))
                part = ""
        else:
            found.append(event)
            if isinstance(event, BytesMessage | CloseConnection):
                break
    return found


@pytest.mark.property
@given(st.lists(FRAMES, max_size=6).map(b"".join))
@example(frame(TEXT, b"\x80"))
def test_wsproto_agrees_on_what_is_a_frame(data: bytes) -> None:
    """The messages before the first fault are those that wsproto finds, and what it takes for a fault, so do we."""
    wire = opened(0)
    packets = wire.receive_data(data)
    events = judged_by_wsproto(data)
    messages = [event.data for event in events if isinstance(event, TextMessage)]
    assert [as_packet(message) for message in messages[: len(packets)]] == packets
    if wire.error is None and not wire.peer_closed:
        assert len(messages) == len(packets)
        faults = [event for event in events if isinstance(event, BytesMessage | CloseConnection)]
        wire.receive_eof()
        if wire.error is None:
            assert not faults
        else:  # wsproto judges the UTF-8 of a message that is not complete yet
            assert all(isinstance(fault, CloseConnection) and fault.code == WsClose.INVALID_DATA for fault in faults)
    if wire.peer_closed:
        assert isinstance(events[-1], CloseConnection)


def as_packet(message: str) -> Packet:
    fields = json.loads(message)
    return Packet(fields["code"], fields["body"].encode())


def test_one_byte_at_a_time_costs_no_more_looks() -> None:
    """A message that comes byte by byte is looked at (and copied) for its header and its end, not at each byte."""
    looks = 0

    class Counting(WebSocketWire):
        def _measure(self, data: bytes, pos: int, end: int) -> tuple[int, int]:
            nonlocal looks
            looks += 1
            return super()._measure(data, pos, end)

    wire = Counting(0)
    wire.receive_data(REQUEST)
    wire.accept()
    assert feed(wire, text(1003, "x" * 70_000), [1]) == [Packet(1003, b"x" * 70_000)]
    assert looks <= 4
