"""RTMP's chunk streams (RTMP 1.0, section 5.3): messages cut into chunks, and those of several messages interleaved.

A chunk's header leaves out what is as in the one before it on the same chunk stream, so the reader remembers a header
for each. Chunks are added to their message as their bytes come, whatever the chunk size, so that a peer that announces
sixteen megabytes and sends a byte makes us hold a byte. Every length is judged before a byte of it is kept.
"""

from __future__ import annotations

from typing import Final

from qiyu.errors import ProtocolViolation
from qiyu.protocol.packet import Buffer
from qiyu.protocol.rtmp.messages import DEFAULT_CHUNK_BYTES, MAX_CHUNK_BYTES, Message, MessageType, RtmpLimits

NO_TIMESTAMP: Final = 0xFFFFFF
"""In the three bytes of a timestamp: it is in the four bytes after the header."""
CONTROL_STREAM: Final = 2
"""The chunk stream of protocol control messages."""

_NO_TIMESTAMP: Final = NO_TIMESTAMP.to_bytes(3, "big")
_WRAP: Final = 0xFFFFFFFF
_HEADER_BYTES: Final = (11, 7, 3, 0)
_JUDGED_EVERY: Final = 1000  # messages
_MEDIA: Final = frozenset({MessageType.AUDIO, MessageType.VIDEO, MessageType.AGGREGATE})


class _Stream:
    """What is remembered of one chunk stream, and the message that is on its way on it."""

    __slots__ = ("body", "delta", "extended", "id", "length", "stream_id", "timestamp", "type")

    def __init__(self, chunk_stream_id: int) -> None:
        self.id = chunk_stream_id
        self.timestamp = 0
        self.delta = 0
        self.extended = False
        self.length = 0
        self.type = 0
        self.stream_id = 0
        self.body: bytearray | None = None


