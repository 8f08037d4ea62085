"""Who may read what was said, and how far back, on a real SQLite database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from memory_database import memory_engine
from qiyu.errors import CallRefused, DatabaseUnavailable
from qiyu.living import history
from qiyu.living.history import History, Page
from qiyu.metrics import Metrics
from qiyu.model import Instant
from qiyu.protocol.packet import APP_ID
from qiyu.routing.hub import Hub
from qiyu.routing.inflight import InFlight
from qiyu.routing.msgid import first_id
from qiyu.routing.session import Session
from qiyu.storage.database import Database, database_url
from qiyu.storage.living_rooms import close_room, start_room
from qiyu.storage.messages import InboxRules, NewMessage, store
from qiyu.storage.migrate import upgrade
from sessions import make_session

ANN, BOB, CAROL = 10_001, 10_002, 10_003
ROOM = 7
DAY_MS = 86_400_000
NOW = Instant(1000.0, 1_700_000_000_000)
ID = first_id(NOW.unix_ms)


def message(
    msg_id: int, *, sender: int = BOB, room_id: int = 0, object_id: int = 0, app_id: int = APP_ID
) -> NewMessage:
    return NewMessage(msg_id, app_id, sender, 5555, room_id, object_id, "", "{}", NOW.unix_ms, False)


class Archive:
    """A database with messages in it, and who is connected."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.hub = Hub(InFlight(100, Metrics()))
        self.now = NOW

    async def add(self, *messages: NewMessage) -> None:
        await self.database.run(store, messages, (), InboxRules())

    async def open_room(self, anchor_id: int = ANN) -> int:
        room, _ = await self.database.run(
            start_room, anchor_id=anchor_id, type_=1, room_name="", covert_img="", now_ms=self.now.unix_ms
        )
        return room.id

    async def close_room(self, room_id: int, anchor_id: int = ANN) -> None:
        await self.database.run(close_room, room_id=room_id, anchor_id=anchor_id, now_ms=self.now.unix_ms)

    def connect(self, user_id: int, room_id: int = 0, app_id: int = APP_ID) -> Session:
        session = make_session()
        session.user_id, session.app_id = user_id, app_id
        self.hub.bind(session)
        if room_id:
            self.hub.enter(session, room_id)
        return session

    async def room(self, user_id: int, room_id: int, **asked: Any) -> Page:
        asked = {"before": None, "limit": 50, "history_ms": 0} | asked
        return await self._history(asked).of_room(user_id, room_id, now=self.now, **asked)

    async def conversation(self, user_id: int, other_id: int, **asked: Any) -> Page:
        asked = {"before": None, "limit": 50, "history_ms": 0} | asked
        return await self._history(asked).of_conversation(user_id, other_id, now=self.now, **asked)

    async def refusal(self, user_id: int, room_id: int) -> tuple[int, str]:
        with pytest.raises(CallRefused) as refused:
            await self.room(user_id, room_id)
        return refused.value.code, refused.value.reason

    def _history(self, asked: dict[str, Any]) -> History:
        return History(self.database, self.hub, asked.pop("history_ms"))


@pytest.fixture
async def archive(tmp_path: Path) -> AsyncIterator[Archive]:
    async with Database.open(database_url("", tmp_path)) as database:
        await upgrade(database)
        yield Archive(database)


def ids(page: Page) -> list[int]:
    return [each.msg_id for each in page.messages]


def in_room(room_id: int, msg_ids: Iterable[int]) -> list[NewMessage]:
    return [message(msg_id, room_id=room_id) for msg_id in msg_ids]


# Who may read


async def test_a_member_reads_what_was_said_in_the_room_by_one_query(archive: Archive) -> None:
    room_id = await archive.open_room()
    await archive.add(*in_room(room_id, [ID, ID + 1]), *in_room(room_id + 1, [ID + 2]))
    archive.connect(BOB, room_id)
    before = archive.database.queries
    assert ids(await archive.room(BOB, room_id)) == [ID, ID + 1]
    assert archive.database.queries == before + 1


async def test_the_anchor_need_not_be_in_the_room(archive: Archive) -> None:
    room_id = await archive.open_room()
    await archive.add(*in_room(room_id, [ID]))
    before = archive.database.queries
    assert ids(await archive.room(ANN, room_id)) == [ID]
    assert archive.database.queries == before + 2
    archive.connect(ANN, room_id + 1)
    assert ids(await archive.room(ANN, room_id)) == [ID]


async def test_nobody_else_reads_it(archive: Archive) -> None:
    room_id = await archive.open_room()
    archive.connect(CAROL, room_id + 1)
    archive.connect(10_004, room_id, app_id=APP_ID + 1)
    left = archive.connect(10_005, room_id)
    archive.hub.leave(left)
    gone = archive.connect(10_006, room_id)
    archive.hub.unbind(gone)
    for stranger in (BOB, CAROL, 10_004, 10_005, 10_006):
        assert await archive.refusal(stranger, room_id) == (
            403,
            f"roomId = {room_id}: only its members and its anchor may read what was said there",
        )


