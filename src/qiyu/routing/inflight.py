"""Sent, and not yet acknowledged: one dictionary entry for each message a session owes an ACK for.

What was dropped for a slow receiver never enters. A session's window is bounded; when it is full the oldest room
message is forgotten first (the room's history has it), a direct one only when there is no other (its inbox has it). The
session is not closed for it: a client that does not acknowledge harms nobody. So there is a table for each kind, and to
forget one costs the same whatever else is in them.
"""

from __future__ import annotations

from typing import TypeAlias

from qiyu.routing.outgoing import Outgoing

InFlight: TypeAlias = dict[str, Outgoing]
"""msgId to message, oldest first."""


def evict_oldest(room: InFlight | None, direct: InFlight | None) -> None:
    """Make room for one more message in a window that is full."""
    table = room or direct
    if table:
        del table[next(iter(table))]
