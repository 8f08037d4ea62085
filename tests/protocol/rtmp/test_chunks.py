from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clips import as_pieces
from qiyu.protocol.rtmp.chunks import ChunkReader, encode_message
from qiyu.protocol.rtmp.messages import Message, MessageType, RtmpLimits
from rtmp_encoder import Chunker

LIMITS = RtmpLimits(media_bytes=5000, command_bytes=1000, unfinished_bytes=12_000, chunk_streams=6)
CUTS = st.lists(st.integers(0, 100_000), max_size=12)
CHUNK_STREAMS = st.sampled_from([2, 3, 63, 64, 319, 320, 65_599])
TIMES = st.integers(0, 2**32 - 1) | st.sampled_from([0, 40, 0xFFFFFE, 0xFFFFFF, 0x1000000])
MESSAGES = st.builds(
    Message,
    st.sampled_from([MessageType.AUDIO, MessageType.VIDEO, MessageType.DATA, MessageType.COMMAND]),
    st.integers(0, 2**32 - 1) | st.just(1),
    TIMES,
    st.binary(max_size=400),
)


def read(data: bytes, cuts: list[int] | None = None, limits: RtmpLimits = LIMITS) -> tuple[list[Message], ChunkReader]:
    reader = ChunkReader(limits)
    messages: list[Message] = []
    for piece in as_pieces(data, cuts or []):
        buffer = bytearray(piece)
        messages += reader.receive_data(memoryview(buffer))
        buffer[:] = b"\xee" * len(buffer)  # as the driver's next read would
    return messages, reader


def refusal(data: bytes, limits: RtmpLimits = LIMITS) -> str:
    messages, reader = read(data, limits=limits)
    assert messages == []
    assert reader.error is not None
    return reader.error.reason


@pytest.mark.property
@given(st.lists(st.tuples(CHUNK_STREAMS, MESSAGES), max_size=6), st.sampled_from([128, 129, 4096, 60_000]), CUTS)
def test_messages_are_the_same_for_any_chunk_size_and_any_split(
    sent: list[tuple[int, Message]], chunk_bytes: int, cuts: list[int]
) -> None:
    """Whatever the chunk size, the ids and the headers; whole, byte by byte, or cut anywhere: what was sent."""
    limits = dataclasses.replace(LIMITS, chunk_streams=8)
    chunker = Chunker()
    data = chunker.set_chunk_size(chunk_bytes)
    data += b"".join(chunker.message(chunk_stream, message) for chunk_stream, message in sent)
    expected = [message for _, message in sent]
    for places in ([], cuts, list(range(len(data)))):
        messages, reader = read(data, places, limits)
        assert reader.error is None
        assert messages == expected
        assert reader.is_between_messages
        assert reader.received == len(data)


