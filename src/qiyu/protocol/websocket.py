"""A WebSocket connection seen from the server: the upgrade, then frames (frames.py) with envelopes (envelope.py)."""

from __future__ import annotations

from typing import ClassVar

from qiyu.errors import ProtocolViolation
from qiyu.protocol import envelope
from qiyu.protocol.accelerator import read_frames
from qiyu.protocol.envelope import decode
from qiyu.protocol.frames import (
    FINAL_TEXT,
    LEAST_LIMIT,
    FrameReader,
    close,
    close_answer,
    header,
    ping,
    pong,
    protocol_error,
)
from qiyu.protocol.handshake import Handshake, UpgradeRequest
from qiyu.protocol.packet import Buffer, MsgCode, Packet

_CONNECTING, _OPEN, _DONE = range(3)


class WebSocketWire(FrameReader[Packet]):
    """The Wire of one WebSocket client (wire.py has the contract).

    The complete upgrade request is reported once, as a WS_HANDSHAKE packet; `upgrade` then holds it until
    `accept` or `reject`.
    """

    __slots__ = (
        "_all_bytes",
        "_handshake",  # until the upgrade is answered
        "_max_body",
        "_out",  # what we owe the peer, or None
        "_sending",  # frames may go out: from the upgrade to our close frame
        "_state",
        "error",
    )

    kind: ClassVar[int] = 1
    name: ClassVar[str] = "websocket"

    def __init__(self, max_body_bytes: int, login_bytes: int = 0) -> None:
        """`login_bytes` bounds the first body, until `lift`; 0 where it may be as long as any other."""
        super().__init__()
        self._all_bytes = max_body_bytes or envelope.NO_LIMIT
        self._max_body = min(self._all_bytes, login_bytes or envelope.NO_LIMIT)
        self._state = _CONNECTING
        self._handshake: Handshake | None = Handshake()
        self._out: bytes | None = None
        self._sending = False
        self.error: ProtocolViolation | None = None

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

    @property
    def unfinished(self) -> int:
        if self._handshake is not None:
            return self._handshake.unfinished
        size = 0 if self._buffer is None else len(self._buffer)
        return size if self._message is None else size + len(self._message)

    def receive_data(self, data: Buffer, /) -> list[Packet]:
        self.frames = 0
        if self._state != _OPEN:
            return self._receive_request(data)
        packets: list[Packet] = []
        try:
            self._read(data, packets)
        except ProtocolViolation as fault:
            self._fail(fault)
        return packets

    def receive_eof(self) -> None:
        if self._state == _DONE:
            return
        if self._handshake is not None:
            if self._handshake.started:
                self._fail(ProtocolViolation("the connection ended within the handshake"))
        elif self._is_within_message:
            self._fail(protocol_error("the connection ended within a message"))

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
        text = envelope.encode(code, body)
        return header(FINAL_TEXT, len(text)) + text

    @staticmethod
    def splice(code: int, before: bytes, after: bytes, width: int, /) -> tuple[bytes, bytes]:
        head, tail = envelope.splice(code, before, after, width)
        return header(FINAL_TEXT, len(head) + width + len(tail)) + head, tail

    def lift(self) -> None:
        self._max_body = self._all_bytes

    def ping(self) -> bytes:
        return ping() if self._sending else b""

    def close(self, ws_close: int, reason: str, /) -> bytes:
        if not self._sending:
            return b""
        self._sending = False
        return close(ws_close, reason)

    def _receive_request(self, data: Buffer) -> list[Packet]:
        if self._handshake is None:
            return []
        request = self._handshake.receive_data(data)
        if self._handshake.error is not None:
            self._out = self._handshake.answer
            self._fail(self._handshake.error)
            self._handshake = None
        return [] if request is None else [Packet(MsgCode.WS_HANDSHAKE, b"")]

    def _take_message(self, message: bytes | bytearray, found: list[Packet]) -> None:
        found.append(decode(message, self._max_body))
        self._max_body = self._all_bytes  # what follows a LOGIN may come with it

    def _take_small(self, data: bytes, pos: int, start: int, stop: int, found: list[Packet]) -> int:
        if self._max_body < LEAST_LIMIT:  # then even the body of an ACK may be too long
            return super()._take_small(data, pos, start, stop, found)
        stop, taken = read_frames(data, pos, start, stop)
        if isinstance(taken, bytes):
            found.append(decode(taken, self._max_body))
            self._max_body = self._all_bytes  # as above
        elif found and (acks := found[-1].acks) is not None:
            acks += taken
        else:
            found.append(Packet(MsgCode.ACK, b'{"msgId":"%b"}' % taken[0].encode(), taken))
        return stop

    @property
    def _longest_message(self) -> int:
        return envelope.longest_message(self._max_body)

    def _take_ping(self, payload: bytes) -> None:
        if self._sending:
            # RFC 6455, section 5.5.3: an endpoint "MAY elect to send a Pong frame for only the most recently
            # processed Ping frame". So a flood of pings costs one pong.
            self._out = pong(payload)

    def _take_close(self, payload: bytes) -> None:
        self._state = _DONE
        if self._sending:
            # Packets that came before the close frame are still answered: nothing is sent after this, but before it is
            # taken.
            self._out = (self._out or b"") + close_answer(payload)

    def _fail(self, fault: ProtocolViolation) -> None:
        # Without the traceback and the context, which would keep the bytes of this read.
        fault.__context__ = None
        self.error = fault.with_traceback(None)
        self._state = _DONE
        self._forget_unfinished()
