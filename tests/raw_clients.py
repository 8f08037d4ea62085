"""Clients that know nothing of qiyu's own code for them: raw frames over TCP, wsproto over TCP."""

from __future__ import annotations

import json
import struct
from types import TracebackType
from typing import Any, Self

import trio
import wsproto
from wsproto import events

HEADER = struct.Struct(">hii")
MAGIC = 18673
LOGIN, LOGOUT, BIZ, HEARTBEAT, ACK, ROOM, ERROR = range(1001, 1008)
ROOM_CHAT, DIRECT, ROOM_EVENT, LIKE = range(5555, 5559)
PATIENCE_SECONDS = 10  # for what must come; a test that works never waits this long


def frame(code: int, body: bytes, magic: int = MAGIC) -> bytes:
    """One packet as TCP carries it."""
    return HEADER.pack(magic, code, len(body)) + body


def body_of(**fields: Any) -> bytes:
    """An ImMsgBody; a `data` that is no string becomes JSON in the JSON."""
    if "data" in fields and not isinstance(fields["data"], str):
        fields["data"] = json.dumps(fields["data"])
    return json.dumps(fields).encode()


class Closed(Exception):
    """The server closed the connection; for WebSocket with this code."""

    def __init__(self, code: int | None = None) -> None:
        super().__init__(f"closed with {code}")
        self.code = code


