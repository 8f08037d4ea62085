"""Living rooms on a real SQLite database; how they wait and race is held in the test's own hand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

from harness import APP, BIZ, ERROR, HEARTBEAT, LOGIN, ROOM, Harness, error_of
from qiyu.app import build_node
from qiyu.errors import CallRefused, DatabaseUnavailable
from qiyu.handlers.dispatch import HELD_PACKETS, Dispatcher
from qiyu.living.directory import ABSENT_SECONDS, CACHED_SECONDS, RoomType
from qiyu.living.rooms import LivingRooms
from qiyu.services import lookups
from qiyu.storage.database import Database, database_url
from qiyu.storage.living_rooms import RoomCounts, close_room, find_record, find_room, start_room, update_counts
from qiyu.storage.migrate import upgrade
from qiyu.storage.users import VIP, User

ANCHOR = 10_001


def vip(user_id: int) -> User:
    """Somebody who may go live."""
    return User(user_id, "ann", "Ann", "/ann.png", "", frozenset({VIP}))


class Town(Harness):
    """An instance that has a database, and requires rooms to be open."""

    def __init__(self, database: Database) -> None:
        super().__init__(living={"require_open_room": True, "events": True})
        self.database = database
        self.node = build_node(self.settings, "the secret of the tests")
        self.dispatcher = Dispatcher(self.node)
        self.directory = self.node.room_directory
        self.rooms = LivingRooms(database, self.directory)

    async def start(self, anchor_id: int = ANCHOR, type_: int = 1) -> int:
        return (await self.rooms.start(vip(anchor_id), type_, self.now, room_name="a room", covert_img="a.png")).id

    async def answer_waiting(self) -> None:
        """What the driver does when sessions wait to learn whether a room is open."""
        waiting = self.node.entering.lookups.take_all()
        try:
            open_ids = await self.rooms.find_open(waiting, self.now)
        except DatabaseUnavailable:
            open_ids = None
        for room_id, entries in waiting.items():
            is_open = None if open_ids is None else room_id in open_ids
            for session, found in entries:
                self.dispatcher.resume(session, partial(found, is_open), self.now)
        for session, loaded in self.node.catch_up.take_all():  # what was said there last: nothing, as far as is known
            self.dispatcher.resume(session, loaded, self.now)

    async def elsewhere(self, work: Callable[..., Any], **arguments: Any) -> Any:
        """What another instance does to the database."""
        return await self.database.run(work, now_ms=self.now.unix_ms, **arguments)


@pytest.fixture
async def town(tmp_path: Path) -> AsyncIterator[Town]:
    async with Database.open(database_url("", tmp_path)) as database:
        await upgrade(database)
        yield Town(database)


async def test_a_started_room_is_listed_found_and_entered_at_once(town: Town) -> None:
    room_id = await town.start()
    viewer = town.log_in(10_002, room=room_id)
    viewer.send(BIZ, bizCode=5558, data={"roomId": room_id, "count": 3})
    (listed,), has_next = town.directory.page(1, 1, 10)
    assert (listed.id, listed.anchor_id, listed.watch_num, listed.good_num, has_next) == (room_id, ANCHOR, 1, 3, False)
    assert await town.rooms.find(room_id, town.now) == listed
    assert town.directory.anchors[ANCHOR].id == ANCHOR
    assert town.directory.page(2, 1, 10) == ([], False)
    assert await town.start() == room_id  # who is live and starts again gets the same room


async def test_pages_are_newest_first(town: Town) -> None:
    started = []
    for anchor in range(5):
        town.advance(1)
        started.append(await town.start(ANCHOR + anchor))
    await town.rooms.refresh(town.now)
    pages = [town.directory.page(1, page, 2) for page in (1, 2, 3, 4)]
    assert [[room.id for room in rooms] for rooms, _ in pages] == [started[:2:-1], started[2:0:-1], started[:1], []]
    assert [has_next for _, has_next in pages] == [True, True, False, False]


async def test_two_starts_at_once_give_one_room(town: Town) -> None:
    ids = []

    async def start() -> None:
        ids.append(await town.start())

    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(start)
    assert len(set(ids)) == 1
    assert len(town.directory.page(1, 1, 10)[0]) == 1


async def test_closing_moves_it_to_the_record_and_sends_everybody_out(town: Town) -> None:
    room_id = await town.start()
    viewer = town.log_in_ws(10_002, room=room_id)
    viewer.send(BIZ, bizCode=5558, data={"roomId": room_id, "count": 7})
    for anchor, number, code in ((10_002, room_id, 403), (ANCHOR, room_id + 1, 404)):
        with pytest.raises(CallRefused) as refused:
            await town.rooms.close(anchor, number, town.now)
        assert refused.value.code == code
    town.advance(5)
    await town.rooms.close(ANCHOR, room_id, town.now)
    assert [packet.data["event"] for packet in viewer.receive()][-1] == "closed"
    assert error_of(viewer.answer(ROOM, data={"roomId": room_id})) == 404
    assert await town.database.read(find_room, room_id) is None
    record = await town.database.read(find_record, room_id)
    assert record is not None
    assert (record.end_time - record.start_time, record.watch_num, record.good_num) == (5000, 1, 7)
    assert town.directory.page(1, 1, 10) == ([], False)
    assert await town.rooms.find(room_id, town.now) is None
    with pytest.raises(CallRefused) as refused:
        await town.rooms.close(ANCHOR, room_id, town.now)
    assert refused.value.code == 404
    assert await town.start() != room_id  # a number is never used again


async def test_a_room_that_only_the_database_knows_is_waited_for_in_order(town: Town) -> None:
    room, _ = await town.elsewhere(start_room, anchor_id=ANCHOR, type_=1, room_name="r", covert_img="")
    viewer = town.log_in(10_002)
    viewer.write(
        viewer.packet(ROOM, data={"roomId": room.id})
        + viewer.packet(BIZ, bizCode=5555, data={"roomId": room.id, "content": "first!"})
        + viewer.packet(HEARTBEAT)
    )
    viewer.send(HEARTBEAT)
    assert viewer.receive() == []
    await town.answer_waiting()
    assert [packet.code for packet in viewer.receive()] == [ROOM, HEARTBEAT, HEARTBEAT]
    assert viewer.session.held is None
    assert viewer.answer(HEARTBEAT).code == HEARTBEAT


async def test_absence_is_remembered_for_a_minute_and_presence_for_thirty(town: Town) -> None:
    viewer = town.log_in(10_002)
    viewer.send(ROOM, data={"roomId": 1}, clientMsgId="mine")
    assert viewer.receive() == []
    await town.answer_waiting()
    (refused,) = viewer.receive()
    assert (error_of(refused), refused.body["clientMsgId"]) == (404, "mine")
    queries = town.database.queries
    assert error_of(viewer.answer(ROOM, data={"roomId": 1})) == 404
    room, _ = await town.elsewhere(start_room, anchor_id=ANCHOR, type_=1, room_name="r", covert_img="")
    assert room.id == 1
    queries = town.database.queries
    assert error_of(viewer.answer(ROOM, data={"roomId": 1})) == 404
    assert await town.rooms.find(1, town.now) is None
    assert town.database.queries == queries
    town.now = town.now._replace(monotonic=town.now.monotonic + ABSENT_SECONDS)
    assert await town.rooms.find(1, town.now) is not None
    queries = town.database.queries
    town.now = town.now._replace(monotonic=town.now.monotonic + CACHED_SECONDS - 1)
    assert await town.rooms.find(1, town.now) is not None
    assert town.database.queries == queries
    town.now = town.now._replace(monotonic=town.now.monotonic + 1)
    assert await town.rooms.find(1, town.now) is not None
    assert town.database.queries > queries


async def test_a_start_forgets_that_there_was_none(town: Town) -> None:
    assert await town.rooms.find(1, town.now) is None
    assert await town.start() == 1
    assert await town.rooms.find(1, town.now) is not None


async def test_many_that_wait_cost_one_query(town: Town) -> None:
    viewers = [town.connect() for _ in range(100)]
    for user, viewer in enumerate(viewers, 10_002):
        viewer.send(LOGIN, appId=APP, userId=user, token=town.token(user), data={"roomId": user})
    queries = town.database.queries
    await town.answer_waiting()
    assert town.database.queries - queries <= 2  # BEGIN may count
    for viewer in viewers:
        login, error = viewer.receive()
        assert login.code == LOGIN
        assert error_of(error) == 404


async def test_who_ends_while_it_waits_is_passed_over(town: Town) -> None:
    room, _ = await town.elsewhere(start_room, anchor_id=ANCHOR, type_=1, room_name="r", covert_img="")
    viewer = town.log_in(10_002)
    viewer.send(ROOM, data={"roomId": room.id})
    viewer.hang_up()
    await town.answer_waiting()
    assert town.node.hub.find_room(APP, room.id) is None


async def test_what_waits_is_bounded(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookups, "WAITING_SESSIONS", 1)
    one, two = town.log_in(10_002), town.log_in(10_003)
    one.send(ROOM, data={"roomId": 5})
    assert error_of(two.answer(ROOM, data={"roomId": 6})) == 503
    one.write(one.packet(HEARTBEAT) * (HELD_PACKETS + 5))
    assert [error_of(packet) for packet in one.receive()] == [503] * 5
    await town.answer_waiting()
    assert [packet.code for packet in one.receive()] == [ERROR] + [HEARTBEAT] * HELD_PACKETS


async def test_without_the_database_known_rooms_go_on(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    room_id = await town.start()

    async def fail(*_: object, **__: object) -> None:
        raise DatabaseUnavailable("gone")

    monkeypatch.setattr(town.database, "read", fail)
    monkeypatch.setattr(town.database, "run", fail)
    viewer = town.log_in(10_002, room=room_id)
    viewer.send(BIZ, bizCode=5558, data={"roomId": room_id, "count": 1})
    viewer.send(ROOM, data={"roomId": 99})
    await town.answer_waiting()
    assert error_of(viewer.receive()[-1]) == 503
    with pytest.raises(DatabaseUnavailable):
        await town.rooms.store_counts(town.now)
    with pytest.raises(DatabaseUnavailable):
        await town.rooms.refresh(town.now)
    monkeypatch.undo()
    await town.rooms.store_counts(town.now)  # nothing was forgotten
    stored = await town.database.read(find_room, room_id)
    assert stored is not None
    assert (stored.watch_num, stored.good_num) == (1, 1)


async def test_a_read_that_began_before_a_close_does_not_bring_the_room_back(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    room_id = await town.start()
    read = town.database.read

    async def slow_read(*args: Any, **options: Any) -> Any:
        found = await read(*args, **options)
        monkeypatch.undo()
        await town.rooms.close(ANCHOR, room_id, town.now)
        return found

    monkeypatch.setattr(town.database, "read", slow_read)
    await town.rooms.refresh(town.now)
    assert town.directory.is_open(APP, room_id, town.now) is False
    assert town.directory.page(1, 1, 10) == ([], False)


async def test_what_another_instance_does_shows_with_the_next_reading(town: Town) -> None:
    room, _ = await town.elsewhere(start_room, anchor_id=ANCHOR, type_=2, room_name="r", covert_img="")
    assert town.directory.page(2, 1, 10) == ([], False)
    await town.rooms.refresh(town.now)
    assert [listed.id for listed in town.directory.page(2, 1, 10)[0]] == [room.id]
    viewer = town.log_in(10_002, room=room.id)
    await town.elsewhere(close_room, room_id=room.id, anchor_id=ANCHOR)
    await town.rooms.refresh(town.now)
    assert viewer.receive()[-1].data["event"] == "closed"
    assert town.directory.is_open(APP, room.id, town.now) is False


async def test_likes_go_on_from_what_was_stored(town: Town) -> None:
    room_id = await town.start()
    viewer = town.log_in(10_002, room=room_id)
    viewer.send(BIZ, bizCode=5558, data={"roomId": room_id, "count": 50})
    await town.rooms.store_counts(town.now)
    again = Town(town.database)  # after a restart
    await again.rooms.refresh(again.now)
    viewer = again.log_in(10_002, room=room_id)
    viewer.send(BIZ, bizCode=5558, data={"roomId": room_id, "count": 1})
    assert again.directory.page(RoomType.NORMAL.value, 1, 10)[0][0].good_num == 51


async def test_only_a_vip_goes_live(town: Town) -> None:
    nobody = replace(vip(ANCHOR), tags=frozenset())
    with pytest.raises(CallRefused) as refused:
        await town.rooms.start(nobody, 1, town.now)
    assert (refused.value.code, refused.value.reason) == (403, "only a VIP may go live")
    assert town.directory.page(1, 1, 10) == ([], False)


async def test_a_room_without_a_name_and_a_picture_has_those_of_its_anchor(town: Town) -> None:
    room = await town.rooms.start(vip(ANCHOR), 1, town.now)
    assert (room.room_name, room.covert_img) == (f"主播-{ANCHOR}的直播间", "/ann.png")


async def test_starting_again_changes_nothing(town: Town) -> None:
    first = await town.start(ANCHOR)
    town.advance(1)
    second = await town.start(ANCHOR + 1)
    assert await town.start(ANCHOR) == first
    assert [room.id for room in town.directory.page(1, 1, 10)[0]] == [second, first]


async def test_closing_a_room_that_memory_does_not_know_keeps_its_likes(town: Town) -> None:
    room, _ = await town.elsewhere(start_room, anchor_id=ANCHOR, type_=1, room_name="r", covert_img="")
    await town.database.run(update_counts, {room.id: RoomCounts(3, 777, 40, 50)}, town.now.unix_ms)
    await town.rooms.close(ANCHOR, room.id, town.now)
    record = await town.database.read(find_record, room.id)
    assert record is not None
    assert record.good_num == 777


async def test_the_last_event_has_the_likes(town: Town) -> None:
    room_id = await town.start()
    viewer = town.log_in(10_002, room=room_id)
    viewer.send(BIZ, bizCode=5558, data={"roomId": room_id, "count": 50})
    await town.rooms.close(ANCHOR, room_id, town.now)
    last = viewer.receive()[-1].data
    assert (last["event"], last["goodNum"]) == ("closed", 50)


async def test_counts_whose_writing_was_cancelled_are_written_later(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    room_id = await town.start()
    viewer = town.log_in(10_002, room=room_id)
    viewer.send(BIZ, bizCode=5558, data={"roomId": room_id, "count": 5})

    async def hang(*_: object, **__: object) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(town.database, "run", hang)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(town.rooms.store_counts, town.now)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    monkeypatch.undo()
    await town.rooms.store_counts(town.now)
    stored = await town.database.read(find_room, room_id)
    assert stored is not None
    assert stored.good_num == 5


async def test_a_start_that_meets_a_close_does_not_bring_the_old_room_back(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = await town.start()
    run = town.database.run

    async def slow_run(*args: Any, **options: Any) -> Any:
        result = await run(*args, **options)
        monkeypatch.undo()
        await town.rooms.close(ANCHOR, old, town.now)
        return result

    monkeypatch.setattr(town.database, "run", slow_run)
    new = await town.start()
    assert new != old
    assert [room.id for room in town.directory.page(1, 1, 10)[0]] == [new]
    assert town.directory.is_open(APP, old, town.now) is False


async def test_who_starts_again_may_change_name_and_picture_but_not_the_type(town: Town) -> None:
    room_id = await town.start()
    room = await town.rooms.start(vip(ANCHOR), 1, town.now, room_name="另一个")
    assert (room.id, room.room_name, room.covert_img) == (room_id, "另一个", "a.png")
    assert [each.room_name for each in town.directory.page(1, 1, 9)[0]] == ["另一个"]
    assert await town.rooms.start(vip(ANCHOR), 1, town.now) == room  # nothing is asked for, nothing changes
    with pytest.raises(CallRefused, match=f"type = 2: your room {room_id} of type 1 is open") as caught:
        await town.rooms.start(vip(ANCHOR), 2, town.now)
    assert caught.value.code == 501


async def test_the_room_of_an_anchor_who_is_away_is_closed(town: Town) -> None:
    anchor = town.log_in(ANCHOR)
    room_id = await town.start()
    viewer = town.log_in(10_002, room=room_id)
    for _ in range(3):
        town.advance(30)
        for client in (anchor, viewer):
            client.send(HEARTBEAT)
        await town.rooms.close_away(town.now, 60)
    anchor.hang_up()
    await town.rooms.close_away(town.now, 0)  # never
    await town.rooms.close_away(town.now, 60)
    viewer.receive()
    for _ in range(2):
        assert town.directory.is_open(APP, room_id, town.now) is True
        town.advance(30)
        viewer.send(HEARTBEAT)
        await town.rooms.close_away(town.now, 60)
    assert [packet.data["event"] for packet in viewer.receive() if packet.code == BIZ][-1] == "closed"
    record = await town.database.read(find_record, room_id)
    assert record is not None
    assert (record.watch_num, record.peak_num, record.visit_num) == (1, 1, 1)
