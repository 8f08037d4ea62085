"""Removes what is too old: messages that no inbox holds, and what inboxes hold for somebody who never comes.

What this costs follows what there is to remove. Each message is looked at once for each of the two, in the order of
msgIds; what is left behind, because an inbox holds it, is removed when that lets go of it (storage/messages.py).

How old is told by a clock that is not believed when it jumps (services/trusted_clock.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from qiyu.drivers.retry import Retry
from qiyu.routing.msgid import first_id
from qiyu.storage.database import Database
from qiyu.storage.messages import expire_inboxes, oldest_in_inboxes, prune

PRUNE_SECONDS: Final = 60.0
PRUNE_MESSAGES: Final = 500  # in one transaction
PRUNE_PAUSE_SECONDS: Final = 0.05


class MessagePruner:
    """`kept_ms` is how long messages are kept, `inbox_ms` how long inboxes hold them; 0: for ever."""

    def __init__(self, database: Database, *, kept_ms: int, inbox_ms: int, believed_ms: Callable[[], int]) -> None:
        self._database = database
        self._kept_ms = kept_ms
        self._inbox_ms = inbox_ms
        self._believed_ms = believed_ms
        self._pruned = 0
        """All messages up to this msgId have been looked at."""
        self._expired: int | None = None
        """No inbox holds a message up to this msgId; None: not known yet."""
        self.forget_below = 0
        """What is acknowledged and has a msgId below this is deleted by the writer.

        Known to the writer for a whole round before `prune` goes so far: no message is acknowledged by a transaction
        that does not know it, while one that does not see that looks at the message for the last time.
        """

    async def run(self) -> None:
        """Run until cancelled."""
        if not self._kept_ms and not self._inbox_ms:
            return
        retry = Retry("remove old messages")
        while True:
            await trio.sleep(PRUNE_SECONDS)
            try:
                await self._round()
            except Exception as exc:  # noqa: BLE001
                await retry.failed(exc)
            else:
                retry.succeeded()

    async def _round(self) -> None:
        now_ms = self._believed_ms()
        if self._kept_ms:
            below = self.forget_below
            self.forget_below = max(below, first_id(now_ms - self._kept_ms))
            await self._prune(below)
        if self._inbox_ms:
            await self._expire(first_id(now_ms - self._inbox_ms))

    async def _prune(self, below: int) -> None:
        while True:
            last = await self._database.run(prune, after=self._pruned, below=below, limit=PRUNE_MESSAGES)
            if last is None:
                return
            self._pruned = last
            await trio.sleep(PRUNE_PAUSE_SECONDS)

    async def _expire(self, below: int) -> None:
        if self._expired is None:
            oldest = await self._database.read(oldest_in_inboxes)
            self._expired = below - 1 if oldest is None else oldest - 1
        while True:
            last = await self._database.run(
                expire_inboxes,
                after=self._expired,
                below=below,
                limit=PRUNE_MESSAGES,
                forget_below=self.forget_below,
            )
            if last is None:
                return
            self._expired = last
            await trio.sleep(PRUNE_PAUSE_SECONDS)
