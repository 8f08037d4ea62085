"""Deferral: direct messages for a session whose inbox is still on its way are put aside, and follow it.

So a user gets what the inbox has before anything newer, and what lies in both once: the inbox is replayed up to some
msgId, and what was put aside counts only above it. This is the one place that knows which sessions wait for their
inbox; services/replay.py brings it, and says when it is through.
"""

from __future__ import annotations

from typing import Final

from qiyu.routing.publication import Publication
from qiyu.routing.session import Session

MESSAGE_BYTES: Final = 1_000

DEFERRED_MESSAGES: Final = 1_000
"""The most newer messages that are put aside for a session; beyond it, they are read again from the inbox."""


class Deferral:
    """What is put aside, session by session."""

    def __init__(self) -> None:
        self._newer: dict[Session, dict[str, Publication]] = {}  # by msgId, for who waits for the inbox
        self._overrun: set[Session] = set()
        self._replayed: dict[Session, int] = {}  # those whose inbox had anything: its last msgId

    def __repr__(self) -> str:
        return f"<Deferral of {sum(map(len, self._newer.values()))} messages for {len(self._newer)} sessions>"

    @property
    def held_bytes(self) -> int:
        """What is put aside, about; each is a message of its own."""
        return MESSAGE_BYTES * sum(map(len, self._newer.values()))

    def begin(self, session: Session) -> None:
        """The session has logged in: what comes for it from here on is put aside."""
        self._newer[session] = {}

    def admits(self, session: Session, publication: Publication) -> bool:
        """Whether the message goes to the session now. If not, it is put aside, or the session had it from its inbox.

        A message may be delivered after an inbox was read that had it already: it was stored before, and not settled.
        """
        newer = self._newer.get(session)
        if newer is None:
            return int(publication.msg_id) > self._replayed.get(session, 0)
        if len(newer) < DEFERRED_MESSAGES:
            newer[publication.msg_id] = publication
        else:
            newer.clear()
            self._overrun.add(session)
        return False

    def admits_replayed(self, _session: Session, _publication: Publication) -> bool:
        """Whether a message out of the inbox goes to the session: here each comes out of it once."""
        return True

    def again_from(self, cursor: int) -> int:
        """After which msgId the inbox is to be read where more came than could be put aside."""
        return cursor

    def end(self, session: Session, replayed: int) -> list[Publication] | None:
        """The inbox has been sent up to the msgId `replayed`: what is newer, oldest first; the session is live.

        None where more came than could be put aside. Then nothing is left of it, and the session waits on: the inbox,
        which has or is about to have all of it, is to be read once more.
        """
        if session in self._overrun:
            self._overrun.discard(session)
            self._newer[session] = {}
            return None
        newer = self._newer.pop(session)
        if replayed:
            self._replayed[session] = replayed
        return [publication for publication in newer.values() if int(publication.msg_id) > replayed]

    def forget(self, session: Session) -> None:
        """The session has ended."""
        self._newer.pop(session, None)
        self._overrun.discard(session)
        self._replayed.pop(session, None)


REMEMBERED_MESSAGES: Final = 2_000
"""Of a session, the last direct messages that are known to have been sent to it."""


class RememberingDeferral(Deferral):
    """Where there are several instances: msgIds say nothing of the order in which messages of two of them come, and an
    inbox is read more than once in a session's life. So it is remembered what each session was sent."""

    def __init__(self) -> None:
        super().__init__()
        self._sent: dict[Session, dict[str, None]] = {}

    def begin(self, session: Session) -> None:
        """Put aside what comes from here on, and what was put aside already."""
        self._newer.setdefault(session, {})
        self._sent.setdefault(session, {})

    def admits(self, session: Session, publication: Publication) -> bool:
        """See `Deferral.admits`."""
        if session in self._newer:
            return super().admits(session, publication)
        return self.admits_replayed(session, publication)

    def admits_replayed(self, session: Session, publication: Publication) -> bool:
        """Whether it has not been sent yet; from here on, it has."""
        sent = self._sent.setdefault(session, {})
        if publication.msg_id in sent:
            return False
        sent[publication.msg_id] = None
        if len(sent) > REMEMBERED_MESSAGES:
            del sent[next(iter(sent))]
        return True

    def again_from(self, _cursor: int) -> int:
        """From the beginning: what was put aside may have any msgId."""
        return 0

    def end(self, session: Session, _replayed: int) -> list[Publication] | None:
        """See `Deferral.end`."""
        if session in self._overrun:
            return super().end(session, 0)
        return [each for each in self._newer.pop(session).values() if self.admits_replayed(session, each)]

    def forget(self, session: Session) -> None:
        """See `Deferral.forget`."""
        super().forget(session)
        self._sent.pop(session, None)
