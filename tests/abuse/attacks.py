"""What a hostile client sends: each attack is bytes that are sent again and again, as fast as the server takes them.

An attack is a process of its own, which logs in, says that it is ready, floods until it is killed or its time is up,
and reads what it is answered unless not reading is the attack.
"""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from raw_clients import ACK, BIZ, HEARTBEAT, LOGIN, ROOM, ROOM_CHAT, body_of, frame

CHUNK_BYTES: Final = 64 * 1024
CONTINUATION, TEXT, PING, PONG = 0x0, 0x1, 0x9, 0xA
FINAL: Final = 0x80
LIKE: Final = 5558
OTHER_ROOM: Final = 78
MSG_ID: Final = "1" * 19


def ws_frame(first: int, payload: bytes = b"") -> bytes:
    """One masked frame, by a mask of zeros."""
    size = len(payload)
    length = bytes((0x80 | size,)) if size < 126 else b"\xfe" + struct.pack(">H", size)
    return bytes((first,)) + length + bytes(4) + payload


def ws_packet(code: int, body: bytes) -> bytes:
    """One packet as a browser sends it."""
    envelope = {"magic": 18673, "code": code, "len": len(body), "body": body.decode()}
    return ws_frame(FINAL | TEXT, json.dumps(envelope, separators=(",", ":")).encode())


def chat(room: int, n: int) -> bytes:
    """A message to a room."""
    return body_of(bizCode=ROOM_CHAT, data={"roomId": room, "type": 1, "content": f"flood {n}"})


def likes(room: int) -> bytes:
    """Likes for a room."""
    return body_of(bizCode=LIKE, data={"roomId": room, "count": 1})


def many_acks(count: int, first: int) -> bytes:
    """One ACK of very many messages that never came."""
    return body_of(msgId=MSG_ID, data=json.dumps([str(10**18 + first + n) for n in range(count)]))


@dataclass(frozen=True)
class Attack:
    """One kind of flood."""

    flood: Callable[[int], bytes]
    """The bytes, given the room of the honest."""
    first: Callable[[int], bytes] = lambda _room: b""
    """What is sent once before."""
    websocket: bool = True
    reads: bool = True
    logs_in: bool = True
    comes_again: bool = False
    """Each connection ends after it, and the next one comes."""


def _catch_up(room: int) -> bytes:
    return ws_packet(ROOM, body_of(data={"roomId": room, "afterMsgId": "0"}))


ATTACKS: Final[dict[str, Attack]] = {
    "pings": Attack(lambda _: ws_frame(FINAL | PING)),
    "pongs": Attack(lambda _: ws_frame(FINAL | PONG)),
    "empty continuations": Attack(lambda _: ws_frame(CONTINUATION), first=lambda _: ws_frame(TEXT, b"{")),
    "empty ACKs": Attack(lambda _: frame(ACK, b"{}"), websocket=False),
    "second LOGINs": Attack(lambda _: frame(LOGIN, b"{}"), websocket=False),
    "heartbeats": Attack(lambda _: frame(HEARTBEAT, b"{}"), websocket=False),
    "heartbeats, answers unread": Attack(lambda _: frame(HEARTBEAT, b"{}"), websocket=False, reads=False),
    "random ACKs": Attack(
        lambda _: b"".join(frame(ACK, body_of(msgId=str(10**18 + n))) for n in range(1000)), websocket=False
    ),
    "ACK lists of 60 KB": Attack(lambda _: frame(ACK, many_acks(2700, 0)), websocket=False),
    "chat": Attack(
        lambda room: b"".join(ws_packet(BIZ, chat(room, n)) for n in range(100)),
        first=lambda room: ws_packet(ROOM, body_of(data={"roomId": room})),
    ),
    "likes": Attack(
        lambda room: frame(BIZ, likes(room)),
        first=lambda room: frame(ROOM, body_of(data={"roomId": room})),
        websocket=False,
    ),
    "enter and leave": Attack(
        lambda room: ws_packet(ROOM, body_of(data={"roomId": room})) + ws_packet(ROOM, body_of(data={"roomId": None}))
    ),
    "room hopping with likes": Attack(
        lambda room: b"".join(
            frame(ROOM, body_of(data={"roomId": each})) + frame(BIZ, likes(each)) for each in (room, OTHER_ROOM)
        ),
        websocket=False,
    ),
    "catch-up storm": Attack(_catch_up),
    "refused messages": Attack(lambda _: frame(BIZ, chat(OTHER_ROOM, 0)), websocket=False),
    "members who never read": Attack(
        lambda _: frame(HEARTBEAT, b"{}"), first=lambda room: frame(ROOM, body_of(data={"roomId": room})),
        websocket=False, reads=False,
    ),
    "garbage": Attack(lambda _: b"\x16\x03\x01\x02\x00\x01\x00" * 10, websocket=False, logs_in=False, comes_again=True),
    "half-open connections": Attack(lambda _: b"", websocket=False, logs_in=False),
    "kick war": Attack(lambda _: b"", websocket=False, comes_again=True),
}  # fmt: skip


