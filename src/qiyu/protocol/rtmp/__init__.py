"""The server's side of RTMP, as an encoder that publishes sees it: bytes in, events out; answers in, bytes out.

Sources: Adobe's RTMP specification 1.0 (2012), AMF 0 (2007), and Enhanced RTMP for what else a video tag may hold.
From the bottom up:

- `amf0`: values in commands and metadata, to Python's own and back;
- `messages`: the numbers of the protocol, and its limits;
- `handshake`: 1 + 1536 + 1536 bytes each way;
- `chunks`: messages, cut into chunks and interleaved, put together again;
- `commands`: what a client calls, and what it is answered; `metadata`: what it says of its stream;
- `connection`: all of it, one object a connection; `wire`: the same for a driver.

What is left out on purpose: playing (viewers get fragmented MP4 over WebSocket), RTMPE and RTMPT, the handshake with
digests (only Flash Player insisted on it), AMF 3 values (encoders that say AMF 3 put AMF 0 into it).
"""

from qiyu.protocol.rtmp.connection import Media, Publish, RtmpConnection, Unpublish
from qiyu.protocol.rtmp.messages import MessageType, RtmpLimits
from qiyu.protocol.rtmp.metadata import Metadata, read_metadata
from qiyu.protocol.rtmp.wire import TIMESTAMP_BYTES, RtmpCode, RtmpWire

__all__ = [
    "TIMESTAMP_BYTES",
    "Media",
    "MessageType",
    "Metadata",
    "Publish",
    "RtmpCode",
    "RtmpConnection",
    "RtmpLimits",
    "RtmpWire",
    "Unpublish",
    "read_metadata",
]
