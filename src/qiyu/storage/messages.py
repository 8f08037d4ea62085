"""Messages, and the inbox: which direct messages their receivers have not acknowledged.

msgIds grow with time, so they are the order of a page, and a range of time is a range of them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from enum import Enum, auto
from itertools import chain, islice, repeat
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

import msgspec
from sqlalchemy import (
    Connection,
    CursorResult,
    Delete,
    Dialect,
    Insert,
    Select,
    Table,
    and_,
    bindparam,
    case,
    column,
    delete,
    func,
    insert,
    select,
    text,
    tuple_,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import IntegrityError

from qiyu.protocol.packet import APP_ID
from qiyu.storage.tables import CLIENT_MSG_ID_CHARS, ExactText, t_im_inbox, t_im_message, t_user

T = TypeVar("T")

TRIES: Final = 3
CHUNK: Final = 1000  # ids, or rows of ids, in one statement
KEYS: Final = 100  # keys in one statement
MAX_ID: Final = 2**63 - 1  # that a column can hold

Ack: TypeAlias = tuple[int, int, int]
"""app_id, user_id (the receiver), msg_id."""

_Key: TypeAlias = tuple[int, int, str]  # app_id, user_id (the sender), client_msg_id
_Row: TypeAlias = tuple[int, int, int, int, int, int, str | None, str, int]  # the columns of t_im_message
_CLIENT_MSG_ID: Final = 6
_Inbox: TypeAlias = tuple[int, int]  # app_id, user_id (the receiver)
_Room: TypeAlias = tuple[int, int]  # app_id, room_id


class Stored(msgspec.Struct, frozen=True, gc=False):
    """A message as it is kept."""

    msg_id: int
    app_id: int
    user_id: int
    biz_code: int
    room_id: int  # 0: direct
    object_id: int  # the receiver; 0: to a room
    client_msg_id: str  # "" where it has none
    data: str
    create_time: int


class NewMessage(NamedTuple):
    """A message to be kept, with the fields of `Stored`."""

    msg_id: int
    app_id: int
    user_id: int
    biz_code: int
    room_id: int
    object_id: int
    client_msg_id: str
    data: str
    create_time: int
    into_inbox: bool  # it is direct, and not acknowledged yet


class WhyNot(Enum):
    """Why a direct message is not kept."""

    INBOX_FULL = auto()
    SHARE_FULL = auto()
    """The inbox has room, and it is not for this sender: see `store`."""
    UNKNOWN_RECEIVER = auto()


class InboxRules(NamedTuple):
    """Who may write how much to whom."""

    messages: int = 0
    """The most that an inbox holds; 0: any number."""
    known_only: bool = False
    """Users of app 10001 are written to only if they have an account here."""


class Outcome(NamedTuple):
    duplicates: dict[int, Stored]
    """By msg_id of a new message, the one that has its app, sender and clientMsgId already. The new one is not kept."""
    refused: dict[int, WhyNot]
    """By msg_id, those that are not kept either."""


class _Plan(NamedTuple):
    rows: list[_Row]
    inbox: list[Ack]
    outcome: Outcome


class _Many:
    """A statement for many rows of plain numbers and texts, compiled once for each kind of database.

    To bind the values of a row as SQLAlchemy does takes longer than SQLite needs to keep it. PostgreSQL is given a
    column at a time, as arrays: one statement for all rows, a fifth of the CPU of one for each.
    """

    def __init__(self, statement: Insert | Delete, columns: Sequence[str], arrays: str) -> None:
        """`arrays` is the statement for PostgreSQL, with a %s for each column's array."""
        self._statement = statement
        self._columns = list(columns)
        self._arrays = arrays
        self._sql: dict[str, str] = {}

    def __call__(self, c: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        if not rows:
            return
        if c.dialect.name == "postgresql":
            c.exec_driver_sql(self._arrays, tuple(map(_array, zip(*rows, strict=True))))
        else:
            sql = self._sql.get(c.dialect.name) or self._compile(c.dialect)
            c.exec_driver_sql(sql, list(rows))

    def _compile(self, dialect: Dialect) -> str:
        keys = self._columns if isinstance(self._statement, Insert) else None
        compiled: Any = self._statement.compile(dialect=dialect, column_keys=keys)
        assert compiled.positiontup == self._columns  # noqa: S101
        sql = self._sql[dialect.name] = str(compiled)
        return sql


def _array(values: Iterable[int | str | None]) -> str:
    """An array as PostgreSQL writes it; psycopg takes ten times as long for a list."""
    return "{" + ",".join(map(_element, values)) + "}"


def _element(value: int | str | None) -> str:
    if isinstance(value, str):
        return '"' + value.replace("\\", r"\\").replace('"', r"\"") + '"'
    return "NULL" if value is None else str(value)


def _from_arrays(table: Table) -> str:
    """INSERT for PostgreSQL, with an array for each column."""
    dialect: Dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    arrays = ", ".join(f"%s::{each.type.compile(dialect)}[]" for each in table.c)
    return f"INSERT INTO {table.name} ({', '.join(table.c.keys())}) SELECT * FROM unnest({arrays})"  # noqa: S608


_m: Final = t_im_message.c
_i: Final = t_im_inbox.c
_MESSAGES: Final = select(
    _m.msg_id,
    _m.app_id,
    _m.user_id,
    _m.biz_code,
    _m.first_id,
    _m.second_id,
    _m.client_msg_id,
    _m.data,
    _m.create_time,
)
_KEY: Final = (_m.app_id, _m.user_id, _m.client_msg_id)
_ACK: Final = tuple_(_i.app_id, _i.user_id, _i.msg_id)
_acknowledge: Final = _Many(
    delete(t_im_inbox).where(
        _i.app_id == bindparam("app"), _i.user_id == bindparam("user"), _i.msg_id == bindparam("msg")
    ),
    ("app", "user", "msg"),
    "DELETE FROM t_im_inbox USING unnest(%s::bigint[], %s::bigint[], %s::bigint[]) AS acks (a, u, m)"
    " WHERE app_id = a AND user_id = u AND msg_id = m",
)
_insert_messages: Final = _Many(insert(t_im_message), _m.keys(), _from_arrays(t_im_message))
_insert_inbox: Final = _Many(insert(t_im_inbox), _i.keys(), _from_arrays(t_im_inbox))
_bound_client_msg_id: Final = ExactText(CLIENT_MSG_ID_CHARS).process_bind_param
_RECEIVER: Final = case((_m.user_id == _m.first_id, _m.second_id), else_=_m.first_id)  # of a direct message
# Compared, and no EXISTS, which PostgreSQL answers by reading the whole inbox of everybody.
_HELD: Final = (
    select(_i.msg_id)
    .where(
        _i.app_id == _m.app_id,
        _i.user_id == _RECEIVER,
        _i.msg_id == _m.msg_id,
    )
    .scalar_subquery()
)


def _of_keys() -> Select[Any]:
    """The messages that have one of KEYS keys: always the same statement, so it is compiled once."""
    names = [[f"{each.name}_{n}" for each in _KEY] for n in range(KEYS)]
    rows = ", ".join("({})".format(", ".join(f":{name}" for name in row)) for row in names)
    values = [bindparam(name, type_=each.type) for row in names for name, each in zip(row, _KEY, strict=True)]
    columns = [column(f"column{n}", each.type) for n, each in enumerate(_KEY, 1)]  # so they call them
    wanted = text(f"VALUES {rows}").bindparams(*values).columns(*columns).cte("wanted")
    return _MESSAGES.join(wanted, and_(*[ours == theirs for ours, theirs in zip(_KEY, wanted.c, strict=True)]))


_OF_KEYS: Final = _of_keys()
_OF_KEYS_NAMES: Final = [f"{each.name}_{n}" for n in range(KEYS) for each in _KEY]


def store_batch(
    c: Connection,
    messages: Sequence[NewMessage],
    asked: Sequence[NewMessage],
    acknowledged: Collection[Ack],
    rules: InboxRules,
    forget_below: int = 0,
) -> Outcome:
    """The transaction of a batch: `store`, and `find_duplicates` for those that are not to be kept, but `asked` for."""
    outcome = store(c, messages, acknowledged, rules, forget_below=forget_below)
    if asked:
        outcome.duplicates.update(find_duplicates(c, asked))
    return outcome


def store(
    c: Connection,
    messages: Sequence[NewMessage],
    acknowledged: Collection[Ack],
    rules: InboxRules,
    *,
    forget_below: int = 0,
) -> Outcome:
    """Take what is acknowledged out of the inboxes, keep the messages, and put the direct ones into the inboxes.

    A message that is acknowledged in the same call never gets into the inbox. No inbox gets more messages than `rules`
    allow in this transaction; with several at once, it may be a few more. Of one sender it holds no more than there is
    room left: one alone gets half of it, two a third each, and there is always some for who comes next (the dynamic
    thresholds of buffers that switches share; Choudhury and Hahne, 1998). Raises IntegrityError where a msg_id is there
    already: see `kept`.

    A message that is acknowledged and has a msg_id below `forget_below`, where `prune` has been already, is deleted as
    well: nobody would look at it again.
    """
    acks = set(acknowledged)
    _delete_acknowledged(c, acks)
    _forget(c, [msg_id for _, _, msg_id in acks if msg_id < forget_below])
    waiting = {m.msg_id for m in messages if m.into_inbox and (m.app_id, m.object_id, m.msg_id) not in acks}
    inboxes = _look_at_inboxes(c, [m for m in messages if m.msg_id in waiting], rules)
    existing: dict[_Key, Stored] = {}
    plan = _plan(c.dialect, messages, waiting, existing, inboxes)
    if plan.outcome.refused:
        # A duplicate takes no room in the inbox and is one even where that is full; inserting would not tell.
        existing = _find_existing(c, [m for m in messages if m.msg_id in plan.outcome.refused])
        plan = _plan(c.dialect, messages, waiting, existing, inboxes)
    for attempt in range(TRIES):
        try:
            _insert(c, plan.rows)
            break
        except IntegrityError:
            # Another may insert one more before the next attempt does.
            if attempt == TRIES - 1 or not _have_client_msg_id(plan.rows):
                raise
            existing |= _find_existing(c, messages)
            plan = _plan(c.dialect, messages, waiting, existing, inboxes)
    _insert_inbox(c, plan.inbox)
    return plan.outcome


def kept(c: Connection, messages: Collection[NewMessage]) -> set[int]:
    """The msg_ids of those of these messages that are kept; one query for each thousand.

    A row that has the msg_id of one of them, but not its sender, clientMsgId and time, is somebody else's.
    """
    by_id = {m.msg_id: m for m in messages if 0 < m.msg_id <= MAX_ID}  # others can be nowhere
    found: set[int] = set()
    for chunk in _chunks(sorted(by_id)):
        for msg_id, *theirs in c.execute(select(_m.msg_id, *_KEY, _m.create_time).where(_m.msg_id.in_(chunk))):
            m = by_id[msg_id]
            if theirs == [m.app_id, m.user_id, m.client_msg_id or None, m.create_time]:
                found.add(msg_id)
    return found


def find_duplicates(c: Connection, messages: Iterable[NewMessage]) -> dict[int, Stored]:
    """By msg_id of each of these, which are not kept, the one that has its app, sender and clientMsgId, if any has."""
    asked = list(messages)
    existing = _find_existing(c, asked)
    keys = {m.msg_id: (m.app_id, m.user_id, m.client_msg_id) for m in asked}
    return {msg_id: existing[key] for msg_id, key in keys.items() if key in existing}


def largest_msg_id(c: Connection) -> int:
    """0 where there is none."""
    return c.scalar(select(func.max(_m.msg_id))) or 0


def users_with_inbox(c: Connection, users: Collection[_Inbox]) -> set[_Inbox]:
    """Those (app_id, user_id) of `users` whose inbox is not empty; one query for each app and thousand."""
    found: set[_Inbox] = set()
    for app_id, chunk in _by_app(users):
        ids = select(_i.user_id).where(_i.app_id == app_id, _i.user_id.in_(chunk)).distinct()
        found.update((app_id, user_id) for user_id in c.scalars(ids))
    return found


def inbox_page(c: Connection, app_id: int, user_id: int, *, after: int, limit: int) -> list[Stored]:
    """The oldest messages in the inbox with a msg_id above `after`, the oldest first."""
    query = _MESSAGES.join(t_im_inbox, _i.msg_id == _m.msg_id)
    query = query.where(_i.app_id == app_id, _i.user_id == user_id, _i.msg_id > after)
    return [_stored(row) for row in c.execute(query.order_by(_i.msg_id).limit(limit))]


def room_page(c: Connection, app_id: int, room_id: int, *, after: int, before: int | None, limit: int) -> list[Stored]:
    """The newest messages of the room with a msg_id above `after` and below `before`, the oldest first."""
    return _page(c, app_id, (room_id, 0), after, before, limit)


def read_pages(c: Connection, rooms: Iterable[_Room], *, after: int, limit: int) -> dict[_Room, list[Stored]]:
    """Of each of these rooms, `room_page` with its newest messages."""
    return {room: room_page(c, *room, after=after, before=None, limit=limit) for room in rooms}


def conversation_page(
    c: Connection, app_id: int, user_id: int, other_id: int, *, after: int, before: int | None, limit: int
) -> list[Stored]:
    """`room_page` for what two users have sent each other."""
    return _page(c, app_id, _pair(user_id, other_id), after, before, limit)


def prune(c: Connection, *, after: int, below: int, limit: int) -> int | None:
    """Of the `limit` oldest messages with `after` < msg_id < `below`, delete those that no inbox holds.

    Returns the last msg_id looked at, which is the next call's `after`, or None where there was none. What an inbox
    holds need not be looked at again: `store` deletes it when it is acknowledged, and `expire_inboxes` in the end.
    """
    last = _last_of(c, after, below, limit)
    if last is not None:
        c.execute(delete(t_im_message).where(_m.msg_id > after, _m.msg_id <= last, _HELD.is_(None)))
    return last


def expire_inboxes(c: Connection, *, after: int, below: int, limit: int, forget_below: int) -> int | None:
    """Take the `limit` oldest messages with `after` < msg_id < `below` out of the inboxes that hold them.

    Those with a msg_id below `forget_below` are deleted. Returns what `prune` does.
    """
    last = _last_of(c, after, below, limit)
    if last is None:
        return None
    held = select(_m.app_id, _RECEIVER, _m.msg_id).where(_m.msg_id > after, _m.msg_id <= last, _HELD.is_not(None))
    _delete_acknowledged(c, [(app_id, user_id, msg_id) for app_id, user_id, msg_id in c.execute(held)])
    c.execute(delete(t_im_message).where(_m.msg_id > after, _m.msg_id <= last, _m.msg_id < forget_below))
    return last


def oldest_in_inboxes(c: Connection) -> int | None:
    """The smallest msg_id that any inbox holds; None where all are empty. Looks at all of them."""
    found: int | None = c.scalar(select(func.min(_i.msg_id)))
    return found


def _last_of(c: Connection, after: int, below: int, limit: int) -> int | None:
    oldest = select(_m.msg_id).where(_m.msg_id > after, _m.msg_id < below).order_by(_m.msg_id).limit(limit).subquery()
    last: int | None = c.scalar(select(func.max(oldest.c.msg_id)))
    return last


def _forget(c: Connection, msg_ids: Collection[int]) -> None:
    for chunk in _chunks(sorted(msg_ids)):
        c.execute(delete(t_im_message).where(_m.msg_id.in_(chunk), _HELD.is_(None)))


def _plan(
    dialect: Dialect,
    messages: Iterable[NewMessage],
    waiting: Collection[int],
    existing: Mapping[_Key, Stored],
    inboxes: _Inboxes,
) -> _Plan:
    """What to insert, as if the messages came one after the other."""
    plan = _Plan([], [], Outcome({}, {}))
    rows, inbox, (duplicates, refused) = plan
    before: dict[_Key, NewMessage] = {}
    admit = inboxes.admission()
    for m in messages:
        key = (m.app_id, m.user_id, m.client_msg_id)
        if m.client_msg_id:
            if key in existing:
                duplicates[m.msg_id] = existing[key]
                continue
            if key in before:
                duplicates[m.msg_id] = Stored(*before[key][:-1])
                continue
        if m.msg_id in waiting:
            why_not = admit(m)
            if why_not is not None:
                refused[m.msg_id] = why_not
                continue
            inbox.append((m.app_id, m.object_id, m.msg_id))
        if m.client_msg_id:
            before[key] = m
        rows.append(_row(m, dialect))
    return plan


def _row(m: NewMessage, dialect: Dialect) -> _Row:
    first_id, second_id = _pair(m.user_id, m.object_id) if m.object_id else (m.room_id, 0)
    client_msg_id = _bound_client_msg_id(m.client_msg_id or None, dialect)
    return (m.msg_id, m.app_id, m.user_id, m.biz_code, first_id, second_id, client_msg_id, m.data, m.create_time)


def _stored(row: Sequence[Any]) -> Stored:
    msg_id, app_id, user_id, biz_code, first_id, second_id, client_msg_id, data, create_time = row
    if second_id == 0:
        room_id, object_id = first_id, 0
    else:
        room_id, object_id = 0, second_id if user_id == first_id else first_id
    return Stored(msg_id, app_id, user_id, biz_code, room_id, object_id, client_msg_id or "", data, create_time)


def _insert(c: Connection, rows: list[_Row]) -> None:
    if _have_client_msg_id(rows):
        with c.begin_nested():
            _insert_messages(c, rows)
    else:
        _insert_messages(c, rows)


def _have_client_msg_id(rows: Iterable[_Row]) -> bool:
    """Whether one may be a duplicate."""
    return any(row[_CLIENT_MSG_ID] is not None for row in rows)


def _find_existing(c: Connection, messages: Iterable[NewMessage]) -> dict[_Key, Stored]:
    keys = sorted({(m.app_id, m.user_id, m.client_msg_id) for m in messages if m.client_msg_id})
    found: dict[_Key, Stored] = {}
    for rows in _rows_of_keys(c, keys):
        for each in map(_stored, rows):
            found[each.app_id, each.user_id, each.client_msg_id] = each
    return found


def _rows_of_keys(c: Connection, keys: Sequence[_Key]) -> Iterator[CursorResult[Any]]:
    if c.dialect.name == "mysql":
        for chunk in _chunks(keys):
            yield c.execute(_MESSAGES.where(tuple_(*_KEY).in_(chunk)))
        return
    # SQLite would look for IN with rows in the whole table, and PostgreSQL plan it for longer than it executes it.
    for chunk in _chunks(keys, KEYS):
        filled = chain(chunk, repeat(chunk[-1], KEYS - len(chunk)))
        yield c.execute(_OF_KEYS, dict(zip(_OF_KEYS_NAMES, chain.from_iterable(filled), strict=True)))


def _delete_acknowledged(c: Connection, acks: Iterable[Ack]) -> None:
    if c.dialect.name == "mysql":  # whose driver makes a trip to the server of each of many
        for chunk in _chunks(sorted(acks)):
            c.execute(delete(t_im_inbox).where(_ACK.in_(chunk)))
    else:
        _acknowledge(c, sorted(acks))


class _Inboxes(NamedTuple):
    """The inboxes that messages are for, before those are in them."""

    rules: InboxRules
    held: Mapping[_Inbox, int]
    of_senders: Mapping[tuple[_Inbox, int], int]
    """What each sender has in them. Counted only where an inbox holds so much that it can matter."""
    unknown: Collection[_Inbox]
    """There are none of these."""

    def admission(self) -> Callable[[NewMessage], WhyNot | None]:
        """Asked of each message in turn, puts it in and returns None, or says why not."""
        held, of_senders = Counter(self.held), Counter(self.of_senders)
        limit = self.rules.messages

        def admit(m: NewMessage) -> WhyNot | None:
            inbox = (m.app_id, m.object_id)
            if inbox in self.unknown:
                return WhyNot.UNKNOWN_RECEIVER
            if not limit:
                return None
            room = limit - held[inbox]
            if room <= 0:
                return WhyNot.INBOX_FULL
            sender = (inbox, m.user_id)
            if of_senders[sender] >= room:
                return WhyNot.SHARE_FULL
            held[inbox] += 1
            of_senders[sender] += 1
            return None

        return admit


def _look_at_inboxes(c: Connection, messages: Sequence[NewMessage], rules: InboxRules) -> _Inboxes:
    coming = Counter((m.app_id, m.object_id) for m in messages)
    held: Mapping[_Inbox, int] = {}
    of_senders: Mapping[tuple[_Inbox, int], int] = {}
    if rules.messages and coming:
        held = _count_inboxes(c, coming)
        # While an inbox is not half full, nobody can have more in it than there is room.
        filling = [inbox for inbox, count in held.items() if 2 * (count + coming[inbox]) > rules.messages]
        of_senders = _count_senders(c, filling)
    unknown: set[_Inbox] = set()
    if rules.known_only:
        theirs = {user_id for app_id, user_id in coming if app_id == APP_ID}
        unknown = {(APP_ID, user_id) for user_id in theirs - _known(c, theirs)}
    return _Inboxes(rules, held, of_senders, unknown)


def _known(c: Connection, user_ids: Collection[int]) -> set[int]:
    found: set[int] = set()
    for chunk in _chunks(sorted(user_ids)):
        found.update(c.scalars(select(t_user.c.id).where(t_user.c.id.in_(chunk))))
    return found


def _count_senders(c: Connection, receivers: Collection[_Inbox]) -> dict[tuple[_Inbox, int], int]:
    held: dict[tuple[_Inbox, int], int] = {}
    for app_id, chunk in _by_app(receivers):
        counts = select(_i.user_id, _m.user_id, func.count()).join(t_im_message, _i.msg_id == _m.msg_id)
        counts = counts.where(_i.app_id == app_id, _i.user_id.in_(chunk)).group_by(_i.user_id, _m.user_id)
        held |= {((app_id, user_id), sender): count for user_id, sender, count in c.execute(counts)}
    return held


def _count_inboxes(c: Connection, receivers: Collection[_Inbox]) -> dict[_Inbox, int]:
    held: dict[_Inbox, int] = {}
    for app_id, chunk in _by_app(receivers):
        counts = select(_i.user_id, func.count()).where(_i.app_id == app_id, _i.user_id.in_(chunk))
        held |= {(app_id, user_id): count for user_id, count in c.execute(counts.group_by(_i.user_id))}
    return held


def _page(
    c: Connection, app_id: int, pair: tuple[int, int], after: int, before: int | None, limit: int
) -> list[Stored]:
    query = _MESSAGES.where(_m.app_id == app_id, _m.second_id == pair[1], _m.first_id == pair[0], _m.msg_id > after)
    if before is not None:
        query = query.where(_m.msg_id < before)
    page = [_stored(row) for row in c.execute(query.order_by(_m.msg_id.desc()).limit(limit))]
    page.reverse()
    return page


def _pair(user_id: int, other_id: int) -> tuple[int, int]:
    return (user_id, other_id) if user_id < other_id else (other_id, user_id)


def _by_app(users: Iterable[_Inbox]) -> Iterator[tuple[int, list[int]]]:
    """App ids with at most CHUNK of its user ids each."""
    apps: defaultdict[int, set[int]] = defaultdict(set)
    for app_id, user_id in users:
        apps[app_id].add(user_id)
    for app_id, user_ids in sorted(apps.items()):
        for chunk in _chunks(sorted(user_ids)):
            yield app_id, chunk


def _chunks(each: Iterable[T], size: int = CHUNK) -> Iterator[list[T]]:
    rest = iter(each)
    while chunk := list(islice(rest, size)):
        yield chunk
