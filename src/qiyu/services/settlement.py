"""What receivers and senders get to see of an accepted message: it is delivered, receipted or refused."""

from __future__ import annotations

from typing import Protocol

from qiyu.errors import ErrorCode, Refused
from qiyu.metrics import Metrics
from qiyu.model import Instant
from qiyu.protocol.bodies import decode_chat_data
from qiyu.services.delivery import Delivery
from qiyu.services.message import UNDELIVERED, Message, MessageContent
from qiyu.storage.messages import Outcome, Stored, WhyNot


class Elsewhere(Protocol):
    """What there is besides this instance (services/cluster.py)."""

    def stored(self, message: Message, /) -> None:
        """It is stored, and delivered here: other instances are to have it."""
        ...


class Settlement:
    """Tells them. Where the message stands is for its callers to keep."""

    def __init__(self, delivery: Delivery, metrics: Metrics) -> None:
        self.delivery = delivery
        self.elsewhere: Elsewhere | None = None
        """None for an instance that is alone."""
        self._metrics = metrics

    def committed(self, message: Message, outcome: Outcome, now: Instant) -> None:
        """The batch with this message was committed, with this outcome."""
        first = outcome.duplicates.get(message.msg_id)
        if first is not None:
            self._repeated(message, first)
        elif message.refusal is not None:
            self.refuse(message, message.refusal)
        elif (why_not := outcome.refused.get(message.msg_id)) is not None:
            self._not_kept(message, why_not)
        else:
            self.stored(message, now)

    def stored(self, message: Message, now: Instant) -> None:
        """It is stored: deliver it, unless that was done before, and tell its senders."""
        self._metrics.messages_stored += 1
        if message.status in UNDELIVERED:
            self.deliver(message, now)
            if self.elsewhere is not None:
                self.elsewhere.stored(message)
            self._receipt(message, message.msg_id)
        elif self.elsewhere is not None:
            self.elsewhere.stored(message)

    def never_stored(self, message: Message) -> None:
        """The database will not take this message, now or later: a bug, and no reason to hold up others."""
        self._metrics.messages_not_stored += message.status not in UNDELIVERED
        self.refuse(message, Refused(ErrorCode.UNAVAILABLE, "internal error: the message could not be stored"))

    def deliver(self, message: Message, now: Instant) -> None:
        """To the members of its room, or to its receiver."""
        before = self._metrics.deliveries
        if message.ring is not None:
            self.delivery.to_room(message.ring, message.msg_id, message.sender, message.publication, now)
        else:
            self.delivery.to_user(message.app_id, message.content.object_id, message.publication, now)
        self._metrics.latency.delivered(message.msg_id, self._metrics.deliveries - before)

    def refuse(self, message: Message, refusal: Refused) -> None:
        """Tell the senders that it is not accepted."""
        error = Refused(refusal.code, refusal.reason, client_msg_id=message.client_msg_id)
        for session in message.sessions:
            if not session.ended:
                self._metrics.packets_refused += 1
                session.send_error(error)

    def _not_kept(self, message: Message, why_not: WhyNot) -> None:
        receiver = message.content.object_id
        if why_not is WhyNot.UNKNOWN_RECEIVER:
            self._metrics.receivers_unknown += 1
            self.refuse(message, Refused(ErrorCode.FORBIDDEN, f"objectId {receiver}: there is no such account"))
        elif why_not is WhyNot.SHARE_FULL:
            self._metrics.inbox_share_full += 1
            reason = f"user {receiver} has not fetched what you wrote before, and has no room for more from you"
            self.refuse(message, Refused(ErrorCode.INBOX_FULL, reason))
        else:
            self._metrics.inbox_full += 1
            self.refuse(message, Refused(ErrorCode.INBOX_FULL, f"the inbox of user {receiver} is full"))

    def _repeated(self, message: Message, first: Stored) -> None:
        self._metrics.messages_repeated += 1
        if _content_of(first) == message.content:
            self._receipt(message, first.msg_id)
        else:
            self.refuse(message, conflict(message.client_msg_id))

    def _receipt(self, message: Message, msg_id: int) -> None:
        if message.client_msg_id:
            for session in message.sessions:
                if not session.ended:
                    self._metrics.receipts += 1
                    session.send_receipt(message.client_msg_id, msg_id)


def conflict(client_msg_id: str) -> Refused:
    """Two messages have one clientMsgId."""
    reason = f"clientMsgId {client_msg_id!r}: you have used it for another message; each needs its own"
    return Refused(ErrorCode.CONFLICT, reason)


def not_now(why: str) -> Refused:
    """Another time the same message may be accepted."""
    return Refused(ErrorCode.UNAVAILABLE, f"not accepted now, for {why}; send it again later")


def _content_of(stored: Stored) -> MessageContent:
    data = decode_chat_data(stored.data)
    return MessageContent(stored.biz_code, stored.room_id, stored.object_id, data.type or 0, data.content or "")
