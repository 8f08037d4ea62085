"""A conversation on a terminal: what comes stands above the line that is being typed. Imported where there is one.

prompt_toolkit runs on asyncio and this client on trio, so it has a thread for itself, with one loop for the whole
conversation. What is typed comes out of it through a channel; what is to be shown goes in as a coroutine that hides the
line, prints, and shows the line again.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from typing import Final, TypeAlias

import trio
from prompt_toolkit import PromptSession
from prompt_toolkit.application import run_in_terminal
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.input.vt100 import Vt100Input
from prompt_toolkit.renderer import print_formatted_text
from prompt_toolkit.styles import Style

from qiyu.cli.pipe import Unreadable
from qiyu.cli.shown import harmless, who
from qiyu.client import Message

PROMPT: Final = "> "
CLOCK: Final = "%H:%M "
LINES_WAITING: Final = 100
"""Lines that were typed and are not sent yet; the next one stays where it is."""
COLOURS: Final = ("ansigreen", "ansicyan", "ansimagenta", "ansiblue", "ansiyellow", "ansibrightgreen")
"""Of names: each user has one."""
STYLE: Final = Style.from_dict({"time": "ansibrightblack", "notice": "ansibrightblack", "warning": "ansired"})


Fragments: TypeAlias = list[tuple[str, str]]
"""Styles, and texts in them."""


class _Interrupted(Exception):
    """Ctrl-C."""


class _Input(Vt100Input):
    """The keyboard, which stays ours while something is printed: the terminal would echo keys, and eat Ctrl-D."""

    def detach(self) -> AbstractContextManager[None]:
        return nullcontext()

    def cooked_mode(self) -> AbstractContextManager[None]:
        return nullcontext()


class Terminal:
    """The screen of a conversation, on the terminal of this process. What was typed is kept for the arrow keys only."""

    def __init__(self) -> None:
        self._session = PromptSession[str](
            PROMPT,
            input=_Input(sys.stdin),
            history=InMemoryHistory(),
            interrupt_exception=_Interrupted,
            complete_while_typing=False,
        )
        self._session.default_buffer.accept_handler = self._accept
        self._typed, self._to_say = trio.open_memory_channel[str](LINES_WAITING)
        self._ready = trio.Event()
        self._loop: asyncio.AbstractEventLoop
        self._closed: asyncio.Event

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """While the conversation goes on. When this is left, or cancelled, the terminal is as it was."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._run_thread)
            with trio.CancelScope(shield=True):
                await self._ready.wait()
            nursery.start_soon(self._close_at_end)
            yield
            nursery.cancel_scope.cancel()

    async def _run_thread(self) -> None:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(lambda: asyncio.run(self._prompt()))

    async def _close_at_end(self) -> None:
        # At once, before the good-bye to the server: whoever cannot wait for that ends the process, and is to find the
        # terminal in order.
        try:
            await trio.sleep_forever()
        finally:
            self._loop.call_soon_threadsafe(self._close)

    async def lines(self) -> AsyncIterator[str | Unreadable]:
        """What is typed, until Ctrl-D."""
        async for line in self._to_say:
            try:
                line.encode()
            except UnicodeEncodeError:  # what the terminal sent came in as lone surrogates
                yield Unreadable("what was typed is no UTF-8")
            else:
                yield line

    async def show(self, message: Message) -> None:
        """Show it above the line that is being typed."""
        clock = time.strftime(CLOCK, time.localtime(message.created_ms / 1000))
        name = who(message.sender_id, message.sender_name)
        colour = COLOURS[message.sender_id % len(COLOURS)]
        fragments = [("class:time", clock), (colour, name), ("", f": {harmless(message.content)}\n")]
        showing = self._start(fragments)
        if showing is not None:
            # In a thread, for a slow terminal must not keep the heartbeats back.
            await trio.to_thread.run_sync(showing.result, abandon_on_cancel=True)

    def notice(self, text: str) -> None:
        """Say something about the connection."""
        self._start([("class:notice", f"* {harmless(text)}\n")])

    def warn(self, text: str) -> None:
        """Say what went wrong."""
        self._start([("class:warning", f"* {harmless(text)}\n")])

    def _start(self, fragments: Fragments) -> Future[None] | None:
        """Begin to show something, and return how to wait for it; None if that is done."""
        showing = self._show(fragments)
        try:
            return asyncio.run_coroutine_threadsafe(showing, self._loop)
        except RuntimeError:  # the loop has ended, and nothing is typed any more
            showing.close()
            self._print(fragments)
            return None

    async def _prompt(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._closed = asyncio.Event()
        trio.from_thread.run_sync(self._ready.set)
        try:
            await self._session.prompt_async(pre_run=self._leave_if_closed, handle_sigint=False)
        except EOFError:
            trio.from_thread.run_sync(self._typed.close)
        except _Interrupted:
            os.kill(os.getpid(), signal.SIGINT)
        await self._closed.wait()  # for what is still to be shown

    def _accept(self, buffer: Buffer) -> bool:
        """Enter. The prompt does not end with it: in between, the terminal would echo what is typed by itself.

        Returns whether the line stays.
        """
        line = buffer.text
        if not line:
            return False
        try:
            trio.from_thread.run_sync(self._typed.send_nowait, line)
        except trio.WouldBlock:
            self.warn(f"not sent: {LINES_WAITING} lines wait already")
            return True
        self._start([("class:time", time.strftime(CLOCK)), ("", f"{PROMPT}{harmless(line)}\n")])
        return False

    def _close(self) -> None:
        self._closed.set()
        if self._session.app.is_running:
            self._leave_if_closed()

    def _leave_if_closed(self) -> None:
        app = self._session.app
        if self._closed.is_set() and app.future is not None and not app.future.done():
            app.exit(exception=EOFError)

    async def _show(self, fragments: Fragments) -> None:
        await run_in_terminal(lambda: self._print(fragments))

    def _print(self, fragments: Fragments) -> None:
        print_formatted_text(self._session.output, FormattedText(fragments), STYLE)
