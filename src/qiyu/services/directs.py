"""Direct messages for users who are elsewhere: stored, then sent on to where the receiver is pinned.

Once a batch is committed, the pins of all its receivers are looked up in one round trip, of those who are here too: a
newer login elsewhere may have read its inbox before. What cannot be sent on is in the receiver's inbox; but nobody may
look into that before the next login. So its receiver is remembered until its pin is found, and then its instance is
told to read the inbox once more. The same goes for what was sent into a link that broke before it answered a later
ping. Until then nothing later is sent on to that receiver either, which would come before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, NamedTuple

from qiyu.errors import PresenceUnavailable
from qiyu.metrics import Metrics
from qiyu.model import InstanceId
from qiyu.presence.presence import FindPins, Pin, Unpin, User
from qiyu.protocol.links import CheckInbox, Direct, LinkMessage, StoredMessage
from qiyu.services.presence_queue import Outcome, PresenceQueue

MAX_MISSED: Final = 100_000
MISSED_AT_ONCE: Final = 1_000


class Committed(NamedTuple):
    """A direct message that is stored."""

    receiver: User
    message: StoredMessage


@dataclass(slots=True)
class Directs:
    """`read_inbox` has the inbox of a user read once more who is pinned here, if it is here. `is_gone` says that an
    instance was fenced: pins that still lead there are taken away."""

    me: InstanceId
    queue: PresenceQueue
    send: Callable[[InstanceId, LinkMessage], bool]
    read_inbox: Callable[[User], None]
    is_gone: Callable[[InstanceId], bool]
    orphaned: Callable[[User], None]
    """The pin of a user led to an instance that is gone: one that stood still, and pinned somebody as it went on, may
    have displaced the pin of a session that is still there."""
    watch: Callable[[InstanceId], None]
    """An instance that may have to be judged: a pin leads there."""
    metrics: Metrics
    _missed: dict[User, None] = field(default_factory=dict)
    """Receivers of what could not be sent on, the oldest first."""
    _is_looking: bool = False
    """For some of them, who stay in it until they are found: nothing later may come before."""
    _sent: dict[InstanceId, dict[User, None]] = field(default_factory=dict)
    """Receivers of what was sent since the last ping, for each link."""
    _pinged: dict[InstanceId, dict[User, None]] = field(default_factory=dict)
    """Of what was sent before that ping, until it is answered: who answers has handled all that came before."""

    def __repr__(self) -> str:
        return f"<Directs missed={len(self._missed)}>"

    def __len__(self) -> int:
        """Receivers of messages that could not be sent on yet."""
        return len(self._missed)

    def committed(self, messages: Sequence[Committed]) -> None:
        """These are stored, and delivered to those of their receivers who are here."""
        receivers = tuple(dict.fromkeys(message.receiver for message in messages))
        if receivers:
            self.metrics.pins_looked_up += len(receivers)
            self.queue.ask(FindPins(receivers), lambda outcome: self._found(messages, receivers, outcome))

    def tick(self, *, is_reachable: bool) -> None:
        """Look once more for those who have missed something, if presence answers; to be called each second."""
        if not is_reachable or not self._missed or self._is_looking:
            return
        self._is_looking = True
        users = tuple(islice(self._missed, MISSED_AT_ONCE))
        self.queue.ask(FindPins(users), lambda outcome: self._found_later(users, outcome))

    def pinged(self, instance: InstanceId) -> None:
        """A ping follows on the link to this instance; the one before it has been answered."""
        self._pinged[instance] = self._sent.pop(instance, {})

    def answered(self, instance: InstanceId) -> None:
        """The ping was answered."""
        self._pinged.pop(instance, None)

    def link_lost(self, instance: InstanceId) -> None:
        """What was sent last may not have arrived."""
        for sent in (self._pinged, self._sent):
            self._remember(tuple(sent.pop(instance, {})))

    def _found(self, messages: Sequence[Committed], receivers: tuple[User, ...], outcome: Outcome) -> None:
        if isinstance(outcome, PresenceUnavailable):
            self._remember(receivers)
            return
        pins = self._by_user(receivers, outcome)
        for receiver, message in messages:
            pin = pins[receiver]
            if pin is None or pin.instance == self.me or receiver in self._missed:
                continue
            if self.send(pin.instance, Direct(*receiver, message)):
                self.metrics.directs_sent_on += 1
                self._sent.setdefault(pin.instance, {})[receiver] = None
            else:
                self._remember((receiver,))

    def _found_later(self, users: tuple[User, ...], outcome: Outcome) -> None:
        self._is_looking = False
        if isinstance(outcome, PresenceUnavailable):
            return
        for user, pin in self._by_user(users, outcome).items():
            self._missed.pop(user, None)
            if pin is None:
                continue  # who logs in reads its inbox
            if pin.instance == self.me:
                self.read_inbox(user)
            elif self.send(pin.instance, CheckInbox(*user)):
                self._sent.setdefault(pin.instance, {})[user] = None
            else:
                self._remember((user,))

    def _remember(self, users: Sequence[User]) -> None:
        for user in users:
            self._missed.pop(user, None)
            if len(self._missed) >= MAX_MISSED:
                del self._missed[next(iter(self._missed))]
                self.metrics.directs_not_announced += 1
            self._missed[user] = None

    def _by_user(self, users: tuple[User, ...], outcome: Outcome) -> dict[User, Pin | None]:
        assert isinstance(outcome, list)  # noqa: S101  # the answer to a FindPins
        pins = dict(zip(users, outcome, strict=True))
        for user, pin in pins.items():
            if pin is None:
                continue
            self.watch(pin.instance)
            if self.is_gone(pin.instance):
                self.queue.ask(Unpin(user, pin), lambda _: None)
                self.orphaned(user)
                pins[user] = None
        return pins
