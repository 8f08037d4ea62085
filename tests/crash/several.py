"""Several instances, their Redis and the wires between them, and everything that can happen to those."""

from __future__ import annotations

import itertools
import os
import signal
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import trio

from crash.run import Run
from crash.server import Server, ServerProcess, StartFailed
from link_proxy import LinkProxy
from redis_servers import RedisServer, free_port

LEASE_SECONDS: Final = 3.0
FENCED: Final = "this server stops"
"""Logged as an error by who is fenced, as it is to be here."""


class Instance:
    """One of them: a process, behind a proxy for those that call it."""

    def __init__(self, group: Group, number: int) -> None:
        port = free_port()
        self.number = number
        self.proxy = LinkProxy()
        self.proxy.target = port
        self.is_expected = False
        """It is to run, and to run on."""
        self._group = group
        self._port = port
        self._process: ServerProcess | None = None

    @property
    def process(self) -> ServerProcess:
        if self._process is None:
            more = {
                "REDIS__URL": self._group.redis.url,
                "CLUSTER__PORT": str(self._port),
                "CLUSTER__PUBLIC_ADDRESS": self.proxy.address,
                "CLUSTER__SECRET": "what the instances of a crash run know",
                "CLUSTER__LEASE_SECONDS": str(LEASE_SECONDS),
            }
            folder = self._group.folder / f"instance-{self.number}"
            self._process = ServerProcess(folder, self._group.database_url, more)
        return self._process

    async def start(self) -> None:
        """However often that has to be tried, for the database may be failing."""
        while True:
            try:
                await self.process.start(self._group.nursery)
            except StartFailed:
                await trio.sleep(0.5)
            else:
                self.is_expected = True
                return

    def signal(self, number: int) -> None:
        with suppress(ProcessLookupError):  # that it has ended is said elsewhere
            os.kill(self.process.pid, number)


class Group:
    """What `Run` sees as its server."""

    def __init__(self, folder: Path, database_url: str, number: int) -> None:
        self.folder = folder
        self.database_url = database_url
        self.redis = RedisServer(folder / "redis")
        self.instances = [Instance(self, n) for n in range(number)]
        self.nursery: trio.Nursery
        self._turns: Iterator[int] = itertools.count()
        self._proxies: list[LinkProxy] = []

    @property
    def _next(self) -> ServerProcess:
        """Clients go round."""
        return self.instances[next(self._turns) % len(self.instances)].process

    @property
    def tcp(self) -> str:
        return self._next.tcp

    @property
    def ws(self) -> str:
        return self._next.ws

    @property
    def pid(self) -> int:
        return self.instances[0].process.pid

    @property
    def has_ended(self) -> bool:
        return any(one.is_expected and one.process.has_ended for one in self.instances)

    def token(self, user: int) -> str:
        return self.instances[0].process.token(user)

    async def start(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        await trio.to_thread.run_sync(self.redis.start)
        for one in self.instances:
            await nursery.start(one.proxy.serve)
        async with trio.open_nursery() as starting:
            for one in self.instances:
                starting.start_soon(one.start)

    def kill(self) -> None:
        for one in self.instances:
            one.is_expected = False
            one.process.kill()
        self.redis.close()

    async def stop(self) -> int:
        codes = []
        for one in self.instances:
            one.is_expected = False
            codes.append(await one.process.stop())
        return max(codes)

    def complaints(self) -> list[str]:
        return [line for one in self.instances for line in one.process.complaints() if FENCED not in line]


class SeveralRun(Run):
    """Each round something else goes wrong."""

    def _make_server(self, folder: Path) -> Server:
        self._group = Group(folder, self._database.url, self._options.instances)
        return self._group

    async def _disturb(self, nursery: trio.Nursery) -> None:
        options = self._options
        faults: dict[str, Callable[[], Awaitable[None]]] = {
            "instance killed": self._kill_one,
            "instance paused past its lease": self._pause_one,
            "instance stopped in order": self._stop_one,
            "Redis killed": self._kill_redis,
            "Redis emptied": self._empty_redis,
            "links cut": self._cut_links,
        }
        order = [name for _ in range(options.kills) for name in self._random.sample(sorted(faults), len(faults))]
        until = trio.current_time() + options.seconds
        for name in order[: options.kills]:
            rest = max(options.seconds / max(options.kills, 1) * self._random.uniform(0.2, 0.8), 0.2)
            self.result.history.killed(trio.current_time())
            self.result.injected[name] += 1
            async with trio.open_nursery() as failing:
                if options.faults and self._random.random() < 0.2:
                    failing.start_soon(self._fail)
                await faults[name]()
            self.result.history.killed(trio.current_time())
            summary = self.result.history.summary()
            self._say(f"{name}: {summary['messages']} messages, {summary['receipted']} receipts")
            await trio.sleep(rest)
            if trio.current_time() > until:
                break
        await self._until_all_is_well()

    def _any(self) -> Instance:
        return self._random.choice(self._group.instances)

    def _awhile(self) -> float:
        return self._random.choice([0.1, 1.0, LEASE_SECONDS + 1.0])

    async def _kill_one(self) -> None:
        one = self._any()
        one.is_expected = False
        one.process.kill()
        self.result.kills += 1
        await trio.sleep(self._awhile())
        await one.start()

    async def _pause_one(self) -> None:
        one = self._any()
        one.signal(signal.SIGSTOP)
        await trio.sleep(LEASE_SECONDS * self._random.uniform(1.2, 2.0))
        one.signal(signal.SIGCONT)

    async def _stop_one(self) -> None:
        one = self._any()
        one.is_expected = False
        code = await one.process.stop()
        if code != 0:
            self.result.complaints.append(f"at SIGTERM an instance ended with {code}")
        await trio.sleep(self._awhile() / 2)
        await one.start()

    async def _kill_redis(self) -> None:
        self._group.redis.stop()
        await trio.sleep(self._awhile() * 1.5)
        await trio.to_thread.run_sync(self._group.redis.start)

    async def _empty_redis(self) -> None:
        with suppress(OSError):
            self._group.redis.client.flushall()

    async def _cut_links(self) -> None:
        one = self._any()
        for each in self._group.instances if self._random.random() < 0.3 else [one]:
            each.proxy.cut()
        await trio.sleep(self._awhile() * 1.5)
        for each in self._group.instances:
            each.proxy.mend()

    async def _until_all_is_well(self) -> None:
        """All are linked with each other."""
        others = len(self._group.instances) - 1
        until = time.monotonic() + 30
        for one in self._group.instances:
            while await trio.to_thread.run_sync(_links, one.process.http) != others:
                if time.monotonic() > until:
                    self.result.complaints.append(f"instance {one.number} is not linked with all others")
                    return
                await trio.sleep(0.2)


def _links(http: str) -> int:
    try:
        with urllib.request.urlopen(f"http://{http}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
    except OSError:
        return -1
    return next((int(float(line.split()[1])) for line in lines if line.startswith("qiyu_links ")), -1)
