"""This run of the server in the database: claimed at the start, looked at each second, given back at the stop."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

import structlog
import trio

from qiyu.errors import DatabaseUnavailable, Fenced
from qiyu.model import InstanceId
from qiyu.storage.database import Database
from qiyu.storage.instances import check, claim, fence, hold
from qiyu.storage.tables import ADDRESS_CHARS

CHECK_SECONDS: Final = 1.0
RELEASE_SECONDS: Final = 1.0

log = structlog.get_logger(__name__)


async def claim_instance(database: Database, *, number: int | None, alone: bool, now_ms: int) -> InstanceId:
    """Become an instance, and let every transaction that writes begin with a look whether that is still so.

    `number` None: any that is free. With `alone`, whichever server was there before may write no more from now on.
    Raises StartupError, DatabaseUnavailable.
    """
    address = f"{socket.gethostname()}:{os.getpid()}"[:ADDRESS_CHARS]
    mine = await database.run(claim, address=address, number=number, alone=alone, now_ms=now_ms)
    database.guard(partial(hold, mine=mine))
    log.info("claimed an instance number", number=mine.number, incarnation=mine.incarnation)
    return mine


async def watch_instance(database: Database, mine: InstanceId, end: Callable[[Fenced], None]) -> None:
    """Call `end` once when another server has taken this one's place; also where nothing is to be written."""
    while database.fenced_because is None:
        with trio.move_on_after(CHECK_SECONDS):
            await database.fenced.wait()
            break
        # Fenced is among these, and the database keeps note of it; whoever cannot reach it writes nothing either.
        with suppress(DatabaseUnavailable):
            await database.read(check, mine)
    assert database.fenced_because is not None  # noqa: S101
    log.error("this server stops", reason=str(database.fenced_because))
    end(database.fenced_because)


async def release_instance(database: Database, mine: InstanceId) -> None:
    """At the stop: the number is free for others. The stop does not wait long for it."""
    with trio.move_on_after(RELEASE_SECONDS, shield=True):
        try:
            await database.run(fence, mine)
        except DatabaseUnavailable as exc:
            log.warning("the instance number could not be given back", number=mine.number, reason=str(exc))
