"""The magic-number frames of TCP (docs/protocol.md, TCP).

One frame is `int16 magic, int32 code, int32 len`, big-endian, then `len` bytes of body. TCP may split and glue frames
anyhow. A length is judged from the header alone, before a single byte of the body is kept.
"""

from __future__ import annotations

import struct
from typing import ClassVar, Final

from qiyu.errors import ProtocolViolation, WsClose
from qiyu.protocol.accelerator import read_packets
from qiyu.protocol.ack_runs import ACK_BODIES
from qiyu.protocol.packet import MAGIC, Buffer, MsgCode, Packet

HEADER: Final = struct.Struct(">hii")
MAGIC_BYTES: Final = MAGIC.to_bytes(2, "big")
NO_LIMIT: Final = 2**31 - 1  # the largest `len` that an int32 can hold

_unpack_header = HEADER.unpack_from
_pack_header = HEADER.pack

ACK: Final = int(MsgCode.ACK)


class TcpWire:
    """A `Wire` of magic-number frames. `max_body_bytes` 0 means no limit."""

    __slots__ = ("_all_bytes", "_max_body_bytes", "_missing", "_unfinished", "error")

    kind: ClassVar[int] = 0
    name: ClassVar[str] = "tcp"
    peer_closed: ClassVar[bool] = False  # the frames have no good-bye of their own
    is_open: ClassVar[bool] = True
    has_output: ClassVar[bool] = False
    frames: ClassVar[int] = 0  # each is a packet

    def __init__(self, max_body_bytes: int, login_bytes: int = 0) -> None:
        """`login_bytes` bounds the first body, until `lift`; 0 where it may be as long as any other."""
        self._all_bytes = max_body_bytes or NO_LIMIT
        self._max_body_bytes = min(self._all_bytes, login_bytes or NO_LIMIT)
        self._unfinished: bytearray | None = None
        self._missing = 0  # how many more bytes the unfinished frame needs before it is worth another look
        self.error: ProtocolViolation | None = None

    def __repr__(self) -> str:
        return f"<TcpWire unfinished={len(self._unfinished or b'')} error={self.error!r}>"

    @property
    def unfinished(self) -> int:
        """See `Wire.unfinished`."""
        return 0 if self._unfinished is None else len(self._unfinished)

    def receive_data(self, data: Buffer, /) -> list[Packet]:
        """See `Wire.receive_data`."""
        if self.error is not None:
            return []
        unfinished = self._unfinished
        if unfinished is not None:
            unfinished += data
            self._missing -= len(data)
            if self._missing > 0:
                return []
            data = unfinished
            self._unfinished = None
        packets: list[Packet] = []
        size = len(data)
        start = 0
        while size - start >= HEADER.size:
            magic, code, length = _unpack_header(data, start)
            body = start + HEADER.size
            is_wrong = magic != MAGIC or not 0 <= length <= self._max_body_bytes
            if is_wrong and not self._may_follow(packets, magic, length):
                self.error = self._header_fault(magic, length)
                return packets
            end = body + length
            if end > size:
                self._keep(data, start, end - size)
                return packets
            if code == ACK and length in ACK_BODIES:
                run = read_packets(data, start, end)
                if run is not None:
                    start, msg_ids = run
                    packets.append(Packet(code, data[body:end], msg_ids))
                    continue
            packets.append(Packet(code, data[body:end]))
            start = end
        if start < size:
            self._keep_header(data, start, size)
        return packets

    def receive_eof(self) -> None:
        """See `Wire.receive_eof`."""
        if self._unfinished is not None and self.error is None:
            self.error = ProtocolViolation("the connection ended within a frame")

    def data_to_send(self) -> bytes:
        """See `Wire.data_to_send`: TCP frames owe nothing of themselves."""
        return b""

    def lift(self) -> None:
        """See `Wire.lift`."""
        self._max_body_bytes = self._all_bytes

    def ping(self) -> bytes:
        """See `Wire.ping`: a client has nothing to answer with."""
        return b""

    def close(self, _ws_close: int, _reason: str, /) -> bytes:
        """See `Wire.close`: there is no good-bye below the LOGOUT packet."""
        return b""

    @staticmethod
    def encode(code: int, body: bytes, /) -> bytes:
        """See `Wire.encode`."""
        return _pack_header(MAGIC, code, len(body)) + body

    @staticmethod
    def splice(code: int, before: bytes, after: bytes, width: int, /) -> tuple[bytes, bytes]:
        """See `Wire.splice`."""
        return _pack_header(MAGIC, code, len(before) + width + len(after)) + before, after

    def _keep(self, data: Buffer, start: int, missing: int) -> None:
        self._unfinished = bytearray(data[start:])
        self._missing = missing

    def _keep_header(self, data: Buffer, start: int, size: int) -> None:
        # Whoever speaks another protocol is told at its first two bytes, not after the login deadline.
        first = bytes(data[start : start + len(MAGIC_BYTES)])
        if len(first) == len(MAGIC_BYTES) and first != MAGIC_BYTES:
            self.error = self._header_fault(int.from_bytes(first, "big", signed=True), 0)
            return
        known = size - start
        self._keep(data, start, (HEADER.size if known >= len(MAGIC_BYTES) else len(MAGIC_BYTES)) - known)

    def _may_follow(self, packets: list[Packet], magic: int, length: int) -> bool:
        # What follows a LOGIN may come with it. Where that is refused, this is thrown away.
        if packets:
            self.lift()
        return magic == MAGIC and 0 <= length <= self._max_body_bytes

    def _header_fault(self, magic: int, length: int) -> ProtocolViolation:
        if magic != MAGIC:
            return ProtocolViolation(f"magic {magic}: expected {MAGIC}", ws_close=WsClose.PROTOCOL_ERROR)
        limit = "2147483647" if self._max_body_bytes == NO_LIMIT else str(self._max_body_bytes)
        return ProtocolViolation(f"len {length}: expected 0 to {limit} bytes", ws_close=WsClose.MESSAGE_TOO_BIG)
