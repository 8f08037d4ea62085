"""One instance without sockets or a clock: the core, and a driver made of plain variables.

A `Client` is a client and the connection to it: what it writes goes to the dispatcher, what the server owes it is taken
out of its outbox, by the rules of the real driver. It speaks the protocol with code of its own, so that it notices when
the server speaks it wrong. Time stands still but for `Harness.advance`.
"""

from __future__ import annotations

import json
import struct
from collections import Counter
from typing import Any, NamedTuple, cast

from memory_database import MemoryStore
from qiyu.app import build_node
from qiyu.config import Settings
from qiyu.errors import DatabaseUnavailable
from qiyu.handlers.dispatch import Dispatcher
from qiyu.handlers.registry import tcp_door, ws_door
from qiyu.model import Instant
from qiyu.routing.endpoint import Door
from qiyu.routing.inflight import owed_by
from qiyu.routing.outbox import Outbox
from qiyu.routing.publication import Publication
from qiyu.routing.session import Session, Table
from qiyu.services.batch import Batch

SECRET = "the secret of the tests"
ADDRESS = bytes([192, 0, 2, 1])
APP = 10_001
MAGIC = 18673
LOGIN, LOGOUT, BIZ, HEARTBEAT, ACK, ROOM, ERROR = range(1001, 1008)
ROOM_CHAT, DIRECT = 5555, 5556
HEADER = struct.Struct(">hii")
SEND_BYTES = 256 * 1024

MASK = bytes([0x37, 0xFA, 0x21, 0x3D])  # the one of RFC 6455, section 5.7
TEXT, CLOSE, PING, PONG = 0x1, 0x8, 0x9, 0xA


GONE = DatabaseUnavailable("gone")


NO_RATES = dict.fromkeys(("messages_per_second", "packets_per_second", "logins_per_second"), 0)
"""Time stands still in most tests, and what is sent in no time at all is too fast."""


class Received(NamedTuple):
    """A packet from the server."""

    code: int
    body: dict[str, Any]

    @property
    def data(self) -> Any:
        """The JSON inside the JSON."""
        return json.loads(self.body["data"])


def dumps(value: object) -> str:
    """JSON as the server writes it: compact, and not escaped where that can be helped."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def body_of(**fields: Any) -> bytes:
    """An ImMsgBody; a `data` that is neither a string nor null becomes JSON in the JSON."""
    if "data" in fields and not isinstance(fields["data"], str | None):
        fields["data"] = dumps(fields["data"])
    return dumps(fields).encode()


class Client:
    """A client, and the connection to it."""

    def __init__(self, harness: Harness, door: Door) -> None:
        self.harness = harness
        self.outbox = harness.node.outboxes.open(harness.wake, self)
        self.session = cast("Session", harness.dispatcher.opened(door, self.outbox, ADDRESS, harness.now))
        self.waits_to_write = False
        self.shut = False
        """The server has said all that it had to say, and shut its side."""
        self.close_code: int | None = None
        """That of the WebSocket close frame that came; nothing may come after it."""
        self.http = b""
        """The head of the HTTP response, and its text if that is not an upgrade."""
        self.pongs: list[bytes] = []
        self.pings = 0
        """How often the server has asked whether it is there."""
        self._incoming = b""
        self._unread: list[Received] = []

    def frame(self, code: int, body: bytes) -> bytes:
        """One packet as this client puts it on the wire."""
        raise NotImplementedError

    def size_of(self, code: int, body: bytes) -> int:
        """The bytes of one packet as the server has to put it on the wire."""
        raise NotImplementedError

    def farewell_size(self, reason: str) -> int:
        """The bytes of the wire's own good-bye."""
        raise NotImplementedError

    def packet(self, code: int, **fields: Any) -> bytes:
        """`frame`, of a body with these fields."""
        return self.frame(code, body_of(**fields))

    def write(self, data: bytes) -> None:
        """Put bytes on the wire: the server reads them at once, into a buffer that it uses again afterwards."""
        buffer = bytearray(data)
        self.harness.dispatcher.received(self.session, memoryview(buffer), self.harness.now)
        buffer[:] = b"\xee" * len(buffer)
        if self.harness.stores_at_once:
            self.harness.settle()

    def send(self, code: int, **fields: Any) -> None:
        """Send one packet."""
        self.write(self.packet(code, **fields))

    def receive(self) -> list[Received]:
        """Read all that the server has to say by now."""
        while True:
            self.flush()
            if not self.outbox.size:
                break
        self.harness.dirty = [outbox for outbox in self.harness.dirty if outbox is not self.outbox]
        unread, self._unread = self._unread, []
        return unread + self.decoded()

    def receive_first(self) -> Received:
        """Read one packet, and keep those after it for the next `receive`."""
        first, *self._unread = self.receive()
        return first

    def say(self, content: str = "", cid: str = "", *, room: int | None = None) -> None:
        """Send a message to a room: the one it is in, or another."""
        inside = self.session.room
        room_id = room if room is not None or inside is None else inside.id
        self.send(BIZ, bizCode=ROOM_CHAT, data={"roomId": room_id, "content": content}, clientMsgId=cid)

    def whisper(self, to: int, content: str = "", cid: str = "") -> None:
        """Send a direct message."""
        self.send(BIZ, bizCode=DIRECT, data={"objectId": to, "content": content}, clientMsgId=cid)

    def acknowledge(self, *msg_ids: str) -> None:
        """Send an ACK for these."""
        self.send(ACK, data=list(msg_ids))

    def contents(self) -> list[str]:
        """Of the messages that have come; there must be nothing else."""
        received = self.receive()
        assert {packet.code for packet in received} <= {BIZ}, received
        return [packet.data["content"] for packet in received]

    def answer(self, code: int, **fields: Any) -> Received:
        """Send one packet, and read the one packet that comes for it."""
        self.send(code, **fields)
        (answer,) = self.receive()
        return answer

    def flush(self, capacity: int = 2**62, at_most: int = SEND_BYTES) -> None:
        """One turn of the driver with this connection, whose kernel takes `capacity` bytes."""
        outbox = self.outbox
        if outbox.overflowed:
            self.harness.dispatcher.overflowed(self.session)
        data = outbox.take(at_most)
        self._incoming += data[:capacity]
        if capacity < len(data):
            outbox.put_back(data[capacity:])
            self.waits_to_write = True
            return
        self.waits_to_write = False
        if outbox.size:
            self.harness.dirty.append(outbox)
            return
        outbox.is_awake = False
        self.shut = outbox.finished

    def decoded(self) -> list[Received]:
        """The packets that have come whole."""
        raise NotImplementedError

    def hang_up(self) -> None:
        """Close the connection, as the driver sees it: the end of what comes, then the end."""
        self.shut_down()
        self.harness.dispatcher.closed(self.session)

    def shut_down(self) -> None:
        """Shut our side only."""
        self.harness.dispatcher.eof(self.session, self.harness.now)


