"""One instance among others: what it asks of presence, the database and its links, and what those say.

An instance that is alone has none of this. It is where the state machines meet the rest of the core:

- `Sessions` pins and unpins users, and holds their inboxes until they are pinned;
- `Entering` waits until a room is ready; `Chat` has each message taken where its room is at home;
- `Settlement` says what is stored, which goes to subscribers and to where receivers are pinned.

Drivers (drivers/presence.py, drivers/links.py, drivers/homes.py, drivers/membership.py) carry out what is asked, and
call `received`, `link_opened`, `link_closed` and `tick`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from qiyu.errors import EndReason, ErrorCode, Refused
from qiyu.living.directory import RoomDirectory
from qiyu.metrics import Metrics
from qiyu.model import InstanceId, Instant, network_of
from qiyu.presence.presence import DropLease, FindPins, Lease, Leases, Pin, RenewLease, User
from qiyu.protocol.links import (
    CheckInbox,
    Counts,
    Direct,
    Forward,
    Handover,
    Kick,
    Kicked,
    LinkMessage,
    NotHome,
    Ping,
    Pong,
    Receipt,
    Refusal,
    RoomClosed,
    RoomEvent,
    RoomMessage,
    StoredMessage,
    Subscribe,
    Subscribed,
    Unsubscribe,
)
from qiyu.protocol.packet import APP_ID
from qiyu.routing.hub import Hub
from qiyu.routing.publication import Kind, Publication
from qiyu.routing.session import Session
from qiyu.services.answers import OriginSender, SessionOrigin
from qiyu.services.chat import Chat
from qiyu.services.directs import Committed, Directs
from qiyu.services.entering import Entering
from qiyu.services.forwarding import Forwarder, Forwarding, Origin
from qiyu.services.homes import Homes, RoomKey, State
from qiyu.services.kicks import Kicks
from qiyu.services.leases import LeaseKeeper
from qiyu.services.links import PING_SECONDS, SILENT_SECONDS, Link, Links
from qiyu.services.message import WRITING_ACKNOWLEDGED, Message, MessageContent
from qiyu.services.message_queue import MessageQueue
from qiyu.services.ordered_session import OrderedSession, submit
from qiyu.services.pins import Pins
from qiyu.services.presence_queue import Outcome, PresenceQueue
from qiyu.services.queue_shares import WAITING_OF_USER
from qiyu.services.replay import Replays
from qiyu.services.room_reports import RoomReports
from qiyu.services.rooms_here import RoomsHere
from qiyu.services.sender_order import HERE
from qiyu.services.sessions import Sessions
from qiyu.services.settlement import not_now

CONTENT_CHARS: Final = 100_000
"""What is longer fits into no packet of a link, whatever the limit is that clients are told of."""
SECOND: Final = 1.0


@dataclass(eq=False, slots=True)
class Cluster:
    """See above. `now` is the moment that it was last told."""

    me: InstanceId
    now: Instant
    metrics: Metrics
    hub: Hub
    sessions: Sessions
    replays: Replays
    chat: Chat
    directory: RoomDirectory
    rooms: RoomsHere
    presence: PresenceQueue
    leases: LeaseKeeper
    links: Links
    kicks: Kicks = field(init=False)
    pins: Pins = field(init=False)
    directs: Directs = field(init=False)
    homes: Homes = field(init=False)
    forwarding: Forwarding = field(init=False)
    reports: RoomReports = field(init=False)
    lease: Callable[[], Lease] = field(init=False)
    """What others are told of this instance, but for what is counted here."""
    is_draining: bool = False
    _committed: list[Committed] = field(default_factory=list)
    _second: float = 0.0
    _sent: dict[InstanceId, tuple[int, int]] = field(default_factory=dict)
    """How many clients were sent to an instance since its lease had so many renewals."""

    def __post_init__(self) -> None:
        me, send, metrics = self.me, self.links.send, self.metrics
        self.lease = lambda: Lease(number=me.number, incarnation=me.incarnation)
        self.leases.forgotten = self._forgotten
        self.leases.departed = self._departed
        self.kicks = Kicks(
            send,
            self._end_replaced,
            lambda user: self.pins.write_again(user),  # noqa: PLW0108  # they are not there yet
            self.leases.others,
            self.leases.is_gone,
            self._watch,
            metrics,
        )
        self.pins = Pins(
            me, self.presence, self.kicks, self._inbox_must_wait, self._inbox_may_be_read, self._end_replaced, metrics
        )
        self.directs = Directs(
            me,
            self.presence,
            send,
            self._read_inbox,
            self.leases.is_gone,
            self.kicks.kick_whomever,
            self._watch,
            metrics,
        )
        self.homes = Homes(me, self.rooms, send, self.links.has, self._watch, metrics, self.leases.rules.lease_seconds)
        self.forwarding = Forwarding(
            self.homes, send, self._take, metrics, give_up_seconds=self.leases.rules.lease_seconds
        )
        self.reports = RoomReports(self.homes, self.links, self.rooms.sessions.events)
        self.rooms.homes = self.homes
        self.rooms.forwarding = self.forwarding
        self.rooms.reports = self.reports

    def __repr__(self) -> str:
        return f"<Cluster {self.me} {self.links!r} {self.homes!r} {self.pins!r}>"

    def take_part(self, entering: Entering, queue: MessageQueue) -> None:
        """From here on the core asks and tells this one."""
        self.sessions.pins = self.pins
        self.sessions.make = OrderedSession
        self.chat.elsewhere = self
        self.rooms.catch_up.last_id = self.rooms.last_id
        self.sessions.events.elsewhere = self.reports
        entering.homes = self.rooms
        queue.settlement.elsewhere = self

    # Time

    def tick(self, now: Instant) -> None:
        """Several times a second."""
        self._at(now)
        self.leases.tick(now.monotonic)
        if self.leases.is_due(now.monotonic):
            self._renew(now.monotonic)
        self.homes.tick(now.monotonic)
        self.forwarding.tick(now.monotonic)
        self._tend_links(now.monotonic)
        if now.monotonic - self._second >= SECOND:
            self._second = now.monotonic
            is_reachable = self.leases.is_reachable(now.monotonic)
            self.pins.tick(is_reachable=is_reachable)
            self.directs.tick(is_reachable=is_reachable)
            self.reports.tick()

    def drain(self) -> None:
        """This instance is stopping: its homes go to others, who are told so at once."""
        self.is_draining = True
        self.homes.drain()
        self._renew(self.now.monotonic)

    @property
    def is_drained(self) -> bool:
        """Nothing is at home here, and nobody pinned."""
        return self.homes.is_idle and not len(self.presence) and not len(self.pins)

    def leave(self, then: Callable[[], None]) -> None:
        """At the very end: others need not wait for the lease to run out."""
        self.presence.ask(DropLease(self.me), lambda _: then())

    # What the core says

    def say(
        self, session: Session, content: MessageContent, client_msg_id: str, refusal: Refused | None, now: Instant
    ) -> None:
        """See `Elsewhere.say` in services/chat.py."""
        self._at(now)
        assert isinstance(session, OrderedSession)  # noqa: S101  # here, all are
        if len(content.content) > CONTENT_CHARS:
            raise Refused(
                ErrorCode.MALFORMED, f"content of {len(content.content)} characters: expected {CONTENT_CHARS} at most"
            )
        if session.waiting >= WAITING_OF_USER:
            raise not_now(f"{WAITING_OF_USER} messages of yours wait to be stored")

        def start() -> bool:
            if refusal is None and self._place(session.app_id, content.room_id) is not HERE:
                self._forward(session, content, client_msg_id)
                return True
            before = session.waiting
            self.chat.take(session, content, client_msg_id, refusal, self.now)
            return session.waiting > before

        place = HERE if refusal is not None else self._place(session.app_id, content.room_id)
        submit(session, place, start, client_msg_id, self.metrics)

    def stored(self, message: Message) -> None:
        """See `Elsewhere.stored` in services/settlement.py."""
        content = message.content
        stored = StoredMessage(message.msg_id, message.sender, content.biz_code, message.data)
        if content.room_id:
            self.homes.said(RoomKey(message.app_id, content.room_id), stored)
        elif message.status is not WRITING_ACKNOWLEDGED:
            self._committed.append(Committed(User(message.app_id, content.object_id), stored))
            if len(self._committed) == 1:
                self.presence.wake()

    def before_asking(self) -> None:
        """Presence is about to be asked: the pins of all receivers at once."""
        if self._committed:
            committed, self._committed = self._committed, []
            self.directs.committed(committed)

    def told_closed(self, room_id: int) -> None:
        """A living room was closed here: all others are told."""
        message = RoomClosed(APP_ID, room_id)
        for link in self.links:
            self.links.send(link.peer, message)

    # What whoever asks is told

    def find_pins(self, users: Iterable[User], then: Callable[[dict[User, Pin | None] | None], None]) -> None:
        """Where these users are: only those that a living instance has; None where presence does not answer."""
        wanted = tuple(users)

        def found(outcome: Outcome) -> None:
            if not isinstance(outcome, list):
                then(None)
                return
            pins = zip(wanted, outcome, strict=True)
            then({user: pin if pin is not None and self._lives(pin.instance) else None for user, pin in pins})

        self.presence.ask(FindPins(wanted), found)

    def least_loaded(self) -> Lease:
        """Where the next client is to go: of those that it can reach, who has the fewest connections and was sent the
        fewest clients since it last said so."""
        mine = self._my_lease()
        places = [lease for lease in self.living() if not lease.is_draining and self._can_be_told(lease)]
        chosen = min(places or [mine], key=lambda lease: (lease.connections + self._sent_there(lease), lease.number))
        self._sent[chosen.instance] = (chosen.renewals, self._sent_there(chosen) + 1)
        return chosen

    def reasons(self) -> list[str]:
        """Why this instance does not do all that it should."""
        found = []
        if not self.leases.is_reachable(self.now.monotonic):
            found.append("Redis does not answer: users of other instances may not be found")
        found += [f"no link to instance {lease.number}" for lease in self.to_dial()]
        if self.pins.unwritten:
            found.append(f"{self.pins.unwritten} users cannot be found by other instances yet")
        return found

    def living(self) -> list[Lease]:
        """The leases of all that live, this one's among them."""
        return [self._my_lease(), *self.leases.living(self.now.monotonic)]

    # Links

    def to_dial(self) -> list[Lease]:
        """Who lives, and has no link with this instance."""
        return [
            lease
            for lease in self.leases.living(self.now.monotonic)
            if lease.link_address and not self.links.has(lease.instance)
        ]

    def link_opened(self, link: Link, now: Instant) -> None:
        """Both sides have proved what they are."""
        self._at(now)
        other = self.links.find(link.peer)
        if not self.links.stays(link):
            link.hang_up("there is another link already")
            return
        if other is not None:
            self._lost(other)
            other.hang_up("there is another link")
        self.links.add(link)
        self._watch(link.peer)
        self.leases.reached(link.peer)
        self.kicks.link_opened(link.peer)
        self.homes.link_opened(link.peer, now.monotonic)

    def link_closed(self, link: Link, now: Instant) -> None:
        """It is no more, for whatever reason."""
        self._at(now)
        self._lost(link)

    def received(self, link: Link, message: LinkMessage, now: Instant) -> None:
        """Another instance says something."""
        if self.links.find(link.peer) is not link:
            return
        self._at(now)
        link.heard_at = now.monotonic
        self.metrics.link_packets_received += 1
        handle = _HANDLERS.get(type(message))
        if handle is not None:  # else it is of a later release
            handle(self, link, message)

    # Within

    def _at(self, now: Instant) -> None:
        self.now = self.rooms.now = now

    def _place(self, app_id: int, room_id: int) -> RoomKey | None:
        if not room_id:
            return HERE
        key = RoomKey(app_id, room_id)
        return HERE if self.homes.want(key, self.now.monotonic).state is State.HOME else key

    def _forward(self, session: OrderedSession, content: MessageContent, client_msg_id: str) -> None:
        message = Forward(
            0,
            session.app_id,
            content.room_id,
            session.user_id,
            content.biz_code,
            content.type,
            content.content,
            session.nickname,
            session.avatar,
            client_msg_id,
            network_of(session.address),
        )
        origin = SessionOrigin(session, client_msg_id, self.metrics)
        try:
            self.forwarding.forward(message, origin, self.now.monotonic)
        except Refused:
            origin.was_not_taken()
            raise

    def _take(self, message: Forward, origin: Origin) -> None:
        self.chat.take_forwarded(message, OriginSender(origin), self.now)

    def _renew(self, now: float) -> None:
        lease = self.leases.next_lease(self._my_lease())

        def then(outcome: Outcome) -> None:
            if isinstance(outcome, Leases):
                self.leases.renewed(outcome, now, self.now.monotonic)
            else:
                self.leases.failed(self.now.monotonic)

        self.presence.ask(RenewLease(lease), then)

    def _my_lease(self) -> Lease:
        return msgspec.structs.replace(
            self.lease(),
            number=self.me.number,
            incarnation=self.me.incarnation,
            renewals=self.leases.renewals,
            connections=len(self.hub),
            rooms=self.homes.here,
            is_draining=self.is_draining,
            links=len(self.links),
        )

    def _lives(self, instance: InstanceId) -> bool:
        return instance == self.me or self.leases.is_living(instance, self.now.monotonic)

    def _sent_there(self, lease: Lease) -> int:
        renewals, sent = self._sent.get(lease.instance, (0, 0))
        return sent if renewals == lease.renewals else 0

    def _can_be_told(self, lease: Lease) -> bool:
        """Without an address for clients, it is on this host or none of theirs."""
        if lease.tcp_address or lease.instance == self.me:
            return True
        return lease.link_address.rpartition(":")[0] == self.lease().link_address.rpartition(":")[0]

    def _forgotten(self) -> None:
        self.pins.forgotten()

    def _departed(self, whom: InstanceId) -> None:
        self.homes.fenced(whom)
        self.kicks.fenced(whom)
        link = self.links.find(whom)
        if link is not None:
            self._lost(link)
            link.hang_up("the instance has departed")
        self.pins.doubt()
        for session in list(self.hub):
            self.replays.read(session)

    def _watch(self, instance: InstanceId) -> None:
        self.leases.watch(instance, self.now.monotonic)

    def _tend_links(self, now: float) -> None:
        for link in self.links:
            if now - link.heard_at > SILENT_SECONDS:
                self._lost(link)
                link.hang_up("nothing has come for too long")
            elif link.pinged_at is None or now - link.pinged_at >= PING_SECONDS:
                self._ping(link, now)

    def _ping(self, link: Link, now: float) -> None:
        if link.is_answered:
            link.is_answered = False
            link.pinged_at = now
            self.directs.pinged(link.peer)
            self.links.send(link.peer, Ping())

    def _lost(self, link: Link) -> None:
        if self.links.remove(link):
            self.directs.link_lost(link.peer)
            self.homes.link_lost(link.peer, self.now.monotonic)

    def _of_user(self, user: User, number: int) -> Session | None:
        session = self.hub.find(*user)
        return session if session is not None and session.id == number else None

    def _end_replaced(self, user: User, number: int) -> None:
        session = self._of_user(user, number)
        if session is not None:
            self.metrics.sessions_replaced += 1
            self.sessions.end(session, EndReason.REPLACED)

    def _inbox_must_wait(self, user: User, number: int) -> None:
        session = self._of_user(user, number)
        if session is not None:
            self.replays.hold(session)

    def _inbox_may_be_read(self, user: User, number: int) -> None:
        session = self._of_user(user, number)
        if session is not None:
            self.replays.read(session)

    def _read_inbox(self, user: User) -> None:
        session = self.hub.find(*user)
        if session is not None:
            self.replays.read(session)

    # What comes over links

    def _pinged(self, link: Link, _message: Ping) -> None:
        self.links.send(link.peer, Pong())

    def _ponged(self, link: Link, _message: Pong) -> None:
        link.is_answered = True
        self.directs.answered(link.peer)

    def _forwarded(self, link: Link, message: Forward) -> None:
        if not self.homes.accepts(link.peer, RoomKey(message.app_id, message.room_id)):
            return
        origin = Forwarder(link.peer, message.reference, self.links.send)
        try:
            self._take(message, origin)
        except Refused as refusal:
            origin.refused(refusal)

    def _direct(self, _link: Link, message: Direct) -> None:
        stored = message.message
        publication = Publication(
            app_id=message.app_id,
            biz_code=stored.biz_code,
            data=stored.data,
            msg_id=str(stored.msg_id),
            kind=Kind.KEPT,
        )
        self.rooms.delivery.to_user(message.app_id, message.receiver, publication, self.now)

    def _check_inbox(self, _link: Link, message: CheckInbox) -> None:
        self._read_inbox(User(message.app_id, message.user_id))

    def _closed(self, _link: Link, message: RoomClosed) -> None:
        if message.app_id == APP_ID:
            self.directory.closed_elsewhere(message.room_id, self.now)


