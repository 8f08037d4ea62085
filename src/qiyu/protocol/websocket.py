"""A WebSocket connection seen from the server: the upgrade, RFC 6455 frames, the JSON envelope in a message.

The frames are parsed here and not by a library, because a room is acknowledged frame by frame. What most reads
bring is one small masked text frame: the first branch in `_take_frames` takes it with no object but the packet.
Every other frame goes the long way, by the same rules. A header is judged before its payload is kept.

A connection with nothing unfinished holds no buffer.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

import msgspec

from qiyu.errors import ProtocolViolation, WsClose
from qiyu.protocol.handshake import Handshake, UpgradeRequest
from qiyu.protocol.packet import MAGIC, MSG_ID_DIGITS, Buffer, MsgCode, Packet

_FIN: Final = 0x80
_RSV: Final = 0x70
_OPCODE: Final = 0x0F
_CONTINUATION, _TEXT, _BINARY = 0x0, 0x1, 0x2
_CLOSE, _PING, _PONG = 0x8, 0x9, 0xA
_CONTROL: Final = 0x8  # the opcode bit that all control frames have
_MASKED: Final = 0x80
_LENGTH: Final = 0x7F
_LENGTH_16, _LENGTH_64 = 126, 127
_FINAL_TEXT: Final = _FIN | _TEXT

_MAX_CONTROL_BYTES: Final = 125
_MAX_REASON_BYTES: Final = _MAX_CONTROL_BYTES - 2
_NO_LIMIT: Final = 1 << 60

_CONNECTING, _OPEN, _DONE = range(3)

_XOR: Final = [bytes(byte ^ key for byte in range(256)) for key in range(256)]
# Below this, one XOR of two long integers is faster than four translations; and no message limit is lower.
_SMALL_BYTES: Final = 512
_MASK_REPEATS: Final = _SMALL_BYTES // 4


# Most of what a busy server reads is ACKs, and most of them look like this (as in protocol/tcp.py).
_ACK_HEAD: Final = b'{"magic":%d,"code":%d,"len":%d,"body":"{\\"msgId\\":\\"' % (MAGIC, MsgCode.ACK, 12 + MSG_ID_DIGITS)
_ACK_TAIL: Final = b'\\"}"}'
_ACK_DIGITS: Final = slice(len(_ACK_HEAD), len(_ACK_HEAD) + MSG_ID_DIGITS)
_ACK_LENGTH: Final = len(_ACK_HEAD) + MSG_ID_DIGITS + len(_ACK_TAIL)


class Envelope(msgspec.Struct, gc=False):
    """What a text message holds. A client's `len` is not read: JavaScript counts UTF-16 units."""

    magic: int
    code: Annotated[int, msgspec.Meta(ge=-(2**31), lt=2**31)]
    body: str


_decode_envelope: Final = msgspec.json.Decoder(Envelope).decode
_escape: Final = msgspec.json.Encoder().encode


