"""A session of a user on one instance, and the connection that it has to a client."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from qiyu.errors import Refused
from qiyu.presence.presence import User
from qiyu.protocol.links import StoredMessage
from qiyu.services.homes import RoomKey
from qiyu.services.sender_order import SenderOrder
from simulate.world import World


class Client(Protocol):
    """What an instance says to a client."""

    def logged_in(self, session: Session) -> None: ...
    def entered(self, session: Session, room: int, after: int | None, *, recovered: bool | None) -> None: ...
    def received(self, session: Session, message: StoredMessage) -> None: ...
    def receipted(self, session: Session, client_msg_id: str, msg_id: int) -> None: ...
    def refused(self, session: Session, refusal: Refused, client_msg_id: str) -> None: ...
    def dropped(self, session: Session) -> None: ...
    def ended(self, session: Session, reason: str) -> None: ...


@dataclass(eq=False)
class Session:
    world: World
    user: User
    number: int
    client: Client
    is_over: bool = False
    room: RoomKey | None = None
    wanted: RoomKey | None = None
    """The room it waits to enter."""
    is_catching_up: bool = False
    is_replaying: bool = True
    """Its inbox is to be read, or is being read: newer direct messages wait."""
    reads: int = 0
    """Of its inbox that were started; only the latest counts."""
    deferred: list[StoredMessage] = field(default_factory=list)
    sent: set[int] = field(default_factory=set)
    """Direct messages that it was sent."""
    order: SenderOrder = field(default_factory=SenderOrder)
    _arrives_at: float = 0.0
    _reaches_at: float = 0.0
    is_cut: bool = False

    def __hash__(self) -> int:
        return self.number

    def tell(self, what: Callable[[], None]) -> None:
        """To the client, in order, after a while; what is under way when the connection is lost may not arrive."""
        delay = self.world.random.uniform(0.0002, 0.02)
        self._arrives_at = max(self.world.now + delay, self._arrives_at)

        def arrive() -> None:
            if not self.is_cut:
                what()

        self.world.after(self._arrives_at - self.world.now, arrive)

    def to_server(self, what: Callable[[], None]) -> None:
        """From the client, in order."""
        delay = self.world.random.uniform(0.0002, 0.02)
        self._reaches_at = max(self.world.now + delay, self._reaches_at)
        self.world.after(self._reaches_at - self.world.now, what)
