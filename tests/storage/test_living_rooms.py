from __future__ import annotations

import pytest
import trio
from sqlalchemy import Connection, text

from qiyu.storage import living_rooms
from qiyu.storage.database import Database
from qiyu.storage.living_rooms import LivingRoom, LivingRoomRecord, RoomCounts

NOW = 1_700_000_000_000
ANCHOR = 10_001


def start(c: Connection, anchor_id: int = ANCHOR, *, type_: int = 1, now_ms: int = NOW) -> tuple[LivingRoom, bool]:
    return living_rooms.start_room(
        c, anchor_id=anchor_id, type_=type_, room_name="主播的直播间 🎤", covert_img="/c.png", now_ms=now_ms
    )


def close(c: Connection, room_id: int, anchor_id: int = ANCHOR) -> LivingRoom | None:
    counts = RoomCounts(watch_num=5, good_num=6, peak_num=7, visit_num=8)
    return living_rooms.close_room(c, room_id=room_id, anchor_id=anchor_id, counts=counts, now_ms=NOW + 1000)


async def test_a_room_is_open_then_on_record(db: Database) -> None:
    room, new = await db.run(start)
    assert room == LivingRoom(room.id, ANCHOR, 1, "主播的直播间 🎤", "/c.png", 0, 0, NOW)
    assert new
    assert await db.read(living_rooms.find_room, room.id) == room
    assert await db.read(living_rooms.find_room_of, ANCHOR) == room
    assert await db.read(living_rooms.find_record, room.id) is None

    closed = LivingRoom(room.id, ANCHOR, 1, "主播的直播间 🎤", "/c.png", 5, 6, NOW, 7, 8)
    assert await db.run(close, room.id) == closed
    assert await db.run(close, room.id) is None
    assert await db.read(living_rooms.find_room, room.id) is None
    assert await db.read(living_rooms.find_room_of, ANCHOR) is None
    assert await db.read(living_rooms.find_record, room.id) == LivingRoomRecord(
        room.id, ANCHOR, 1, "主播的直播间 🎤", "/c.png", 5, 6, NOW, 7, 8, NOW + 1000
    )


async def test_only_its_anchor_closes_a_room(db: Database) -> None:
    room, _ = await db.run(start)
    assert await db.run(close, room.id, ANCHOR + 1) is None
    assert await db.run(close, room.id + 1) is None
    assert await db.read(living_rooms.find_room, room.id) == room


async def test_an_anchor_who_is_live_gets_the_same_room(db: Database) -> None:
    room, _ = await db.run(start)
    assert await db.run(start, type_=2, now_ms=NOW + 1) == (room, False)


async def test_an_anchor_who_is_live_may_change_name_and_picture(db: Database) -> None:
    room, _ = await db.run(start)

    def change(c: Connection, /, type_: int, **changes: str) -> tuple[LivingRoom, bool]:
        return living_rooms.start_room(
            c, anchor_id=ANCHOR, type_=type_, room_name="x", covert_img="x", now_ms=NOW + 9, changes=changes
        )

    assert await db.run(change, 1) == (room, False)
    changed, _ = await db.run(change, 1, room_name="另一个")
    assert (changed.room_name, changed.covert_img) == ("另一个", "/c.png")
    assert await db.read(living_rooms.find_room, room.id) == changed
    assert await db.run(change, 2, room_name="of another type") == (changed, False)
    assert await db.read(living_rooms.find_room, room.id) == changed


async def test_open_rooms_are_listed_in_pages(db: Database) -> None:
    rooms = [room for room, _ in await db.run(lambda c: [start(c, ANCHOR + n, type_=1 + n % 2) for n in range(5)])]
    assert await db.read(living_rooms.list_rooms, limit=2) == rooms[:2]
    assert await db.read(living_rooms.list_rooms, after_id=rooms[1].id) == rooms[2:]


async def test_a_room_that_is_closed_without_counts_keeps_those_that_were_written(db: Database) -> None:
    room, _ = await db.run(start)
    await db.run(living_rooms.update_counts, {room.id: RoomCounts(1, 2, 3, 4)}, NOW + 5)
    await db.run(living_rooms.close_room, room_id=room.id, anchor_id=ANCHOR, now_ms=NOW + 6)
    record = await db.read(living_rooms.find_record, room.id)
    assert record is not None
    assert (record.watch_num, record.good_num, record.peak_num, record.visit_num) == (1, 2, 3, 4)


