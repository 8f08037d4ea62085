"""Hub, Router, Outbox and the inbox against a plain model of them.

Every step is done twice: by clients and a driver to the server, and to the model, which is lists and dictionaries and
predicts each packet that each client is to get, with its size, its place, and whether there is room for it at all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from harness import (
    ACK,
    BIZ,
    DIRECT,
    ERROR,
    LOGOUT,
    ROOM,
    ROOM_CHAT,
    Client,
    Harness,
    Received,
    assert_nothing_waits,
    body_of,
    dumps,
    in_flight_of,
    noted,
)

SOFT, HARD, WINDOW = 1200, 2500, 4
AT_MOST = 700  # of what the driver takes at once: so that it cuts often
APPS = (10_001, 20_000)
USERS = (10_000, 99_999, 123_456, 2**53 - 1)
ROOMS = (1, 2, 30)
GAP = "room messages after this one were dropped: read faster"

PICK = st.integers(0, 100)
NEWEST = "n" * 19  # as long as any msgId


@dataclass(eq=False)
class Message:
    """A message on its way; which msgId the server gave it is learned from the first copy seen."""

    biz_code: int
    data: dict[str, Any]
    is_direct: bool
    msg_id: str = ""


@dataclass
class Expected:
    """A packet that a client is to get."""

    code: int
    body: dict[str, Any]
    message: Message | None = None
    newest: Message | None = None
    """Of the room that was entered: its msgId stands where `body` has NEWEST."""


@dataclass(eq=False)
class Modelled:
    """What the model knows of one session."""

    peer: Client
    app: int
    user: int
    name: str
    room: int | None = None
    expected: list[Expected] = field(default_factory=list)
    waiting: int = 0
    """Bytes owed, until something is discarded."""
    in_flight: list[Message] = field(default_factory=list)
    seen: list[Message] = field(default_factory=list)
    gap: bool = False
    overflowed: bool = False
    ended: bool = False
    last_word: Expected | None = None
    """Set when what was owed is discarded: some of `expected` comes, then this, then nothing."""

    def push(self, code: int, message: Message | None = None, *, newest: Message | None = None, **fields: Any) -> None:
        """It is owed a packet now."""
        if self.ended or self.overflowed:
            return
        body = {"appId": self.app, "userId": self.user} | fields
        sized = body | ({"msgId": "1" * 19} if message is not None else {})
        self.expected.append(Expected(code, body, message, newest))
        self._grow(self.peer.size_of(code, body_of(**sized)))

    def end(self, data: str, ws_reason: str) -> None:
        """It is owed a LOGOUT, and nothing more; if it is owed too much already, the LOGOUT goes in its place."""
        if self.overflowed:
            self.overflowed = False
            self.last_word = Expected(LOGOUT, {"appId": self.app, "userId": self.user, "data": data})
        else:
            self.push(LOGOUT, data=data)
            if not self.overflowed:
                self._grow(self.peer.farewell_size(ws_reason))
        self.ended = True
        self.room = None
        self.in_flight = []

    def deliver(self, message: Message) -> None:
        """It is owed a message, which it is to acknowledge."""
        self.push(BIZ, message, bizCode=message.biz_code, data=dumps(message.data))
        if len(self.in_flight) >= WINDOW:
            room_messages = [each for each in self.in_flight if not each.is_direct]
            self.in_flight.remove((room_messages or self.in_flight)[0])
        self.in_flight.append(message)

    def tell_gap(self, last: Message | None) -> None:
        """Room messages are missing from here on, after this one."""
        if not self.gap:
            self.gap = True
            named = {} if last is None else {"lastMsgId": NEWEST}
            self.push(ERROR, newest=last, data=dumps({"code": 206, "reason": GAP} | named))

    def _grow(self, size: int) -> None:
        self.waiting += size
        self.overflowed = self.waiting > HARD


class Chatting(RuleBasedStateMachine):
    """A user's session is its newest one, a room has exactly its members, and each client gets exactly its packets."""

    def __init__(self) -> None:
        super().__init__()
        self.harness = Harness(
            limits={"outbox_soft_bytes": SOFT, "outbox_hard_bytes": HARD},
            ack={"window": WINDOW, "retry_seconds": 3600},
            session={"heartbeat_seconds": 86_400},
        )
        self.clients: list[Modelled] = []
        self.current: dict[tuple[int, int], Modelled] = {}
        self.newest: dict[tuple[int, int], Message] = {}
        self.said: dict[tuple[int, int], Message] = {}
        """The same, of rooms that somebody has been in ever since."""
        self.by_msg_id: dict[str, Message] = {}
        self.inboxes: dict[tuple[int, int], list[Message]] = {}
        """Direct messages that were not acknowledged, by app and receiver."""
        self.dropped = self.delivered = self.logins = 0

    # What clients do

    @initialize(wires=st.tuples(st.booleans(), st.booleans(), st.booleans()))
    def log_in_three(self, wires: tuple[bool, ...]) -> None:
        for user, ws in zip(USERS, wires, strict=False):
            self.log_in(user, APPS[0], ws, ROOMS[0])

    @rule(
        user=st.sampled_from(USERS), app=st.sampled_from(APPS), ws=st.booleans(), room=st.sampled_from((None, *ROOMS))
    )
    def log_in(self, user: int, app: int, ws: bool, room: int | None) -> None:
        older = self.current.get((app, user))
        self.logins += 1
        name = f"观众{self.logins}"
        log_in = self.harness.log_in_ws if ws else self.harness.log_in
        self.harness.stores_at_once = False  # so that the inbox comes once the login has been read
        client = Modelled(log_in(user, app=app, room=room, nickname=name), app, user, name, room)
        self.harness.stores_at_once = True
        if older is not None:
            older.end('{"reason":"replaced","reconnect":false}', "replaced")
            self._forget_what_was_said_to_nobody()
        self.clients.append(client)
        self.current[app, user] = client
        self.harness.settle()
        for message in self.inboxes.get((app, user), ()):
            self.delivered += 1
            client.deliver(message)

    @precondition(lambda self: self.current)
    @rule(who=PICK, room=st.sampled_from((ROOMS[0], *ROOMS, None)))
    def move(self, who: int, room: int | None) -> None:
        client = self._pick(who)
        client.peer.send(ROOM, data={"roomId": room})
        if room != client.room:
            client.in_flight = [message for message in client.in_flight if message.is_direct]
        client.room = room
        if room is not None:
            client.gap = False
        answer: dict[str, Any] = {"roomId": room, "online": len(self._members(client)) if room else 0}
        newest = self.newest.get((client.app, room)) if room is not None else None
        if room is not None:
            answer["lastMsgId"] = NEWEST if newest is not None else ""
        client.push(ROOM, newest=newest, data=dumps(answer))

    @precondition(lambda self: any(client.room for client in self.current.values()))
    @rule(who=PICK, times=st.integers(1, 6), length=st.sampled_from([0, 10, 150]))
    def say(self, who: int, times: int, length: int) -> None:
        inside = [client for client in self.current.values() if client.room]
        inside.sort(key=lambda client: -len(self._members(client)))
        sender = inside[who % len(inside)]
        content = {"roomId": sender.room, "type": 1, "content": "鱼" * length}
        sender.peer.write(sender.peer.packet(BIZ, bizCode=ROOM_CHAT, data=content) * times)
        for _ in range(times):
            message = Message(ROOM_CHAT, {"userId": sender.user} | content | self._stamp(sender), is_direct=False)
            assert sender.room is not None
            last = self.said.get((sender.app, sender.room))
            self.said[sender.app, sender.room] = self.newest[sender.app, sender.room] = message
            for member in self._members(sender):
                if member is sender:
                    continue
                if member.waiting >= SOFT:
                    self.dropped += 1
                    member.tell_gap(last)
                else:
                    self.delivered += 1
                    member.gap = False
                    member.deliver(message)

    @precondition(lambda self: any(client.room for client in self.current.values()))
    @rule(who=PICK)
    def say_much(self, who: int) -> None:
        self.say(who, 3, 200)

    @precondition(lambda self: self.current)
    @rule(who=PICK, to=PICK, times=st.integers(1, 3), length=st.sampled_from([0, 500]), older=st.booleans())
    def whisper(self, who: int, to: int, times: int, length: int, older: bool) -> None:
        sender = self._pick(who)
        receivers = [client for client in self.current.values() if client.app == sender.app]
        receiver = receivers[to % len(receivers)]
        content = {"objectId": receiver.user, "type": 0, "content": "x" * length}
        code = ROOM_CHAT if older else DIRECT
        sender.peer.write(sender.peer.packet(BIZ, bizCode=code, data=content) * times)
        for _ in range(times):
            data = {"userId": sender.user} | content | self._stamp(sender)
            message = Message(code, data | ({"senderId": sender.user} if older else {}), is_direct=True)
            self.delivered += 1
            receiver.deliver(message)
            self.inboxes.setdefault((receiver.app, receiver.user), []).append(message)

    @precondition(lambda self: any(client.seen for client in self.current.values()))
    @rule(who=PICK, which=st.lists(PICK, min_size=1, max_size=5))
    def acknowledge(self, who: int, which: list[int]) -> None:
        readers = [client for client in self.current.values() if client.seen]
        client = readers[who % len(readers)]
        acked = [client.seen[pick % len(client.seen)] for pick in which]
        first, *more = [message.msg_id for message in acked]
        client.peer.send(ACK, msgId=first, **({"data": more} if more else {}))
        client.in_flight = [message for message in client.in_flight if message not in acked]
        inbox = self.inboxes.get((client.app, client.user), [])
        inbox[:] = [message for message in inbox if message not in acked]

    @precondition(lambda self: self.clients)
    @rule(who=PICK, says_so=st.booleans())
    def go(self, who: int, says_so: bool) -> None:
        """A client leaves; or its connection is gone, and that of a session that had ended before too."""
        if says_so and self.current:
            client = self._pick(who)
            client.peer.send(LOGOUT)
            client.end("true", "logout")
        else:
            client = self.clients.pop(who % len(self.clients))
            assert client.peer.outbox.size == client.waiting or client.last_word
            self.harness.dispatcher.closed(client.peer.session)
            assert client.peer.outbox.size == 0
        self._gone(client)

    # What the driver does

    @precondition(lambda self: self.clients)
    @rule(who=PICK, capacity=st.integers(0, 900))
    def flush(self, who: int, capacity: int) -> None:
        client = self.clients[who % len(self.clients)]
        self._flush(client, capacity)
        self._read(client)

    @precondition(lambda self: self.clients)
    @rule(who=PICK)
    def drain(self, who: int) -> None:
        self._drain(self.clients[who % len(self.clients)])

    @rule()
    def sweep(self) -> None:
        self.harness.advance(1)
        for client in self.current.values():
            assert client.peer.session.room_in_flight != {}
            assert client.peer.session.direct_in_flight != {}

    # What must be true at any time

    @invariant()
    def what_was_said_to_nobody_is_forgotten(self) -> None:
        self._forget_what_was_said_to_nobody()
        rooms = {room.key: room.last_msg_id for room in self.harness.node.hub._rooms.values()}
        assert {key for key, last in rooms.items() if last} == set(self.said)

    @invariant()
    def the_session_of_a_user_is_its_newest(self) -> None:
        hub = self.harness.node.hub
        for app in APPS:
            for user in USERS:
                client = self.current.get((app, user))
                assert hub.find(app, user) is (client.peer.session if client is not None else None)
        assert set(hub) == {client.peer.session for client in self.current.values()}
        assert len(hub) == len(self.current)
        assert all(client.peer.session.ended == client.ended for client in self.clients)

    @invariant()
    def rooms_have_their_members_and_empty_ones_are_gone(self) -> None:
        hub = self.harness.node.hub
        expected: dict[tuple[int, int], set[Any]] = {}
        for client in self.current.values():
            session = client.peer.session
            if client.room is not None:
                expected.setdefault((client.app, client.room), set()).add(session)
            assert (session.room.id if session.room is not None else None) == client.room
        assert {key: room.members for key, room in hub._rooms.items()} == expected
        assert all(client.peer.session.room is None for client in self.clients if client.ended)

    @invariant()
    def the_size_of_an_outbox_is_what_waits_in_it(self) -> None:
        for client in self.clients:
            outbox = client.peer.outbox
            assert outbox.held == sum(map(len, outbox.parts or ()))
            assert outbox.follower is None or (outbox.follower is client.peer.session and outbox.parts is None)
            assert outbox.overflowed == client.overflowed
            if client.last_word is None:
                assert outbox.size == client.waiting
            assert outbox.size <= HARD + 2 * 1400  # the message that overflowed it, and a chunk that was put back

    @invariant()
    def whoever_is_owed_something_is_known_to_the_driver(self) -> None:
        for client in self.clients:
            outbox, peer = client.peer.outbox, client.peer
            if outbox.size or (outbox.finished and not peer.shut):
                assert outbox.is_awake
                assert peer.waits_to_write or any(dirty is outbox for dirty in self.harness.dirty)
            if outbox.overflowed and not client.ended:
                assert any(dirty is outbox for dirty in self.harness.dirty)

    @invariant()
    def in_flight_is_what_was_delivered_and_not_acknowledged_nor_evicted(self) -> None:
        for client in self.clients:
            table = in_flight_of(client.peer.session) or {}
            assert len(table) <= WINDOW
            if client.overflowed or client.last_word:
                continue  # a session that is over
            assert len(table) == len(client.in_flight)
            for msg_id, message in zip(table, client.in_flight, strict=True):
                assert table[msg_id].is_direct == message.is_direct
                self._learn(message, msg_id)

    @invariant()
    def the_accounts_are_those_of_the_tables(self) -> None:
        tables = [in_flight_of(client.peer.session) for client in self.clients]
        assert self.harness.node.in_flight.deliveries == sum(map(len, tables))
        counted = noted(*(client.peer.session for client in self.clients))
        assert all(publication.noted == times for publication, times in counted.items())

    @invariant()
    def nothing_waits_that_could_go_on(self) -> None:
        assert_nothing_waits(self.harness)

    @invariant()
    def every_drop_is_counted(self) -> None:
        metrics = self.harness.metrics
        assert (metrics.deliveries_dropped, metrics.deliveries) == (self.dropped, self.delivered)
        assert metrics.packets_refused == metrics.protocol_violations == metrics.connections_crashed == 0

    def teardown(self) -> None:
        for client in self.clients:
            self._drain(client)
            assert client.peer.shut == client.ended

    # How it is done

    def _pick(self, who: int) -> Modelled:
        clients = list(self.current.values())
        return clients[who % len(clients)]

    def _members(self, client: Modelled) -> list[Modelled]:
        return [each for each in self.current.values() if (each.app, each.room) == (client.app, client.room)]

    def _stamp(self, sender: Modelled) -> dict[str, Any]:
        return {"senderName": sender.name, "senderAvatar": "", "createTime": self.harness.now.unix_ms}

    def _gone(self, client: Modelled) -> None:
        client.ended = True
        client.room = None
        client.in_flight = []
        if self.current.get((client.app, client.user)) is client:
            del self.current[client.app, client.user]

    def _flush(self, client: Modelled, capacity: int = 2**62) -> None:
        outbox = client.peer.outbox
        if client.overflowed and not client.ended:
            client.end('{"reason":"slow","reconnect":true}', "slow")
            self._gone(client)
        self.harness.dirty = [dirty for dirty in self.harness.dirty if dirty is not outbox]
        before = outbox.size
        client.peer.flush(capacity, AT_MOST)
        if client.last_word is None:
            client.waiting -= before - outbox.size

    def _drain(self, client: Modelled) -> None:
        self._flush(client)
        while client.peer.outbox.size:
            self._flush(client)
        self._read(client)
        assert client.expected == []

    def _read(self, client: Modelled) -> None:
        for packet in client.peer.decoded():
            if client.last_word is not None and packet.code == LOGOUT:
                assert packet == Received(LOGOUT, client.last_word.body)
                client.expected = []
                continue
            expected = client.expected.pop(0)
            body = dict(packet.body)
            if expected.message is not None:
                self._learn(expected.message, body.pop("msgId"))
                client.seen.append(expected.message)
            if expected.newest is not None:
                self._learn(expected.newest, packet.data["lastMsgId"])
                body["data"] = body["data"].replace(expected.newest.msg_id, NEWEST)
            assert packet.code == expected.code
            assert body == expected.body

    def _forget_what_was_said_to_nobody(self) -> None:
        inside = {(client.app, client.room) for client in self.current.values()}
        self.said = {room: message for room, message in self.said.items() if room in inside}

    def _learn(self, message: Message, msg_id: str) -> None:
        """A message has one msgId, wherever it is seen, and no other message has it."""
        assert self.by_msg_id.setdefault(msg_id, message) is message
        assert message.msg_id in {"", msg_id}
        message.msg_id = msg_id


TestChatting = pytest.mark.property(Chatting.TestCase)
