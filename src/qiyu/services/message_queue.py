"""Messages on their way to the database: accepted in order, stored in batches, delivered and receipted in order.

A message with a clientMsgId is delivered and receipted once it is stored. One without is delivered at once and stored
behind; but what it would overtake holds it back: an earlier message of its sender or of its room that waits to be
stored. So a sender's messages arrive in the order sent, and a room's in the order of their ids. And when more than two
batches wait, everybody does: senders come down to the pace of the database.

All of it is one queue, first in, first out, with a bound. What goes over it gets ERROR 503, and so does everything that
waits when the database fails; messages that were delivered already stay, to be stored when it is back. Whether a batch
that failed was stored after all is then asked before anything else is done (`take`, then `stored`; or `failed`, and
later `resolved`).

An ACK of a direct message goes the same way: it takes the message out of the receiver's inbox, or, where it comes
before the message was stored, keeps it from ever getting there. It is numbered like a message, and never written before
those that were accepted before it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from itertools import islice, takewhile
from typing import Final, NamedTuple

from qiyu.errors import ErrorCode, Refused
from qiyu.metrics import Metrics
from qiyu.model import Instant
from qiyu.protocol.bodies import decode_chat_data
from qiyu.routing.publication import Publication
from qiyu.routing.session import Session
from qiyu.services.delivery import Delivery
from qiyu.services.rings import Ring
from qiyu.storage.messages import Ack, NewMessage, Outcome, Stored

BATCH_MESSAGES: Final = 1_000
BATCH_ACKS: Final = 5_000
CROWDED_MESSAGES: Final = 2 * BATCH_MESSAGES
WAITING_OF_SESSION: Final = 1_000
"""Messages of one session that may wait: it cannot take the whole queue for itself."""
WAITING_ACKS: Final = 100_000
UNCERTAIN_ACKS: Final = 5_000
"""ACKs that may wait where some of what waits may be for nothing that there is."""
QUEUE_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class MessageContent:
    """What must be the same for two messages with one clientMsgId to be one message."""

    biz_code: int
    room_id: int
    object_id: int
    type: int
    content: str


@dataclass(eq=False, slots=True)
class Message:
    """An accepted message until it is settled: stored, or refused after all."""

    msg_id: int
    app_id: int
    sender: int
    content: MessageContent
    client_msg_id: str
    data: bytes
    created_ms: int
    publication: Publication
    sessions: list[Session]
    """Who sent it, and sent it again."""
    ring: Ring | None = None
    """Of its room; None for a direct message."""
    refusal: Refused | None = None
    """Not to be stored: why, unless it is there already."""
    waits: bool = False
    """It is delivered when it is stored, and what follows it waits; else, it was delivered."""
    number: int = 0
    acknowledged: bool = False
    taken: bool = False
    is_open: bool = True
    """Its senders have not been answered, and nothing of theirs may overtake it."""
    holds_room: bool = False
    """Nothing in its room may overtake it: even refused it does, until it is certain that it was not stored."""

    def acknowledge(self) -> bool:
        """Its receiver has it; True if that came in time, and it need not go into the inbox."""
        if not self.taken:
            self.acknowledged = True
        return not self.taken

    def row(self) -> NewMessage:
        """As it is stored."""
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
            content.object_id != 0 and not self.acknowledged,
        )


@dataclass(frozen=True, slots=True)
class Batch:
    """What goes into one transaction."""

    messages: list[Message]
    acks: list[Ack]


class Key(NamedTuple):
    """Who names a message, and how."""

    app_id: int
    sender: int
    client_msg_id: str


@dataclass(slots=True)
class MessageQueue:
    """The queue. `messages` bounds it, 0 for no bound but that of its bytes."""

    delivery: Delivery
    messages: int
    metrics: Metrics
    failing: bool = False
    """The database does not take messages: those that want a receipt are refused."""
    wake: Callable[[], None] = lambda: None
    """Called when `take` has something to give."""
    enqueued: int = 0
    """The number of the newest message or ACK."""
    _queue: deque[Message] = field(default_factory=deque)
    _taken: list[Message] = field(default_factory=list)
    _is_writing: bool = False
    _bytes: int = 0
    _pending: dict[Key, Message] = field(default_factory=dict)
    _acks: dict[Ack, int] = field(default_factory=dict)
    """With their numbers, oldest first."""
    _taken_acks: dict[Ack, int] = field(default_factory=dict)

    def __repr__(self) -> str:
        state = " failing" if self.failing else ""
        return f"<MessageQueue queue={len(self._queue)} taken={len(self._taken)} acks={len(self._acks)}{state}>"

    def __len__(self) -> int:
        """Messages that are not settled."""
        return len(self._queue) + len(self._taken)

    @property
    def is_idle(self) -> bool:
        """Nothing waits, neither messages nor acknowledgements, and nothing is being written."""
        return not self._queue and not self._acks and not self._is_writing

    @property
    def settled(self) -> int:
        """All messages up to this number are stored or refused, and all ACKs are written."""
        messages, acks = self._taken or self._queue, self._taken_acks or self._acks
        oldest = messages[0].number if messages else self.enqueued + 1
        if acks:
            oldest = min(oldest, next(iter(acks.values())))
        return oldest - 1

    @property
    def _is_crowded(self) -> bool:
        """Messages come faster than they are stored: who does not ask for a receipt is no longer faster than that.

        Not while the database fails: that may last, and what is said without a receipt goes on.
        """
        return len(self._queue) >= CROWDED_MESSAGES and not self.failing

    # What packets do

    def join(self, key: Key, content: MessageContent, session: Session) -> bool:
        """Whether this very message is on its way already: then the session gets its receipt too.

        Raises `Refused` (409) where the clientMsgId is another message's.
        """
        pending = self._pending.get(key)
        if pending is None:
            return False
        if pending.content != content:
            raise _conflict(key.client_msg_id)
        if session not in pending.sessions:
            pending.sessions.append(session)
            session.waiting += 1
        return True

    def check_space(self, session: Session) -> None:
        """Raises `Refused` (503) where one more message cannot be taken."""
        if session.waiting >= WAITING_OF_SESSION:
            raise _not_now(f"{WAITING_OF_SESSION} messages of yours wait to be stored")
        if (self.messages and len(self) >= self.messages) or self._bytes >= QUEUE_BYTES:
            raise _not_now("too many messages wait to be stored")

    def append(self, message: Message, now: Instant) -> None:
        """Take an accepted message, and deliver it unless it has to wait. Raises `Refused` (503)."""
        (session,) = message.sessions
        ring = message.ring
        message.waits = bool(
            message.client_msg_id or session.waiting or (ring is not None and ring.waiting) or self._is_crowded
        )
        if message.waits and self.failing:
            raise _not_now("the database does not answer")
        self.enqueued += 1
        message.number = self.enqueued
        self._queue.append(message)
        self._bytes += len(message.data)
        if message.waits:
            session.waiting += 1
            if ring is not None:
                ring.waiting += 1
                message.holds_room = True
        else:
            if ring is None:
                message.publication.on_ack = message.acknowledge
            self._deliver(message, now)
        if message.client_msg_id:
            self._pending[Key(message.app_id, message.sender, message.client_msg_id)] = message
        self.wake()

    def acknowledged(self, session: Session, msg_id: int, *, is_certain: bool = True) -> None:
        """The user of this session has a direct message: out of its inbox.

        Where it is not certain that there is such a message, the ACK takes no place that another may need.
        """
        if len(self._acks) >= (WAITING_ACKS if is_certain else UNCERTAIN_ACKS):
            self.metrics.inbox_acks_dropped += 1
            return
        self.enqueued += 1
        self._acks.setdefault((session.app_id, session.user_id, msg_id), self.enqueued)
        self.wake()

    # What the writer calls

    def take(self) -> Batch:
        """The oldest messages and acknowledgements; `stored` or `failed` is to be told what became of them."""
        queue = self._queue
        self._is_writing = True
        self._taken = [queue.popleft() for _ in range(min(len(queue), BATCH_MESSAGES))]
        for message in self._taken:
            message.taken = True
        below = queue[0].number if queue else self.enqueued + 1
        acks = takewhile(lambda item: item[1] < below, self._acks.items())
        self._taken_acks = dict(islice(acks, BATCH_ACKS))
        for ack in self._taken_acks:
            del self._acks[ack]
        return Batch(self._taken, list(self._taken_acks))

    def stored(self, message: Message, outcome: Outcome, now: Instant) -> None:
        """The batch was committed, with this outcome: deliver one message of it, and tell its senders."""
        try:
            self._answer(message, outcome, now)
        finally:
            self._settle(message)

    def _answer(self, message: Message, outcome: Outcome, now: Instant) -> None:
        first = outcome.duplicates.get(message.msg_id)
        if first is not None:
            self._repeated(message, first)
        elif message.refusal is not None:
            self.refuse(message, message.refusal)
        elif message.msg_id in outcome.inbox_full:
            self.metrics.inbox_full += 1
            self.refuse(
                message,
                Refused(ErrorCode.INBOX_FULL, f"the inbox of user {message.content.object_id} is full"),
            )
        else:
            self.metrics.messages_stored += 1
            if message.waits:
                self._deliver(message, now)
            self._receipt(message, message.msg_id)

    def done(self) -> None:
        """Every message of the batch is settled."""
        self._taken = []
        self._taken_acks = {}
        self._is_writing = False

    def failed(self, batch: Batch, now: Instant) -> None:
        """Whether the batch was committed is not known. Who waits for a receipt is refused.

        A room for which there is one in the batch goes on waiting until `resolved`: it may yet come, and no later one
        before it. Whatever else waits, without a receipt, goes on at once.
        """
        self.failing = True
        newer, self._acks, self._taken_acks = self._acks, self._taken_acks, {}
        for ack, number in newer.items():
            self._acks.setdefault(ack, number)
        for message in batch.messages:
            if message.client_msg_id:
                self.refuse(message, _not_now("the database does not answer"))
        self._refuse_queued(lambda message: bool(message.client_msg_id))
        held = {message.ring for message in batch.messages if message.holds_room}
        for message in [*batch.messages, *self._queue]:
            if message.waits and message.is_open and message.ring not in held:
                self._let_go(message, now)

    def give_up(self, batch: Batch) -> None:
        """Nothing is known of the batch, and will not be soon: whoever still waits is refused."""
        for message in batch.messages:
            if message.waits:
                self.refuse(message, _not_now("the database does not answer"))
        self._refuse_queued(lambda message: message.waits)

    def resolved(self, batch: Batch, existing: Collection[int], now: Instant) -> None:
        """These messages of the failed batch were committed, the others were not. All that is left goes on.

        The database may still not take any: see `answers_again`.
        """
        again = []
        for message in batch.messages:
            if message.msg_id in existing:
                self.metrics.messages_stored += 1
                if message.waits:
                    self._deliver(message, now)
                    self._receipt(message, message.msg_id)
                self._settle(message)
            elif message.client_msg_id or not message.is_open:
                self._settle(message)
            else:
                message.taken = False
                again.append(message)
        self._taken = []
        self._is_writing = False
        self._queue.extendleft(reversed(again))
        for message in self._queue:
            if message.waits:
                self._let_go(message, now)

    def answers_again(self) -> None:
        """The database takes messages."""
        self.failing = False
        if not self.is_idle:
            self.wake()

    def rejected(self, message: Message) -> None:
        """The database will not take this message, now or later: a bug, and no reason to hold up others."""
        self.metrics.messages_not_stored += not message.waits
        self.refuse(message, Refused(ErrorCode.UNAVAILABLE, "internal error: the message could not be stored"))
        self._settle(message)

    def refuse(self, message: Message, refusal: Refused) -> None:
        """Tell the senders that it is not accepted, and let what waited behind it go on."""
        if not message.is_open:
            return
        error = Refused(refusal.code, refusal.reason, client_msg_id=message.client_msg_id)
        for session in message.sessions:
            if not session.ended:
                self.metrics.packets_refused += 1
                session.send_error(error)
        self._close(message)

    def _refuse_queued(self, which: Callable[[Message], bool]) -> None:
        staying = deque[Message]()
        for message in self._queue:
            if which(message):
                self.refuse(message, _not_now("the database does not answer"))
                self._settle(message)
            else:
                staying.append(message)
        self._queue = staying

    def _let_go(self, message: Message, now: Instant) -> None:
        """Nothing is before it any longer, and it asks for no receipt: it is delivered, and stored behind."""
        self._deliver(message, now)
        message.waits = False
        for session in message.sessions:
            session.waiting -= 1
        if message.ring is None:
            message.publication.on_ack = message.acknowledge
        self._free_room(message)

    def _deliver(self, message: Message, now: Instant) -> None:
        if message.ring is not None:
            self.delivery.to_room(message.ring, message.msg_id, message.sender, message.publication, now)
        else:
            self.delivery.to_user(message.app_id, message.content.object_id, message.publication, now)

    def _repeated(self, message: Message, first: Stored) -> None:
        self.metrics.messages_repeated += 1
        if _content_of(first) == message.content:
            self._receipt(message, first.msg_id)
        else:
            self.refuse(message, _conflict(message.client_msg_id))

    def _receipt(self, message: Message, msg_id: int) -> None:
        if message.client_msg_id:
            for session in message.sessions:
                if not session.ended:
                    self.metrics.receipts += 1
                    session.send_receipt(message.client_msg_id, msg_id)

    def _settle(self, message: Message) -> None:
        self._close(message)
        self._bytes -= len(message.data)
        message.publication.on_ack = None
        self._free_room(message)

    @staticmethod
    def _free_room(message: Message) -> None:
        if message.holds_room and message.ring is not None:
            message.holds_room = False
            message.ring.waiting -= 1

    def _close(self, message: Message) -> None:
        """Its senders have been answered."""
        if not message.is_open:
            return
        message.is_open = False
        if message.waits:
            for session in message.sessions:
                session.waiting -= 1
        if message.client_msg_id:
            del self._pending[Key(message.app_id, message.sender, message.client_msg_id)]


def _content_of(stored: Stored) -> MessageContent:
    data = decode_chat_data(stored.data)
    return MessageContent(stored.biz_code, stored.room_id, stored.object_id, data.type or 0, data.content or "")


def _conflict(client_msg_id: str) -> Refused:
    reason = f"clientMsgId {client_msg_id!r}: you have used it for another message; each needs its own"
    return Refused(ErrorCode.CONFLICT, reason)


def _not_now(why: str) -> Refused:
    return Refused(ErrorCode.UNAVAILABLE, f"not accepted now, for {why}; send it again later")
