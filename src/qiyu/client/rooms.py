"""Which room a client is in, and which ERROR is the answer to its wish to be in another.

An ERROR names a message by its clientMsgId, but not one without a receipt, nor ROOM; and one about a message sent just
before ROOM may still be under way. So a HEARTBEAT goes out ahead of each ROOM: the server answers in order, and what
comes before the answer to that heartbeat is about something else. No message without a receipt is sent until ROOM is
answered, so what comes after it is about ROOM.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import trio

from qiyu.client.cursors import Cursors
from qiyu.client.errors import RequestRefused
from qiyu.errors import ErrorCode
from qiyu.protocol.bodies import ErrorData, RoomAnswer

# These are about messages alone, and some of them come when the server finds the time.
_OF_MESSAGES: Final = {ErrorCode.DROPPED, ErrorCode.TOO_FAST, ErrorCode.INBOX_FULL}


@dataclass(slots=True)
class Membership:
    """The room of a client, and how far it has read that and others, over all its connections."""

    cursors: Cursors
    room_id: int | None = None


@dataclass(slots=True)
class RoomRequest:
    """A ROOM packet: `done` once it has an answer, or a refusal, or the connection has ended.

    `on_answer` is called before the next packet is read, and so before the messages that the answer announces.
    """

    heartbeats: int
    after_msg_id: str = ""
    on_answer: Callable[[RoomAnswer], None] | None = None
    answer: RoomAnswer | None = None
    refusal: RequestRefused | None = None
    done: trio.Event = field(default_factory=trio.Event)


class RoomRequests:
    """The ROOM packets of one connection that are not answered yet; more than one only if callers gave up."""

    def __init__(self, membership: Membership) -> None:
        self._membership = membership
        self._requests: deque[RoomRequest] = deque()
        self._heartbeats_answered = 0

    def __len__(self) -> int:
        return len(self._requests)

    def begin(self, request: RoomRequest) -> None:
        """A ROOM goes out after the connection's heartbeat of that number."""
        self._requests.append(request)

    def heartbeat_answered(self) -> None:
        self._heartbeats_answered += 1

    def answered(self, answer: RoomAnswer) -> None:
        """The server says which room it is."""
        self._membership.room_id = answer.room_id
        request = self._requests.popleft() if self._requests else None
        after_msg_id = request.after_msg_id if request else ""
        self._membership.cursors.entered(answer.room_id, after_msg_id, answer.last_msg_id)
        if request is None:
            return
        request.answer = answer
        if request.on_answer is not None:
            request.on_answer(answer)
        request.done.set()

    def refused(self, error: ErrorData) -> bool:
        """Whether this ERROR, which names no message, was the answer to a request."""
        if not self._requests or error.code in _OF_MESSAGES:
            return False
        if self._heartbeats_answered < self._requests[0].heartbeats:
            return False
        request = self._requests.popleft()
        request.refusal = RequestRefused(error.code, error.reason)
        request.done.set()
        return True

    def closed(self, room_id: int) -> None:
        """The room is no more."""
        if self._membership.room_id == room_id:
            self._membership.room_id = None

    def end(self) -> None:
        """The connection ended: nobody waits any longer."""
        for request in self._requests:
            request.done.set()
