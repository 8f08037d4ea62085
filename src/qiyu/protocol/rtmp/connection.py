"""One encoder's connection: bytes in, what it asks for and what it sends out; answers in, bytes out.

The way of a push: handshake → `connect` (the application) → `createStream` → `publish` (the name, which carries the
key) → this returns `Publish`, and whoever owns the connection calls `accept` or `end` → `Media` → `Unpublish`, or
the connection's end. Around it what encoders also call and want answered: releaseStream, FCPublish, _checkbw and the
like, pings, acknowledgements.

As with any wire, nothing that a peer sends raises: a fault is shown as `error`, after the events that came before it,
and the peer is told (ffmpeg prints the reason as "Server error"). Nothing further is read then.

Media is returned as soon as a stream was asked to be published, accepted or not: who decides keeps it or not.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

import msgspec

from qiyu.errors import ProtocolViolation
from qiyu.protocol.packet import Buffer
from qiyu.protocol.rtmp import commands
from qiyu.protocol.rtmp.chunks import CONTROL_STREAM, ChunkReader, encode_message
from qiyu.protocol.rtmp.commands import Command, read_command
from qiyu.protocol.rtmp.handshake import Handshake
from qiyu.protocol.rtmp.messages import DEFAULT_CHUNK_BYTES, Message, MessageType, RtmpLimits, UserControl

WINDOW_BYTES: Final = 2_500_000
"""How much either side may send before it is acknowledged; nobody we know waits for it."""
CHUNK_BYTES: Final = 4096

_COMMANDS: Final = 3  # chunk streams, as servers use them
_STATUS: Final = 5
_DYNAMIC: Final = 2  # the limit type of Set Peer Bandwidth
_AGGREGATE_HEADER: Final = 11
_AGGREGATE_TRAILER: Final = 4
_MAX_QUOTED: Final = 64


class Publish(msgspec.Struct):
    """The peer asks to publish `name` (which holds its key, so no repr shows it) in the application `app`."""

    app: str
    name: str

    def __repr__(self) -> str:
        return f"Publish(app={self.app!r})"


class Media(msgspec.Struct, gc=False):
    """The body of an FLV tag: `type` is AUDIO, VIDEO or DATA, `timestamp` in milliseconds (mod 2**32)."""

    type: int
    timestamp: int
    payload: bytes


class Unpublish(msgspec.Struct):
    """The peer has ended its push, and said so."""


Event: TypeAlias = "Publish | Media | Unpublish"


class RtmpConnection:
    """The server's side of one connection. `app` is the only application there is."""

    name: Final = "rtmp"

    def __init__(self, limits: RtmpLimits, app: str = "live") -> None:
        self._limits = limits
        self._app = app
        self._handshake: Handshake | None = Handshake()
        self._chunks = ChunkReader(limits)
        self._out: list[bytes] = []
        self._chunk_bytes = DEFAULT_CHUNK_BYTES
        self._window = 0
        self._acknowledged = 0
        self._connected = False
        self._streams = 0  # ids given out, from 1
        self._publishing = 0  # the stream that is, or wants to be; 0 for none
        self._accepted = False
        self._closed = False
        self.error: ProtocolViolation | None = None
        """Set once the peer broke the protocol; nothing more is read, and the peer has been told."""
        self._calls: dict[str, Callable[[Command], Event | None]] = {
            "connect": self._connect,
            "createStream": self._create_stream,
            "publish": self._publish,
            "FCUnpublish": self._end_push,
            "closeStream": self._end_push,
            "deleteStream": self._end_push,
            "play": self._play,
            "play2": self._play,
            "releaseStream": self._agree,
            "FCPublish": self._agree,
            "FCSubscribe": self._agree,
            "getStreamLength": self._agree,
            "_checkbw": self._agree,
        }

    def __repr__(self) -> str:
        state = "handshake" if self._handshake else "connected" if self._connected else "open"
        if self._publishing:
            state = "publishing" if self._accepted else "asking to publish"
        return f"<RtmpConnection {'closed' if self._closed else state} error={self.error!r}>"

    @property
    def has_output(self) -> bool:
        """Whether bytes are owed to the peer."""
        return bool(self._out)

    def data_to_send(self) -> bytes:
        """Take the bytes owed to the peer."""
        out, self._out = self._out, []
        return b"".join(out)

    @property
    def unfinished(self) -> int:
        """See `Wire.unfinished`; the handshake's three kilobytes are not in it."""
        return self._chunks.kept

    def receive_data(self, data: Buffer, /) -> list[Event]:
        """Take bytes as they came, in any portions; return what they ask for and bring."""
        events: list[Event] = []
        if self._closed:
            return events
        try:
            self._receive(data, events)
        except ProtocolViolation as fault:
            self.error = fault.with_traceback(None)
            self.end(fault.reason)
        return events

    def receive_eof(self) -> None:
        """The peer will send no more; sets `error` where that cuts off what it had begun."""
        if self._closed:
            return
        handshake = self._handshake
        if handshake is not None or not self._chunks.is_between_messages:
            what = "the handshake" if handshake else "a message"
            self.error = ProtocolViolation(f"the connection ended within {what}")
        self._closed = True

    def accept(self) -> None:
        """The push that was asked for may begin; nothing where it was ended meanwhile."""
        if self._closed or not self._publishing or self._accepted:
            return
        self._control(UserControl.STREAM_BEGIN, self._publishing.to_bytes(4, "big"))
        self._status(commands.on_status(commands.PUBLISH_START, "The push has begun."))
        self._accepted = True

    def end(self, reason: str) -> None:
        """Refuse what was asked for, or end what there is; the peer is told why, and nothing more is read."""
        if not self._closed and self._handshake is None:
            is_asking = self._publishing and not self._accepted
            code = commands.PUBLISH_BAD_NAME if is_asking else commands.STREAM_FAILED
            self._status(commands.on_status(code, reason, level="error"))
        self._closed = True

    def _receive(self, data: Buffer, events: list[Event]) -> None:
        handshake = self._handshake
        if handshake is not None:
            handshake.receive_data(data)
            if handshake.error is not None:
                raise handshake.error
            answer = handshake.data_to_send()
            if answer:
                self._out.append(answer)
            if not handshake.done:
                return
            self._handshake = None
            data = handshake.rest
        for message in self._chunks.receive_data(data):
            self._handle(message, events)
            if self._closed:
                return
        if self._chunks.error is not None:
            raise self._chunks.error
        self._acknowledge()

    def _acknowledge(self) -> None:
        # What is acknowledged is all that was received so far (section 5.4.3), in 32 bits.
        received = self._chunks.received
        if self._window and received - self._acknowledged >= self._window:
            self._acknowledged = received
            self._protocol(MessageType.ACKNOWLEDGEMENT, (received & 0xFFFFFFFF).to_bytes(4, "big"))

    def _handle(self, message: Message, events: list[Event]) -> None:
        match message.type:
            case MessageType.AUDIO | MessageType.VIDEO:
                self._media(message, events)
            case MessageType.COMMAND | MessageType.COMMAND_AMF3:
                event = self._call(read_command(message))
                if event is not None:
                    events.append(event)
            case MessageType.DATA:
                self._media(message, events)
            case MessageType.DATA_AMF3:
                self._media(
                    Message(MessageType.DATA, message.stream_id, message.timestamp, message.payload[1:]), events
                )
            case MessageType.AGGREGATE:
                for part in _parts(message):
                    self._media(part, events)
            case MessageType.WINDOW_ACKNOWLEDGEMENT_SIZE:
                self._window = int.from_bytes(message.payload, "big")
            case MessageType.USER_CONTROL:
                self._user_control(message.payload)
            # Of what is left (acknowledgements, bandwidth, shared objects, what later versions add) nothing follows.

    def _media(self, message: Message, events: list[Event]) -> None:
        # What comes for a stream whose push was ended is what was under way then.
        if message.stream_id == self._publishing and self._publishing:
            events.append(Media(message.type, message.timestamp, message.payload))

    def _user_control(self, payload: bytes) -> None:
        if int.from_bytes(payload[:2], "big") == UserControl.PING_REQUEST:
            self._control(UserControl.PING_RESPONSE, payload[2:6])

    def _call(self, command: Command) -> Event | None:
        if not self._connected and command.name != "connect":
            raise ProtocolViolation(f"{_quoted(command.name)} came first: expected connect")
        call = self._calls.get(command.name)
        if call is not None:
            return call(command)
        if command.transaction:
            self._answer(commands.error(command.transaction, commands.CALL_FAILED, "There is no such call here."))
        return None

    def _connect(self, command: Command) -> None:
        if self._connected:
            raise ProtocolViolation("connect came twice")
        app = command.properties.get("app")
        wanted = app.partition("?")[0].strip("/") if isinstance(app, str) else ""
        if wanted != self._app:
            # The key may have slipped into it, so only its first part is repeated.
            reason = (
                f"application {_quoted(wanted.partition('/')[0])}: expected {self._app}, as in rtmp://host/{self._app}"
            )
            self._answer(commands.error(command.transaction, commands.CONNECT_REJECTED, reason))
            self._closed = True
            self.error = ProtocolViolation(reason)
            return
        self._connected = True
        self._protocol(MessageType.WINDOW_ACKNOWLEDGEMENT_SIZE, WINDOW_BYTES.to_bytes(4, "big"))
        self._protocol(MessageType.SET_PEER_BANDWIDTH, WINDOW_BYTES.to_bytes(4, "big") + bytes((_DYNAMIC,)))
        self._protocol(MessageType.SET_CHUNK_SIZE, CHUNK_BYTES.to_bytes(4, "big"))
        self._chunk_bytes = CHUNK_BYTES
        self._answer(commands.connected(command.transaction))

    def _create_stream(self, command: Command) -> None:
        if self._streams >= self._limits.message_streams:
            raise ProtocolViolation(f"createStream: expected at most {self._limits.message_streams} of them")
        self._streams += 1
        self._answer(commands.result(command.transaction, None, self._streams))

    def _publish(self, command: Command) -> Publish:
        stream_id = command.stream_id
        if not 1 <= stream_id <= self._streams:
            raise ProtocolViolation(f"publish on stream {stream_id}: expected one that createStream gave")
        if self._publishing:
            raise ProtocolViolation("publish came twice: a connection carries one push at a time")
        self._publishing = stream_id
        self._accepted = False
        return Publish(self._app, command.text(0))

    def _play(self, _command: Command) -> None:
        raise ProtocolViolation("there is nothing to play over RTMP: the picture is watched over WebSocket")

    def _end_push(self, command: Command) -> Unpublish | None:
        if not self._publishing:
            return None
        if command.name == "deleteStream" and command.number(0) != self._publishing:
            return None
        if command.name == "closeStream" and command.stream_id != self._publishing:
            return None
        self._status(commands.on_status(commands.UNPUBLISH_SUCCESS, "The push has ended."))
        self._publishing = 0
        return Unpublish()

    def _agree(self, command: Command) -> None:
        if command.transaction:
            self._answer(commands.result(command.transaction, None, None))

    def _answer(self, payload: bytes) -> None:
        self._send(Message(MessageType.COMMAND, 0, 0, payload), _COMMANDS)

    def _status(self, payload: bytes) -> None:
        self._send(Message(MessageType.COMMAND, self._publishing, 0, payload), _STATUS)

    def _control(self, event: UserControl, data: bytes) -> None:
        self._protocol(MessageType.USER_CONTROL, event.to_bytes(2, "big") + data)

    def _protocol(self, kind: MessageType, payload: bytes) -> None:
        self._send(Message(kind, 0, 0, payload), CONTROL_STREAM)

    def _send(self, message: Message, chunk_stream_id: int) -> None:
        self._out.append(encode_message(message, chunk_stream_id=chunk_stream_id, chunk_bytes=self._chunk_bytes))


def _parts(aggregate: Message) -> list[Message]:
    """The messages in an aggregate (section 7.1.6), which are tags as in an FLV file. Raises `ProtocolViolation`."""
    data = aggregate.payload
    parts: list[Message] = []
    first = None
    at = 0
    while at < len(data):
        body = at + _AGGREGATE_HEADER
        size = int.from_bytes(data[at + 1 : at + 4], "big")
        end = body + size
        if end + _AGGREGATE_TRAILER > len(data):
            raise ProtocolViolation(f"an aggregate message ends within a part of {size} bytes")
        timestamp = int.from_bytes(data[at + 4 : at + 7], "big") | data[at + 7] << 24
        first = timestamp if first is None else first
        # Their timestamps are moved so that the first one's is that of the aggregate.
        parts.append(
            Message(
                data[at], aggregate.stream_id, (aggregate.timestamp + timestamp - first) & 0xFFFFFFFF, data[body:end]
            )
        )
        at = end + _AGGREGATE_TRAILER
    return [part for part in parts if part.type in (MessageType.AUDIO, MessageType.VIDEO, MessageType.DATA)]


def _quoted(text: str) -> str:
    return repr(text[:_MAX_QUOTED])
