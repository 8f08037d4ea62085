"""Messages on their way to the database: accepted in order, stored in batches, delivered and receipted in order.

A message with a clientMsgId is delivered and receipted once it is stored. One without is delivered at once and stored
behind; but what it would overtake holds it back: an earlier message of its sender or of its room that waits to be
stored. So a sender's messages arrive in the order sent, and a room's in the order of their ids. And when more than two
batches wait, everybody does: senders come down to the pace of the database.

All of it is one queue, first in, first out, with a bound, and nobody gets all of it (services/queue_shares.py). What
goes over it gets ERROR 503, and so does everything that waits when the database fails; messages that were delivered
already stay, to be stored when it is back. What becomes of those that are taken out of the queue is for their batch to
say (services/batch.py).

An ACK of a direct message goes the same way: it takes the message out of the receiver's inbox, or, where it comes
before the message was stored, keeps it from ever getting there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from typing import Final

from qiyu.metrics import Metrics
from qiyu.model import Instant
from qiyu.routing.session import Session
from qiyu.services.inbox_acks import InboxAcks
from qiyu.services.message import (
    DELIVER,
    DOUBT,
    HOLD_BACK,
    PUT_BACK,
    SETTLE,
    TAKE,
    UNANSWERED,
    Key,
    Message,
    MessageContent,
    Sender,
)
from qiyu.services.queue_shares import TOO_MANY, Claimant, QueueShares
from qiyu.services.rings import Ring
from qiyu.services.settlement import Settlement, conflict, not_now
from qiyu.storage.messages import Ack

BATCH_MESSAGES: Final = 1_000
CROWDED_MESSAGES: Final = 2 * BATCH_MESSAGES
QUEUE_BYTES: Final = 64 * 1024 * 1024

MESSAGE_BYTES: Final = 1_500
"""What a message takes beside its data, about: its packet, once for each kind of wire, and its row."""
ACK_BYTES: Final = 200

NO_ANSWER: Final = "the database does not answer"


class MessageQueue:
    """The queue. `messages` bounds it, 0 for no bound but that of its bytes."""

    def __init__(self, settlement: Settlement, messages: int, metrics: Metrics) -> None:
        self.settlement = settlement
        self.failing = False
        """The database does not take messages: those that want a receipt are refused."""
        self.enqueued = 0
        """The number of the newest message or ACK."""
        self.wake: Callable[[], None] = lambda: None
        """Called when there is something to write."""
        self.shares = QueueShares(messages)
        self._metrics = metrics
        self._queue: deque[Message] = deque()
        self._taken: list[Message] = []
        self._acks = InboxAcks()
        self._is_writing = False
        self._bytes = 0
        self._pending: dict[Key, Message] = {}

    def __repr__(self) -> str:
        state = " failing" if self.failing else ""
        return f"<MessageQueue queue={len(self._queue)} taken={len(self._taken)} acks={len(self._acks)}{state}>"

    def __len__(self) -> int:
        """Messages that are not settled."""
        return len(self._queue) + len(self._taken)

    @property
    def held_bytes(self) -> int:
        """The data of all messages that wait, and what stands around each, about; an ACK that waits takes 200."""
        return self._bytes + MESSAGE_BYTES * len(self) + ACK_BYTES * len(self._acks)

    @property
    def is_idle(self) -> bool:
        """Nothing waits, neither messages nor acknowledgements, and nothing is being written."""
        return not self._queue and not self._acks and not self._is_writing

    @property
    def settled(self) -> int:
        """All messages up to this number are stored or refused, and all ACKs are written."""
        messages = self._taken or self._queue
        oldest = messages[0].number if messages else self.enqueued + 1
        ack = self._acks.oldest
        return (oldest if ack is None else min(oldest, ack)) - 1

    # What packets do

    def join(self, key: Key, content: MessageContent, session: Sender) -> bool:
        """Whether this very message is on its way already: then the session gets its receipt too.

        Raises `Refused` (409) where the clientMsgId is another message's.
        """
        pending = self._pending.get(key)
        if pending is None:
            return False
        if pending.content != content:
            raise conflict(key.client_msg_id)
        pending.join(session)
        return True

    def check_space(self, session: Claimant, room_id: int) -> None:
        """Raises `Refused` (503) where one more message, to a room or (0) to a user, cannot be taken."""
        why_not = self.shares.why_not(session, room_id, len(self))
        if why_not is None and self._bytes >= QUEUE_BYTES:
            why_not = TOO_MANY
        if why_not is not None:
            self._metrics.messages_crowded_out += 1
            raise not_now(why_not)

    def append(self, message: Message, now: Instant) -> None:
        """Take an accepted message, and deliver it unless it has to wait. Raises `Refused` (503)."""
        ring = message.ring
        has_to_wait = (
            bool(message.client_msg_id)
            or message.sessions[0].waiting > 0
            or (ring is not None and ring.waiting > 0)
            or self._is_crowded
        )
        if has_to_wait and self.failing:
            raise not_now(NO_ANSWER)
        self.enqueued += 1
        message.number = self.enqueued
        self._queue.append(message)
        self._bytes += len(message.data)
        self.shares.add(message)
        if has_to_wait:
            message.move(HOLD_BACK)
        else:
            self.deliver_early(message, now)
        if message.client_msg_id:
            self._pending[message.key] = message
        self.wake()

    def acknowledged(self, session: Session, msg_id: int, *, is_certain: bool = True) -> None:
        """The user of this session has a direct message: out of its inbox.

        Where it is not certain that there is such a message, the ACK takes no place that another may need.
        """
        if not self._acks.has_space(is_certain=is_certain):
            self._metrics.inbox_acks_dropped += 1
            return
        self.enqueued += 1
        self._acks.add((session.app_id, session.user_id, msg_id), self.enqueued)
        self.wake()

    @property
    def _is_crowded(self) -> bool:
        """Messages come faster than they are stored: who does not ask for a receipt is no longer faster than that.

        Not while the database fails: that may last, and what is said without a receipt goes on.
        """
        return len(self._queue) >= CROWDED_MESSAGES and not self.failing

    # What a batch does

    def take(self) -> tuple[list[Message], list[Ack]]:
        """The oldest messages and acknowledgements; nothing more is to be taken before `written` or `not_written`."""
        queue = self._queue
        self._is_writing = True
        self._taken = [queue.popleft() for _ in range(min(len(queue), BATCH_MESSAGES))]
        for message in self._taken:
            message.move(TAKE)
        return self._taken, self._acks.take(queue[0].number if queue else self.enqueued + 1)

    def settle(self, message: Message) -> None:
        """It is stored, or refused for good."""
        if message.client_msg_id and message.status in UNANSWERED:
            del self._pending[message.key]
        message.move(SETTLE)
        message.publication.on_ack = None
        self._bytes -= len(message.data)
        self.shares.remove(message)

    def doubt(self, message: Message) -> None:
        """It may be stored or not, and the database does not answer: its senders are refused."""
        self.settlement.refuse(message, not_now(NO_ANSWER))
        if message.client_msg_id:
            del self._pending[message.key]
        message.move(DOUBT)

    def deliver_early(self, message: Message, now: Instant) -> None:
        """Nothing is before it, and it asks for no receipt: it is delivered, and stored behind."""
        message.move(DELIVER)
        if message.ring is None:
            message.publication.on_ack = message.acknowledge
        self.settlement.deliver(message, now)

    def fail(self) -> None:
        """The database does not answer: who waits in the queue for a receipt is refused."""
        self.failing = True
        self._acks.put_back()
        self._refuse(lambda message: message.client_msg_id)

    def refuse_waiting(self) -> None:
        """Nothing will be known soon: whoever waits in the queue is refused."""
        self._refuse(lambda message: message.status in UNANSWERED)

    def let_go(self, now: Instant, held: Collection[Ring | None] = ()) -> None:
        """What waits in the queue goes on, but for that in the rooms of these rings."""
        for message in self._queue:
            if message.status in UNANSWERED and message.ring not in held:
                self.deliver_early(message, now)

    def written(self) -> None:
        """All that was taken is settled."""
        self._acks.written()
        self._taken = []
        self._is_writing = False

    def not_written(self, messages: list[Message]) -> None:
        """Of what was taken, these are to be stored once more, and before anything else; the others are settled."""
        for message in messages:
            message.move(PUT_BACK)
        self._queue.extendleft(reversed(messages))
        self._taken = []
        self._is_writing = False

    def answers_again(self) -> None:
        """The database takes messages."""
        self.failing = False
        if not self.is_idle:
            self.wake()

    def _refuse(self, which: Callable[[Message], object]) -> None:
        staying = deque[Message]()
        for message in self._queue:
            if which(message):
                self.settlement.refuse(message, not_now(NO_ANSWER))
                self.settle(message)
            else:
                staying.append(message)
        self._queue = staying
