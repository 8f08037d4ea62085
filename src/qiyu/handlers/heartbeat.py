"""1004 HEARTBEAT: a sign of life, answered."""

from __future__ import annotations

from qiyu.model import Instant
from qiyu.protocol.packet import Buffer, MsgCode
from qiyu.routing.session import Session
from qiyu.services.node import Node


def heartbeat(_node: Node, session: Session, _body: Buffer, _now: Instant) -> None:
    """Answer; that it came was noted already, as for every packet."""
    session.answer(MsgCode.HEARTBEAT)
