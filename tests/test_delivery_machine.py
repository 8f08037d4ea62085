"""What is promised about messages, whatever happens, in whichever order: the synchronous core, with time in the hand.

People log in, chat, read late, lose connections and acknowledgements; the tasks that write and read the database stand
still between any two of their steps; commits fail, and nobody knows whether they happened; the server is killed. Each
client writes down what it sent and saw, and `history` judges.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar
from unittest.mock import patch

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import func, select

from harness import ACK, APP, BIZ, DIRECT, ERROR, HEARTBEAT, LOGOUT, ROOM, ROOM_CHAT, Client, Harness, Received
from history.judge import judge
from history.record import History, Room, Target, User
from memory_database import MemoryStore
from qiyu.model import Instant
from qiyu.routing.endpoint import Endpoint
from qiyu.routing.inflight import owed_by
from qiyu.routing.session import Session
from qiyu.services import replay, rings
from qiyu.services.batch import Batch, Phase, Settle, Store
from qiyu.services.catch_up import Loaded, RoomKey, Wanted
from qiyu.services.message import Message
from qiyu.storage.messages import Stored, inbox_page, read_pages, users_with_inbox
from qiyu.storage.tables import t_im_inbox

USERS = (10_001, 10_002, 10_003, 10_004)
ROOMS = (1, 2)
RETRY_SECONDS = 4.0
PICK = st.integers(0, 1000)
ASKS = st.lists(st.sampled_from([True, True, False]), min_size=1, max_size=6)
TROUBLE = st.sampled_from(["hang up", "hang up unread", "acks lost", "acks lost", "kill", "kill unread", *[""] * 4])
OUTCOME = st.sampled_from(["commit", "commit", "commit", "fail", "fail committed", "bug", "bug committed"])


@dataclass(eq=False)
class Said:
    """A message as its sender keeps it, for as long as it may have to send it again."""

    key: str
    sender: int
    target: Target
    content: str
    client_msg_id: str
    receipted: bool = False


@dataclass(eq=False)
class Connection:
    """One connection of a user, and what the client there remembers."""

    name: str
    user: int
    peer: Client
    room: int | None = None
    """Where it has asked to be."""
    entries: list[tuple[int | None, str]] = field(default_factory=list)
    """Rooms it has asked for, each with its afterMsgId, and not been answered."""
    unconfirmed: list[str] = field(default_factory=list)
    heartbeats: list[list[str]] = field(default_factory=list)
    """What each that was not answered will confirm."""


@dataclass(eq=False)
class Person:
    """What a client remembers over all its connections."""

    user: int
    said: list[Said] = field(default_factory=list)
    seen: dict[int, list[str]] = field(default_factory=dict)
    """By room, the msgIds of others' messages, as they came."""
    to_acknowledge: list[str] = field(default_factory=list)
    """Whichever connection they came on."""
    not_acknowledged: list[str] = field(default_factory=list)
    """Those whose ACK was lost."""


