"""The rule of acknowledging: an ACK belongs to a user and a msgId, never to a connection.

An ACK of what is in flight ends the wait for it; that of a direct message takes it out of the inbox too, or keeps it
from getting there. An ACK of what is not in flight to this session says nothing, but where a direct message may have
gone out of the tables unacknowledged, or have come on another connection of the user: then the database is asked.
"""

from __future__ import annotations

from collections.abc import Sequence

from qiyu.metrics import Metrics
from qiyu.protocol.packet import MAX_MSG_ID, MSG_ID_DIGITS
from qiyu.routing.inflight import InFlight
from qiyu.routing.session import Session
from qiyu.services.limits import UNKNOWN_ACKS_A_PACKET
from qiyu.services.message_queue import MessageQueue
from qiyu.services.replay import Replays


class Acks:
    """Takes ACKs."""

    def __init__(self, in_flight: InFlight, queue: MessageQueue, replays: Replays, metrics: Metrics) -> None:
        self._in_flight = in_flight
        self._queue = queue
        self._replays = replays
        self._metrics = metrics

    def acknowledge(self, session: Session, msg_ids: Sequence[str]) -> None:
        """The session's user has these messages. Whatever is no msgId of a message of its is nothing."""
        others = self._in_flight.take(session, msg_ids)
        if others:
            unknown = sum(not self._direct(session, msg_id) for msg_id in others)
            session.spent += -(-unknown // UNKNOWN_ACKS_A_PACKET)

    def _direct(self, session: Session, msg_id: str) -> bool:
        """Whether it may be that of a direct message."""
        publication = self._in_flight.take_direct(session, msg_id)
        if publication is not None:
            self._metrics.inbox_acknowledged += 1
            if publication.on_ack is None or not publication.on_ack():
                self._queue.acknowledged(session, int(msg_id))
            return True
        if (session.late_acks or self._replays.is_replaying(session)) and _can_be_one(msg_id):
            self._queue.acknowledged(session, int(msg_id), is_certain=False)
            return True
        return False


def _can_be_one(msg_id: str) -> bool:
    # Of equal length, numbers compare as their texts do. What is larger, no database takes.
    return len(msg_id) == MSG_ID_DIGITS and msg_id.isascii() and msg_id.isdigit() and msg_id <= MAX_MSG_ID
