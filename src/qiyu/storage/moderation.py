"""Whom the anchor of an open room has muted in it, or removed from it, and until when; a closed room has nobody."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, delete, func, insert, or_, select, update

from qiyu.storage.tables import t_living_restriction as table


@dataclass(frozen=True, slots=True)
class Restriction:
    """Of one user in one room. Times are milliseconds since 1970; 0 is never."""

    room_id: int
    user_id: int
    muted_until: int
    removed_until: int


_COLUMNS: Final = ("room_id", "user_id", "muted_until", "removed_until")
_RESTRICTIONS: Final = select(*[table.c[name] for name in _COLUMNS])


def find_restriction(c: Connection, room_id: int, user_id: int) -> Restriction:
    """That of a user, also of one who has none."""
    row = c.execute(_RESTRICTIONS.where(table.c.room_id == room_id, table.c.user_id == user_id)).one_or_none()
    return Restriction(room_id, user_id, 0, 0) if row is None else Restriction(*row)


def set_restriction(c: Connection, restriction: Restriction, *, now_ms: int, limit: int) -> bool:
    """Store it in place of the one before; False where the room has `limit` of them already that are in force.

    The caller holds the room's row (`lock_room`), so that two who do this at once do not meet.
    """
    values = {name: getattr(restriction, name) for name in _COLUMNS}
    mine = (table.c.room_id == restriction.room_id, table.c.user_id == restriction.user_id)
    if c.execute(select(table.c.user_id).where(*mine)).one_or_none() is not None:
        c.execute(update(table).where(*mine).values(**values, update_time=now_ms))
        return True
    in_room = table.c.room_id == restriction.room_id
    if int(c.scalar(select(func.count()).select_from(table).where(in_room)) or 0) >= limit:
        over = (table.c.muted_until <= now_ms, table.c.removed_until <= now_ms)
        if not c.execute(delete(table).where(in_room, *over)).rowcount:
            return False
    c.execute(insert(table).values(**values, update_time=now_ms))
    return True


def restrictions_in_force(c: Connection, now_ms: int) -> list[Restriction]:
    """All there are, of all rooms."""
    in_force = or_(table.c.muted_until > now_ms, table.c.removed_until > now_ms)
    return [Restriction(*row) for row in c.execute(_RESTRICTIONS.where(in_force))]


def restrictions_since(c: Connection, since_ms: int) -> list[Restriction]:
    """Those that were set since then, lifted ones too."""
    return [Restriction(*row) for row in c.execute(_RESTRICTIONS.where(table.c.update_time >= since_ms))]


def forget_restrictions(c: Connection, room_id: int) -> None:
    """The room is closed."""
    c.execute(delete(table).where(table.c.room_id == room_id))
