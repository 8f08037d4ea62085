"""Sessions on other instances that a newer login has replaced: told to end until that is answered.

A pin that was displaced names such a session. Its instance is told over the link, again at each new link, until it
answers that the session is gone, or is fenced and so has ended all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from qiyu.metrics import Metrics
from qiyu.model import InstanceId
from qiyu.presence.presence import Pin, User
from qiyu.protocol.links import Kick, Kicked, LinkMessage


@dataclass(slots=True)
class Kicks:
    """Bounded by the logins that caused them: one for each that displaced another."""

    send: Callable[[InstanceId, LinkMessage], bool]
    end_session: Callable[[User, int], None]
    """End this very session of a user here as replaced, if it still is the one."""
    metrics: Metrics
    _unanswered: dict[InstanceId, dict[tuple[User, int], None]] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<Kicks unanswered={len(self)}>"

    def __len__(self) -> int:
        """Sessions elsewhere that may still be there."""
        return sum(map(len, self._unanswered.values()))

    def kick(self, user: User, stood: Pin) -> None:
        """A newer login of this user stands here."""
        self._unanswered.setdefault(stood.instance, {})[user, stood.session] = None
        self.metrics.kicks_sent += 1
        self.send(stood.instance, Kick(*user, stood.session))

    def link_opened(self, instance: InstanceId) -> None:
        """Whatever it was told before may have been lost."""
        for user, session in self._unanswered.get(instance, {}):
            self.send(instance, Kick(*user, session))

    def fenced(self, instance: InstanceId) -> None:
        """It ends all its sessions by itself."""
        self._unanswered.pop(instance, None)

    def received(self, sender: InstanceId, message: Kick) -> None:
        """Another instance says that a newer login stands there."""
        self.end_session(User(message.app_id, message.user_id), message.session)
        self.send(sender, Kicked(message.app_id, message.user_id, message.session))

    def answered(self, sender: InstanceId, message: Kicked) -> None:
        """The session is gone."""
        kicks = self._unanswered.get(sender)
        if kicks is None:
            return
        kicks.pop((User(message.app_id, message.user_id), message.session), None)
        if not kicks:
            del self._unanswered[sender]
