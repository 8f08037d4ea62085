"""Messages that were sent and have no receipt yet, in the order of their calls.

What the server has not answered when a connection is lost is sent again on the next one, all of it, in order. What it
cannot take now (429, 503) is sent again after a back-off, oldest first and one at a time, each once the one before it
is answered; meanwhile no new message goes out. So only those that were on the wire together with the first that was
refused can overtake it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import trio
from trio.lowlevel import ParkingLot

from qiyu.client.backoff import Backoff
from qiyu.client.errors import MessageRefused, NoReceipt
from qiyu.client.options import Options
from qiyu.errors import ErrorCode
from qiyu.protocol.bodies import ErrorData
from qiyu.protocol.packet import Packet

RESEND_CAP_SECONDS: Final = 4
"""The longest back-off: a message has `receipt_seconds` in all."""

_PASSING: Final = {ErrorCode.TOO_FAST, ErrorCode.UNAVAILABLE}


@dataclass(slots=True, eq=False)
class Unreceipted:
    """A message that was sent: `done` once its outcome is known, or nobody can learn it any more."""

    client_msg_id: str
    packet: Packet
    msg_id: str = ""
    refusal: MessageRefused | None = None
    postponed: bool = False
    why_postponed: str = ""
    done: trio.Event = field(default_factory=trio.Event)


class Outgoing:
    """A client's unreceipted messages, over all its connections. In `changed` waits who wants to send more."""

    def __init__(self, options: Options, changed: ParkingLot) -> None:
        self._options = options
        self._changed = changed
        self._messages: dict[str, Unreceipted] = {}
        self._recovering = False
        self._answered = ParkingLot()
        self._end_reason = ""
        self._end_error: Exception | None = None

    def __repr__(self) -> str:
        return f"<Outgoing unreceipted={len(self._messages)} recovering={self._recovering}>"

    @property
    def is_open(self) -> bool:
        """Whether a new message may go out now."""
        return not self._recovering and len(self._messages) < self._options.unreceipted_messages

    def add(self, client_msg_id: str, packet: Packet) -> Unreceipted:
        """A message goes out now; whoever adds it awaits its `receipt`. Raises ValueError for an id that is in use."""
        if client_msg_id in self._messages:
            raise ValueError(f"client_msg_id {client_msg_id!r}: a call with it is under way")
        message = self._messages[client_msg_id] = Unreceipted(client_msg_id, packet)
        return message

    async def receipt(self, message: Unreceipted, deadline: float) -> str:
        """The message's msgId, once it is known to be stored. Raises `MessageRefused` and `NoReceipt`.

        However it ends, cancelled too, the message is not sent again after it.
        """
        reason = ""
        try:
            with trio.move_on_at(deadline):
                await message.done.wait()
                reason = self._end_reason
        finally:
            self._settle(message)
        if message.refusal is not None:
            raise message.refusal
        if message.msg_id:
            return message.msg_id
        reason = reason or f"no receipt within {self._options.receipt_seconds:g} s{message.why_postponed}"
        raise NoReceipt(f"{reason}; it may have been stored", message.client_msg_id) from self._end_error

    def receipted(self, client_msg_id: str, msg_id: str) -> None:
        """The server has stored it. One whose caller waits no longer is nobody's, and so is a second receipt."""
        message = self._messages.get(client_msg_id)
        if message is not None and msg_id:
            message.msg_id = msg_id
            self._settle(message)

    def refused(self, client_msg_id: str, error: ErrorData) -> None:
        """The server refuses it, for good or for now. What comes after the receipt of another copy is nobody's."""
        message = self._messages.get(client_msg_id)
        if message is None:
            return
        if error.code in _PASSING:
            message.postponed = True
            message.why_postponed = f" ({error.reason})"
            self._recovering = True
            self._answered.unpark_all()
        else:
            message.refusal = MessageRefused(error.code, error.reason)
            self._settle(message)

    def resend(self, put: Callable[[Packet], object]) -> None:
        """On a new connection everything goes out again."""
        self._recovering = False
        for message in self._messages.values():
            message.postponed = False
            put(message.packet)

    async def recover(self, put: Callable[[Packet], object]) -> None:
        """Send again what could not be taken, as long as a connection lasts."""
        cap = min(self._options.retry_cap_seconds, RESEND_CAP_SECONDS)
        backoff = Backoff(self._options.retry_base_seconds, cap, self._options.jitter)
        while True:
            while not self._recovering:
                await self._answered.park()
            await trio.sleep(backoff.next_seconds())
            while (message := self._oldest_postponed()) is not None:
                message.postponed = False
                put(message.packet)
                await self._answer_to(message)
                if message.postponed:
                    break
                backoff.reset()
            else:
                self._recovering = False
                self._changed.unpark_all()

    def end(self, reason: str, error: Exception | None) -> None:
        """There will be no more receipts."""
        self._end_reason = reason
        self._end_error = error
        for message in list(self._messages.values()):
            self._settle(message)

    def reopen(self) -> None:
        """There will be receipts again."""
        self._recovering = False
        self._end_reason = ""
        self._end_error = None

    def _settle(self, message: Unreceipted) -> None:
        if self._messages.get(message.client_msg_id) is message:
            del self._messages[message.client_msg_id]
            self._answered.unpark_all()
            self._changed.unpark_all()
        message.done.set()

    def _oldest_postponed(self) -> Unreceipted | None:
        return next((message for message in self._messages.values() if message.postponed), None)

    async def _answer_to(self, message: Unreceipted) -> None:
        while not message.done.is_set() and not message.postponed:
            await self._answered.park()