class Delivering(RuleBasedStateMachine):
    """Whatever happens, what is promised is kept."""

    sections: ClassVar[dict[str, dict[str, Any]]] = {}
    constants: ClassVar[dict[str, int]] = {}

    def __init__(self) -> None:
        super().__init__()
        self.patches = ExitStack()
        for name, value in self.constants.items():
            self.patches.enter_context(patch(name, value))
        self.history = History()
        self.people = {user: Person(user) for user in USERS}
        self.connections: list[Connection] = []
        self.count = 0
        self.prompt = True
        self.store = MemoryStore(self.sections.get("messages", {}).get("inbox", 1000))
        self._start(Instant(1_000.0, 1_750_000_000_000))

    def _start(self, now: Instant) -> None:
        sections = {"session": {"heartbeat_seconds": 86_400}} | self.sections
        self.harness = Harness(self.store, **sections)
        self.harness.now = now
        self.harness.stores_at_once = False
        self.writing: Batch | None = None
        self.reading: Callable[[], None] | None = None
        """What is to be done with what was read."""

    @initialize(wires=st.tuples(*[st.booleans()] * len(USERS)), prompt=st.booleans())
    def begin(self, wires: tuple[bool, ...], prompt: bool) -> None:
        """`prompt`: nobody reads so late that a copy could be thought to have come too soon."""
        self.prompt = prompt
        for user, ws in zip(USERS, wires, strict=True):
            self._log_in(user, ws=ws, room=ROOMS[0])

    # Clients come and go

    @rule(who=PICK, ws=st.booleans(), room=st.sampled_from((None, *ROOMS)))
    def log_in(self, who: int, ws: bool, room: int | None) -> None:
        self._log_in(USERS[who % len(USERS)], ws=ws, room=room)

    @precondition(lambda self: self.connections)
    @rule(who=PICK, room=st.sampled_from((*ROOMS, *ROOMS, None)), back=st.integers(-1, 6))
    def enter(self, who: int, room: int | None, back: int) -> None:
        """After the last message seen there, or one before it; with -1, without. Or leave."""
        connection = self._any(who)
        if room is not None:
            self._enter(connection, room, back)
            return
        connection.entries.append((None, ""))
        connection.room = None
        connection.peer.send(ROOM, data={"roomId": None})

    # Clients speak

    @precondition(lambda self: self.connections)
    @rule(who=PICK, asks=ASKS)
    def say(self, who: int, asks: list[bool]) -> None:
        connection = self._any(who)
        room = connection.room if connection.room is not None else ROOMS[who % len(ROOMS)]
        for each in asks:
            self._send(connection, self._new(connection.user, Room(room), asks=each))

    @precondition(lambda self: self.connections)
    @rule(who=PICK, to=PICK, asks=ASKS)
    def tell(self, who: int, to: int, asks: list[bool]) -> None:
        connection = self._any(who)
        for each in asks:
            self._send(connection, self._new(connection.user, User(USERS[to % len(USERS)]), asks=each))

    @precondition(lambda self: self._repeatable())
    @rule(who=PICK, which=PICK, newest=st.booleans())
    def say_again(self, who: int, which: int, newest: bool) -> None:
        """On whichever connection, whether there was a receipt or not."""
        repeatable = self._repeatable()
        connection, said = repeatable[-1 - which % min(4, len(repeatable)) if newest else which % len(repeatable)]
        self._send(connection, said)

    @precondition(lambda self: self.connections)
    @rule()
    def repair(self) -> None:
        """As a good client does: what has no receipt is sent again, in order."""
        for connection, said in self._repeatable():
            if not said.receipted:
                self._send(connection, said)

    # Clients listen

    @precondition(lambda self: self.connections)
    @rule(who=PICK, capacity=st.integers(0, 2000))
    def read_some(self, who: int, capacity: int) -> None:
        connection = self._any(who)
        connection.peer.flush(capacity, 700)
        self._take(connection, connection.peer.decoded())

    @rule()
    def everybody_reads(self) -> None:
        for connection in list(self.connections):
            self._read(connection)

    @precondition(lambda self: self.connections)
    @rule(who=PICK, how_many=st.integers(1, 20), twice=st.booleans(), then=st.booleans())
    def acknowledge(self, who: int, how_many: int, twice: bool, then: bool) -> None:
        connection = self._any(who)
        acknowledged = self.people[connection.user].to_acknowledge[:how_many]
        for _ in range(1 + twice):
            self._acknowledge(connection, acknowledged)
        if then:
            self._heartbeat(connection)

    @rule()
    def everybody_acknowledges(self) -> None:
        """All that has come, and waits for the word that this was taken."""
        for connection in list(self.connections):
            self._acknowledge_all(connection)

    @precondition(lambda self: self.connections)
    @rule(who=PICK, ws=st.booleans(), times=st.integers(0, 3))
    def acknowledge_and_come_again(self, who: int, ws: bool, times: int) -> None:
        """With the word that the ACK was taken; whether it was written, or when, nobody says."""
        connection = self._any(who)
        self._acknowledge_all(connection)
        self._log_in(connection.user, ws=ws, room=None)
        self.look_up(times)

    # The database, step by step

    @precondition(lambda self: self.writing is not None or not self.harness.node.message_queue.is_idle)
    @rule(outcome=OUTCOME, how_many=st.integers(1, 10))
    def write_on(self, outcome: str, how_many: int) -> None:
        """The next step of the task that writes."""
        if self.writing is None:
            self.writing = self.harness.take()
        else:
            self._write_on(self.writing, outcome, how_many)

    @rule(times=st.integers(1, 3))
    def write(self, times: int) -> None:
        """As it mostly goes."""
        for _ in range(times):
            self._write()

    @rule(fails=st.sampled_from([False, False, False, True]))
    def read_on(self, fails: bool) -> None:
        """The next step of the task that reads: rooms, then whose inboxes hold anything, then a page of one."""
        if self.reading is not None:
            self._have_read()
            return
        for begin in (self._look_up_rooms, self._check_inboxes, self._read_inbox):
            begin(fails)
            if self.reading is not None:
                return

    @rule(times=st.integers(1, 5))
    def look_up(self, times: int) -> None:
        """As it mostly goes."""
        for _ in range(times):
            self._look_up()

    @rule()
    def all_goes_well(self) -> None:
        """What was said is stored, delivered and read."""
        self.write(3)
        self.look_up(3)
        self.everybody_reads()

    # Time, and the end of it

    @rule(seconds=st.sampled_from([0.25, 0.5, 1.0, 2.0, RETRY_SECONDS, 2 * RETRY_SECONDS]))
    def wait(self, seconds: float) -> None:
        self._wait(seconds)

    @precondition(lambda self: self.connections)
    @rule(who=PICK, what=TROUBLE, seconds=st.sampled_from([0.25, RETRY_SECONDS]))
    def trouble(self, who: int, what: str, seconds: float) -> None:
        """A connection, acknowledgements or the server are lost; and with them what was on its way, or not."""
        connection = self._any(who)
        person = self.people[connection.user]
        if what == "acks lost":
            person.not_acknowledged += person.to_acknowledge
            person.to_acknowledge = []
        elif what.startswith("hang up"):
            if what == "hang up":
                self._read(connection)
            if connection in self.connections:
                connection.peer.hang_up()
                self._gone(connection)
        elif what.startswith("kill"):
            if what == "kill":
                self.everybody_reads()
            now = self.harness.now
            self.history.killed(now.monotonic)
            self.connections.clear()
            self._start(Instant(now.monotonic + seconds, now.unix_ms + int(seconds * 1000)))
            for user in USERS[:2]:
                self._log_in(user, ws=False, room=None)

    # What must be true at any time

    @invariant()
    def what_is_counted_is_there(self) -> None:
        node = self.harness.node
        sessions = [connection.peer.session for connection in self.connections]
        assert node.in_flight.deliveries == sum(len(owed_by(session)) for session in sessions)
        assert all(session.waiting >= 0 for session in sessions)
        rings = node.rings._rings.values()
        assert all(ring.waiting >= 0 for ring in rings)
        assert sum(ring.size for ring in rings) == node.rings._size
        log = node.message_queue
        assert log._bytes == sum(len(message.data) for message in self._unsettled())

    def teardown(self) -> None:
        try:
            self._end()
        finally:
            self.patches.close()

    def _end(self) -> None:
        """Everybody is there, reads and acknowledges, until nothing is left."""
        for person in self.people.values():
            person.to_acknowledge += person.not_acknowledged
        self._drain()
        absent = set(USERS) - {connection.user for connection in self.connections}
        for user in absent | set(USERS[2:]):
            self._log_in(user, ws=user % 2 == 0, room=None)
            (connection,) = [each for each in self.connections if each.user == user and not each.peer.session.ended]
            self._drain()
            self._enter(connection, ROOMS[0], 0)
            self._drain()
        self._wait(RETRY_SECONDS)
        self._wait(RETRY_SECONDS)
        self._drain()
        faults = judge(self.history, retry_seconds=RETRY_SECONDS if self.prompt else 0.0)
        assert faults == [], self.history.to_jsonl()
        self._nothing_is_left()

    def _drain(self) -> None:
        before = None
        while before != (before := (len(self.history.events), self.harness.metrics.deliveries)):
            while self.harness.node.catch_up._wanted or not self.harness.node.message_queue.is_idle or self._look_up():
                self._write()
                self._look_up()
            self.harness.dispatcher.tick(self.harness.now)
            for connection in list(self.connections):
                self._read(connection)
                if connection in self.connections and (to_acknowledge := self.people[connection.user].to_acknowledge):
                    self._acknowledge(connection, to_acknowledge)
                    self._heartbeat(connection)

    def _nothing_is_left(self) -> None:
        node = self.harness.node
        assert node.message_queue.is_idle
        assert (node.message_queue._bytes, node.message_queue._pending) == (0, {})
        assert node.in_flight.deliveries == 0
        assert [connection.user for connection in sorted(self.connections, key=lambda each: each.user)] == list(USERS)
        for connection in self.connections:
            session = connection.peer.session
            assert (session.waiting, session.held, node.replays.is_replaying(session)) == (0, None, False)
            assert connection.entries == []
        assert (node.replays._new, node.replays._reading, node.replays._sending) == ({}, {}, {})
        assert all(ring.waiting == 0 for ring in node.rings._rings.values())
        assert len(node.redelivery) == 0
        with self.store.engine.begin() as c:
            assert c.scalar(select(func.count()).select_from(t_im_inbox)) == 0
        assert node.metrics.inbox_acks_dropped == node.metrics.connections_crashed == 0

    # How it is done

    def _any(self, who: int) -> Connection:
        """Mostly the newest of a user; those that ended and have not heard of it are among them."""
        return self.connections[who % len(self.connections)]

    def _at(self) -> float:
        return self.harness.now.monotonic

    def _log_in(self, user: int, *, ws: bool, room: int | None) -> None:
        log_in = self.harness.log_in_ws if ws else self.harness.log_in
        self.count += 1
        connection = Connection(f"{user}#{self.count}", user, log_in(user, room=room), room)
        self.connections.append(connection)
        self.history.connected(self._at(), connection=connection.name, user=user)
        if room is not None:
            self.history.entered(self._at(), connection=connection.name, user=user, room=room)

    def _gone(self, connection: Connection) -> None:
        self.connections.remove(connection)
        self.history.disconnected(self._at(), connection=connection.name)

    def _enter(self, connection: Connection, room: int, back: int) -> None:
        seen = self.people[connection.user].seen.get(room, [])
        after = "" if back < 0 else (seen[max(len(seen) - 1 - back, 0)] if seen else "1")
        connection.entries.append((room, after))
        connection.room = room
        data = {"roomId": room} | ({"afterMsgId": after} if after else {})
        connection.peer.send(ROOM, clientMsgId=f"room {room}", data=data)

    def _new(self, sender: int, target: Target, *, asks: bool) -> Said:
        self.count += 1
        key = f"m{self.count}"
        said = Said(key, sender, target, f"content of {key}", key if asks else "")
        self.people[sender].said.append(said)
        return said

    def _send(self, connection: Connection, said: Said) -> None:
        self.history.sent(
            self._at(),
            connection=connection.name,
            sender=said.sender,
            key=said.key,
            content=said.content,
            target=said.target,
            client_msg_id=said.client_msg_id,
        )
        is_direct = isinstance(said.target, User)
        to = {"objectId" if is_direct else "roomId": said.target.id}
        fields = {"clientMsgId": said.client_msg_id} if said.client_msg_id else {}
        biz_code = DIRECT if is_direct else ROOM_CHAT
        connection.peer.send(BIZ, bizCode=biz_code, data=to | {"content": said.content}, **fields)

    def _repeatable(self) -> list[tuple[Connection, Said]]:
        newest = {connection.user: connection for connection in self.connections}
        return [
            (connection, said)
            for user, connection in newest.items()
            for said in self.people[user].said
            if said.client_msg_id
        ]

    def _acknowledge(self, connection: Connection, msg_ids: Iterable[str]) -> None:
        acknowledged = list(msg_ids)
        if not acknowledged:
            return
        for msg_id in acknowledged:
            self.history.acknowledged(self._at(), connection=connection.name, user=connection.user, msg_id=msg_id)
        first, *more = acknowledged
        connection.peer.send(ACK, msgId=first, **({"data": more} if more else {}))
        connection.unconfirmed += acknowledged
        person = self.people[connection.user]
        person.to_acknowledge = [each for each in person.to_acknowledge if each not in acknowledged]

    def _acknowledge_all(self, connection: Connection) -> None:
        self._read(connection)
        if connection in self.connections:
            self._acknowledge(connection, self.people[connection.user].to_acknowledge)
            self._heartbeat(connection)
            self._read(connection)

    def _heartbeat(self, connection: Connection) -> None:
        connection.heartbeats.append(connection.unconfirmed)
        connection.unconfirmed = []
        connection.peer.send(HEARTBEAT)

    def _read(self, connection: Connection) -> None:
        self._take(connection, connection.peer.receive())

    def _take(self, connection: Connection, packets: list[Received]) -> None:
        for packet in packets:
            self._take_one(connection, packet)
        if connection.peer.shut and connection in self.connections:
            self._gone(connection)

    def _take_one(self, connection: Connection, packet: Received) -> None:
        at, name, user, body = self._at(), connection.name, connection.user, packet.body
        if packet.code == BIZ:
            self._received(connection, packet)
        elif packet.code == ACK:
            client_msg_id = body["clientMsgId"]
            self.history.receipted(at, connection=name, sender=user, client_msg_id=client_msg_id, msg_id=body["msgId"])
            for said in self.people[user].said:
                said.receipted |= said.client_msg_id == client_msg_id
        elif packet.code == ROOM:
            room, after = connection.entries.pop(0)
            data = packet.data
            assert data["roomId"] == room
            assert ("recovered" in data) == bool(after)
            if room is None:
                self.history.left(at, connection=name)
            else:
                recovered = data.get("recovered")
                self.history.entered(at, connection=name, user=user, room=room, after=after, recovered=recovered)
        elif packet.code == HEARTBEAT:
            for msg_id in connection.heartbeats.pop(0):
                self.history.acknowledged(at, connection=name, user=user, msg_id=msg_id, confirmed=True)
        elif packet.code == ERROR:
            self._refused(connection, packet.data["code"], body.get("clientMsgId", ""))
        else:
            assert packet.code == LOGOUT
            assert packet.data["reason"] in {"replaced", "slow"}

    def _received(self, connection: Connection, packet: Received) -> None:
        data, msg_id, user = packet.data, packet.body["msgId"], connection.user
        target: Target = Room(data["roomId"]) if "roomId" in data else User(data["objectId"])
        self.history.received(
            self._at(),
            connection=connection.name,
            user=user,
            msg_id=msg_id,
            sender=data["userId"],
            target=target,
            content=data["content"],
        )
        if msg_id not in (to_acknowledge := self.people[connection.user].to_acknowledge):
            to_acknowledge.append(msg_id)
        if isinstance(target, Room):
            self.people[user].seen.setdefault(target.id, []).append(msg_id)

    def _refused(self, connection: Connection, code: int, client_msg_id: str) -> None:
        if code == 206:
            self.history.dropped(self._at(), connection=connection.name)
        elif client_msg_id.startswith("room"):
            connection.entries.pop(0)
        else:
            self.history.refused(
                self._at(),
                connection=connection.name,
                sender=connection.user,
                code=code,
                client_msg_id=client_msg_id,
            )

    def _unsettled(self) -> list[Message]:
        queue = self.harness.node.message_queue._queue
        return [*queue, *self.writing._unsettled, *self.writing._again] if self.writing is not None else [*queue]

    def _write(self) -> None:
        """One batch, or what is left to do of one."""
        if self.writing is None and self.harness.node.message_queue.is_idle:
            return
        self.harness.finish(self.writing or self.harness.take())
        self.writing = None

    def _write_on(self, batch: Batch, outcome: str, how_many: int) -> None:
        """The step that is due. It may fail, and a transaction be committed all the same; or it comes upon a bug."""
        step = batch.next()
        committed = outcome.endswith("committed") and isinstance(step, Store)
        if isinstance(step, Settle):
            for _ in range(how_many):
                if isinstance(batch.next(), Settle):
                    self.harness.store.take_step(batch, self.harness.now)
        elif outcome.startswith("fail"):
            self.harness.lose(batch, committed=committed)
        elif outcome.startswith("bug") and batch.phase is Phase.STORING:
            self.harness.lose(batch, committed=committed, why=ZeroDivisionError())
        else:
            self.harness.store.take_step(batch, self.harness.now)
        if batch.next() is None:
            self.writing = None

    def _look_up(self) -> bool:
        """Whether there was anything."""
        found = False
        for begin in (self._look_up_rooms, self._check_inboxes, self._read_inbox):
            self._have_read()
            begin(False)
            found |= self.reading is not None
        self._have_read()
        return found

    def _look_up_rooms(self, fails: bool) -> None:
        node = self.harness.node
        if node.message_queue.failing:
            self._resume(node.catch_up.take_all())
            return
        wanted = node.catch_up.take()
        if wanted:
            with self.store.engine.begin() as c:
                pages = {} if fails else read_pages(c, wanted, after=0, limit=rings.RING_MESSAGES)
            self.reading = partial(self._loaded, wanted, pages)

    def _check_inboxes(self, fails: bool) -> None:
        sessions = self.harness.node.replays.take_new()
        if sessions:
            with self.store.engine.begin() as c:
                found = users_with_inbox(c, {(session.app_id, session.user_id) for session in sessions})
            put_back = partial(self.harness.node.replays.put_back, sessions)
            self.reading = put_back if fails else partial(self._checked, sessions, found)

    def _read_inbox(self, fails: bool) -> None:
        node = self.harness.node
        wanted = node.replays.take_page()
        if wanted is not None:
            session, after = wanted
            with self.store.engine.begin() as c:
                rows = inbox_page(c, APP, session.user_id, after=after, limit=replay.PAGE_MESSAGES)
            put_back = partial(node.replays.put_back_page, session)
            self.reading = put_back if fails else partial(self._page, session, rows)

    def _have_read(self) -> None:
        reading, self.reading = self.reading, None
        if reading is not None:
            reading()

    def _loaded(self, wanted: dict[RoomKey, Wanted], pages: dict[RoomKey, list[Stored]]) -> None:
        for key, rows in pages.items():
            self.harness.node.catch_up.loaded(key, wanted[key], rows, 0)
        self._resume([entry for room in wanted.values() for entry in room.entries])

    def _resume(self, entries: list[tuple[Endpoint, Loaded]]) -> None:
        for session, loaded in entries:
            self.harness.dispatcher.resume(session, loaded, self.harness.now)

    def _checked(self, sessions: list[Session], found: set[tuple[int, int]]) -> None:
        for session in sessions:
            is_empty = (session.app_id, session.user_id) not in found
            self.harness.node.replays.checked(session, self.harness.now, is_empty=is_empty)

    def _page(self, session: Session, rows: list[Stored]) -> None:
        self.harness.node.replays.page(session, rows, self.harness.now)

    def _wait(self, seconds: float) -> None:
        if self.prompt:
            for connection in list(self.connections):
                self._read(connection)
        self.harness.advance(seconds)
        if self.prompt:
            for connection in list(self.connections):
                self._read(connection)


