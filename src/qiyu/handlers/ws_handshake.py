"""1000 WS_HANDSHAKE: the WebSocket upgrade, whose path may be a login, or name a picture (docs/protocol.md)."""

from __future__ import annotations

from typing import Final

from qiyu.errors import BadToken, ErrorCode, ProtocolViolation, Refused, WsClose
from qiyu.handlers.login import LOGIN_WORK, TOO_MANY_LOGINS
from qiyu.handlers.room import enter_at_login
from qiyu.handlers.watch import watch, watched_room
from qiyu.model import Instant
from qiyu.protocol.bodies import RoomData, encode_json
from qiyu.protocol.handshake import LoginTarget, UpgradeRequest, parse_target
from qiyu.protocol.packet import Buffer, MsgCode
from qiyu.protocol.websocket import WebSocketWire
from qiyu.routing.session import Session
from qiyu.services.node import Node
from qiyu.services.origins import Origins
from qiyu.services.tokens import Identity

BAD_REQUEST: Final = 400
UNAUTHORIZED: Final = 401
FORBIDDEN: Final = 403
TOO_MANY_REQUESTS: Final = 429
BARE_PATH: Final = "/"


class Rejected(Exception):
    """The upgrade is refused with an HTTP status."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def ws_handshake(node: Node, session: Session, _body: Buffer, now: Instant) -> None:
    """Upgrade, and log in unless the path is bare: then LOGIN is to follow. Or refuse with an HTTP status."""
    node.metrics.work += LOGIN_WORK
    wire = session.wire
    if not isinstance(wire, WebSocketWire) or wire.upgrade is None:
        raise ProtocolViolation("code 1000: expected 1001 (LOGIN)", code=ErrorCode.NOT_LOGGED_IN)
    try:
        _check_origin(wire.upgrade, node.origins)
        path = _below(node.ws_path, wire.upgrade.target)
        if path == BARE_PATH:
            session.outbox.push(wire.accept())
            node.sessions.upgraded(session)
            return
        room_id = _watched(path)
        if room_id is not None:
            session.outbox.push(wire.accept())
            node.sessions.let_go(session)
            node.viewers.adopt(session, room_id, now)
            if node.viewers.need_no_login:
                watch(node, session, now)
            return
        target = _read_target(path)
        identity = _identify(node, session, target, now)
    except Rejected as rejected:
        node.metrics.logins_refused += 1
        node.refusals.upgrade(session.address, rejected.status, rejected.reason, wire.upgrade.origin)
        session.outbox.push(wire.reject(rejected.status, rejected.reason))
        node.sessions.dismiss(session, WsClose.POLICY_VIOLATION, rejected.reason)
        return
    session.outbox.push(wire.accept())
    node.sessions.log_in(session, identity, now)
    session.answer(MsgCode.LOGIN)
    if target.param:
        _enter(node, session, target.param, now)


def _check_origin(upgrade: UpgradeRequest, origins: Origins) -> None:
    origin = upgrade.origin
    # Only browsers send it, and only they carry somebody's page to somebody's server.
    if origin is not None and not origins.any and not origins.let(origin, upgrade.host):
        raise Rejected(FORBIDDEN, "Origin is not among [ws] allowed_origins")


def _below(prefix: str, target: str) -> str:
    """The path without the prefix that a proxy in front has left there."""
    if not prefix:
        return target
    if target == prefix:
        return BARE_PATH
    if not target.startswith(f"{prefix}/"):
        raise Rejected(BAD_REQUEST, f"the path must begin with {prefix}/")
    return target.removeprefix(prefix)


def _watched(path: str) -> int | None:
    try:
        return watched_room(path)
    except ProtocolViolation as exc:
        raise Rejected(BAD_REQUEST, exc.reason) from None


def _read_target(path: str) -> LoginTarget:
    try:
        target = parse_target(path)
    except ProtocolViolation as exc:
        raise Rejected(BAD_REQUEST, exc.reason) from None
    if target.code != MsgCode.LOGIN:
        raise Rejected(BAD_REQUEST, f"code {target.code}: expected {MsgCode.LOGIN:d}")
    return target


def _identify(node: Node, session: Session, target: LoginTarget, now: Instant) -> Identity:
    if not node.limits.takes_login(session.address, now):
        raise Rejected(TOO_MANY_REQUESTS, TOO_MANY_LOGINS)
    try:
        return node.tokens.verify(target.token, user_id=target.user_id, app_id=None, now_ms=now.unix_ms)
    except BadToken as exc:
        raise Rejected(UNAUTHORIZED, str(exc)) from None


def _enter(node: Node, session: Session, param: str, now: Instant) -> None:
    if param.isascii() and param.isdecimal():
        enter_at_login(node, session, encode_json(RoomData(room_id=int(param[:20]))).decode(), now)
    else:
        session.send_error(Refused(ErrorCode.MALFORMED, "room in the path: expected a whole number"))