class TcpClient(Client):
    """A client of the magic-number frames."""

    def __init__(self, harness: Harness) -> None:
        super().__init__(harness, tcp_door(harness.node, harness.settings.limits.body_bytes))

    def frame(self, code: int, body: bytes) -> bytes:
        return HEADER.pack(MAGIC, code, len(body)) + body

    def size_of(self, code: int, body: bytes) -> int:
        return HEADER.size + len(body)

    def farewell_size(self, reason: str) -> int:
        return 0

    def decoded(self) -> list[Received]:
        packets = []
        data = self._incoming
        while len(data) >= HEADER.size:
            magic, code, length = HEADER.unpack_from(data)
            assert magic == MAGIC
            end = HEADER.size + length
            if len(data) < end:
                break
            packets.append(Received(code, json.loads(data[HEADER.size : end])))
            data = data[end:]
        self._incoming = data
        return packets


class WsClient(Client):
    """A client of the WebSocket port."""

    def __init__(self, harness: Harness) -> None:
        super().__init__(harness, ws_door(harness.node, harness.settings.limits.body_bytes))

    def upgrade(self, path: str, *, origin: str | None = None, host: str = "localhost:8086") -> None:
        """Ask for the upgrade."""
        lines = [
            f"GET {path} HTTP/1.1",
            f"Host: {host}",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Version: 13",
            *([] if origin is None else [f"Origin: {origin}"]),
            "\r\n",
        ]
        self.write("\r\n".join(lines).encode())

    def masked(self, opcode: int, payload: bytes) -> bytes:
        """One final frame of a client."""
        size = len(payload)
        if size < 126:
            head = bytes([0x80 | opcode, 0x80 | size])
        elif size < 2**16:
            head = bytes([0x80 | opcode, 0x80 | 126]) + size.to_bytes(2)
        else:
            head = bytes([0x80 | opcode, 0x80 | 127]) + size.to_bytes(8)
        return head + MASK + bytes(byte ^ MASK[i % 4] for i, byte in enumerate(payload))

    def frame(self, code: int, body: bytes) -> bytes:
        envelope = {"magic": MAGIC, "code": code, "len": len(body), "body": body.decode()}
        return self.masked(TEXT, json.dumps(envelope).encode())

    def size_of(self, code: int, body: bytes) -> int:
        size = len(dumps({"magic": MAGIC, "code": code, "len": len(body), "body": body.decode()}).encode())
        return size + (2 if size < 126 else 4 if size < 2**16 else 10)

    def farewell_size(self, reason: str) -> int:
        return 4 + len(reason)

    def decoded(self) -> list[Received]:
        if not self.http and not self._take_http():
            return []
        packets = []
        for opcode, payload in self._frames():
            assert self.close_code is None, "a frame came after the close frame"
            if opcode == TEXT:
                envelope = json.loads(payload)
                assert envelope["magic"] == MAGIC
                assert envelope["len"] == len(envelope["body"].encode())
                packets.append(Received(envelope["code"], json.loads(envelope["body"])))
            elif opcode == CLOSE:
                self.close_code = int.from_bytes(payload[:2]) if payload else 1005
            elif opcode == PING:
                self.pings += 1
            else:
                assert opcode == PONG
                self.pongs.append(payload)
        return packets

    def _take_http(self) -> bool:
        head, end, rest = self._incoming.partition(b"\r\n\r\n")
        if not end:
            return False
        upgraded = head.startswith(b"HTTP/1.1 101 ")
        self.http = head if upgraded else self._incoming
        self._incoming = rest if upgraded else b""
        return upgraded

    def _frames(self) -> list[tuple[int, bytes]]:
        frames = []
        data = self._incoming
        while len(data) >= 2:
            assert data[0] & 0xF0 == 0x80, "a fragment, or a reserved bit"
            start, size = 2, data[1]
            if size == 126:
                start, size = 4, int.from_bytes(data[2:4])
            elif size == 127:
                start, size = 10, int.from_bytes(data[2:10])
            if len(data) < start + size:
                break
            frames.append((data[0] & 0x0F, data[start : start + size]))
            data = data[start + size :]
        self._incoming = data
        return frames


