"""Users, their tags, and their sessions at the HTTP interface."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from qiyu.storage.errors import NameTaken, NoSuchUser
from qiyu.storage.tables import t_user, t_user_session, t_user_tag

VIP: Final = "vip"
"""The tag of who may go live."""
TAGS: Final = frozenset({VIP})
CHUNK: Final = 1000  # ids in one statement; SQLite takes 32,766, and the servers more

_USER: Final = (t_user.c.id, t_user.c.name, t_user.c.nick_name, t_user.c.avatar, t_user.c.password_hash)
_USERS: Final = select(*_USER, t_user_tag.c.tag).join_from(t_user, t_user_tag, isouter=True)


@dataclass(frozen=True, slots=True)
class User:
    id: int
    name: str
    nick_name: str
    avatar: str
    password_hash: str = field(repr=False)
    tags: frozenset[str] = frozenset()
    http_session: int = field(default=0, compare=False)
    """The number of the session by which the user was found, if it was by one."""


def session_number(token_hash: bytes) -> int:
    """What tells a session from others of the same user, and is no secret."""
    return int.from_bytes(token_hash[:8]) >> 4 or 1  # 60 bits: two digits of a Python integer


def name_key(name: str) -> str:
    """What two names that look alike have in common: without case, width (Ａ and A) and outer spaces."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    return unicodedata.normalize("NFKC", folded).strip()


def insert_user(c: Connection, *, name: str, password_hash: str, nick_name: str, avatar: str, now_ms: int) -> int:
    """Add a user and return the new id. Raises NameTaken."""
    row = {
        "name": name,
        "name_key": name_key(name),
        "nick_name": nick_name,
        "avatar": avatar,
        "password_hash": password_hash,
        "create_time": now_ms,
    }
    try:
        with c.begin_nested():
            inserted = c.execute(insert(t_user).values(row)).inserted_primary_key
    except IntegrityError:
        raise NameTaken(f"the name {name} is taken") from None
    return int(inserted[0])  # type: ignore[index]  # there is one, as the id is generated


def find_user(c: Connection, user_id: int) -> User | None:
    return _one(c.execute(_USERS.where(t_user.c.id == user_id)))


def find_user_by_name(c: Connection, name: str) -> User | None:
    return _one(c.execute(_USERS.where(t_user.c.name_key == name_key(name))))


def find_users(c: Connection, user_ids: Collection[int]) -> dict[int, User]:
    """Those that there are, by id; one query for each thousand."""
    wanted = sorted(set(user_ids))
    found: dict[int, User] = {}
    for start in range(0, len(wanted), CHUNK):
        rows = c.execute(_USERS.where(t_user.c.id.in_(wanted[start : start + CHUNK])))
        found |= {user.id: user for user in _users(rows)}
    return found


def list_users(c: Connection, *, after_id: int = 0, limit: int = 1000) -> list[User]:
    """The next users in the order of their ids."""
    page = select(*_USER).where(t_user.c.id > after_id).order_by(t_user.c.id).limit(limit).subquery()
    query = select(*page.c, t_user_tag.c.tag).join_from(
        page, t_user_tag, page.c.id == t_user_tag.c.user_id, isouter=True
    )
    return _users(c.execute(query.order_by(page.c.id)))


def set_password(c: Connection, user_id: int, password_hash: str) -> bool:
    """Whether there is such a user."""
    return c.execute(update(t_user).where(t_user.c.id == user_id).values(password_hash=password_hash)).rowcount > 0


def add_tag(c: Connection, user_id: int, tag: str) -> bool:
    """Whether the user did not have it before. Raises NoSuchUser."""
    try:
        with c.begin_nested():
            c.execute(insert(t_user_tag).values(user_id=user_id, tag=tag))
    except IntegrityError:
        if find_user(c, user_id) is None:
            raise NoSuchUser(f"there is no user {user_id}") from None
        return False
    return True


def remove_tag(c: Connection, user_id: int, tag: str) -> bool:
    """Whether the user had it."""
    return c.execute(delete(t_user_tag).where(t_user_tag.c.user_id == user_id, t_user_tag.c.tag == tag)).rowcount > 0


