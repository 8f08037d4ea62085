from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qiyu.errors import ErrorCode, WsClose
from qiyu.protocol.packet import MAGIC, Packet
from qiyu.protocol.tcp import HEADER, NO_LIMIT, TcpWire

LIMIT = 64
INT32 = st.integers(-(2**31), 2**31 - 1)
PACKETS = st.lists(st.tuples(INT32, st.binary(max_size=LIMIT)), max_size=8)
CUTS = st.lists(st.integers(0, 1000), max_size=12)

Plain = list[tuple[int, bytes]]


def header(magic: int, code: int, length: int) -> bytes:
    return struct.pack(">hii", magic, code, length)


def frame(code: int, body: bytes) -> bytes:
    return header(MAGIC, code, len(body)) + body


def plain(packets: list[Packet]) -> Plain:
    return [(packet.code, bytes(packet.body)) for packet in packets]


def split(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    """The same bytes in pieces, some of them perhaps empty."""
    places = sorted(cut % (len(data) + 1) for cut in cuts)
    for start, end in zip([0, *places], [*places, len(data)], strict=True):
        yield data[start:end]


def read_all(wire: TcpWire, pieces: Iterator[bytes]) -> Plain:
    """Feed pieces the way a driver does: in a buffer that the next read overwrites."""
    received: Plain = []
    for piece in pieces:
        buffer = bytearray(piece)
        packets = wire.receive_data(memoryview(buffer))
        received += plain(packets)
        buffer[:] = b"\xee" * len(buffer)
    return received


@pytest.mark.property
@given(PACKETS, CUTS)
def test_however_frames_are_split_the_same_packets_come(packets: Plain, cuts: list[int]) -> None:
    """Whole, byte by byte or cut anywhere, read from any kind of buffer: what was encoded comes out, once, in order."""
    data = b"".join(TcpWire.encode(code, body) for code, body in packets)
    assert plain(TcpWire(LIMIT).receive_data(data)) == packets
    for pieces in ([data], [bytes([byte]) for byte in data], list(split(data, cuts))):
        wire = TcpWire(LIMIT)
        assert read_all(wire, iter(pieces)) == packets
        wire.receive_eof()
        assert wire.error is None


@pytest.mark.property
@given(PACKETS, CUTS, st.integers(1, 1000))
def test_eof_within_a_frame_is_an_error_and_between_two_none(packets: Plain, cuts: list[int], left_out: int) -> None:
    """Of a stream that ends early come the packets that are whole; it ends in an error unless it ends between two."""
    data = b"".join(TcpWire.encode(code, body) for code, body in packets)
    data = data[: max(0, len(data) - left_out)]
    wire = TcpWire(LIMIT)
    received = read_all(wire, split(data, cuts))
    assert received == packets[: len(received)]
    whole = sum(HEADER.size + len(body) for _, body in received)
    wire.receive_eof()
    assert (wire.error is None) == (whole == len(data))


@pytest.mark.property
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.builds(frame, INT32, st.binary(max_size=LIMIT + 2)),
            st.builds(header, st.sampled_from([MAGIC, MAGIC + 1, -MAGIC]), INT32, st.integers(-2, LIMIT + 2)),
        ),
        max_size=6,
    ).map(b"".join),
    CUTS,
)
@example(b"\x48", [])
@example(header(MAGIC, 1003, -(2**31)), [3])
def test_any_bytes_give_packets_or_an_error_and_the_same_however_split(data: bytes, cuts: list[int]) -> None:
    """Whatever comes, the packets before the fault come out and then the fault; what is kept is never above the limit.

    The state after each byte does not depend on how the bytes were split.
    """
    whole = TcpWire(LIMIT)
    expected = plain(whole.receive_data(data))
    for pieces in ([bytes([byte]) for byte in data], list(split(data, cuts))):
        wire = TcpWire(LIMIT)
        received: Plain = []
        for piece in pieces:
            received += plain(wire.receive_data(piece))
            assert len(wire._unfinished or b"") < HEADER.size + LIMIT
        assert received == expected
        assert (wire.error is None) == (whole.error is None)
        if wire.error is not None and whole.error is not None:
            assert wire.error.ws_close is whole.error.ws_close
            assert wire.error.code is ErrorCode.MALFORMED
            assert wire.receive_data(frame(1004, b"{}")) == []
    assert all(len(body) <= LIMIT for _, body in expected)


@pytest.mark.property
@given(INT32, st.binary(max_size=200))
def test_encode_writes_the_frame_that_is_documented(code: int, body: bytes) -> None:
    """`int16 magic, int32 code, int32 len`, big-endian, then the body; and it reads its own writing."""
    assert TcpWire.encode(code, body) == frame(code, body)
    assert plain(TcpWire(0).receive_data(TcpWire.encode(code, body))) == [(code, body)]