class RawClient:
    """What both kinds of client have in common."""

    stream: trio.SocketStream

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        """Room events that came, in order; they come when they please, so no packet is ever expected to be one."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await trio.aclose_forcefully(self.stream)

    def packet(self, code: int, **fields: Any) -> bytes:
        """One packet as it goes on the wire."""
        raise NotImplementedError

    async def send(self, code: int, **fields: Any) -> None:
        """Send one packet."""
        await self.stream.send_all(self.packet(code, **fields))

    async def next_packet(self) -> tuple[int, dict[str, Any]]:
        """The next packet that is no event: its code, and its body with `data` decoded where it is JSON."""
        while True:
            code, body = await self._receive()
            if body.get("bizCode") != ROOM_EVENT:
                return code, body
            self.events.append(body["data"])

    async def next_event(self, event: str) -> dict[str, Any]:
        """The next event of this kind; others are left out, and no other packet may come before it."""
        with trio.fail_after(PATIENCE_SECONDS):
            while True:
                while self.events:
                    data = self.events.pop(0)
                    if data["event"] == event:
                        return data
                code, body = await self._receive()
                assert body.get("bizCode") == ROOM_EVENT, f"expected an event, got {code}: {body}"
                self.events.append(body["data"])

    async def _receive(self) -> tuple[int, dict[str, Any]]:
        raise NotImplementedError

    async def expect(self, code: int) -> dict[str, Any]:
        """The body of the next packet, which must have this code."""
        with trio.fail_after(PATIENCE_SECONDS):
            got, body = await self.next_packet()
        assert got == code, f"expected {code}, got {got}: {body}"
        return body

    async def expect_closed(self) -> Closed:
        """The server must close the connection without another packet."""
        with trio.fail_after(PATIENCE_SECONDS):
            try:
                got = await self.next_packet()
            except Closed as closed:
                return closed
        raise AssertionError(f"expected the end, got {got}")

    async def say(self, room: int, content: str, **fields: Any) -> None:
        """Chat in a room."""
        await self.send(BIZ, bizCode=ROOM_CHAT, data={"roomId": room, "content": content, **fields})

    async def tell(self, user: int, content: str) -> None:
        """Send a direct message."""
        await self.send(BIZ, bizCode=DIRECT, data={"objectId": user, "content": content})


def decoded(body: bytes) -> dict[str, Any]:
    """A body, with `data` decoded where it is a JSON object."""
    fields: dict[str, Any] = json.loads(body)
    if fields.get("data", "").startswith("{"):
        fields["data"] = json.loads(fields["data"])
    return fields


class RawTcpClient(RawClient):
    """Magic-number frames."""

    def __init__(self, stream: trio.SocketStream) -> None:
        super().__init__()
        self.stream = stream
        self._buffer = b""

    @classmethod
    async def connect(cls, address: str, receive_buffer: int = 0) -> Self:
        """Connect to `host:port`; a `receive_buffer` in bytes makes a peer with little room."""
        host, port = address.rsplit(":", 1)
        sock = trio.socket.socket()
        if receive_buffer:
            sock.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, receive_buffer)
        try:
            await sock.connect((host, int(port)))
        except OSError:
            sock.close()
            raise
        return cls(trio.SocketStream(sock))

    async def log_in(self, user: int, token: str, room: int | None = None) -> None:
        """Log in, and see the answer."""
        data = {} if room is None else {"data": {"roomId": room}}
        await self.send(LOGIN, appId=10001, userId=user, token=token, **data)
        body = await self.expect(LOGIN)
        assert body == {"appId": 10001, "userId": user, "data": "true"}

    def packet(self, code: int, **fields: Any) -> bytes:
        return frame(code, body_of(**fields))

    async def _receive(self) -> tuple[int, dict[str, Any]]:
        magic, code, length = HEADER.unpack(await self._exactly(HEADER.size))
        assert magic == MAGIC
        return code, decoded(await self._exactly(length))

    async def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            try:
                data = await self.stream.receive_some()
            except trio.BrokenResourceError:
                data = b""
            if not data:
                raise Closed
            self._buffer += data
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken


class RawWsClient(RawClient):
    """wsproto's client."""

    def __init__(self, stream: trio.SocketStream, connection: wsproto.WSConnection) -> None:
        super().__init__()
        self.stream = stream
        self._connection = connection
        self._text = ""
        self._packets: list[tuple[int, dict[str, Any]]] = []
        self._closed: Closed | None = None
        self.pongs = 0

    @classmethod
    async def connect(cls, address: str, path: str, origin: str | None = None) -> Self:
        """Upgrade; raises `Rejected` with the HTTP status and text if the server will not."""
        host, port = address.rsplit(":", 1)
        stream = await trio.open_tcp_stream(host, int(port))
        connection = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
        headers = [] if origin is None else [(b"Origin", origin.encode())]
        await stream.send_all(connection.send(events.Request(host=address, target=path, extra_headers=headers)))
        peer = cls(stream, connection)
        rejected: Rejected | None = None
        with trio.fail_after(PATIENCE_SECONDS):
            while True:
                connection.receive_data(await stream.receive_some() or None)
                for event in connection.events():
                    if isinstance(event, events.AcceptConnection):
                        peer._take_events()
                        return peer
                    if isinstance(event, events.RejectConnection):
                        rejected = Rejected(event.status_code)
                    elif isinstance(event, events.RejectData) and rejected:
                        rejected.text += event.data.decode()
                        if event.body_finished:
                            await trio.aclose_forcefully(stream)
                            raise rejected

    @classmethod
    async def log_in(cls, address: str, user: int, token: str, room: int | None = None) -> Self:
        """Connect with the login in the path, and see the answer that comes first."""
        path = f"/{token}/{user}" + (f"/1001/{room}" if room is not None else "")
        peer = await cls.connect(address, path)
        body = await peer.expect(LOGIN)
        assert body == {"appId": 10001, "userId": user, "data": "true"}
        return peer

    def packet(self, code: int, **fields: Any) -> bytes:
        body = body_of(**fields).decode()
        envelope = {"magic": MAGIC, "code": code, "len": len(body), "body": body}
        return self.event(events.TextMessage(json.dumps(envelope)))

    def event(self, event: wsproto.events.Event) -> bytes:
        """Any frame there is, as it goes on the wire; the next one after it."""
        return self._connection.send(event)

    async def send_event(self, event: wsproto.events.Event) -> None:
        """Send any frame there is."""
        await self.stream.send_all(self.event(event))

    async def _receive(self) -> tuple[int, dict[str, Any]]:
        while not self._packets:
            if self._closed is not None:
                raise self._closed
            await self.read()
        return self._packets.pop(0)

    async def read(self) -> None:
        """Take what the next read brings."""
        try:
            data = await self.stream.receive_some()
        except trio.BrokenResourceError:
            data = b""
        if not data:
            self._closed = self._closed or Closed()
            return
        self._connection.receive_data(data)
        self._take_events()

    def _take_events(self) -> None:
        for event in self._connection.events():
            if isinstance(event, events.TextMessage):
                self._text += event.data
                if event.message_finished:
                    self._take(self._text)
                    self._text = ""
            elif isinstance(event, events.CloseConnection):
                self._closed = Closed(event.code)
            elif isinstance(event, events.Pong):
                self.pongs += 1

    def _take(self, text: str) -> None:
        envelope = json.loads(text)
        body = envelope["body"].encode()
        assert (envelope["magic"], envelope["len"]) == (MAGIC, len(body))
        self._packets.append((envelope["code"], decoded(body)))


class Rejected(Exception):
    """The upgrade was refused."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status
        self.text = ""
