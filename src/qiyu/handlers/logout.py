"""1002 LOGOUT: the client leaves."""

from __future__ import annotations

from qiyu.model import Instant
from qiyu.protocol.packet import Buffer
from qiyu.routing.session import Session
from qiyu.services.core import Core


def logout(core: Core, session: Session, _body: Buffer, _now: Instant) -> None:
    """Answer, then close."""
    core.connections.log_out(session)
