"""How long a chat message takes to the members of a room: `python -m bench.video.chat PORT ROOM SECONDS`.

The members, one connection each over plain TCP, say a message a second each, spread over the second. What is printed is
the median and the 99th percentile, in milliseconds, of all deliveries. Tokens come on stdin, a line `USER TOKEN` each.
"""

from __future__ import annotations

import json
import re
import selectors
import socket
import statistics
import struct
import subprocess
import sys
import time
from typing import Final, NamedTuple

from demo.server import Demo

from qiyu.protocol.packet import APP_ID, MAGIC

MEMBERS: Final = 50
FIRST_MEMBER: Final = 800_000
WARM_UP_SECONDS: Final = 2.0
HEADER: Final = struct.Struct(">hii")
SAID_AT: Final = re.compile(rb"@(\d+)@")
MSG_ID: Final = re.compile(rb'"msgId":"?(\d+)')
LOGIN, BIZ, ACK = 1001, 1003, 1005
ROOM_CHAT: Final = 5555


class Spread(NamedTuple):
    """Of all deliveries, in milliseconds."""

    median: float
    p99: float
    deliveries: int


def measure(demo: Demo, room_id: int, seconds: float) -> Spread:
    """Have them talk, in a process of their own."""
    users = range(FIRST_MEMBER, FIRST_MEMBER + MEMBERS)
    tokens = "".join(f"{user} {demo.token(user, f'member {user}')}\n" for user in users)
    command = [sys.executable, "-m", "bench.video.chat", str(demo.ports["tcp"]), str(room_id), str(seconds)]
    done = subprocess.run(command, input=tokens, text=True, stdout=subprocess.PIPE, check=True)
    median, p99, count = done.stdout.split()
    return Spread(float(median), float(p99), int(count))


class _Member:
    def __init__(self, port: int, user_id: int, token: str, room_id: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), 30)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._room_id = room_id
        self._rest = b""
        self._send(LOGIN, appId=APP_ID, userId=user_id, token=token, data=json.dumps({"roomId": room_id}))

    def say(self) -> None:
        content = f"@{time.monotonic_ns()}@ as long as people's messages often are"
        data = json.dumps({"roomId": self._room_id, "content": content})
        self._send(BIZ, bizCode=ROOM_CHAT, data=data)

    def _send(self, code: int, **fields: object) -> None:
        body = json.dumps(fields).encode()
        self.sock.sendall(HEADER.pack(MAGIC, code, len(body)) + body)

    def read(self) -> list[int]:
        """When the messages that came were said; they are acknowledged."""
        data = self._rest + self.sock.recv(65_536)
        said, at = [], 0
        while len(data) - at >= HEADER.size:
            _, code, size = HEADER.unpack_from(data, at)
            end = at + HEADER.size + size
            if len(data) < end:
                break
            body = data[at + HEADER.size : end]
            if code == BIZ and (found := MSG_ID.search(body)):
                self._send(ACK, msgId=found[1].decode())
                if stamp := SAID_AT.search(body):
                    said.append(int(stamp[1]))
            at = end
        self._rest = data[at:]
        return said


def main() -> None:
    """Talk, listen and print."""
    port, room_id, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    selector = selectors.DefaultSelector()
    members = []
    for line in sys.stdin:
        user_id, token = line.split()
        members.append(member := _Member(port, int(user_id), token, room_id))
        selector.register(member.sock, selectors.EVENT_READ, member)
    begun = time.monotonic()
    ends, counts_from = begun + WARM_UP_SECONDS + seconds, begun + WARM_UP_SECONDS
    taken: list[float] = []
    turn, due = 0, begun + 1
    while (now := time.monotonic()) < ends:
        if now >= due:
            members[turn % len(members)].say()
            turn, due = turn + 1, due + 1 / len(members)
            continue
        for key, _ in selector.select(min(due, ends) - now):
            said = key.data.read()
            came = time.monotonic_ns()
            if came > counts_from * 1e9:
                taken += [(came - at) / 1e6 for at in said]
    print(statistics.median(taken), statistics.quantiles(taken, n=100)[-1], len(taken))


if __name__ == "__main__":
    main()
