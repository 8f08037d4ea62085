"""How a message reaches its receivers here: into each one's outbox and in-flight table, or counted as dropped."""

from __future__ import annotations

from qiyu.metrics import Metrics
from qiyu.routing.inflight import InFlight
from qiyu.routing.outbox import OutboxLimits
from qiyu.routing.publication import Publication
from qiyu.routing.session import WIDTH_BITS, Room, Session

_WIDTH_MASK = 2**WIDTH_BITS - 1


class Router:
    """Fans packets out."""

    def __init__(self, limits: OutboxLimits, in_flight: InFlight, metrics: Metrics) -> None:
        self._soft = limits.soft
        self._in_flight = in_flight
        self._metrics = metrics

    def to_session(self, session: Session, publication: Publication) -> bool:
        """Deliver to one session whatever it is owed already; above the hard bound the session ends instead.

        What it was sent and has not acknowledged it is not sent a second time here: False.
        """
        table = session.direct_in_flight if publication.is_direct else session.room_in_flight
        if table and publication.msg_id in table:
            return False
        _push(session, publication)
        self._note(session, publication)
        publication.unacked += 1
        self._in_flight.deliveries += 1
        self._metrics.deliveries += 1
        return True

    def again(self, session: Session, publication: Publication) -> None:
        """Send once more what is in flight already, unless the peer does not even read what it is owed."""
        if session.outbox.size >= self._soft:
            return
        _push(session, publication)
        self._metrics.redeliveries += 1

    def to_room(self, room: Room, publication: Publication, sender: Session | None = None) -> None:  # noqa: C901  # unrolled
        """Deliver to every member but `sender`; a member above the soft bound goes without, and is told.

        An event stops at half of that, and nobody is told of it: the next count has what matters.
        """
        msg_id = publication.msg_id
        if not msg_id:
            self._tell_room(room, publication, sender)
            return
        soft = self._soft
        window = self._in_flight.window
        spliced = publication.spliced
        members = room.members
        dropped = 0
        # The hottest loop there is, so what `_push`, `Outbox.push_spliced` and `_note` do is written out in it.
        for session in members:
            if session is sender:
                continue
            outbox = session.outbox
            waiting = outbox.size
            if waiting >= soft:  # and so is one that has overflowed; who has finished is no member
                dropped += 1
                session.tell_gap()
                continue
            key = session.splice
            if key in spliced:
                head, tail, size = spliced[key]
            else:
                head, tail, size = publication.splice(session.wire, key & _WIDTH_MASK, key)
            if outbox.parts is None:
                outbox.parts = [head, session.digits, tail]
            else:
                outbox.parts += (head, session.digits, tail)
            outbox.size = waiting = waiting + size
            if waiting > outbox.hard:
                outbox.overflow()
            elif not outbox.is_awake:
                outbox.is_awake = True
                outbox.wake(outbox)
            outbox.gap = False
            table = session.room_in_flight
            if table is None:
                table = session.room_in_flight = {}
            direct = session.direct_in_flight
            if len(table) + (len(direct) if direct else 0) >= window:
                self._in_flight.evict(session)
            table[msg_id] = publication
        delivered = len(members) - dropped - (sender in members)
        metrics = self._metrics
        metrics.deliveries_dropped += dropped
        metrics.deliveries += delivered
        publication.unacked += delivered
        self._in_flight.deliveries += delivered

    def _tell_room(self, room: Room, event: Publication, sender: Session | None) -> None:
        soft = self._soft // 2
        for session in room.members:
            if session is sender:
                continue
            if session.outbox.size >= soft:
                self._metrics.deliveries_dropped += 1
                continue
            _push(session, event)
            self._metrics.deliveries += 1

    def _note(self, session: Session, publication: Publication) -> None:
        """It waits for an ACK from here on."""
        room, direct = session.room_in_flight, session.direct_in_flight
        if (len(room) if room else 0) + (len(direct) if direct else 0) >= self._in_flight.window:
            self._in_flight.evict(session)
        if publication.is_direct:
            if direct is None:
                direct = session.direct_in_flight = {}
            direct[publication.msg_id] = publication
        else:
            if room is None:
                room = session.room_in_flight = {}
            room[publication.msg_id] = publication


def _push(session: Session, publication: Publication) -> None:
    key = session.splice
    head, tail, size = publication.spliced.get(key) or publication.splice(session.wire, key & _WIDTH_MASK, key)
    session.outbox.push_spliced(head, session.digits, tail, size)
