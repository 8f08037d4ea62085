"""1003 BIZ: a business message; its `bizCode` says which."""

from __future__ import annotations

from qiyu.model import Instant
from qiyu.protocol.bodies import decode_biz
from qiyu.protocol.packet import Buffer
from qiyu.routing.session import Session
from qiyu.services.core import Core


def biz(core: Core, session: Session, body: Buffer, now: Instant) -> None:
    """Hand it to the service it is for."""
    core.chat.accept(session, decode_biz(body), now)
