"""Sent, and not yet acknowledged: one dictionary entry for each message a session owes an ACK for.

`InFlight` keeps the account, and is the only one that changes it: the two tables of each session (room messages, direct
ones), what each message counts of its own entries (`Publication.unacked`), and how many there are in all
(`deliveries`). A message that has no entry left needs no second look, and the process has a bound too
(services/redelivery.py keeps it).

An entry begins with `note` or `note_room`. It ends when its ACK comes (`take`, `take_direct`), when the session leaves
the room or is gone (`forget_room`, `forget`), when it is waited for no longer (`drop`, `drop_room`), or here, to make
space: a session's window is bounded, and when it is full the oldest room message is forgotten first (the room's history
has it), a direct one only when there is no other (its inbox has it). The session is not closed for it: a client that
does not acknowledge harms nobody. So there is a table for each kind, and to forget one costs the same whatever else is
in them.

What was dropped for a slow receiver never enters.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from qiyu.metrics import Metrics
from qiyu.routing.publication import Publication
from qiyu.routing.session import Session, Table


class InFlight:
    """The account of all tables."""

    __slots__ = ("_metrics", "_window", "deliveries")

    def __init__(self, window: int, metrics: Metrics) -> None:
        self._window = window  # what one session may leave unacknowledged
        self.deliveries = 0
        """Entries in all tables."""
        self._metrics = metrics

    def __repr__(self) -> str:
        return f"<InFlight {self.deliveries} deliveries>"

    def find(self, session: Session, msg_id: str) -> Publication | None:
        """The message with this msgId for which the session owes an ACK, if it does."""
        for table in (session.room_in_flight, session.direct_in_flight):
            publication = table.get(msg_id) if table else None
            if publication is not None:
                return publication
        return None

    def owing(self, members: Iterable[Session], publication: Publication) -> list[Session]:
        """Those of the members that owe an ACK for this very packet, not for one that brought it again."""
        msg_id = publication.msg_id
        return [
            session for session in members if (table := session.room_in_flight) and table.get(msg_id) is publication
        ]

    def note(self, session: Session, publication: Publication) -> bool:
        """The session owes an ACK for this message from here on; False if it did already, and nothing changes."""
        room, direct = session.room_in_flight, session.direct_in_flight
        table = direct if publication.is_direct else room
        if table and publication.msg_id in table:
            return False
        if (len(room) if room else 0) + (len(direct) if direct else 0) >= self._window:
            self._evict(session)
        if table is None:
            table = {}
            if publication.is_direct:
                session.direct_in_flight = table
            else:
                session.room_in_flight = table
        table[publication.msg_id] = publication
        publication.unacked += 1
        self.deliveries += 1
        return True

    def note_room(self, receivers: Collection[Session], publication: Publication) -> None:
        """`note`, for all of them, of a room message that none of them has been sent before."""
        msg_id = publication.msg_id
        window = self._window
        for session in receivers:
            table = session.room_in_flight
            if table is None:
                table = session.room_in_flight = {}
            direct = session.direct_in_flight
            if (len(table) + len(direct) if direct else len(table)) >= window:
                self._evict(session)
            table[msg_id] = publication
        count = len(receivers)
        publication.unacked += count
        self.deliveries += count

    def take(self, session: Session, msg_ids: Sequence[str]) -> Sequence[str]:
        """ACKs of these have come: end the entries of room messages, and return what is the msgId of none."""
        table = session.room_in_flight
        if not table:
            return msg_ids
        taken = len(msg_ids)
        others: list[str] | None = None  # nearly always there are none
        for msg_id in msg_ids:
            publication = table.pop(msg_id, None)
            if publication is not None:
                publication.unacked -= 1
            elif others is None:
                others = [msg_id]
            else:
                others.append(msg_id)
        if others is not None:
            taken -= len(others)
        self.deliveries -= taken
        self._metrics.deliveries_acknowledged += taken
        return others or ()

    def take_direct(self, session: Session, msg_id: str) -> Publication | None:
        """The ACK of what may be a direct message has come: end its entry, and return the message if there was one."""
        table = session.direct_in_flight
        publication = table.pop(msg_id, None) if table else None
        if publication is not None:
            publication.unacked -= 1
            self.deliveries -= 1
            self._metrics.deliveries_acknowledged += 1
        return publication

    def drop(self, session: Session, msg_ids: Collection[str]) -> tuple[int, int]:
        """Wait for the ACKs of these no longer; returns how many entries of (room, direct) messages that ended."""
        room = self._drop(session.room_in_flight, msg_ids)
        direct = self._drop(session.direct_in_flight, msg_ids)
        if direct:
            session.late_acks = True
        return room, direct

    def drop_room(self, members: Iterable[Session], publication: Publication) -> int:
        """Wait for no member's ACK of this room message any longer; returns how many entries that ended."""
        if not publication.unacked:
            return 0
        gone = 0
        msg_id = publication.msg_id
        for session in members:
            table = session.room_in_flight
            if table and table.get(msg_id) is publication:
                del table[msg_id]
                gone += 1
        publication.unacked -= gone
        self.deliveries -= gone
        return gone

    def forget_room(self, session: Session) -> None:
        """The session leaves its room: what it has not acknowledged there is for its next entry to bring."""
        table, session.room_in_flight = session.room_in_flight, None
        self._forget(table)

    def forget(self, session: Session) -> None:
        """The session is gone."""
        self.forget_room(session)
        table, session.direct_in_flight = session.direct_in_flight, None
        self._forget(table)

    def give_back(self, session: Session) -> None:
        """Give back the memory of the session's tables in which nothing is left."""
        if not session.room_in_flight:
            session.room_in_flight = None
        if not session.direct_in_flight:
            session.direct_in_flight = None

    def _evict(self, session: Session) -> None:
        """Make space for one more message in a window that is full."""
        table = session.room_in_flight or session.direct_in_flight
        if not table:
            return
        if table is session.direct_in_flight:
            session.late_acks = True
        table.pop(next(iter(table))).unacked -= 1
        self.deliveries -= 1
        self._metrics.in_flight_evicted += 1

    def _drop(self, table: Table | None, msg_ids: Collection[str]) -> int:
        gone = 0
        if table:
            for msg_id in msg_ids:
                publication = table.pop(msg_id, None)
                if publication is not None:
                    publication.unacked -= 1
                    gone += 1
            self.deliveries -= gone
        return gone

    def _forget(self, table: Table | None) -> None:
        if table:
            self.deliveries -= len(table)
            for publication in table.values():
                publication.unacked -= 1
