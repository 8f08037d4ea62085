"""What a driver needs of a protocol, and nothing else: bytes in, packets out; packets in, bytes out.

A wire never raises for what a peer sent. It returns the packets that came before the fault, then shows the fault as
its `error` and ignores all further bytes; whoever owns the connection says good-bye (`close`) and closes it.
"""

from __future__ import annotations

from typing import ClassVar, Protocol

from qiyu.errors import ProtocolViolation
from qiyu.protocol.packet import Buffer, Packet


class Wire(Protocol):
    """One connection's codec: state for what has come, none for what goes out but the order to close."""

    kind: ClassVar[int]
    """0, 1, …: packets for many receivers are encoded once for each kind."""
    name: ClassVar[str]
    """`tcp` or `websocket`, for logs and metrics."""

    @property
    def error(self) -> ProtocolViolation | None:
        """Set once the peer broke the protocol; nothing more is read."""
        ...

    @property
    def peer_closed(self) -> bool:
        """The peer said good-bye in the protocol's own terms (a WebSocket close frame); nothing more is read."""
        ...

    @property
    def frames(self) -> int:
        """How many frames the last `receive_data` took that were no packets: control frames, pieces of a message."""
        ...

    @property
    def unfinished(self) -> int:
        """Bytes that are kept of what has not come to its end."""
        ...

    def receive_data(self, data: Buffer, /) -> list[Packet]:
        """Take bytes as they came off the connection, in any portions; return the packets they complete.

        Bodies may be views into `data`: they are valid until the caller reuses its buffer.
        """
        ...

    def receive_eof(self) -> None:
        """The peer will send no more; sets `error` if that leaves a packet unfinished."""
        ...

    @property
    def is_open(self) -> bool:
        """Whether packets may be sent: not before a WebSocket's upgrade, and not after its good-bye."""
        ...

    @property
    def has_output(self) -> bool:
        """Whether the wire owes the peer bytes of its own (a pong, the answer to a close frame)."""
        ...

    def data_to_send(self) -> bytes:
        """Take what the wire owes the peer of itself; empty when it owes nothing."""
        ...

    @staticmethod
    def encode(code: int, body: bytes, /) -> bytes:
        """One packet as bytes; `body` is the UTF-8 JSON of an ImMsgBody."""
        ...

    @staticmethod
    def splice(code: int, before: bytes, after: bytes, width: int, /) -> tuple[bytes, bytes]:
        """One packet for many receivers: the body is `before` + a receiver's id of `width` digits + `after`.

        Returns the bytes before and after the digits. Neither part of the body needs JSON escaping undone: they are
        JSON already, cut between two tokens.
        """
        ...

    def lift(self) -> None:
        """The peer has logged in: bodies may be as long as the settings say, and not only `LOGIN_BYTES`."""
        ...

    def ping(self) -> bytes:
        """The bytes that ask the peer for a sign of life; empty where the protocol has no such question (TCP)."""
        ...

    def close(self, ws_close: int, reason: str, /) -> bytes:
        """The bytes that say good-bye in the protocol's own terms, once; empty where it has none (TCP)."""
        ...
