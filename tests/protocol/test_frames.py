"""The reader on its own, and what the server writes, read by wsproto."""

from __future__ import annotations

import gc
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Pong, TextMessage

from qiyu.errors import ProtocolViolation, WsClose
from qiyu.protocol.frames import (
    FINAL_BINARY,
    FINAL_TEXT,
    LEAST_LIMIT,
    FrameReader,
    close,
    close_answer,
    header,
    pong,
    protocol_error,
)

FIN, MASKED = 0x80, 0x80
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
LIMIT = 1000


class Reader(FrameReader[bytes]):
    """Writes down what comes."""

    def __init__(self, limit: int = LIMIT) -> None:
        super().__init__()
        self.limit = limit
        self.messages: list[bytes] = []
        self.pings: list[bytes] = []
        self.closed_with: bytes | None = None
        self.fault: ProtocolViolation | None = None

    def feed(self, *portions: bytes) -> Reader:
        for portion in portions:
            if self.fault is None and not self.peer_closed:
                try:
                    self._read(portion, self.messages)
                except ProtocolViolation as fault:
                    self.fault = fault
        return self

    def _take_message(self, message: bytes | bytearray, found: list[bytes]) -> None:
        found.append(bytes(message))

    def _take_ping(self, payload: bytes) -> None:
        self.pings.append(bytes(payload))

    def _take_close(self, payload: bytes) -> None:
        self.closed_with = bytes(payload)

    @property
    def _longest_message(self) -> int:
        return self.limit

    @property
    def outcome(self) -> tuple[object, ...]:
        reason = None if self.fault is None else (self.fault.reason, self.fault.ws_close)
        return self.messages, self.pings, self.closed_with, reason, self._is_within_message


def frame(first: int, payload: bytes = b"", mask: bytes = b"\x12\x34\x56\x78") -> bytes:
    """A client's frame, made the plain way: RFC 6455, sections 5.2 and 5.3."""
    length = len(payload)
    if length < 126:
        head = bytes([first, MASKED | length])
    elif length < 1 << 16:
        head = bytes([first, MASKED | 126]) + length.to_bytes(2)
    else:
        head = bytes([first, MASKED | 127]) + length.to_bytes(8)
    return head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


def cut(data: bytes, sizes: list[int]) -> Iterable[bytes]:
    pos = turn = 0
    while pos < len(data):
        size = sizes[turn % len(sizes)]
        yield data[pos : pos + size]
        pos, turn = pos + size, turn + 1


def test_messages_whole_and_in_fragments() -> None:
    sent = [b"", b"hello", bytes(125), bytes(126), bytes(LEAST_LIMIT - 1), bytes(LEAST_LIMIT), bytes(LIMIT)]
    whole = b"".join(frame(FINAL_TEXT, message) for message in sent)
    assert Reader().feed(whole).messages == sent
    parts = frame(TEXT, b"one") + frame(FIN | PING, b"?") + frame(CONTINUATION, b" and ") + frame(FIN, b"two")
    reader = Reader().feed(parts)
    assert (reader.messages, reader.pings) == ([b"one and two"], [b"?"])


def test_nothing_is_kept_of_what_is_complete() -> None:
    reader = Reader().feed(frame(FINAL_TEXT, b"x")[:-1])
    assert reader._is_within_message
    reader.feed(frame(FINAL_TEXT, b"x")[-1:])
    assert not reader._is_within_message
    assert not [part for part in gc.get_referents(reader) if isinstance(part, bytearray)]


def test_what_was_read_into_may_be_read_into_again() -> None:
    reader, buffer = Reader(), bytearray(frame(FINAL_TEXT, b"first") + frame(FINAL_TEXT, b"second")[:8])
    reader._read(memoryview(buffer), reader.messages)
    buffer[:] = bytes(len(buffer))
    reader.feed(frame(FINAL_TEXT, b"second")[8:])
    assert reader.messages == [b"first", b"second"]


@pytest.mark.parametrize("last", [b"", frame(FINAL_TEXT, b"late"), b"\xff"])
def test_a_close_is_the_last(last: bytes) -> None:
    reader = Reader().feed(frame(FINAL_TEXT, b"a") + frame(FIN | CLOSE, b"\x03\xe8bye") + last)
    assert reader.peer_closed
    assert reader.outcome == ([b"a"], [], b"\x03\xe8bye", None, False)


