"""Two `qiyu serve` on one database: a container that was scaled, a restart that overlaps."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from installation import postgresql
from qiyu.services.tokens import Tokens
from qiyu.storage.database import database_url
from raw_clients import BIZ, HEADER, LOGIN, LOGOUT, body_of, frame
from servers import SECRET

QIYU: Final = [sys.executable, "-m", "qiyu"]
PATIENCE_SECONDS: Final = 300  # a test that works on an idle machine takes a few
RECEIPT: Final = 1005


class Process:
    """A server that has said where it listens."""

    def __init__(self, folder: Path, url: str) -> None:
        self.errors = folder / f"errors-{uuid.uuid4().hex}.log"
        ports = {f"QIYU_{name}__PORT": "0" for name in ("TCP", "WS", "HTTP", "RTMP")}  # RTMP none
        settings = {"DATA__DIR": str(folder / "data"), "AUTH__SECRET": SECRET, "DATABASE__URL": url}
        settings |= {"LIVING__REQUIRE_OPEN_ROOM": "false", "SESSION__HEARTBEAT_SECONDS": "600"}
        settings |= {f"LIMITS__{name}_PER_SECOND": "0" for name in ("MESSAGES", "PACKETS", "LOGINS")}
        environ = os.environ | ports | {f"QIYU_{name}": value for name, value in settings.items()}
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                [*QIYU, "serve"], cwd=folder, env=environ, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        assert self.process.stdout is not None
        self.lines = [self.process.stdout.readline() for _ in range(3)]

    @property
    def port(self) -> int:
        match = re.search(r":(\d+)$", self.lines[0])
        assert match is not None, self.errors.read_text()
        return int(match[1])

    def log_in(self, user: int) -> Client:
        return Client(self.port, user)

    def end(self) -> int:
        """Its exit status, when it has ended by itself."""
        return self.process.wait(PATIENCE_SECONDS)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(PATIENCE_SECONDS)
        assert self.process.stdout is not None
        self.process.stdout.close()


class Client:
    """Somebody in room 7."""

    def __init__(self, port: int, user: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS)
        self._user = user
        token = Tokens(SECRET, 300).issue(user, now_ms=time.time_ns() // 1_000_000)
        self.send(LOGIN, token=token, data='{"roomId":7}')
        assert self.receive()[0] == LOGIN

    def send(self, code: int, **fields: Any) -> None:
        self._socket.sendall(frame(code, body_of(appId=10001, userId=self._user, **fields)))

    def say(self, client_msg_id: str) -> None:
        self.send(BIZ, bizCode=5555, data='{"roomId":7,"content":"x"}', clientMsgId=client_msg_id)

    def receive(self) -> tuple[int, dict[str, Any]]:
        _, code, length = HEADER.unpack(self._socket.recv(HEADER.size, socket.MSG_WAITALL))
        return code, json.loads(self._socket.recv(length, socket.MSG_WAITALL))

    def close(self) -> None:
        self._socket.close()


@contextmanager
def serving(folder: Path, url: str = "") -> Iterator[Process]:
    process = Process(folder, url)
    try:
        yield process
    finally:
        process.stop()


@pytest.fixture(name="postgresql")
def _postgresql() -> Iterator[str]:
    with postgresql() as url:
        yield url


def test_on_one_folder_the_second_is_refused_with_the_pid_of_the_first(tmp_path: Path) -> None:
    with serving(tmp_path) as first, closing(first.log_in(10_001)) as client:
        with serving(tmp_path) as second:
            assert second.end() == 1
            assert second.lines == ["", "", ""]
            assert f"another server (process {first.process.pid}) uses " in second.errors.read_text()
        users = subprocess.run(
            [*QIYU, "user", "list"], cwd=tmp_path, check=True, capture_output=True, timeout=PATIENCE_SECONDS
        )
        assert users.stdout == b""  # other commands may use it meanwhile
        client.say("c-1")
        while client.receive()[0] != RECEIPT:
            pass  # what happens in the room
        first.process.kill()
        first.end()
    with serving(tmp_path) as third:
        assert third.port  # the lock died with the first


def test_on_one_server_the_second_takes_over_and_the_first_ends(tmp_path: Path, postgresql: str) -> None:
    """Invariant: who has a receipt is stored, and the two never make the same msgId."""
    receipts: dict[str, str] = {}

    def talk(client: Client, name: str, number: int) -> None:
        for n in range(number):
            client.say(f"{name}-{n}")
        while number:
            code, body = client.receive()
            if code == RECEIPT:
                receipts[body["clientMsgId"]] = body["msgId"]
                number -= 1

    with serving(tmp_path, postgresql) as first, closing(first.log_in(10_001)) as one:
        talk(one, "one", 300)
        with serving(tmp_path, postgresql) as second, closing(second.log_in(10_002)) as two:
            one.say("too-late")
            talk(two, "two", 300)
            assert first.end() == 1
            errors = first.errors.read_text()
            assert "may write no more to the database" in errors
            assert "has started since" in errors
            assert "Traceback" not in errors
            reasons: list[str] = []
            while not reasons:
                code, body = one.receive()
                assert code != RECEIPT
                if code == LOGOUT:
                    reasons.append(body["data"])
            assert '"lost"' in reasons[0]
    engine = create_engine(database_url(postgresql, Path()), poolclass=NullPool)
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT client_msg_id, msg_id FROM t_im_message")).all()
    stored = {client_msg_id.removesuffix("."): str(msg_id) for client_msg_id, msg_id in rows}
    assert len(set(receipts.values())) == 600
    assert stored == receipts
