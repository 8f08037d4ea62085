"""Writes what was accepted: one task, which each time takes all that has gathered in the message queue.

So an idle server stores a message at once, and a busy one many in one transaction. What is done in which order is for
the batch to say (services/batch.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Final

import structlog
import trio

from qiyu.drivers.retry import Retry
from qiyu.model import Instant
from qiyu.services.batch import SETTLE, Batch, FindStored, Settle, Store, TryToWrite
from qiyu.services.message_queue import MessageQueue
from qiyu.storage.database import Database
from qiyu.storage.instances import try_to_write
from qiyu.storage.messages import InboxRules, kept, store_batch

log = structlog.get_logger(__name__)

WRITE_SECONDS: Final = 10.0  # senders wait for it
SLICE_SECONDS: Final = 0.005  # how long messages are settled before other tasks get their turn


class MessageWriter:
    """Between the message queue and the database.

    `inbox_rules` say who may write how much to whom. `progressed` is
    called whenever messages may have been settled, or will not be soon. `forget_below` gives the msgId below which a
    message is deleted when it is acknowledged, for nothing else holds it. `committed` is told how many seconds each
    batch took.
    """

    def __init__(
        self,
        queue: MessageQueue,
        database: Database,
        inbox_rules: InboxRules,
        progressed: Callable[[], None],
        clock: Callable[[], Instant],
        forget_below: Callable[[], int] = lambda: 0,
        committed: Callable[[float], None] = lambda _: None,
    ) -> None:
        self._queue = queue
        self._database = database
        self._inbox_rules = inbox_rules
        self._progressed = progressed
        self._clock = clock
        self._forget_below = forget_below
        self._committed = committed
        self._retry = Retry("store messages")
        self._to_write = trio.Event()
        self._written = trio.Event()
        queue.wake = self._wake

    async def run(self) -> None:
        """Run until cancelled."""
        while True:
            if self._queue.is_idle:
                self._to_write = trio.Event()
                await self._to_write.wait()
            await self._write(Batch(self._queue))
            self._written.set()
            self._progressed()

    async def flushed(self) -> None:
        """Return once all that was accepted, and all acknowledgements, are written."""
        while not self._queue.is_idle:
            self._written = trio.Event()
            await self._written.wait()

    def _wake(self) -> None:
        self._to_write.set()

    async def _write(self, batch: Batch) -> None:
        while (step := batch.next()) is not None:
            if isinstance(step, Settle):
                await self._settle(batch)
                continue
            try:
                tell = await self._ask(step, batch)
            except Exception as exc:  # noqa: BLE001  # a broken table ends no connection
                batch.failed(exc, self._clock())
                self._progressed()
                if self._queue.failing:
                    await self._retry.failed(exc)
            else:
                tell()

    async def _ask(self, step: Store | FindStored | TryToWrite, batch: Batch) -> Callable[[], None]:
        """Returns how to tell the batch what the database said."""
        match step:
            case Store(messages, asked, acks):
                rows = (messages, asked, acks, self._inbox_rules, self._forget_below())
                begun = self._clock()
                outcome = await self._database.run_within(WRITE_SECONDS, store_batch, *rows)
                self._retry.succeeded()
                now = self._clock()
                self._committed(now.monotonic - begun.monotonic)
                return partial(batch.stored, outcome, now)
            case FindStored(messages):
                found = await self._database.read(kept, messages)
                return partial(batch.found, found, self._clock())
            case TryToWrite():
                await self._database.run_within(WRITE_SECONDS, try_to_write)
                return batch.writable

    async def _settle(self, batch: Batch) -> None:
        now = self._clock()
        until = time.monotonic() + SLICE_SECONDS
        while batch.next() is SETTLE:
            self._settle_one(batch, now)
            if time.monotonic() > until:
                await trio.lowlevel.checkpoint()
                now = self._clock()
                until = time.monotonic() + SLICE_SECONDS

    @staticmethod
    def _settle_one(batch: Batch, now: Instant) -> None:
        try:
            batch.settle(now)
        except Exception:
            msg_id = batch.last_settled
            log.exception("a stored message could not be delivered because of a bug", msg_id=msg_id)
