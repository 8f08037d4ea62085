"""The JSON around a packet in a WebSocket message, `{"magic","code","len","body"}`: for servers and clients alike."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from qiyu.errors import ProtocolViolation, WsClose
from qiyu.protocol.numbers import decode_digits, json_fault, numbers_of
from qiyu.protocol.packet import MAGIC, Packet

NO_LIMIT: Final = 1 << 60


class Envelope(msgspec.Struct, gc=False):
    """What a text message holds. Its `len` is not read: JavaScript counts UTF-16 units."""

    magic: int
    code: Annotated[int, msgspec.Meta(ge=-(2**31), lt=2**31)]
    body: str


_NUMBERS: Final = numbers_of(Envelope)
_decode_envelope: Final = msgspec.json.Decoder(Envelope).decode
_escape: Final = msgspec.json.Encoder().encode


def encode(code: int, body: bytes) -> bytes:
    """The message that holds a packet."""
    return b'{"magic":%d,"code":%d,"len":%d,"body":%b}' % (MAGIC, code, len(body), _escape(body.decode()))


def splice(code: int, before: bytes, after: bytes, width: int) -> tuple[bytes, bytes]:
    """See `Wire.splice`: the message's bytes before and after the digits."""
    length = len(before) + width + len(after)
    # No closing quote here and no opening one there: with the digits between, it is one JSON string.
    head = b'{"magic":%d,"code":%d,"len":%d,"body":%b' % (MAGIC, code, length, _escape(before.decode())[:-1])
    return head, _escape(after.decode())[1:] + b"}"


def longest_message(max_body: int) -> int:
    """The most bytes that a message may have whose body may have `max_body`."""
    return 2 * max_body + 1024  # JSON escapes may double a body; the rest is for the envelope


def decode(message: bytes | bytearray, max_body: int) -> Packet:
    """The packet in a message. Raises `ProtocolViolation` where there is none."""
    try:
        text = message.decode()
    except UnicodeDecodeError:
        raise ProtocolViolation("a message is not UTF-8", ws_close=WsClose.INVALID_DATA) from None
    try:
        try:
            envelope = _decode_envelope(text)
        except msgspec.ValidationError:
            envelope = decode_digits(text, Envelope, _NUMBERS)
    except msgspec.ValidationError as error:  # its text names the field and the type, and repeats no value
        raise ProtocolViolation(f"a message is not a packet: {error}") from None
    except msgspec.DecodeError as error:
        raise ProtocolViolation(f"a message is not a packet: {json_fault(text, error)}") from None
    except RecursionError:
        raise ProtocolViolation("a message is nested too deep") from None
    if envelope.magic != MAGIC:
        raise ProtocolViolation(f"magic is not {MAGIC}")
    body = envelope.body.encode()
    if len(body) > max_body:
        raise ProtocolViolation(f"a body is longer than {max_body} bytes", ws_close=WsClose.MESSAGE_TOO_BIG)
    return Packet(envelope.code, body)
