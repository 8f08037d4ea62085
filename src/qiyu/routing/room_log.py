"""The messages of a room that may be in flight, so that what a member has not acknowledged can be a range of them.

A member that acknowledges what it is sent, in the order in which it was sent, needs no table of it: from the start of
its range to the end of the feed that it followed last, all is in flight, and an ACK moves the start. Nobody counts who
still owes an ACK for a message: when it is due to be sent again, the ranges are looked at once, and that look tells for
how many more messages nobody need look (`floor`).

Whatever is not so regular is in a table of the session (routing/inflight.py). A message is settled when it is due to be
sent again, or the log is long: from then on it is in tables only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from qiyu.routing.publication import Publication

LONGEST: Final = 8192
"""When a log has more messages, the older half is settled."""
_TRIMMED: Final = 512  # settled messages are removed by so many at once


class RoomLog:
    """Messages have numbers, counted from 0 over the room's life."""

    __slots__ = ("base", "due", "floor", "ids", "items")

    def __init__(self) -> None:
        self.base = 0
        """The number of the first message that is still here."""
        self.due = 0
        """Messages below this number are settled."""
        self.floor = 0
        """No range begins below this number."""
        self.ids: list[str] = []
        """The msgIds, from `base` on."""
        self.items: list[Publication] = []

    def __repr__(self) -> str:
        return f"<RoomLog {self.base}..{self.due}..{self.end}>"

    @property
    def end(self) -> int:
        """The number of the next message."""
        return self.base + len(self.ids)

    def add(self, publication: Publication) -> None:
        """One more."""
        publication.log = self
        publication.number = self.base + len(self.ids)
        self.ids.append(publication.msg_id)
        self.items.append(publication)

    def settle(self, number: int) -> None:
        """All messages up to this one are in tables only: no range begins at or below it."""
        for publication in self.items[self.due - self.base : number + 1 - self.base]:
            publication.log = None
        self.due = max(self.due, number + 1)
        gone = self.due - self.base
        if gone >= _TRIMMED:
            del self.ids[:gone], self.items[:gone]
            self.base = self.due
