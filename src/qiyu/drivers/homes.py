"""Asks the database about homes of rooms, and reads what members have missed while one moved."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Final, NamedTuple

import trio
from sqlalchemy import Connection

from qiyu.drivers.poller import Poller
from qiyu.drivers.retry import Retry
from qiyu.errors import Fenced
from qiyu.handlers.dispatch import Dispatcher
from qiyu.model import InstanceId
from qiyu.services.cluster import Cluster
from qiyu.services.homes import Claimed, RoomKey
from qiyu.services.rings import RING_MESSAGES
from qiyu.storage.database import Database
from qiyu.storage.homes import claim_homes, release_homes
from qiyu.storage.messages import Stored, room_page

CLAIM_SECONDS: Final = 5.0


class _Found(NamedTuple):
    claims: dict[RoomKey, Claimed]
    pages: dict[RoomKey, list[Stored]]


class HomesDriver:
    """Between the homes of one instance and the database; it also lets those go on who have waited for one."""

    def __init__(self, cluster: Cluster, database: Database, dispatcher: Dispatcher, poller: Poller) -> None:
        self._cluster = cluster
        self._database = database
        self._dispatcher = dispatcher
        self._poller = poller
        self._to_do = trio.Event()
        cluster.homes.wake = cluster.rooms.wake = self._wake

    async def run(self) -> None:
        """Run until cancelled."""
        retry = Retry("find the homes of rooms")
        while True:
            await self._to_do.wait()
            self._to_do = trio.Event()
            try:
                self._let_go_on()
                while await self._claim() | await self._release() | await self._fill():
                    self._let_go_on()
            except Fenced:
                await trio.sleep_forever()  # whoever watches over that ends all
            except Exception as exc:  # noqa: BLE001
                await retry.failed(exc)
                self._wake()
            else:
                retry.succeeded()

    def _wake(self) -> None:
        self._to_do.set()

    def _let_go_on(self) -> None:
        rooms = self._cluster.rooms
        for session, then in rooms.take_going_on():
            self._poller.run_for(session, partial(self._dispatcher.resume, session, then, rooms.now))

    async def _claim(self) -> bool:
        homes, rooms, me = self._cluster.homes, self._cluster.rooms, self._cluster.me
        keys = homes.take_claims()
        if not keys:
            return False
        behind = rooms.behind(keys)
        left = set(keys)
        try:
            found = await self._database.run_within(CLAIM_SECONDS, _claim, me, keys, behind)
            rooms.bring(found.pages)
            left -= found.claims.keys()
            homes.claimed(found.claims, rooms.now.monotonic)
        finally:
            homes.claims_failed(left, rooms.now.monotonic)
        return True

    async def _release(self) -> bool:
        homes, rooms = self._cluster.homes, self._cluster.rooms
        releases = homes.take_releases()
        if not releases:
            return False
        keys = [release.key for release in releases]
        terms = {(release.key.app_id, release.key.room_id): release.term for release in releases}
        try:
            await self._database.run_within(CLAIM_SECONDS, release_homes, self._cluster.me, terms)
        except BaseException:
            homes.releases_failed(keys)
            raise
        homes.released(keys, rooms.now.monotonic)
        return True

    async def _fill(self) -> bool:
        rooms = self._cluster.rooms
        fills = rooms.take_fills()
        if not fills:
            return False
        try:
            wanted = {key: (fill.after, up_to) for key, (fill, up_to) in fills.items()}
            pages = await self._database.read(_pages, wanted)
        except BaseException:
            rooms.fill_failed(fill for fill, _ in fills.values())
            raise
        for key, (fill, up_to) in fills.items():
            rooms.filled(key, fill, up_to, pages[key])
        return True


def _claim(c: Connection, me: InstanceId, keys: list[RoomKey], behind: Mapping[RoomKey, int]) -> _Found:
    found = claim_homes(c, me, keys)
    claims = {RoomKey(*key): Claimed(home.holder, home.last_msg_id, home.term) for key, home in found.items()}
    pages = {
        key: room_page(c, *key, after=after, before=None, limit=RING_MESSAGES)
        for key, after in behind.items()
        if key in claims and claims[key].holder == me and claims[key].last_msg_id > after
    }
    return _Found(claims, pages)


def _pages(c: Connection, wanted: Mapping[RoomKey, tuple[int, int]]) -> dict[RoomKey, list[Stored]]:
    return {
        key: room_page(c, *key, after=after, before=up_to + 1, limit=RING_MESSAGES)
        for key, (after, up_to) in wanted.items()
    }
