"""Whether a room is open, for who publishes to it or watches it: known at once, or for the database to say."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

from qiyu.errors import ErrorCode, ProtocolViolation
from qiyu.model import Instant
from qiyu.protocol.packet import APP_ID
from qiyu.routing.endpoint import Endpoint
from qiyu.services.node import Node

Open: TypeAlias = Callable[[Instant], None]
"""What is to be done where the room is open. Raises `ProtocolViolation` where that cannot be."""


def if_open(node: Node, endpoint: Endpoint, room_id: int, then: Open, now: Instant) -> None:
    """Do it now, or when the database has said so; or raise `ProtocolViolation`, or end the endpoint with it."""
    is_open = node.room_directory.is_open(APP_ID, room_id, now)
    if is_open is not None:
        _found(room_id, then, is_open, now)
        return
    if not node.entering.lookups.add(room_id, endpoint, partial(_resumed, endpoint, room_id, then)):
        raise ProtocolViolation("too many are entering rooms; try again", code=ErrorCode.UNAVAILABLE)
    endpoint.hold()


def _resumed(endpoint: Endpoint, room_id: int, then: Open, is_open: bool | None, now: Instant) -> None:
    try:
        _found(room_id, then, is_open, now)
    except ProtocolViolation as violation:
        endpoint.owner.refuse(endpoint, violation)


def _found(room_id: int, then: Open, is_open: bool | None, now: Instant) -> None:
    if is_open is None:
        raise ProtocolViolation("the database does not answer; try again", code=ErrorCode.UNAVAILABLE)
    if not is_open:
        raise ProtocolViolation(f"room {room_id} is not open", code=ErrorCode.NO_SUCH_ROOM)
    then(now)