async def test_of_a_closed_room_the_history_is_for_its_anchor_alone(archive: Archive) -> None:
    room_id = await archive.open_room()
    await archive.add(*in_room(room_id, [ID]))
    bob = archive.connect(BOB, room_id)
    await archive.close_room(room_id)
    archive.hub.leave(bob)
    before = archive.database.queries
    assert ids(await archive.room(ANN, room_id)) == [ID]
    assert archive.database.queries == before + 3
    code, reason = await archive.refusal(BOB, room_id)
    assert (code, reason) == (
        403,
        f"roomId = {room_id}: only its anchor, now that it is closed, may read what was said there",
    )


async def test_a_room_that_never_was(archive: Archive) -> None:
    assert await archive.refusal(ANN, ROOM) == (404, f"roomId = {ROOM}: there never was such a room")
    archive.connect(ANN, ROOM)  # where any number may be entered
    assert await archive.room(ANN, ROOM) == ([], False)


async def test_a_conversation_is_ones_own(archive: Archive) -> None:
    await archive.add(
        message(ID, sender=ANN, object_id=BOB),
        message(ID + 1, sender=BOB, object_id=ANN),
        message(ID + 2, sender=CAROL, object_id=ANN),
        message(ID + 3, sender=BOB, object_id=CAROL),
        message(ID + 4, sender=ANN, object_id=BOB, app_id=APP_ID + 1),
        message(ID + 5, sender=ANN, object_id=ANN),
        message(ID + 6, sender=BOB, room_id=ANN),
    )
    before = archive.database.queries
    assert ids(await archive.conversation(ANN, BOB)) == [ID, ID + 1]
    assert archive.database.queries == before + 1
    assert ids(await archive.conversation(BOB, ANN)) == [ID, ID + 1]
    assert ids(await archive.conversation(CAROL, ANN)) == [ID + 2]
    assert ids(await archive.conversation(ANN, ANN)) == [ID + 5]
    assert await archive.conversation(ANN, 99_999) == ([], False)


# How far back


@pytest.mark.parametrize("where", ["room", "conversation"])
async def test_what_is_older_than_the_history_is_not_shown(archive: Archive, where: str) -> None:
    oldest = first_id(NOW.unix_ms - DAY_MS)
    target = {"room_id": ROOM} if where == "room" else {"object_id": ANN}
    await archive.add(*[message(msg_id, **target) for msg_id in (1, oldest - 1, oldest, ID)])
    archive.connect(ANN, ROOM)
    read = archive.room if where == "room" else archive.conversation
    other = ROOM if where == "room" else BOB
    assert ids(await read(ANN, other, history_ms=DAY_MS)) == [oldest, ID]
    assert ids(await read(ANN, other, history_ms=0)) == [1, oldest - 1, oldest, ID]
    assert await read(ANN, other, history_ms=DAY_MS, before=oldest) == ([], False)
    page = await read(ANN, other, history_ms=DAY_MS, limit=2)
    assert (ids(page), page.has_more) == ([oldest, ID], False), "what is not shown is not hinted at either"
    archive.now = Instant(NOW.monotonic, NOW.unix_ms + 1)
    assert ids(await read(ANN, other, history_ms=DAY_MS)) == [ID]


async def test_a_clock_before_all_history(archive: Archive) -> None:
    await archive.add(message(1, object_id=ANN))
    archive.now = Instant(0.0, 0)
    assert ids(await archive.conversation(ANN, BOB, history_ms=DAY_MS)) == [1]


async def test_a_database_that_is_away(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_args: object, **_how: object) -> None:
        raise DatabaseUnavailable("connection refused")

    monkeypatch.setattr(history, "conversation_page", away)
    monkeypatch.setattr(history, "find_room", away)
    with pytest.raises(DatabaseUnavailable):
        await archive.conversation(ANN, BOB)
    with pytest.raises(DatabaseUnavailable):
        await archive.room(ANN, ROOM)


# Pages


class OneConnection:
    """A database in memory, so far as reading goes."""

    def __init__(self) -> None:
        self.engine = memory_engine()

    async def read(self, work: Any, *args: Any, **how: Any) -> Any:
        await trio.lowlevel.checkpoint()
        with self.engine.begin() as connection:
            return work(connection, *args, **how)


@pytest.mark.property
@given(
    msg_ids=st.sets(st.integers(1, 60), max_size=40),
    limit=st.integers(1, 20),
    before=st.none() | st.integers(0, 70),
    in_a_room=st.booleans(),
)
def test_pages_joined_are_all_there_is(msg_ids: set[int], limit: int, before: int | None, in_a_room: bool) -> None:
    database: Any = OneConnection()
    hub = Hub(InFlight(100, Metrics()))
    archive = Archive(database)
    archive.hub = hub
    archive.connect(ANN, ROOM)
    target = {"room_id": ROOM} if in_a_room else {"object_id": ANN}
    with database.engine.begin() as connection:
        store(connection, [message(msg_id, **target) for msg_id in sorted(msg_ids)], (), InboxRules())
    read = archive.room if in_a_room else archive.conversation

    async def read_all() -> list[int]:
        found: list[int] = []
        start = before
        while True:
            page = await read(ANN, ROOM if in_a_room else BOB, before=start, limit=limit)
            assert len(page.messages) == limit if page.has_more else len(page.messages) <= limit
            found = ids(page) + found
            if not page.has_more:
                return found
            start = found[0]

    assert trio.run(read_all) == sorted(each for each in msg_ids if before is None or each < before)
