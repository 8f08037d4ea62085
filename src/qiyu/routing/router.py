"""How a message reaches its receivers here: into each one's outbox and in-flight table, or counted as dropped."""

from __future__ import annotations

from qiyu.metrics import Metrics
from qiyu.routing.inflight import InFlight
from qiyu.routing.outbox import Outboxes
from qiyu.routing.publication import Kind, Publication
from qiyu.routing.session import WIDTH_BITS, Room, Session

_WIDTH_MASK = 2**WIDTH_BITS - 1


class Router:
    """Fans packets out."""

    def __init__(self, outboxes: Outboxes, in_flight: InFlight, metrics: Metrics) -> None:
        self._outboxes = outboxes
        self._soft = outboxes.limits.soft
        self._in_flight = in_flight
        self._metrics = metrics

    def to_session(self, session: Session, publication: Publication) -> bool:
        """Deliver to one session whatever it is owed already; above the hard bound the session ends instead.

        What it was sent and has not acknowledged it is not sent a second time here: False.
        """
        if publication.msg_id and not self._in_flight.note(session, publication):
            return False
        _push(session, publication)
        self._metrics.deliveries += 1
        return True

    def again(self, session: Session, publication: Publication) -> None:
        """Send once more what is in flight already, unless the peer does not even read what it is owed."""
        if session.outbox.size >= self._soft:
            return
        _push(session, publication)
        self._metrics.redeliveries += 1

    def to_room(self, room: Room, publication: Publication, sender: Session | None = None) -> None:
        """Deliver to every member but `sender`. What a slow member goes without, the packet's kind says."""
        receivers = list(room.members)
        if sender is not None and sender.room is room:
            receivers.remove(sender)
        if publication.kind is Kind.DROPPABLE:
            slow = self._push_room(receivers, publication)
        else:
            slow = self._tell_room(receivers, publication)
        if slow:
            went_without = set(slow)
            receivers = [session for session in receivers if session not in went_without]
        if publication.msg_id:
            self._in_flight.note_room(receivers, publication)
        self._metrics.deliveries_dropped += len(slow)
        self._metrics.deliveries += len(receivers)

    def _push_room(self, receivers: list[Session], publication: Publication) -> list[Session]:
        """Owe each of them a room message, but for those that are slow, which are told and returned."""
        soft = self._soft
        spliced = publication.spliced
        slow = []
        owed = 0
        head = tail = b""
        size = kind = 0  # the `splice` of no session that is logged in
        # The hottest loop there is, so what `_push` and `Outbox.push_spliced` do is written out in it. Most members
        # have the same kind of wire, and ids of the same width, as the one before.
        for session in receivers:
            outbox = session.outbox
            waiting = outbox.size
            if waiting >= soft:  # and so is one that has overflowed; who has finished is no member
                slow.append(session)
                session.tell_gap()
                continue
            key = session.splice
            if key != kind:
                kind = key
                head, tail, size = spliced.get(key) or publication.splice(session.wire, key & _WIDTH_MASK, key)
            parts = outbox.parts
            if parts is None:
                outbox.parts = [head, session.digits, tail]
            else:
                parts += (head, session.digits, tail)
            owed += size
            outbox.size = waiting = waiting + size
            if waiting > outbox.hard:
                outbox.overflow()
            elif not outbox.is_awake:
                outbox.is_awake = True
                outbox.wake(outbox)
            outbox.gap = False
        self._outboxes.grew(owed)
        return slow

    def _tell_room(self, receivers: list[Session], event: Publication) -> list[Session]:
        """Owe each of them an event, but for those that cannot take it, which are returned and told nothing."""
        bound = self._outboxes.limits.bound(event.kind)
        slow = []
        for session in receivers:
            if session.outbox.size >= bound:
                slow.append(session)
            else:
                _push(session, event)
        return slow


def _push(session: Session, publication: Publication) -> None:
    key = session.splice
    head, tail, size = publication.spliced.get(key) or publication.splice(session.wire, key & _WIDTH_MASK, key)
    session.outbox.push_spliced(head, session.digits, tail, size)
