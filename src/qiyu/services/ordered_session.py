"""A client's session on an instance among others: what it says may go to different places, and keeps its order.

See services/sender_order.py. Here the order is bound to what the session waits for: everything of its own that waits to
be stored, here or elsewhere, is counted in `waiting`, and so is what its order holds back: who leaves waits for that.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

from qiyu.errors import Refused
from qiyu.metrics import Metrics
from qiyu.model import Address
from qiyu.routing.endpoint import Door
from qiyu.routing.outbox import Outbox
from qiyu.routing.session import Session
from qiyu.services.sender_order import HERE, SenderOrder


class OrderedSession(Session):
    """`order` is None while nothing of the session's has an answer to come from elsewhere."""

    __slots__ = ("order",)

    def __init__(self, session_id: int, door: Door, outbox: Outbox, address: Address, now: float) -> None:
        super().__init__(session_id, door, outbox, address, now)
        self.order: SenderOrder | None = None

    def settled(self) -> None:
        """See `Endpoint.settled`."""
        order = self.order
        if order is None:
            super().settled()
            return
        self.waiting -= 1
        order.answered()
        if not order.waiting:
            self.order = None
        self.answered()


def submit(
    session: OrderedSession, place: Hashable, start: Callable[[], bool], client_msg_id: str, metrics: Metrics
) -> None:
    """Say something at a place, now or when it is its turn. `start` returns whether `settled` is called for it, perhaps
    before it returns. Raises `Refused` where `start` does so at once; later, the session is told."""
    order = session.order
    if order is None:
        if place is HERE:
            start()
            return
        order = session.order = SenderOrder.behind(session.waiting)
    is_later = False

    def begin() -> bool:
        session.waiting -= 1
        try:
            return start()
        except Refused as refusal:
            if not is_later:
                raise
            if not session.ended:
                metrics.packets_refused += 1
                session.send_error(Refused(refusal.code, refusal.reason, client_msg_id=client_msg_id))
        return False

    session.waiting += 1
    try:
        order.submit(place, begin)
    finally:
        is_later = True
        if not order.waiting and session.order is order:
            session.order = None
