"""A server in a process of its own that can be killed, the people on it, and a client that speaks plain TCP."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from qiyu.protocol.packet import APP_ID, MAGIC
from qiyu.services.tokens import Tokens
from qiyu.storage.urls import SQLITE_FILE

SECRET = "a secret for tests alone"
PASSWORD = "correct horse"
START_SECONDS = 180
HEADER = struct.Struct(">hii")


class Person(NamedTuple):
    """Somebody with an account; `session` is the value of the cookie."""

    name: str
    user_id: int
    session: str


class House:
    """One server on ports that stay the same, whatever becomes of its process."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self.folder = folder
        self.ports = dict(zip(("tcp", "ws", "http"), free_ports(3), strict=True))
        environ: dict[str, object] = {f"QIYU_{name.upper()}__PORT": port for name, port in self.ports.items()}
        environ |= {"QIYU_RTMP__PORT": 0, "QIYU_DATA__DIR": folder, "QIYU_AUTH__SECRET": SECRET}
        environ |= {f"QIYU_{name.upper()}": value for name, value in settings.items()}
        self._environ = {name: str(value) for name, value in environ.items()}
        self._process: subprocess.Popen[bytes] | None = None
        self._people = 0

    @property
    def url(self) -> str:
        """Of the page."""
        return f"http://127.0.0.1:{self.ports['http']}"

    def start(self) -> None:
        """Run it, and wait until it serves."""
        environ = {name: value for name, value in os.environ.items() if not name.upper().startswith("QIYU_")}
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "qiyu", "serve"],
                cwd=self.folder,
                env=environ | self._environ,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise AssertionError((self.folder / "server.log").read_text()) from None
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.url}/healthz", timeout=5).close()  # noqa: S310
        except OSError:
            return False
        return True

    def resident_bytes(self) -> int:
        """Memory that its process holds."""
        assert self._process is not None
        return int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")

    def kill(self) -> None:
        """As a power cut does."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """As SIGTERM does."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)

    def call(self, path: str, session: str = "", **fields: Any) -> Any:
        """The `data` of a call that must be done."""
        headers = {"Content-Type": "application/json"}
        if session:
            headers["Authorization"] = f"Bearer {session}"
        request = urllib.request.Request(self.url + path, json.dumps(fields).encode(), headers)  # noqa: S310
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return json.load(answer)["data"]

    def person(self, nick_name: str = "", *, vip: bool = False, avatar: str = "") -> Person:
        """Somebody new."""
        self._people += 1
        name = f"person{self._people}"
        data = self.call("/user/register", name=name, password=PASSWORD, nickName=nick_name or name, avatar=avatar)
        if vip:  # as `qiyu user tag` does, but without starting a process
            with closing(sqlite3.connect(self.folder / SQLITE_FILE, timeout=30)) as database, database:
                database.execute("INSERT INTO t_user_tag (user_id, tag) VALUES (?, 'vip')", (data["userId"],))
        return Person(name, data["userId"], data["token"])

    def open_room(self, name: str = "a room", *, covert_img: str = "", nick_name: str = "") -> tuple[Person, int]:
        """An anchor, and the room that is open now."""
        anchor = self.person(nick_name, vip=True)
        fields = {"type": 1, "roomName": name, "covertImg": covert_img}
        return anchor, self.call("/living/startingLiving", anchor.session, **fields)["roomId"]

    @contextmanager
    def tcp(self, person: Person, room_id: int | None = None, nick_name: str = "") -> Iterator[TcpClient]:
        """A client over plain TCP, logged in and in the room."""
        token = Tokens(SECRET, 300).issue(person.user_id, nickname=nick_name, now_ms=time.time_ns() // 1_000_000)
        with socket.create_connection(("127.0.0.1", self.ports["tcp"]), 10) as sock:
            client = TcpClient(sock)
            data = "" if room_id is None else json.dumps({"roomId": room_id})
            client.send(1001, appId=APP_ID, userId=person.user_id, token=token, data=data)
            client.expect(1001)
            try:
                yield client
            finally:
                client.close()


class TcpClient:
    """Frames over a socket, and whoever waits for one waits ten seconds at most."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._sock.settimeout(10)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = sock.makefile("rb")

    def close(self) -> None:
        """Leave in order: to close with answers unread would reset the connection, and what was said last be lost."""
        with contextlib.suppress(OSError, struct.error):
            self.send(1002)
            self.expect(1002)
        self._file.close()

    def send(self, code: int, **fields: Any) -> None:
        """One packet."""
        body = json.dumps(fields).encode()
        self._sock.sendall(HEADER.pack(MAGIC, code, len(body)) + body)

    def say(self, room_id: int, content: str) -> None:
        """Into a room, with no receipt."""
        self.send(1003, bizCode=5555, data=json.dumps({"roomId": room_id, "content": content}))

    def expect(self, code: int) -> dict[str, Any]:
        """The next packet with this code; the others are passed over."""
        while True:
            _, got, size = HEADER.unpack(self._file.read(HEADER.size))
            body: dict[str, Any] = json.loads(self._file.read(size))
            if got == code:
                return body

    def heard(self) -> str:
        """The content of the next chat message, which is acknowledged."""
        while True:
            body = self.expect(1003)
            if body["bizCode"] == 5555:
                self.send(1005, msgId=body["msgId"])
                content: str = json.loads(body["data"])["content"]
                return content


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports
