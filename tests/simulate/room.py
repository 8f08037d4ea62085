"""A room as it is on one instance: its members, what was said lately, and who waits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from qiyu.protocol.links import StoredMessage
from qiyu.services.homes import RoomKey

if TYPE_CHECKING:
    from simulate.session import Session


@dataclass
class Ring:
    """All messages after `floor` that were delivered here."""

    floor: int
    messages: list[StoredMessage] = field(default_factory=list)

    def since(self, after: int) -> list[StoredMessage]:
        return [message for message in self.messages if message.msg_id > after]


@dataclass(eq=False)
class LocalRoom:
    key: RoomKey
    members: dict[Session, None] = field(default_factory=dict)
    waiting: list[tuple[Session, int | None]] = field(default_factory=list)
    """Who wants in, and what it has seen last."""
    ring: Ring | None = None
    filling_up_to: int | None = None
    """The database is read for what members have missed up to here; what comes meanwhile is kept."""
    kept: list[StoredMessage] = field(default_factory=list)
    accepted: int = 0
    """By this instance as its home, and not settled."""
