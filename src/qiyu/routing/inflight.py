"""Sent, and not yet acknowledged: one entry for each message a session owes an ACK for.

`InFlight` keeps the account, and is the only one that changes it: the two tables of each session (room messages, direct
ones), in how many of them each message is (`Publication.noted`), and how many entries there are in all (`deliveries`).
The process has a bound too (services/redelivery.py keeps it).

Of what a session was sent as a follower of its room's feed it has no table: it is a range of the room's log
(routing/room_log.py), from `Session.range_start` to the end of the feed. It is written out into the table of room
messages (`Session.write_out`) as soon as anything about it is out of order: an ACK that is not the next one's, a
message that is due to be sent again, a member that is apart from the feed.

An entry begins with `note` or `note_room`. It ends when its ACK comes (`take`, `take_direct`), when the session leaves
the room or is gone (`forget_room`, `forget`), when it is waited for no longer (`drop`, `drop_room`), or here, to make
space: a session's window is bounded, and when it is full the oldest room message is forgotten first (the room's history
has it), a direct one only when there is no other (its inbox has it). The session is not closed for it: a client that
does not acknowledge harms nobody. So there is a table for each kind, and to forget one costs the same whatever else is
in them.

What was dropped for a slow receiver never enters.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Sequence
from typing import Final

from qiyu.metrics import Metrics
from qiyu.routing.feed import Feed
from qiyu.routing.publication import Publication
from qiyu.routing.room_log import LONGEST
from qiyu.routing.session import Room, Session, Table

DELIVERY_BYTES: Final = 100


class InFlight:
    """The account of all tables."""

    __slots__ = ("_metrics", "_window", "deliveries", "range_bound", "shared_space")

    def __init__(self, window: int, metrics: Metrics) -> None:
        self._window = window  # what one session may leave unacknowledged
        self.shared_space = max(1, window // 4)
        """How many messages one turn of a room may have for who follows its feed (`has_space`)."""
        self.range_bound = window - self.shared_space
        """How many of the turns before may be in flight to it, where nothing else is."""
        self.deliveries = 0
        """Entries in all tables."""
        self._metrics = metrics

    def __repr__(self) -> str:
        return f"<InFlight {self.deliveries} deliveries>"

    @property
    def held_bytes(self) -> int:
        """About a hundred bytes for each delivery, were all of them in tables."""
        return DELIVERY_BYTES * self.deliveries

    def has_space(self, session: Session, count: int) -> bool:
        """Whether so many more may be in flight to the session with none forgotten for it."""
        room, direct = session.room_in_flight, session.direct_in_flight
        waiting = (len(room) if room else 0) + (len(direct) if direct else 0)
        if session.feed is not None:
            waiting += session.range_length
        return waiting + count <= self._window

    def find(self, session: Session, msg_id: str) -> Publication | None:
        """The message with this msgId for which the session owes an ACK, if it does."""
        for table in (session.room_in_flight, session.direct_in_flight):
            publication = table.get(msg_id) if table else None
            if publication is not None:
                return publication
        return next((each for each in _range(session) if each.msg_id == msg_id), None)

    def is_owed(self, members: Collection[Session], publication: Publication) -> bool:
        """Whether any member of the room owes an ACK for this room message."""
        _settle(members, publication)
        return publication.noted > 0

    def acknowledged_to(self, room: Room) -> int:
        """All messages of the room's log below this number have been acknowledged by those who follow its feed."""
        log = room.log
        floor = log.end
        for session in room.members:
            if session.feed is not None and session.range_start < floor and session.range_start < session.feed.end:
                floor = session.range_start
        log.floor = max(log.floor, floor)
        return floor

    def owing(self, members: Collection[Session], publication: Publication) -> list[Session]:
        """Those of the members that owe an ACK for this very packet, not for one that brought it again."""
        _settle(members, publication)
        msg_id = publication.msg_id
        return [
            session for session in members if (table := session.room_in_flight) and table.get(msg_id) is publication
        ]

    def note(self, session: Session, publication: Publication) -> bool:
        """The session owes an ACK for this message from here on; False if it did already, and nothing changes."""
        if not publication.is_direct:
            session.write_out()
        room, direct = session.room_in_flight, session.direct_in_flight
        table = direct if publication.is_direct else room
        if table and publication.msg_id in table:
            return False
        if not self.has_space(session, 1):
            self._evict(session)
        if table is None:
            table = {}
            if publication.is_direct:
                session.direct_in_flight = table
            else:
                session.room_in_flight = table
        table[publication.msg_id] = publication
        publication.noted += 1
        self.deliveries += 1
        return True

    def note_room(self, receivers: Collection[Session], publication: Publication) -> None:
        """`note`, for all of them, of a room message that none of them has been sent before."""
        msg_id = publication.msg_id
        window = self._window
        for session in receivers:
            if session.feed is not None:
                session.write_out()
            table = session.room_in_flight
            if table is None:
                table = session.room_in_flight = {}
            direct = session.direct_in_flight
            if (len(table) + len(direct) if direct else len(table)) >= window:
                self._evict(session)
            table[msg_id] = publication
        count = len(receivers)
        publication.noted += count
        self.deliveries += count

    def note_shared(self, room: Room, feed: Feed, publication: Publication) -> None:
        """`note`, for all that follow the feed of a room, of a room message that it has just been given."""
        log = feed.log
        log.add(publication)
        feed.end += 1
        self.deliveries += feed.followers
        if len(log.ids) > LONGEST:
            _settle(room.members, log.items[LONGEST // 2])

    def take(self, session: Session, msg_ids: Sequence[str]) -> Sequence[str]:
        """ACKs of these have come: end the entries of room messages, and return what is the msgId of none."""
        count = len(msg_ids)
        if not session.room_in_flight:  # then nearly always they are the next ones of the range
            feed = session.feed
            if feed is None:
                return msg_ids
            log = feed.log
            start = session.range_start
            end = start + count
            if end <= feed.end and log.ids[start - log.base : end - log.base] == msg_ids:
                session.range_start = end
                self.deliveries -= count
                self._metrics.deliveries_acknowledged += count
                return ()
        others = [msg_id for msg_id in msg_ids if not self._take(session, msg_id)]
        taken = count - len(others)
        self.deliveries -= taken
        self._metrics.deliveries_acknowledged += taken
        return others

    def _take(self, session: Session, msg_id: str) -> bool:
        table = session.room_in_flight
        publication = table.pop(msg_id, None) if table else None
        feed = session.feed
        if publication is None and feed is not None and session.range_start < feed.end:
            if feed.log.ids[session.range_start - feed.log.base] == msg_id:
                session.range_start += 1
                return True
            if not _is_in_range(session, msg_id):
                return False
            session.write_out()
            table = session.room_in_flight
            publication = table.pop(msg_id, None) if table else None
        if publication is None:
            return False
        publication.noted -= 1
        return True

    def take_direct(self, session: Session, msg_id: str) -> Publication | None:
        """The ACK of what may be a direct message has come: end its entry, and return the message if there was one."""
        table = session.direct_in_flight
        publication = table.pop(msg_id, None) if table else None
        if publication is not None:
            publication.noted -= 1
            self.deliveries -= 1
            self._metrics.deliveries_acknowledged += 1
        return publication

    def drop(self, session: Session, msg_ids: Collection[str]) -> tuple[int, int]:
        """Wait for the ACKs of these no longer; returns how many entries of (room, direct) messages that ended."""
        session.write_out()
        room = self._drop(session.room_in_flight, msg_ids)
        direct = self._drop(session.direct_in_flight, msg_ids)
        if direct:
            session.late_acks = True
        return room, direct

    def drop_room(self, members: Collection[Session], publication: Publication) -> int:
        """Wait for no member's ACK of this room message any longer; returns how many entries that ended."""
        _settle(members, publication)
        if not publication.noted:
            return 0
        gone = 0
        msg_id = publication.msg_id
        for session in members:
            table = session.room_in_flight
            if table and table.get(msg_id) is publication:
                del table[msg_id]
                gone += 1
        publication.noted -= gone
        self.deliveries -= gone
        return gone

    def forget_room(self, session: Session) -> None:
        """The session leaves its room: what it has not acknowledged there is for its next entry to bring."""
        session.outbox.split_off()
        self.deliveries -= session.range_length
        session.feed = None
        table, session.room_in_flight = session.room_in_flight, None
        self._forget(table)

    def forget(self, session: Session) -> None:
        """The session is gone."""
        self.forget_room(session)
        table, session.direct_in_flight = session.direct_in_flight, None
        self._forget(table)

    def give_back(self, session: Session) -> None:
        """Give back the memory of the session's tables in which nothing is left."""
        if session.feed is not None and session.outbox.follower is None and not session.range_length:
            session.feed = None
        if not session.room_in_flight:
            session.room_in_flight = None
        if not session.direct_in_flight:
            session.direct_in_flight = None

    def _evict(self, session: Session) -> None:
        """Make space for one more message in a window that is full."""
        session.write_out()
        table = session.room_in_flight or session.direct_in_flight
        if not table:
            return
        if table is session.direct_in_flight:
            session.late_acks = True
        table.pop(next(iter(table))).noted -= 1
        self.deliveries -= 1
        self._metrics.in_flight_evicted += 1

    def _drop(self, table: Table | None, msg_ids: Collection[str]) -> int:
        gone = 0
        if table:
            for msg_id in msg_ids:
                publication = table.pop(msg_id, None)
                if publication is not None:
                    publication.noted -= 1
                    gone += 1
            self.deliveries -= gone
        return gone

    def _forget(self, table: Table | None) -> None:
        if table:
            self.deliveries -= len(table)
            for publication in table.values():
                publication.noted -= 1


def owed_by(session: Session) -> Table:
    """All for which the session owes an ACK: room messages, then direct ones, each the oldest first."""
    in_range = {publication.msg_id: publication for publication in _range(session)}
    return {**(session.room_in_flight or {}), **in_range, **(session.direct_in_flight or {})}


def _range(session: Session) -> Sequence[Publication]:
    feed = session.feed
    if feed is None:
        return ()
    log = feed.log
    return log.items[session.range_start - log.base : feed.end - log.base]


def _is_in_range(session: Session, msg_id: str) -> bool:
    feed = session.feed
    if feed is None:
        return False
    ids = feed.log.ids
    start, end = session.range_start - feed.log.base, feed.end - feed.log.base
    if not len(ids[start]) == len(ids[end - 1]) == len(msg_id):  # texts of unequal length do not compare as numbers do
        return msg_id in ids[start:end]
    at = bisect_left(ids, msg_id, start, end)
    return at < end and ids[at] == msg_id


def _settle(members: Collection[Session], publication: Publication) -> None:
    """See to it that the entries of this room message are in tables, and those of all before it."""
    log = publication.log
    if log is None:
        return
    number = publication.number
    if number >= log.floor:
        floor = log.end
        for session in members:
            if session.feed is None:
                continue
            start = session.range_start
            if start > number:
                floor = min(floor, start)
            else:
                session.write_out()
        log.floor = floor
    log.settle(number)
