"""A viewer's way to the picture: the upgrade of `/live/ROOM`, then LOGIN unless the picture is open to all.

A viewer is sent no packets: a text is the MIME type of what follows. So what is wrong is said in the close frame.
"""

from __future__ import annotations

import re
from typing import Final

from qiyu.errors import ProtocolViolation
from qiyu.handlers.login import identify
from qiyu.handlers.open_room import if_open
from qiyu.model import Instant
from qiyu.protocol.packet import MAX_ID, Buffer
from qiyu.routing.session import Session
from qiyu.services.node import Node

_PATH: Final = re.compile(r"/live(?:/(?P<room>[^/]*)/?)?")
_ROOM: Final = re.compile(r"[0-9]{1,16}")


def watched_room(target: str) -> int | None:
    """The room in a path whose first part is `live`; None for any other. Raises `ProtocolViolation`."""
    match = _PATH.fullmatch(target)
    if match is None:
        return None
    room = match["room"] or ""
    if not _ROOM.fullmatch(room) or not 0 < int(room) <= MAX_ID:
        raise ProtocolViolation("the path must be /live/ROOM, with the number of a room")
    return int(room)


def watch_login(node: Node, session: Session, body: Buffer, now: Instant) -> None:
    """Check who wants to watch, and begin. Nobody is online by it, and a login elsewhere ends nothing here."""
    identify(node, session, body, now)
    watch(node, session, now)


def watch(node: Node, session: Session, now: Instant) -> None:
    """Begin if the room is open."""
    room_id = node.viewers.room_of(session)
    if_open(node, session, room_id, lambda _: node.viewers.begin(session), now)


def hear(_node: Node, _session: Session, _body: Buffer, _now: Instant) -> None:
    """What a viewer sends beside that is a sign of life, and no more."""
