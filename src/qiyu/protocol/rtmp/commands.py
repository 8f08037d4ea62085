"""What a client calls and what it is answered, as AMF 0 (RTMP 1.0, section 7.2)."""

from __future__ import annotations

from typing import Final

import msgspec

from qiyu.errors import ProtocolViolation
from qiyu.protocol.rtmp.amf0 import AmfError, Value, decode, encode
from qiyu.protocol.rtmp.messages import Message, MessageType

CONNECT_SUCCESS: Final = "NetConnection.Connect.Success"
CONNECT_REJECTED: Final = "NetConnection.Connect.Rejected"
CALL_FAILED: Final = "NetConnection.Call.Failed"
PUBLISH_START: Final = "NetStream.Publish.Start"
PUBLISH_BAD_NAME: Final = "NetStream.Publish.BadName"
UNPUBLISH_SUCCESS: Final = "NetStream.Unpublish.Success"
STREAM_FAILED: Final = "NetStream.Failed"
"""The one code at which librtmp, and so OBS, closes by itself; ffmpeg goes by the level."""


class Command(msgspec.Struct):
    """One call. `transaction` 0 wants no answer; `arguments` are what follows the command object."""

    name: str
    transaction: float
    properties: dict[str, Value]
    arguments: list[Value]
    stream_id: int

    def text(self, index: int) -> str:
        """The argument at `index` if it is text, else empty."""
        value = self.arguments[index] if index < len(self.arguments) else None
        return value if isinstance(value, str) else ""

    def number(self, index: int) -> float:
        """The argument at `index` if it is a number, else 0."""
        value = self.arguments[index] if index < len(self.arguments) else None
        return value if isinstance(value, float) else 0.0


def read_command(message: Message) -> Command:
    """The call in a command message. Raises `ProtocolViolation`; nothing of the command is in its reason."""
    payload = message.payload
    if message.type == MessageType.COMMAND_AMF3:
        payload = payload[1:]  # a byte, then AMF 0 after all: nobody begins with a value of AMF 3
    try:
        values = decode(payload)
    except AmfError as fault:
        raise ProtocolViolation(f"a command is not AMF 0: {fault}") from None
    match values:
        case [str(name), float(transaction), *rest]:
            properties = rest[0] if rest and isinstance(rest[0], dict) else {}
            return Command(name, transaction, properties, rest[1:], message.stream_id)
        case _:
            raise ProtocolViolation("a command must begin with its name and the number of its transaction")


def result(transaction: float, *values: Value) -> bytes:
    """The good answer to a call."""
    return encode(["_result", transaction, *values])


def error(transaction: float, code: str, reason: str) -> bytes:
    """The bad answer to a call: encoders show `reason`."""
    return encode(["_error", transaction, None, _info("error", code, reason)])


def on_status(code: str, reason: str, *, level: str = "status") -> bytes:
    """What became of a stream. At the level `error`, encoders show `reason`."""
    return encode(["onStatus", 0, None, _info(level, code, reason)])


def connected(transaction: float) -> bytes:
    """The good answer to `connect`; the version is one that clients know to stand for no special ways."""
    properties: Value = {"fmsVer": "FMS/3,0,1,123", "capabilities": 31}
    info = _info("status", CONNECT_SUCCESS, "Connection succeeded.")
    return result(transaction, properties, {**info, "objectEncoding": 0})


def _info(level: str, code: str, reason: str) -> dict[str, Value]:
    return {"level": level, "code": code, "description": reason}