@pytest.mark.property
@given(INT32, st.binary(max_size=50), st.integers(10_000, 2**53 - 1), st.binary(max_size=50))
def test_a_spliced_packet_is_the_encoded_one(code: int, before: bytes, user_id: int, after: bytes) -> None:
    """head + digits + tail are the bytes that `encode` makes of before + digits + after."""
    digits = b"%d" % user_id
    head, tail = TcpWire.splice(code, before, after, len(digits))
    assert head + digits + tail == TcpWire.encode(code, before + digits + after)


def test_a_body_at_the_limit() -> None:
    wire = TcpWire(LIMIT)
    assert plain(wire.receive_data(frame(1003, b"x" * LIMIT))) == [(1003, b"x" * LIMIT)]
    assert wire.error is None


@pytest.mark.parametrize("length", [LIMIT + 1, 2**31 - 1, -1, -(2**31)])
def test_a_length_is_judged_from_the_header_alone(length: int) -> None:
    wire = TcpWire(LIMIT)
    assert wire.receive_data(header(MAGIC, 1003, length)) == []
    assert wire.error is not None
    assert wire.error.reason == f"len {length}: expected 0 to {LIMIT} bytes"
    assert wire.error.ws_close is WsClose.MESSAGE_TOO_BIG
    assert wire._unfinished is None


@pytest.mark.parametrize("glued", [True, False])
@pytest.mark.parametrize("start", [b"GE", b"\x00\x00", b"\xff\xff", b"HT", b"\x48\xf0", b"\x49\xf1"])
def test_another_protocol_is_seen_at_its_second_byte(start: bytes, glued: bool) -> None:
    wire = TcpWire(LIMIT)
    for piece in [start] if glued else [bytes([byte]) for byte in start]:
        assert wire.receive_data(piece) == []
    assert wire.error is not None
    assert wire.error.reason == f"magic {int.from_bytes(start, signed=True)}: expected 18673"
    assert wire.error.ws_close is WsClose.PROTOCOL_ERROR


def test_the_first_byte_of_the_magic_is_no_fault_yet() -> None:
    """What is told is the whole of it."""
    wire, another = TcpWire(LIMIT), TcpWire(LIMIT)
    for each, first in ((wire, b"\x48"), (another, b"G")):
        assert each.receive_data(first) == []
        assert each.error is None
    assert plain(wire.receive_data(frame(1004, b"{}")[1:])) == [(1004, b"{}")]
    assert another.receive_data(b"E") == []
    assert another.error is not None
    assert another.error.reason == "magic 18245: expected 18673"


def test_packets_before_a_fault_come_first() -> None:
    wire = TcpWire(LIMIT)
    assert plain(wire.receive_data(frame(1004, b"{}") * 2 + b"GET / HTTP/1.1\r\n")) == [(1004, b"{}")] * 2
    assert wire.error is not None


def test_the_first_body_has_a_limit_of_its_own_until_it_is_lifted() -> None:
    wire = TcpWire(100, 10)
    assert len(wire.receive_data(frame(1001, bytes(10)) + frame(1003, bytes(100)))) == 2
    for data, error in (
        (frame(1001, bytes(11)), "len 11: expected 0 to 10 bytes"),
        (frame(1, bytes(9)) + frame(1, bytes(101)), "100"),
    ):
        wire = TcpWire(100, 10)
        wire.receive_data(data)
        assert wire.error is not None
        assert error in wire.error.reason
    wire = TcpWire(100, 10)
    wire.lift()
    assert len(wire.receive_data(frame(1003, bytes(100)))) == 1


def test_no_limit_is_what_an_int32_can_say() -> None:
    wire = TcpWire(0)
    assert wire.receive_data(header(MAGIC, 1003, NO_LIMIT)) == []
    assert wire.error is None
    wire = TcpWire(0)
    wire.receive_data(header(MAGIC, 1003, -1))
    assert wire.error is not None


def test_nothing_is_kept_between_frames() -> None:
    wire = TcpWire(LIMIT)
    wire.receive_data(frame(1003, b"body")[:-1])
    assert wire._unfinished is not None
    wire.receive_data(b"y")
    assert wire._unfinished is None


def test_frames_have_no_good_bye() -> None:
    wire = TcpWire(LIMIT)
    assert wire.close(4001, "replaced") == b""
    assert wire.is_open
    assert not wire.has_output
    assert wire.data_to_send() == b""
