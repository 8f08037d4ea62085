"""Delivery: a message that may be delivered goes to who is here, and is noted wherever it may be needed again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from qiyu.model import Instant
from qiyu.routing.hub import Hub
from qiyu.routing.outgoing import Outgoing
from qiyu.routing.router import Router
from qiyu.routing.session import Replay, Session
from qiyu.services.recent import Recent, RecentMessages, Ring
from qiyu.services.redelivery import Redelivery

DEFERRED_MESSAGES: Final = 1_000
"""The most newer messages that are kept for a session whose inbox is still on its way; beyond it, they are read again
from the inbox."""


class Delivery:
    """To the members of a room, or to one user."""

    def __init__(self, hub: Hub, router: Router, redelivery: Redelivery, recent: RecentMessages) -> None:
        self._hub = hub
        self._router = router
        self._redelivery = redelivery
        self._recent = recent

    def to_room(self, ring: Ring, msg_id: int, sender: int, outgoing: Outgoing, now: Instant) -> None:
        """To every member but the sender. `ring` is the room's."""
        self._recent.add(ring, Recent(msg_id, sender, outgoing))
        room = self._hub.find_room(*ring.key)
        if room is not None:
            self._router.to_room(room, outgoing, self._hub.find(room.app_id, sender))
            self._redelivery.sent_to_room(room, outgoing, now)

    def to_user(self, app_id: int, user_id: int, outgoing: Outgoing, now: Instant) -> None:
        """To one user, if it is connected, and after what its inbox has."""
        session = self._hub.find(app_id, user_id)
        if session is None:
            return
        if session.replay is not None:
            _defer(session.replay, outgoing)
        elif session.replayed < int(outgoing.msg_id):
            self.to_session(session, (outgoing,), now)

    def to_session(self, session: Session, outgoings: Sequence[Outgoing], now: Instant) -> None:
        """To one session, each of them, whatever it is owed already."""
        sent = [outgoing.msg_id for outgoing in outgoings if self._router.to_session(session, outgoing)]
        if sent:
            self._redelivery.sent_to(session, tuple(sent), now)


def _defer(replay: Replay, outgoing: Outgoing) -> None:
    if replay.deferred is None:
        replay.deferred = {}
    if len(replay.deferred) < DEFERRED_MESSAGES:
        replay.deferred[outgoing.msg_id] = outgoing
    else:
        replay.deferred.clear()
        replay.again = True
