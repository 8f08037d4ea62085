"""How a message reaches its receivers here: into each one's outbox and in-flight table, or counted as dropped."""

from __future__ import annotations

from qiyu.metrics import Metrics
from qiyu.routing.feed import WIDTH_MASK, Feed, Share
from qiyu.routing.inflight import InFlight
from qiyu.routing.outbox import Outboxes
from qiyu.routing.publication import Kind, Publication
from qiyu.routing.session import Room, Session


class Router:
    """Fans packets out."""

    def __init__(self, outboxes: Outboxes, in_flight: InFlight, metrics: Metrics) -> None:
        self._outboxes = outboxes
        self._limits = outboxes.limits
        self._soft = outboxes.limits.soft
        self._in_flight = in_flight
        self._metrics = metrics
        outboxes.on_change.append(self._read_limits)

    def _read_limits(self) -> None:
        self._soft = self._outboxes.limits.soft

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
        feed = room.feed
        if feed is None or not feed.space or not feed.followers:
            feed = self._open(room, sender)
        elif sender is not None and sender.room is room:
            sender.outbox.split_off()
        if feed.followers and not feed.admits(publication, self._limits.bound(publication.kind), self._limits.hard):
            _split_off_all(room)
        shared = feed.followers
        apart = [session for session in feed.apart if session is not sender]  # who leaves the feed below has it already
        if shared:
            self._outboxes.grew(feed.add(publication))
            if publication.msg_id:
                self._in_flight.note_shared(room, feed, publication)
        self._metrics.deliveries_shared += shared
        self._metrics.deliveries += shared
        if apart:
            self._to_each(apart, publication)
        if publication.msg_id:
            room.last_msg_id = publication.msg_id

    def _to_each(self, receivers: list[Session], publication: Publication) -> None:
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

    def _open(self, room: Room, sender: Session | None) -> Feed:  # unrolled
        """Begin a turn of the room with a packet of `sender`: all others that are owed nothing follow.

        A follower's window has space for the whole turn.
        """
        before = room.feed
        if before is not None:
            before.close()
        in_flight = self._in_flight
        space = in_flight.shared_space
        bound = in_flight.range_bound
        feed = room.feed = Feed(room.log, space)
        start = feed.start
        followers = 0
        shares = feed.shares
        key = -1  # the `splice` of no session
        share: Share
        for session in room.members:
            outbox = session.outbox
            if outbox.follower is not None:  # the turn before is still to be sent to it
                outbox.split_off()
            if outbox.parts is not None or outbox.gap or session is sender:
                feed.apart[session] = None
                continue
            # Most have nothing in flight, or little and in a range: there is space.
            if (
                session.room_in_flight or session.direct_in_flight or start - session.range_start > bound
            ) and not in_flight.has_space(session, space):
                feed.apart[session] = None
                continue
            # Its range goes on where it ends, unless it went without something.
            last = session.feed
            if last is None or session.range_start == last.end:
                session.range_start = start
            elif last.end != start:
                session.write_out()
                session.range_start = start
            session.feed = feed
            if session.splice != key:
                key = session.splice
                share = shares.get(key) or feed.share_of(session)
            share.followers += 1
            followers += 1
            outbox.follower = session
            if not outbox.is_awake:
                outbox.is_awake = True
                outbox.wake(outbox)
        feed.followers = followers
        return feed

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
            waiting = outbox.held
            if waiting >= soft:  # and so is one that has overflowed; who has finished is no member
                slow.append(session)
                session.tell_gap()
                continue
            key = session.splice
            if key != kind:
                kind = key
                head, tail, size = spliced.get(key) or publication.splice(session.wire, key & WIDTH_MASK, key)
            parts = outbox.parts
            if parts is None:
                outbox.parts = [head, session.digits, tail]
            else:
                parts += (head, session.digits, tail)
            owed += size
            outbox.held = waiting = waiting + size
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
        bound = self._limits.bound(event.kind)
        slow = []
        for session in receivers:
            if session.outbox.size >= bound:
                slow.append(session)
            else:
                _push(session, event)
        return slow


def _split_off_all(room: Room) -> None:
    for session in room.members:
        session.outbox.split_off()


def _push(session: Session, publication: Publication) -> None:
    key = session.splice
    head, tail, size = publication.spliced.get(key) or publication.splice(session.wire, key & WIDTH_MASK, key)
    session.outbox.push_spliced(head, session.digits, tail, size)
