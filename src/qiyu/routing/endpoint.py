"""One connection as the core knows it, whoever is at its other end.

What an endpoint may send depends on its state, which has the table of handlers that its packets go to. Those of a
client are in handlers/registry.py: it asks for the WebSocket upgrade, is not logged in, is logged in. Handlers move it
from one state to the next.

A listener of another kind needs a `Wire`, a subclass of `Endpoint` for what it keeps of each connection, the states of
those, and an `Owner`, the service that opens and ends them. They meet in a `Door`; nothing between the socket and the
handlers changes for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from qiyu.errors import ProtocolViolation, Refused
from qiyu.model import Address, Instant, address_text
from qiyu.protocol.packet import Buffer, Packet
from qiyu.protocol.wire import Wire
from qiyu.routing.outbox import Outbox

Handler: TypeAlias = Callable[[Any, Any, Buffer, Instant], None]
"""Handles one packet, given the node, the endpoint, the packet's body and the time.

Raises `Refused` for a packet, `ProtocolViolation` for a connection that is not wanted.
"""


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """What an endpoint is just now, and so which packets it may send."""

    name: str
    """For logs: `not logged in`."""
    handlers: Mapping[int, Handler]
    """By the code of the packet."""
    unknown: Callable[[int], Refused | ProtocolViolation]
    """What is to be said of a packet with any other code."""
    is_before_login: bool = False
    """Whether one that ends now came to nothing (services/limits.py)."""
    is_paced: bool = False
    """Whether packets are limited to so many a second."""
    take_acks: Callable[[Any, Any, Sequence[str]], None] | None = None
    """Takes the msgIds of a run of ACKs that the wire has read; None where such a packet is one like any other."""


class Owner(Protocol):
    """The service that an endpoint belongs to. Everything that ends an endpoint passes through it."""

    def open(self, door: Door, outbox: Outbox, address: Address, now: Instant, /) -> Endpoint:
        """A connection was accepted."""
        ...

    def refuse(self, endpoint: Any, violation: ProtocolViolation, /) -> None:
        """The peer broke the protocol: tell it, and close."""
        ...

    def dismiss(self, endpoint: Any, ws_close: int, reason: str, /) -> None:
        """Close in the wire's own terms, with no packet; what is owed is still sent."""
        ...

    def overflowed(self, endpoint: Any, /) -> None:
        """The peer does not read, and is owed more than it may be."""
        ...

    def closed(self, endpoint: Any, /) -> None:
        """The connection is gone, whoever closed it."""
        ...


@dataclass(frozen=True, slots=True)
class Door:
    """One way into the core: what is spoken there, whose endpoints come in, and in which state."""

    make_wire: Callable[[], Wire]
    owner: Owner
    state: State


class Endpoint:
    """From the accepted connection to its end."""

    __slots__ = (
        "address",
        "ended",
        "held",
        "id",
        "last_seen",
        "leaving",
        "outbox",
        "owner",
        "packets_due",
        "read_from",
        "spent",
        "state",
        "told_pace",
        "waiting",
        "wire",
    )

    def __init__(self, endpoint_id: int, door: Door, outbox: Outbox, address: Address, now: float) -> None:
        self.id = endpoint_id
        """Counted from 1 by its owner: for logs."""
        self.wire: Wire = door.make_wire()
        self.outbox = outbox
        self.address = address
        """Where the connection came from."""
        self.owner: Owner = door.owner
        self.state: State = door.state
        self.waiting = 0
        """Messages of its own that wait to be stored; those that follow wait behind them."""
        self.held: list[Packet] | None = None
        """Packets that came while an earlier one waits for its answer; None while none does."""
        self.leaving: Callable[[], None] | None = None
        """To be called once no message waits: the peer will send nothing more (services/departures.py)."""
        self.last_seen = now
        """When the last complete packet or ping came, in monotonic seconds."""
        self.spent = 0
        """Packets of the present read that count for its rate (services/limits.py)."""
        self.packets_due = 0.0
        """When those that came so far are paid for, in monotonic seconds."""
        self.read_from = 0.0
        """It is to be read no sooner, because it sent too much."""
        self.told_pace = float("-inf")
        """When it was last told so."""
        self.ended = False
        """Said good-bye: its packets are no longer handled, and its connection closes once its outbox is empty."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self._place()} {self._condition()} {self.outbox!r}>"

    def _place(self) -> str:
        return f"{self.wire.name} from {address_text(self.address)}"

    def _condition(self) -> str:
        return "ended" if self.ended else self.state.name

    def hold(self) -> None:
        """A packet waits for its answer: those that follow it wait as well, so that they are handled in order."""
        if self.held is None:
            self.held = []

    def settled(self) -> None:
        """One of its messages waits no longer to be stored."""
        self.waiting -= 1
        self.answered()

    def answered(self) -> None:
        """Something of its peer's has been answered: if that was the last, a peer that is leaving may go."""
        if self.leaving is not None and not self.waiting and not self.ended:
            self.leaving()

    def send_error(self, error: Refused) -> None:
        """Tell the peer that one of its packets was refused, and why."""
        raise NotImplementedError

    def make_way(self) -> None:
        """Let an outbox that has overflowed, and takes nothing more, take a last word."""
        if self.outbox.overflowed:
            self.outbox.discard()

    def close(self, ws_close: int, reason: str) -> None:
        """Say good-bye in the wire's own terms, and close once the peer has read what it is owed."""
        if self.ended:
            return
        self.ended = True
        if self.wire.has_output:  # the answer to a close frame: it may end in the very read that brought one
            self.outbox.push(self.wire.data_to_send())
        farewell = self.wire.close(ws_close, reason)
        if farewell:
            self.outbox.push(farewell)
        self.outbox.finish()

    def send(self, code: int, body: bytes) -> None:
        """Owe the peer one packet; nothing before a WebSocket's upgrade, or after its good-bye."""
        if self.wire.is_open:
            self.outbox.push(self.wire.encode(code, body))
