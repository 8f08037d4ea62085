"""ACKs of direct messages on their way to the database, where each takes its message out of an inbox.

They are numbered together with the messages, and none is written before a message that was accepted before it: what it
acknowledges may be among those.
"""

from __future__ import annotations

from itertools import islice, takewhile
from typing import Final

from qiyu.storage.messages import Ack

BATCH_ACKS: Final = 5_000
WAITING_ACKS: Final = 100_000
UNCERTAIN_ACKS: Final = 5_000
"""ACKs that may wait where some of what waits may be for nothing that there is."""


class InboxAcks:
    """With their numbers, oldest first."""

    __slots__ = ("_taken", "_waiting")

    def __init__(self) -> None:
        self._waiting: dict[Ack, int] = {}
        self._taken: dict[Ack, int] = {}

    def __repr__(self) -> str:
        return f"<InboxAcks waiting={len(self)} taken={len(self._taken)}>"

    def __len__(self) -> int:
        """Those that no batch has taken."""
        return len(self._waiting)

    @property
    def oldest(self) -> int | None:
        """The number of the oldest that is not written; None where there is none."""
        return next(iter((self._taken or self._waiting).values()), None)

    def has_space(self, *, is_certain: bool) -> bool:
        """Whether one more may wait; one that may be for nothing takes no place that another may need."""
        return len(self._waiting) < (WAITING_ACKS if is_certain else UNCERTAIN_ACKS)

    def add(self, ack: Ack, number: int) -> None:
        """One that waits already keeps its number."""
        self._waiting.setdefault(ack, number)

    def take(self, below: int) -> list[Ack]:
        """For a batch, the oldest with numbers below this one: `written` or `put_back` says what became of them."""
        self._taken = dict(islice(takewhile(lambda item: item[1] < below, self._waiting.items()), BATCH_ACKS))
        for ack in self._taken:
            del self._waiting[ack]
        return list(self._taken)

    def written(self) -> None:
        """Those that were taken are written."""
        self._taken = {}

    def put_back(self) -> None:
        """Nobody knows whether those that were taken are written: they go first once more, which harms nothing."""
        newer, self._waiting, self._taken = self._waiting, self._taken, {}
        for ack, number in newer.items():
            self._waiting.setdefault(ack, number)
