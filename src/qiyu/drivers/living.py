"""What living rooms wait for: the lists, read anew each second; counts, written every few; rooms that sessions ask for.

While the database does not answer, what is known stands, and what is asked is answered with 503; it is tried again.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import Final

import structlog
import trio

from qiyu.accounts.accounts import Accounts
from qiyu.drivers.poller import Poller
from qiyu.drivers.trouble import Trouble
from qiyu.errors import DatabaseUnavailable
from qiyu.handlers.dispatch import Dispatcher
from qiyu.living.moderation import Moderation
from qiyu.living.rooms import LivingRooms
from qiyu.model import Instant

log = structlog.get_logger(__name__)

REFRESH_SECONDS: Final = 1.0
STORE_SECONDS: Final = 5.0
LAST_STORE_SECONDS: Final = 1.0
LOOK_UP_SECONDS: Final = 5.0  # a session waits for it, and all that it sends meanwhile


async def run_living_rooms(
    living_rooms: LivingRooms,
    dispatcher: Dispatcher,
    poller: Poller,
    clock: Callable[[], Instant],
    anchor_away_seconds: float = 0,
) -> None:
    """Run until cancelled. Rooms whose anchor has been away for `anchor_away_seconds` are closed; 0: none."""

    async def refresh() -> None:
        now = clock()
        await living_rooms.refresh(now)
        await living_rooms.close_away(now, anchor_away_seconds)

    async def store_counts() -> None:
        await living_rooms.store_counts(clock())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(_answer_lookups, living_rooms, dispatcher, poller, clock)
        nursery.start_soon(_every, REFRESH_SECONDS, "read living rooms", refresh)
        nursery.start_soon(_every, STORE_SECONDS, "write the counts of living rooms", store_counts)


async def run_moderation(moderation: Moderation, clock: Callable[[], Instant]) -> None:
    """Read, each second, whom anchors have muted and removed of late; run until cancelled."""
    await _every(REFRESH_SECONDS, "read who is muted", lambda: moderation.refresh(clock()))


async def run_sign_outs(accounts: Accounts, clock: Callable[[], Instant]) -> None:
    """Read, each second, which HTTP sessions have ended of late, wherever that was; run until cancelled."""
    await _every(REFRESH_SECONDS, "read who has signed out", lambda: accounts.refresh_ended(clock()))


async def store_last_counts(living_rooms: LivingRooms, now: Instant) -> None:
    """At the stop: what was liked since the counts were last written. The stop does not wait long for it."""
    with trio.move_on_after(LAST_STORE_SECONDS, shield=True) as storing:
        try:
            await living_rooms.store_counts(now)
        except DatabaseUnavailable as exc:
            log.warning("the last counts of living rooms could not be written", reason=str(exc))
    if storing.cancelled_caught:
        log.warning("the last counts of living rooms could not be written in time", seconds=LAST_STORE_SECONDS)


async def _answer_lookups(
    living_rooms: LivingRooms, dispatcher: Dispatcher, poller: Poller, clock: Callable[[], Instant]
) -> None:
    wanted = trio.Event()

    def wake() -> None:
        wanted.set()

    lookups = dispatcher.node.entering.lookups
    lookups.wake = wake
    while True:
        await wanted.wait()
        wanted = trio.Event()
        waiting = lookups.take_all()
        open_ids: Collection[int] | None = None  # not known
        with trio.move_on_after(LOOK_UP_SECONDS):
            open_ids = await _find_open(living_rooms, waiting, clock())
        for room_id, entries in waiting.items():
            is_open = None if open_ids is None else room_id in open_ids
            for session, found in entries:
                act = partial(dispatcher.resume, session, partial(found, is_open), clock())
                poller.run_for(session, act)


async def _find_open(living_rooms: LivingRooms, room_ids: Collection[int], now: Instant) -> Collection[int] | None:
    try:
        return await living_rooms.find_open(room_ids, now)
    except DatabaseUnavailable:
        return None  # whoever asked is told; the reading of the lists, each second, logs it
    except Exception:
        log.exception("looking up rooms failed because of a bug")
        return None


async def _every(seconds: float, what: str, work: Callable[[], Awaitable[None]]) -> None:
    """Do it again and again."""
    trouble = Trouble(what)
    while True:
        await trio.sleep(seconds)
        try:
            await work()
        except Exception as exc:  # noqa: BLE001  # chat goes on without; a table that somebody broke ends no connection
            trouble.failed(exc)
        else:
            trouble.succeeded()
