from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from qiyu.client.background import BackgroundTasks
from qiyu.client.connection import Connection
from qiyu.client.errors import NotInRoom
from qiyu.client.link import Link, Token
from qiyu.client.messages import TEXT, ChatToSend, Item
from qiyu.client.options import DEFAULTS, Options
from qiyu.client.tcp import open_tcp
from qiyu.client.transport import Login, OpenTransport, Transport, parse_url
from qiyu.client.websocket import open_websocket
from qiyu.protocol.bodies import ImMsgBody, RoomAnswer, encode_json
from qiyu.protocol.packet import APP_ID, BizCode, MsgCode


class Client:
    """A user's session, as `connect` gives it. One task iterates over it; any task may call it.

    The iteration yields `Message`, `RoomEvent`, `Error`, `Disconnected` and `Reconnected`. It ends after `logout`, and
    raises `Kicked` or `LoginRefused` when the server wants this user no more.
    """

    def __init__(self, link: Link) -> None:
        self._link = link

    def __repr__(self) -> str:
        return f"<Client room={self.room_id} {self._link!r}>"

    @property
    def user_id(self) -> int:
        return self._link.user_id

    @property
    def room_id(self) -> int | None:
        """The room it is in, or goes back to as soon as it is connected again."""
        return self._link.membership.room_id

    def __aiter__(self) -> Client:
        return self

    async def __anext__(self) -> Item:
        return await self._link.incoming.__anext__()

    async def send_room(self, content: str, *, type_: int = TEXT) -> None:
        """Say something in the room, to its other members.

        While there is no connection it waits, `send_seconds` at most. It returns once the message is handed to the
        operating system, in the order of the calls; no more is known of it, and what the server has against it comes
        as an `Error` of the iteration.

        Raises `NotInRoom`, `NotConnected` (nothing was sent), `ConnectionLost` (it may have arrived), and `Kicked` or
        `LoginRefused`.
        """
        async with self._link.turn() as connection:
            if self.room_id is None:
                raise NotInRoom("not in a room: enter one first")
            chat = ChatToSend(room_id=self.room_id, type=type_, content=content)
            number = _put(connection, BizCode.ROOM_CHAT, chat)
        await connection.flush(number)

    async def send_direct(self, user_id: int, content: str, *, type_: int = TEXT) -> None:
        """Say something to one user. Waits and raises as `send_room` does, but for `NotInRoom`."""
        async with self._link.turn() as connection:
            chat = ChatToSend(object_id=user_id, type=type_, content=content)
            number = _put(connection, BizCode.DIRECT, chat)
        await connection.flush(number)

    async def enter_room(self, room_id: int) -> RoomAnswer:
        """Go into a room, out of the one it was in. Calls made meanwhile wait for the answer.

        Raises `RequestRefused`, `NotConnected`, `ConnectionLost` (in each case it stays in, or goes back to, the room
        it was in), and `Kicked` or `LoginRefused`.
        """
        async with self._link.turn() as connection:
            return await connection.enter(room_id)

    async def leave_room(self) -> None:
        """Go out of the room. Raises as `enter_room` does."""
        async with self._link.turn() as connection:
            await connection.enter(None)

    async def logout(self) -> bool:
        """Leave now; leaving `connect` does it too.

        True says that the server answered, and so has dealt with all that was sent before; False, that it did not
        within `logout_seconds`. What has come already is still handed out, and then the iteration ends. Messages that
        come later are left for the next login.
        """
        return await self._link.log_out()


def _put(connection: Connection, biz_code: BizCode, chat: ChatToSend) -> int:
    return connection.put(MsgCode.BIZ, ImMsgBody(biz_code=biz_code, data=encode_json(chat).decode()))


@asynccontextmanager
async def connect(
    url: str,
    *,
    user_id: int,
    token: Token,
    app_id: int = APP_ID,
    room_id: int | None = None,
    options: Options = DEFAULTS,
) -> AsyncIterator[Client]:
    """Log in to `tcp://host:port`, `ws://host:port` or `wss://host:port`, and stay so inside the `async with`.

    A lost connection is made again, with exponential back-off, for as long as it takes; the client then goes back to
    its room. The first one is tried once. To live longer than its token, it takes a function that makes tokens.

    Raises ValueError (the URL), `ConnectFailed`, `LoginRefused`, and `RequestRefused` (the room).
    """
    link = Link(_transport(url, options), app_id, user_id, token, options)
    async with running(link, room_id) as client:
        yield client


@asynccontextmanager
async def running(link: Link, room_id: int | None = None) -> AsyncIterator[Client]:
    """The client of a link, connected."""
    async with BackgroundTasks() as nursery:
        nursery.start_soon(link.run, room_id)
        await link.opened()
        try:
            yield Client(link)
        except BaseException:
            await link.leave(finished=False)
            raise
        await link.leave(finished=True)


def _transport(url: str, options: Options) -> OpenTransport:
    address = parse_url(url)
    opener = open_tcp if address.scheme == "tcp" else open_websocket

    def open_transport(login: Login) -> AbstractAsyncContextManager[Transport]:
        return opener(address, login, options)

    return open_transport
