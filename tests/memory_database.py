"""The tables in memory, and the steps of the drivers around them, one call each: no thread, no loop, nothing waits."""

from __future__ import annotations

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import StaticPool

from qiyu.handlers.dispatch import Dispatcher
from qiyu.model import Instant
from qiyu.services import rings
from qiyu.services.batch import Batch, FindStored, Settle, Store, TryToWrite
from qiyu.services.replay import PAGE_MESSAGES
from qiyu.storage.messages import (
    InboxRules,
    Outcome,
    inbox_page,
    kept,
    largest_msg_id,
    read_pages,
    store_batch,
    users_with_inbox,
)
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
    """A database, and its drivers in steps. It outlives the dispatchers that it serves, as a database does."""

    def __init__(self, inbox_messages: int = 1000, *, known_only: bool = False) -> None:
        self.engine = memory_engine()
        self.inbox_rules = InboxRules(inbox_messages, known_only)
        self.kept_above = 0
        """What rooms still have has msgIds above this."""

    def largest_msg_id(self) -> int:
        with self.engine.begin() as c:
            return largest_msg_id(c)

    def commit(self, step: Store) -> Outcome:
        """The transaction of a batch, or of a part of it."""
        with self.engine.begin() as c:
            return store_batch(c, step.messages, step.asked, step.acks, self.inbox_rules)

    def take_step(self, batch: Batch, now: Instant) -> bool:
        """The step that is due, and the database does what it is asked; whether there was one."""
        match batch.next():
            case Store() as step:
                batch.stored(self.commit(step), now)
            case FindStored(messages):
                with self.engine.begin() as c:
                    found = kept(c, messages)
                batch.found(found, now)
            case TryToWrite():
                batch.writable()
            case Settle():
                batch.settle(now)
            case None:
                return False
        return True

    def fail_step(self, batch: Batch, now: Instant, why: Exception, *, committed: bool = False) -> None:
        """The step that is due fails; a transaction perhaps after its commit."""
        step = batch.next()
        if committed:
            assert isinstance(step, Store)
            self.commit(step)
        batch.failed(why, now)

    def write(self, dispatcher: Dispatcher, now: Instant) -> bool:
        """Store one batch, and settle it; whether there was one."""
        queue = dispatcher.node.message_queue
        if queue.is_idle:
            return False
        batch = Batch(queue)
        while self.take_step(batch, now):
            pass
        return True

    def read(self, dispatcher: Dispatcher, now: Instant) -> bool:
        """Answer what can be answered now; whether there was anything."""
        catch_up, inbox = dispatcher.node.catch_up, dispatcher.node.replays
        wanted = catch_up.take()
        with self.engine.begin() as c:
            for key, rows in read_pages(c, wanted, after=self.kept_above, limit=rings.RING_MESSAGES).items():
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