class DeliveringInLittleRoom(Delivering):
    """The same where all that has a bound comes to it."""

    sections: ClassVar[dict[str, dict[str, Any]]] = {
        "limits": {"outbox_soft_bytes": 1500, "outbox_hard_bytes": 6000},
        "messages": {"inbox": 3, "queue": 8, "recent_bytes": 5000},
        "ack": {"window": 3, "deliveries": 8},
    }
    constants: ClassVar[dict[str, int]] = {
        "qiyu.services.message_queue.BATCH_MESSAGES": 3,
        "qiyu.services.inbox_acks.BATCH_ACKS": 2,
        "qiyu.services.queue_shares.WAITING_OF_USER": 5,
        "qiyu.services.rings.RING_MESSAGES": 6,
        "qiyu.services.catch_up.RING_MESSAGES": 6,
        "qiyu.services.catch_up.CATCH_UP_MESSAGES": 4,
        "qiyu.services.replay.PAGE_MESSAGES": 2,
        "qiyu.services.replay.PACE_BYTES": 700,
        "qiyu.services.replay.CHECKED_AT_ONCE": 2,
        "qiyu.services.deferral.DEFERRED_MESSAGES": 2,
    }


TestDelivering = pytest.mark.property(Delivering.TestCase)
TestDeliveringInLittleRoom = pytest.mark.property(DeliveringInLittleRoom.TestCase)
