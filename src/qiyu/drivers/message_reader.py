"""Reads what was missed: one task, for many sessions at a time; inboxes at a login, rooms for those who come back."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import trio

from qiyu.drivers.poller import Poller
from qiyu.drivers.retry import Retry
from qiyu.handlers.dispatch import Dispatcher
from qiyu.model import Instant
from qiyu.routing.endpoint import Endpoint
from qiyu.routing.msgid import first_id
from qiyu.services.catch_up import Loaded
from qiyu.services.replay import PAGE_MESSAGES
from qiyu.services.rings import RING_MESSAGES
from qiyu.storage.database import Database
from qiyu.storage.messages import inbox_page, read_pages, users_with_inbox

READ_SECONDS: Final = 5.0  # sessions wait for it, and all that they send meanwhile


class MessageReader:
    """Between the database and those who wait for what it has, back to `history_ms` ago; 0 for all of it."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        poller: Poller,
        database: Database,
        history_ms: int,
        clock: Callable[[], Instant],
    ) -> None:
        node = dispatcher.node
        self._dispatcher = dispatcher
        self._poller = poller
        self._database = database
        self._history_ms = history_ms
        self._clock = clock
        self._queue = node.message_queue
        self._replays = node.replays
        self._catch_up = node.catch_up
        self._to_read = trio.Event()
        self._replays.wake = self._catch_up.lookups.wake = self.wake

    async def run(self) -> None:
        """Run until cancelled."""
        retry = Retry("read inboxes and rooms")
        while True:
            await self._to_read.wait()
            self._to_read = trio.Event()
            try:
                while await self._read_rooms() | await self._check_inboxes() | await self._read_page():
                    pass
            except Exception as exc:  # noqa: BLE001
                await retry.failed(exc)
                self.wake()
            else:
                retry.succeeded()

    def wake(self) -> None:
        """There may be something to read, or to be given up."""
        self._to_read.set()

    async def _read_rooms(self) -> bool:
        if self._queue.failing:  # nobody knows when: they go on with what memory has
            self._resume(self._catch_up.take_all())
            return False
        wanted = self._catch_up.take()
        if not wanted:
            return False
        below = first_id(self._clock().unix_ms - self._history_ms) if self._history_ms else 0
        entries = [entry for room in wanted.values() for entry in room.entries]
        try:
            with trio.move_on_after(READ_SECONDS):
                pages = await self._database.read(read_pages, list(wanted), after=below, limit=RING_MESSAGES)
                for key, rows in pages.items():
                    self._catch_up.loaded(key, wanted[key], rows, below)
        finally:
            self._catch_up.give_up(wanted)  # what was not read by now
            self._resume(entries)
        return True

    def _resume(self, entries: list[tuple[Endpoint, Loaded]]) -> None:
        for session, loaded in entries:
            self._poller.run_for(session, partial(self._dispatcher.resume, session, loaded, self._clock()))

    async def _check_inboxes(self) -> bool:
        sessions = self._replays.take_new()
        if not sessions:
            return False
        try:
            users = {(session.app_id, session.user_id) for session in sessions}
            found = await self._database.read(users_with_inbox, users)
        except BaseException:
            self._replays.put_back(sessions)
            raise
        for session in sessions:
            is_empty = (session.app_id, session.user_id) not in found
            act = partial(self._replays.checked, session, self._clock(), is_empty=is_empty)
            self._poller.run_for(session, act)
        return True

    async def _read_page(self) -> bool:
        wanted = self._replays.take_page()
        if wanted is None:
            return False
        session, after = wanted
        try:
            rows = await self._database.read(
                inbox_page, session.app_id, session.user_id, after=after, limit=PAGE_MESSAGES
            )
        except BaseException:
            self._replays.put_back_page(session)
            raise
        self._poller.run_for(session, partial(self._replays.page, session, rows, self._clock()))
        return True