def insert_session(c: Connection, *, token_hash: bytes, user_id: int, now_ms: int, expire_ms: int) -> None:
    """`token_hash` is 32 bytes, never the token itself. Raises NoSuchUser."""
    row = {"token_hash": token_hash, "user_id": user_id, "create_time": now_ms, "expire_time": expire_ms}
    try:
        with c.begin_nested():
            c.execute(insert(t_user_session).values(row))
    except IntegrityError:
        if find_user(c, user_id) is not None:
            raise
        raise NoSuchUser(f"there is no user {user_id}") from None


def find_session_user(c: Connection, token_hash: bytes, now_ms: int) -> User | None:
    """Whose session it is, unless it has expired by `now_ms`."""
    query = _USERS.join(t_user_session, t_user_session.c.user_id == t_user.c.id)
    query = query.where(t_user_session.c.token_hash == token_hash, t_user_session.c.expire_time > now_ms)
    user = _one(c.execute(query))
    return user and replace(user, http_session=session_number(token_hash))


# A session that was ended, and did not expire, has the time of that in `expire_time`, below zero. So its row tells
# other instances, and the next start, whose login tokens are good no more, and a clock that jumps makes none of what
# expires.


def end_session(c: Connection, token_hash: bytes, now_ms: int) -> bool:
    """Whether there was one that had not ended."""
    wanted = t_user_session.c.token_hash == token_hash
    ended = update(t_user_session).where(wanted, t_user_session.c.expire_time > 0).values(expire_time=-now_ms)
    return c.execute(ended).rowcount > 0


def end_sessions_of(c: Connection, user_id: int, now_ms: int, *, but: int = 0) -> int:
    """End those of a user, but for so many of the newest; returns how many there were."""
    mine = select(t_user_session.c.token_hash).where(
        t_user_session.c.user_id == user_id, t_user_session.c.expire_time > 0
    )
    hashes = c.scalars(mine.order_by(t_user_session.c.create_time.desc())).all()[but:]
    for start in range(0, len(hashes), CHUNK):
        chosen = t_user_session.c.token_hash.in_(hashes[start : start + CHUNK])
        c.execute(update(t_user_session).where(chosen).values(expire_time=-now_ms))
    return len(hashes)


def find_ended_sessions(c: Connection, since_ms: int, limit: int = 10_000) -> list[tuple[bytes, int, int]]:
    """Those that were ended since then, the newest first: hash, user's id, and when."""
    t = t_user_session.c
    query = select(t.token_hash, t.user_id, t.expire_time).where(t.expire_time <= -since_ms)
    return [(row[0], row[1], -row[2]) for row in c.execute(query.order_by(t.expire_time).limit(limit))]


def prune_sessions(c: Connection, now_ms: int, limit: int = 1000, *, ended_ms: int = 0) -> int:
    """Delete some that have expired, or were ended over `ended_ms` ago, and return how many."""
    # In two statements, for MySQL has no LIMIT in a subquery.
    expired = select(t_user_session.c.token_hash).where(
        t_user_session.c.expire_time.between(-(now_ms - ended_ms), now_ms)
    )
    hashes = c.scalars(expired.order_by(t_user_session.c.expire_time).limit(limit)).all()
    if not hashes:
        return 0
    return c.execute(delete(t_user_session).where(t_user_session.c.token_hash.in_(hashes))).rowcount


def _one(rows: Iterable[Sequence[Any]]) -> User | None:
    users = _users(rows)
    return users[0] if users else None


def _users(rows: Iterable[Sequence[Any]]) -> list[User]:
    """One user of each run of rows that differ in their last column, the tag, only."""
    tags: dict[tuple[int, str, str, str, str], set[str]] = {}
    for id_, name, nick_name, avatar, password_hash, tag in rows:
        held = tags.setdefault((id_, name, nick_name, avatar, password_hash), set())
        if tag is not None:
            held.add(tag)
    return [User(*user, frozenset(held)) for user, held in tags.items()]
