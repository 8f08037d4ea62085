"""`qiyu chat`: talk in a room or to one user, from a terminal or in a pipe.

stdout holds the messages, one a line, and nothing else; what there is to say about the connection goes to stderr.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
import unicodedata
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Annotated, Final

import trio
import typer

from qiyu.cli.options import ConfigOption
from qiyu.client import (
    Client,
    ClientError,
    Disconnected,
    Error,
    Item,
    Message,
    NoReceipt,
    Options,
    Reconnected,
    RequestRefused,
    RoomEvent,
    connect,
)
from qiyu.client.background import BackgroundTasks
from qiyu.client.transport import parse_url
from qiyu.config import Settings, existing_secret, hosts_of, load_settings
from qiyu.errors import ErrorCode
from qiyu.logs import configure_logging
from qiyu.protocol.packet import APP_ID, MAX_ID, MIN_ID
from qiyu.services.tokens import Tokens

STDIN: Final = 0
STDOUT: Final = 1
SIGNALLED: Final = 128  # plus the signal's number, as shells count
LINE_BYTES: Final = 65_536
"""The longest line of input; what is longer is cut into several."""
PACE_SECONDS: Final = 0.05
"""Between two messages: 20 a second is what a server takes unless configured otherwise."""
NAMED_CHARS: Final = 80
"""Of a line that was not sent, to say which."""
LOGOUT_SECONDS: Final = 5
LOOPBACK_OF: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # "any address" is none to connect to

_JOINERS: Final = "\u200c\u200d"  # format characters that Persian and emoji are written with
_OBEYED: Final = {"Cc", "Cf", "Cs", "Zl", "Zp"}  # controls, formats, surrogates, separators of lines and paragraphs
_NAMED_ESCAPES: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def chat(
    *,
    user: Annotated[int, typer.Option("--user", min=MIN_ID, max=MAX_ID, help="Who you are.")],
    room: Annotated[int | None, typer.Option("--room", min=1, max=MAX_ID, help="The room to talk in.")] = None,
    to: Annotated[int | None, typer.Option("--to", min=MIN_ID, max=MAX_ID, help="The user to talk to.")] = None,
    ws: Annotated[bool, typer.Option("--ws", help="Connect by WebSocket, not by TCP.")] = False,
    host: Annotated[str, typer.Option("--host", help="Where the server is, if not where the settings have it.")] = "",
    port: Annotated[
        int | None, typer.Option("--port", min=1, max=65535, help="Its port, if not that of the settings.")
    ] = None,
    app: Annotated[int, typer.Option("--app", min=MIN_ID, max=MAX_ID, help="The application.")] = APP_ID,
    name: Annotated[str, typer.Option("--name", help="The nickname that goes with your messages.")] = "",
    token: Annotated[
        str | None,
        typer.Option(
            "--token", envvar="QIYU_TOKEN", help="Your login token; else one is made with this installation's secret."
        ),
    ] = None,
    stay: Annotated[bool, typer.Option("--stay", help="Go on printing when there is no more input.")] = False,
    config: ConfigOption = None,
) -> None:
    """Send each line of input as a message, and print the messages that come, as `10002 (nick): text`.

    At the end of the input it leaves, once the server has stored all of it. The exit status is 0; 1 if the server
    refused a message, did not say that it has it, or ended the session; 130 after Ctrl-C.
    """
    if (room is None) == (to is None):
        raise typer.BadParameter("expected one of --room and --to")
    if token is not None and name:
        raise typer.BadParameter("--name: the nickname is part of the token, so it does not go with --token")
    settings = load_settings(config)
    configure_logging(settings.log.level, settings.log.format)
    connecting = connect(
        _url(settings, host, port, ws=ws),
        user_id=user,
        token=token or _token_maker(settings, user, app, name),
        app_id=app,
        room_id=room,
        options=Options(logout_seconds=LOGOUT_SECONDS, heartbeat_seconds=settings.session.heartbeat_seconds),
    )
    raise typer.Exit(trio.run(Conversation(to, stay=stay).hold, connecting))


def _url(settings: Settings, host: str, port: int | None, *, ws: bool) -> str:
    scheme, section = ("ws", settings.ws) if ws else ("tcp", settings.tcp)
    first = hosts_of(section.host)[0]
    host = host or LOOPBACK_OF.get(first, first)
    url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port or section.port}{settings.ws.path if ws else ''}"
    try:
        parse_url(url)
    except ValueError as exc:
        raise typer.BadParameter(f"--host: {exc}") from None
    return url


def _token_maker(settings: Settings, user: int, app: int, name: str) -> Callable[[], str]:
    tokens = Tokens(existing_secret(settings), settings.auth.token_seconds)

    def make_token() -> str:
        return tokens.issue(user, app_id=app, nickname=name, now_ms=time.time_ns() // 1_000_000)

    try:
        make_token()
    except ValueError as exc:
        raise typer.BadParameter(str(exc)) from None
    return make_token


class Conversation:
    """Lines in, messages out, until one of the two ends or the server ends both."""

    def __init__(self, to: int | None, *, stay: bool, stdin: int = STDIN, stdout: int = STDOUT) -> None:
        self._to = to
        self._stay = stay
        self._stdin = stdin
        self._stdout = stdout
        self._status = 0

    async def hold(self, connecting: AbstractAsyncContextManager[Client]) -> int:
        """Connect, talk and leave; returns the exit status."""
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals, trio.CancelScope() as scope:
            async with BackgroundTasks() as nursery:
                nursery.start_soon(self._stop_at_signal, signals, scope)
                await self._talk(connecting)
        return self._status

    async def _stop_at_signal(self, signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
        self._status = SIGNALLED + await anext(signals)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)  # whoever cannot wait for the good-bye sends a second one
        scope.cancel()

    async def _talk(self, connecting: AbstractAsyncContextManager[Client]) -> None:
        try:
            async with connecting as client, BackgroundTasks() as nursery:
                self._tell(f"connected as {client.user_id}; Ctrl-D leaves")
                nursery.start_soon(self._send_lines, client)
                async for item in client:
                    await self._show(item)
        except BrokenPipeError:
            pass  # whoever read our output has seen enough
        except ClientError as exc:
            self._fail(str(exc))

    async def _send_lines(self, client: Client) -> None:
        async with trio.open_nursery() as calls:
            async for line in Lines(self._stdin):
                calls.start_soon(self._send, client, line)
                await trio.sleep(PACE_SECONDS)  # the call begins meanwhile, and with that has its place in the order
        if not self._stay and not await client.logout():
            self._fail("the server did not answer the logout: the last messages may not have arrived")

    async def _send(self, client: Client, line: str) -> None:
        named = line if len(line) <= NAMED_CHARS else f"{line[:NAMED_CHARS]}…"
        try:
            if self._to is None:
                await client.send_room(line)
            else:
                await client.send_direct(self._to, line)
        except RequestRefused as exc:
            self._fail(f"refused: {exc} ({exc.code}): {named}")
        except NoReceipt as exc:
            self._fail(f"{exc}: {named}")
        except ClientError as exc:
            self._fail(f"not sent: {exc}: {named}")

    async def _show(self, item: Item) -> None:
        match item:
            case Message():
                await self._print(line_of(item))
            case Error(code=code, reason=reason):
                self._fail(f"{reason} ({code})", refused=code != ErrorCode.DROPPED)
            case RoomEvent(event="closed"):
                self._tell("the room was closed")
            case RoomEvent(event="enter" | "leave" as event):
                self._tell(f"{_who(item.user_id, item.sender_name)}: {event}; {item.online} online")
            case Disconnected(reason=reason, retry_seconds=seconds):
                self._tell(f"disconnected: {reason}; trying again in {seconds:.0f} s")
            case Reconnected(recovered=recovered):
                self._tell("connected again")
                if recovered is False:
                    self._fail("messages were missed while disconnected", refused=False)

    async def _print(self, line: str) -> None:
        data = f"{line}\n".encode(errors="backslashreplace")
        # In a thread, for a full pipe must not keep the heartbeats back.
        await trio.to_thread.run_sync(_write_all, self._stdout, data, abandon_on_cancel=True)

    def _tell(self, text: str) -> None:
        """Say something about the connection, to a person only."""
        if sys.stderr.isatty():
            _say(text)

    def _fail(self, text: str, *, refused: bool = True) -> None:
        """Say what went wrong, and let the exit status say so."""
        _say(text)
        self._status = self._status or int(refused)


class Lines:
    """The lines of a file descriptor, without their ends; empty ones are left out.

    A thread waits for them: epoll takes no files, and to make a terminal non-blocking is to make it so for the shell as
    well. It reads with os.read, because Python's own stdin has a lock, and a thread that is left waiting with it held
    aborts the process when it exits.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._buffer = b""
        self._ended = False

    def __aiter__(self) -> Lines:
        return self

    async def __anext__(self) -> str:
        while True:
            raw, newline, rest = self._buffer[:LINE_BYTES].partition(b"\n")
            if newline or len(raw) == LINE_BYTES or self._ended:
                self._buffer = rest + self._buffer[LINE_BYTES:]
                line = raw.removesuffix(b"\r").decode(errors="replace")
                if line:
                    return line
                if self._ended and not self._buffer:
                    raise StopAsyncIteration
            else:
                await self._read_more()

    async def _read_more(self) -> None:
        try:
            data = await trio.to_thread.run_sync(os.read, self._fd, LINE_BYTES, abandon_on_cancel=True)
        except OSError:
            data = b""  # closed from the start, or the terminal is gone
        self._buffer += data
        self._ended = not data


def line_of(message: Message) -> str:
    """A message on one line: `10002 (nick): text`."""
    return f"{_who(message.sender_id, message.sender_name)}: {harmless(message.content)}"


def harmless(text: str) -> str:
    """`text` without what a terminal obeys: control characters, and those that turn the direction of writing.

    Others wrote it. What could move the cursor, set the title, end the line or hide what stands there is shown escaped.
    """
    return "".join([char if _is_shown(char) else _escape(char) for char in text])


def _is_shown(char: str) -> bool:
    return char in _JOINERS or unicodedata.category(char) not in _OBEYED


def _escape(char: str) -> str:
    return _NAMED_ESCAPES.get(char) or char.encode("unicode_escape", errors="surrogatepass").decode()


def _who(user_id: int, name: str) -> str:
    return f"{user_id} ({harmless(name)})" if name else str(user_id)


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        typer.echo(f"* {harmless(text)}", err=True)


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]
