from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, create_engine, event, insert, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.pool import StaticPool

from qiyu.protocol.packet import APP_ID
from qiyu.storage import messages
from qiyu.storage.database import Database
from qiyu.storage.messages import CHUNK, KEYS, Ack, InboxRules, NewMessage, Outcome, Stored, WhyNot
from qiyu.storage.tables import CLIENT_MSG_ID_CHARS, metadata, t_user

APP: Final = 10_000
ALICE, BOB, CAROL = 10_001, 10_002, 10_003
ROOM: Final = 7
NOTHING: Final = Outcome({}, {})
NO_RULES: Final = InboxRules()
A_USER: Final = dict.fromkeys(("name", "name_key", "nick_name", "avatar", "password_hash"), "") | {"create_time": 0}
ALL_IDS: Final = text("SELECT msg_id FROM t_im_message")


def to_room(msg_id: int, client_msg_id: str = "", *, user_id: int = ALICE, room_id: int = ROOM) -> NewMessage:
    return NewMessage(
        msg_id,
        APP,
        user_id,
        5555,
        room_id,
        0,
        client_msg_id,
        f'{{"n":{msg_id}}}',
        1_700_000_000_000 + msg_id % 1000,
        False,
    )


def to_user(
    msg_id: int, client_msg_id: str = "", *, user_id: int = ALICE, object_id: int = BOB, into_inbox: bool = True
) -> NewMessage:
    return NewMessage(
        msg_id,
        APP,
        user_id,
        5556,
        0,
        object_id,
        client_msg_id,
        f'{{"n":{msg_id}}}',
        1_700_000_000_000 + msg_id % 1000,
        into_inbox,
    )


def kept(message: NewMessage) -> Stored:
    return Stored(*message[:-1])


def ids(page: Sequence[Stored]) -> list[int]:
    return [each.msg_id for each in page]


async def store(
    db: Database,
    *new: NewMessage,
    acknowledged: Sequence[Ack] = (),
    inbox_limit: int = 0,
    known_only: bool = False,
) -> tuple[dict[int, int], dict[int, WhyNot]]:
    """The duplicates (new msg_id to old), and what was refused."""
    outcome = await db.run(messages.store, new, acknowledged, InboxRules(inbox_limit, known_only))
    return {msg_id: old.msg_id for msg_id, old in outcome.duplicates.items()}, outcome.refused


async def inbox(db: Database, user_id: int = BOB) -> list[int]:
    return ids(await db.read(messages.inbox_page, APP, user_id, after=0, limit=10_000))


async def room(db: Database, room_id: int = ROOM) -> list[int]:
    return ids(await db.read(messages.room_page, APP, room_id, after=0, before=None, limit=10_000))


async def all_ids(db: Database) -> set[int]:
    return await db.read(lambda c: set(c.scalars(ALL_IDS)))


# Retention


@pytest.mark.parametrize("data", ["{}", '"主播 🎤 \U0010ffff"', '"100 %s %(a)s :a ? $1 \\\\ \' \\u0000"', "x" * 70_000])
async def test_a_message_comes_back_as_it_was(db: Database, data: str) -> None:
    said = to_room(2**62, "😀" * CLIENT_MSG_ID_CHARS)._replace(data=data, app_id=2**40)
    sent = to_user(2**62 + 1, "😀", user_id=2**61, object_id=ALICE)._replace(data=data)
    to_oneself = to_user(2**62 + 2, object_id=ALICE)._replace(data=data)
    assert await db.run(messages.store, [said, sent, to_oneself], [], NO_RULES) == NOTHING
    page = await db.read(messages.room_page, 2**40, ROOM, after=0, before=None, limit=5)
    assert page == [kept(said)]
    assert await db.read(messages.conversation_page, APP, ALICE, 2**61, after=0, before=None, limit=5) == [kept(sent)]
    assert await db.read(messages.inbox_page, APP, ALICE, after=0, limit=5) == [kept(sent), kept(to_oneself)]


