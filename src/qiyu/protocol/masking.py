"""The masks of WebSocket frames (RFC 6455, section 5.3), taken off in Python."""

from __future__ import annotations

from typing import Final

SMALL_BYTES: Final = 512
"""Below this, one XOR of two long integers is faster than four translations."""
REPEAT: Final = [int.from_bytes(b"\0\0\0\1" * -(-length // 4)) for length in range(SMALL_BYTES)]
"""By the length of a payload: a key times this is the key over and over, with a surplus at the end."""

_XOR: Final = [bytes(byte ^ key for byte in range(256)) for key in range(256)]


def unmask(data: bytes, start: int, stop: int) -> bytes:
    """The payload at start:stop; its mask is the four bytes before it."""
    length = stop - start
    if length < SMALL_BYTES:
        key = int.from_bytes(data[start - 4 : start]) * REPEAT[length] >> (-length % 4 * 8)
        return (int.from_bytes(data[start:stop]) ^ key).to_bytes(length)
    payload = bytearray(data[start:stop])
    for i in range(4):
        payload[i::4] = payload[i::4].translate(_XOR[data[start - 4 + i]])
    return bytes(payload)
