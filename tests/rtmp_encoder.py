"""An encoder's side of RTMP, to the byte: it chooses chunk sizes, ids and headers as real ones do, or as none would."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from qiyu.protocol.rtmp.amf0 import decode, encode
from qiyu.protocol.rtmp.chunks import ChunkReader
from qiyu.protocol.rtmp.messages import Message, MessageType, RtmpLimits

HANDSHAKE = b"\x03" + bytes(1536)
SECOND_HALF = bytes(1536)
COMMANDS, AUDIO, VIDEO = 3, 4, 6


class _Last(NamedTuple):
    stream_id: int
    length: int
    type: int
    timestamp: int
    delta: int


class Chunker:
    """Messages to chunks, leaving out of each header what the protocol allows to be left out."""

    def __init__(self, chunk_bytes: int = 128) -> None:
        self.chunk_bytes = chunk_bytes
        self._last: dict[int, _Last] = {}

    def set_chunk_size(self, size: int) -> bytes:
        out = self.message(2, Message(MessageType.SET_CHUNK_SIZE, 0, 0, size.to_bytes(4, "big")))
        self.chunk_bytes = size
        return out

    def message(self, chunk_stream: int, message: Message) -> bytes:
        return b"".join(self.chunks(chunk_stream, message))

    def chunks(self, chunk_stream: int, message: Message) -> list[bytes]:
        payload = message.payload
        header, extended = self._header(chunk_stream, message)
        size = self.chunk_bytes
        first = header + payload[:size]
        again = self._basic(3, chunk_stream) + extended
        return [first, *(again + payload[at : at + size] for at in range(size, len(payload), size))]

    def interleaved(self, messages: Iterable[tuple[int, Message]]) -> bytes:
        """A chunk of each in turn; the chunk streams must differ."""
        waiting = [self.chunks(chunk_stream, message) for chunk_stream, message in messages]
        out = b""
        while waiting:
            out += b"".join(chunks.pop(0) for chunks in waiting)
            waiting = [chunks for chunks in waiting if chunks]
        return out

    @staticmethod
    def _basic(chunk_format: int, chunk_stream: int) -> bytes:
        if chunk_stream < 64:
            return bytes((chunk_format << 6 | chunk_stream,))
        if chunk_stream < 320:
            return bytes((chunk_format << 6, chunk_stream - 64))
        return bytes((chunk_format << 6 | 1,)) + (chunk_stream - 64).to_bytes(2, "little")

    def _header(self, chunk_stream: int, message: Message) -> tuple[bytes, bytes]:
        last = self._last.get(chunk_stream)
        length = len(message.payload)
        time = message.timestamp
        delta = (message.timestamp - last.timestamp) % 2**32 if last else 0
        fields = length.to_bytes(3, "big") + bytes((message.type,))
        if last is None or last.stream_id != message.stream_id or message.timestamp < last.timestamp:
            chunk_format, delta, rest = 0, time, fields + message.stream_id.to_bytes(4, "little")
        elif (last.length, last.type) != (length, message.type):
            chunk_format, time, rest = 1, delta, fields
        elif last.delta != delta:
            chunk_format, time, rest = 2, delta, b""
        else:
            chunk_format, time, rest = 3, delta, b""
        self._last[chunk_stream] = _Last(message.stream_id, length, message.type, message.timestamp, delta)
        extended = time.to_bytes(4, "big") if time >= 0xFFFFFF else b""
        short = b"" if chunk_format == 3 else min(time, 0xFFFFFF).to_bytes(3, "big")
        return self._basic(chunk_format, chunk_stream) + short + rest + extended, extended


class Encoder:
    """What a client says, in order; `sent` is all of it."""

    def __init__(self, chunk_bytes: int = 128) -> None:
        self.chunker = Chunker()
        self.sent = HANDSHAKE + SECOND_HALF
        if chunk_bytes != 128:
            self.sent += self.chunker.set_chunk_size(chunk_bytes)

    def say(self, chunk_stream: int, message: Message) -> Encoder:
        self.sent += self.chunker.message(chunk_stream, message)
        return self

    def call(self, name: str, transaction: float, *arguments: Any, stream_id: int = 0) -> Encoder:
        return self.say(COMMANDS, Message(MessageType.COMMAND, stream_id, 0, encode([name, transaction, *arguments])))

    def connect(self, app: str = "live", **more: Any) -> Encoder:
        told = {"app": app, "type": "nonprivate", "tcUrl": f"rtmp://127.0.0.1/{app}", **more}
        return self.call("connect", 1, told)

    def publish(self, name: str, app: str = "live") -> Encoder:
        """All of it, as ffmpeg does."""
        self.connect(app)
        self.call("releaseStream", 2, None, name)
        self.call("FCPublish", 3, None, name)
        self.call("createStream", 4, None)
        return self.call("publish", 5, None, name, "live", stream_id=1)

    def audio(self, timestamp: int, body: bytes) -> Encoder:
        return self.say(AUDIO, Message(MessageType.AUDIO, 1, timestamp, body))

    def video(self, timestamp: int, body: bytes) -> Encoder:
        return self.say(VIDEO, Message(MessageType.VIDEO, 1, timestamp, body))

    def data(self, timestamp: int, body: bytes) -> Encoder:
        return self.say(AUDIO, Message(MessageType.DATA, 1, timestamp, body))

    def take(self) -> bytes:
        """What was said since the last time."""
        sent, self.sent = self.sent, b""
        return sent


def read_answers(data: bytes) -> list[Message]:
    """What a server said, from its handshake on."""
    assert data[:1] == b"\x03"
    assert len(data) >= 1 + 2 * 1536
    reader = ChunkReader(RtmpLimits())
    messages = reader.receive_data(data[1 + 2 * 1536 :])
    assert reader.error is None
    assert reader.is_between_messages
    return messages


def commands(messages: list[Message]) -> list[list[Any]]:
    """The commands among them."""
    return [list(decode(message.payload)) for message in messages if message.type == MessageType.COMMAND]
