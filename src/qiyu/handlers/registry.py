"""Which handler a packet goes to: a table for each state of an endpoint, and the doors through which endpoints come.

A client that comes by TCP is not logged in, and then logged in; one that comes by WebSocket asks for the upgrade first,
whose path may be a login already.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, TypeAlias

from qiyu.errors import ErrorCode, ProtocolViolation, Refused
from qiyu.handlers.ack import ack, acknowledge
from qiyu.handlers.biz import biz
from qiyu.handlers.heartbeat import heartbeat
from qiyu.handlers.login import login, login_again
from qiyu.handlers.logout import logout
from qiyu.handlers.publish import media, publish, unpublish
from qiyu.handlers.room import room
from qiyu.handlers.watch import hear, watch_login
from qiyu.handlers.ws_handshake import ws_handshake
from qiyu.model import Instant
from qiyu.protocol.packet import LOGIN_BYTES, Buffer, MsgCode
from qiyu.protocol.rtmp import RtmpCode, RtmpLimits, RtmpWire
from qiyu.protocol.tcp import TcpWire
from qiyu.protocol.websocket import WebSocketWire
from qiyu.routing.endpoint import Door, State
from qiyu.routing.session import Session
from qiyu.services.node import Node
from qiyu.services.sessions import ClientStates
from qiyu.services.viewers import ViewerStates

ClientHandler: TypeAlias = Callable[[Node, Session, Buffer, Instant], None]
"""A `Handler` of clients' packets."""


def _login_first(code: int) -> ProtocolViolation:
    return ProtocolViolation(f"code {code}: expected 1001 (LOGIN) first", code=ErrorCode.NOT_LOGGED_IN)


def _unknown(code: int) -> Refused:
    expected = ", ".join(f"{known} ({MsgCode(known).name})" for known in sorted(_OF_CLIENTS))
    return Refused(ErrorCode.MALFORMED, f"code {code}: expected one of {expected}")


_OF_CLIENTS: Final[Mapping[int, ClientHandler]] = {
    MsgCode.LOGIN: login_again,
    MsgCode.LOGOUT: logout,
    MsgCode.BIZ: biz,
    MsgCode.HEARTBEAT: heartbeat,
    MsgCode.ACK: ack,
    MsgCode.ROOM: room,
}

UPGRADING: Final = State(
    "upgrading", {MsgCode.WS_HANDSHAKE: ws_handshake}, _login_first, is_before_login=True, is_paced=True
)
NOT_LOGGED_IN: Final = State("not logged in", {MsgCode.LOGIN: login}, _login_first, is_before_login=True, is_paced=True)
LOGGED_IN: Final = State("active", _OF_CLIENTS, _unknown, is_paced=True, take_acks=acknowledge)

CLIENT_STATES: Final = ClientStates(NOT_LOGGED_IN, LOGGED_IN)

VIEWER_STATES: Final = ViewerStates(
    not_logged_in=State(
        "viewer, not logged in", {MsgCode.LOGIN: watch_login}, _login_first, is_before_login=True, is_paced=True
    ),
    watching=State("watching", dict.fromkeys(_OF_CLIENTS, hear), _unknown, is_paced=True),
)

PUBLISHER: Final = State(
    "publisher",
    {
        RtmpCode.PUBLISH: publish,
        RtmpCode.UNPUBLISH: unpublish,
        RtmpCode.AUDIO: partial(media, RtmpCode.AUDIO),
        RtmpCode.VIDEO: partial(media, RtmpCode.VIDEO),
        RtmpCode.DATA: partial(media, RtmpCode.DATA),
    },
    lambda code: ProtocolViolation(f"code {code}: an encoder sends none such"),
)


def tcp_door(node: Node, body_bytes: int) -> Door:
    """For clients on the TCP port; `body_bytes` of one packet at most, 0 for any number."""
    return Door(partial(TcpWire, body_bytes, LOGIN_BYTES), node.sessions, NOT_LOGGED_IN)


def ws_door(node: Node, body_bytes: int) -> Door:
    """For clients on the WebSocket port."""
    return Door(partial(WebSocketWire, body_bytes, LOGIN_BYTES), node.sessions, UPGRADING)


def rtmp_door(node: Node, limits: RtmpLimits) -> Door:
    """For encoders."""
    return Door(partial(RtmpWire, limits), node.publishers, PUBLISHER)