@pytest.mark.property
@given(st.lists(MESSAGES, min_size=2, max_size=4), CUTS)
def test_messages_of_several_chunk_streams_may_be_interleaved(sent: list[Message], cuts: list[int]) -> None:
    """A chunk of each in turn: each comes out whole, when its last chunk has come."""
    data = Chunker().interleaved(enumerate(sent, start=3))
    messages, reader = read(data, cuts)
    assert reader.error is None
    # In order of how many chunks they have, and those of as many in the order of their first.
    assert messages == sorted(sent, key=lambda message: max(1, -(-len(message.payload) // 128)))


@pytest.mark.property
@given(MESSAGES, st.sampled_from([128, 4096]))
def test_what_we_send_is_what_is_read(message: Message, chunk_bytes: int) -> None:
    """`encode_message` and the reader agree, extended timestamps included."""
    data = Chunker().set_chunk_size(chunk_bytes)
    data += encode_message(message, chunk_stream_id=5, chunk_bytes=chunk_bytes)
    assert read(data)[0] == [message]


@pytest.mark.property
@given(st.binary(max_size=600), CUTS)
def test_whatever_the_bytes_are_nothing_is_raised_and_little_is_held(data: bytes, cuts: list[int]) -> None:
    """Any bytes are messages, an error with a reason, or a beginning; and the same however they are split."""
    messages, reader = read(data, cuts)
    whole, other = read(data)
    assert messages == whole
    assert (reader.error and reader.error.reason) == (other.error and other.error.reason)
    assert sum(len(message.payload) for message in messages) <= len(data)


def test_timestamps_go_on_by_deltas_and_begin_again_at_2_32() -> None:
    first = Message(MessageType.VIDEO, 1, 2**32 - 10, b"12345678")
    again = Chunker().message(4, first) + b"\xc4" + (2**32 - 10).to_bytes(4, "big") + b"12345678"
    # "the timestamp delta for this Type 3 chunk is the same as the timestamp of the Type 0 chunk"
    assert [message.timestamp for message in read(again)[0]] == [2**32 - 10, 2**32 - 20]
    by_delta = Chunker().message(4, first) + b"\x84\x00\x00\x28" + b"12345678" + b"\xc4" + b"12345678"
    assert [message.timestamp for message in read(by_delta)[0]] == [2**32 - 10, 30, 70]


def test_a_control_stream_may_begin_without_a_message_stream() -> None:
    # As librtmp does.
    data = b"\x42\x00\x00\x00\x00\x00\x06\x04" + b"\x00\x06\x00\x00\x00\x01"
    assert read(data)[0] == [Message(MessageType.USER_CONTROL, 0, 0, b"\x00\x06\x00\x00\x00\x01")]


def test_an_aborted_message_is_forgotten_and_makes_room() -> None:
    limits = dataclasses.replace(LIMITS, media_bytes=1000, unfinished_bytes=1500)
    chunker = Chunker()
    data = b""
    for _ in range(5):
        data += chunker.chunks(6, Message(MessageType.VIDEO, 1, 0, bytes(1000)))[0]
        data += chunker.message(2, Message(MessageType.ABORT, 0, 0, (6).to_bytes(4, "big")))
    data += chunker.message(6, Message(MessageType.VIDEO, 1, 0, b"whole"))
    messages, reader = read(data, limits=limits)
    assert [message.payload for message in messages] == [b"whole"]
    assert reader.is_between_messages


def test_to_abort_what_is_not_there_does_nothing() -> None:
    chunker = Chunker()
    abort = chunker.message(2, Message(MessageType.ABORT, 0, 0, (6).to_bytes(4, "big")))
    message = Message(MessageType.VIDEO, 1, 0, b"whole")
    assert read(abort + chunker.message(6, message) + abort)[0] == [message]


@pytest.mark.parametrize("size", [0, 1, 127, 0x80000000, 0xFFFFFFFF])
def test_a_chunk_size_that_cannot_be_is_refused(size: int) -> None:
    assert refusal(Chunker().set_chunk_size(size)) == f"a chunk size of {size}: expected 128 to 2147483647"


def test_the_largest_chunk_size_holds_no_memory() -> None:
    chunker = Chunker()
    data = chunker.set_chunk_size(0x7FFFFFFF) + chunker.chunks(6, Message(MessageType.VIDEO, 1, 0, bytes(5000)))[0][:20]
    messages, reader = read(data)
    assert (messages, reader.error) == ([], None)
    assert not reader.is_between_messages


@pytest.mark.parametrize(
    ("kind", "length", "reason"),
    [
        (MessageType.VIDEO, 5001, "a message (audio or video) of 5001 bytes: expected at most 5000"),
        (MessageType.AGGREGATE, 0xFFFFFF, "a message (audio or video) of 16777215 bytes: expected at most 5000"),
        (MessageType.COMMAND, 1001, "a message (type 20) of 1001 bytes: expected at most 1000"),
        (99, 1001, "a message (type 99) of 1001 bytes: expected at most 1000"),
    ],
)
def test_a_message_too_long_is_refused_by_its_header_alone(kind: int, length: int, reason: str) -> None:
    header = b"\x05\x00\x00\x00" + length.to_bytes(3, "big") + bytes((kind, 0, 0, 0, 0))
    assert refusal(header) == reason


def test_unfinished_messages_are_bounded_together() -> None:
    data = b"".join(Chunker().chunks(stream, Message(MessageType.VIDEO, 1, 0, bytes(5000)))[0] for stream in (3, 4, 5))
    assert refusal(data) == "unfinished messages of more than 12000 bytes together"


def test_chunk_streams_are_bounded() -> None:
    chunker = Chunker()
    data = b"".join(chunker.message(stream, Message(MessageType.VIDEO, 1, 0, b"12345678")) for stream in range(3, 10))
    messages, reader = read(data)
    assert len(messages) == 6
    assert reader.error is not None
    assert reader.error.reason == "chunk stream 9: expected at most 6 of them"


def test_headers_that_leave_out_what_was_never_said_are_refused() -> None:
    assert refusal(b"\xc7") == "chunk stream 7 begins with a header of type 3: expected 0"
    assert refusal(b"\x87") == "chunk stream 7 begins with a header of type 2: expected 0"


def test_a_message_must_be_complete_before_the_next_on_its_stream() -> None:
    first = Chunker().chunks(6, Message(MessageType.VIDEO, 1, 0, bytes(300)))[0]
    assert refusal(first * 2) == "chunk stream 6: a message begins before the last one is complete"


def test_a_flood_of_messages_of_nothing_is_refused() -> None:
    empty = Message(MessageType.AUDIO, 1, 0, b"")
    messages, reader = read(Chunker().message(4, empty) + b"\xc4" * 3000)
    assert len(messages) == 999
    assert reader.error is not None
    assert reader.error.reason == "1000 messages of less than 8 bytes on average"
    # The quietest real audio there is.
    silence = Message(MessageType.AUDIO, 1, 0, b"\xaf\x01\x01\x18\x20\x07\x00\x00")
    messages, reader = read(Chunker().message(4, silence) + (b"\xc4" + silence.payload) * 3000)
    assert reader.error is None
    assert len(messages) == 3001


def test_after_an_error_nothing_is_read() -> None:
    reader = ChunkReader(LIMITS)
    reader.receive_data(b"\xc7")
    assert reader.error is not None
    assert reader.receive_data(Chunker().message(6, Message(MessageType.VIDEO, 1, 0, b"x"))) == []
    assert "error=ProtocolViolation" in repr(reader)