class ChunkReader:
    """Chunks in, in any portions; messages out. Set Chunk Size and Abort it obeys itself."""

    __slots__ = (
        "_chunk_bytes",
        "_left",
        "_limits",
        "_messages",
        "_rest",
        "_stream",
        "_streams",
        "_unfinished",
        "_weight",
        "error",
        "received",
    )

    def __init__(self, limits: RtmpLimits) -> None:
        self._limits = limits
        self._chunk_bytes = DEFAULT_CHUNK_BYTES
        self._streams: dict[int, _Stream] = {}
        self._stream: _Stream | None = None  # in the middle of a chunk of this one
        self._left = 0  # bytes of that chunk that have not come
        self._rest = b""  # the beginning of a header
        self._unfinished = 0  # bytes of all unfinished messages, when they will have come
        self._messages = 0
        self._weight = 0  # bytes of the messages since they were judged
        self.received = 0
        """Bytes so far."""
        self.error: ProtocolViolation | None = None

    def __repr__(self) -> str:
        return f"<ChunkReader streams={len(self._streams)} unfinished={self._unfinished} error={self.error!r}>"

    @property
    def is_between_messages(self) -> bool:
        """Whether all that came makes whole messages."""
        return not self._rest and not self._unfinished and self._stream is None

    @property
    def kept(self) -> int:
        """Bytes of messages that have not come to their end, so far."""
        return len(self._rest) + sum(len(stream.body or b"") for stream in self._streams.values())

    def receive_data(self, data: Buffer, /) -> list[Message]:
        """The messages that these bytes complete; those before a fault, which then is in `error`."""
        messages: list[Message] = []
        if self.error is None:
            self.received += len(data)
            try:
                self._receive(data, messages)
            except ProtocolViolation as fault:
                self.error = fault.with_traceback(None)
                self._streams.clear()
                self._stream = None
                self._rest = b""
                self._unfinished = 0
        return messages

    def _receive(self, data: Buffer, messages: list[Message]) -> None:
        if self._rest:
            data = self._rest + bytes(data)
            self._rest = b""
        view = memoryview(data)
        size = len(view)
        at = 0
        while True:
            stream = self._stream
            if stream is None:
                begin = self._read_header(view, at, size)
                if begin < 0:
                    self._rest = bytes(view[at:])
                    return
                at = begin
                stream = self._stream
                assert stream is not None  # noqa: S101
            end = min(at + self._left, size)
            body = stream.body
            assert body is not None  # noqa: S101
            body += view[at:end]
            self._left -= end - at
            at = end
            if self._left:
                return
            self._stream = None
            if len(body) == stream.length:
                self._complete(stream, body, messages)

    def _read_header(self, view: memoryview, at: int, size: int) -> int:
        """Read one chunk's header and return where its data begins; -1 where the header is not all there."""
        if at == size:
            return -1
        chunk_format = view[at] >> 6
        stream_id = view[at] & 0x3F
        at += 1
        if stream_id < 2:  # the ids from 64 on take one or two bytes more (section 5.3.1.1)
            more = stream_id + 1
            if at + more > size:
                return -1
            stream_id = 64 + int.from_bytes(view[at : at + more], "little")
            at += more
        stream = self._streams.get(stream_id)
        if stream is None:
            stream = self._new_stream(stream_id, chunk_format)
        begin = at + _HEADER_BYTES[chunk_format]
        if begin > size:
            return -1
        extended = view[at : at + 3].tobytes() == _NO_TIMESTAMP if chunk_format < 3 else stream.extended
        if extended:
            # Type 3 has it again, where the last header that had a timestamp had it (section 5.3.1.3).
            begin += 4
            if begin > size:
                return -1
        if chunk_format == 3:
            if stream.body is None:
                self._start(stream, stream.delta)
        else:
            self._read_fields(stream, chunk_format, view[at:begin], extended)
        self._streams[stream_id] = stream
        self._stream = stream
        self._left = min(self._chunk_bytes, stream.length - len(stream.body or b""))
        return begin

    def _new_stream(self, stream_id: int, chunk_format: int) -> _Stream:
        # Type 1 leaves out the message stream alone; librtmp begins the control stream so, which is in stream 0.
        if chunk_format > 1:
            raise ProtocolViolation(f"chunk stream {stream_id} begins with a header of type {chunk_format}: expected 0")
        if len(self._streams) >= self._limits.chunk_streams:
            raise ProtocolViolation(f"chunk stream {stream_id}: expected at most {self._limits.chunk_streams} of them")
        return _Stream(stream_id)

    def _read_fields(self, stream: _Stream, chunk_format: int, header: memoryview, extended: bool) -> None:
        if stream.body is not None:
            raise ProtocolViolation(f"chunk stream {stream.id}: a message begins before the last one is complete")
        timestamp = int.from_bytes(header[-4:] if extended else header[:3], "big")
        stream.extended = extended
        if chunk_format < 2:
            stream.length = int.from_bytes(header[3:6], "big")
            stream.type = header[6]
        if chunk_format == 0:
            stream.stream_id = int.from_bytes(header[7:11], "little")
            stream.timestamp = 0
        # "If a Type 3 chunk follows a Type 0 chunk, then the timestamp delta for this Type 3 chunk is the same as the
        # timestamp of the Type 0 chunk" (section 5.3.1.2.4).
        stream.delta = timestamp
        self._start(stream, timestamp)

    def _start(self, stream: _Stream, delta: int) -> None:
        limits = self._limits
        is_media = stream.type in _MEDIA
        allowed = limits.media_bytes if is_media else limits.command_bytes
        if stream.length > allowed:
            kind = "audio or video" if is_media else f"type {stream.type}"
            raise ProtocolViolation(f"a message ({kind}) of {stream.length} bytes: expected at most {allowed}")
        self._unfinished += stream.length
        if self._unfinished > limits.unfinished_bytes:
            raise ProtocolViolation(f"unfinished messages of more than {limits.unfinished_bytes} bytes together")
        stream.timestamp = (stream.timestamp + delta) & _WRAP
        stream.body = bytearray()

    def _complete(self, stream: _Stream, body: bytearray, messages: list[Message]) -> None:
        stream.body = None
        self._unfinished -= stream.length
        self._messages += 1
        self._weight += len(body) + 1  # no header has less
        if self._messages % _JUDGED_EVERY == 0:
            self._judge()
        if stream.type == MessageType.SET_CHUNK_SIZE:
            self._set_chunk_size(body)
        elif stream.type == MessageType.ABORT:
            self._abort(body)
        else:
            messages.append(Message(stream.type, stream.stream_id, stream.timestamp, bytes(body)))

    def _set_chunk_size(self, body: bytearray) -> None:
        size = int.from_bytes(body, "big")
        least = self._limits.min_chunk_bytes
        # The first bit must be zero, and 1 would be legal (section 5.4.1).
        if len(body) != 4 or not least <= size <= 0x7FFFFFFF:
            raise ProtocolViolation(f"a chunk size of {size}: expected {least} to 2147483647")
        self._chunk_bytes = min(size, MAX_CHUNK_BYTES)

    def _abort(self, body: bytearray) -> None:
        stream = self._streams.get(int.from_bytes(body, "big"))
        if stream is not None and stream.body is not None:
            stream.body = None
            self._unfinished -= stream.length

    def _judge(self) -> None:
        mean = self._limits.min_mean_bytes
        if self._weight < _JUDGED_EVERY * mean:
            raise ProtocolViolation(f"{_JUDGED_EVERY} messages of less than {mean} bytes on average")
        self._weight = 0


def encode_message(message: Message, *, chunk_stream_id: int, chunk_bytes: int = DEFAULT_CHUNK_BYTES) -> bytes:
    """A message as chunks: a header of type 0, then of type 3. The chunk stream is 2 to 63."""
    extended = b""
    timestamp = message.timestamp
    if timestamp >= NO_TIMESTAMP:
        extended = timestamp.to_bytes(4, "big")
        timestamp = NO_TIMESTAMP
    out = bytearray((chunk_stream_id,))
    out += timestamp.to_bytes(3, "big") + len(message.payload).to_bytes(3, "big")
    out.append(message.type)
    out += message.stream_id.to_bytes(4, "little") + extended
    out += message.payload[:chunk_bytes]
    for at in range(chunk_bytes, len(message.payload), chunk_bytes):
        out.append(0xC0 | chunk_stream_id)
        out += extended + message.payload[at : at + chunk_bytes]
    return bytes(out)