class WebSocketWire:
    """The Wire of one WebSocket client (wire.py has the contract).

    The complete upgrade request is reported once, as a WS_HANDSHAKE packet; `upgrade` then holds it until
    `accept` or `reject`.
    """

    __slots__ = (
        "_buffer",  # an unfinished frame, or None
        "_handshake",  # until the upgrade is answered
        "_max_body",
        "_message",  # the unmasked fragments of an unfinished message, or None
        "_out",  # what we owe the peer, or None
        "_sending",  # frames may go out: from the upgrade to our close frame
        "_state",
        "_wanted",  # how long _buffer must be before it is worth looking at again
        "error",
        "peer_closed",
    )

    kind: ClassVar[int] = 1
    name: ClassVar[str] = "websocket"

    def __init__(self, max_body_bytes: int) -> None:
        self._max_body = max_body_bytes or _NO_LIMIT
        self._state = _CONNECTING
        self._handshake: Handshake | None = Handshake()
        self._buffer: bytearray | None = None
        self._wanted = 0
        self._message: bytearray | None = None
        self._out: bytes | None = None
        self._sending = False
        self.error: ProtocolViolation | None = None
        self.peer_closed = False

    def __repr__(self) -> str:
        state = ("connecting", "open", "done")[self._state]
        buffered = len(self._buffer or b"") + len(self._message or b"")
        return f"<WebSocketWire {state} buffered={buffered} peer_closed={self.peer_closed} error={self.error!r}>"

    @property
    def upgrade(self) -> UpgradeRequest | None:
        """The request to `accept` or `reject`; None before it is complete and after the answer."""
        return None if self._handshake is None else self._handshake.request

    def accept(self) -> bytes:
        """The response that upgrades the connection; empty if the handshake failed meanwhile."""
        if self._handshake is None:
            return b""
        response = self._handshake.accept()
        self._handshake = None
        self._state = _OPEN
        self._sending = True
        return response

    def reject(self, status: int, reason: str) -> bytes:
        """The HTTP response that refuses the upgrade; empty if the handshake failed meanwhile."""
        if self._handshake is None:
            return b""
        response = self._handshake.reject(status, reason)
        self._handshake = None
        self._state = _DONE
        return response

    def receive_data(self, data: Buffer, /) -> list[Packet]:
        if self._state != _OPEN:
            return self._receive_request(data)
        if self._buffer is not None:
            self._buffer += data
            if len(self._buffer) < self._wanted:
                return []
            data, self._buffer = self._buffer, None
        packets: list[Packet] = []
        try:
            # A read buffer is used again, so what is kept must be a copy; and slices of bytes are the cheapest.
            self._take_frames(bytes(data), packets)
        except ProtocolViolation as fault:
            self._fail(fault)
        return packets

    def receive_eof(self) -> None:
        if self._state == _DONE:
            return
        if self._handshake is not None:
            if self._handshake.started:
                self._fail(ProtocolViolation("the connection ended within the handshake"))
        elif self._buffer is not None or self._message is not None:
            self._fail(_protocol_error("the connection ended within a message"))

    @property
    def is_open(self) -> bool:
        return self._sending

    @property
    def has_output(self) -> bool:
        return self._out is not None

    def data_to_send(self) -> bytes:
        out, self._out = self._out, None
        if self.peer_closed:
            self._sending = False  # what is owed ends with the answer to the close frame
        return out or b""

    @staticmethod
    def encode(code: int, body: bytes, /) -> bytes:
        text = b'{"magic":%d,"code":%d,"len":%d,"body":%b}' % (MAGIC, code, len(body), _escape(body.decode()))
        return _header(_FINAL_TEXT, len(text)) + text

    @staticmethod
    def splice(code: int, before: bytes, after: bytes, width: int, /) -> tuple[bytes, bytes]:
        length = len(before) + width + len(after)
        # No closing quote here and no opening one there: with the digits between, it is one JSON string.
        head = b'{"magic":%d,"code":%d,"len":%d,"body":%b' % (
            MAGIC,
            code,
            length,
            _escape(before.decode())[:-1],
        )
        tail = _escape(after.decode())[1:] + b"}"
        return _header(_FINAL_TEXT, len(head) + width + len(tail)) + head, tail

    def close(self, ws_close: int, reason: str, /) -> bytes:
        if not self._sending:
            return b""
        self._sending = False
        text = reason.encode(errors="replace")[:_MAX_REASON_BYTES].decode(errors="ignore")
        return _control_frame(_CLOSE, ws_close.to_bytes(2) + text.encode())

    def _receive_request(self, data: Buffer) -> list[Packet]:
        if self._handshake is None:
            return []
        request = self._handshake.receive_data(data)
        if self._handshake.error is not None:
            self._out = self._handshake.answer
            self._fail(self._handshake.error)
            self._handshake = None
        return [] if request is None else [Packet(MsgCode.WS_HANDSHAKE, b"")]

    def _take_frames(self, data: bytes, packets: list[Packet]) -> None:
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
                small = _LENGTH_16 <= length < _SMALL_BYTES
            if small and data[pos] == _FINAL_TEXT and self._message is None:
                stop = start + length
                if stop > end:
                    break
                key = from_bytes((data[start - 4 : start] * _MASK_REPEATS)[:length])
                message = (from_bytes(data[start:stop]) ^ key).to_bytes(length)
                if length == _ACK_LENGTH and _is_ack(message):
                    _add_ack(message, packets)
                else:
                    packets.append(_packet(message, self._max_body))
            else:
                start, stop = self._measure(data, pos, end)
                if stop > end:
                    break
                self._take_frame(data[pos], _unmask(data, start, stop), packets)
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
            raise _protocol_error("a reserved bit is set, and no extension was agreed")
        if not second & _MASKED:
            # RFC 6455, section 5.1: the server "MUST close the connection upon receiving a frame that is not
            # masked".
            raise _protocol_error("the frame is not masked")
        if opcode & _CONTROL:
            _check_control(opcode, first & _FIN, second & _LENGTH)
        elif opcode > _BINARY:
            raise _protocol_error("the opcode is reserved")
        elif opcode == _CONTINUATION and self._message is None:
            raise _protocol_error("a continuation with nothing to continue")
        elif opcode != _CONTINUATION and self._message is not None:
            raise _protocol_error("a new message within a fragmented one")
        elif opcode == _BINARY:
            raise ProtocolViolation("messages must be text", ws_close=WsClose.UNSUPPORTED_DATA)

    def _check_size(self, length: int) -> None:
        limit = 2 * self._max_body + 1024  # JSON escapes may double a body; the rest is for the envelope
        if length + len(self._message or b"") > limit:
            raise ProtocolViolation(f"a message is longer than {limit} bytes", ws_close=WsClose.MESSAGE_TOO_BIG)

    def _take_frame(self, first: int, payload: bytearray, packets: list[Packet]) -> None:
        if first & _CONTROL:
            self._take_control(first & _OPCODE, payload)
            return
        if self._message is not None:
            self._message += payload
            payload = self._message
        if first & _FIN:
            self._message = None
            packets.append(_packet(payload, self._max_body))
        elif self._message is None:
            self._message = payload

    def _take_control(self, opcode: int, payload: bytearray) -> None:
        if opcode == _CLOSE:
            self._take_close(payload)
        elif opcode == _PING and self._sending:
            # RFC 6455, section 5.5.3: an endpoint "MAY elect to send a Pong frame for only the most recently
            # processed Ping frame". So a flood of pings costs one pong.
            self._out = _control_frame(_PONG, payload)

    def _take_close(self, payload: bytearray) -> None:
        _check_close(payload)
        self.peer_closed = True
        self._state = _DONE
        self._message = None
        if self._sending:
            # RFC 6455, section 5.5.1: "it typically echos the status code it received". Packets that came before the
            # close frame are still answered: nothing is sent after this, but before it is taken.
            self._out = (self._out or b"") + _control_frame(_CLOSE, payload[:2])

    def _fail(self, fault: ProtocolViolation) -> None:
        # Without the traceback and the context, which would keep the bytes of this read.
        fault.__context__ = None
        self.error = fault.with_traceback(None)
        self._state = _DONE
        self._buffer = self._message = None


