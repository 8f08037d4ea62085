"""The life of one batch, from the queue to its last receipt: what is to be asked of the database, and what follows.

A driver asks `next()` which step is due, takes it, and tells the batch what it came to; then it asks again, until there
is none. The batch never waits, and knows no connection. What it carries to the database are rows, made when it is
taken: no thread of a database looks at messages that live. Its phases (the table of `TRANSITIONS` leads through them):

- STORING: all of it in one transaction.
- SETTLING: it is known what became of each message. It is delivered, and its senders are told.
- SORTING, where the database answers that the transaction will not do, which is a bug: which of the messages has it
  already? A batch that is stored again may have been committed after all, later than anybody could see.
- ONE_BY_ONE: then each of the others in a transaction of its own. One that the database does not take is refused, and
  holds up no other.
- IN_DOUBT, where the database breaks off: nobody knows whether the batch was committed. Senders who want a receipt are
  refused. A room waits for its message in the batch, which may yet come, and no later one before it; whatever else
  waits goes on. Nothing is stored before the database has said which of these messages it has.
- RESOLVING: then those are delivered and receipted after all; of the others, all whose senders were not refused are
  delivered, and go back into the queue.
- PROBING: that a database can be read from says nothing, for another process may hold its lock, or its file be
  read-only. Until it can be written to, senders who want a receipt are refused.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from enum import StrEnum, auto
from typing import Final, NamedTuple, TypeAlias

import structlog

from qiyu.errors import DatabaseUnavailable
from qiyu.model import Instant
from qiyu.services.message import DOUBTED, UNANSWERED, UNDELIVERED, Message
from qiyu.services.message_queue import MessageQueue
from qiyu.storage.messages import Ack, NewMessage, Outcome

log = structlog.get_logger(__name__)


class Store(NamedTuple):
    """Do one transaction, `store_batch`, and tell its outcome to `stored`."""

    messages: list[NewMessage]
    asked: list[NewMessage]
    """Not to be stored; but each may be the resend of one that is."""
    acks: list[Ack]


class FindStored(NamedTuple):
    """Ask which of these the database has, `kept`, and tell their msgIds to `found`."""

    messages: list[NewMessage]


class TryToWrite(NamedTuple):
    """Find out whether the database can be written to, `try_to_write`; if so, call `writable`."""


class Settle(NamedTuple):
    """Call `settle`, which settles one message. Others may have their turn before the next."""


SETTLE: Final = Settle()
Step: TypeAlias = Store | FindStored | TryToWrite | Settle


class Phase(StrEnum):
    """Where a batch stands."""

    STORING = auto()
    SORTING = auto()
    ONE_BY_ONE = auto()
    SETTLING = auto()
    IN_DOUBT = auto()
    RESOLVING = auto()
    PROBING = auto()
    DONE = auto()


class Event(StrEnum):
    """What a step came to."""

    COMMITTED = auto()
    FOUND = auto()
    WRITABLE = auto()
    SETTLED = auto()
    BUG = auto()
    NO_ANSWER = auto()
    NOTHING_LEFT = auto()


# By names of their own: to look one up in its enum takes as long as to settle a message.
STORING, SORTING, ONE_BY_ONE, SETTLING, IN_DOUBT, RESOLVING, PROBING, DONE = Phase
COMMITTED, FOUND, WRITABLE, SETTLED, BUG, NO_ANSWER, NOTHING_LEFT = Event

TRANSITIONS: Final[dict[Phase, dict[Event, Phase]]] = {
    STORING: {COMMITTED: SETTLING, BUG: SORTING, NO_ANSWER: IN_DOUBT},
    SORTING: {FOUND: ONE_BY_ONE, BUG: IN_DOUBT, NO_ANSWER: IN_DOUBT},
    ONE_BY_ONE: {COMMITTED: ONE_BY_ONE, BUG: ONE_BY_ONE, NOTHING_LEFT: SETTLING, NO_ANSWER: IN_DOUBT},
    SETTLING: {SETTLED: SETTLING, NOTHING_LEFT: DONE},
    IN_DOUBT: {FOUND: RESOLVING, BUG: IN_DOUBT, NO_ANSWER: IN_DOUBT},
    RESOLVING: {SETTLED: RESOLVING, NOTHING_LEFT: PROBING},
    PROBING: {WRITABLE: DONE, BUG: PROBING, NO_ANSWER: PROBING},
    DONE: {},
}
"""What may come in each phase, and where that leads. Anything else is a bug of whoever drives the batch."""


class Batch:
    """What has gathered in the queue, up to a bound; the next one may be taken once this one is done."""

    def __init__(self, queue: MessageQueue) -> None:
        self._queue = queue
        self._messages, acks = queue.take()
        self._whole = _store(self._messages, acks)
        self._alone: deque[Store] = deque()
        """What is to be stored in transactions of its own."""
        self._outcome = Outcome({}, {})
        self._not_taken: set[int] = set()
        """The msgIds of those that the database does not take."""
        self._stored: frozenset[int] = frozenset()
        """The msgIds of those that were found to be stored when that was asked."""
        self._again: list[Message] = []
        """Not stored, and to be stored again."""
        self._unsettled = deque(self._messages)
        self.phase = STORING
        self.last_settled = 0
        """The msgId of the message that `settle` was last called for."""

    def __repr__(self) -> str:
        return f"<Batch {self.phase} messages={len(self._messages)} acks={len(self._whole.acks)}>"

    def next(self) -> Step | None:
        """The step that is due; None once the batch is done."""
        phase = self.phase
        if phase is SETTLING or phase is RESOLVING:
            return SETTLE
        if phase is STORING:
            return self._whole
        if phase is ONE_BY_ONE:
            return self._alone[0]
        if phase is PROBING:
            return TryToWrite()
        return None if phase is DONE else FindStored([message.row() for message in self._messages])

    def stored(self, outcome: Outcome, now: Instant) -> None:
        """The transaction was committed, with this outcome."""
        before = self.phase
        self._move(COMMITTED)
        self._outcome.duplicates.update(outcome.duplicates)
        self._outcome.refused.update(outcome.refused)
        if before is ONE_BY_ONE:
            self._alone.popleft()
        self._pass_by_what_is_empty(now)

    def found(self, msg_ids: Collection[int], now: Instant) -> None:
        """The database has these messages of those that were asked for, and no others."""
        self._move(FOUND)
        self._stored = frozenset(msg_ids)
        if self.phase is ONE_BY_ONE:
            self._alone.extend(_store([each], []) for each in self._messages if each.msg_id not in self._stored)
            if self._whole.acks:
                self._alone.append(_store([], self._whole.acks))
        self._pass_by_what_is_empty(now)

    def settle(self, now: Instant) -> None:
        """Settle one message. Raises what its delivery raises, which is a bug; it is settled all the same."""
        if self.phase is RESOLVING:
            settle = self._resolve
        elif self.phase is SETTLING:
            settle = self._settle
        else:
            raise self._not_due(SETTLED)
        message = self._unsettled.popleft()
        self.last_settled = message.msg_id
        try:
            settle(message, now)
        finally:
            if not self._unsettled:
                self._pass_by_what_is_empty(now)

    def writable(self) -> None:
        """The database can be written to."""
        self._move(WRITABLE)
        self._queue.answers_again()

    def failed(self, why: Exception, now: Instant) -> None:
        """The step failed, with DatabaseUnavailable or with anything else, which is a bug."""
        before = self.phase
        self._move(NO_ANSWER if isinstance(why, DatabaseUnavailable) else BUG)
        if self.phase is SORTING:
            count = len(self._messages)
            log.error("a batch of messages failed; they are stored one by one", messages=count, exc_info=why)
        elif self.phase is ONE_BY_ONE:
            self._do_without(self._alone.popleft(), why)
            self._pass_by_what_is_empty(now)
        elif before is IN_DOUBT:
            self._give_up()
        elif self.phase is IN_DOUBT:
            self._begin_to_doubt(now)

    def _move(self, event: Event) -> None:
        phase = TRANSITIONS[self.phase].get(event)
        if phase is None:
            raise self._not_due(event)
        self.phase = phase

    def _not_due(self, event: Event) -> RuntimeError:
        return RuntimeError(f"a batch that is {self.phase}: {event} cannot happen to it")

    def _pass_by_what_is_empty(self, now: Instant) -> None:
        if self.phase is ONE_BY_ONE and not self._alone:
            self._move(NOTHING_LEFT)
        if self._unsettled:
            return
        if self.phase is SETTLING:
            self._move(NOTHING_LEFT)
            self._queue.written()
        elif self.phase is RESOLVING:
            self._move(NOTHING_LEFT)
            again, self._again = self._again, []
            self._queue.not_written(again)
            self._queue.let_go(now)

    def _do_without(self, part: Store, why: Exception) -> None:
        messages = [*part.messages, *part.asked]
        log.error("part of a batch could not be stored", messages=len(messages), acks=len(part.acks), exc_info=why)
        self._not_taken.update(each.msg_id for each in messages)

    def _begin_to_doubt(self, now: Instant) -> None:
        queue = self._queue
        for message in self._messages:
            if message.client_msg_id:
                queue.doubt(message)
        queue.fail()
        held = {
            message.ring for message in self._messages if message.ring is not None and message.status in UNDELIVERED
        }
        for message in self._messages:
            if message.status in UNANSWERED and message.ring not in held:
                queue.deliver_early(message, now)
        queue.let_go(now, held)

    def _give_up(self) -> None:
        """The database will not say soon what it has: whoever still waits is refused."""
        for message in self._messages:
            if message.status in UNANSWERED:
                self._queue.doubt(message)
        self._queue.refuse_waiting()

    def _settle(self, message: Message, now: Instant) -> None:
        try:
            if message.msg_id in self._not_taken:
                self._queue.settlement.never_stored(message)
            else:
                self._queue.settlement.committed(message, self._outcome, now)
        finally:
            self._queue.settle(message)

    def _resolve(self, message: Message, now: Instant) -> None:
        """If it is stored, or its senders were refused, it is settled; else it goes on, and is stored again."""
        queue = self._queue
        if message.msg_id in self._stored:
            try:
                queue.settlement.stored(message, now)
            finally:
                queue.settle(message)
        elif message.status is DOUBTED:
            queue.settle(message)
        else:
            self._again.append(message)
            if message.status in UNANSWERED:
                queue.deliver_early(message, now)


def _store(messages: Sequence[Message], acks: list[Ack]) -> Store:
    rows = [message.row() for message in messages if message.refusal is None]
    asked = [message.row() for message in messages if message.refusal is not None]
    return Store(rows, asked, acks)
