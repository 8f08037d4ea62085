"""Messages and the database: what was accepted is written, what was missed is read, what is old is removed.

One task writes: each time it takes all that has gathered, so an idle server stores a message at once, and a busy one
many in one transaction. One task reads, for many sessions at a time. While the database does not answer they try again,
a second apart at most.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog
import trio
from sqlalchemy import Connection

from qiyu.drivers.poller import Poller
from qiyu.drivers.trouble import Trouble
from qiyu.errors import DatabaseUnavailable
from qiyu.handlers.dispatch import Dispatcher
from qiyu.model import Instant
from qiyu.routing.msgid import first_id
from qiyu.routing.session import Session
from qiyu.services.catch_up import Loaded
from qiyu.services.message_queue import Batch, Message
from qiyu.services.replay import PAGE_MESSAGES
from qiyu.services.rings import RING_MESSAGES
from qiyu.storage.database import Database
from qiyu.storage.messages import (
    Outcome,
    Stored,
    existing_ids,
    find_duplicates,
    inbox_page,
    prune,
    room_page,
    store,
    try_to_write,
    users_with_inbox,
)

log = structlog.get_logger(__name__)

WRITE_SECONDS: Final = 10.0  # senders wait for it
READ_SECONDS: Final = 5.0  # sessions wait for it, and all that they send meanwhile
RETRY_SECONDS: Final = (0.1, 1.0)  # the first wait, and the longest
SLICE_SECONDS: Final = 0.005  # how long messages are delivered before other tasks get their turn
PRUNE_SECONDS: Final = 60.0
PRUNE_MESSAGES: Final = 500  # in one transaction
PRUNE_PAUSE_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class Retention:
    """How much is kept, and how long; 0 = no limit."""

    inbox_messages: int
    """Direct messages that one user may have unacknowledged."""
    history_ms: int
    client_msg_id_ms: int


class MessageStore:
    """The tasks between the message log, the inboxes and the database."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        poller: Poller,
        database: Database,
        keeping: Retention,
        clock: Callable[[], Instant],
    ) -> None:
        node = dispatcher.node
        self._dispatcher = dispatcher
        self._poller = poller
        self._database = database
        self._retention = keeping
        self._clock = clock
        self._log = node.message_queue
        self._inbox = node.replays
        self._catch_up = node.catch_up
        self._to_write = trio.Event()
        self._to_read = trio.Event()
        self._written = trio.Event()
        self._log.wake = self._wake_writer
        self._inbox.wake = self._catch_up.lookups.wake = self._wake_reader

    async def run(self) -> None:
        """Run until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._write)
            nursery.start_soon(self._read)
            nursery.start_soon(self._prune)

    async def flushed(self) -> None:
        """Return once all that was accepted, and all acknowledgements, are written."""
        while not self._log.is_idle:
            self._written = trio.Event()
            await self._written.wait()

    def _wake_writer(self) -> None:
        self._to_write.set()

    def _wake_reader(self) -> None:
        self._to_read.set()

    # Writing

    async def _write(self) -> None:
        retry = _Retry("store messages")
        while True:
            if self._log.is_idle:
                self._to_write = trio.Event()
                await self._to_write.wait()
            batch = self._log.take()
            try:
                outcome, rejected = await self._store(batch)
            except Exception as exc:  # noqa: BLE001  # a broken table ends no connection
                self._log.failed(batch, self._clock())
                self._wake_reader()  # who waits to catch up is not to wait for this
                await self._resolve(batch, retry, exc)
            else:
                retry.succeeded()
                await self._settle(batch, outcome, rejected)
            self._written.set()
            self._wake_reader()

    async def _store(self, batch: Batch) -> tuple[Outcome, set[int]]:
        """Returns as well which messages the database would not take for what they are."""
        try:
            return await self._run(batch), set()
        except DatabaseUnavailable:
            raise
        except Exception:
            log.exception("a batch of messages failed; they are stored one by one", messages=len(batch.messages))
        outcome = Outcome({}, set())
        rejected: set[int] = set()
        # A batch that is tried again may have been committed after all, later than anybody could see.
        existing = await self._database.read(existing_ids, [message.msg_id for message in batch.messages])
        missing = [message for message in batch.messages if message.msg_id not in existing]
        for part in [Batch([message], []) for message in missing] + [Batch([], batch.acks)]:
            try:
                alone = await self._run(part)
            except DatabaseUnavailable:
                raise
            except Exception:
                log.exception("a message could not be stored", messages=len(part.messages))
                rejected.update(message.msg_id for message in part.messages)
            else:
                outcome.duplicates.update(alone.duplicates)
                outcome.inbox_full.update(alone.inbox_full)
        return outcome, rejected

    async def _run(self, batch: Batch) -> Outcome:
        return await self._database.run_within(WRITE_SECONDS, store_batch, batch, self._retention.inbox_messages)

    async def _settle(self, batch: Batch, outcome: Outcome, rejected: set[int]) -> None:
        now = self._clock()
        until = time.monotonic() + SLICE_SECONDS
        for message in batch.messages:
            self._settle_one(message, outcome, rejected, now)
            if time.monotonic() > until:
                await trio.lowlevel.checkpoint()
                now = self._clock()
                until = time.monotonic() + SLICE_SECONDS
        self._log.done()

    def _settle_one(self, message: Message, outcome: Outcome, rejected: set[int], now: Instant) -> None:
        try:
            if message.msg_id in rejected:
                self._log.rejected(message)
            else:
                self._log.stored(message, outcome, now)
        except Exception:
            log.exception("a stored message could not be delivered because of a bug", msg_id=message.msg_id)

    async def _resolve(self, batch: Batch, retry: _Retry, why: Exception) -> None:
        """Find out what became of the batch, and wait until messages can be stored again, however long that takes."""
        msg_ids = [message.msg_id for message in batch.messages]
        resolved = False
        while self._log.failing:
            await retry.failed(why)
            try:
                if not resolved:
                    existing = await self._database.read(existing_ids, msg_ids)
                    self._log.resolved(batch, existing, self._clock())
                    resolved = True
                # To be read from says nothing: another process may hold the lock, or the file may be read-only.
                await self._database.run_within(WRITE_SECONDS, try_to_write)
            except Exception as exc:  # noqa: BLE001
                why = exc
                if not resolved:
                    self._log.give_up(batch)
                self._wake_reader()
            else:
                self._log.answers_again()

    # Reading

    async def _read(self) -> None:
        retry = _Retry("read inboxes and rooms")
        while True:
            await self._to_read.wait()
            self._to_read = trio.Event()
            try:
                while await self._read_rooms() | await self._check_inboxes() | await self._read_page():
                    pass
            except Exception as exc:  # noqa: BLE001
                await retry.failed(exc)
                self._wake_reader()
            else:
                retry.succeeded()

    async def _read_rooms(self) -> bool:
        if self._log.failing:  # nobody knows when: they go on with what memory has
            self._resume(self._catch_up.take_all())
            return False
        wanted = self._catch_up.take()
        if not wanted:
            return False
        below = self._oldest_id(self._retention.history_ms)
        entries = [entry for room in wanted.values() for entry in room.entries]
        try:
            with trio.move_on_after(READ_SECONDS):
                pages = await self._database.read(read_pages, list(wanted), below)
                for key, rows in pages.items():
                    self._catch_up.loaded(key, wanted[key], rows, below)
        finally:
            self._catch_up.give_up(wanted)  # what was not read by now
            self._resume(entries)
        return True

    def _resume(self, entries: list[tuple[Session, Loaded]]) -> None:
        for session, loaded in entries:
            self._poller.run_for(session, partial(self._dispatcher.resume, session, loaded, self._clock()))

    async def _check_inboxes(self) -> bool:
        sessions = self._inbox.take_new()
        if not sessions:
            return False
        try:
            users = {(session.app_id, session.user_id) for session in sessions}
            found = await self._database.read(users_with_inbox, users)
        except BaseException:
            self._inbox.put_back(sessions)
            raise
        for session in sessions:
            is_empty = (session.app_id, session.user_id) not in found
            act = partial(self._inbox.checked, session, self._clock(), is_empty=is_empty)
            self._poller.run_for(session, act)
        return True

    async def _read_page(self) -> bool:
        wanted = self._inbox.take_page()
        if wanted is None:
            return False
        session, after = wanted
        try:
            rows = await self._database.read(
                inbox_page, session.app_id, session.user_id, after=after, limit=PAGE_MESSAGES
            )
        except BaseException:
            self._inbox.put_back_page(session)
            raise
        self._poller.run_for(session, partial(self._inbox.page, session, rows, self._clock()))
        return True

    # Removing

    async def _prune(self) -> None:
        keeping = self._retention
        if not keeping.history_ms:
            return
        retry = _Retry("remove old messages")
        while True:
            await trio.sleep(PRUNE_SECONDS)
            below = self._oldest_id(max(keeping.history_ms, keeping.client_msg_id_ms))
            after: int | None = 0
            try:
                while after is not None:
                    after = await self._database.run(prune, after=after, below=below, limit=PRUNE_MESSAGES)
                    await trio.sleep(PRUNE_PAUSE_SECONDS)
            except Exception as exc:  # noqa: BLE001
                await retry.failed(exc)
            else:
                retry.succeeded()

    def _oldest_id(self, kept_ms: int) -> int:
        return first_id(self._clock().unix_ms - kept_ms) if kept_ms else 0


class _Retry:
    """How long to wait before trying again."""

    def __init__(self, what: str) -> None:
        self._trouble = Trouble(what)
        self._seconds = 0.0

    async def failed(self, why: Exception) -> None:
        self._trouble.failed(why)
        first, longest = RETRY_SECONDS
        self._seconds = min(2 * self._seconds, longest) or first
        await trio.sleep(self._seconds)

    def succeeded(self) -> None:
        self._trouble.succeeded()
        self._seconds = 0.0


def store_batch(c: Connection, batch: Batch, inbox_messages: int) -> Outcome:
    """One transaction: what is to be kept is kept, and what is not is looked for."""
    rows = [message.row() for message in batch.messages if message.refusal is None]
    asked = [message.row() for message in batch.messages if message.refusal is not None]
    outcome = store(c, rows, batch.acks, inbox_messages)
    if asked:
        outcome.duplicates.update(find_duplicates(c, asked))
    return outcome


def read_pages(c: Connection, keys: list[tuple[int, int]], below: int) -> dict[tuple[int, int], list[Stored]]:
    """Of each room, by app and number, the newest messages above `below`."""
    return {key: room_page(c, *key, after=below, before=None, limit=RING_MESSAGES) for key in keys}
