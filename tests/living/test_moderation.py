"""Moderation on a real SQLite database, of one instance and of another that reads the same."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from harness import BIZ, ERROR, ROOM, Client, Harness, error_of
from qiyu.app import build_node
from qiyu.errors import CallRefused
from qiyu.handlers.dispatch import Dispatcher
from qiyu.living import moderation
from qiyu.living.moderation import Moderation
from qiyu.living.rooms import LivingRooms
from qiyu.storage.database import Database, database_url
from qiyu.storage.migrate import upgrade
from qiyu.storage.users import VIP, User

ANCHOR, VIEWER, OTHER = 10_001, 10_002, 10_003


class Town(Harness):
    """An instance with a database; `events` 0 keeps the room quiet but for what is asked about here."""

    def __init__(self, database: Database) -> None:
        super().__init__(living={"require_open_room": True, "events": False})
        self.database = database
        self.node = build_node(self.settings, "the secret of the tests")
        self.dispatcher = Dispatcher(self.node)
        self.restrictions = self.node.restrictions
        self.rooms = LivingRooms(database, self.node.room_directory)
        self.moderation = Moderation(database, self.restrictions)

    async def start(self, anchor_id: int = ANCHOR) -> int:
        anchor = User(anchor_id, "ann", "Ann", "/ann.png", "", frozenset({VIP}))
        return (await self.rooms.start(anchor, 1, self.now, room_name="a room", covert_img="a.png")).id

    async def refresh(self) -> None:
        await self.rooms.refresh(self.now)
        await self.moderation.refresh(self.now)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with Database.open(database_url("", tmp_path)) as database:
        await upgrade(database)
        yield database


@pytest.fixture
async def town(database: Database) -> Town:
    town = Town(database)
    await town.moderation.refresh(town.now)
    return town


def events(client: Client) -> list[tuple[str, int]]:
    """What the client is told of: (event, userId)."""
    packets = client.receive()
    data = [each.data for each in packets if each.code == BIZ and each.body["bizCode"] == 5557]
    return [(each["event"], each.get("userId", 0)) for each in data]


def chat(client: Client, room_id: int, **more: Any) -> int:
    """Say something; the code of the refusal, or 0."""
    client.receive()
    client.send(BIZ, bizCode=5555, data={"roomId": room_id, "content": "hi"}, **more)
    return next((each.data["code"] for each in client.receive() if each.code == ERROR), 0)


def enter(client: Client, room_id: int) -> int:
    """Enter a room; the code of the refusal, or 0."""
    client.receive()
    client.send(ROOM, data={"roomId": room_id}, clientMsgId="enter")
    answer = next(each for each in client.receive() if each.code in {ROOM, ERROR})
    if answer.code == ERROR:
        assert answer.body["clientMsgId"] == "enter"
        return int(answer.data["code"])
    return 0


async def test_who_is_muted_may_listen_and_not_chat_until_it_is_over(town: Town) -> None:
    room_id = await town.start()
    viewer, other = town.log_in(VIEWER, room=room_id), town.log_in(OTHER, room=room_id)
    await town.moderation.mute(ANCHOR, room_id, VIEWER, 10, town.now)
    assert events(viewer) == events(other) == [("muted", VIEWER)]
    viewer.send(BIZ, bizCode=5555, data={"roomId": room_id, "content": "hi"})
    error = viewer.receive_first()
    assert error_of(error) == 403
    assert error.data["reason"].startswith(f"roomId {room_id}: muted until ")
    assert chat(viewer, room_id, clientMsgId="a") == 403
    assert chat(other, room_id) == 0
    assert town.restrictions.muted_until(10_002, room_id, VIEWER, town.now) == 0  # another app has another room
    town.advance(11)
    assert chat(viewer, room_id) == 0
    assert town.restrictions.of_room(room_id, town.now) == []


async def test_who_is_unmuted_may_chat_and_all_are_told_once(town: Town) -> None:
    room_id = await town.start()
    viewer = town.log_in(VIEWER, room=room_id)
    await town.moderation.mute(ANCHOR, room_id, VIEWER, 0, town.now)
    await town.moderation.mute(ANCHOR, room_id, VIEWER, 10, town.now)
    await town.moderation.unmute(ANCHOR, room_id, VIEWER, town.now)
    await town.moderation.unmute(ANCHOR, room_id, VIEWER, town.now)
    assert events(viewer) == [("muted", VIEWER), ("unmuted", VIEWER)]
    assert chat(viewer, room_id) == 0


async def test_who_is_removed_is_out_and_stays_out_as_long_as_was_said(town: Town) -> None:
    room_id = await town.start()
    viewer, other = town.log_in(VIEWER, room=room_id), town.log_in(OTHER, room=room_id)
    await town.moderation.remove(ANCHOR, room_id, VIEWER, 10, town.now)
    assert events(viewer) == events(other) == [("removed", VIEWER)]
    assert (await town.rooms.find(room_id, town.now)).watch_num == 1  # type: ignore[union-attr]
    assert chat(viewer, room_id) == 403
    assert enter(viewer, room_id) == 403
    assert events(viewer) == []
    town.advance(11)
    assert enter(viewer, room_id) == 0

    await town.moderation.remove(ANCHOR, room_id, VIEWER, 0, town.now)
    town.advance(10 * 366 * 86_400)
    await town.refresh()
    viewer = town.log_in(VIEWER)
    assert enter(viewer, room_id) == 403
    await town.moderation.readmit(ANCHOR, room_id, VIEWER, town.now)
    assert enter(viewer, room_id) == 0


async def test_who_is_elsewhere_when_removed_stays_there(town: Town) -> None:
    room_id, elsewhere = await town.start(), await town.start(OTHER)
    viewer = town.log_in(VIEWER, room=elsewhere)
    await town.moderation.remove(ANCHOR, room_id, VIEWER, 10, town.now)
    assert events(viewer) == []
    assert chat(viewer, elsewhere) == 0


async def test_only_the_anchor_of_an_open_room_moderates_and_others_than_the_anchor(town: Town) -> None:
    room_id = await town.start()
    for act in (town.moderation.mute, town.moderation.remove):
        with pytest.raises(CallRefused, match="only its anchor"):
            await act(OTHER, room_id, VIEWER, 10, town.now)
        with pytest.raises(CallRefused, match="no such open room"):
            await act(ANCHOR, room_id + 1, VIEWER, 10, town.now)
        with pytest.raises(CallRefused, match="neither muted nor removed"):
            await act(ANCHOR, room_id, ANCHOR, 60, town.now)
    with pytest.raises(CallRefused, match="only its anchor"):
        await town.moderation.unmute(OTHER, room_id, VIEWER, town.now)
    assert town.restrictions.of_room(room_id, town.now) == []


async def test_it_outlasts_a_restart_and_not_the_room(database: Database, town: Town) -> None:
    room_id = await town.start()
    await town.moderation.mute(ANCHOR, room_id, VIEWER, 10, town.now)
    again = Town(database)
    again.now = town.now
    await again.refresh()
    assert chat(again.log_in(VIEWER, room=room_id), room_id) == 403
    await again.rooms.close(ANCHOR, room_id, again.now)
    assert again.restrictions.of_room(room_id, again.now) == []
    fresh = Town(database)
    await fresh.moderation.refresh(again.now)
    assert fresh.restrictions.of_room(room_id, again.now) == []


async def test_another_instance_knows_within_a_refresh_and_acts_on_its_members(database: Database, town: Town) -> None:
    room_id = await town.start()
    away = Town(database)
    away.now = town.now
    await away.refresh()
    viewer = away.log_in(VIEWER, room=room_id)
    events(viewer)
    await town.moderation.mute(ANCHOR, room_id, VIEWER, 10, town.now)
    await away.refresh()
    assert events(viewer) == [("muted", VIEWER)]
    assert chat(viewer, room_id) == 403
    await away.refresh()
    assert events(viewer) == []  # once
    await town.moderation.unmute(ANCHOR, room_id, VIEWER, town.now)
    await town.moderation.remove(ANCHOR, room_id, VIEWER, 10, town.now)
    await away.refresh()
    assert events(viewer) == [("unmuted", VIEWER), ("removed", VIEWER)]
    assert enter(viewer, room_id) == 403


async def test_a_read_that_was_under_way_brings_nothing_back(
    database: Database, town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    room_id = await town.start()
    viewer = town.log_in(VIEWER, room=room_id)
    await town.moderation.mute(ANCHOR, room_id, VIEWER, 10, town.now)
    read = database.read

    async def slow_read(*args: Any) -> Any:
        rows = await read(*args)
        await town.moderation.unmute(ANCHOR, room_id, VIEWER, town.now)
        return rows

    monkeypatch.setattr(database, "read", slow_read)
    await town.moderation.refresh(town.now)
    assert events(viewer) == [("muted", VIEWER), ("unmuted", VIEWER)]
    assert chat(viewer, room_id) == 0


async def test_a_room_restricts_so_many_and_those_that_are_over_make_place(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moderation, "RESTRICTED_USERS", 2)
    room_id = await town.start()
    await town.moderation.mute(ANCHOR, room_id, VIEWER, 10, town.now)
    await town.moderation.mute(ANCHOR, room_id, VIEWER + 1, 600, town.now)
    await town.moderation.remove(ANCHOR, room_id, VIEWER, 10, town.now)  # no further user
    with pytest.raises(CallRefused, match="2 users are muted or removed"):
        await town.moderation.mute(ANCHOR, room_id, VIEWER + 2, 10, town.now)
    town.advance(11)
    await town.moderation.mute(ANCHOR, room_id, VIEWER + 2, 10, town.now)
    assert [each.user_id for each in town.restrictions.of_room(room_id, town.now)] == [VIEWER + 1, VIEWER + 2]


async def test_two_who_moderate_at_once_do_not_undo_each_other(town: Town) -> None:
    room_id = await town.start()
    async with trio.open_nursery() as nursery:
        for user_id in range(20_000, 20_008):
            nursery.start_soon(town.moderation.mute, ANCHOR, room_id, user_id, 60, town.now)
            nursery.start_soon(town.moderation.remove, ANCHOR, room_id, user_id, 60, town.now)
    found = town.restrictions.of_room(room_id, town.now)
    assert len(found) == 8
    assert all(each.muted_until == each.removed_until == town.now.unix_ms + 60_000 for each in found)
