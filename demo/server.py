"""A server of the demo's own, in a folder that is gone afterwards."""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from qiyu.services.tokens import Tokens
from qiyu.storage.urls import SQLITE_FILE

START_SECONDS = 180


class Demo:
    """Where it is, and how to be somebody there."""

    def __init__(self, folder: Path, ports: dict[str, int], secret: str, pid: int) -> None:
        self.folder = folder
        self.ports = ports
        self.pid = pid
        self.tokens = Tokens(secret, 86_400)

    @property
    def url(self) -> str:
        """Of the page."""
        return f"http://127.0.0.1:{self.ports['http']}/"

    @property
    def ws_url(self) -> str:
        """Of the messaging side."""
        return f"ws://127.0.0.1:{self.ports['ws']}"

    def call(self, path: str, session: str = "", **fields: Any) -> Any:
        """The `data` of a call that must be done."""
        headers = {"Content-Type": "application/json"}
        if session:
            headers["Authorization"] = f"Bearer {session}"
        request = urllib.request.Request(self.url + path, json.dumps(fields).encode(), headers)  # noqa: S310
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return json.load(answer)["data"]

    def account(self, name: str, nick_name: str, password: str, *, vip: bool = False) -> tuple[int, str]:
        """Somebody new: id and session."""
        data = self.call("user/register", name=name, password=password, nickName=nick_name)
        if vip:  # as `qiyu user tag` does, but without starting a process
            with closing(sqlite3.connect(self.folder / SQLITE_FILE, timeout=30)) as database, database:
                database.execute("INSERT INTO t_user_tag (user_id, tag) VALUES (?, 'vip')", (data["userId"],))
        return data["userId"], data["token"]

    def token(self, user_id: int, nick_name: str) -> str:
        """A login token for somebody without an account, whom the messaging side takes all the same."""
        return self.tokens.issue(user_id, nickname=nick_name, now_ms=time.time_ns() // 1_000_000)


@contextmanager
def demo_server(ports: dict[str, int], **settings: str) -> Iterator[Demo]:
    """Run a server on these ports (`tcp`, `ws`, `http`, and `rtmp`, 0 for none) while inside; settings as `QIYU_…`."""
    secret = secrets.token_urlsafe(32)
    with tempfile.TemporaryDirectory(prefix="qiyu-demo-") as folder:
        environ = {f"QIYU_{name.upper()}__PORT": str(port) for name, port in ports.items()}
        environ |= {"QIYU_DATA__DIR": folder, "QIYU_AUTH__SECRET": secret, "QIYU_LOG__LEVEL": "warning"}
        # The crowd comes from one address, and all at once.
        environ |= {f"QIYU_LIMITS__{name}": "0" for name in ("LOGINS_PER_SECOND", "CONNECTIONS_PER_ADDRESS")}
        environ |= settings
        process = subprocess.Popen(
            [sys.executable, "-m", "qiyu", "serve"],
            env=os.environ | environ,
            cwd=folder,
            stdout=subprocess.DEVNULL,
        )
        try:
            demo = Demo(Path(folder), ports, secret, process.pid)
            _wait_for(demo, process)
            yield demo
        finally:
            process.terminate()
            process.wait(10)


def _wait_for(demo: Demo, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"{demo.url}healthz", timeout=5).close()  # noqa: S310
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise SystemExit("the server did not start: what it says is above")
