"""1001 LOGIN, over TCP or on a WebSocket with a bare path.

appId, userId and token say who this is; `data` may name a room to enter at once.
"""

from __future__ import annotations

from typing import Final

from qiyu.errors import BadToken, ErrorCode, ProtocolViolation, Refused
from qiyu.handlers.room import enter_at_login
from qiyu.model import Instant
from qiyu.protocol.bodies import checked_id, decode_login
from qiyu.protocol.packet import Buffer, MsgCode
from qiyu.routing.session import Session
from qiyu.services.node import Node
from qiyu.services.tokens import Identity

TOO_MANY_LOGINS: Final = "too many logins from your address: try again in a second"
LOGIN_WORK: Final = 100
"""What it costs to check a token, in units of about a microsecond."""


def login(node: Node, session: Session, body: Buffer, now: Instant) -> None:
    """Log in and answer, or refuse the connection."""
    identity, data = identify(node, session, body, now)
    node.sessions.log_in(session, identity, now)
    session.answer(MsgCode.LOGIN)
    if data:
        enter_at_login(node, session, data, now)


def identify(node: Node, session: Session, body: Buffer, now: Instant) -> tuple[Identity, str | None]:
    """Who the packet's token lets in, and its `data`. Raises `ProtocolViolation`."""
    if not node.limits.takes_login(session.address, now):
        raise ProtocolViolation(TOO_MANY_LOGINS, code=ErrorCode.TOO_FAST)
    node.metrics.work += LOGIN_WORK
    try:
        packet = decode_login(body)
        user_id = checked_id("userId", packet.user_id)
        app_id = checked_id("appId", packet.app_id)
        identity = node.tokens.verify(packet.token or "", user_id=user_id, app_id=app_id, now_ms=now.unix_ms)
    except BadToken as exc:
        node.metrics.logins_refused += 1
        raise ProtocolViolation(f"login: {exc}", code=ErrorCode.NOT_LOGGED_IN) from None
    except Refused as exc:
        node.metrics.logins_refused += 1
        raise ProtocolViolation(f"login: {exc.reason}") from None
    return identity, packet.data


def login_again(_node: Node, _session: Session, _body: Buffer, _now: Instant) -> None:
    """A second LOGIN on a session is ignored."""
