"""One process: the services of an instance, the tasks around them, and as much of a core as a cluster needs.

It is paused, killed, and started again. An instance that finds itself fenced ends its sessions as lost, and the process
joins anew, as another one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

from qiyu.errors import ErrorCode, PresenceUnavailable, Refused
from qiyu.metrics import Metrics
from qiyu.model import InstanceId
from qiyu.presence.memory import MemoryPresence
from qiyu.presence.presence import DropLease, Lease, Leases, RenewLease, Unpin, User
from qiyu.protocol import links
from qiyu.protocol.links import Forward, LinkMessage, StoredMessage, Subscribed
from qiyu.routing.msgid import MsgIds
from qiyu.services.directs import Committed, Directs
from qiyu.services.forwarding import Forwarder, Forwarding, Origin
from qiyu.services.homes import Homes, RoomHome, RoomKey, State
from qiyu.services.kicks import Kicks
from qiyu.services.leases import LeaseKeeper, LeaseRules
from qiyu.services.pins import Pins
from qiyu.services.presence_queue import Asked, PresenceQueue
from simulate.database import Database, IsFenced, Row
from simulate.network import End, Network
from simulate.room import LocalRoom, Ring
from simulate.session import Client, Session
from simulate.world import World

EPOCH_MS: Final = 1_750_000_000_000
TICK_SECONDS: Final = 0.1
PING_SECONDS: Final = 1.0
SILENT_SECONDS: Final = 3.0
DIAL_SECONDS: Final = 0.25
REJOIN_SECONDS: Final = 0.5
RING: Final = 200
PAGE: Final = 200
BATCH: Final = 20


@dataclass
class Cluster:
    """What the processes have in common."""

    world: World
    presence: MemoryPresence
    database: Database
    network: Network
    plant: str = ""
    """A rule that is broken on purpose."""
    numbers: count[int] = field(default_factory=lambda: count(1))
    servers: list[Server] = field(default_factory=list)

    def at(self, address: str) -> Server | None:
        return self.servers[int(address)] if address else None

    def living(self) -> list[Server]:
        return [server for server in self.servers if server.is_alive and not server.is_paused]


@dataclass(eq=False)
class Accepted:
    """A message on its way to the database, and everybody who waits for what becomes of it."""

    row: Row
    origins: list[Origin]


class Server:
    """A process on a host of its own."""

    def __init__(self, cluster: Cluster, host: int) -> None:
        self.cluster = cluster
        self.world = cluster.world
        self.host = host
        self.skew_ms = cluster.world.random.randint(-5_000, 5_000)
        self.is_alive = False
        self.is_paused = False
        self.is_blind = False
        """Cannot reach presence."""
        self.node: Node | None = None
        self._starts = 0
        self._deferred: list[Callable[[], None]] = []

    @property
    def me(self) -> InstanceId:
        assert self.node is not None
        return self.node.me

    @property
    def is_joined(self) -> bool:
        return self.node is not None

    def start(self) -> None:
        self.is_alive = True
        self._starts += 1
        self._join(self._starts)

    def kill(self) -> None:
        self.world.say(f"kill {self.node and self.node.me}")
        self.is_alive = self.is_paused = False
        self._deferred.clear()
        node, self.node = self.node, None
        if node is not None:
            node.is_over = True
            for session in list(node.sessions.values()):
                session.is_over = True
                self.world.soon(lambda session=session: session.client.ended(session, "killed"))  # type: ignore[misc]
            for end in node.all_ends:
                end.close()

    def stop(self) -> None:
        """In order."""
        if self.node is not None:
            self.node.drain()

    def pause(self) -> None:
        self.world.say(f"pause {self.node and self.node.me}")
        self.is_paused = True

    def resume(self) -> None:
        if self.is_paused:
            self.world.say(f"resume {self.node and self.node.me}")
        self.is_paused = False
        deferred, self._deferred = self._deferred, []
        for what in deferred:
            what()

    def do(self, what: Callable[[], None]) -> None:
        """Run it in this process: now, when it goes on, or never."""
        if self.is_paused:
            self._deferred.append(what)
        elif self.is_alive:
            what()

    def in_node(self, node: Node, what: Callable[[], None]) -> None:
        self.do(lambda: None if node.is_over else what())

    def host_is_cut(self, other: Any) -> bool:
        return self.cluster.network.is_cut(self.host, other.host)

    def fenced(self, node: Node) -> None:
        """This instance is none any longer."""
        if node.is_over:
            return
        self.world.say(f"{node.me} finds itself fenced")
        node.end("lost")
        self.node = None
        start = self._starts
        self.world.after(REJOIN_SECONDS, lambda: self._join(start))

    def _join(self, start: int) -> None:
        database = self.cluster.database

        def joined(me: InstanceId | Exception) -> None:
            if not self.is_alive or self._starts != start or self.node is not None:
                return
            if isinstance(me, InstanceId):
                self.world.say(f"host {self.host} joins as {me}")
                self.node = Node(self, me)
            else:
                self._join(start)

        database.transact(database.join, lambda me: self.do(lambda: joined(me)))

    # What the network calls

    def link_opened(self, link: End) -> None:
        if self.node is not None and link.wire._me == self.node.me:
            self.node.link_opened(link)
        else:
            link.close()

    def link_closed(self, link: End) -> None:
        if self.node is not None:
            self.node.link_closed(link)

    def link_received(self, link: End, message: LinkMessage) -> None:
        if self.node is not None:
            self.node.link_received(link, message)


class Node:
    """One instance: from joining to being fenced, stopped or killed."""

    def __init__(self, server: Server, me: InstanceId) -> None:
        self.server = server
        self.me = me
        self.cluster = server.cluster
        self.world = server.world
        self.database = server.cluster.database
        self.is_over = False
        self.metrics = Metrics()
        self.sessions: dict[User, Session] = {}
        self.rooms: dict[RoomKey, LocalRoom] = {}
        self.msg_ids = MsgIds(me.number)
        self.queue: list[Accepted] = []
        self.writing: list[Accepted] = []
        self.acks: list[tuple[User, int]] = []
        self.pending: dict[tuple[int, str], Accepted] = {}
        self.ends: dict[InstanceId, End] = {}
        self.all_ends: list[End] = []
        self.dialing: set[InstanceId] = set()
        self.is_asking_presence = False
        self.is_claiming = False
        self.is_releasing = False
        self.is_checking = False
        self.fencing: set[InstanceId] = set()
        self.is_draining = False
        self.ticked_second = 0.0

        rules = LeaseRules()
        self.asks = PresenceQueue(self.metrics, wake=self._ask_presence)
        self.leases = LeaseKeeper(me, rules, self.world.now, self._forgotten, self._departed)
        self.kicks = Kicks(
            self.send, self._end_replaced, self._write_again, self._others, self._is_gone, self._watch, self.metrics
        )
        self.pins = Pins(me, self.asks, self.kicks, self._must_wait, self._may_read_inbox, self._replaced, self.metrics)
        self.directs = Directs(
            me,
            self.asks,
            self.send,
            self.read_inbox,
            self._is_gone,
            self.kicks.kick_whomever,
            self._watch,
            self.metrics,
        )
        self.homes = Homes(me, self, self.send, self.has_link, self._watch, self.metrics, wake=self._ask_homes)
        self.forwarding = Forwarding(self.homes, self.send, self.accept_forward, self.metrics)
        self._tick()

    # Time

    def _tick(self) -> None:
        if self.is_over or not self.server.is_alive:
            return
        now = self.world.now
        self.leases.tick(now)
        if self.leases.is_superseded:
            self.server.fenced(self)
            return
        if self.leases.is_due(now):
            self._renew(now)
        if self.leases.row_check_is_due(now) and not self.is_checking:
            self._check_row()
        for whom in self.leases.to_fence(now):
            self._fence(whom)
        self.homes.tick(now)
        self.forwarding.tick(now)
        self._tend_links(now)
        if now - self.ticked_second >= 1.0:
            self.ticked_second = now
            is_reachable = self.leases.is_reachable(now)
            self.pins.tick(is_reachable=is_reachable)
            self.directs.tick(is_reachable=is_reachable)
        self._write()
        if self.is_draining and self.homes.is_idle and not (self.queue or self.writing or len(self.asks)):
            self._transact(lambda: self.database.fence(self.me, self.me), lambda _: self._drop_lease())
            return
        self.world.after(TICK_SECONDS, lambda: self.server.in_node(self, self._tick))

    def _drop_lease(self) -> None:
        self.asks.ask(DropLease(self.me), lambda _: self.server.kill())

    def unix_ms(self) -> int:
        return EPOCH_MS + self.server.skew_ms + int(self.world.now * 1000)

    # Presence

    def _ask_presence(self) -> None:
        if not self.is_asking_presence:
            self.is_asking_presence = True
            self.world.after(0, lambda: self.server.in_node(self, self._ask_now))

    def _ask_now(self) -> None:
        asked = self.asks.take()
        if not asked:
            self.is_asking_presence = False
            return
        world, presence = self.world, self.cluster.presence

        def answered(outcomes: Sequence[Any]) -> None:
            self.asks.answered(asked, outcomes)
            self._ask_now()

        def back(outcomes: Sequence[Any]) -> None:
            world.soon(lambda: self.server.in_node(self, lambda: answered(outcomes)))

        def execute() -> None:
            lost = [PresenceUnavailable("lost")] * len(asked)
            if self.server.is_blind:
                world.after(1.0, lambda: back(lost))
                return
            outcomes = self._execute(presence, asked)
            if world.chance(0.005):
                world.after(1.0, lambda: back(lost))
            else:
                back(outcomes)

        world.soon(execute)

    def _execute(self, presence: MemoryPresence, asked: Sequence[Asked]) -> Sequence[Any]:
        if self.cluster.plant == "unpin without compare":
            for request in (one.request for one in asked if isinstance(one.request, Unpin)):
                assert isinstance(request, Unpin)
                presence._pins.pop(request.user, None)
        return presence.execute([one.request for one in asked])

    def _renew(self, now: float) -> None:
        lease = self.leases.next_lease(
            Lease(
                number=self.me.number,
                incarnation=self.me.incarnation,
                link_address=str(self.server.host),
                connections=len(self.sessions),
                rooms=self.homes.here,
                is_draining=self.is_draining,
            )
        )

        def then(outcome: Any) -> None:
            if isinstance(outcome, Leases):
                self.leases.renewed(outcome, now, self.world.now)
            else:
                self.leases.failed(self.world.now)

        self.asks.ask(RenewLease(lease), then)

    def _forgotten(self) -> None:
        if hasattr(self, "pins"):
            self.pins.forgotten()

    # Instances

    def _check_row(self) -> None:
        self.is_checking = True

        def done(result: Any) -> None:
            self.is_checking = False
            if isinstance(result, IsFenced):
                self.server.fenced(self)
            else:
                self.leases.row_checked(self.world.now)

        self._transact(lambda: self.database.hold(self.me), done)

    def _fence(self, whom: InstanceId) -> None:
        if whom in self.fencing:
            return
        self.fencing.add(whom)

        def done(result: Any) -> None:
            self.fencing.discard(whom)
            if isinstance(result, Exception):
                return
            self.leases.fenced(whom)
            self.asks.ask(DropLease(whom), lambda _: None)

        self._transact(lambda: self.database.fence(self.me, whom), done)

    def _departed(self, whom: InstanceId) -> None:
        self.homes.fenced(whom)
        self.kicks.fenced(whom)
        if whom in self.ends:
            self.ends[whom].close()
        self.pins.doubt()
        for session in self.sessions.values():
            self._read(session)

    def _transact(self, work: Callable[[], Any], done: Callable[[Any], None]) -> None:
        def in_node(result: Any) -> None:
            if isinstance(result, IsFenced):
                self.server.fenced(self)
            else:
                done(result)

        self.database.transact(work, lambda result: self.server.in_node(self, lambda: in_node(result)))

    def _watch(self, instance: InstanceId) -> None:
        self.leases.watch(instance, self.world.now)

    def _is_gone(self, instance: InstanceId) -> bool:
        return self.leases.is_gone(instance)

    def _others(self) -> list[InstanceId]:
        return [watched.instance for watched in self.leases._others.values()]

    # Links

    def send(self, instance: InstanceId, message: LinkMessage) -> bool:
        end = self.ends.get(instance)
        return end is not None and end.send(message)

    def has_link(self, instance: InstanceId) -> bool:
        return instance in self.ends

    def _tend_links(self, now: float) -> None:
        for lease in list(self.leases.living(now)):
            if lease.instance not in self.ends and lease.instance not in self.dialing:
                self._dial(lease)
        for end in list(self.ends.values()):
            if now - end.answered_at > SILENT_SECONDS:
                end.close()
            elif end.pinged_at is None and now - end.answered_at >= PING_SECONDS:
                end.pinged_at = now
                self.directs.pinged(end.peer)
                end.send(links.Ping())

    def _dial(self, lease: Lease) -> None:
        self.dialing.add(lease.instance)

        def done(how: str) -> None:
            if how == "refused":
                self.leases.refused(lease.instance, self.world.now)
            else:
                self.leases.reached(lease.instance)
            self.world.after(DIAL_SECONDS, lambda: self.dialing.discard(lease.instance))

        at = self.cluster.at(lease.link_address)
        self.cluster.network.dial(
            self.server, lease.instance, at, lambda how: self.server.in_node(self, lambda: done(how))
        )

    def link_opened(self, link: End) -> None:
        self.all_ends.append(link)
        other = self.ends.get(link.peer)
        if other is not None:  # both have called: the connection that the lower number made stays
            by_lower = (link.wire.expects is not None) == (self.me < link.peer)
            if not by_lower:
                link.close()
                return
            self._forget(other)
            other.close()
        self.ends[link.peer] = link
        self._watch(link.peer)
        self.leases.reached(link.peer)
        self.kicks.link_opened(link.peer)
        self.homes.link_opened(link.peer, self.world.now)

    def link_closed(self, link: End) -> None:
        if self.ends.get(link.peer) is link:
            self._forget(link)

    def _forget(self, link: End) -> None:
        del self.ends[link.peer]
        self.directs.link_lost(link.peer)
        self.homes.link_lost(link.peer, self.world.now)

    def link_received(self, link: End, message: LinkMessage) -> None:  # noqa: C901, PLR0912  # a table
        if self.ends.get(link.peer) is not link:
            return
        sender, now = link.peer, self.world.now
        match message:
            case links.Ping():
                link.send(links.Pong())
            case links.Pong():
                link.answered_at = now
                link.pinged_at = None
                self.directs.answered(sender)
            case links.Subscribe():
                self._subscribe(sender, message)
            case links.Subscribed():
                self.homes.subscribed(sender, message)
            case links.Unsubscribe():
                self.homes.unsubscribe(sender, message)
            case links.NotHome():
                self.homes.not_home(sender, message, now)
            case links.Handover():
                self.homes.handover(sender, message)
            case links.Forward():
                if self.homes.accepts(sender, RoomKey(message.app_id, message.room_id)):
                    self.accept_forward(message, Forwarder(sender, message.reference, self.send))
            case links.Receipt():
                self.forwarding.receipted(sender, message)
            case links.Refusal():
                self.forwarding.refused(sender, message)
            case links.RoomMessage():
                self.homes.room_message(sender, message)
            case links.Direct():
                self._deliver_direct(User(message.app_id, message.receiver), message.message)
            case links.CheckInbox():
                self.read_inbox(User(message.app_id, message.user_id))
            case links.Kick():
                self.kicks.received(sender, message)
            case links.Kicked():
                self.kicks.answered(sender, message)
            case _:
                raise AssertionError(message)

    def _subscribe(self, sender: InstanceId, message: links.Subscribe) -> None:
        self.homes.subscribe(sender, message, self.world.now)
        room = self.homes.find(RoomKey(message.app_id, message.room_id))
        if self.cluster.plant == "answer before the subscription" and room is not None:
            members = room.subscribers.pop(sender, None)
            if members is not None:
                self.world.after(0.03, lambda: room.subscribers.update({sender: members}))

    # Homes

    def _ask_homes(self) -> None:
        self.world.after(0, lambda: self.server.in_node(self, self._ask_homes_now))

    def _ask_homes_now(self) -> None:
        if not self.is_claiming and (keys := self.homes.take_claims()):
            self.is_claiming = True

            def claimed(result: Any) -> None:
                self.is_claiming = False
                if isinstance(result, Exception):
                    self.homes.claims_failed(keys, self.world.now)
                else:
                    self.homes.claimed(result, self.world.now)
                self._ask_homes_now()

            self._transact(lambda: self.database.claim(self.me, keys), claimed)
        if not self.is_releasing and (releases := self.homes.take_releases()):
            self.is_releasing = True

            def released(result: Any) -> None:
                self.is_releasing = False
                gone = [release.key for release in releases]
                if isinstance(result, Exception):
                    self.homes.releases_failed(gone)
                else:
                    self.homes.released(gone, self.world.now)
                self._ask_homes_now()

            self._transact(lambda: self.database.release(self.me, releases), released)

    # The side of a room

    def _room(self, key: RoomKey) -> LocalRoom:
        if key not in self.rooms:
            self.rooms[key] = LocalRoom(key)
        return self.rooms[key]

    def became_home(self, key: RoomKey, after: int, last_msg_id: int) -> None:
        room = self._room(key)
        self.msg_ids.start_above(last_msg_id)
        if not room.members or room.ring is None:
            room.ring = Ring(last_msg_id)
            self._let_in(room)
        elif last_msg_id > after:
            self._fill(room, after, last_msg_id)
        else:
            self._let_in(room)
        self.forwarding.has_home(key)

    def joined(self, key: RoomKey, after: int, answer: Subscribed) -> None:
        room = self._room(key)
        if not room.members or room.ring is None:
            room.ring = Ring(answer.last_msg_id)
            self._let_in(room)
        elif not answer.is_complete and answer.last_msg_id > after:
            self._fill(room, after, answer.last_msg_id)
        else:
            for message in answer.missed:
                self.deliver(key, message)
            self._let_in(room)
        self.forwarding.has_home(key)

    def _fill(self, room: LocalRoom, after: int, up_to: int) -> None:
        """Members have all up to `after`: read what they missed, and keep what comes."""
        if room.filling_up_to is not None:  # that starts further back
            room.filling_up_to = up_to
            return
        room.filling_up_to = up_to

        def done(page: list[StoredMessage] | Exception) -> None:
            if room.filling_up_to is None or self.rooms.get(room.key) is not room:
                return
            if isinstance(page, Exception) or room.filling_up_to > up_to:
                again = room.filling_up_to
                room.filling_up_to = None
                self._fill(room, after, again)
                return
            kept, room.kept, room.filling_up_to = room.kept, [], None
            if len(page) > PAGE:
                for session in room.members:
                    session.tell(lambda session=session: session.client.dropped(session))  # type: ignore[misc]
                room.ring = Ring(page[-PAGE - 1].msg_id)
            for message in page[-PAGE:] + kept:
                self._deliver_now(room, message)
            self._let_in(room)

        self._transact(lambda: self.database.room_page(room.key, after, up_to), done)

    def deliver(self, key: RoomKey, message: StoredMessage) -> None:
        room = self._room(key)
        if room.filling_up_to is not None:
            room.kept.append(message)
        else:
            self._deliver_now(room, message)

    def _deliver_now(self, room: LocalRoom, message: StoredMessage) -> None:
        if room.ring is None:
            return
        room.ring.messages.append(message)
        if len(room.ring.messages) > RING:
            room.ring.floor = room.ring.messages.pop(0).msg_id
        for session in room.members:
            if session.user.user_id != message.sender and not session.is_catching_up:
                session.tell(lambda session=session: session.client.received(session, message))  # type: ignore[misc]

    def interrupted(self, key: RoomKey) -> None:
        self.forwarding.interrupted(key)

    def lost(self, key: RoomKey) -> None:
        room = self._room(key)
        for session in [*room.members, *(session for session, _ in room.waiting)]:
            self.end_session(session, "lost")

    def is_wanted(self, key: RoomKey) -> bool:
        room = self.rooms.get(key)
        return self.forwarding.has_pending(key) or (room is not None and bool(room.members or room.waiting))

    def members(self, key: RoomKey) -> int:
        room = self.rooms.get(key)
        return len(room.members) if room is not None else 0

    def is_settled(self, key: RoomKey) -> bool:
        return self._room(key).accepted == 0

    def counts(self, key: RoomKey) -> tuple[int, int]:
        return self.members(key), 0

    def since(self, key: RoomKey, after: int) -> Sequence[StoredMessage] | None:
        room = self._room(key)
        if room.ring is None or room.ring.floor > after or room.filling_up_to is not None:
            return None
        return room.ring.since(after)

    # What clients do

    def log_in(self, user: User, client: Client) -> Session:
        session = Session(self.world, user, next(self.cluster.numbers), client)
        older = self.sessions.get(user)
        self.sessions[user] = session
        if older is not None:
            self.end_session(older, "replaced")
        self.pins.log_in(user, session.number, self.unix_ms())
        session.tell(lambda: client.logged_in(session))
        if self.cluster.plant == "inbox before the pin":
            self._read(session)
        return session

    def enter(self, session: Session, key: RoomKey, after: int | None) -> None:
        if session.is_over or session.room == key:
            return
        self.leave(session)
        room = self._room(key)
        session.wanted = key
        room.waiting.append((session, after))
        self.homes.want(key, self.world.now)
        self._let_in(room)

    def leave(self, session: Session) -> None:
        for key in (session.room, session.wanted):
            if key is not None:
                room = self._room(key)
                room.members.pop(session, None)
                room.waiting = [item for item in room.waiting if item[0] is not session]
        session.room = session.wanted = None
        session.is_catching_up = False

    def _let_in(self, room: LocalRoom) -> None:
        if not self._is_live(room):
            return
        waiting, room.waiting = room.waiting, []
        for session, after in waiting:
            session.wanted = None
            session.room = room.key
            room.members[session] = None
            if after is None:
                self._entered(session, room, None, recovered=None, missed=[])
            else:
                self._catch_up(session, room, after)

    def _is_live(self, room: LocalRoom) -> bool:
        home = self.homes.find(room.key)
        return room.ring is not None and room.filling_up_to is None and home is not None and home.has_home

    def _entered(
        self,
        session: Session,
        room: LocalRoom,
        after: int | None,
        *,
        recovered: bool | None,
        missed: Sequence[StoredMessage],
    ) -> None:
        client = session.client
        session.tell(lambda: client.entered(session, room.key.room_id, after, recovered=recovered))
        for message in missed:
            if message.sender != session.user.user_id:
                session.tell(lambda message=message: client.received(session, message))  # type: ignore[misc]

    def _catch_up(self, session: Session, room: LocalRoom, after: int) -> None:
        assert room.ring is not None
        if after >= room.ring.floor:
            self._entered(session, room, after, recovered=True, missed=room.ring.since(after))
            return
        session.is_catching_up = True
        up_to = room.ring.floor

        def done(page: list[StoredMessage] | Exception) -> None:
            if session.is_over or session.room != room.key or not session.is_catching_up or room.ring is None:
                return
            if isinstance(page, Exception) or room.ring.floor > up_to:
                self._catch_up(session, room, after)
                return
            session.is_catching_up = False
            missed = [*page, *room.ring.since(up_to)]
            self._entered(session, room, after, recovered=len(missed) <= PAGE, missed=missed[-PAGE:])

        self._transact(lambda: self.database.room_page(room.key, after, up_to), done)

    def say(self, session: Session, key: RoomKey, content: str, client_msg_id: str) -> None:
        if session.is_over:
            return
        origin = Local(session, client_msg_id)
        if session.room != key:
            origin.refuse_at_once(Refused(ErrorCode.FORBIDDEN, "enter the room first"))
            return
        home = self.homes.want(key, self.world.now)
        place = key if home.state is not State.HOME else None
        message = Forward(0, *key, session.user.user_id, 5555, 0, content, "", "", client_msg_id)

        def start() -> bool:
            try:
                self._say(message, origin)
            except Refused as exc:
                origin.refuse_at_once(exc)
                return False
            return True

        session.order.submit(place, start)

    def _say(self, message: Forward, origin: Origin) -> None:
        key = RoomKey(message.app_id, message.room_id)
        home = self.homes.want(key, self.world.now)
        if home.state is State.HOME:
            self.accept_forward(message, origin)
        else:
            self.forwarding.forward(message, origin, self.world.now)

    def whisper(self, session: Session, to: User, content: str, client_msg_id: str) -> None:
        if session.is_over:
            return
        origin = Local(session, client_msg_id)

        def start() -> bool:
            self._accept(session.user.user_id, content, client_msg_id, None, to, origin)
            return True

        session.order.submit(None, start)

    def acknowledge(self, session: Session, msg_id: int) -> None:
        self.acks.append((session.user, msg_id))

    def hang_up(self, session: Session) -> None:
        self._close(session)

    def end_session(self, session: Session, reason: str) -> None:
        if not session.is_over:
            self._close(session)
            session.tell(lambda: session.client.ended(session, reason))

    def _close(self, session: Session) -> None:
        if session.is_over:
            return
        session.is_over = True
        self.leave(session)
        if self.sessions.get(session.user) is session:
            del self.sessions[session.user]
        self.pins.log_out(session.user, session.number)

    def end(self, reason: str) -> None:
        for session in list(self.sessions.values()):
            self.end_session(session, reason)
        self.is_over = True
        for link in self.all_ends:
            link.close()

    def drain(self) -> None:
        self.is_draining = True
        for session in list(self.sessions.values()):
            self.end_session(session, "drain")
        self.homes.drain()

    # Messages

    def accept_forward(self, message: Forward, origin: Origin) -> None:
        key = RoomKey(message.app_id, message.room_id)
        self._accept(message.sender, message.content, message.client_msg_id, key, None, origin)

    def _accept(
        self,
        sender: int,
        content: str,
        client_msg_id: str,
        room: RoomKey | None,
        receiver: User | None,
        origin: Origin,
    ) -> None:
        pending = self.pending.get((sender, client_msg_id))
        if client_msg_id and pending is not None:
            pending.origins.append(origin)
            return
        message = StoredMessage(self.msg_ids.next(self.unix_ms()), sender, 5555, content.encode())
        accepted = Accepted(Row(message, client_msg_id, room, receiver), [origin])
        if client_msg_id:
            self.pending[sender, client_msg_id] = accepted
        if room is not None:
            self._room(room).accepted += 1
        self.queue.append(accepted)
        self.world.after(0, lambda: self.server.in_node(self, self._write))

    def _write(self) -> None:
        if self.writing or not (self.queue or self.acks):
            return
        self.writing, self.queue = self.queue[:BATCH], self.queue[BATCH:]
        if not self.writing:
            acks, self.acks = self.acks, []
            self._transact(lambda: self.database.acknowledge(self.me, acks), lambda _: None)
            return
        rows = [accepted.row for accepted in self.writing]

        def done(result: Any) -> None:
            if isinstance(result, Exception):
                self._store_again(rows, done)
                return
            writing, self.writing = self.writing, []
            committed = []
            for accepted in writing:
                row = accepted.row
                self.pending.pop((row.message.sender, row.client_msg_id), None)
                if row.message.msg_id not in result:
                    self._deliver_stored(row)
                    if row.receiver is not None:
                        committed.append(Committed(row.receiver, row.message))
                if row.room is not None:
                    self._room(row.room).accepted -= 1
                for origin in accepted.origins:
                    origin.receipted(result.get(row.message.msg_id, row.message.msg_id))
            self.directs.committed(committed)
            self._write()

        self._transact(lambda: self.database.store(self.me, rows), done)

    def _store_again(self, rows: list[Row], done: Callable[[Any], None]) -> None:
        """Whether they were stored is not known: to store them once more tells."""
        self.world.after(
            0.05,
            lambda: self.server.in_node(self, lambda: self._transact(lambda: self.database.store(self.me, rows), done)),
        )

    def _deliver_stored(self, row: Row) -> None:
        if row.room is not None:
            self.deliver(row.room, row.message)
            self.homes.said(row.room, row.message)
        elif row.receiver is not None:
            self._deliver_direct(row.receiver, row.message)

    def _deliver_direct(self, receiver: User, message: StoredMessage) -> None:
        session = self.sessions.get(receiver)
        if session is None or message.msg_id in session.sent:
            return
        if session.is_replaying:
            session.deferred.append(message)
        else:
            self._send_direct(session, message)

    @staticmethod
    def _send_direct(session: Session, message: StoredMessage) -> None:
        if message.msg_id not in session.sent:
            session.sent.add(message.msg_id)
            session.tell(lambda: session.client.received(session, message))

    def read_inbox(self, user: User) -> None:
        session = self.sessions.get(user)
        if session is not None:
            self._read(session)

    def _read(self, session: Session) -> None:
        session.is_replaying = True
        session.reads += 1
        number = session.reads

        def done(page: list[StoredMessage] | Exception) -> None:
            if session.is_over or session.reads != number:
                return
            if isinstance(page, Exception):
                self._read(session)
                return
            session.is_replaying = False
            deferred, session.deferred = session.deferred, []
            for message in [*page, *deferred]:
                self._send_direct(session, message)

        self._transact(lambda: self.database.inbox(session.user), done)

    # What pins and kicks do

    def _must_wait(self, user: User, number: int) -> None:
        session = self.sessions.get(user)
        if session is not None and session.number == number:
            session.is_replaying = True
            session.reads += 1  # one that is under way is not enough

    def _may_read_inbox(self, user: User, number: int) -> None:
        session = self.sessions.get(user)
        if session is None or session.number != number:
            return
        if self.cluster.plant == "inbox before the pin":
            return
        self._read(session)

    def _replaced(self, user: User, number: int) -> None:
        self._end_replaced(user, number)

    def _end_replaced(self, user: User, number: int) -> None:
        session = self.sessions.get(user)
        if session is not None and session.number == number:
            self.end_session(session, "replaced")

    def _write_again(self, user: User) -> None:
        self.pins.write_again(user)

    def home(self, key: RoomKey) -> RoomHome | None:
        return self.homes.find(key)


class Local:
    """A session here, as the origin of a message."""

    def __init__(self, session: Session, client_msg_id: str) -> None:
        self.session = session
        self.client_msg_id = client_msg_id

    def receipted(self, msg_id: int) -> None:
        session = self.session
        if self.client_msg_id:
            session.tell(lambda: session.client.receipted(session, self.client_msg_id, msg_id))
        session.order.answered()

    def refused(self, refusal: Refused) -> None:
        self.refuse_at_once(refusal)
        self.session.order.answered()

    def refuse_at_once(self, refusal: Refused) -> None:
        session = self.session
        session.tell(lambda: session.client.refused(session, refusal, self.client_msg_id))
