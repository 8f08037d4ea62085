"""Several `qiyu serve` that belong together: processes with one PostgreSQL database and one Redis."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest
import trio
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from qiyu.services.tokens import Tokens
from qiyu.storage.database import database_url
from raw_clients import RawTcpClient
from redis_servers import RedisServer, free_port, redis_server
from servers import SECRET

POSTGRESQL: Final = "postgresql://postgres@127.0.0.1:5432/postgres"
CLUSTER_SECRET: Final = "what all instances of a test know"
START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 30.0


@contextmanager
def postgresql(prefix: str = "qiyu_test") -> Iterator[str]:
    """The URL of an empty database; without a server, the test is skipped."""
    server = os.environ.get("TEST_POSTGRES_URL", POSTGRESQL)
    engine = create_engine(database_url(server, Path()), isolation_level="AUTOCOMMIT", poolclass=NullPool)
    name = f"{prefix}_{uuid.uuid4().hex}"
    try:
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
    except DBAPIError as exc:
        if "TEST_POSTGRES_URL" in os.environ:
            raise
        pytest.skip(f"no PostgreSQL: {exc.orig}")
    try:
        yield make_url(server).set(database=name).render_as_string(hide_password=False)
    finally:
        with engine.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


async def logged_in(address: str, user: int, token: str, room: int | None = None) -> RawTcpClient:
    """Nothing stays open of one that is not let in."""
    peer = await RawTcpClient.connect(address)
    try:
        await peer.log_in(user, token, room)
    except BaseException:
        await trio.aclose_forcefully(peer.stream)
        raise
    return peer


class Instance:
    """A process, with the same ports each time that it is started."""

    def __init__(self, folder: Path, number: int, environ: dict[str, str]) -> None:
        self.folder = folder / f"instance-{number}"
        self.folder.mkdir(parents=True)
        self.log = self.folder / "log"
        self.ports = {name: free_port() for name in ("TCP", "WS", "HTTP", "CLUSTER")}
        self.public_link = ""
        self._environ = environ | {f"QIYU_{name}__PORT": str(port) for name, port in self.ports.items()}
        self._process: subprocess.Popen[bytes] | None = None
        self._tokens = Tokens(SECRET, 300)

    @property
    def tcp(self) -> str:
        return f"127.0.0.1:{self.ports['TCP']}"

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        self.spawn()
        self.wait_until_it_listens()

    def spawn(self) -> None:
        environ = os.environ | self._environ | {"QIYU_DATA__DIR": str(self.folder / "data")}
        if self.public_link:
            environ["QIYU_CLUSTER__PUBLIC_ADDRESS"] = self.public_link
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "qiyu", "serve"], cwd=self.folder, env=environ, stdout=output, stderr=output
            )

    def wait_until_it_listens(self) -> None:
        until = time.monotonic() + START_SECONDS
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.ports['HTTP']}/healthz", timeout=5).close()
            except OSError:
                assert self.is_running, self.log.read_text()
                assert time.monotonic() < until, self.log.read_text()
                time.sleep(0.05)
            else:
                return

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def terminate(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)

    def end(self) -> int:
        assert self._process is not None
        return self._process.wait(STOP_SECONDS)

    def stop(self) -> int:
        self.terminate()
        return self.end()

    def pause(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def get(self, path: str) -> Any:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports['HTTP']}{path}", timeout=10) as answer:
                body = answer.read().decode()
        except urllib.error.HTTPError as exc:
            body = exc.read().decode()
        return json.loads(body) if body.startswith("{") else body

    def metric(self, name: str) -> int:
        lines = self.get("/metrics").splitlines()
        return next(int(float(line.rpartition(" ")[2])) for line in lines if line.startswith(f"qiyu_{name} "))

    def post(self, path: str, cookie: str = "", **fields: Any) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.ports['HTTP']}{path}",
            json.dumps(fields).encode(),
            {"Content-Type": "application/json", **({"Authorization": f"Bearer {cookie}"} if cookie else {})},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return json.load(answer)["data"]

    def errors(self) -> list[str]:
        """What no server should log, whatever is done to it."""
        lines = self.log.read_text(errors="replace").splitlines()
        return [line for line in lines if "Traceback" in line or "because of a bug" in line]

    def token(self, user: int) -> str:
        return self._tokens.issue(user, now_ms=time.time_ns() // 1_000_000)

    async def log_in(self, user: int, room: int | None = None) -> RawTcpClient:
        return await logged_in(self.tcp, user, self.token(user), room)

    async def say_hello(self, user: int, seconds: float = 30.0) -> RawTcpClient:
        """`log_in`, however often that has to be tried."""
        with trio.fail_after(seconds):
            while True:
                try:
                    return await self.log_in(user)
                except Exception:  # noqa: BLE001
                    await trio.sleep(0.05)


class Installation:
    """Redis, a database and instances."""

    def __init__(self, folder: Path, database: str, redis: RedisServer, **settings: str) -> None:
        self.folder = folder
        self.redis = redis
        self.database = database
        self.instances: list[Instance] = []
        self._environ = {
            "QIYU_RTMP__PORT": "0",
            "QIYU_DATABASE__URL": database,
            "QIYU_REDIS__URL": redis.url,
            "QIYU_CLUSTER__SECRET": CLUSTER_SECRET,
            "QIYU_AUTH__SECRET": SECRET,
            "QIYU_LIVING__REQUIRE_OPEN_ROOM": "false",
            "QIYU_LIVING__EVENTS": "false",
            "QIYU_ACK__RETRY_SECONDS": "60",
            "QIYU_LOG__FORMAT": "json",
            "QIYU_LIMITS__MESSAGES_PER_SECOND": "0",
            "QIYU_LIMITS__LOGINS_PER_SECOND": "0",
            **{f"QIYU_{name.upper()}": value for name, value in settings.items()},
        }

    def add(self) -> Instance:
        instance = Instance(self.folder, len(self.instances), self._environ)
        self.instances.append(instance)
        return instance

    def start(self, number: int) -> list[Instance]:
        """So many more, and all of them linked."""
        new = [self.add() for _ in range(number)]
        for instance in new:
            instance.spawn()
        for instance in new:
            instance.wait_until_it_listens()
        self.wait_for_links()
        return new

    def wait_for_links(self, seconds: float = 30.0) -> None:
        until = time.monotonic() + seconds
        running = [instance for instance in self.instances if instance.is_running]
        while not all(instance.metric("links") == len(running) - 1 for instance in running):
            assert time.monotonic() < until, "not all instances are linked"
            time.sleep(0.05)

    def close(self) -> None:
        for instance in self.instances:
            instance.kill()


@contextmanager
def installation(folder: Path, **settings: str) -> Iterator[Installation]:
    with ExitStack() as stack:
        redis = stack.enter_context(redis_server(folder / "redis"))
        database = stack.enter_context(postgresql())
        made = Installation(folder, database, redis, **settings)
        stack.callback(made.close)
        yield made
    assert [line for instance in made.instances for line in instance.errors()] == []
