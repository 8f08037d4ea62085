"""The inbox of a user who logs in: what it has not acknowledged, oldest first, before anything newer.

From its login on a session is replaying: direct messages for it are put aside (services/deferral.py). Its inbox is
read in pages, once every message and every ACK accepted before the login is stored; each page goes out as far as the
peer reads. Behind a page that is not full follows what was put aside, and in that same step the session turns live:
what is stored after such a page was read is delivered after it, too. So nothing is skipped, what comes twice is sent
once, and what was acknowledged does not come again.

Reading is for a driver (drivers/message_reader.py): it is told which sessions want what, for many of them at once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final

from qiyu.metrics import Metrics
from qiyu.model import Instant
from qiyu.routing.publication import Kind, Publication
from qiyu.routing.session import Session
from qiyu.services.deferral import Deferral
from qiyu.services.delivery import Delivery
from qiyu.services.message_queue import MessageQueue
from qiyu.storage.messages import Stored

PAGE_MESSAGES: Final = 100
PACE_BYTES: Final = 128 * 1024
"""A session that is owed more than this gets no more of its inbox until it has read some."""
CHECKED_AT_ONCE: Final = 500


class Replay:
    """What one session has yet to get of its user's inbox."""

    __slots__ = ("barrier", "cursor", "is_last", "is_under_way", "rows")

    def __init__(self, barrier: int) -> None:
        self.barrier = barrier
        """The inbox may be read once all messages and ACKs up to this number of the message queue are settled."""
        self.cursor = 0
        """The last msgId that was read."""
        self.rows: list[Publication] = []
        """Read, and not sent yet: the newest first."""
        self.is_last = False
        """There is no further page."""
        self.is_under_way = False
        """A question to the database is; the answer to one before this replay began is none to it."""


class Replays:
    """The replays of this instance. A session that ends is forgotten at whatever step it was."""

    def __init__(self, delivery: Delivery, deferral: Deferral, queue: MessageQueue, metrics: Metrics) -> None:
        self._delivery = delivery
        self._deferral = deferral
        self._queue = queue
        self._metrics = metrics
        self._replays: dict[Session, Replay] = {}  # each of them is also in one of the next three, or being read
        self._new: dict[Session, None] = {}  # whether they have anything in their inbox is not known yet
        self._reading: dict[Session, None] = {}  # want the next page
        self._sending: dict[Session, None] = {}  # have a page that they are owed
        self.wake: Callable[[], None] = lambda: None
        """Called when there is something to read."""

    def __repr__(self) -> str:
        return f"<Replays new={len(self._new)} reading={len(self._reading)} sending={len(self._sending)}>"

    def begin(self, session: Session) -> None:
        """The session has logged in."""
        self._deferral.begin(session)
        self._replays[session] = Replay(self._queue.enqueued)
        self._new[session] = None
        self.wake()

    def hold(self, session: Session) -> None:
        """The inbox is not to be read yet, or not to be trusted: `read` follows. Newer messages wait for that."""
        if session.ended:
            return
        self._stop(session)
        self._deferral.begin(session)
        self._replays[session] = Replay(self._queue.enqueued)

    def read(self, session: Session) -> None:
        """Read the inbox of a session, perhaps once more: all that is stored by now."""
        if session.ended:
            return
        self.hold(session)
        self._new[session] = None
        self.wake()

    def is_replaying(self, session: Session) -> bool:
        """Whether the inbox is still on its way to the session; after that, direct messages go straight to it."""
        return session in self._replays

    def forget(self, session: Session) -> None:
        """The session has ended."""
        self._deferral.forget(session)
        self._stop(session)

    # What the driver calls

    def take_new(self) -> list[Session]:
        """Sessions of which it is to be asked whether their inbox holds anything; they are not given again."""
        settled = self._queue.settled
        ready = []
        for session in self._new:
            if self._replays[session].barrier <= settled:
                ready.append(session)
                if len(ready) == CHECKED_AT_ONCE:
                    break
        for session in ready:
            del self._new[session]
            self._replays[session].is_under_way = True
        return ready

    def put_back(self, sessions: Collection[Session]) -> None:
        """They could not be asked for."""
        for session in sessions:
            if self._answered(session) is not None:
                self._new[session] = None

    def checked(self, session: Session, now: Instant, *, is_empty: bool) -> None:
        """It is known whether the inbox of the session's user holds anything."""
        replay = self._answered(session)
        if replay is None:
            return
        if is_empty:
            self._finish(session, replay, now)
        else:
            self._reading[session] = None

    def take_page(self) -> tuple[Session, int] | None:
        """A session that wants the next page of its inbox, and the msgId after which it begins."""
        settled = self._queue.settled
        for session in self._reading:
            replay = self._replays[session]
            if replay.barrier <= settled:
                del self._reading[session]
                replay.is_under_way = True
                return session, replay.cursor
        return None

    def put_back_page(self, session: Session) -> None:
        """The page could not be read."""
        if self._answered(session) is not None:
            self._reading[session] = None

    def page(self, session: Session, rows: Sequence[Stored], now: Instant) -> None:
        """The next page of a session's inbox; one that is not full is the end of it."""
        replay = self._answered(session)
        if replay is None:
            return
        replay.is_last = len(rows) < PAGE_MESSAGES
        if rows:
            replay.cursor = rows[-1].msg_id
        replay.rows = [publication_of(row) for row in reversed(rows)]
        self._sending[session] = None
        self._send(session, replay, now)

    def tick(self, now: Instant) -> None:
        """About four times a second: go on with those whose peers have read."""
        for session in list(self._sending):
            self._send(session, self._replays[session], now)

    def _send(self, session: Session, replay: Replay, now: Instant) -> None:
        while replay.rows and session.outbox.size < PACE_BYTES:
            publication = replay.rows.pop()
            if self._deferral.admits_replayed(session, publication):
                self._delivery.to_session(session, (publication,), now)
                self._metrics.inbox_replayed += 1
        if replay.rows:
            return
        del self._sending[session]
        if replay.is_last:
            self._finish(session, replay, now)
        else:
            self._reading[session] = None
            self.wake()

    def _finish(self, session: Session, replay: Replay, now: Instant) -> None:
        newer = self._deferral.end(session, replay.cursor)
        if newer is None:  # more came meanwhile than could be put aside: the inbox has them, or is about to
            replay.barrier = self._queue.enqueued
            replay.cursor = self._deferral.again_from(replay.cursor)
            self._reading[session] = None
            self.wake()
            return
        del self._replays[session]
        self._delivery.to_session(session, newer, now)

    def _answered(self, session: Session) -> Replay | None:
        """The replay that the answer of the database is for, if that is still the one."""
        replay = self._replays.get(session)
        if replay is None or not replay.is_under_way:
            return None
        replay.is_under_way = False
        return replay

    def _stop(self, session: Session) -> None:
        if self._replays.pop(session, None) is not None:
            for waiting in (self._new, self._reading, self._sending):
                waiting.pop(session, None)


def publication_of(row: Stored) -> Publication:
    """A stored message as a packet."""
    return Publication(
        app_id=row.app_id,
        biz_code=row.biz_code,
        data=row.data.encode(),
        msg_id=str(row.msg_id),
        kind=Kind.KEPT if row.object_id else Kind.DROPPABLE,
    )
