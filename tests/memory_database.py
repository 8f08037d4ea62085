"""The tables in memory, and the steps of the storing driver, one call each: no thread, no loop, nothing that waits."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import StaticPool

from qiyu.drivers.messages import read_pages, store_batch
from qiyu.handlers.dispatch import Dispatcher
from qiyu.model import Instant
from qiyu.services.message_queue import Batch
from qiyu.services.replay import PAGE_MESSAGES
from qiyu.storage.messages import existing_ids, inbox_page, largest_msg_id, users_with_inbox
from qiyu.storage.tables import metadata


def memory_engine() -> Engine:
    """An empty SQLite database with all tables."""
    engine = create_engine(
        "sqlite://", poolclass=StaticPool, connect_args={"isolation_level": None, "check_same_thread": False}
    )

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN")

    metadata.create_all(engine)
    return engine


class MemoryStore:
    """What drivers/messages.py does, in steps. It outlives the dispatchers that it serves, as a database does."""

    def __init__(self, inbox_messages: int = 1000) -> None:
        self.engine = memory_engine()
        self.inbox_messages = inbox_messages
        self.kept_above = 0
        """What rooms still have has msgIds above this."""

    def largest_msg_id(self) -> int:
        with self.engine.begin() as c:
            return largest_msg_id(c)

    def commit(self, batch: Batch) -> Any:
        """The transaction of a batch; returns its outcome."""
        with self.engine.begin() as c:
            return store_batch(c, batch, self.inbox_messages)

    def write(self, dispatcher: Dispatcher, now: Instant) -> bool:
        """Store one batch, and settle it; whether there was one."""
        log = dispatcher.node.message_queue
        if log.is_idle:
            return False
        batch = log.take()
        outcome = self.commit(batch)
        for message in batch.messages:
            log.stored(message, outcome, now)
        log.done()
        return True

    def existing(self, batch: Batch) -> set[int]:
        with self.engine.begin() as c:
            return existing_ids(c, [message.msg_id for message in batch.messages])

    def read(self, dispatcher: Dispatcher, now: Instant) -> bool:
        """Answer what can be answered now; whether there was anything."""
        catch_up, inbox = dispatcher.node.catch_up, dispatcher.node.replays
        wanted = catch_up.take()
        with self.engine.begin() as c:
            for key, rows in read_pages(c, list(wanted), self.kept_above).items():
                catch_up.loaded(key, wanted[key], rows, self.kept_above)
            for room in wanted.values():
                for session, loaded in room.entries:
                    dispatcher.resume(session, loaded, now)
            new = inbox.take_new()
            found = users_with_inbox(c, {(session.app_id, session.user_id) for session in new})
            for session in new:
                inbox.checked(session, now, is_empty=(session.app_id, session.user_id) not in found)
            page = inbox.take_page()
            if page is not None:
                session, after = page
                rows = inbox_page(c, session.app_id, session.user_id, after=after, limit=PAGE_MESSAGES)
                inbox.page(session, rows, now)
        return bool(wanted or new or page)

    def settle(self, dispatcher: Dispatcher, now: Instant) -> None:
        """All of it, until nothing is left to do."""
        while self.write(dispatcher, now) | self.read(dispatcher, now):
            pass
