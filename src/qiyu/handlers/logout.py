"""1002 LOGOUT: the client leaves."""

from __future__ import annotations

from functools import partial

from qiyu.model import Instant
from qiyu.protocol.packet import Buffer
from qiyu.routing.session import Session
from qiyu.services.node import Node


def logout(node: Node, session: Session, _body: Buffer, now: Instant) -> None:
    """Answer, then close: once the client's messages have their receipts, for nothing can follow the answer."""
    node.departures.after_stored(session, partial(node.sessions.log_out, session), now)
