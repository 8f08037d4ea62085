"""Who waits for what becomes of a message that goes, or has come, over a link.

To the message queue each of them is a sender like a session here: it is told a receipt or an error, and counts what
waits. To the forwarding it is an `Origin`.
"""

from __future__ import annotations

from qiyu.errors import Refused
from qiyu.metrics import Metrics
from qiyu.routing.session import Session
from qiyu.services.forwarding import Origin


class SessionOrigin:
    """A session here whose message goes to a home elsewhere. Until it is answered, it counts as waiting."""

    __slots__ = ("_client_msg_id", "_metrics", "_session")

    def __init__(self, session: Session, client_msg_id: str, metrics: Metrics) -> None:
        self._session = session
        self._client_msg_id = client_msg_id
        self._metrics = metrics
        session.waiting += 1

    def was_not_taken(self) -> None:
        """It waits for nothing after all."""
        self._session.waiting -= 1

    def receipted(self, msg_id: int) -> None:
        """See `Origin.receipted`."""
        session = self._session
        if self._client_msg_id and not session.ended:
            self._metrics.receipts += 1
            session.send_receipt(self._client_msg_id, msg_id)
        session.settled()

    def refused(self, refusal: Refused) -> None:
        """See `Origin.refused`."""
        session = self._session
        if not session.ended:
            self._metrics.packets_refused += 1
            session.send_error(Refused(refusal.code, refusal.reason, client_msg_id=self._client_msg_id))
        session.settled()


class OriginSender:
    """An origin as the sender of a message that is accepted here. It is answered once: the first answer stands."""

    __slots__ = ("_origin", "ended", "waiting")

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self.ended = False
        """It has its answer."""
        self.waiting = 0

    def settled(self) -> None:
        """See `Endpoint.settled`."""
        self.waiting -= 1

    def send_receipt(self, _client_msg_id: str, msg_id: int) -> None:
        """See `Session.send_receipt`."""
        if not self.ended:
            self.ended = True
            self._origin.receipted(msg_id)

    def send_error(self, error: Refused) -> None:
        """See `Endpoint.send_error`."""
        if not self.ended:
            self.ended = True
            self._origin.refused(error)
