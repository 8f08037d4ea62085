"""Which handler a packet goes to. There is one table for who has not logged in yet, and one for who has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from qiyu.handlers.ack import ack
from qiyu.handlers.biz import biz
from qiyu.handlers.heartbeat import heartbeat
from qiyu.handlers.login import login, login_again
from qiyu.handlers.logout import logout
from qiyu.handlers.room import room
from qiyu.handlers.ws_handshake import ws_handshake
from qiyu.model import Instant
from qiyu.protocol.packet import Buffer, MsgCode
from qiyu.routing.session import Session
from qiyu.services.node import Node

Handler: TypeAlias = Callable[[Node, Session, Buffer, Instant], None]
"""Handles one packet. Raises `Refused` for a packet, `ProtocolViolation` for a connection that is not wanted."""

BEFORE_LOGIN: Final[Mapping[int, Handler]] = {
    MsgCode.WS_HANDSHAKE: ws_handshake,
    MsgCode.LOGIN: login,
}

LOGGED_IN: Final[Mapping[int, Handler]] = {
    MsgCode.LOGIN: login_again,
    MsgCode.LOGOUT: logout,
    MsgCode.BIZ: biz,
    MsgCode.HEARTBEAT: heartbeat,
    MsgCode.ACK: ack,
    MsgCode.ROOM: room,
}