class Harness:
    """An instance with the settings of these sections: `Harness(limits={"content_chars": 5})`.

    What it accepts is stored at once, in memory, unless `stores_at_once` is false: then the test calls `settle`, or the
    steps of `store`. Given the store of another, it is that one after a restart.
    """

    def __init__(self, store: MemoryStore | None = None, **sections: dict[str, Any]) -> None:
        sections = {"living": {"require_open_room": False, "events": False}} | sections
        sections["limits"] = NO_RATES | sections.get("limits", {})
        self.settings = Settings(**sections)  # type: ignore[arg-type]  # pydantic makes the sections
        self.store = store or MemoryStore(
            self.settings.messages.inbox, known_only=self.settings.messages.known_receivers_only
        )
        self.stores_at_once = True
        self.node = build_node(
            self.settings, SECRET, self.store.largest_msg_id(), max(self.settings.instance.number, 0)
        )
        self.dispatcher = Dispatcher(self.node)
        self.metrics = self.node.metrics
        self.now = Instant(1_000.0, 1_750_000_000_000)
        self.dirty: list[Outbox] = []
        """The outboxes that woke the driver, or that it has not done with."""

    def wake(self, outbox: Outbox) -> None:
        """What an outbox calls when it has something for the driver."""
        self.dirty.append(outbox)

    def settle(self) -> None:
        """Do all that the database has to do."""
        self.store.settle(self.dispatcher, self.now)

    def take(self) -> Batch:
        """What has gathered in the queue, for `finish` or `lose`."""
        return Batch(self.node.message_queue)

    def finish(self, batch: Batch) -> None:
        """All steps of a batch that are left, and the database does what it is asked."""
        while self.store.take_step(batch, self.now):
            pass

    def lose(self, batch: Batch, *, committed: bool = False, why: Exception = GONE) -> None:
        """The step that is due fails, as far as anybody can see."""
        self.store.fail_step(batch, self.now, why, committed=committed)

    def write(self) -> bool:
        """Store one batch, and settle it; whether there was one."""
        return self.store.write(self.dispatcher, self.now)

    def read(self) -> bool:
        """Read what inboxes and rooms can be read now; whether there was anything."""
        return self.store.read(self.dispatcher, self.now)

    def advance(self, seconds: float) -> None:
        """Let time pass, and do what is due by it."""
        self.now = Instant(self.now.monotonic + seconds, self.now.unix_ms + int(seconds * 1000))
        self.dispatcher.tick(self.now)
        self.dispatcher.sweep(self.now)

    def token(self, user: int, *, app: int = APP, nickname: str = "", avatar: str = "") -> str:
        """A login token made just now."""
        return self.node.tokens.issue(user, app_id=app, nickname=nickname, avatar=avatar, now_ms=self.now.unix_ms)

    def connect(self) -> TcpClient:
        """A client on the TCP port, not logged in."""
        return TcpClient(self)

    def connect_ws(self) -> WsClient:
        """A client on the WebSocket port, not upgraded."""
        return WsClient(self)

    def log_in(
        self, user: int, *, room: int | None = None, app: int = APP, nickname: str = "", avatar: str = ""
    ) -> TcpClient:
        """A TCP client, logged in and in `room`; `nickname` and `avatar` are those of its token."""
        peer = self.connect()
        fields = {} if room is None else {"data": {"roomId": room}}
        token = self.token(user, app=app, nickname=nickname, avatar=avatar)
        peer.send(LOGIN, appId=app, userId=user, token=token, **fields)
        assert peer.receive_first() == Received(LOGIN, {"appId": app, "userId": user, "data": "true"})
        return peer

    def log_in_ws(
        self, user: int, *, room: int | None = None, app: int = APP, nickname: str = "", avatar: str = ""
    ) -> WsClient:
        """A WebSocket client, upgraded, logged in and in `room`."""
        peer = self.connect_ws()
        token = self.token(user, app=app, nickname=nickname, avatar=avatar)
        peer.upgrade(f"/{token}/{user}/1001/{'' if room is None else room}")
        assert peer.receive_first() == Received(LOGIN, {"appId": app, "userId": user, "data": "true"})
        return peer


