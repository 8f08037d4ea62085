"""Delivery: a message that may be delivered goes to who is here, and is noted wherever it may be needed again."""

from __future__ import annotations

from collections.abc import Sequence

from qiyu.model import Instant
from qiyu.routing.hub import Hub
from qiyu.routing.publication import Publication
from qiyu.routing.router import Router
from qiyu.routing.session import Session
from qiyu.services.deferral import Deferral
from qiyu.services.redelivery import Redelivery
from qiyu.services.rings import Ring, RingEntry, Rings


class Delivery:
    """To the members of a room, or to one user."""

    def __init__(self, hub: Hub, router: Router, redelivery: Redelivery, rings: Rings, deferral: Deferral) -> None:
        self._hub = hub
        self._router = router
        self._redelivery = redelivery
        self._rings = rings
        self._deferral = deferral

    def to_room(self, ring: Ring, msg_id: int, sender: int, publication: Publication, now: Instant) -> None:
        """To every member but the sender. `ring` is the room's."""
        self._rings.add(ring, RingEntry(msg_id, sender, publication))
        room = self._hub.find_room(*ring.key)
        if room is not None:
            self._router.to_room(room, publication, self._hub.find(room.app_id, sender))
            self._redelivery.sent_to_room(room, publication, now)

    def to_user(self, app_id: int, user_id: int, publication: Publication, now: Instant) -> None:
        """To one user, if it is connected, and after what its inbox has."""
        session = self._hub.find(app_id, user_id)
        if session is not None and self._deferral.admits(session, publication):
            self.to_session(session, (publication,), now)

    def to_session(self, session: Session, publications: Sequence[Publication], now: Instant) -> None:
        """To one session, each of them, whatever it is owed already."""
        sent = [publication.msg_id for publication in publications if self._router.to_session(session, publication)]
        if sent:
            self._redelivery.sent_to(session, tuple(sent), now)
