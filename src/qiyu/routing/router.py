"""How a message reaches its receivers here: into each one's outbox and in-flight table, or counted as dropped."""

from __future__ import annotations

from qiyu.metrics import Metrics
from qiyu.routing.inflight import evict_oldest
from qiyu.routing.outbox import OutboxLimits
from qiyu.routing.outgoing import Outgoing
from qiyu.routing.session import WIDTH_BITS, Room, Session

_WIDTH_MASK = 2**WIDTH_BITS - 1


class Router:
    """Fans packets out. `window` bounds what one session may leave unacknowledged."""

    def __init__(self, limits: OutboxLimits, window: int, metrics: Metrics) -> None:
        self._soft = limits.soft
        self._window = window
        self._metrics = metrics

    def to_user(self, session: Session, outgoing: Outgoing) -> None:
        """Deliver a direct message; above the hard bound the session ends instead."""
        self._push(session, outgoing)
        self._metrics.deliveries += 1

    def to_room(self, room: Room, outgoing: Outgoing, sender: Session | None = None) -> None:
        """Deliver to every member but `sender`; a member above the soft bound goes without, and is told.

        An event stops at half of that, and nobody is told of it: the next count has what matters.
        """
        is_event = not outgoing.msg_id
        soft = self._soft // 2 if is_event else self._soft
        dropped = 0
        members = room.members
        push = self._push
        for session in members:
            if session is sender:
                continue
            if session.outbox.size >= soft:
                dropped += 1
                if not is_event:
                    session.tell_gap()
                continue
            if not is_event:
                session.outbox.gap = False
            push(session, outgoing)
        metrics = self._metrics
        metrics.deliveries_dropped += dropped
        metrics.deliveries += len(members) - dropped - (sender in members)

    def _push(self, session: Session, outgoing: Outgoing) -> None:
        key = session.splice
        spliced = outgoing.spliced.get(key)
        if spliced is None:
            spliced = outgoing.splice(session.wire, key & _WIDTH_MASK, key)
        head, tail, size = spliced
        session.outbox.push_spliced(head, session.digits, tail, size)
        msg_id = outgoing.msg_id
        if msg_id:
            room, direct = session.room_in_flight, session.direct_in_flight
            if (len(room) if room else 0) + (len(direct) if direct else 0) >= self._window:
                evict_oldest(room, direct)
                self._metrics.in_flight_evicted += 1
            if outgoing.is_direct:
                if direct is None:
                    direct = session.direct_in_flight = {}
                direct[msg_id] = outgoing
            else:
                if room is None:
                    room = session.room_in_flight = {}
                room[msg_id] = outgoing
