"""What each packet from the server means for one connection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from qiyu.client.errors import ClientError, ConnectFailed, ConnectionLost, Kicked, LoginRefused
from qiyu.client.incoming import Incoming
from qiyu.client.messages import Error, EventName, Message, RoomEvent, read_biz
from qiyu.client.outgoing import Outgoing
from qiyu.client.rooms import Membership, RoomRequests
from qiyu.errors import ErrorCode, ProtocolViolation, Refused
from qiyu.protocol.bodies import BodyDecoder, DataDecoder, ErrorData, ImMsgBody, LogoutData, RoomAnswer
from qiyu.protocol.packet import Buffer, MsgCode, Packet

_TRY_LATER: Final = {ErrorCode.TOO_FAST, ErrorCode.UNAVAILABLE}

_decode_body = BodyDecoder(ImMsgBody)
_decode_room: DataDecoder[RoomAnswer] = DataDecoder(RoomAnswer)
_decode_logout: DataDecoder[LogoutData] = DataDecoder(LogoutData)
_decode_error: DataDecoder[ErrorData] = DataDecoder(ErrorData)


class LoggedOut(ClientError):
    """Our LOGOUT was answered."""


class PacketHandlers:
    """One connection's packets, by code. `logged_in` is set by the answer to the login, `gap` by an ERROR 206."""

    def __init__(self, incoming: Incoming, outgoing: Outgoing, membership: Membership, requests: RoomRequests) -> None:
        self.logged_in = trio.Event()
        self.gap = trio.Event()
        self._incoming = incoming
        self._outgoing = outgoing
        self._membership = membership
        self._requests = requests
        self._handlers: dict[int, Callable[[Buffer], Awaitable[None]]] = {
            MsgCode.LOGIN: self._on_login,
            MsgCode.LOGOUT: self._on_logout,
            MsgCode.BIZ: self._on_biz,
            MsgCode.HEARTBEAT: self._on_heartbeat,
            MsgCode.ACK: self._on_receipt,
            MsgCode.ROOM: self._on_room,
            MsgCode.ERROR: self._on_error,
        }

    async def handle(self, packet: Packet) -> None:
        """Do what it says; a code of a later server says nothing. Raises the `ClientError` that ends the connection."""
        handler = self._handlers.get(packet.code)
        if handler is None:
            return
        try:
            await handler(packet.body)
        except (Refused, ProtocolViolation) as exc:
            raise ConnectionLost(f"the server sent a {packet.code} that cannot be read: {exc}") from None

    async def _on_login(self, _body: Buffer) -> None:
        self.logged_in.set()

    async def _on_logout(self, body: Buffer) -> None:
        data = _decode_body(body).data
        if data == "true":
            raise LoggedOut("logged out")
        end = _decode_logout(data)
        if not end.reconnect:
            raise Kicked(end.reason)
        raise ConnectionLost(f"the server ended the session: {end.reason}", end.retry_after_ms / 1000)

    async def _on_biz(self, body: Buffer) -> None:
        msg_id, item = read_biz(body)
        if item is None:
            self._incoming.acknowledge(msg_id)
            return
        if isinstance(item, RoomEvent) and item.event is EventName.CLOSED:
            self._requests.closed(item.room_id)
        await self._incoming.deliver(msg_id, item)
        # Only now: what a full queue kept out when the connection was lost has yet to come.
        if isinstance(item, Message) and item.room_id is not None:
            self._membership.cursors.arrived(item.room_id, msg_id)

    async def _on_heartbeat(self, _body: Buffer) -> None:
        self._requests.heartbeat_answered()

    async def _on_receipt(self, body: Buffer) -> None:
        receipt = _decode_body(body)
        self._outgoing.receipted(receipt.client_msg_id, receipt.msg_id)

    async def _on_room(self, body: Buffer) -> None:
        self._requests.answered(_decode_room(_decode_body(body).data))

    async def _on_error(self, body: Buffer) -> None:
        packet = _decode_body(body)
        error = _decode_error(packet.data)
        if not self.logged_in.is_set():
            if error.code in _TRY_LATER:
                raise ConnectFailed(error.reason)
            raise LoginRefused(error.reason, error.code)
        if error.code == ErrorCode.DROPPED:
            self._membership.cursors.dropped(self._membership.room_id, error.last_msg_id)
            self.gap.set()
        if packet.client_msg_id:
            self._outgoing.refused(packet.client_msg_id, error)
        elif not self._requests.refused(error):
            await self._incoming.put(Error(error.code, error.reason))
