"""Removes messages that are too old, but for those that an inbox still holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from qiyu.drivers.retry import Retry
from qiyu.model import Instant
from qiyu.routing.msgid import first_id
from qiyu.storage.database import Database
from qiyu.storage.messages import prune

PRUNE_SECONDS: Final = 60.0
PRUNE_MESSAGES: Final = 500  # in one transaction
PRUNE_PAUSE_SECONDS: Final = 0.05


async def run_pruner(database: Database, kept_ms: int, clock: Callable[[], Instant]) -> None:
    """Run until cancelled. `kept_ms` is how long messages are kept, 0 for ever."""
    retry = Retry("remove old messages")
    while kept_ms:
        await trio.sleep(PRUNE_SECONDS)
        below = first_id(clock().unix_ms - kept_ms)
        after: int | None = 0
        try:
            while after is not None:
                after = await database.run(prune, after=after, below=below, limit=PRUNE_MESSAGES)
                await trio.sleep(PRUNE_PAUSE_SECONDS)
        except Exception as exc:  # noqa: BLE001
            await retry.failed(exc)
        else:
            retry.succeeded()
