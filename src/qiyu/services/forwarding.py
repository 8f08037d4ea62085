"""Messages said here in rooms that are at home elsewhere: sent to the home, and sent again to the next one.

Each has a reference, which comes back in the home's answer: a receipt, or a refusal. Until then it is kept, in the
order in which it was said. When the home moves, all that has no answer goes to the next one, which receipts what was
stored already with the msgId that it has: that is what a clientMsgId is for. A message without one is refused (503)
where its home is lost, for nobody could tell it from a second one.

While a room has no home, what is said is kept for `hold_seconds`: a home that is handed over is back before that. After
it, new messages are refused (503), so that whoever waits knows; those that were kept are, after `give_up_seconds`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, Protocol

from qiyu.errors import ErrorCode, Refused
from qiyu.metrics import Metrics
from qiyu.model import InstanceId
from qiyu.protocol.links import Forward, LinkMessage, Receipt, Refusal
from qiyu.services.homes import Homes, RoomKey, State

MAX_PENDING: Final = 10_000
MAX_PENDING_BYTES: Final = 64 * 1024 * 1024
HOLD_SECONDS: Final = 1.0
GIVE_UP_SECONDS: Final = 10.0


class Origin(Protocol):
    """Who waits for what becomes of a message."""

    def receipted(self, msg_id: int) -> None:
        """It is stored."""
        ...

    def refused(self, refusal: Refused) -> None:
        """It is not accepted."""
        ...


@dataclass(eq=False, slots=True)
class Pending:
    """A message without an answer."""

    forward: Forward
    origin: Origin
    said_at: float
    sent_to: InstanceId | None = None

    @property
    def key(self) -> RoomKey:
        """Its room."""
        return RoomKey(self.forward.app_id, self.forward.room_id)

    @property
    def size(self) -> int:
        """About the bytes that it takes."""
        return len(self.forward.content) * 2 + len(self.forward.sender_avatar) + 500


@dataclass(slots=True)
class Forwarding:
    """`accept` takes a message as one of a home here; it raises `Refused`. Times are monotonic seconds."""

    homes: Homes
    send: Callable[[InstanceId, LinkMessage], bool]
    accept: Callable[[Forward, Origin], None]
    metrics: Metrics
    hold_seconds: float = HOLD_SECONDS
    give_up_seconds: float = GIVE_UP_SECONDS
    _pending: dict[int, Pending] = field(default_factory=dict)
    """By reference, which is the order in which they were said."""
    _rooms: dict[RoomKey, dict[int, Pending]] = field(default_factory=dict)
    _bytes: int = 0
    _references: int = 0

    def __repr__(self) -> str:
        return f"<Forwarding pending={len(self._pending)}>"

    def __len__(self) -> int:
        """Messages without an answer."""
        return len(self._pending)

    def has_pending(self, key: RoomKey) -> bool:
        """Whether messages of this room have no answer yet."""
        return key in self._rooms

    # What is said here

    def forward(self, message: Forward, origin: Origin, now: float) -> None:
        """Send a message to its room's home elsewhere; its reference is set here. Raises `Refused` (503)."""
        key = RoomKey(message.app_id, message.room_id)
        room = self.homes.want(key, now)
        if len(self._pending) >= MAX_PENDING or self._bytes >= MAX_PENDING_BYTES:
            raise _not_now("too many messages wait for the homes of their rooms", message)
        if not room.has_home and (not message.client_msg_id or now - room.changed_at > self.hold_seconds):
            raise _not_now(f"room {message.room_id} is changing its home: send it again later", message)
        self._references += 1
        pending = Pending(_with_reference(message, self._references), origin, now)
        self._pending[self._references] = pending
        self._rooms.setdefault(key, {})[self._references] = pending
        self._bytes += pending.size
        self._go_on(key, (pending,))

    def tick(self, now: float) -> None:
        """Refuse what has waited for a home for too long."""
        for pending in list(self._pending.values()):
            if now - pending.said_at <= self.give_up_seconds:
                break
            if pending.sent_to is None:
                self._refuse(pending, f"room {pending.key.room_id} has no home that can be reached")

    # What becomes of the home

    def has_home(self, key: RoomKey) -> None:
        """The room has a home, here or elsewhere: all that has no answer goes there, in its order."""
        self._go_on(key, tuple(self._rooms.get(key, {}).values()))

    def interrupted(self, key: RoomKey) -> None:
        """It has none: what cannot be sent twice is refused, and the rest waits."""
        for pending in tuple(self._rooms.get(key, {}).values()):
            if pending.forward.client_msg_id:
                pending.sent_to = None
            else:
                self._refuse(pending, f"room {key.room_id} has lost its home, and without a clientMsgId nobody knows")

    # What the home answers

    def receipted(self, sender: InstanceId, message: Receipt) -> None:
        """It is stored."""
        pending = self._take(sender, message.reference)
        if pending is not None:
            pending.origin.receipted(message.msg_id)

    def refused(self, sender: InstanceId, message: Refusal) -> None:
        """It is not accepted."""
        pending = self._take(sender, message.reference)
        if pending is not None:
            pending.origin.refused(refusal_of(message, pending.forward.client_msg_id))

    # Within

    def _go_on(self, key: RoomKey, messages: Iterable[Pending]) -> None:
        room = self.homes.find(key)
        if room is None:
            return
        for pending in messages:
            if room.state is State.HOME:
                self._forget(pending)
                try:
                    self.accept(pending.forward, pending.origin)
                except Refused as exc:
                    pending.origin.refused(exc)
            elif room.state is State.JOINED and room.holder is not None and self.send(room.holder, pending.forward):
                self.metrics.messages_forwarded += 1
                pending.sent_to = room.holder

    def _take(self, sender: InstanceId, reference: int) -> Pending | None:
        """The message that the answer is about; None where another home was asked meanwhile."""
        pending = self._pending.get(reference)
        if pending is None or pending.sent_to != sender:
            return None
        self._forget(pending)
        return pending

    def _refuse(self, pending: Pending, why: str) -> None:
        self._forget(pending)
        self.metrics.forwards_given_up += 1
        pending.origin.refused(_not_now(why, pending.forward))

    def _forget(self, pending: Pending) -> None:
        reference = pending.forward.reference
        del self._pending[reference]
        room = self._rooms[pending.key]
        del room[reference]
        if not room:
            del self._rooms[pending.key]
        self._bytes -= pending.size


@dataclass(frozen=True, slots=True)
class Forwarder:
    """Another instance, as the origin of a message that it has forwarded here."""

    instance: InstanceId
    reference: int
    send: Callable[[InstanceId, LinkMessage], bool]

    def receipted(self, msg_id: int) -> None:
        """See `Origin`. Where the link is gone, it asks again, and gets the same answer."""
        self.send(self.instance, Receipt(self.reference, msg_id))

    def refused(self, refusal: Refused) -> None:
        """See `Origin`."""
        self.send(self.instance, Refusal(self.reference, refusal.code, refusal.reason))


def refusal_of(message: Refusal, client_msg_id: str) -> Refused:
    """The refusal that another instance has sent, of whichever release it is."""
    known = message.error in ErrorCode.__members__.values()
    code = ErrorCode(message.error) if known else ErrorCode.UNAVAILABLE
    return Refused(code, message.reason, client_msg_id=client_msg_id)


def _not_now(why: str, message: Forward) -> Refused:
    return Refused(ErrorCode.UNAVAILABLE, f"not accepted: {why}", client_msg_id=message.client_msg_id)


def _with_reference(message: Forward, reference: int) -> Forward:
    return Forward(reference, *(getattr(message, name) for name in message.__struct_fields__[1:]))