# Some limits count by address, and the honest are to have another.
FROM: Final = ("127.0.0.2", 0) if sys.platform == "linux" else None


class Connection:
    """One hostile connection."""

    def __init__(self, address: str, user: int, token: str, room: int, attack: Attack) -> None:
        host, port = address.rsplit(":", 1)
        self._attack = attack
        self.sock = socket.create_connection((host, int(port)), timeout=10, source_address=FROM)
        first = b""
        if attack.logs_in and attack.websocket:
            first = self._upgrade(user, token)
        elif attack.logs_in:
            self.sock.sendall(frame(LOGIN, body_of(appId=10001, userId=user, token=token)))
            self.sock.recv(4096)
        self.sock.sendall(first + attack.first(room))
        one = attack.flood(room)
        self._chunk = memoryview(one * max(1, CHUNK_BYTES // max(1, len(one))))
        self._unsent = self._chunk
        self.sock.setblocking(False)

    def _upgrade(self, user: int, token: str) -> bytes:
        self.sock.sendall(
            f"GET /{token}/{user} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self.sock.recv(4096)
        return b""

    def go_on(self) -> bool:
        """Send what can be sent, and read what has come; False once it is gone."""
        try:
            if len(self._chunk):
                self._unsent = self._unsent[self.sock.send(self._unsent) :] or self._chunk
        except BlockingIOError:
            pass
        except OSError:
            return False
        if self._attack.reads:
            try:
                return bool(self.sock.recv(256 * 1024))
            except BlockingIOError:
                pass
            except OSError:
                return False
        return True


def flood(attack: Attack, address: str, room: int, people: list[tuple[int, str]], seconds: float) -> None:
    """Attack for so long, from one connection for each of these people."""
    until = time.monotonic() + seconds
    if attack.comes_again:
        _ready()
        for user, token in _again_and_again(people, until):
            with contextlib.suppress(OSError):
                connection = Connection(address, user, token, room, attack)
                connection.go_on()
                connection.sock.close()
        return
    with selectors.DefaultSelector() as selector:
        for user, token in people:
            connection = Connection(address, user, token, room, attack)
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if attack.flood(room) else 0)
            selector.register(connection.sock, events if attack.reads else selectors.EVENT_WRITE, connection)
        _ready()
        while time.monotonic() < until and selector.get_map():
            for key, _ in selector.select(0.1):
                if not key.data.go_on():
                    selector.unregister(key.fileobj)
                    key.data.sock.close()
        time.sleep(max(0.0, until - time.monotonic()))


def _again_and_again(people: list[tuple[int, str]], until: float) -> Iterator[tuple[int, str]]:
    while True:
        for each in people:
            if time.monotonic() >= until:
                return
            yield each


def _ready() -> None:
    sys.stdout.write("ready\n")
    sys.stdout.flush()


if __name__ == "__main__":
    task = json.loads(sys.stdin.readline())
    flood(ATTACKS[task["attack"]], task["address"], task["room"], [(u, t) for u, t in task["people"]], task["seconds"])
