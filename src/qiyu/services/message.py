"""An accepted message until it is settled, and where it stands on that way: a table of states and events.

A message is `WAITING` where something comes before it, or where its sender wants a receipt: it is delivered once it is
stored, and what would overtake it waits behind it. Else it is `DELIVERED` at once, and stored behind. Either way a
batch takes it, and it ends `SETTLED`: stored, or refused after all. In between it is `DOUBTED` where its senders were
told 503 and nobody knows yet whether it was stored: it holds back nobody but its room.

The states say which of its senders and rooms wait for a message, so a message that moves keeps those two counts
(`Session.waiting` and `Ring.waiting`), and nobody else does.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum, auto
from typing import Final, NamedTuple, Protocol, TypeAlias

from qiyu.errors import Refused
from qiyu.model import Address
from qiyu.routing.publication import Publication
from qiyu.services.rings import Ring
from qiyu.storage.messages import NewMessage


class Status(StrEnum):
    """Where a message stands. `WRITING…` are those of a batch."""

    ACCEPTED = auto()
    WAITING = auto()
    DELIVERED = auto()
    ACKNOWLEDGED = auto()  # delivered, and its receiver has it: it need not go into the inbox
    WRITING = auto()  # it waits, and is in a batch
    WRITING_DELIVERED = auto()
    WRITING_ACKNOWLEDGED = auto()
    DOUBTED = auto()
    SETTLED = auto()


class Event(StrEnum):
    """What becomes of a message."""

    HOLD_BACK = auto()
    DELIVER = auto()  # before it is stored
    ACKNOWLEDGE = auto()
    TAKE = auto()  # into a batch
    PUT_BACK = auto()  # the batch was not committed
    DOUBT = auto()  # the senders are told that it was not, as far as anybody knows
    SETTLE = auto()


# By names of their own: to look one up in its enum takes longer than the rest of a move.
ACCEPTED, WAITING, DELIVERED, ACKNOWLEDGED, WRITING, WRITING_DELIVERED, WRITING_ACKNOWLEDGED, DOUBTED, SETTLED = Status
HOLD_BACK, DELIVER, ACKNOWLEDGE, TAKE, PUT_BACK, DOUBT, SETTLE = Event

TRANSITIONS: Final[dict[Status, dict[Event, Status]]] = {
    ACCEPTED: {HOLD_BACK: WAITING, DELIVER: DELIVERED},
    WAITING: {TAKE: WRITING, DELIVER: DELIVERED, SETTLE: SETTLED},
    DELIVERED: {TAKE: WRITING_DELIVERED, ACKNOWLEDGE: ACKNOWLEDGED},
    ACKNOWLEDGED: {TAKE: WRITING_ACKNOWLEDGED},
    WRITING: {DELIVER: WRITING_DELIVERED, DOUBT: DOUBTED, SETTLE: SETTLED},
    WRITING_DELIVERED: {PUT_BACK: DELIVERED, SETTLE: SETTLED},
    WRITING_ACKNOWLEDGED: {PUT_BACK: ACKNOWLEDGED, SETTLE: SETTLED},
    DOUBTED: {SETTLE: SETTLED},
    SETTLED: {},
}
"""What may happen to a message in each state, and where that leads. Anything else is a bug."""

UNANSWERED: Final = frozenset({WAITING, WRITING})
"""Its senders have no answer yet, and nothing of theirs may overtake it."""
UNDELIVERED: Final = UNANSWERED | {DOUBTED}
"""Nothing in its room may overtake it: even refused it may turn out to be stored, and is delivered then."""


_Move: TypeAlias = tuple[Status, int, int]
"""Where it leads, and how many more messages of its senders wait then, and how many more of its room."""


def _move(before: Status, after: Status) -> _Move:
    senders = (after in UNANSWERED) - (before in UNANSWERED)
    return after, senders, (after in UNDELIVERED) - (before in UNDELIVERED)


_MOVES: Final = {
    before: {event: _move(before, after) for event, after in events.items()} for before, events in TRANSITIONS.items()
}


class MessageContent(NamedTuple):
    """What must be the same for two messages with one clientMsgId to be one message."""

    biz_code: int
    room_id: int
    object_id: int
    type: int
    content: str


class Key(NamedTuple):
    """Who names a message, and how."""

    app_id: int
    sender: int
    client_msg_id: str


class Sender(Protocol):
    """Who is told what becomes of a message: a session here, or another instance (services/answers.py)."""

    waiting: int
    ended: bool

    def settled(self) -> None:
        """One of its messages waits no longer to be stored."""
        ...

    def send_receipt(self, client_msg_id: str, msg_id: int, /) -> None:
        """It is stored."""
        ...

    def send_error(self, error: Refused, /) -> None:
        """It is refused."""
        ...


@dataclass(eq=False, slots=True)
class Message:
    """An accepted message."""

    msg_id: int
    app_id: int
    sender: int
    content: MessageContent
    client_msg_id: str
    data: bytes
    created_ms: int
    publication: Publication
    sessions: list[Sender]
    """Who sent it, and sent it again."""
    ring: Ring | None = None
    """Of its room; None for a direct message."""
    refusal: Refused | None = None
    """Not to be stored: why, unless it is there already."""
    number: int = 0
    """Its place among all messages and ACKs."""
    status: Status = ACCEPTED
    address: Address = b""
    """Where its sender was, by the network that counts (services/queue_shares.py)."""

    @property
    def key(self) -> Key:
        """For messages with a clientMsgId."""
        return Key(self.app_id, self.sender, self.client_msg_id)

    def move(self, event: Event) -> None:
        """Raises RuntimeError where this cannot happen to a message in its state."""
        try:
            self.status, senders, room = _MOVES[self.status][event]
        except KeyError:
            raise RuntimeError(f"message {self.msg_id} is {self.status}: {event} cannot happen to it") from None
        if senders > 0:
            for session in self.sessions:
                session.waiting += 1
        elif senders < 0:
            for session in self.sessions:
                session.settled()
        if room and self.ring is not None:
            self.ring.waiting += room

    def join(self, session: Sender) -> None:
        """This session has sent it too, while it waits: it gets the receipt as well.

        Those that have ended meanwhile are forgotten, so one who reconnects to send it again does not make the list
        longer each time.
        """
        if session in self.sessions:
            return
        for gone in [each for each in self.sessions if each.ended]:
            self.sessions.remove(gone)
            gone.settled()
        self.sessions.append(session)
        session.waiting += 1

    def acknowledge(self) -> bool:
        """Its receiver has it; True if that came in time, and it need not go into the inbox."""
        if self.status is DELIVERED:
            self.move(ACKNOWLEDGE)
        return self.status is ACKNOWLEDGED

    def row(self) -> NewMessage:
        """As a batch has it stored."""
        content = self.content
        return NewMessage(
            self.msg_id,
            self.app_id,
            self.sender,
            content.biz_code,
            content.room_id,
            content.object_id,
            self.client_msg_id,
            self.data.decode(),
            self.created_ms,
            content.object_id != 0 and self.status is not WRITING_ACKNOWLEDGED,
        )
