"""The numbers of RTMP, one message, and what a peer may make us hold (RTMP 1.0, sections 5.4, 6.1 and 7.1)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import msgspec

DEFAULT_CHUNK_BYTES: Final = 128
MAX_CHUNK_BYTES: Final = 0xFFFFFF
"""A message is never longer, so a larger chunk size is this one (section 5.4.1)."""


class MessageType(IntEnum):
    """What a message is."""

    SET_CHUNK_SIZE = 1
    ABORT = 2
    ACKNOWLEDGEMENT = 3
    USER_CONTROL = 4
    WINDOW_ACKNOWLEDGEMENT_SIZE = 5
    SET_PEER_BANDWIDTH = 6
    AUDIO = 8
    VIDEO = 9
    DATA_AMF3 = 15
    SHARED_OBJECT_AMF3 = 16
    COMMAND_AMF3 = 17
    DATA = 18
    SHARED_OBJECT = 19
    COMMAND = 20
    AGGREGATE = 22


class UserControl(IntEnum):
    """The event that a user control message begins with (section 7.1.7)."""

    STREAM_BEGIN = 0
    PING_REQUEST = 6
    PING_RESPONSE = 7


class Message(msgspec.Struct, gc=False):
    """One message, whole. `timestamp` is in milliseconds, and begins again at 2**32 (after 49 days)."""

    type: int
    stream_id: int
    timestamp: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class RtmpLimits:
    """What one connection may make us hold, in bytes and streams; all of it is checked before it is held."""

    media_bytes: int = 4 * 1024 * 1024
    """One audio or video message: a key frame of a stream of 50 Mbit/s has less than half of it."""
    command_bytes: int = 64 * 1024
    """Any other message."""
    unfinished_bytes: int = 8 * 1024 * 1024
    """All messages together of which a part has come."""
    chunk_streams: int = 64
    """How many ids of chunk streams may be used; encoders use about five, though hardly the same five."""
    message_streams: int = 8
    """How often createStream may be called."""
    min_chunk_bytes: int = DEFAULT_CHUNK_BYTES
    """The smallest chunk size that may be set; a header for each byte would cost us more than it costs the sender."""
    min_mean_bytes: int = 8
    """What messages must have on average, headers included: nothing real has less."""
