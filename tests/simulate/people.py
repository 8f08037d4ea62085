"""People: they log in wherever they are let, talk, lose connections, log in twice, and write down what they saw."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from history.record import History, Room, Target
from history.record import User as To
from qiyu.errors import Refused
from qiyu.presence.presence import User
from qiyu.protocol.links import StoredMessage
from qiyu.services.homes import RoomKey
from simulate.session import Session
from simulate.world import World

if TYPE_CHECKING:
    from simulate.server import Cluster, Node, Server

APP: Final = 10_001
AGAIN_SECONDS: Final = 2.0
PATIENCE_SECONDS: Final = 6.0
"""After which a client that hears nothing takes its connection for dead."""


@dataclass(eq=False)
class Said:
    key: str
    target: Target
    asks_receipt: bool
    sent_at: float = 0.0

    @property
    def content(self) -> str:
        where = f"room {self.target.id}" if isinstance(self.target, Room) else f"user {self.target.id}"
        return f"{where}: {self.key}"


def target_of(content: str) -> Target:
    where, number = content.split(":", 1)[0].split()
    return Room(int(number)) if where == "room" else To(int(number))


@dataclass(eq=False)
class Connection:
    """One connection of a person."""

    person: Person
    name: str
    server: Server
    node: Node
    session: Session | None = None
    is_open: bool = True
    in_room: bool = False
    heard_at: float = 0.0


@dataclass(eq=False)
class Person:
    cluster: Cluster
    history: History
    user: User
    room: RoomKey
    others: list[User]
    is_carefree: bool = False
    """Asks for no receipts, and sends nothing again."""
    connection: Connection | None = None
    older: list[Connection] = field(default_factory=list)
    by_session: dict[Session, Connection] = field(default_factory=dict)
    unanswered: dict[str, Said] = field(default_factory=dict)
    seen: int | None = None
    """The last msgId of the room that was seen, of whomever."""
    ids: set[int] = field(default_factory=set)
    count: int = 0
    connections: int = 0
    is_quiet: bool = False
    """Nothing new is said."""

    @property
    def world(self) -> World:
        return self.cluster.world

    def start(self) -> None:
        self.world.after(self.world.random.uniform(0, 0.5), self.connect)
        self.world.after(self.world.random.uniform(0.5, 1.5), self._live)

    def connect(self) -> None:
        if self.connection is not None and self.connection.is_open:
            return
        self._connect()

    def _connect(self) -> None:
        servers = [server for server in self.cluster.servers if server.is_alive]
        server = self.world.random.choice(servers) if servers else None
        node = server.node if server is not None else None
        if server is None or node is None or node.is_draining:
            self.world.after(0.3, self.connect)
            return
        self.connections += 1
        connection = Connection(self, f"{self.user.user_id}-{self.connections}", server, node, heard_at=self.world.now)
        if self.connection is not None and self.connection.is_open:
            self.older.append(self.connection)
        self.connection = connection
        self.history.connected(self.world.now, connection=connection.name, user=self.user.user_id)

        def log_in() -> None:
            if connection.is_open:
                connection.session = node.log_in(self.user, self)
                self.by_session[connection.session] = connection

        def refused() -> None:
            if connection.session is None and not (server.is_paused and server.is_alive):
                self._is_over(connection)

        self.world.soon(lambda: server.in_node(node, log_in))
        self.world.after(1.0, refused)

    def hang_up(self) -> None:
        connection = self.connection
        if connection is not None and connection.is_open:
            self._cut(connection)
            self.world.after(self.world.random.uniform(0.01, 1.0), self.connect)

    def log_in_again(self) -> None:
        """From another device, while the first is still there."""
        self._connect()

    def _cut(self, connection: Connection) -> None:
        session = connection.session
        if session is not None:
            session.is_cut = True
            node = connection.node
            self.world.soon(lambda: connection.server.in_node(node, lambda: node.hang_up(session)))
        self._is_over(connection)

    def _is_over(self, connection: Connection) -> None:
        if not connection.is_open:
            return
        connection.is_open = False
        connection.in_room = False
        if connection.session is not None:
            connection.session.is_cut = True
        self.history.disconnected(self.world.now, connection=connection.name)
        if connection is self.connection:
            self.world.after(self.world.random.uniform(0.05, 0.5), self.connect)

    def _live(self) -> None:
        world = self.world
        connection = self.connection
        if connection is not None and connection.is_open:
            if world.now - connection.heard_at > PATIENCE_SECONDS:
                self._cut(connection)
            elif connection.session is not None:
                self._beat(connection, connection.session)
            if connection.is_open and connection.in_room:
                if not self.is_quiet:
                    self._say_something(connection)
                self._say_again(connection)
        world.after(world.random.uniform(0.05, 0.8), self._live)

    def _beat(self, connection: Connection, session: Session) -> None:
        self._to_server(connection, lambda: None if session.is_over else session.tell(lambda: self._heard(session)))

    def _heard(self, session: Session) -> None:
        self._of(session)

    def _say_something(self, connection: Connection) -> None:
        self.count += 1
        key = f"{self.user.user_id}-{self.count}"
        direct = not self.is_carefree and self.world.chance(0.25)
        target: Target = To(self.world.random.choice(self.others).user_id) if direct else Room(self.room.room_id)
        said = Said(key, target, asks_receipt=not self.is_carefree)
        if said.asks_receipt:
            self.unanswered[key] = said
        self._send(connection, said)

    def _say_again(self, connection: Connection) -> None:
        """In their order, and all after the first: a client must not overtake itself."""
        if any(self.world.now - said.sent_at > AGAIN_SECONDS for said in self.unanswered.values()):
            for said in self.unanswered.values():
                self._send(connection, said)

    def _send(self, connection: Connection, said: Said) -> None:
        said.sent_at = self.world.now
        client_msg_id = said.key if said.asks_receipt else ""
        self.history.sent(
            self.world.now,
            connection=connection.name,
            sender=self.user.user_id,
            key=said.key,
            content=said.content,
            target=said.target,
            client_msg_id=client_msg_id,
        )
        session, node = connection.session, connection.node
        assert session is not None

        def arrive() -> None:
            if isinstance(said.target, Room):
                node.say(session, RoomKey(APP, said.target.id), said.content, client_msg_id)
            else:
                node.whisper(session, User(APP, said.target.id), said.content, client_msg_id)

        self._to_server(connection, arrive)

    def _to_server(self, connection: Connection, what: Callable[[], None]) -> None:
        session, node = connection.session, connection.node
        assert session is not None

        def arrive() -> None:
            if not session.is_cut:
                what()

        session.to_server(lambda: connection.server.in_node(node, arrive))

    # What servers say

    def logged_in(self, session: Session) -> None:
        connection = self._of(session)
        node = connection.node
        after = self.seen
        self._to_server(connection, lambda: node.enter(session, self.room, after))

    def entered(self, session: Session, room: int, after: int | None, *, recovered: bool | None) -> None:
        connection = self._of(session)
        connection.in_room = True
        if self.seen is None:
            self.seen = 0
        self.history.entered(
            self.world.now,
            connection=connection.name,
            user=self.user.user_id,
            room=room,
            after="" if not after else str(after),
            recovered=recovered if after else None,
        )
        for said in self.unanswered.values():
            self._send(connection, said)

    def received(self, session: Session, message: StoredMessage) -> None:
        connection = self._of(session)
        content = message.data.decode()
        target = target_of(content)
        self.history.received(
            self.world.now,
            connection=connection.name,
            user=self.user.user_id,
            msg_id=str(message.msg_id),
            sender=message.sender,
            target=target,
            content=content,
        )
        if isinstance(target, Room):
            self.seen = max(self.seen or 0, message.msg_id)
            return
        self.history.acknowledged(
            self.world.now, connection=connection.name, user=self.user.user_id, msg_id=str(message.msg_id)
        )
        node = connection.node
        self._to_server(connection, lambda: node.acknowledge(session, message.msg_id))

    def receipted(self, session: Session, client_msg_id: str, msg_id: int) -> None:
        connection = self._of(session)
        self.unanswered.pop(client_msg_id, None)
        self.history.receipted(
            self.world.now,
            connection=connection.name,
            sender=self.user.user_id,
            client_msg_id=client_msg_id,
            msg_id=str(msg_id),
        )

    def refused(self, session: Session, refusal: Refused, client_msg_id: str) -> None:
        connection = self._of(session)
        self.history.refused(
            self.world.now,
            connection=connection.name,
            sender=self.user.user_id,
            code=refusal.code if refusal.code != 403 else 503,
            client_msg_id=client_msg_id,
        )

    def dropped(self, session: Session) -> None:
        self.history.dropped(self.world.now, connection=self._of(session).name)

    def ended(self, session: Session, reason: str) -> None:
        connection = self._of(session)
        if reason == "replaced" and connection is self.connection:
            self.world.say(f"{self.user.user_id} is replaced on {connection.node.me}, and has no newer connection")
        self._is_over(connection)

    def _of(self, session: Session) -> Connection:
        connection = self.by_session[session]
        connection.heard_at = self.world.now
        return connection
