"""Sessions on other instances that a newer login has replaced: told to end until that is answered.

A pin that was displaced names such a session. Its instance is told over the link, again at each new link, until it
answers that the session is gone, or is fenced and so has ended all of them.

Where presence did not say whose pin a login has displaced, if any, all instances are told: whoever has a session of
that user writes its pin once more, and learns from presence whether a newer login stands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from qiyu.metrics import Metrics
from qiyu.model import InstanceId
from qiyu.presence.presence import Pin, User
from qiyu.protocol.links import Kick, Kicked, LinkMessage

ANY_SESSION: Final = 0


@dataclass(slots=True)
class Kicks:
    """Bounded by the logins that caused them: one for each that displaced another."""

    send: Callable[[InstanceId, LinkMessage], bool]
    end_session: Callable[[User, int], None]
    """End this very session of a user here as replaced, if it still is the one."""
    write_again: Callable[[User], None]
    """Have the pin of a user who is logged in here written once more."""
    others: Callable[[], Iterable[InstanceId]]
    """All other instances that are not fenced."""
    is_gone: Callable[[InstanceId], bool]
    """Whether an instance is fenced."""
    watch: Callable[[InstanceId], None]
    """An instance that may have to be judged: it has a session that is to end."""
    metrics: Metrics
    _unanswered: dict[InstanceId, dict[tuple[User, int], None]] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<Kicks unanswered={len(self)}>"

    def __len__(self) -> int:
        """Sessions elsewhere that may still be there."""
        return sum(map(len, self._unanswered.values()))

    def kick(self, user: User, stood: Pin) -> None:
        """A newer login of this user stands here, where this pin stood before."""
        if self.is_gone(stood.instance):  # it cannot say any longer whose pin it has displaced in its turn
            self.kick_whomever(user)
        else:
            self._kick(user, stood)

    def kick_whomever(self, user: User) -> None:
        """A newer login of this user may have displaced another, and nobody knows whose."""
        for instance in self.others():
            self._kick(user, Pin(instance, ANY_SESSION, 0))

    def link_opened(self, instance: InstanceId) -> None:
        """Whatever it was told before may have been lost."""
        for user, session in self._unanswered.get(instance, {}):
            self.send(instance, Kick(*user, session))

    def fenced(self, instance: InstanceId) -> None:
        """It ends all its sessions by itself, but cannot say any longer whose pins those have displaced."""
        for user, session in self._unanswered.pop(instance, {}):
            if session != ANY_SESSION:
                self.kick_whomever(user)

    def received(self, sender: InstanceId, message: Kick) -> None:
        """Another instance says that a newer login stands there."""
        user = User(message.app_id, message.user_id)
        if message.session == ANY_SESSION:
            self.write_again(user)
        else:
            self.end_session(user, message.session)
        self.send(sender, Kicked(message.app_id, message.user_id, message.session))

    def answered(self, sender: InstanceId, message: Kicked) -> None:
        """The session is gone, or its pin is about to be judged."""
        kicks = self._unanswered.get(sender)
        if kicks is None:
            return
        kicks.pop((User(message.app_id, message.user_id), message.session), None)
        if not kicks:
            del self._unanswered[sender]

    def _kick(self, user: User, stood: Pin) -> None:
        self.watch(stood.instance)
        self._unanswered.setdefault(stood.instance, {})[user, stood.session] = None
        self.metrics.kicks_sent += 1
        self.send(stood.instance, Kick(*user, stood.session))
