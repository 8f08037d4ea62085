"""RTMP as a driver and a dispatcher take it: a `Wire` whose packets are what an encoder asks for and sends."""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar, Final

from qiyu.errors import ProtocolViolation
from qiyu.protocol.packet import Buffer, Packet
from qiyu.protocol.rtmp.connection import Event, Media, Publish, RtmpConnection
from qiyu.protocol.rtmp.messages import RtmpLimits

TIMESTAMP_BYTES: Final = 4


class RtmpCode(IntEnum):
    """The codes of its packets."""

    PUBLISH = 1
    """The body is the name."""
    UNPUBLISH = 2
    AUDIO = 8
    VIDEO = 9
    DATA = 18
    """Of all three, the body is a timestamp (four bytes, big-endian), then that of an FLV tag."""


class RtmpWire:
    """See `Wire`. Nothing is sent by packet: there is `accept`, and the reason for which it is closed."""

    __slots__ = ("_connection", "_is_closed")

    kind: ClassVar[int] = 2
    name: ClassVar[str] = "rtmp"
    peer_closed: ClassVar[bool] = False  # an encoder unpublishes, and closes the connection
    is_open: ClassVar[bool] = False
    frames: ClassVar[int] = 0  # chunks are as large as an encoder likes; its bytes say enough

    def __init__(self, limits: RtmpLimits) -> None:
        self._connection = RtmpConnection(limits)
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<RtmpWire {self._connection!r}>"

    @property
    def error(self) -> ProtocolViolation | None:
        """As of `Wire`; none once the peer has been told to go, whatever it sends then."""
        return None if self._is_closed else self._connection.error

    @property
    def unfinished(self) -> int:
        return self._connection.unfinished

    def receive_data(self, data: Buffer, /) -> list[Packet]:
        return [_packet(event) for event in self._connection.receive_data(data)]

    def receive_eof(self) -> None:
        self._connection.receive_eof()

    @property
    def has_output(self) -> bool:
        return self._connection.has_output

    def data_to_send(self) -> bytes:
        return self._connection.data_to_send()

    def accept(self) -> bytes:
        """The bytes that let the push begin that was asked for."""
        self._connection.accept()
        return self._connection.data_to_send()

    def lift(self) -> None:
        pass

    def ping(self) -> bytes:
        return b""

    def close(self, _ws_close: int, reason: str, /) -> bytes:
        """The bytes that tell the encoder why, where there is a reason."""
        self._is_closed = True
        if reason:
            self._connection.end(reason)
        return self._connection.data_to_send()

    @staticmethod
    def encode(code: int, body: bytes, /) -> bytes:
        raise NotImplementedError(f"no packet goes to an encoder ({code}, {len(body)} bytes)")

    @staticmethod
    def splice(code: int, before: bytes, after: bytes, width: int, /) -> tuple[bytes, bytes]:
        raise NotImplementedError(f"no packet goes to encoders ({code}, {len(before) + width + len(after)} bytes)")


def _packet(event: Event) -> Packet:
    if isinstance(event, Media):
        return Packet(event.type, event.timestamp.to_bytes(TIMESTAMP_BYTES, "big") + event.payload)
    if isinstance(event, Publish):
        return Packet(RtmpCode.PUBLISH, event.name.encode())
    return Packet(RtmpCode.UNPUBLISH, b"")
