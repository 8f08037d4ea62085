"""What an encoder sends: a push, its audio, video and metadata, and its end (docs/video.md)."""

from __future__ import annotations

from functools import partial

from qiyu.errors import ErrorCode, ProtocolViolation
from qiyu.handlers.open_room import if_open
from qiyu.living.stream_keys import BadStreamKey
from qiyu.living.streams import PushRefused
from qiyu.model import Instant
from qiyu.protocol.fmp4 import Unsupported
from qiyu.protocol.packet import Buffer
from qiyu.protocol.rtmp import TIMESTAMP_BYTES, RtmpCode
from qiyu.services.node import Node
from qiyu.services.publishers import Publisher


def publish(node: Node, publisher: Publisher, body: Buffer, now: Instant) -> None:
    """Let the push begin if its key is that of an open room."""
    try:
        room_id = node.stream_keys.verify(str(body, "utf-8"), now.unix_ms)
    except BadStreamKey as exc:
        raise ProtocolViolation(str(exc), code=ErrorCode.FORBIDDEN) from None
    if_open(node, publisher, room_id, partial(_begin, node, publisher, room_id), now)


def unpublish(node: Node, publisher: Publisher, _body: Buffer, now: Instant) -> None:
    """The encoder has ended its push."""
    node.publishers.finish(publisher, now)


def media(kind: RtmpCode, node: Node, publisher: Publisher, body: Buffer, now: Instant) -> None:
    """Show it. What comes after the end of a push, or before it was let in, is left."""
    push = publisher.push
    if push is None:
        return
    timestamp = int.from_bytes(body[:TIMESTAMP_BYTES], "big")
    try:
        node.streams.receive(push, kind, timestamp, bytes(body[TIMESTAMP_BYTES:]), now)
    except Unsupported as exc:
        node.metrics.pushes_unsupported += 1
        node.streams.stop(push, str(exc))


def _begin(node: Node, publisher: Publisher, room_id: int, now: Instant) -> None:
    try:
        node.publishers.begin(publisher, room_id, now)
    except PushRefused as exc:
        raise ProtocolViolation(str(exc), code=ErrorCode.CONFLICT) from None
