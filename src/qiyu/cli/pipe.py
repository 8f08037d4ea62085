"""A conversation in a pipe: lines in, messages out, and what is said of the connection on stderr."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

import trio
import typer

from qiyu.cli.shown import harmless, line_of
from qiyu.client import Message

STDIN: Final = 0
STDOUT: Final = 1
LINE_BYTES: Final = 65_536
"""The longest line of input; what is longer is cut into several."""


class Unreadable(NamedTuple):
    """A line that cannot be said, and why."""

    reason: str


class Pipe:
    """The screen of a conversation where there is none. Notices are for a person, and left out where nobody reads."""

    def __init__(self, stdin: int = STDIN, stdout: int = STDOUT) -> None:
        self._stdin = stdin
        self._stdout = stdout

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """While the conversation goes on."""
        yield

    def lines(self) -> AsyncIterator[str | Unreadable]:
        """What is to be said."""
        return Lines(self._stdin)

    async def show(self, message: Message) -> None:
        """Print it. Raises BrokenPipeError where nobody reads any longer."""
        data = f"{line_of(message)}\n".encode(errors="backslashreplace")
        # In a thread, for a full pipe must not keep the heartbeats back.
        await trio.to_thread.run_sync(_write_all, self._stdout, data, abandon_on_cancel=True)

    def notice(self, text: str) -> None:
        """Say something about the connection, to a person only."""
        if sys.stderr.isatty():
            self.warn(text)

    def warn(self, text: str) -> None:
        """Say what went wrong."""
        with contextlib.suppress(OSError):
            typer.echo(f"* {harmless(text)}", err=True)


class Lines:
    """The lines of a file descriptor, without their ends; empty ones are left out, and what is no UTF-8 is named.

    A thread waits for them: epoll takes no files, and to make a terminal non-blocking is to make it so for the shell as
    well. It reads with os.read, because Python's own stdin has a lock, and a thread that is left waiting with it held
    aborts the process when it exits.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._buffer = b""
        self._ended = False
        self._number = 1
        self._column = 0  # of the first byte that is left, where a long line was cut

    def __aiter__(self) -> Lines:
        return self

    async def __anext__(self) -> str | Unreadable:
        while True:
            raw, newline, rest = self._buffer[:LINE_BYTES].partition(b"\n")
            if newline or len(raw) == LINE_BYTES or self._ended:
                if not newline and len(raw) == LINE_BYTES:
                    raw = _whole_characters(raw)
                    rest = self._buffer[len(raw) : LINE_BYTES]
                self._buffer = rest + self._buffer[LINE_BYTES:]
                line = self._read(raw.removesuffix(b"\r"))
                self._number, self._column = (
                    (self._number + 1, 0) if newline else (self._number, self._column + len(raw))
                )
                if line:
                    return line
                if self._ended and not self._buffer:
                    raise StopAsyncIteration
            else:
                await self._read_more()

    def _read(self, raw: bytes) -> str | Unreadable:
        try:
            return raw.decode()
        except UnicodeDecodeError as exc:
            where = f"line {self._number}, byte {self._column + exc.start + 1}"
            return Unreadable(f"{where} is 0x{raw[exc.start]:02x}: expected UTF-8")

    async def _read_more(self) -> None:
        try:
            data = await trio.to_thread.run_sync(os.read, self._fd, LINE_BYTES, abandon_on_cancel=True)
        except OSError:
            data = b""  # closed from the start, or the terminal is gone
        self._buffer += data
        self._ended = not data


def _whole_characters(raw: bytes) -> bytes:
    """Without a character of which only the beginning is there."""
    for length in (1, 2, 3):
        byte = raw[-length]
        if byte >= 0b1100_0000:  # the first byte of several
            needed = 2 if byte < 0b1110_0000 else 3 if byte < 0b1111_0000 else 4
            return raw[:-length] if needed > length else raw
        if byte < 0b1000_0000:
            break
    return raw


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