async def test_nothing_is_nothing(db: Database) -> None:
    assert await db.run(messages.store, [], [], InboxRules(10)) == NOTHING
    assert await db.read(messages.kept, []) == set()
    assert await db.read(messages.users_with_inbox, []) == set()
    assert await db.read(messages.largest_msg_id) == 0
    assert await inbox(db) == await room(db) == []


async def test_a_large_batch(db: Database) -> None:
    new = [to_user(n, f"c{n}", object_id=20_000 + n % 1500) for n in range(1, 2 * CHUNK + 2)]
    before = db.queries
    assert await db.run(messages.store, new, [], InboxRules(5000)) == NOTHING
    assert db.queries - before <= 6
    assert await db.read(messages.kept, new) == {m.msg_id for m in new}
    assert await db.read(messages.largest_msg_id) == 2 * CHUNK + 1
    acks = [(APP, m.object_id, m.msg_id) for m in new if m.msg_id != 42]
    assert await db.run(messages.store, [], acks, InboxRules(100)) == NOTHING
    receivers = {(APP, m.object_id) for m in new}
    assert await db.read(messages.users_with_inbox, receivers) == {(APP, 20_042)}


async def test_a_msg_id_that_is_there_already_is_refused(db: Database) -> None:
    await store(db, to_room(1))
    for again in (to_room(1), to_room(1, "a")):
        with pytest.raises(IntegrityError):
            await store(db, to_room(2), again)
    assert await room(db) == [1]


@pytest.mark.parametrize("client_msg_id", ["x" * (CLIENT_MSG_ID_CHARS + 1), "a\0b"])
async def test_what_a_column_cannot_hold_is_refused_everywhere(db: Database, client_msg_id: str) -> None:
    with pytest.raises(Exception, match="expected at most 64 characters, U\\+0000 not among them"):
        await store(db, to_room(1, client_msg_id))
    assert await room(db) == []


# Duplicates


async def test_a_message_that_was_kept_before_is_not_kept_again(db: Database) -> None:
    first = to_user(1, "a")
    await store(db, first, to_room(2))
    outcome = await db.run(
        messages.store, [to_room(3), to_user(4, "a"), to_room(5, "a"), to_room(6, "b")], [], NO_RULES
    )
    assert outcome == Outcome({4: kept(first), 5: kept(first)}, {})
    assert await room(db) == [2, 3, 6]
    assert await inbox(db) == [1]


async def test_a_duplicate_in_the_same_batch(db: Database) -> None:
    new = [to_room(1, "a"), to_user(2, "a"), to_user(3, "a", user_id=CAROL), to_user(4, "a", user_id=CAROL)]
    assert await store(db, *new) == ({2: 1, 4: 3}, {})
    assert await room(db) == [1]
    assert await inbox(db) == [3]


@pytest.mark.parametrize("other", ["a ", " a", "A", "á", "a.", "ａ", "", "a\n"])
async def test_ids_of_clients_are_compared_exactly(db: Database, other: str) -> None:
    assert await store(db, to_room(1, "a"), to_room(2, other)) == ({}, {})
    assert await store(db, to_room(3, other), to_room(4, "a")) == ({4: 1} | ({3: 2} if other else {}), {})


async def test_another_app_and_another_sender_have_their_own(db: Database) -> None:
    new = [to_room(1, "a"), to_room(2, "a", user_id=BOB), to_room(3, "a")._replace(app_id=APP + 1)]
    assert await store(db, *new) == ({}, {})
    again = [each._replace(msg_id=each.msg_id + 10) for each in new]
    assert await store(db, *again) == ({11: 1, 12: 2, 13: 3}, {})


async def test_messages_without_an_id_are_never_duplicates(db: Database) -> None:
    assert await store(db, to_room(1), to_room(2)) == ({}, {})
    assert await store(db, to_room(3), to_room(4, "a")) == ({}, {})
    assert await room(db) == [1, 2, 3, 4]