def test_a_message_is_judged_by_its_header() -> None:
    head = bytes([FINAL_TEXT, MASKED | 126]) + (LIMIT + 1).to_bytes(2)
    fault = Reader().feed(head).fault
    assert fault is not None
    assert (fault.reason, fault.ws_close) == (f"a message is longer than {LIMIT} bytes", WsClose.MESSAGE_TOO_BIG)


PIECES = st.one_of(
    st.binary(max_size=12),
    st.builds(frame, st.integers(0, 255), st.binary(max_size=140), st.binary(min_size=4, max_size=4)),
    st.builds(frame, st.sampled_from([TEXT, CONTINUATION, FIN, FINAL_TEXT]), st.binary(max_size=700)),
    st.builds(frame, st.sampled_from([FIN | PING, FIN | PONG]), st.binary(max_size=125)),
    st.builds(lambda code: frame(FIN | CLOSE, code.to_bytes(2)), st.integers(0, 0xFFFF)),
)


@pytest.mark.property
@given(st.lists(PIECES, max_size=8).map(b"".join), st.lists(st.integers(1, 300), min_size=1, max_size=6), st.booleans())
def test_however_it_is_cut_it_comes_to_the_same(data: bytes, sizes: list[int], views: bool) -> None:
    """Messages, control frames and the fault depend on the bytes alone, and nothing but a violation is raised."""
    whole = Reader().feed(data)
    assert Reader().feed(*cut(data, [1])).outcome == whole.outcome
    portions = [memoryview(portion) if views else portion for portion in cut(data, sizes)]
    assert Reader().feed(*portions).outcome == whole.outcome  # type: ignore[arg-type]


@pytest.mark.property
@given(st.binary(max_size=1500), st.binary(min_size=4, max_size=4), st.integers(0, 2))
def test_every_message_is_unmasked(message: bytes, mask: bytes, fragments: int) -> None:
    sizes = [len(message) // (fragments + 1)] * fragments
    parts = list(cut(message, sizes)) if all(sizes) and sizes else [message]
    opcodes = [TEXT] + [CONTINUATION] * (len(parts) - 1)
    opcodes[-1] |= FIN
    data = b"".join(frame(opcode, part, mask) for opcode, part in zip(opcodes, parts, strict=True))
    assert Reader(2000).feed(data).messages == [message]


# What the server writes


def read_by_wsproto(data: bytes) -> list[object]:
    client = Connection(ConnectionType.CLIENT)
    client.receive_data(data)
    return list(client.events())


@pytest.mark.property
@given(st.text(max_size=10).map(str.encode), st.sampled_from([0, 100, 125, 126, 65_535, 65_536]))
def test_wsproto_reads_our_headers(payload: bytes, padding: int) -> None:
    payload += b"x" * padding
    (text,) = read_by_wsproto(header(FINAL_TEXT, len(payload)) + payload)
    assert isinstance(text, TextMessage)
    assert text.data == payload.decode()
    (binary,) = read_by_wsproto(header(FINAL_BINARY, len(payload)) + payload)
    assert isinstance(binary, BytesMessage)
    assert binary.data == payload


def test_wsproto_reads_our_control_frames() -> None:
    assert read_by_wsproto(pong(b"here")) == [Pong(b"here")]
    assert read_by_wsproto(close(4008, "idle")) == [CloseConnection(4008, "idle")]
    assert read_by_wsproto(close_answer(b"\x03\xe9going away")) == [CloseConnection(1001, "")]
    assert read_by_wsproto(close_answer(b"")) == [CloseConnection(1005, "")]


@pytest.mark.parametrize("reason", ["x" * 200, "鱼" * 100, "x" + "鱼" * 100])
def test_a_long_reason_is_cut_between_characters(reason: str) -> None:
    data = close(1008, reason)
    assert len(data) <= 127
    (closed,) = read_by_wsproto(data)
    assert isinstance(closed, CloseConnection)
    assert closed.reason
    assert reason.startswith(closed.reason)


def test_a_broken_rule_is_told_as_one() -> None:
    assert protocol_error("no").ws_close == WsClose.PROTOCOL_ERROR
