"""RFC 6455 frames, seen from the server: bytes in, whole messages out, and the frames that the server sends.

They are parsed here and not by a library, because a room is acknowledged frame by frame. What most reads bring is one
small masked text frame: the first branch in `_read` takes it with no object but the message, and lets a subclass take
with it the frames behind it that are alike. Every other frame goes the long way, by the same rules. A header is judged
before its payload is kept.

A reader with nothing unfinished holds no buffer.
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar

from qiyu.errors import ProtocolViolation, WsClose
from qiyu.protocol.accelerator import unmask
from qiyu.protocol.masking import SMALL_BYTES
from qiyu.protocol.packet import Buffer

_FIN: Final = 0x80
_RSV: Final = 0x70
_OPCODE: Final = 0x0F
_CONTINUATION, _TEXT, _BINARY = 0x0, 0x1, 0x2
_CLOSE, _PING, _PONG = 0x8, 0x9, 0xA
_CONTROL: Final = 0x8  # the opcode bit that all control frames have
_MASKED: Final = 0x80
_LENGTH: Final = 0x7F
_LENGTH_16, _LENGTH_64 = 126, 127

FINAL_TEXT: Final = _FIN | _TEXT
"""The first byte of a whole text message."""
FINAL_BINARY: Final = _FIN | _BINARY
"""The first byte of a whole binary message."""
LEAST_LIMIT: Final = SMALL_BYTES
"""No limit on messages may be lower: a frame shorter than this is taken without a look at it."""

_MAX_CONTROL_BYTES: Final = 125
_MAX_REASON_BYTES: Final = _MAX_CONTROL_BYTES - 2

T = TypeVar("T")


class FrameReader(Generic[T]):
    """Reads one client's frames, until it closes. A subclass says what becomes of messages and control frames."""

    __slots__ = (
        "_buffer",  # an unfinished frame, or None
        "_message",  # the unmasked fragments of an unfinished message, or None
        "_wanted",  # how long _buffer must be before it is worth looking at again
        "frames",
        "peer_closed",
    )

    def __init__(self) -> None:
        self._buffer: bytearray | None = None
        self._message: bytearray | None = None
        self._wanted = 0
        self.peer_closed = False
        """A close frame came; what follows it is ignored."""
        self.frames = 0
        """How many frames came that were no whole messages: control frames, and pieces of a message but the last."""

    def _take_message(self, message: bytes | bytearray, found: list[T]) -> None:
        """A whole text message came, which may not be UTF-8: put what it is into `found`."""
        raise NotImplementedError

    def _take_small(self, data: bytes, pos: int, start: int, stop: int, found: list[T]) -> int:  # noqa: ARG002
        """A whole text message below `LEAST_LIMIT` came: its frame at `pos`, its masked payload at start:stop.

        Put it into `found`, and of what follows it what the subclass likes; return where the last of that stops.
        """
        self._take_message(unmask(data, start, stop), found)
        return stop

    def _take_ping(self, payload: bytes) -> None:
        """It came."""
        raise NotImplementedError

    def _take_close(self, payload: bytes) -> None:
        """It came, and is valid."""
        raise NotImplementedError

    @property
    def _longest_message(self) -> int:
        """Bytes, at least `LEAST_LIMIT`."""
        raise NotImplementedError

    @property
    def _is_within_message(self) -> bool:
        return self._buffer is not None or self._message is not None

    def _forget_unfinished(self) -> None:
        self._buffer = self._message = None

    def _read(self, data: Buffer, found: list[T]) -> None:
        """Take bytes as they came, in any portions. Raises `ProtocolViolation`; what came before that is in `found`."""
        if self._buffer is not None:
            self._buffer += data
            if len(self._buffer) < self._wanted:
                return
            data, self._buffer = self._buffer, None
        data = bytes(data)  # a read buffer is used again, so what is kept must be a copy; and slices of bytes are cheap
        take_small = self._take_small
        pos = stop = 0
        end = len(data)
        from_bytes = int.from_bytes
        while end - pos >= 2:
            length = data[pos + 1] - _MASKED
            start = pos + 6
            small = 0 <= length < _LENGTH_16
            if length == _LENGTH_16 and start < end:
                length = from_bytes(data[pos + 2 : pos + 4])
                start = pos + 8
                small = _LENGTH_16 <= length < LEAST_LIMIT
            if small and data[pos] == FINAL_TEXT and self._message is None:
                stop = start + length
                if stop > end:
                    break
                stop = take_small(data, pos, start, stop, found)
            else:
                start, stop = self._measure(data, pos, end)
                if stop > end:
                    break
                self._take_frame(data[pos], unmask(data, start, stop), found)
                if self.peer_closed:
                    return
            pos = stop
        if pos < end:
            self._buffer = bytearray(data[pos:])
            self._wanted = max(stop - pos, 2)

    def _measure(self, data: bytes, pos: int, end: int) -> tuple[int, int]:
        """Judge the frame header at `pos`; return where its payload starts and stops.

        A header cut short stops, beyond `end`, where more of it can be read.
        """
        opcode = data[pos] & _OPCODE
        length = data[pos + 1] & _LENGTH
        self._check_header(data[pos], data[pos + 1])
        start = pos + 6
        if length >= _LENGTH_16:
            start += 2 if length == _LENGTH_16 else 8
            if start - 4 > end:
                return start, start - 4
            length = _long_length(data[pos + 2 : start - 4])
        if not opcode & _CONTROL:
            self._check_size(length)
        return start, start + length

    def _check_header(self, first: int, second: int) -> None:
        opcode = first & _OPCODE
        if first & _RSV:
            raise protocol_error("a reserved bit is set, and no extension was agreed")
        if not second & _MASKED:
            # RFC 6455, section 5.1: the server "MUST close the connection upon receiving a frame that is not
            # masked".
            raise protocol_error("the frame is not masked")
        if opcode & _CONTROL:
            _check_control(opcode, first & _FIN, second & _LENGTH)
        elif opcode > _BINARY:
            raise protocol_error("the opcode is reserved")
        elif opcode == _CONTINUATION and self._message is None:
            raise protocol_error("a continuation with nothing to continue")
        elif opcode != _CONTINUATION and self._message is not None:
            raise protocol_error("a new message within a fragmented one")
        elif opcode == _BINARY:
            raise ProtocolViolation("messages must be text", ws_close=WsClose.UNSUPPORTED_DATA)

    def _check_size(self, length: int) -> None:
        limit = self._longest_message
        if length + len(self._message or b"") > limit:
            raise ProtocolViolation(f"a message is longer than {limit} bytes", ws_close=WsClose.MESSAGE_TOO_BIG)

    def _take_frame(self, first: int, payload: bytes, found: list[T]) -> None:
        if first & _CONTROL:
            self.frames += 1
            self._take_control(first & _OPCODE, payload)
            return
        message = self._message
        if message is not None:
            message += payload
        if not first & _FIN:
            self.frames += 1
            self._message = bytearray(payload) if message is None else message
            return
        self._message = None
        self._take_message(payload if message is None else message, found)

    def _take_control(self, opcode: int, payload: bytes) -> None:
        if opcode == _CLOSE:
            _check_close(payload)
            self.peer_closed = True
            self._message = None
            self._take_close(payload)
        elif opcode == _PING:
            self._take_ping(payload)


