"""`qiyu chat` on a terminal of its own, against a whole server: what a person sees there."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import struct
import sys
import termios
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pyte
import pytest
import trio

from qiyu.drivers.event_source import best_source
from raw_clients import BIZ
from servers import SECRET, RunningServer

# What the server waits with makes no difference here.
pytestmark = pytest.mark.parametrize("start_server", [best_source], indirect=True, ids=["best"])

WIDTH, HEIGHT = 60, 12
PATIENCE_SECONDS = 30


class Window:
    """A terminal window with `qiyu chat` in it, and a person before it."""

    def __init__(self, process: trio.Process, fd: int) -> None:
        self.process = process
        self._fd = fd
        self._screen = pyte.HistoryScreen(WIDTH, HEIGHT)
        # Where the cursor is, when it is asked.
        self._screen.write_process_input = self.press  # type: ignore[method-assign]
        self._stream = pyte.ByteStream(self._screen)
        self._changed = trio.Event()
        self.written = b""

    def press(self, data: str | bytes) -> None:
        os.write(self._fd, data.encode() if isinstance(data, str) else data)

    def lines(self) -> list[str]:
        """What stands there, without what is empty."""
        return [line.rstrip() for line in self._screen.display if line.strip()]

    def colours(self, text: str) -> set[str]:
        """Of the characters of a line that holds the text."""
        number = next(number for number, line in enumerate(self._screen.display) if text in line)
        return {char.fg for char in self._screen.buffer[number].values() if char.data.strip()}

    async def until(self, seen: Callable[[list[str]], bool]) -> list[str]:
        with trio.move_on_after(PATIENCE_SECONDS):
            while not seen(self.lines()):
                self._changed = trio.Event()
                await self._changed.wait()
            return self.lines()
        raise AssertionError(f"not seen: {self.lines()}")

    async def watch(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._fd)
            try:
                data = os.read(self._fd, 65_536)
            except OSError:  # on Linux: nobody has the other end any more
                data = b""
            if not data:
                return
            self.written += data
            self._stream.feed(data)
            self._changed.set()

    async def ended(self) -> int:
        with trio.fail_after(PATIENCE_SECONDS):
            return await self.process.wait()


@asynccontextmanager
async def window(server: RunningServer, *arguments: str, **environ: str) -> AsyncIterator[Window]:
    """One in which 10001 talks."""
    mine, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", HEIGHT, WIDTH, 0, 0))
    before = termios.tcgetattr(its)
    token = server.token(10001, nickname="me")
    command = [sys.executable, "-m", "qiyu", "chat", "--user", "10001", "--url", f"ws://{server.ws}", *arguments]
    env = {name: value for name, value in os.environ.items() if name not in {"NO_COLOR", "COLORTERM"}}
    env |= {"QIYU_TOKEN": token, "TERM": "xterm-256color", "TZ": "UTC", "QIYU_AUTH__SECRET": SECRET} | environ
    process = await trio.lowlevel.open_process(
        command, stdin=its, stdout=its, stderr=its, env=env, start_new_session=True
    )
    seen = Window(process, mine)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(seen.watch)
            yield seen
            nursery.cancel_scope.cancel()
        assert termios.tcgetattr(its) == before  # the terminal is as it was
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
        os.close(mine)
        os.close(its)


def shows(*texts: str) -> Callable[[list[str]], bool]:
    return lambda lines: all(any(text in line for line in lines) for text in texts)


async def test_what_comes_stands_above_the_line_that_is_being_typed(server: RunningServer) -> None:
    async with await server.tcp_peer(10002, 1, nickname="ann") as ann, window(server, "--room", "1") as mine:
        await mine.until(shows("* connected as 10001, in room 1; Ctrl-D leaves"))
        mine.press("half a li")
        await mine.until(shows("> half a li"))
        await ann.say(1, "an interruption")
        lines = await mine.until(
            lambda lines: lines[-1] == "> half a li" and "10002 (ann): an interruption" in lines[-2]
        )
        assert len(lines[-2].removesuffix("10002 (ann): an interruption")) == len("12:34 ")
        mine.press("ne\r")
        heard = await ann.expect(BIZ)
        assert heard["data"]["content"] == "half a line"
        lines = await mine.until(lambda lines: lines[-1] == ">")
        assert lines[-2][5:] == " > half a line"
        mine.press("\x1b[A")  # the arrow brings it back
        await mine.until(lambda lines: lines[-1] == "> half a line")
        mine.press("\x15\x04")  # the line is cleared, and that is the end
        assert await mine.ended() == 0


async def test_a_terminal_obeys_nothing_that_others_wrote(server: RunningServer) -> None:
    evil = "\x1b[2J\x1b]0;title\x07\x9b31m\u202e"
    flag = "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"
    async with await server.tcp_peer(10002, 1, nickname="ann") as ann, window(server, "--room", "1") as mine:
        await mine.until(shows("connected"))
        await ann.say(1, f"{evil}{flag}.")
        await mine.until(shows(r"\x1b[2J\x1b]0;title\x07\x9b31m\u202e", "connected"))
        assert b"\x1b]0;title" not in mine.written
        assert "\x9b".encode() not in mine.written
        assert flag.encode() in mine.written
        mine.press("\x04")
        assert await mine.ended() == 0


async def test_names_have_colours_and_some_people_want_none(server: RunningServer) -> None:
    async with await server.tcp_peer(10002, 1, nickname="ann") as ann:
        for environ, colourful in ({}, True), ({"NO_COLOR": "1"}, False):
            async with window(server, "--room", "1", **environ) as mine:
                await mine.until(shows("connected"))
                await ann.say(1, "look")
                await mine.until(shows("ann): look"))
                assert (len(mine.colours("ann): look")) > 1) is colourful
                mine.press("\x04")
                assert await mine.ended() == 0


@pytest.mark.parametrize(("how", "status"), [("key", 130), (signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_it_leaves_the_terminal_in_order(server: RunningServer, how: Any, status: int) -> None:
    async with window(server, "--to", "10002") as mine:
        await mine.until(shows("* connected as 10001; Ctrl-D leaves", ">"))
        mine.press("never said")
        await mine.until(shows("never said"))
        if how == "key":
            mine.press("\x03")
        else:
            mine.process.send_signal(how)
        assert await mine.ended() == status


async def test_a_kick_ends_it_and_what_cannot_be_said_is_told(server: RunningServer) -> None:
    async with await server.tcp_peer(10002, 1), window(server, "--room", "1", "--stay") as mine:
        await mine.until(shows("connected"))
        mine.press(b"a\xffb\r")
        await mine.until(shows("* not sent: what was typed is no UTF-8"))
        mine.press("half")
        await mine.until(shows("> half"))
        async with await server.tcp_peer(10001):
            await mine.until(shows("* the server ended the session: replaced"))
            assert await mine.ended() == 1


async def test_after_the_end_of_the_input_it_may_stay_and_show(server: RunningServer) -> None:
    async with await server.tcp_peer(10002, 1, nickname="ann") as ann, window(server, "--room", "1", "--stay") as mine:
        await mine.until(shows("connected"))
        mine.press("\x04")
        await ann.say(1, "still here?")
        await mine.until(shows("ann): still here?"))
        mine.process.send_signal(signal.SIGTERM)
        assert await mine.ended() == 143
