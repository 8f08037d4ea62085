"""A hundred who watch one picture, some of whom do not read: the server's memory stays as it is."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from browser.house import House, free_ports
from clips import AAC, H264_AT_ONCE, needs_ffmpeg

VIEWERS = 100
STUCK = 5  # of them
VIEWER_BYTES = 200_000
WATCH_SECONDS = 4.0
MIB = 2**20
FFMPEG = shutil.which("ffmpeg")
UPGRADE = (
    b"GET /live/%d HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)

pytestmark = needs_ffmpeg


class Audience:
    """Sockets that have asked for a picture; a thread reads all of them but those that are stuck."""

    def __init__(self, port: int, room_id: int) -> None:
        self._sockets = [self._open(port, room_id, stuck=number < STUCK) for number in range(VIEWERS)]
        self.read = [0] * VIEWERS
        self.closed: set[int] = set()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._read_on)
        self._thread.start()

    @staticmethod
    def _open(port: int, room_id: int, *, stuck: bool) -> socket.socket:
        sock = socket.socket()
        if stuck:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(10)
        sock.connect(("127.0.0.1", port))
        sock.sendall(UPGRADE % room_id)
        sock.setblocking(False)
        return sock

    def _read_on(self) -> None:
        while not self._stopping.wait(0.1):
            for number, sock in enumerate(self._sockets[STUCK:], STUCK):
                with contextlib.suppress(BlockingIOError):
                    while data := sock.recv(65_536):
                        self.read[number] += len(data)
                    self.closed.add(number)

    def close(self) -> None:
        self._stopping.set()
        self._thread.join()
        for sock in self._sockets:
            sock.close()


@contextmanager
def watching(port: int, room_id: int) -> Iterator[Audience]:
    audience = Audience(port, room_id)
    try:
        yield audience
    finally:
        audience.close()


@contextmanager
def pushing(url: str) -> Iterator[None]:
    picture = ["-re", "-f", "lavfi", "-i", "testsrc2=size=480x270:rate=25", "-re", "-f", "lavfi", "-i", "sine"]
    process = subprocess.Popen(
        [str(FFMPEG), "-v", "error", "-nostdin", *picture, *H264_AT_ONCE, "-qp", "6", *AAC, "-f", "flv", url]
    )
    try:
        yield
    finally:
        process.kill()
        process.wait()


def counted(house: House, name: str) -> float:
    """What /metrics says."""
    with urllib.request.urlopen(f"{house.url}/metrics", timeout=10) as answer:  # noqa: S310
        text = answer.read().decode()
    return float(re.findall(rf"^qiyu_{name}(?:_total)? (\S+)$", text, re.MULTILINE)[0])


def test_a_hundred_viewers_keep_the_memory_flat(tmp_path: Path) -> None:
    (rtmp_port,) = free_ports(1)
    limits = {"limits__connections_per_address": 0, "video__open": "true", "video__viewer_bytes": VIEWER_BYTES}
    house = House(tmp_path, **limits, rtmp__port=rtmp_port)
    house.start()
    try:
        anchor, room_id = house.open_room()
        config = house.call("/living/anchorConfig", anchor.session, roomId=room_id)
        with (
            pushing(f"{config['pushUrl']}/{config['streamKey']}"),
            watching(house.ports["ws"], room_id) as audience,
        ):
            deadline = time.monotonic() + 30
            while not (min(audience.read[STUCK:]) and counted(house, "viewers_behind") >= STUCK):
                assert time.monotonic() < deadline, (json.dumps(audience.read), counted(house, "viewers_behind"))
                time.sleep(0.2)
            before, seen = house.resident_bytes(), list(audience.read)
            time.sleep(WATCH_SECONDS)
            after = house.resident_bytes()
            owed = counted(house, "outbox_bytes")
            assert not audience.closed
            assert all(now > then for now, then in zip(audience.read[STUCK:], seen[STUCK:], strict=True))
    finally:
        house.stop()
    came = sum(audience.read) - sum(seen)
    assert after - before < 4 * MIB, f"{(after - before) / MIB:.1f} MiB more after {came / MIB:.0f} MiB were sent"
    assert owed < (STUCK + 1) * (VIEWER_BYTES + 200_000), "what is owed is bounded, and only to those that do not read"
