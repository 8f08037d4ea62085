"""Sent, and not yet acknowledged: one dictionary entry for each message a session owes an ACK for.

What was dropped for a slow receiver never enters. A session's window is bounded; when it is full the oldest room
message is forgotten first (the room's history has it), a direct one only when there is no other (its inbox has it). The
session is not closed for it: a client that does not acknowledge harms nobody. So there is a table for each kind, and to
forget one costs the same whatever else is in them.

A message counts its own entries (`Publication.unacked`), and `InFlight` those of all: what has none left needs no
second look, and the process has a bound too (services/redelivery.py keeps it).
"""

from __future__ import annotations

from qiyu.metrics import Metrics
from qiyu.routing.session import Session, Table


class InFlight:
    """The account of all tables."""

    __slots__ = ("_metrics", "deliveries", "window")

    def __init__(self, window: int, metrics: Metrics) -> None:
        self.window = window
        """What one session may leave unacknowledged."""
        self.deliveries = 0
        """Entries in all tables."""
        self._metrics = metrics

    def __repr__(self) -> str:
        return f"<InFlight {self.deliveries} deliveries>"

    def evict(self, session: Session) -> None:
        """Make room for one more message in a window that is full."""
        table = session.room_in_flight or session.direct_in_flight
        if not table:
            return
        if table is session.direct_in_flight:
            session.late_acks = True
        table.pop(next(iter(table))).unacked -= 1
        self.deliveries -= 1
        self._metrics.in_flight_evicted += 1

    def forget_room(self, session: Session) -> None:
        """The session leaves its room: what it has not acknowledged there is for its next entry to bring."""
        table, session.room_in_flight = session.room_in_flight, None
        self._forget(table)

    def forget(self, session: Session) -> None:
        """The session is gone."""
        self.forget_room(session)
        table, session.direct_in_flight = session.direct_in_flight, None
        self._forget(table)

    def _forget(self, table: Table | None) -> None:
        if table:
            self.deliveries -= len(table)
            for publication in table.values():
                publication.unacked -= 1