_HANDLERS: Final[dict[type[LinkMessage], Callable[[Cluster, Link, Any], None]]] = {
    Ping: Cluster._pinged,  # a table of its own methods
    Pong: Cluster._ponged,
    Subscribe: lambda it, link, message: it.homes.subscribe(link.peer, message, it.now.monotonic),
    Subscribed: lambda it, link, message: it.homes.subscribed(link.peer, message),
    Unsubscribe: lambda it, link, message: it.homes.unsubscribe(link.peer, message),
    NotHome: lambda it, link, message: it.homes.not_home(link.peer, message, it.now.monotonic),
    Handover: lambda it, link, message: it.homes.handover(link.peer, message),
    Forward: Cluster._forwarded,
    Receipt: lambda it, link, message: it.forwarding.receipted(link.peer, message),
    Refusal: lambda it, link, message: it.forwarding.refused(link.peer, message),
    RoomMessage: lambda it, link, message: it.homes.room_message(link.peer, message),
    Direct: Cluster._direct,
    CheckInbox: Cluster._check_inbox,
    Kick: lambda it, link, message: it.kicks.received(link.peer, message),
    Kicked: lambda it, link, message: it.kicks.answered(link.peer, message),
    RoomEvent: lambda it, link, message: it.reports.event(link.peer, message),
    Counts: lambda it, link, message: it.reports.counts(link.peer, message),
    RoomClosed: Cluster._closed,
}
