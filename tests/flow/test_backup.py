"""Backing up a server that runs, as docs/integrating.md says, and going back to that."""

from __future__ import annotations

import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from sqlalchemy import make_url
from sqlalchemy.exc import OperationalError

from crash.databases import Mariadb, Postgresql, create
from flow.test_living import call, register
from qiyu.drivers.event_source import best_source
from raw_clients import ACK, BIZ, DIRECT
from servers import RunningServer, Start

pytestmark = pytest.mark.parametrize("start_server", [best_source], indirect=True, ids=["best"])


async def tell(server: RunningServer, content: str) -> None:
    """10001 says something to 10002, who is away, and has the receipt."""
    async with await server.tcp_peer(10001) as one:
        data = {"objectId": 10002, "content": content}
        await one.send(BIZ, bizCode=DIRECT, clientMsgId=content, data=data)
        assert (await one.expect(ACK))["clientMsgId"] == content


async def waiting(server: RunningServer, number: int) -> list[str]:
    """What has waited for 10002, and is still not acknowledged."""
    async with await server.tcp_peer(10002) as two:
        return [(await two.expect(BIZ))["data"]["content"] for _ in range(number)]


async def run(*command: str | Path) -> str:
    done = await trio.run_process([str(word) for word in command], capture_stdout=True, capture_stderr=True)
    return done.stdout.decode()


async def test_sqlite(start_server: Start, tmp_path: Path) -> None:
    data, copy = tmp_path / "data", tmp_path / "copy.db"
    async with start_server(data__dir=data) as server, trio.open_nursery() as nursery:
        _, session = await register(server, "ann")
        await tell(server, "before")

        async def go_on() -> None:
            async with await server.tcp_peer(10003) as three:
                for number in range(10**6):
                    fields = {"objectId": 10004, "content": str(number)}
                    await three.send(BIZ, bizCode=DIRECT, data=fields)
                    await trio.sleep(0.001)

        nursery.start_soon(go_on)
        said = await run(sys.executable, "-m", "qiyu", "db", "backup", copy, "--config", _config(tmp_path, data))
        assert said.startswith(f"wrote {copy} (")
        nursery.cancel_scope.cancel()
    async with start_server(data__dir=data) as server:
        await tell(server, "after")
        server.stop()
        await server.stopped.wait()
    for suffix in ("-wal", "-shm"):
        (data / f"qiyu.db{suffix}").unlink(missing_ok=True)
    shutil.copy(copy, data / "qiyu.db")
    async with start_server(data__dir=data) as server:
        await tell(server, "anew")
        assert await waiting(server, 2) == ["before", "anew"]
        code, page = await call(server, "/home/initPage", session)
        assert (code, page["nickName"]) == (200, "ann")


def _config(folder: Path, data: Path) -> Path:
    path = folder / "config.toml"
    path.write_text(f'[data]\ndir = "{data}"\n')
    return path


@asynccontextmanager
async def database(kind: str, *tools: str) -> AsyncIterator[Postgresql | Mariadb]:
    for tool in tools:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    try:
        made = await create(kind, "")
    except OperationalError as exc:
        pytest.skip(f"no {kind} on this machine: {exc.orig}")
    assert isinstance(made, Postgresql | Mariadb)
    try:
        yield made
    finally:
        await made.drop()


async def test_postgresql(start_server: Start, tmp_path: Path) -> None:
    async with database("postgresql", "pg_dump", "pg_restore") as made:
        url = make_url(made.url).set(drivername="postgresql").render_as_string(hide_password=False)
        dump = tmp_path / "qiyu.dump"
        async with start_server(database__url=made.url) as server:
            await tell(server, "before")
            await run("pg_dump", "--format=custom", f"--file={dump}", url)
            await tell(server, "after")
            server.stop()
            await server.stopped.wait()
        await run("pg_restore", "--clean", "--if-exists", "--no-owner", f"--dbname={url}", dump)
        async with start_server(database__url=made.url) as server:
            await tell(server, "anew")
            assert await waiting(server, 2) == ["before", "anew"]


async def test_mariadb(start_server: Start, tmp_path: Path) -> None:
    async with database("mariadb", "mariadb-dump", "mariadb") as made:
        url = make_url(made.url)
        where = [f"--host={url.host}", f"--port={url.port}", f"--user={url.username}"]
        async with start_server(database__url=made.url) as server:
            await tell(server, "before")
            dump = await run("mariadb-dump", *where, "--single-transaction", str(url.database))
            await tell(server, "after")
            server.stop()
            await server.stopped.wait()
        await trio.run_process(["mariadb", *where, str(url.database)], stdin=dump.encode())
        async with start_server(database__url=made.url) as server:
            await tell(server, "anew")
            assert await waiting(server, 2) == ["before", "anew"]
