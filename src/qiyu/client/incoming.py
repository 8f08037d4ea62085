"""What came for the application: queued, shown once, acknowledged when the application is done with it.

A message is acknowledged when the application comes back for the next one, or leaves the client without an exception.
The direct messages it had not finished with when it crashed come again at its next login: at least once, never lost.
Those of a room come again if it is entered after the last one that was finished with.

The queue is bounded. While it is full the reader waits, and so nothing more is read from the server, which then drops
room messages (ERROR 206) and in the end closes (`slow`). Heartbeats and acknowledgements go on all the same. While a
call waits for its answer, which may lie behind messages, the queue takes twice as much: the application that does not
read may be the very one that waits.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from trio.lowlevel import ParkingLot

from qiyu.client.messages import CaughtUp, Disconnected, Item, Message, Reconnected, StateChange


class Incoming:
    """One client's queue, over all its connections. `work` is where the writer of the present one waits."""

    def __init__(self, queue_items: int, remembered: int, work: ParkingLot) -> None:
        self._queue_items = queue_items
        self._remembered = remembered
        self._work = work
        self._items: deque[Item] = deque()
        self._arrived = ParkingLot()
        self._space = ParkingLot()
        self._callers_waiting = 0
        self._in_hand = ""
        self._unfinished: set[str] = set()  # queued, or in the application's hands
        self._finished: dict[str, None] = {}  # oldest first
        self._acks: dict[str, None] = {}
        self._leaving = False
        self._ended = False
        self._error: Exception | None = None

    def __repr__(self) -> str:
        return f"<Incoming items={len(self._items)} acks={len(self._acks)} ended={self._ended}>"

    def __aiter__(self) -> Incoming:
        return self

    async def __anext__(self) -> Item:
        # What is here is handed out without a checkpoint: a quick application takes all of it in one go, and all of
        # it is acknowledged in one packet. The queue's bound keeps that short.
        self.finish()
        while not self._items:
            if self._error is not None:
                raise self._error
            if self._ended:
                raise StopAsyncIteration
            await self._arrived.park()
        item = self._items.popleft()
        if isinstance(item, Message):
            self._in_hand = item.msg_id
        self._space.unpark_all()
        return item

    def finish(self) -> None:
        """The application is done with the message it was handed last."""
        msg_id, self._in_hand = self._in_hand, ""
        if not msg_id:
            return
        self._unfinished.discard(msg_id)
        self._finish(msg_id)

    async def deliver(self, msg_id: str, item: Item) -> None:
        """Queue a message unless it is a double, which is acknowledged again if the first one was.

        Doubles come because an acknowledgement was lost or is late, and with what a room's entry brings.
        """
        if self._leaving or msg_id in self._unfinished:
            return
        if msg_id in self._finished:
            self.acknowledge(msg_id)
            return
        await self.put(item)
        if msg_id and isinstance(item, Message):
            self._unfinished.add(msg_id)
        elif msg_id:
            self._finish(msg_id)

    async def put(self, item: Item) -> None:
        """Queue what needs no acknowledgement, once there is space."""
        while len(self._items) >= self._queue_items * (2 if self._callers_waiting else 1):
            await self._space.park()
        self._items.append(item)
        self._arrived.unpark_all()

    def put_state(self, item: StateChange) -> None:
        """Queue a change of state at once; of several with nothing in between, the last is kept.

        But that messages were missed stays true, however well the next connection does.
        """
        if self._items and not isinstance(item, CaughtUp) and _is_outdated(self._items[-1]):
            self._items.pop()
        if not self._items or self._items[-1] != item:
            self._items.append(item)
        self._arrived.unpark_all()

    def _finish(self, msg_id: str) -> None:
        self._finished[msg_id] = None
        if len(self._finished) > self._remembered:
            del self._finished[next(iter(self._finished))]
        self.acknowledge(msg_id)

    def acknowledge(self, msg_id: str) -> None:
        """Have an ACK sent."""
        if msg_id:
            self._acks[msg_id] = None
            self._work.unpark_all()

    def take_acks(self, most: int) -> list[str]:
        """The msgIds to acknowledge now, `most` at most."""
        taken = list(self._acks)[:most]
        for msg_id in taken:
            del self._acks[msg_id]
        return taken

    @contextmanager
    def answer_awaited(self) -> Iterator[None]:
        """Read on for an answer that may lie behind messages."""
        self._callers_waiting += 1
        self._space.unpark_all()
        try:
            yield
        finally:
            self._callers_waiting -= 1

    def leave(self) -> None:
        """After LOGOUT nothing can be acknowledged: messages from here on are left for the next login."""
        self._leaving = True

    def end(self, error: Exception | None) -> None:
        """Nothing more comes: what is queued is still handed out, then the iteration ends or raises."""
        self._ended = True
        self._error = error
        self._arrived.unpark_all()

    def reopen(self) -> None:
        """Something comes again after all."""
        self._ended = False
        self._error = None


def _is_outdated(item: Item) -> bool:
    """Whether a change of state that comes right after this one replaces it."""
    return isinstance(item, Disconnected) or (isinstance(item, Reconnected) and item.recovered is not False)
