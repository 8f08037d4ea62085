"""The inbox of a user who logs in: what it has not acknowledged, oldest first, before anything newer.

From its login on a session is replaying: direct messages for it are put aside (services/delivery.py). Its inbox is
read in pages, once every message and every ACK accepted before the login is stored; each page goes out as far as the
peer reads. Behind a page that is not full follows what was put aside, and in that same step the session turns live:
what is stored after such a page was read is delivered after it, too. So nothing is skipped, what comes twice is sent
once, and what was acknowledged does not come again.

Reading is for a driver (drivers/messages.py): it is told which sessions want what, for many of them at once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final

from qiyu.metrics import Metrics
from qiyu.model import Instant
from qiyu.routing.publication import Publication
from qiyu.routing.session import Replay, Session
from qiyu.services.delivery import Delivery
from qiyu.services.message_queue import MessageQueue
from qiyu.storage.messages import Stored

PAGE_MESSAGES: Final = 100
PACE_BYTES: Final = 128 * 1024
"""A session that is owed more than this gets no more of its inbox until it has read some."""
CHECKED_AT_ONCE: Final = 500


class Replays:
    """The replays of this instance."""

    def __init__(self, delivery: Delivery, log: MessageQueue, metrics: Metrics) -> None:
        self._delivery = delivery
        self._log = log
        self._metrics = metrics
        self._new: dict[Session, None] = {}  # whether they have anything in their inbox is not known yet
        self._reading: dict[Session, None] = {}  # want the next page
        self._sending: dict[Session, None] = {}  # have a page that they are owed
        self.wake: Callable[[], None] = lambda: None
        """Called when there is something to read."""

    def __repr__(self) -> str:
        return f"<Replays new={len(self._new)} reading={len(self._reading)} sending={len(self._sending)}>"

    def begin(self, session: Session) -> None:
        """The session has logged in."""
        session.replay = Replay(self._log.enqueued)
        self._new[session] = None
        self.wake()

    # What the driver calls

    def take_new(self) -> list[Session]:
        """Sessions of which it is to be asked whether their inbox holds anything; they are not given again."""
        settled = self._log.settled
        ready = []
        for session in list(self._new):
            if session.replay is None:
                del self._new[session]
            elif session.replay.barrier <= settled:
                ready.append(session)
                if len(ready) == CHECKED_AT_ONCE:
                    break
        for session in ready:
            del self._new[session]
        return ready

    def put_back(self, sessions: Collection[Session]) -> None:
        """They could not be asked for."""
        for session in sessions:
            self._new[session] = None

    def checked(self, session: Session, now: Instant, *, is_empty: bool) -> None:
        """It is known whether the inbox of the session's user holds anything."""
        if session.replay is None:
            return
        if is_empty:
            self._finish(session, session.replay, now)
        else:
            self._reading[session] = None

    def take_page(self) -> tuple[Session, int] | None:
        """A session that wants the next page of its inbox, and the msgId after which it begins."""
        settled = self._log.settled
        for session in list(self._reading):
            replay = session.replay
            if replay is None:
                del self._reading[session]
            elif replay.barrier <= settled:
                del self._reading[session]
                return session, replay.cursor
        return None

    def put_back_page(self, session: Session) -> None:
        """The page could not be read."""
        self._reading[session] = None

    def page(self, session: Session, rows: Sequence[Stored], now: Instant) -> None:
        """The next page of a session's inbox; one that is not full is the end of it."""
        replay = session.replay
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
            if session.replay is None:
                del self._sending[session]
            else:
                self._send(session, session.replay, now)

    def _send(self, session: Session, replay: Replay, now: Instant) -> None:
        while replay.rows and session.outbox.size < PACE_BYTES:
            publication = replay.rows.pop()
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
        if replay.again:  # more came meanwhile than could be put aside: the inbox has them, or is about to
            replay.again = False
            replay.deferred = None
            replay.barrier = self._log.enqueued
            self._reading[session] = None
            self.wake()
            return
        session.replay = None
        session.replayed = replay.cursor
        if replay.deferred:
            newer = [publication for publication in replay.deferred.values() if int(publication.msg_id) > replay.cursor]
            self._delivery.to_session(session, newer, now)


def publication_of(row: Stored) -> Publication:
    """A stored message as a packet."""
    return Publication(
        app_id=row.app_id,
        biz_code=row.biz_code,
        data=row.data.encode(),
        msg_id=str(row.msg_id),
        is_direct=row.object_id != 0,
    )
