"""A user's uplink to the server, over as many connections as it takes: made, lost, made again, until it ends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

import trio
from trio.lowlevel import ParkingLot

from qiyu.client.access import FindAccess
from qiyu.client.backoff import Backoff
from qiyu.client.connection import Connection
from qiyu.client.cursors import Cursors
from qiyu.client.errors import (
    ClientError,
    ConnectFailed,
    ConnectionLost,
    Kicked,
    LoginRefused,
    NotConnected,
    RequestRefused,
)
from qiyu.client.incoming import Incoming
from qiyu.client.messages import CaughtUp, Disconnected, Error, Reconnected, packet_of
from qiyu.client.options import Options
from qiyu.client.outgoing import Outgoing
from qiyu.client.packets import LoggedOut
from qiyu.client.rooms import Membership
from qiyu.client.transport import Login
from qiyu.errors import ErrorCode
from qiyu.protocol.bodies import RoomAnswer
from qiyu.protocol.packet import MsgCode

MAX_RETRY_SECONDS: Final = 600
"""The longest a server may send a client away for."""
STEADY_SECONDS: Final = 30
"""A connection that held this long was a good one: the back-off begins anew."""


class Uplink:
    """The state of a client, and the task that keeps it connected."""

    def __init__(self, find_access: FindAccess, app_id: int, user_id: int, options: Options) -> None:
        self.app_id = app_id
        self.user_id = user_id
        self.options = options
        self.membership = Membership(Cursors(options.remembered_rooms))
        self._work = ParkingLot()
        self.incoming = Incoming(options.queue_items, options.remembered_messages, self._work)
        self._find_access = find_access
        self._backoff = self._new_backoff()
        self._turn = trio.StrictFIFOLock()
        self._connection: Connection | None = None
        self._connected_at = float("inf")
        self._opened = False
        self._leaving = False
        self._ended = False
        self._was_elsewhere = False
        self._error: ClientError | None = None
        self._changed = ParkingLot()
        self.outgoing = Outgoing(options, self._changed)
        self._scope = trio.CancelScope()

    def __repr__(self) -> str:
        state = "ended" if self._ended else "connected" if self._connection else "connecting"
        return f"<Uplink user={self.user_id} {state} {self._backoff!r} {self.incoming!r} {self.outgoing!r}>"

    def _new_backoff(self) -> Backoff:
        return Backoff(self.options.retry_base_seconds, self.options.retry_cap_seconds, self.options.jitter)

    async def run(self, room_id: int | None) -> None:
        """Connect, and connect again, until it is over."""
        self.membership.room_id = room_id
        try:
            with self._scope:
                while not self._leaving:
                    while not self._ended:
                        await self._settle(await self._connect_once())
                    await self._changed.park()  # until somebody logs in again, or leaves
        finally:
            self._end(None)

    async def opened(self) -> None:
        """Wait for the first connection, logged in and in its room; raises why there is none."""
        while not self._opened and not self._ended:
            await self._changed.park()
        if self._error is not None:
            raise self._error
        # From here on only `leave` ends it: even an application that is cancelled then logs out politely.
        self._scope.shield = True

    async def log_in_again(self) -> None:
        """Begin anew after `Kicked` or `LoginRefused`; wait until it is connected, or raise what ended it again."""
        if not isinstance(self._error, Kicked | LoginRefused) or self._leaving:
            raise RuntimeError("log_in_again: the session has not been ended by the server")
        self._ended = False
        self._error = None
        self._was_elsewhere = True
        self.membership.cursors.forget()
        self.incoming.reopen()
        self.outgoing.reopen()
        self._backoff.reset()
        self._changed.unpark_all()
        while self._connection is None and not self._ended:
            await self._changed.park()
        if self._error is not None:
            raise self._error

    async def leave(self, *, finished: bool) -> None:
        """The application leaves; `finished` says that it has dealt with the last message it was handed."""
        if finished:
            self.incoming.finish()
        try:
            with trio.CancelScope(shield=True):
                await self.log_out()
        finally:
            self._scope.cancel()

    async def log_out(self) -> bool:
        """LOGOUT, and whether it was answered in time."""
        self._leaving = True
        self.incoming.leave()
        connection = self._connection
        if connection is not None:
            connection.put(packet_of(MsgCode.LOGOUT))
            with trio.move_on_after(self.options.logout_seconds), self.incoming.answer_awaited():
                while not self._ended:
                    await self._changed.park()
        self._scope.cancel()
        self._end(None)
        return connection is not None and isinstance(connection.error, LoggedOut)

    @asynccontextmanager
    async def turn(
        self, seconds: float | None = None, may_send: Callable[[], bool] = lambda: True
    ) -> AsyncIterator[Connection]:
        """This caller's turn to send, with a connection and once it `may_send`; calls go in the order they were made.

        Raises `NotConnected` after `seconds` (`send_seconds` unless given), or what ended the uplink.
        """
        seconds = self.options.send_seconds if seconds is None else seconds
        deadline = trio.current_time() + seconds
        try:
            with trio.fail_at(deadline):
                await self._turn.acquire()
                try:
                    connection = await self._ready(may_send)
                except BaseException:
                    self._turn.release()
                    raise
        except trio.TooSlowError:
            missing = "no connection" if self._connection is None else "not its turn"
            raise NotConnected(f"{missing} within {seconds:g} s") from None
        try:
            yield connection
        finally:
            self._turn.release()

    async def _ready(self, may_send: Callable[[], bool]) -> Connection:
        while self._connection is None or self._leaving or not may_send():
            if self._error is not None:
                raise self._error
            if self._leaving:
                raise NotConnected("logged out")
            await self._changed.park()
        return self._connection

    async def _connect_once(self) -> ClientError:
        self._connected_at = float("inf")
        error: ClientError | None = None
        try:
            open_transport, token = await self._find_access()
            async with open_transport(Login(self.app_id, self.user_id, token)) as transport:
                connection = Connection(
                    transport, self.incoming, self.outgoing, self.membership, self._work, self.options
                )
                try:
                    error = await connection.run(self._establish, self._fill_gaps)
                finally:
                    self._connection = None
        except ClientError as exc:
            error = error or exc  # why it ended, rather than how the closing went
        return error or ConnectionLost("the connection ended")

    async def _establish(self, connection: Connection) -> None:
        await connection.logged_in()
        room_id = self.membership.room_id
        if room_id is None or not await self._go_to_room(connection, room_id):
            self._tell_reconnected(None)
        self._opened = True
        self._connected_at = trio.current_time()
        self.outgoing.resend(connection.put)  # before any newer message can go out
        self._connection = connection
        self._changed.unpark_all()
        await self.outgoing.recover(connection.put)

    async def _fill_gaps(self, connection: Connection) -> None:
        """Ask for what the server left out for a client that read too slowly; after a pause, for it may go on to."""
        backoff = self._new_backoff()
        while True:
            await connection.gap()
            await trio.sleep(backoff.next_seconds())
            with suppress(NotConnected):  # others have had their turn for long: once more
                async with self.turn():
                    if await self._fill_gap(connection):
                        backoff.reset()

    async def _fill_gap(self, connection: Connection) -> bool:
        room_id = self.membership.room_id
        if room_id is None:  # it was left since
            self.membership.cursors.entered(None, "")
            return True
        if not self.membership.cursors.has_gap:  # somebody has entered it anew
            return True
        try:
            await connection.enter(room_id, on_answer=lambda answer: self._tell_caught_up(room_id, answer))
        except RequestRefused as exc:
            if exc.code == ErrorCode.UNAVAILABLE:
                return False
            self.membership.room_id = None
            await self.incoming.put(Error(exc.code, exc.reason))
        return True

    def _tell_caught_up(self, room_id: int, answer: RoomAnswer) -> None:
        self.incoming.put_state(CaughtUp(room_id, answer.recovered is True))

    async def _go_to_room(self, connection: Connection, room_id: int) -> bool:
        try:
            await connection.enter(room_id, on_answer=self._tell_reconnected)
        except RequestRefused as exc:
            if not self._opened:
                raise
            if exc.code == ErrorCode.UNAVAILABLE:
                raise ConnectionLost(exc.reason) from exc
            self.membership.room_id = None
            await self.incoming.put(Error(exc.code, exc.reason))
            return False
        return True

    def _tell_reconnected(self, room: RoomAnswer | None) -> None:
        if not self._opened:
            return
        if room is None:
            self.incoming.put_state(Reconnected(None))
        else:
            # What the user said elsewhere is not among what the server brings, which is what others said.
            self.incoming.put_state(Reconnected(room.room_id, False if self._was_elsewhere else room.recovered))
        self._was_elsewhere = False

    async def _settle(self, error: ClientError) -> None:
        """End, or wait to try again."""
        if self._leaving:
            self._end(None)
        elif isinstance(error, Kicked | LoginRefused):
            self._end(error)
        elif not self._opened:
            self._end(ConnectFailed(str(error)) if isinstance(error, ConnectionLost) else error)
        else:
            seconds = self._retry_seconds(error)
            self.incoming.put_state(Disconnected(str(error), seconds))
            await trio.sleep(seconds)

    def _retry_seconds(self, error: ClientError) -> float:
        if trio.current_time() - self._connected_at >= STEADY_SECONDS:
            self._backoff.reset()
        asked = error.retry_seconds if isinstance(error, ConnectionLost) else 0.0
        return min(max(asked, 0.0), MAX_RETRY_SECONDS) + self._backoff.next_seconds()

    def _end(self, error: ClientError | None) -> None:
        if not self._ended:
            self._ended = True
            self._error = error
            self.incoming.end(error)
            self.outgoing.end(str(error or "the client logged out"), error)
            self._changed.unpark_all()
