"""Clients: they chat, read late, lose connections and acknowledgements, and write down all that they see.

A client follows docs/protocol.md and no more: raw frames, or WebSocket frames by wsproto.
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import trio
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from crash.server import Server
from history.record import History, Room, Target, User
from raw_clients import (
    ACK,
    BIZ,
    DIRECT,
    ERROR,
    HEARTBEAT,
    LOGOUT,
    PATIENCE_SECONDS,
    ROOM,
    ROOM_CHAT,
    Closed,
    RawTcpClient,
    RawWsClient,
    Rejected,
)

APP: Final = 10_001
DROPPED: Final = 206
REFUSED_FOR_NOW: Final = 503
CONNECT_SECONDS: Final = 3.0
LATE_SECONDS: Final = 1.5
"""How long a client stops reading that reads on; what was sent again meanwhile is read soon after the first copy."""

LOST: Final = (
    OSError,
    Closed,
    Rejected,
    LocalProtocolError,
    RemoteProtocolError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    trio.TooSlowError,
)
"""What happens to a connection whose server is killed."""


class Stopped(Exception):
    """The client ended its connection itself."""


@dataclass(eq=False)
class Said:
    """A message as its sender keeps it."""

    key: str
    target: Target
    content: str
    client_msg_id: str


@dataclass(frozen=True)
class Manners:
    """How a crowd behaves: seconds between two things that one client does, and who is in it."""

    pause: float
    users: tuple[int, ...]
    rooms: tuple[int, ...]
    enter_at_login: bool = True
    """Among several instances a room is entered when its home has answered, which a login does not say."""


class Person:
    """One user, over all its connections."""

    def __init__(
        self,
        user: int,
        server: Server,
        history: History,
        manners: Manners,
        seed: str,
        background: trio.Nursery,
    ) -> None:
        self.user = user
        self.room = manners.rooms[user % len(manners.rooms)]
        self.pending: dict[str, Said] = {}
        """By clientMsgId, oldest first: what has neither a receipt nor a refusal for good."""
        self.receipted: list[Said] = []
        self.seen: dict[int, list[str]] = {}
        """By room, the msgIds of others' messages, as they came."""
        self.to_acknowledge: list[str] = []
        """Whichever connection they came on."""
        self._background = background
        self._server = server
        self._history = history
        self._manners = manners
        self._random = random.Random(seed)
        self._count = 0

    # A life

    async def live(self) -> None:
        """Until cancelled: connect, chat for a while, lose the connection, and come back."""
        while True:
            try:
                async with self.connected() as connection:
                    await self._chat(connection)
            except (*LOST, Stopped):
                await trio.sleep(self._random.uniform(0, 0.3))

    async def _chat(self, connection: Connection) -> None:
        await self.come_back(connection)
        deeds = self._deeds()
        names, weights = list(deeds), [weight for weight, _ in deeds.values()]
        while True:
            await trio.sleep(self._random.expovariate(1 / self._manners.pause))
            (name,) = self._random.choices(names, weights)
            with trio.fail_after(PATIENCE_SECONDS):
                await deeds[name][1](connection)

    def _deeds(self) -> dict[str, tuple[int, Callable[[Connection], Any]]]:
        return {
            "say": (30, self._say),
            "tell": (20, self._tell),
            "acknowledge": (40, self._acknowledge),
            "repeat": (3, self._repeat),
            "repair": (3, self.repair),
            "move": (3, self._move),
            "read late": (2, self._read_late),
            "come twice": (1, self._come_twice),
            "go": (2, self._go),
            "go without a word": (2, self._vanish),
        }

    async def come_back(self, connection: Connection) -> None:
        """Into the room, after what was seen there last, and with what has no receipt."""
        if connection.room is None:
            await self.enter(connection, self.room)
        await self.repair(connection)

    async def repair(self, connection: Connection) -> None:
        """What has no receipt is sent again, oldest first."""
        for said in list(self.pending.values()):
            await connection.say(said)

    async def enter(self, connection: Connection, room: int) -> None:
        """After the last message seen there; or now and then one before it, or without."""
        self.room = room
        seen = self.seen.get(room, [])
        back = self._random.choice((0, 0, 0, 0, 0, 0, 1, 5, 50))
        after = seen[max(len(seen) - 1 - back, 0)] if seen and self._random.random() < 0.95 else ""
        await connection.enter(room, after)

    async def _say(self, connection: Connection) -> None:
        for _ in range(self._random.choice((1, 1, 1, 2, 5))):
            await connection.say(self._new(Room(self.room)))

    async def _tell(self, connection: Connection) -> None:
        for _ in range(self._random.choice((1, 1, 1, 2, 5))):
            await connection.say(self._new(User(self._random.choice(self._manners.users))))

    async def _acknowledge(self, connection: Connection) -> None:
        if self._random.random() < 0.1:
            self.to_acknowledge.clear()  # lost on the way
        await connection.acknowledge()

    async def _repeat(self, connection: Connection) -> None:
        """Though it has a receipt: that may have been lost too."""
        if self.receipted:
            await connection.say(self._random.choice(self.receipted[-50:]))

    async def _move(self, connection: Connection) -> None:
        if self._random.random() < 0.3:
            await connection.leave()
            await trio.sleep(self._random.uniform(0, 0.3))
        await self.enter(connection, self._random.choice(self._manners.rooms))

    async def _read_late(self, connection: Connection) -> None:
        connection.stop_reading()
        await trio.sleep(self._random.uniform(0, LATE_SECONDS))
        if self._random.random() < 0.5:
            raise Stopped  # what it had not read is lost
        connection.go_on_reading()

    async def _come_twice(self, connection: Connection) -> None:
        """The older connection stays open, as it does where an address changes; it may be read from, or not."""
        connection.lingers = True
        if self._random.random() < 0.5:
            connection.stop_reading()
        raise Stopped

    async def _go(self, connection: Connection) -> None:
        await connection.log_out()
        with trio.move_on_after(1):
            await trio.sleep_forever()  # the end of the connection ends this too
        raise Stopped

    async def _vanish(self, connection: Connection) -> None:
        raise Stopped

    def _new(self, target: Target) -> Said:
        self._count += 1
        key = f"{self.user}/{self._count}"
        asks = self._random.random() < 0.85
        said = Said(key, target, f"content of {key}", f"c{self._count}" if asks else "")
        if asks:
            self.pending[said.client_msg_id] = said
        return said

    # Sessions

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Connection]:
        """A new connection, logged in. Raises one of `LOST` when it is lost; left, it is closed, unless it lingers."""
        self._count += 1
        name = f"{self.user}#{self._count}"
        room = self.room if self._random.random() < 0.3 and self._manners.enter_at_login else None
        self._history.connected(trio.current_time(), connection=name, user=self.user)
        try:
            with trio.fail_after(CONNECT_SECONDS):
                peer = await self._log_in(room)
        except BaseException:
            self._history.disconnected(trio.current_time(), connection=name)
            raise
        connection = Connection(name, self, peer, self._history)
        if room is not None:
            connection.is_in(room)
        self._background.start_soon(connection.run)
        try:
            async with _nursery() as nursery:
                nursery.start_soon(connection.until_lost)
                yield connection
                nursery.cancel_scope.cancel()
        finally:
            if not connection.lingers:
                connection.close()

    async def _log_in(self, room: int | None) -> RawTcpClient | RawWsClient:
        token = self._server.token(self.user)
        if self._random.random() < 0.4:
            return await RawWsClient.log_in(self._server.ws, self.user, token, room)
        peer = await RawTcpClient.connect(self._server.tcp)
        try:
            await peer.log_in(self.user, token, room)
        except BaseException:
            await trio.aclose_forcefully(peer.stream)
            raise
        return peer