@pytest.mark.parametrize("number", [KEYS - 1, KEYS, KEYS + 1, CHUNK + 1])
async def test_many_duplicates(db: Database, number: int) -> None:
    await store(db, *[to_room(n, f"c{n}") for n in range(1, number + 1)])
    duplicates, _ = await store(db, *[to_room(10_000 + n, f"c{n}") for n in range(1, number + 2)])
    assert duplicates == {10_000 + n: n for n in range(1, number + 1)}
    assert await db.read(messages.largest_msg_id) == 10_000 + number + 1


async def test_of_many_who_keep_the_same_one_does(db: Database) -> None:
    outcomes: list[dict[int, int]] = []

    async def keep(msg_id: int) -> None:
        duplicates, _ = await store(db, to_room(msg_id, "a"), to_room(msg_id + 100, f"c{msg_id}"), inbox_limit=5)
        outcomes.append(duplicates)

    async with trio.open_nursery() as nursery:
        for msg_id in range(1, 9):
            nursery.start_soon(keep, msg_id)
    [winner] = [msg_id for msg_id in await room(db) if msg_id < 100]
    assert sorted(outcomes, key=str) == sorted([{}, *({n: winner} for n in range(1, 9) if n != winner)], key=str)
    assert len(await room(db)) == 9


async def test_whoever_is_in_between_is_found(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each attempt meets one more, until the last but one."""
    others = iter([to_room(1, "a"), to_room(2, "b")])
    insert_rows = messages._insert

    def meet_another(c: Connection, rows: list[Any]) -> None:
        other = next(others, None)
        if other is not None:
            messages._insert_messages(c, [messages._row(other, c.dialect)])
        insert_rows(c, rows)

    monkeypatch.setattr(messages, "_insert", meet_another)
    assert await store(db, to_room(11, "a"), to_room(12, "b"), to_room(13, "c")) == ({11: 1, 12: 2}, {})
    assert await room(db) == [1, 2, 13]


# The inbox


async def test_an_inbox_holds_what_is_not_acknowledged(db: Database) -> None:
    await store(db, to_user(1), to_user(2), to_user(3, into_inbox=False), to_user(4, object_id=CAROL))
    assert await inbox(db) == [1, 2]
    await store(db, to_user(5), to_user(6), acknowledged=[(APP, BOB, 1), (APP, BOB, 5)])
    assert await inbox(db) == [2, 6]
    assert await inbox(db, CAROL) == [4]
    page = await db.read(messages.conversation_page, APP, BOB, ALICE, after=0, before=None, limit=10)
    assert ids(page) == [1, 2, 3, 5, 6]


async def test_only_the_receiver_can_acknowledge(db: Database) -> None:
    others: list[Ack] = [(APP, CAROL, 1), (APP, ALICE, 1), (APP + 1, BOB, 1), (APP, BOB, 3)]
    await store(db, to_user(1), acknowledged=others)
    await store(db, to_user(2), acknowledged=others * 2)
    assert await inbox(db) == [1, 2]


def by_many(*msg_ids: int) -> list[NewMessage]:
    """Direct messages, each of another sender."""
    return [to_user(msg_id)._replace(user_id=CAROL + msg_id) for msg_id in msg_ids]


async def test_a_full_inbox_takes_no_more(db: Database) -> None:
    assert await store(db, *by_many(1, 2, 3, 4), inbox_limit=3) == ({}, {4: WhyNot.INBOX_FULL})
    more = [*by_many(5), to_user(6, into_inbox=False), to_user(7, object_id=CAROL), to_room(8)]
    assert await store(db, *more, inbox_limit=3) == ({}, {5: WhyNot.INBOX_FULL})
    assert await inbox(db) == [1, 2, 3]
    assert await all_ids(db) == {1, 2, 3, 6, 7, 8}
    assert await store(db, *by_many(9), inbox_limit=0) == ({}, {})


async def test_one_sender_fills_half_of_an_inbox(db: Database) -> None:
    refused = dict.fromkeys(range(6, 12), WhyNot.SHARE_FULL)
    assert await store(db, *map(to_user, range(1, 12)), inbox_limit=10) == ({}, refused)
    assert await store(db, to_user(12), inbox_limit=10) == ({}, {12: WhyNot.SHARE_FULL})
    assert await store(db, to_user(13, object_id=CAROL), inbox_limit=10) == ({}, {})  # another inbox
    assert await inbox(db) == [1, 2, 3, 4, 5]


async def test_there_is_room_for_who_comes_next(db: Database) -> None:
    """However many have written as much as they may."""
    msg_ids = itertools.count(1)
    for sender in range(CAROL + 1, CAROL + 6):
        await store(db, *(to_user(next(msg_ids))._replace(user_id=sender) for _ in range(100)), inbox_limit=60)
        one_more = to_user(next(msg_ids))._replace(user_id=sender)
        assert await store(db, one_more, inbox_limit=60) == ({}, {one_more.msg_id: WhyNot.SHARE_FULL})
    assert len(await inbox(db)) == 30 + 15 + 8 + 4 + 2
    assert await store(db, to_user(next(msg_ids)), inbox_limit=60) == ({}, {})


async def test_a_sender_whose_messages_are_fetched_may_go_on(db: Database) -> None:
    await store(db, *map(to_user, range(1, 6)), inbox_limit=10)
    assert await store(db, to_user(6), acknowledged=[(APP, BOB, 1)], inbox_limit=10) == ({}, {})
    assert await inbox(db) == [2, 3, 4, 5, 6]


async def test_what_is_acknowledged_makes_room(db: Database) -> None:
    await store(db, *by_many(1, 2), inbox_limit=2)
    acks = [(APP, BOB, 1), (APP, BOB, 3)]
    refused = {5: WhyNot.INBOX_FULL}
    assert await store(db, *by_many(3, 4, 5), acknowledged=acks, inbox_limit=2) == ({}, refused)
    assert await inbox(db) == [2, 4]


async def test_a_duplicate_is_one_where_the_inbox_is_full(db: Database) -> None:
    await store(db, to_user(1, "a"), to_user(2, "b"))
    refused = {4: WhyNot.INBOX_FULL}
    assert await store(db, to_user(3, "a"), to_user(4, "c"), inbox_limit=2) == ({3: 1}, refused)


async def test_a_duplicate_takes_no_place_in_the_inbox(db: Database) -> None:
    await store(db, to_user(1, "a"))
    new = [to_user(2, "a"), to_user(3, "b"), to_user(4, "b"), to_user(5, "c"), to_user(6, "d")]
    assert await store(db, *new, inbox_limit=6) == ({2: 1, 4: 3}, {6: WhyNot.SHARE_FULL})
    assert await inbox(db) == [1, 3, 5]


async def test_what_is_not_kept_has_no_duplicates(db: Database) -> None:
    await store(db, to_user(1))
    new = [to_user(2, "a"), to_user(3, "a", object_id=CAROL), to_user(4, "a", object_id=CAROL)]
    assert await store(db, *new, inbox_limit=1) == ({4: 3}, {2: WhyNot.INBOX_FULL})


async def test_only_known_receivers_may_be_asked_for(db: Database) -> None:
    await db.run(lambda c: c.execute(insert(t_user).values(**A_USER, id=BOB)))
    elsewhere = to_user(3, object_id=CAROL)._replace(app_id=APP_ID + 1)  # an app whose accounts are not here
    new = [to_user(1)._replace(app_id=APP_ID), to_user(2, object_id=CAROL)._replace(app_id=APP_ID), elsewhere]
    assert await store(db, *new, known_only=True) == ({}, {2: WhyNot.UNKNOWN_RECEIVER})
    assert await all_ids(db) == {1, 3}
    assert await store(db, to_user(4, object_id=CAROL)._replace(app_id=APP_ID)) == ({}, {})


async def test_who_has_an_inbox(db: Database) -> None:
    await store(db, to_user(1), to_user(2), to_user(3, object_id=CAROL)._replace(app_id=APP + 1))
    asked = {(app_id, user_id) for app_id in (APP, APP + 1, APP + 2) for user_id in (ALICE, BOB, CAROL)}
    before = db.queries
    assert await db.read(messages.users_with_inbox, asked) == {(APP, BOB), (APP + 1, CAROL)}
    assert db.queries == before + 3


# Pages


async def test_pages_of_an_inbox_begin_with_the_oldest(db: Database) -> None:
    await store(db, *[to_user(n, user_id=(ALICE, CAROL)[n % 2]) for n in range(1, 8)])
    pages = [ids(await db.read(messages.inbox_page, APP, BOB, after=after, limit=3)) for after in (0, 3, 6, 7)]
    assert pages == [[1, 2, 3], [4, 5, 6], [7], []]
    assert await db.read(messages.inbox_page, APP + 1, BOB, after=0, limit=3) == []


@pytest.mark.parametrize(
    ("after", "before", "limit", "expected"),
    [
        (0, None, 3, [5, 6, 7]),
        (0, 7, 3, [4, 5, 6]),
        (0, 1, 3, []),
        (5, None, 3, [6, 7]),
        (2, 5, 9, [3, 4]),
        (2, 6, 2, [4, 5]),
        (7, None, 3, []),
        (0, 2**63 - 1, 9, [1, 2, 3, 4, 5, 6, 7]),
    ],
)
async def test_pages_of_a_history_are_its_newest_in_order(
    db: Database, after: int, before: int | None, limit: int, expected: list[int]
) -> None:
    said = [to_room(n, user_id=(ALICE, BOB)[n % 2]) for n in range(1, 8)]
    elsewhere = [to_room(20, room_id=8), to_room(21)._replace(app_id=APP + 1), to_user(22, object_id=CAROL)]
    await store(db, *said, *elsewhere)
    page = await db.read(messages.room_page, APP, ROOM, after=after, before=before, limit=limit)
    assert ids(page) == expected
    await store(
        db,
        *[to_user(100 + n, user_id=(ALICE, BOB)[n % 2], object_id=(BOB, ALICE)[n % 2]) for n in range(1, 8)],
        to_user(120, object_id=CAROL),
        to_user(121, user_id=CAROL),
    )
    for one, other in ((ALICE, BOB), (BOB, ALICE)):
        end = None if before is None else min(before, 2**62) + 100
        page = await db.read(messages.conversation_page, APP, one, other, after=after + 100, before=end, limit=limit)
        assert ids(page) == [100 + n for n in expected]


# Pruning


async def test_pruning_leaves_what_an_inbox_holds(db: Database) -> None:
    await store(db, *[(to_room(n), to_user(n), to_user(n, user_id=BOB, object_id=ALICE))[n % 3] for n in range(1, 10)])
    await store(db, acknowledged=[(APP, BOB, 4), (APP, ALICE, 5)])
    after, looked_at = 0, []
    while (last := await db.run(messages.prune, after=after, below=9, limit=3)) is not None:
        after = last
        looked_at.append(last)
    assert looked_at == [3, 6, 8]
    assert await all_ids(db) == {1, 2, 7, 8, 9}
    assert await inbox(db) == [1, 7]
    assert await inbox(db, ALICE) == [2, 8]
    assert await db.run(messages.prune, after=0, below=2**63 - 1, limit=100) == 9
    assert await all_ids(db) == {1, 2, 7, 8}


async def test_what_an_inbox_held_goes_when_it_is_acknowledged(db: Database) -> None:
    """Pruning does not come that way again; and what it has not reached stays for the history."""
    await store(db, to_user(1), to_user(2), to_user(8))
    assert await db.run(messages.prune, after=0, below=5, limit=10) == 2
    await db.run(messages.store, [], [(APP, BOB, 1), (APP, BOB, 8), (APP, CAROL, 2)], NO_RULES, forget_below=5)
    assert await all_ids(db) == {2, 8}
    assert await inbox(db) == [2]


async def test_inboxes_expire(db: Database) -> None:
    """300 messages to somebody who never comes: all are freed, and no inbox of today is touched."""
    await store(db, *[to_user(n) for n in range(1, 301)], to_room(301), to_user(302), to_user(400))
    assert await db.read(messages.oldest_in_inboxes) == 1
    after, calls = 0, 0
    while last := await db.run(messages.expire_inboxes, after=after, below=400, limit=100, forget_below=300):
        after, calls = last, calls + 1
    assert (after, calls) == (302, 4)
    assert await inbox(db) == [400]
    assert await all_ids(db) == {300, 301, 302, 400}  # the history is kept longer than the inboxes
    assert await db.read(messages.oldest_in_inboxes) == 400


async def test_nobody_has_anything_in_an_inbox(db: Database) -> None:
    assert await db.read(messages.oldest_in_inboxes) is None
    assert await db.run(messages.expire_inboxes, after=0, below=9, limit=9, forget_below=9) is None


async def test_another_servers_row_is_not_ones_own(db: Database) -> None:
    """Two servers that once had the same number made the same msgIds."""
    theirs = [to_user(1, "a", user_id=CAROL), to_user(2, "b"), to_user(3), to_user(4, "d")]
    await store(db, *theirs)
    mine = [to_user(1, "a"), to_user(2, "x"), to_user(3)._replace(create_time=7), theirs[3], to_user(5, "e")]
    assert await db.read(messages.kept, mine) == {4}


async def test_ids_that_no_column_holds_are_nowhere(db: Database) -> None:
    """To ask for one of them raises with every driver; and one bad row must not hide what became of the others."""
    good = to_user(3)
    await store(db, good)
    assert await db.read(messages.kept, [good._replace(msg_id=2**63), good, good._replace(msg_id=-1)]) == {3}


async def test_a_pruned_message_may_come_again(db: Database) -> None:
    await store(db, to_room(1, "a"))
    assert await db.run(messages.prune, after=0, below=2, limit=1) == 1
    assert await store(db, to_room(2, "a")) == ({}, {})


# The way to the rows


@pytest.mark.parametrize("kind", ["deletes", "looks up", "counts", "pages", "prunes", "expires"])
def test_sqlite_never_reads_a_whole_table(kind: str) -> None:
    with memory() as c:
        full = [to_user(n, f"c{n}") for n in range(1, 5)]
        messages.store(c, full, [], NO_RULES)
        plans: list[str] = []

        @event.listens_for(c, "before_cursor_execute")
        def explain(_c: Connection, cursor: Any, statement: str, values: Any, _context: object, many: bool) -> None:
            if statement.startswith(("SELECT", "WITH", "DELETE")):
                cursor.execute(f"EXPLAIN QUERY PLAN {statement}", values[0] if many else values)
                plans.extend(row[3] for row in cursor.fetchall())

        match kind:
            case "deletes":
                messages.store(c, [], [(APP, BOB, 1), (APP, BOB, 2)], NO_RULES)
            case "looks up":
                messages.store(c, [to_user(9, "c1")], [], NO_RULES)
                messages.kept(c, full)
            case "counts":
                messages.store(c, [to_user(9)], [], InboxRules(9, known_only=True))
                messages.users_with_inbox(c, [(APP, BOB), (APP, ALICE)])
            case "pages":
                messages.inbox_page(c, APP, BOB, after=0, limit=9)
                messages.room_page(c, APP, ROOM, after=0, before=None, limit=9)
                messages.conversation_page(c, APP, BOB, ALICE, after=0, before=9, limit=9)
            case "expires":
                messages.expire_inboxes(c, after=0, below=3, limit=9, forget_below=2)
            case _:
                messages.prune(c, after=0, below=9, limit=9)
                messages.store(c, [], [(APP, BOB, 3)], NO_RULES, forget_below=9)
    assert [plan for plan in plans if "SEARCH t_im_" in plan]
    if kind == "counts":  # what was found in one inbox, by its senders
        plans.remove("USE TEMP B-TREE FOR GROUP BY")
    assert [plan for plan in plans if "SCAN t_im_" in plan or "TEMP B-TREE" in plan] == []


@contextmanager
def memory() -> Iterator[Connection]:
    engine = create_engine("sqlite://", poolclass=StaticPool)
    event.listen(engine, "connect", lambda raw, _: setattr(raw, "isolation_level", None))
    event.listen(engine, "begin", lambda c: c.exec_driver_sql("BEGIN"))
    with engine.begin() as c:
        metadata.create_all(c)
        yield c
    engine.dispose()


# Against a model


class Model:
    """What the tables hold, in two plain collections."""

    def __init__(self) -> None:
        self.kept: dict[int, Stored] = {}
        self.inbox: set[Ack] = set()

    def store(
        self, new: Sequence[NewMessage], acknowledged: set[Ack], inbox_limit: int, forget_below: int = 0
    ) -> Outcome:
        outcome = Outcome({}, {})
        self.inbox -= acknowledged
        for msg_id in {row[2] for row in acknowledged} - {row[2] for row in self.inbox}:
            if msg_id < forget_below:
                self.kept.pop(msg_id, None)
        for each in new:
            same = [
                old
                for old in self.kept.values()
                if each.client_msg_id
                and (old.app_id, old.user_id, old.client_msg_id) == (each.app_id, each.user_id, each.client_msg_id)
            ]
            ack = (each.app_id, each.object_id, each.msg_id)
            waits = each.into_inbox and ack not in acknowledged
            held = [row[2] for row in self.inbox if row[:2] == ack[:2]]
            theirs = sum(self.kept[msg_id].user_id == each.user_id for msg_id in held)
            if same:
                outcome.duplicates[each.msg_id] = same[0]
            elif waits and inbox_limit and len(held) >= inbox_limit:
                outcome.refused[each.msg_id] = WhyNot.INBOX_FULL
            elif waits and inbox_limit and theirs >= inbox_limit - len(held):
                outcome.refused[each.msg_id] = WhyNot.SHARE_FULL
            else:
                self.kept[each.msg_id] = kept(each)
                if waits:
                    self.inbox.add(ack)
        return outcome

    def prune(self, after: int, below: int, limit: int) -> int | None:
        looked_at = sorted(msg_id for msg_id in self.kept if after < msg_id < below)[:limit]
        for msg_id in set(looked_at) - {row[2] for row in self.inbox}:
            del self.kept[msg_id]
        return looked_at[-1] if looked_at else None

    def expire(self, after: int, below: int, limit: int, forget_below: int) -> int | None:
        looked_at = sorted(msg_id for msg_id in self.kept if after < msg_id < below)[:limit]
        self.inbox = {row for row in self.inbox if row[2] not in looked_at}
        for msg_id in looked_at:
            if msg_id < forget_below:
                del self.kept[msg_id]
        return looked_at[-1] if looked_at else None


apps = st.sampled_from([1, 2])
users = st.sampled_from([ALICE, BOB, CAROL])
client_msg_ids = st.sampled_from(["", "", "a", "a ", "A", "b", "😀"])
drafts = st.tuples(apps, users, st.one_of(st.just(0), users), client_msg_ids, st.booleans())
numbers = st.integers(0, 40)
steps = st.one_of(
    st.tuples(
        st.just("store"),
        st.lists(drafts, max_size=12),
        st.sets(st.tuples(apps, users, numbers)),
        st.integers(0, 6),
        numbers,
    ),
    st.tuples(st.just("expire"), numbers, numbers, st.integers(1, 9), numbers),
    st.tuples(st.just("prune"), numbers, numbers, st.integers(1, 9)),
)


@pytest.mark.property
@given(st.lists(steps, max_size=8))
def test_it_does_what_a_model_does(history: list[Any]) -> None:
    """Invariant: whatever is kept, acknowledged and pruned, the tables hold what two plain collections would."""
    msg_ids = itertools.count(1)
    model = Model()
    with memory() as c:
        for step in history:
            if step[0] == "prune":
                _, after, below, limit = step
                assert messages.prune(c, after=after, below=below, limit=limit) == model.prune(after, below, limit)
                continue
            if step[0] == "expire":
                _, after, below, limit, forget_below = step
                last = messages.expire_inboxes(c, after=after, below=below, limit=limit, forget_below=forget_below)
                assert last == model.expire(after, below, limit, forget_below)
                continue
            _, drafted, acknowledged, inbox_limit, forget_below = step
            new = [
                NewMessage(next(msg_ids), app, user, 1, 0 if other else 5, other, mine, "{}", 1, bool(other) and waits)
                for app, user, other, mine, waits in drafted
            ]
            expected = model.store(new, acknowledged, inbox_limit, forget_below)
            rules = InboxRules(inbox_limit)
            assert messages.store(c, new, acknowledged, rules, forget_below=forget_below) == expected
        assert {tuple(row) for row in c.execute(text("SELECT app_id, user_id, msg_id FROM t_im_inbox"))} == model.inbox
        assert set(c.scalars(ALL_IDS)) == set(model.kept)
        assert messages.largest_msg_id(c) == max(model.kept, default=0)
        for app, user in itertools.product([1, 2], [ALICE, BOB, CAROL]):
            mine = sorted(row[2] for row in model.inbox if row[:2] == (app, user))
            page = messages.inbox_page(c, app, user, after=0, limit=200)
            assert page == [model.kept[msg_id] for msg_id in mine]
            for other in (ALICE, BOB, CAROL):
                both = [
                    each
                    for each in model.kept.values()
                    if each.app_id == app and each.object_id and {each.user_id, each.object_id} == {user, other}
                ]
                page = messages.conversation_page(c, app, user, other, after=0, before=None, limit=200)
                assert page == sorted(both, key=lambda each: each.msg_id)
        assert messages.users_with_inbox(c, [row[:2] for row in model.inbox]) == {row[:2] for row in model.inbox}


# What a batch does, and what rooms are read


async def test_what_is_not_to_be_kept_is_looked_for_in_the_same_transaction(db: Database) -> None:
    await store(db, to_room(1, "a"))
    new, asked = [to_room(2, "b")], [to_room(3, "a"), to_room(4, "b"), to_room(5, "c")]
    outcome = await db.run(messages.store_batch, new, asked, [], NO_RULES)
    assert outcome == Outcome({3: kept(to_room(1, "a")), 4: kept(to_room(2, "b"))}, {})
    assert await room(db) == [1, 2]


async def test_a_batch_that_fails_leaves_nothing_behind(db: Database) -> None:
    await store(db, to_user(1))
    with pytest.raises(IntegrityError):
        await db.run(messages.store_batch, [to_user(2), to_room(1)], [], [(APP, BOB, 1)], NO_RULES)
    assert await inbox(db) == [1]


async def test_the_newest_messages_of_several_rooms(db: Database) -> None:
    await store(db, *(to_room(n, room_id=7 + n % 2) for n in range(1, 11)))
    rooms = [(APP, 7), (APP, 8), (APP, 9)]
    pages = await db.read(messages.read_pages, rooms, after=3, limit=3)
    assert {key: [each.msg_id for each in rows] for key, rows in pages.items()} == {
        (APP, 7): [6, 8, 10],
        (APP, 8): [5, 7, 9],
        (APP, 9): [],
    }
