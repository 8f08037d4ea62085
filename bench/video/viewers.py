"""Many who watch, in a process of their own: `python -m bench.video.viewers PORT ROOM COUNT`.

They read and throw away. `ready` is written once each has some of the picture; a line on stdin is answered with the
bytes that the one of them who got the least, and all together, have read since the last.
"""

from __future__ import annotations

import os
import selectors
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

UPGRADE = (
    "GET /live/{room} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
SOME = 4096  # more than an answer to the upgrade


class Crowd:
    """Viewers in another process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def read(self) -> tuple[int, int]:
        """Bytes that whoever got the least, and all of them, have read since the last time."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> tuple[int, int]:
        assert self._process.stdout is not None
        least, total = self._process.stdout.readline().split()
        return int(least), int(total)


@contextmanager
def crowd(port: int, room_id: int, count: int) -> Iterator[Crowd]:
    """So many viewers while inside, all of whom have some of the picture."""
    command = [sys.executable, "-m", "bench.video.viewers", str(port), str(room_id), str(count)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise SystemExit("the viewers did not come: what they say is above")
        yield Crowd(process)
    finally:
        process.kill()
        process.communicate()


def main() -> None:
    """Watch until stdin ends."""
    port, room_id, count = map(int, sys.argv[1:])
    selector = selectors.DefaultSelector()
    read = dict.fromkeys(range(count), 0)
    for number in read:
        sock = socket.create_connection(("127.0.0.1", port), 30)
        sock.sendall(UPGRADE.format(room=room_id, port=port).encode())
        sock.setblocking(False)
        selector.register(sock, selectors.EVENT_READ, number)
    selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
    waiting = set(read)
    buffer = bytearray(256 * 1024)
    while True:
        for key, _ in selector.select():
            if key.data is None:
                if not os.read(sys.stdin.fileno(), 1024):
                    return
                _say(f"{min(read.values())} {sum(read.values())}")
                read = dict.fromkeys(read, 0)
                continue
            size = key.fileobj.recv_into(buffer)  # type: ignore[union-attr]
            if not size:
                raise SystemExit(f"viewer {key.data} of {count} was closed")
            read[key.data] += size
            if key.data in waiting and read[key.data] > SOME:
                waiting.remove(key.data)
                if not waiting:
                    _say("ready")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