def error_of(packet: Received) -> int:
    """The code of an ERROR packet, which must have a reason."""
    assert packet.code == ERROR
    assert set(packet.data) == {"code", "reason"} | (
        {"lastMsgId"} & set(packet.data) if packet.data["code"] == 206 else set()
    )
    assert packet.data["reason"]
    code: int = packet.data["code"]
    return code


def receipts(received: list[Received]) -> list[tuple[str, str]]:
    """The clientMsgId and msgId of each receipt in there."""
    return [(packet.body["clientMsgId"], packet.body["msgId"]) for packet in received if packet.code == ACK]


def ids_of(received: list[Received]) -> list[str]:
    """The msgIds of the messages in there; events have none."""
    return [packet.body["msgId"] for packet in received if packet.code == BIZ and "msgId" in packet.body]


def assert_nothing_waits(harness: Harness) -> None:
    """Nothing is on its way to or from the database, and nothing is counted as if it were."""
    node = harness.node
    log, inbox, catch_up = node.message_queue, node.replays, node.catch_up
    assert log.is_idle
    assert not log.failing
    assert (len(log), log._bytes, log._pending, log._acks.oldest, log.settled) == (0, 0, {}, None, log.enqueued)
    assert inbox._new == inbox._reading == {}
    assert set(inbox._replays) == set(inbox._sending) == set(inbox._deferral._newer)
    assert all(node.hub.find(session.app_id, session.user_id) is session for session in inbox._replays)
    assert inbox._deferral._overrun <= set(inbox._replays)
    for lookups in (catch_up.lookups, node.entering.lookups):
        assert (lookups._waiting, len(lookups)) == ({}, 0)
    assert catch_up._wanted == {}
    assert {session.waiting for session in node.hub} <= {0}
    assert {ring.waiting for ring in node.rings._rings.values()} <= {0}
    recent = node.rings
    assert recent._size == sum(ring.size for ring in recent._rings.values())
    assert recent._empty == {ring for ring in recent._rings.values() if not ring.items}


def assert_nothing_is_left(harness: Harness) -> None:
    """Everybody goes, and nothing is left of them but what is stored and what rooms remember."""
    for session in list(harness.node.hub):
        harness.dispatcher.closed(session)
    harness.settle()
    for _ in range(harness.settings.ack.attempts + 1):
        harness.advance(harness.settings.ack.retry_seconds)
    assert_nothing_waits(harness)
    assert harness.node.in_flight.deliveries == 0
    assert len(harness.node.redelivery) == 0
    assert harness.node.replays._replays == {}
    assert harness.node.replays._deferral._replayed == {}
    assert len(harness.node.hub) == 0


def refusal(received: list[Received]) -> int:
    """The code of the only packet, an ERROR."""
    (packet,) = received
    return error_of(packet)


def in_flight_of(session: Session) -> Table:
    """All that a session was sent and has not acknowledged, of both kinds, oldest first."""
    return dict(sorted(owed_by(session).items()))


def owing(publication: Publication, *sessions: Session) -> list[bool]:
    """Which of these sessions owe an ACK for it."""
    return [owed_by(session).get(publication.msg_id) is publication for session in sessions]


def noted(*sessions: Session) -> Counter[Publication]:
    """In how many tables of these sessions each message is; what is in their ranges, no table has."""
    tables = [table for each in sessions for table in (each.room_in_flight, each.direct_in_flight)]
    return Counter(publication for table in tables for publication in (table or {}).values())