@pytest.mark.parametrize("_again", range(3))
async def test_of_many_starts_at_once_one_makes_the_room(db: Database, _again: int) -> None:
    started: list[tuple[LivingRoom, bool]] = []

    async def start_one(n: int) -> None:
        started.append(await db.run(start, now_ms=NOW + n))

    async with trio.open_nursery() as nursery:
        for n in range(10):
            nursery.start_soon(start_one, n)
    assert sorted(new for _, new in started) == [False] * 9 + [True]
    assert len({room for room, _ in started}) == 1


async def test_of_many_closes_at_once_one_moves_the_room(db: Database) -> None:
    room, _ = await db.run(start)
    closed: list[LivingRoom | None] = []

    async def close_one() -> None:
        closed.append(await db.run(close, room.id))

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(close_one)
    assert closed.count(None) == 9


async def test_starts_and_closes_at_once_come_to_an_end(db: Database) -> None:
    """Invariant: each room that was made is open or on record, never both, never neither; one at most is open."""
    made: set[int] = set()
    moved: list[int] = []

    async def live() -> None:
        for _ in range(5):
            room, new = await db.run(start)
            if new:
                made.add(room.id)
            if await db.run(close, room.id) is not None:
                moved.append(room.id)

    async with trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(live)
    assert sorted(moved) == sorted(made)
    assert await db.read(living_rooms.find_room_of, ANCHOR) is None
    for room_id in made:
        assert await db.read(living_rooms.find_record, room_id) is not None


async def test_an_id_is_not_given_twice(db: Database) -> None:
    ids = []
    for _ in range(3):
        room, _new = await db.run(start)
        ids.append(room.id)
        await db.run(close, room.id)
    assert len(set(ids)) == 3


async def test_an_id_is_not_given_twice_after_a_restart(url: str, db: Database) -> None:
    room, _ = await db.run(start)
    await db.run(close, room.id)
    async with Database.open(url) as again:
        later, _ = await again.run(start)
    assert later.id > room.id


async def test_the_newest_rooms_come_first(db: Database) -> None:
    def fill(c: Connection) -> list[int]:
        return [
            start(c, ANCHOR + n, type_=type_, now_ms=NOW + second)[0].id
            for n, (type_, second) in enumerate([(1, 0), (1, 2), (2, 3), (1, 1), (1, 2)])
        ]

    first, third, _pk, second, fourth = await db.run(fill)
    rooms = await db.read(living_rooms.newest_rooms, 1)
    assert [room.id for room in rooms] == [fourth, third, second, first]
    assert await db.read(living_rooms.newest_rooms, 1, 2) == rooms[:2]
    assert len(await db.read(living_rooms.newest_rooms, 2)) == 1
    assert await db.read(living_rooms.newest_rooms, 3) == []


async def test_several_are_found_with_one_query(db: Database) -> None:
    rooms = [room for room, _ in await db.run(lambda c: [start(c, ANCHOR + n) for n in range(3)])]
    before = db.queries
    found = await db.read(living_rooms.find_rooms, [rooms[0].id, rooms[2].id, 0])
    assert db.queries == before + 1
    assert found == {rooms[0].id: rooms[0], rooms[2].id: rooms[2]}
    assert await db.read(living_rooms.find_rooms, []) == {}


async def test_counts_are_set_for_those_that_are_open(db: Database) -> None:
    rooms = [room for room, _ in await db.run(lambda c: [start(c, ANCHOR + n) for n in range(3)])]
    counts = {rooms[1].id: RoomCounts(7, 8, 9, 10), rooms[0].id: RoomCounts(1, 2**40, 3, 4), 0: RoomCounts(9, 9, 9, 9)}
    await db.run(living_rooms.update_counts, counts, NOW + 5)
    await db.run(living_rooms.update_counts, {}, NOW + 6)
    found = await db.read(living_rooms.find_rooms, [room.id for room in rooms])
    assert [(found[room.id].watch_num, found[room.id].good_num) for room in rooms] == [(1, 2**40), (7, 8), (0, 0)]
    assert [(found[room.id].peak_num, found[room.id].visit_num) for room in rooms] == [(3, 4), (9, 10), (0, 0)]
    update_times = text("SELECT update_time FROM t_living_room ORDER BY id")
    assert await db.read(lambda c: list(c.scalars(update_times))) == [NOW + 5, NOW + 5, NOW]


async def test_counts_set_by_several_at_once_do_not_wait_for_each_other(db: Database) -> None:
    ids = await db.run(lambda c: [start(c, ANCHOR + n)[0].id for n in range(20)])
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            for n in range(6):
                order = ids if n % 2 else ids[::-1]
                counts = dict.fromkeys(order, RoomCounts(n, n, n, n))
                nursery.start_soon(db.run, living_rooms.update_counts, counts, NOW)
    assert len({room.watch_num for room in (await db.read(living_rooms.find_rooms, ids)).values()}) == 1
