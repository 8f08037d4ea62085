"""Encoders and viewers over real sockets: ffmpeg pushes, and somebody watches who knows nothing of qiyu's own code."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Self

import trio
import wsproto
from wsproto import events

from clips import AAC, H264_AT_ONCE
from raw_clients import LOGIN, MAGIC, PATIENCE_SECONDS, Closed


def free_port() -> int:
    """A port that nothing listens on just now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Encoder:
    """A running ffmpeg that pushes."""

    def __init__(self, process: trio.Process) -> None:
        self._process = process

    async def said(self) -> str:
        """What it complained of, once it has ended."""
        assert self._process.stderr is not None
        text = b""
        with trio.fail_after(PATIENCE_SECONDS):
            async for data in self._process.stderr:
                text += data
            await self._process.wait()
        return text.decode()

    def kill(self) -> None:
        self._process.kill()

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    async def stop(self) -> None:
        """As with the key q, or Ctrl-C: it says good-bye to the server."""
        self._process.send_signal(signal.SIGINT)
        with trio.fail_after(PATIENCE_SECONDS):
            await self._process.wait()


@asynccontextmanager
async def encoder(
    url: str, *options: str, seconds: float = 60, size: str = "192x108", paced: bool = True
) -> AsyncIterator[Encoder]:
    """ffmpeg, pushing a moving picture and a tone to `url`."""
    command = ["ffmpeg", "-v", "error", "-nostdin", *(["-re"] if paced else [])]
    command += ["-f", "lavfi", "-i", f"testsrc=size={size}:rate=25", *(["-re"] if paced else [])]
    command += ["-f", "lavfi", "-i", "sine=sample_rate=44100", "-t", str(seconds)]
    command += [*(options or (*H264_AT_ONCE, *AAC)), "-f", "flv", url]
    async with trio.open_nursery() as nursery:
        process = await nursery.start(partial(trio.run_process, command, stderr=subprocess.PIPE, check=False))
        try:
            yield Encoder(process)
        finally:
            process.kill()


class Watcher:
    """Somebody who watches, over wsproto."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._connection = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
        self._waiting: list[str | bytes] = []

    @classmethod
    async def connect(
        cls, address: str, room: int | str, login: dict[str, object] | None = None, *, buffer: int = 0
    ) -> Self:
        """Upgrade, and log in unless nobody need; `buffer` is what the kernel takes for who does not read."""
        host, port = address.rsplit(":", 1)
        sock = trio.socket.socket()
        if buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        await sock.connect((host, int(port)))
        watcher = cls(trio.SocketStream(sock))
        request = events.Request(host=address, target=f"/live/{room}")
        await watcher.stream.send_all(watcher._connection.send(request))
        try:
            await watcher._receive()
        except Closed:
            await watcher.stream.aclose()
            raise
        if login is not None:
            body = json.dumps(login)
            packet = json.dumps({"magic": MAGIC, "code": LOGIN, "len": len(body), "body": body})
            await watcher.stream.send_all(watcher._connection.send(events.TextMessage(packet)))
        return watcher

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await trio.aclose_forcefully(self.stream)

    async def next(self) -> str | bytes:
        """The next message. Raises `Closed`."""
        with trio.fail_after(PATIENCE_SECONDS):
            while not self._waiting:
                await self._receive()
        return self._waiting.pop(0)

    async def closed(self) -> int | None:
        """The close code, past whatever comes before it."""
        try:
            while True:
                await self.next()
        except Closed as closed:
            return closed.code

    async def next_text(self) -> str:
        """The next text, past all that is binary."""
        while True:
            message = await self.next()
            if isinstance(message, str):
                return message

    async def next_media(self, count: int) -> bytes:
        """So many binary messages, which no text comes between, in a row."""
        data = b""
        for _ in range(count):
            message = await self.next()
            assert isinstance(message, bytes), message
            data += message
        return data

    async def _receive(self) -> None:
        data = await self.stream.receive_some(65_536)
        self._connection.receive_data(data or None)
        for event in self._connection.events():
            match event:
                case events.RejectConnection():
                    raise Closed(event.status_code)
                case events.CloseConnection():
                    raise Closed(event.code)
                case events.Ping():
                    await self.stream.send_all(self._connection.send(event.response()))
                case events.Message():
                    self._partial = event.data if not self._partial else self._partial + event.data
                    if event.message_finished:
                        self._waiting.append(self._partial)
                        self._partial = ""
                case _:
                    pass

    _partial: str | bytes = ""
