"""A server for the client to talk to: its behaviour without its sockets."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import msgspec
import trio

from qiyu.client.access import Token, with_token
from qiyu.client.client import Client, running
from qiyu.client.errors import ClientError, ConnectionLost
from qiyu.client.options import Options
from qiyu.client.transport import Login
from qiyu.client.uplink import Uplink
from qiyu.protocol.packet import APP_ID, BizCode, MsgCode, Packet

USER = 10001
OTHER = 10002


def body_of(packet: Packet) -> Any:
    return msgspec.json.decode(packet.body)


def packet_of(code: MsgCode, **fields: Any) -> Packet:
    """A packet from the server; `data` that is no string is written as JSON."""
    data = fields.get("data", "")
    if not isinstance(data, str):
        fields["data"] = msgspec.json.encode(data).decode()
    return Packet(code, msgspec.json.encode({"appId": APP_ID, "userId": USER} | fields))


def chat_packet(msg_id: int | str, content: str = "", *, room_id: int | None = 1) -> Packet:
    data = {"userId": OTHER, "type": 1, "content": content, "senderName": "ann", "createTime": 5}
    where = {"objectId": USER} if room_id is None else {"roomId": room_id}
    biz_code = BizCode.DIRECT if room_id is None else BizCode.ROOM_CHAT
    return packet_of(MsgCode.BIZ, bizCode=biz_code, msgId=str(msg_id), data=data | where)


def error_packet(code: int, reason: str, **fields: Any) -> Packet:
    return packet_of(MsgCode.ERROR, data={"code": code, "reason": reason}, **fields)


def receipt_packet(client_msg_id: str, msg_id: str) -> Packet:
    return packet_of(MsgCode.ACK, clientMsgId=client_msg_id, msgId=msg_id)


def logout_packet(reason: str, *, reconnect: bool, retry_after_ms: int = 0) -> Packet:
    return packet_of(MsgCode.LOGOUT, data={"reason": reason, "reconnect": reconnect, "retryAfterMs": retry_after_ms})


class FakeSession:
    """One connection, seen as its `Transport` by the client and as a peer by the test."""

    def __init__(self, server: FakeServer, login: Login) -> None:
        self.login = login
        self.opened_at = trio.current_time()
        self.received: list[Packet] = []
        self.writes: list[list[int]] = []
        self.reads = 0
        self.room_id: int | None = None
        self._hung_up = False
        self._server = server
        self._send, self._receive = trio.open_memory_channel[list[Packet]](10_000)

    def push(self, *packets: Packet) -> None:
        """Send packets that arrive in one read."""
        self._send.send_nowait(list(packets))

    def hang_up(self) -> None:
        self._hung_up = True
        self._send.close()

    def codes(self) -> list[int]:
        return [packet.code for packet in self.received]

    def acknowledged(self) -> list[str]:
        acks = [body_of(packet) for packet in self.received if packet.code == MsgCode.ACK]
        return [msg_id for ack in acks for msg_id in [ack["msgId"], *msgspec.json.decode(ack.get("data") or "[]")]]

    def said(self) -> list[str]:
        """The contents of the messages that came."""
        return [msgspec.json.decode(body["data"])["content"] for body in self.messages()]

    def messages(self) -> list[Any]:
        return [body_of(packet) for packet in self.received if packet.code == MsgCode.BIZ]

    def client_msg_ids(self) -> list[str]:
        return [body["clientMsgId"] for body in self.messages()]

    def entries(self) -> list[tuple[int | None, str | None]]:
        """The rooms that were asked for, and after which message."""
        datas = [
            msgspec.json.decode(body_of(packet)["data"]) for packet in self.received if packet.code == MsgCode.ROOM
        ]
        return [(data["roomId"], data.get("afterMsgId")) for data in datas]

    async def receive(self) -> list[Packet]:
        try:
            packets = await self._receive.receive()
        except trio.EndOfChannel:
            raise ConnectionLost("the server closed the connection") from None
        self.reads += 1
        return packets

    async def send(self, packets: Sequence[Packet]) -> None:
        if self._server.reads_nothing:
            await trio.sleep_forever()
        await trio.lowlevel.checkpoint()
        self.writes.append([packet.code for packet in packets])
        for packet in packets:
            if self._hung_up:
                raise ConnectionLost("the connection broke")
            self.received.append(packet)
            self._server.handle(self, packet)


class FakeServer:
    """What it does is set by its attributes; what came is in its `sessions`."""

    def __init__(self) -> None:
        self.sessions: list[FakeSession] = []
        self.attempts: list[float] = []
        self.connect_error: ClientError | None = None
        self.login_answer: Packet | None = packet_of(MsgCode.LOGIN, data="true")
        self.room_errors: dict[int | None, tuple[int, str]] = {}
        self.recovered = True
        self.catch_up: list[Packet] = []
        self.stored: dict[str, str] = {}
        self.refusals: deque[tuple[int, str] | None] = deque()
        self.ignored: set[int] = set()
        self.reads_nothing = False

    @property
    def session(self) -> FakeSession:
        """The latest."""
        return self.sessions[-1]

    @asynccontextmanager
    async def open(self, login: Login) -> AsyncIterator[FakeSession]:
        self.attempts.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        if self.connect_error is not None:
            raise self.connect_error
        session = FakeSession(self, login)
        self.sessions.append(session)
        if self.login_answer is not None:
            session.push(self.login_answer)
        yield session

    def client(
        self,
        *,
        room_id: int | None = None,
        token: Token = "",
        **changed: Any,
    ) -> AbstractAsyncContextManager[Client]:
        uplink = Uplink(with_token(self.open, token), APP_ID, USER, Options(**{"jitter": lambda: 1.0} | changed))
        return running(uplink, room_id)

    def handle(self, session: FakeSession, packet: Packet) -> None:
        if packet.code in self.ignored:
            return
        if packet.code == MsgCode.HEARTBEAT:
            session.push(packet_of(MsgCode.HEARTBEAT, data="true"))
        elif packet.code == MsgCode.ROOM:
            self._move(session, **msgspec.json.decode(body_of(packet)["data"]))
        elif packet.code == MsgCode.BIZ:
            self._take(session, body_of(packet))
        elif packet.code == MsgCode.LOGOUT:
            session.push(packet_of(MsgCode.LOGOUT, data="true"))
            session.hang_up()

    def _take(self, session: FakeSession, body: Any) -> None:
        """Store a message, or refuse it if it is its turn; None lets one pass."""
        client_msg_id = body.get("clientMsgId", "")
        refusal = self.refusals.popleft() if self.refusals else None
        if refusal is not None:
            session.push(error_packet(*refusal, clientMsgId=client_msg_id))
        elif client_msg_id:
            msg_id = self.stored.setdefault(client_msg_id, str(9000 + len(self.stored)))
            session.push(receipt_packet(client_msg_id, msg_id))

    def _move(self, session: FakeSession, roomId: int | None, afterMsgId: str | None = None) -> None:  # noqa: N803
        if roomId in self.room_errors:
            session.push(error_packet(*self.room_errors[roomId]))
            return
        session.room_id = roomId
        recovered = {} if afterMsgId is None else {"recovered": self.recovered}
        session.push(packet_of(MsgCode.ROOM, data={"roomId": roomId, "online": 3} | recovered), *self.catch_up)
