"""`qiyu chat`: talk in a room or to one user, from a terminal or in a pipe.

On a terminal, what comes stands above the line that is being typed (terminal.py). In a pipe, stdout holds the messages,
one a line, and nothing else; what there is to say about the connection goes to stderr (pipe.py).
"""

from __future__ import annotations

import os
import signal
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Annotated, Final, Protocol

import trio
import typer

from qiyu.cli.options import ConfigOption
from qiyu.cli.pipe import STDIN, STDOUT, Pipe, Unreadable
from qiyu.cli.shown import who
from qiyu.client import (
    CaughtUp,
    Client,
    ClientError,
    Disconnected,
    Error,
    EventName,
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

SIGNALLED: Final = 128  # plus the signal's number, as shells count
PACE_SECONDS: Final = 0.05
"""Between two messages: 20 a second is what a server takes unless configured otherwise."""
NAMED_CHARS: Final = 80
"""Of a line that was not sent, to say which."""
LOGOUT_SECONDS: Final = 5
LOOPBACK_OF: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # "any address" is none to connect to


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
    url: Annotated[
        str | None,
        typer.Option(
            "--url", help="The server's whole address instead: wss://live.example.com/im, ws://…, tcp://host:port."
        ),
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
    tls: Annotated[
        bool | None, typer.Option("--tls/--no-tls", help="Whether the server speaks TLS, if not as the settings say.")
    ] = None,
    ca: Annotated[
        Path | None, typer.Option("--ca", help="PEM file of the authority that the server's certificate is from.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Send each line of input as a message, and print the messages that come, as `10002 (nick): text`.

    On a terminal they stand above the line that is being typed, and the arrow keys bring back earlier lines.

    At the end of the input it leaves, once the server has stored all of it. The exit status is 0; 1 if a line could not
    be read, or the server refused a message, did not say that it has it, or ended the session; 130 after Ctrl-C.
    """
    if (room is None) == (to is None):
        raise typer.BadParameter("expected one of --room and --to")
    if token is not None and name:
        raise typer.BadParameter("--name: the nickname is part of the token, so it does not go with --token")
    if url is not None and (ws or host or port is not None):
        raise typer.BadParameter("--url: it has all that --ws, --host and --port say, so it does not go with them")
    settings = load_settings(config)
    configure_logging(settings.log.level, settings.log.format)
    connecting = connect(
        _checked("--url", url) if url is not None else _url(settings, host, port, ws=ws, tls=tls),
        user_id=user,
        token=token or _token_maker(settings, user, app, name),
        app_id=app,
        room_id=room,
        options=Options(
            logout_seconds=LOGOUT_SECONDS,
            heartbeat_seconds=settings.session.heartbeat_seconds,
            ssl_context=None if ca is None else _trust(ca),
        ),
    )
    raise typer.Exit(trio.run(Conversation(to, _screen(), stay=stay).hold, connecting))


def _screen() -> Screen:
    if not (os.isatty(STDIN) and os.isatty(STDOUT)):
        return Pipe()
    from qiyu.cli.terminal import Terminal  # noqa: PLC0415  # it takes a tenth of a second, and a pipe has no use for it

    return Terminal()


def _trust(ca: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as exc:  # ssl.SSLError as well
        raise typer.BadParameter(f"--ca: {ca} cannot be used: {exc.strerror or exc}") from None


def _url(settings: Settings, host: str, port: int | None, *, ws: bool, tls: bool | None) -> str:
    section = settings.ws if ws else settings.tcp
    if tls is None:
        tls = bool(settings.tls.certificate) and ("ws" if ws else "tcp") in settings.tls.listeners
    scheme = ("wss" if tls else "ws") if ws else ("tls" if tls else "tcp")
    first = hosts_of(section.host)[0]
    host = host or LOOPBACK_OF.get(first, first)
    url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port or section.port}{settings.ws.path if ws else ''}"
    return _checked("--host", url)


def _checked(option: str, url: str) -> str:
    try:
        parse_url(url)
    except ValueError as exc:
        raise typer.BadParameter(f"{option}: {exc}") from None
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


class Screen(Protocol):
    """Where a conversation is held: `Pipe` or `Terminal`, which say the rest."""

    def open(self) -> AbstractAsyncContextManager[None]: ...

    def lines(self) -> AsyncIterator[str | Unreadable]: ...

    async def show(self, message: Message) -> None: ...

    def notice(self, text: str) -> None: ...

    def warn(self, text: str) -> None: ...


class Conversation:
    """Lines in, messages out, until one of the two ends or the server ends both."""

    def __init__(self, to: int | None, screen: Screen, *, stay: bool) -> None:
        self._to = to
        self._screen = screen
        self._stay = stay
        self._status = 0

    async def hold(self, connecting: AbstractAsyncContextManager[Client]) -> int:
        """Connect, talk and leave; returns the exit status."""
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals, trio.CancelScope() as scope:
            async with BackgroundTasks() as nursery, self._screen.open():
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
                self._screen.notice(f"connected as {client.user_id}{_place(client.room_id)}; Ctrl-D leaves")
                nursery.start_soon(self._send_lines, client)
                async for item in client:
                    await self._show(item)
        except BrokenPipeError:
            pass  # whoever read our output has seen enough
        except ClientError as exc:
            self._fail(str(exc))

    async def _send_lines(self, client: Client) -> None:
        async with trio.open_nursery() as calls:
            async for line in self._screen.lines():
                if isinstance(line, Unreadable):
                    self._fail(f"not sent: {line.reason}")
                    continue
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
                await self._screen.show(item)
            case Error(code=code, reason=reason):
                self._fail(f"{reason} ({code})", refused=code != ErrorCode.DROPPED)
            case RoomEvent(event=EventName.CLOSED):
                self._screen.notice("the room was closed")
            case RoomEvent(event=EventName.ENTER | EventName.LEAVE as event):
                self._screen.notice(f"{who(item.user_id, item.sender_name)}: {event}; {item.online} online")
            case Disconnected(reason=reason, retry_seconds=seconds):
                self._screen.notice(f"disconnected: {reason}; trying again in {seconds:.0f} s")
            case CaughtUp(recovered=recovered):
                if not recovered:
                    self._fail("messages were missed, for they were not read fast enough", refused=False)
            case Reconnected(room_id=room_id, recovered=recovered):
                self._screen.notice(f"connected again{_place(room_id)}")
                if recovered is False:
                    self._fail("messages were missed while disconnected", refused=False)

    def _fail(self, text: str, *, refused: bool = True) -> None:
        """Say what went wrong, and let the exit status say so."""
        self._screen.warn(text)
        self._status = self._status or int(refused)


def _place(room_id: int | None) -> str:
    return "" if room_id is None else f", in room {room_id}"
