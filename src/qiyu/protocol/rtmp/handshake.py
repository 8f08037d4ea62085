"""RTMP's handshake (RTMP 1.0, section 5.2): C0, C1 and C2 from the client, S0, S1 and S2 to it.

C0 and S0 are the version, 3. C1 and S1 are a time, four zero bytes and 1528 bytes of anything; C2 and S2 repeat the
other's. Four zero bytes in S1 tell those clients that could do more (digests, Flash's own) that this one is plain.
What C2 repeats is not compared: nothing hangs on it, and no server that encoders are tried with compares it.
"""

from __future__ import annotations

import secrets
from typing import Final

from qiyu.errors import ProtocolViolation
from qiyu.protocol.packet import Buffer

VERSION: Final = 3
PART_BYTES: Final = 1536

_C1_END: Final = 1 + PART_BYTES
_C2_END: Final = _C1_END + PART_BYTES
_TLS_HANDSHAKE: Final = 0x16
_RTMPE: Final = (6, 8)


class Handshake:
    """The server's side, once. Ask `done`; then `rest` is what came after it."""

    __slots__ = ("_answer", "_received", "done", "error", "rest")

    def __init__(self) -> None:
        self._received = bytearray()
        self._answer = b""
        self.done = False
        self.rest = b""
        """The bytes that followed the handshake in the portion that ended it."""
        self.error: ProtocolViolation | None = None

    def receive_data(self, data: Buffer, /) -> None:
        """Take bytes in any portions, until `done`."""
        if self.done or self.error is not None or not data:
            return
        received = self._received
        before = len(received)
        received += data
        if before == 0 and received[0] != VERSION:
            self.error = ProtocolViolation(_not_rtmp(bytes(received[:4])))
            return
        if before < _C1_END <= len(received):
            self._answer = _answer_to(bytes(received[1:_C1_END]))
        if len(received) >= _C2_END:
            self.done = True
            self.rest = bytes(received[_C2_END:])
            self._received = bytearray()

    def data_to_send(self) -> bytes:
        """Take what is owed to the client: S0, S1 and S2 together, once C1 is there."""
        answer, self._answer = self._answer, b""
        return answer


def _answer_to(c1: bytes) -> bytes:
    s1 = bytes(8) + secrets.token_bytes(PART_BYTES - 8)
    return bytes((VERSION,)) + s1 + c1


def _not_rtmp(first: bytes) -> str:
    if first[0] == _TLS_HANDSHAKE:
        return "this is TLS: connect with rtmp://, or put a proxy that ends TLS in front for rtmps://"
    if first[0] in _RTMPE:
        return "this is RTMPE: connect with rtmp://"
    if first[:3] in (b"GET", b"POS"):
        return "this is HTTP: this port speaks RTMP"
    return f"RTMP version {first[0]}: expected {VERSION}"
