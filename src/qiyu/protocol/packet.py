"""A packet, and the numbers it may bear (docs/protocol.md, Packets)."""

from __future__ import annotations

from enum import IntEnum
from typing import Final, TypeAlias

import msgspec

MAGIC: Final = 18673
APP_ID: Final = 10001
"""The application of a client that names none: qiyu live."""
MIN_ID: Final = 10_000
"""The smallest appId and userId."""
MAX_ID: Final = 2**53 - 1
"""The largest id that JavaScript still counts exactly (Number.MAX_SAFE_INTEGER)."""
HEARTBEAT_SECONDS: Final = 30
"""How often a client sends a HEARTBEAT."""
LOGIN_BYTES: Final = 4096
"""The longest body of a LOGIN: before it, nobody may make the server keep more."""
CLIENT_MSG_ID_CHARS: Final = 64
MSG_ID_DIGITS: Final = 19
MAX_MSG_ID: Final = str(2**63 - 1)
MAX_LIKES: Final = 50
"""The most likes that one packet may bring."""

Buffer: TypeAlias = bytes | bytearray | memoryview


class MsgCode(IntEnum):
    """What a packet is for."""

    WS_HANDSHAKE = 1000  # the WebSocket upgrade itself; no client sends it as a packet
    LOGIN = 1001
    LOGOUT = 1002
    BIZ = 1003
    HEARTBEAT = 1004
    ACK = 1005
    ROOM = 1006
    ERROR = 1007


class BizCode(IntEnum):
    """What a BIZ packet is about."""

    ROOM_CHAT = 5555
    DIRECT = 5556
    ROOM_EVENT = 5557
    LIKE = 5558


class Packet(msgspec.Struct, gc=False):
    """One packet off the wire (a struct, for a named tuple takes four times as long to make).

    `code` is any int32 (whether it is a known `MsgCode` is the registry's affair). `body` is the JSON of an ImMsgBody,
    not yet looked at; it may lie in a read buffer that the next read overwrites, so whoever keeps it copies it.
    """

    code: int
    body: Buffer
    acks: list[str] | None = None
    """The msgIds of a run of ACKs, of which `body` is the first: the wire has read them all (ack_runs.py)."""
