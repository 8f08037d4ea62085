from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from qiyu.client.access import Server, Token, find_access, require_trio
from qiyu.client.background import BackgroundTasks
from qiyu.client.errors import NotInRoom
from qiyu.client.messages import TEXT, ChatToSend, Item
from qiyu.client.options import DEFAULTS, Options
from qiyu.client.sending import send
from qiyu.client.uplink import Uplink
from qiyu.protocol.bodies import RoomAnswer
from qiyu.protocol.packet import APP_ID, MAX_LIKES, BizCode


class Client:
    """A user's session, as `connect` gives it. One task iterates over it; any task may call it.

    The iteration yields `Message`, `RoomEvent`, `Error`, `Disconnected`, `Reconnected` and `CaughtUp`. It ends after
    `logout`, and raises `Kicked` or `LoginRefused` when the server wants this user no more.
    """

    def __init__(self, uplink: Uplink) -> None:
        self._uplink = uplink

    def __repr__(self) -> str:
        return f"<Client room={self.room_id} {self._uplink!r}>"

    @property
    def user_id(self) -> int:
        return self._uplink.user_id

    @property
    def room_id(self) -> int | None:
        """The room it is in, or goes back to as soon as it is connected again."""
        return self._uplink.membership.room_id

    def __aiter__(self) -> Client:
        return self

    async def __anext__(self) -> Item:
        return await self._uplink.incoming.__anext__()

    async def send_room(
        self, content: str, *, type_: int = TEXT, client_msg_id: str | None = None, receipt: bool = True
    ) -> str:
        """Say something in the room, to its other members; returns its msgId once the server has stored it.

        It takes `receipt_seconds` at most, over lost connections too: what has no receipt yet is sent again on the next
        one, with the same id, so that it is stored and delivered once. Calls need not wait for each other: up to
        `unreceipted_messages` are under way at once, and their messages go out in the order of the calls. Where the
        server cannot take one now (429, 503) it is sent again after a back-off: those that were already out may be
        stored before it, later calls wait until it and all before them are through. A call that is cancelled sends no
        more, but may have sent.

        `client_msg_id`, of 1 to 64 characters and unique among this user's messages, is made up unless it is given: by
        an application that sends a message again after its own restart.

        With `receipt=False` it returns "" once the message is handed to the operating system, after `send_seconds` at
        most; what the server has against it comes as an `Error` of the iteration, and it may be lost.

        Raises `NotInRoom`, `NotConnected` (nothing was sent), `MessageRefused`, `NoReceipt` (it may have been stored),
        or without a receipt `ConnectionLost` (it may have arrived); `Kicked` and `LoginRefused`; ValueError for a
        `client_msg_id` that cannot be one or is under way.
        """

        def chat() -> ChatToSend:
            if self.room_id is None:
                raise NotInRoom("not in a room: enter one first")
            return ChatToSend(room_id=self.room_id, type=type_, content=content)

        return await send(self._uplink, BizCode.ROOM_CHAT, chat, client_msg_id, receipt=receipt)

    async def send_direct(
        self, user_id: int, content: str, *, type_: int = TEXT, client_msg_id: str | None = None, receipt: bool = True
    ) -> str:
        """Say something to one user, connected or not. All else is as in `send_room`, but for `NotInRoom`."""

        def chat() -> ChatToSend:
            return ChatToSend(object_id=user_id, type=type_, content=content)

        return await send(self._uplink, BizCode.DIRECT, chat, client_msg_id, receipt=receipt)

    async def enter_room(self, room_id: int, *, after_msg_id: str | None = None) -> RoomAnswer:
        """Go into a room, out of the one it was in. Calls made meanwhile wait for the answer.

        What was written there after the last message that came from this room, or that it had when it was first
        entered, or after `after_msg_id` (from an earlier run, say), comes as messages. The answer's `recovered` is
        False if some were left out, None if none of these is known.
        To enter the room it is in brings what an `Error` 206 says was dropped, which else comes a moment later.

        Raises `RequestRefused`, `NotConnected`, `ConnectionLost` (in each case it stays in, or goes back to, the room
        it was in), and `Kicked` or `LoginRefused`.
        """
        async with self._uplink.turn() as connection:
            return await connection.enter(room_id, after_msg_id or "")

    async def leave_room(self) -> None:
        """Go out of the room. Raises as `enter_room` does."""
        async with self._uplink.turn() as connection:
            await connection.enter(None)

    async def like(self, count: int = 1) -> None:
        """Like the room, 1 to 50 times; likes in quick succession go in one packet.

        Nothing answers it: members see the sum in the next `count` event. Raises `NotInRoom`, `NotConnected`, `Kicked`,
        `LoginRefused`, and ValueError for another `count`.
        """
        if not 1 <= count <= MAX_LIKES:
            raise ValueError(f"count {count}: expected 1 to {MAX_LIKES}")
        async with self._uplink.turn() as connection:
            if self.room_id is None:
                raise NotInRoom("not in a room: enter one first")
            connection.like(self.room_id, count)

    async def log_in_again(self) -> None:
        """After `Kicked`, be the one who is signed in again: the iteration goes on, in the room it was in.

        It begins with a `Reconnected` whose `recovered` is False: what this user said elsewhere meanwhile is in the
        history alone (`Api.history`). Raises `Kicked` and `LoginRefused` anew, and RuntimeError if nothing has ended.
        """
        await self._uplink.log_in_again()

    async def logout(self) -> bool:
        """Leave now; leaving `connect` does it too.

        True says that the server answered, and so has dealt with all that was sent before; False, that it did not
        within `logout_seconds`. What has come already is still handed out, and then the iteration ends. Messages that
        come later are left for the next login. Calls that are under way raise: to be sure, await them first.
        """
        return await self._uplink.log_out()


def connect(
    server: Server,
    *,
    user_id: int,
    token: Token | None = None,
    app_id: int = APP_ID,
    room_id: int | None = None,
    options: Options = DEFAULTS,
) -> AbstractAsyncContextManager[Client]:
    """Log in to `tcp://host:port`, `ws://host:port` or `wss://host:port/path`, and stay so inside the `async with`.

    A lost connection is made again, with exponential back-off, for as long as it takes; the client then goes back to
    its room, after the last message that it saw there, and each message is shown once. The first one is tried once.

    To live longer than its token, it takes a function that makes tokens. Where there are several servers, or a server
    may move, it takes a function in place of the URL that says where to go now: `Api.access` brings both.

    It runs under trio. Raises RuntimeError under asyncio, and ValueError (the URL), here; on entering `ConnectFailed`,
    `LoginRefused`, and `RequestRefused` (the room).
    """
    require_trio()
    return running(Uplink(find_access(server, token, options), app_id, user_id, options), room_id)


@asynccontextmanager
async def running(uplink: Uplink, room_id: int | None = None) -> AsyncIterator[Client]:
    """The client of a uplink, connected."""
    require_trio()
    async with BackgroundTasks() as nursery:
        nursery.start_soon(uplink.run, room_id)
        await uplink.opened()
        try:
            yield Client(uplink)
        except BaseException:
            await uplink.leave(finished=False)
            raise
        await uplink.leave(finished=True)
