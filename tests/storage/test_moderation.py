from __future__ import annotations

from sqlalchemy import Connection

from qiyu.storage import living_rooms
from qiyu.storage.database import Database
from qiyu.storage.moderation import (
    Restriction,
    find_restriction,
    restrictions_in_force,
    restrictions_since,
    set_restriction,
)

NOW = 1_700_000_000_000
ROOM, USER = 7, 10_002


def put(c: Connection, restriction: Restriction, *, now_ms: int = NOW, limit: int = 10) -> bool:
    return set_restriction(c, restriction, now_ms=now_ms, limit=limit)


async def test_the_last_one_of_a_user_in_a_room_stands(db: Database) -> None:
    assert await db.read(find_restriction, ROOM, USER) == Restriction(ROOM, USER, 0, 0)
    for muted_until, removed_until in ((NOW + 5, 0), (NOW + 5, NOW + 9)):
        restriction = Restriction(ROOM, USER, muted_until, removed_until)
        assert await db.run(put, restriction)
        assert await db.read(find_restriction, ROOM, USER) == restriction
    assert await db.read(find_restriction, ROOM + 1, USER) == Restriction(ROOM + 1, USER, 0, 0)


async def test_those_in_force_and_those_of_late(db: Database) -> None:
    over = Restriction(ROOM, USER, NOW, 0)
    muted, removed = Restriction(ROOM, USER + 1, NOW + 1, 0), Restriction(ROOM + 1, USER, 0, NOW + 1)
    for restriction, set_at in ((over, NOW), (muted, NOW - 5), (removed, NOW)):
        await db.run(put, restriction, now_ms=set_at)
    assert set(await db.read(restrictions_in_force, NOW)) == {muted, removed}
    assert set(await db.read(restrictions_since, NOW)) == {over, removed}


async def test_a_room_has_so_many_and_those_that_are_over_make_place(db: Database) -> None:
    assert await db.run(put, Restriction(ROOM, USER, NOW + 1, 0), limit=1)
    assert not await db.run(put, Restriction(ROOM, USER + 1, NOW + 1, 0), limit=1)
    assert await db.run(put, Restriction(ROOM + 1, USER, NOW + 1, 0), limit=1)
    assert await db.run(put, Restriction(ROOM, USER + 1, NOW + 9, 0), limit=1, now_ms=NOW + 1)
    assert await db.read(find_restriction, ROOM, USER) == Restriction(ROOM, USER, 0, 0)


async def test_a_closed_room_has_none(db: Database) -> None:
    room, _ = await db.run(
        living_rooms.start_room, anchor_id=10_001, type_=1, room_name="a room", covert_img="", now_ms=NOW
    )
    restriction = Restriction(room.id, USER, NOW + 9, 0)
    await db.run(put, restriction)
    await db.run(living_rooms.close_room, room_id=room.id, anchor_id=10_001, now_ms=NOW)
    assert await db.read(find_restriction, room.id, USER) == Restriction(room.id, USER, 0, 0)