def _protocol_error(reason: str) -> ProtocolViolation:
    return ProtocolViolation(reason, ws_close=WsClose.PROTOCOL_ERROR)


def _check_control(opcode: int, fin: int, length: int) -> None:
    if opcode > _PONG:
        raise _protocol_error("the opcode is reserved")
    # RFC 6455, section 5.5: all "MUST have a payload length of 125 bytes or less and MUST NOT be fragmented".
    if not fin:
        raise _protocol_error("a control frame is fragmented")
    if length > _MAX_CONTROL_BYTES:
        raise _protocol_error("a control frame is longer than 125 bytes")


def _long_length(field: bytes) -> int:
    length = int.from_bytes(field)
    # RFC 6455, section 5.2: "the minimal number of bytes MUST be used to encode the length"; and in the longest
    # form "the most significant bit MUST be 0".
    if length < (_LENGTH_16 if len(field) == 2 else 1 << 16):
        raise _protocol_error("the length is not in its shortest form")
    if length >> 63:
        raise _protocol_error("the top bit of the length is set")
    return length


def _check_close(payload: bytearray) -> None:
    if not payload:
        return
    code = int.from_bytes(payload[:2])
    # RFC 6455, section 7.4, and the registry it sets up: what may not be sent, and what nobody has defined.
    if len(payload) == 1 or not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999):
        raise _protocol_error("the close frame has no valid code")
    try:
        payload[2:].decode()
    except UnicodeDecodeError:
        raise ProtocolViolation("the close reason is not UTF-8", ws_close=WsClose.INVALID_DATA) from None


def _unmask(data: bytes, start: int, stop: int) -> bytearray:
    """The payload at start:stop; its mask is the four bytes before it (RFC 6455, section 5.3)."""
    payload = bytearray(data[start:stop])
    for i in range(4):
        payload[i::4] = payload[i::4].translate(_XOR[data[start - 4 + i]])
    return payload


def _is_ack(message: bytes) -> bool:
    """Whether it is an ACK just as the shortest form has it; whatever differs in any way takes the common road."""
    return message.startswith(_ACK_HEAD) and message.endswith(_ACK_TAIL) and message[_ACK_DIGITS].isdigit()


def _add_ack(message: bytes, packets: list[Packet]) -> None:
    msg_id = message[_ACK_DIGITS].decode()
    if packets and packets[-1].acks is not None:
        packets[-1].acks.append(msg_id)
    else:
        packets.append(Packet(MsgCode.ACK, b'{"msgId":"%b"}' % message[_ACK_DIGITS], [msg_id]))


def _packet(message: bytes | bytearray, max_body: int) -> Packet:
    try:
        envelope = _decode_envelope(message.decode())
    except UnicodeDecodeError:
        raise ProtocolViolation("a message is not UTF-8", ws_close=WsClose.INVALID_DATA) from None
    except msgspec.DecodeError as error:  # its text names the field and the type, and repeats no value
        raise ProtocolViolation(f"a message is not a packet: {error}") from None
    except RecursionError:
        raise ProtocolViolation("a message is nested too deep") from None
    if envelope.magic != MAGIC:
        raise ProtocolViolation(f"magic is not {MAGIC}")
    body = envelope.body.encode()
    if len(body) > max_body:
        raise ProtocolViolation(f"a body is longer than {max_body} bytes", ws_close=WsClose.MESSAGE_TOO_BIG)
    return Packet(envelope.code, body)


def _header(first: int, length: int) -> bytes:
    if length < _LENGTH_16:
        return bytes((first, length))
    if length < 1 << 16:
        return bytes((first, _LENGTH_16)) + length.to_bytes(2)
    return bytes((first, _LENGTH_64)) + length.to_bytes(8)


def _control_frame(opcode: int, payload: bytes | bytearray) -> bytes:
    return _header(_FIN | opcode, len(payload)) + payload