@dataclass(eq=False)
class Connection:
    """One connection, and what its client has to remember of it."""

    name: str
    person: Person
    peer: RawTcpClient | RawWsClient
    history: History
    room: int | None = None
    entries: list[tuple[int | None, str]] = field(default_factory=list)
    """Rooms asked for, each with its afterMsgId, and not answered."""
    heartbeats: list[list[str]] = field(default_factory=list)
    """What each will confirm that was not answered."""
    packets: int = 0
    """Read so far."""
    unanswered: set[str] = field(default_factory=set)
    lingers: bool = False
    """Nobody uses it any longer, and nobody closes it."""
    _reading: trio.Event = field(default_factory=trio.Event)
    _ended: trio.Event = field(default_factory=trio.Event)
    _scope: trio.CancelScope = field(default_factory=trio.CancelScope)

    def __post_init__(self) -> None:
        self._reading.set()

    # What it sends

    async def say(self, said: Said) -> None:
        self.history.sent(
            trio.current_time(),
            connection=self.name,
            sender=self.person.user,
            key=said.key,
            content=said.content,
            target=said.target,
            client_msg_id=said.client_msg_id,
        )
        fields = {}
        if said.client_msg_id:
            fields["clientMsgId"] = said.client_msg_id
            self.unanswered.add(said.client_msg_id)
        if isinstance(said.target, User):
            data = {"objectId": said.target.id, "content": said.content}
            await self.peer.send(BIZ, bizCode=DIRECT, data=data, **fields)
        else:
            data = {"roomId": said.target.id, "content": said.content}
            await self.peer.send(BIZ, bizCode=ROOM_CHAT, data=data, **fields)

    async def enter(self, room: int, after: str) -> None:
        self.entries.append((room, after))
        self.room = room
        data = {"roomId": room} | ({"afterMsgId": after} if after else {})
        await self.peer.send(ROOM, clientMsgId=f"room {room}", data=data)

    async def leave(self) -> None:
        self.entries.append((None, ""))
        self.room = None
        await self.peer.send(ROOM, clientMsgId="room", data={"roomId": None})

    async def acknowledge(self) -> None:
        """All that has come, and a heartbeat, whose answer says that this was taken."""
        msg_ids, self.person.to_acknowledge = self.person.to_acknowledge, []
        now, user = trio.current_time(), self.person.user
        for msg_id in msg_ids:
            self.history.acknowledged(now, connection=self.name, user=user, msg_id=msg_id)
        self.heartbeats.append(msg_ids)
        if msg_ids:
            await self.peer.send(ACK, msgId=msg_ids[0], **({"data": msg_ids[1:]} if msg_ids[1:] else {}))
        await self.peer.send(HEARTBEAT)

    async def log_out(self) -> None:
        await self.peer.send(LOGOUT)

    # What it reads

    def stop_reading(self) -> None:
        self._reading = trio.Event()

    def go_on_reading(self) -> None:
        self._reading.set()

    async def run(self) -> None:
        """Write down all that comes, until the connection ends."""
        try:
            with self._scope:
                while True:
                    await self._reading.wait()
                    code, body = await self.peer.next_packet()
                    self._take(code, body)
                    self.packets += 1
        except LOST:
            pass
        finally:
            self.history.disconnected(trio.current_time(), connection=self.name)
            self._ended.set()
            await trio.aclose_forcefully(self.peer.stream)

    async def until_lost(self) -> None:
        """Raises `Closed` when the connection has ended."""
        await self._ended.wait()
        raise Closed

    def close(self) -> None:
        """Without a word."""
        self._scope.cancel()

    def is_in(self, room: int, after: str = "", recovered: bool | None = None) -> None:
        """It has been told so."""
        self.room = room if not self.entries else self.room
        self.history.entered(
            trio.current_time(),
            connection=self.name,
            user=self.person.user,
            room=room,
            after=after,
            recovered=recovered,
        )

    def _take(self, code: int, body: dict[str, Any]) -> None:
        now, user = trio.current_time(), self.person.user
        if code == BIZ:
            self._received(body)
        elif code == ACK:
            client_msg_id = body["clientMsgId"]
            self.history.receipted(
                now, connection=self.name, sender=user, client_msg_id=client_msg_id, msg_id=body["msgId"]
            )
            self._answered(client_msg_id, is_receipt=True)
        elif code == ROOM:
            room, after = self.entries.pop(0)
            assert body["data"]["roomId"] == room
            if room is None:
                self.history.left(now, connection=self.name)
            else:
                self.is_in(room, after, body["data"].get("recovered"))
        elif code == HEARTBEAT:
            for msg_id in self.heartbeats.pop(0):
                self.history.acknowledged(now, connection=self.name, user=user, msg_id=msg_id, confirmed=True)
        elif code == ERROR:
            self._refused(body["data"]["code"], body.get("clientMsgId", ""))

    def _received(self, body: dict[str, Any]) -> None:
        data, msg_id = body["data"], body["msgId"]
        target: Target = Room(data["roomId"]) if "roomId" in data else User(data["objectId"])
        self.history.received(
            trio.current_time(),
            connection=self.name,
            user=self.person.user,
            msg_id=msg_id,
            sender=data["userId"],
            target=target,
            content=data["content"],
        )
        self.person.to_acknowledge.append(msg_id)
        if isinstance(target, Room):
            self.person.seen.setdefault(target.id, []).append(msg_id)

    def _refused(self, code: int, client_msg_id: str) -> None:
        now = trio.current_time()
        if code == DROPPED:
            self.history.dropped(now, connection=self.name)
        elif client_msg_id.startswith("room"):
            self.entries.pop(0)
        else:
            self.history.refused(
                now, connection=self.name, sender=self.person.user, code=code, client_msg_id=client_msg_id
            )
            if code != REFUSED_FOR_NOW:
                self._answered(client_msg_id, is_receipt=False)
            self.unanswered.discard(client_msg_id)

    def _answered(self, client_msg_id: str, *, is_receipt: bool) -> None:
        self.unanswered.discard(client_msg_id)
        said = self.person.pending.pop(client_msg_id, None)
        if said is not None and is_receipt:
            self.person.receipted.append(said)


@asynccontextmanager
async def _nursery() -> AsyncIterator[trio.Nursery]:
    """A nursery out of which a lost connection comes as what it is."""
    lost: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
    except BaseExceptionGroup as group:
        ours, others = group.split((*LOST, Stopped))
        if others is not None or ours is None:
            raise
        lost = _first(ours)
    if lost is not None:
        raise lost


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
