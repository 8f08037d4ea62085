"""1002 LOGOUT: the client leaves."""

from __future__ import annotations

from qiyu.model import Instant
from qiyu.protocol.packet import Buffer
from qiyu.routing.session import Session
from qiyu.services.node import Node


def logout(node: Node, session: Session, _body: Buffer, _now: Instant) -> None:
    """Answer, then close."""
    node.sessions.log_out(session)
