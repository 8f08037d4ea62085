"""RFC 6455 from the client's side: the upgrade request, text frames out, frames in."""

from __future__ import annotations

from collections.abc import Generator
from typing import Final

from bench.wires import ProtocolFault, Refused

TEXT: Final = 0x81
_CLOSE: Final = 0x88
_LENGTH_16, _LENGTH_64 = 126, 127


def upgrade_request(path: str) -> bytes:
    """The key is the example of RFC 6455, section 1.3: its answer guards caches, and there is none here."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


def upgraded(path: str) -> Generator[bytes, bytes, bytes]:
    """Ask for the upgrade; returns what came after the answer."""
    data = yield upgrade_request(path)
    while (end := data.find(b"\r\n\r\n")) < 0:
        data += yield b""
    if not data.startswith(b"HTTP/1.1 101"):
        raise Refused(data.decode(errors="replace"))
    return data[end + 4 :]


def text_frame(payload: bytes) -> bytes:
    """A masked text message.

    RFC 6455, section 5.3, wants a key that nobody can predict, so that a page cannot write what it likes into the
    caches between. Here is nothing between, and with a key of zero the masked payload is the payload: it costs the
    generator nothing, and the server exactly as much as any other key.
    """
    size = len(payload)
    if size < _LENGTH_16:
        return bytes((TEXT, 0x80 | size)) + bytes(4) + payload
    if size < 1 << 16:
        return bytes((TEXT, 0x80 | _LENGTH_16)) + size.to_bytes(2) + bytes(4) + payload
    return bytes((TEXT, 0x80 | _LENGTH_64)) + size.to_bytes(8) + bytes(4) + payload


def bounds(data: bytes, start: int) -> tuple[int, int] | None:
    """Where the payload of the frame at `start` begins and ends; None before it is all there.

    Raises `ProtocolFault` for anything but a whole text message: no server here sends another, but to say good-bye.
    """
    size = len(data)
    if size - start < 2:
        return None
    if data[start] != TEXT:
        what = f"close frame {data[start + 2 :]!r}" if data[start] == _CLOSE else f"frame {data[start : start + 40]!r}"
        raise ProtocolFault(what)
    length = data[start + 1]
    body = start + 2
    if length >= _LENGTH_16:
        body += 2 if length == _LENGTH_16 else 8
        if body > size:
            return None
        length = int.from_bytes(data[start + 2 : body])
    return (body, body + length) if body + length <= size else None
