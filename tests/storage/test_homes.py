from __future__ import annotations

import pytest
import trio
from sqlalchemy import insert

from qiyu.errors import Fenced
from qiyu.model import InstanceId
from qiyu.storage import instances
from qiyu.storage.database import Database
from qiyu.storage.homes import RoomHome, claim_homes, release_homes
from qiyu.storage.tables import t_im_message

ONE, TWO, THREE = (10_001, 1), (10_001, 2), (10_002, 1)


async def joined(db: Database) -> InstanceId:
    return await db.run(instances.claim, address="a:1", number=None, alone=False, now_ms=1)


async def store(db: Database, room: tuple[int, int], msg_id: int, *, second_id: int = 0) -> None:
    row = {"msg_id": msg_id, "app_id": room[0], "first_id": room[1], "second_id": second_id}
    values = row | {"user_id": 20_001, "biz_code": 5555, "data": "{}", "create_time": 1, "client_msg_id": None}
    await db.run(lambda c: c.execute(insert(t_im_message).values(**values)))


async def test_the_first_who_claims_has_it_and_the_others_are_told(db: Database) -> None:
    one, two = await joined(db), await joined(db)
    assert await db.run(claim_homes, one, [ONE, THREE]) == {
        ONE: RoomHome(one, 0, 1),
        THREE: RoomHome(one, 0, 1),
    }
    assert await db.run(claim_homes, two, [ONE, TWO, ONE]) == {
        ONE: RoomHome(one, 0, 1),
        TWO: RoomHome(two, 0, 1),
    }
    assert await db.run(claim_homes, two, []) == {}


async def test_who_claims_again_what_it_has_keeps_its_term(db: Database) -> None:
    one = await joined(db)
    for _ in range(2):
        assert await db.run(claim_homes, one, [ONE]) == {ONE: RoomHome(one, 0, 1)}


async def test_what_the_room_has_last_comes_with_the_claim(db: Database) -> None:
    one, two = await joined(db), await joined(db)
    await store(db, ONE, 7)
    await store(db, ONE, 9)
    await store(db, TWO, 11)
    await store(db, ONE, 13, second_id=20_002)  # a direct message between two users of such ids
    assert (await db.run(claim_homes, one, [ONE]))[ONE].last_msg_id == 9
    assert (await db.run(claim_homes, one, [ONE]))[ONE].last_msg_id == 9
    assert (await db.run(claim_homes, two, [ONE]))[ONE].last_msg_id == 0  # the holder knows better


async def test_a_released_home_goes_to_the_next_in_a_later_term(db: Database) -> None:
    one, two = await joined(db), await joined(db)
    await db.run(claim_homes, one, [ONE, TWO])
    await db.run(release_homes, one, {ONE: 1})
    homes = await db.run(claim_homes, two, [ONE, TWO])
    assert homes == {ONE: RoomHome(two, 0, 2), TWO: RoomHome(one, 0, 1)}


async def test_a_release_counts_for_its_term_and_its_holder_only(db: Database) -> None:
    one, two = await joined(db), await joined(db)
    await db.run(claim_homes, one, [ONE])
    await db.run(release_homes, two, {ONE: 1, TWO: 1})
    await db.run(release_homes, one, {ONE: 2})
    assert (await db.run(claim_homes, two, [ONE]))[ONE].holder == one
    await db.run(release_homes, one, {ONE: 1})
    assert (await db.run(claim_homes, one, [ONE]))[ONE].term == 2
    await db.run(release_homes, one, {ONE: 1})  # the first once more, late
    assert (await db.run(claim_homes, two, [ONE]))[ONE].holder == one


async def test_who_is_fenced_has_no_home_and_can_claim_or_release_none(db: Database) -> None:
    one, two = await joined(db), await joined(db)
    await db.run(claim_homes, one, [ONE])
    await db.run(instances.fence, one)
    assert (await db.run(claim_homes, two, [ONE]))[ONE] == RoomHome(two, 0, 2)
    with pytest.raises(Fenced):
        await db.run(claim_homes, one, [TWO])
    with pytest.raises(Fenced):
        await db.run(release_homes, one, {ONE: 1})
    again = await joined(db)  # with the number of the first, and another incarnation
    assert again.number == one.number
    assert (await db.run(claim_homes, again, [ONE]))[ONE].holder == two


async def test_of_many_who_claim_at_once_one_has_each(db: Database) -> None:
    claimants = [await joined(db) for _ in range(5)]
    rooms = [(10_001, n) for n in range(1, 11)]
    answers: list[dict[tuple[int, int], RoomHome]] = []

    async def claim(me: InstanceId) -> None:
        turned = rooms[me.number :] + rooms[: me.number]
        answers.append(await db.run(claim_homes, me, turned))

    async with trio.open_nursery() as nursery:
        for me in claimants:
            nursery.start_soon(claim, me)
    assert all(answer.keys() == set(rooms) for answer in answers)
    for room in rooms:
        assert len({answer[room].holder for answer in answers}) == 1
        assert {answer[room].term for answer in answers} == {1}
