"""A process full of clients, to be killed like any other: `python -m soak.crowd`, with tests/ on the path.

It writes a line of JSON for each connection that ended, with how it did. At SIGUSR1 all clients lose their connections
at once, and come back at once.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import struct
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

import trio

from crash.people import LOST
from qiyu.services.tokens import Tokens
from raw_clients import ACK, BIZ, DIRECT, HEARTBEAT, LOGOUT, ROOM_CHAT, Closed, RawTcpClient, RawWsClient

APP: Final = 10_001
ROOMS: Final = 10
LIFE_SECONDS: Final = 15.0
PAUSE_SECONDS: Final = 2.0
STALL_SECONDS: Final = 20.0
CONNECT_SECONDS: Final = 20.0
GONE_SECONDS: Final = 5.0
"""For the server to end what was to end."""
RESET: Final = struct.pack("ii", 1, 0)

STORM: Final = "storm"
UNEXPLAINED: Final = "closed without a word"


class Over(Exception):
    """The connection has ended, in this way."""


class Somebody:
    """One user, over all its connections."""

    def __init__(self, crowd: Crowd, user: int) -> None:
        self._crowd = crowd
        self._random = random.Random(f"{crowd.seed} {user}")
        self.user = user
        self._room = user % ROOMS + 1
        self._sending = trio.Lock()
        self._leaves = ""  # how the connection is about to end, once the server has answered

    async def live(self) -> None:
        """Until cancelled."""
        while True:
            try:
                with trio.fail_after(CONNECT_SECONDS):
                    peer = await self._connect()
            except LOST as exc:
                self._crowd.tell(f"could not connect: {type(exc).__name__}")
                await trio.sleep(self._random.uniform(0.2, 1.0))
                continue
            how = await self._be_there(peer)
            await trio.aclose_forcefully(peer.stream)
            self._crowd.tell(how)
            if how != STORM:
                await trio.sleep(self._random.uniform(0, 2.0))

    async def _connect(self) -> RawTcpClient | RawWsClient:
        token = self._crowd.token(self.user)
        if self._random.random() < 0.5:
            return await RawWsClient.log_in(self._crowd.ws, self.user, token, self._room)
        peer = await RawTcpClient.connect(self._crowd.tcp, receive_buffer=self._random.choice((0, 4096)))
        try:
            await peer.log_in(self.user, token, self._room)
        except BaseException:
            await trio.aclose_forcefully(peer.stream)
            raise
        return peer

    async def _be_there(self, peer: RawTcpClient | RawWsClient) -> str:
        """Talk for a while, then go in one of many ways; returns how it ended."""
        storm = self._crowd.storm
        self._sending, self._leaves = trio.Lock(), ""
        reading = trio.CancelScope()
        how = UNEXPLAINED
        async with trio.open_nursery() as nursery:

            async def until(task: Callable[[], Awaitable[None]], scope: trio.CancelScope | None = None) -> None:
                nonlocal how
                try:
                    with scope or trio.CancelScope():
                        await task()
                except Over as over:
                    how = str(over)
                    nursery.cancel_scope.cancel()
                except LOST:
                    pass  # what is read last says why, or nothing does

            async def read() -> None:
                await self._read(peer)

            async def watch() -> None:
                await storm.wait()
                raise Over(STORM)

            async def talk() -> None:
                await self._talk(peer)

            async def leave() -> None:
                await trio.sleep(self._random.expovariate(1 / LIFE_SECONDS))
                await self._leave(peer, reading)

            nursery.start_soon(until, read, reading)
            nursery.start_soon(until, watch)
            nursery.start_soon(until, talk)
            nursery.start_soon(until, leave)
        return how

    async def _read(self, peer: RawTcpClient | RawWsClient) -> None:
        while True:
            try:
                code, body = await peer.next_packet()
            except Closed as closed:
                raise Over(self._leaves or (f"close frame {closed.code}" if closed.code else UNEXPLAINED)) from None
            if code == BIZ:
                with suppress(*LOST):  # what comes behind it may say why
                    await self._send(peer, ACK, msgId=body["msgId"])
            elif code == LOGOUT:
                data = body["data"]
                raise Over("logged out" if data == "true" else f"ended as {data['reason']}")

    async def _talk(self, peer: RawTcpClient | RawWsClient) -> None:
        beat = trio.current_time()
        while True:
            await trio.sleep(self._random.expovariate(1 / PAUSE_SECONDS))
            named = {"clientMsgId": f"{time.time_ns()}"} if self._random.random() < 0.5 else {}
            if self._random.random() < 0.7:
                data = {"roomId": self._room, "content": "x" * self._random.randrange(1, 200)}
                await self._send(peer, BIZ, bizCode=ROOM_CHAT, data=data, **named)
            else:
                data = {"objectId": self._crowd.anybody(self._random), "content": "direct"}
                await self._send(peer, BIZ, bizCode=DIRECT, data=data, **named)
            if trio.current_time() - beat > self._crowd.heartbeat_seconds:
                beat = trio.current_time()
                await self._send(peer, HEARTBEAT)

    async def _leave(self, peer: RawTcpClient | RawWsClient, reading: trio.CancelScope) -> None:
        way = self._random.choice(("logout", "vanish", "reset", "half-close", "twice", "stall", "sleep"))
        if way == "logout":
            await self._send(peer, LOGOUT)
            await self._wait("the LOGOUT was not answered")
        if way == "half-close":
            async with self._sending:
                self._leaves = "half-closed"
                await peer.stream.send_eof()
            await self._wait("the half-close was not answered")
        if way == "twice":
            other = await self._connect()
            await self._crowd.afterwards(other)
            await self._wait("it was not replaced")
        if way == "reset":
            peer.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            raise Over("reset")
        if way in {"stall", "sleep"}:
            reading.cancel()
            await trio.sleep(self._random.uniform(0, STALL_SECONDS))
        raise Over(way)

    @staticmethod
    async def _wait(why: str) -> None:
        """For the server to end the connection; it is read meanwhile."""
        await trio.sleep(GONE_SECONDS)
        raise Over(why)

    async def _send(self, peer: RawTcpClient | RawWsClient, code: int, **fields: Any) -> None:
        async with self._sending:
            if not self._leaves:
                await peer.send(code, **fields)


class Crowd:
    """What its clients have in common."""

    def __init__(self, options: argparse.Namespace, nursery: trio.Nursery) -> None:
        self.tcp: str = options.tcp
        self.ws: str = options.ws
        self.seed: int = options.seed
        self.heartbeat_seconds: float = options.heartbeat_seconds
        self._users = range(options.first_user, options.first_user + options.clients)
        self._tokens = Tokens(options.secret, 300)
        self._nursery = nursery
        self.storm = trio.Event()

    def token(self, user: int) -> str:
        return self._tokens.issue(user, now_ms=time.time_ns() // 1_000_000)

    def anybody(self, choice: random.Random) -> int:
        return choice.choice(self._users)

    async def afterwards(self, peer: RawTcpClient | RawWsClient) -> None:
        """A second connection stays for a moment, and is lost."""

        async def stay() -> None:
            await trio.sleep(1)
            await trio.aclose_forcefully(peer.stream)
            self.tell("vanish")

        self._nursery.start_soon(stay)
        await trio.lowlevel.checkpoint()

    @staticmethod
    def tell(how: str) -> None:
        try:
            sys.stdout.write(json.dumps({"how": how}) + "\n")
            sys.stdout.flush()
        except BrokenPipeError:  # the run has ended
            os._exit(0)

    async def live(self) -> None:
        for user in self._users:
            self._nursery.start_soon(Somebody(self, user).live)
        with trio.open_signal_receiver(signal.SIGUSR1) as storms:
            async for _ in storms:
                blown, self.storm = self.storm, trio.Event()
                blown.set()


def main() -> None:
    parser = argparse.ArgumentParser(prog="soak.crowd")
    for name in ("tcp", "ws", "secret"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("first-user", "clients", "seed"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--heartbeat-seconds", type=float, required=True)
    options = parser.parse_args()

    async def live() -> None:
        async with trio.open_nursery() as nursery:
            await Crowd(options, nursery).live()

    trio.run(live)


if __name__ == "__main__":
    main()