def header(first: int, length: int) -> bytes:
    """What stands before the `length` bytes of a server's payload; `first` is FIN and the opcode."""
    if length < _LENGTH_16:
        return bytes((first, length))
    if length < 1 << 16:
        return bytes((first, _LENGTH_16)) + length.to_bytes(2)
    return bytes((first, _LENGTH_64)) + length.to_bytes(8)


def text_message(text: bytes) -> bytes:
    """A message of UTF-8 text, in one frame."""
    return header(FINAL_TEXT, len(text)) + text


def binary_message(data: bytes) -> bytes:
    """A message of bytes, in one frame."""
    return header(FINAL_BINARY, len(data)) + data


def ping() -> bytes:
    """A ping, which the peer is to answer."""
    return _control_frame(_PING, b"")


def pong(payload: bytes | bytearray) -> bytes:
    """The answer to a ping with this payload."""
    return _control_frame(_PONG, payload)


def close(code: int, reason: str) -> bytes:
    """A close frame; a reason that is too long for one is cut."""
    text = reason.encode(errors="replace")[:_MAX_REASON_BYTES].decode(errors="ignore")
    return _control_frame(_CLOSE, code.to_bytes(2) + text.encode())


def close_answer(payload: bytes | bytearray) -> bytes:
    """The answer to a close frame with this payload."""
    # RFC 6455, section 5.5.1: "it typically echos the status code it received".
    return _control_frame(_CLOSE, payload[:2])


def protocol_error(reason: str) -> ProtocolViolation:
    """A peer that breaks the rules of RFC 6455."""
    return ProtocolViolation(reason, ws_close=WsClose.PROTOCOL_ERROR)


def _check_control(opcode: int, fin: int, length: int) -> None:
    if opcode > _PONG:
        raise protocol_error("the opcode is reserved")
    # RFC 6455, section 5.5: all "MUST have a payload length of 125 bytes or less and MUST NOT be fragmented".
    if not fin:
        raise protocol_error("a control frame is fragmented")
    if length > _MAX_CONTROL_BYTES:
        raise protocol_error("a control frame is longer than 125 bytes")


def _long_length(field: bytes) -> int:
    length = int.from_bytes(field)
    # RFC 6455, section 5.2: "the minimal number of bytes MUST be used to encode the length"; and in the longest
    # form "the most significant bit MUST be 0".
    if length < (_LENGTH_16 if len(field) == 2 else 1 << 16):
        raise protocol_error("the length is not in its shortest form")
    if length >> 63:
        raise protocol_error("the top bit of the length is set")
    return length


def _check_close(payload: bytes) -> None:
    if not payload:
        return
    code = int.from_bytes(payload[:2])
    # RFC 6455, section 7.4, and the registry it sets up: what may not be sent, and what nobody has defined.
    if len(payload) == 1 or not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999):
        raise protocol_error("the close frame has no valid code")
    try:
        payload[2:].decode()
    except UnicodeDecodeError:
        raise ProtocolViolation("the close reason is not UTF-8", ws_close=WsClose.INVALID_DATA) from None


def _control_frame(opcode: int, payload: bytes | bytearray) -> bytes:
    return header(_FIN | opcode, len(payload)) + payload
