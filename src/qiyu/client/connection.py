"""One connection, from the first byte to the last, and what is owed to the server.

Three tasks: one reads, one writes, one beats. Only the writer touches the sending half, so no call that is cancelled
leaves half a packet on the wire; and each time it runs it takes all that gathered, acknowledgements in one packet.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import trio
from trio.lowlevel import ParkingLot

from qiyu.client.errors import ClientError, ConnectFailed, ConnectionLost
from qiyu.client.incoming import Incoming
from qiyu.client.messages import LikesToSend, RoomToEnter, packet_of
from qiyu.client.options import Options
from qiyu.client.outgoing import Outgoing
from qiyu.client.packets import PacketHandlers
from qiyu.client.rooms import Membership, RoomRequest, RoomRequests
from qiyu.client.transport import Transport
from qiyu.protocol.bodies import RoomAnswer, encode_json
from qiyu.protocol.packet import MAX_LIKES, BizCode, MsgCode, Packet

ACKS_PER_PACKET: Final = 500
"""A msgId takes about 25 bytes in the list, and the server takes bodies of 64 KiB."""
SILENT_HEARTBEATS: Final = 2


class Connection:
    """What a client does over one transport. `work` is where the writer waits for something to send."""

    def __init__(
        self,
        transport: Transport,
        incoming: Incoming,
        outgoing: Outgoing,
        membership: Membership,
        work: ParkingLot,
        options: Options,
    ) -> None:
        self._transport = transport
        self._incoming = incoming
        self._work = work
        self._options = options
        self._packets: list[Packet] = []
        self._likes: dict[int, int] = {}
        self._queued = 0
        self._written = 0
        self._flushed = ParkingLot()
        self._membership = membership
        self._requests = RoomRequests(membership)
        self._handlers = PacketHandlers(incoming, outgoing, membership, self._requests)
        self._logged_in = self._handlers.logged_in
        self._heartbeats = 0
        self._scope = trio.CancelScope()
        self.error: ClientError | None = None

    def __repr__(self) -> str:
        state = f"ended: {self.error}" if self.error else "logged in" if self._logged_in.is_set() else "logging in"
        return f"<Connection {state} unsent={self._queued - self._written} requests={len(self._requests)}>"

    async def run(self, *tasks: Callable[[Connection], Awaitable[None]]) -> ClientError:
        """Serve the connection until it ends, and do these meanwhile; returns why it ended."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    for ours in (self._read, self._write, self._beat):
                        nursery.start_soon(self._until_error, ours)
                    for task in tasks:
                        nursery.start_soon(self._until_error, partial(task, self))
        finally:
            # Whoever still waits for this connection must not wait for ever.
            self._end(ConnectionLost("the client left"))
        return self._ended_by()

    def put(self, packet: Packet) -> int:
        """Queue a packet; returns a number to `flush`."""
        self._packets.append(packet)
        self._queued += 1
        self._work.unpark_all()
        return self._queued

    def like(self, room_id: int, count: int) -> None:
        """Likes that gather until the writer comes round go in one packet, or in as few as it takes."""
        self._likes[room_id] = self._likes.get(room_id, 0) + count
        self._work.unpark_all()

    async def flush(self, number: int) -> None:
        """Wait until that packet, and all before it, are out. Raises `ConnectionLost` if they may not be."""
        await trio.lowlevel.checkpoint()
        while self._written < number:
            if self.error is not None:
                raise self._lost()
            await self._flushed.park()

    async def logged_in(self) -> None:
        """Wait for the answer to the login."""
        with trio.move_on_after(self._options.connect_seconds):
            await self._logged_in.wait()
            return
        raise ConnectFailed(f"no answer to the login within {self._options.connect_seconds:g} s")

    async def gap(self) -> None:
        """Wait until the server has left out messages for want of reading; one that was filled does not count."""
        while not self._membership.cursors.has_gap:
            self._handlers.gap = trio.Event()
            await self._handlers.gap.wait()

    async def enter(
        self, room_id: int | None, after_msg_id: str = "", on_answer: Callable[[RoomAnswer], None] | None = None
    ) -> RoomAnswer:
        """Enter a room, after the message named or else the last that came from it; or (None) leave.

        Raises `RequestRefused` and `ConnectionLost`. `RoomRequest` says when `on_answer` is called.
        """
        after_msg_id = after_msg_id or self._membership.cursors.of(room_id)
        request = RoomRequest(self._heartbeat(), after_msg_id, on_answer)
        self._requests.begin(request)
        self.put(packet_of(MsgCode.ROOM, data=encode_json(RoomToEnter(room_id, after_msg_id)).decode()))
        with self._incoming.answer_awaited(), trio.move_on_after(self._options.answer_seconds):
            await request.done.wait()
        if request.refusal is not None:
            raise request.refusal
        if request.answer is not None:
            return request.answer
        # Whether the server will yet do it is not known, nor then which room this is: a new connection settles both.
        self._end(ConnectionLost(f"no answer to ROOM within {self._options.answer_seconds:g} s"))
        raise self._lost()

    def _ended_by(self) -> ClientError:
        return self.error or ConnectionLost("the connection ended")

    def _lost(self) -> ConnectionLost:
        error = self._ended_by()
        lost = ConnectionLost(str(error))
        lost.__cause__ = error
        return lost

    def _end(self, error: ClientError) -> None:
        if self.error is not None:
            return
        self.error = error
        self._scope.cancel()
        self._flushed.unpark_all()
        self._requests.end()

    async def _until_error(self, task: Callable[[], Awaitable[None]]) -> None:
        try:
            await task()
        except ClientError as exc:
            self._end(exc)

    async def _write(self) -> None:
        await self._logged_in.wait()
        while True:
            packets = self._take()
            if not packets:
                await self._work.park()
                continue
            with trio.move_on_after(self._silence_seconds) as scope:
                await self._transport.send(packets)
            if scope.cancelled_caught:
                raise ConnectionLost(f"the server did not read for {self._silence_seconds:g} s")
            self._written = self._queued - len(self._packets)
            self._flushed.unpark_all()

    def _take(self) -> list[Packet]:
        packets = []
        # Acknowledgements first: after a LOGOUT they would not count.
        while acks := self._incoming.take_acks(ACKS_PER_PACKET):
            more = encode_json(acks[1:]).decode() if acks[1:] else ""
            packets.append(packet_of(MsgCode.ACK, msg_id=acks[0], data=more))
        # Likes too: after a ROOM they would be those of somebody who is elsewhere.
        for room_id, likes in self._likes.items():
            for begin in range(0, likes, MAX_LIKES):
                data = encode_json(LikesToSend(room_id, min(likes - begin, MAX_LIKES))).decode()
                packets.append(packet_of(MsgCode.BIZ, biz_code=BizCode.LIKE, data=data))
        self._likes = {}
        packets += self._packets
        self._packets = []
        return packets

    async def _beat(self) -> None:
        while True:
            await trio.sleep(self._options.heartbeat_seconds)
            self._heartbeat()

    def _heartbeat(self) -> int:
        self.put(packet_of(MsgCode.HEARTBEAT))
        self._heartbeats += 1
        return self._heartbeats

    @property
    def _silence_seconds(self) -> float:
        return SILENT_HEARTBEATS * self._options.heartbeat_seconds

    async def _read(self) -> None:
        while True:
            for packet in await self._receive():
                await self._handlers.handle(packet)

    async def _receive(self) -> list[Packet]:
        # Only while it is read can a server be found silent.
        with trio.move_on_after(self._silence_seconds):
            return await self._transport.receive()
        raise ConnectionLost(f"the server was silent for {self._silence_seconds:g} s")
