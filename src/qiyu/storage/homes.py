"""Homes of rooms among several instances: which one orders and stores what is said in a room.

A home moves only here: it was released, or its holder is fenced and so commits nothing more. A row stays when it is
released, for its term has to go on: a release names the term of its claim, so that one whose connection was given up,
and that the server carries out late, takes no later claim away.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from sqlalchemy import Connection, and_, func, insert, select, tuple_, update
from sqlalchemy.exc import IntegrityError

from qiyu.model import InstanceId
from qiyu.storage.instances import hold
from qiyu.storage.tables import t_im_instance, t_im_message, t_im_room_home

NOBODY: Final = -1
"""The number of the holder of a home that was released."""
TRIES: Final = 5

_h: Final = t_im_room_home.c
_i: Final = t_im_instance.c
_m: Final = t_im_message.c

Room = tuple[int, int]
"""By app and number."""


class RoomHome(NamedTuple):
    """Who has the home of a room."""

    holder: InstanceId
    last_msg_id: int
    """The largest msgId stored in the room, where the home was claimed just now; else 0."""
    term: int


def claim_homes(c: Connection, mine: InstanceId, rooms: Iterable[Room]) -> dict[Room, RoomHome]:
    """Who has the homes of these rooms: whoever had them, or `mine` where nobody did. Raises Fenced.

    A room is left out where others were faster each time that it was tried; to ask again is the caller's.
    """
    hold(c, mine)
    wanted = sorted(set(rooms))  # in one order, so that two who claim the same do not wait for each other
    homes: dict[Room, RoomHome] = {}
    for _ in range(TRIES):
        rows = _rows(c, [room for room in wanted if room not in homes])
        for room in wanted:
            if room not in homes and (home := _claim(c, mine, room, rows.get(room))) is not None:
                homes[room] = home
    return homes


def release_homes(c: Connection, mine: InstanceId, terms: Mapping[Room, int]) -> None:
    """Let others have these homes, by the terms in which they were claimed. Those that are not `mine` any longer are
    passed over. Raises Fenced."""
    hold(c, mine)
    for (app_id, room_id), term in sorted(terms.items()):
        held = and_(_h.app_id == app_id, _h.room_id == room_id, _h.number == mine.number)
        row = update(t_im_room_home).where(held, _h.incarnation == mine.incarnation, _h.term == term)
        c.execute(row.values(number=NOBODY, incarnation=0))


class _Row(NamedTuple):
    holder: InstanceId
    term: int
    lives: bool


def _rows(c: Connection, rooms: list[Room]) -> dict[Room, _Row]:
    lives = and_(_i.number == _h.number, _i.incarnation == _h.incarnation, _i.fenced == 0)
    query = (
        select(_h.app_id, _h.room_id, _h.number, _h.incarnation, _h.term, _i.number.is_not(None).label("lives"))
        .select_from(t_im_room_home.outerjoin(t_im_instance, lives))
        .where(tuple_(_h.app_id, _h.room_id).in_(rooms))
    )
    return {
        (app_id, room_id): _Row(InstanceId(number, incarnation), term, bool(lives))
        for app_id, room_id, number, incarnation, term, lives in c.execute(query)
    }


def _claim(c: Connection, mine: InstanceId, room: Room, row: _Row | None) -> RoomHome | None:
    """None where another was faster."""
    if row is not None and row.lives:
        last = _last_msg_id(c, room) if row.holder == mine else 0
        return RoomHome(row.holder, last, row.term)
    if row is None:
        term = 1
        values = {"app_id": room[0], "room_id": room[1], "number": mine.number, "incarnation": mine.incarnation}
        try:
            with c.begin_nested():
                c.execute(insert(t_im_room_home).values(**values, term=term))
        except IntegrityError:
            return None
    else:
        term = row.term + 1
        taken = (
            update(t_im_room_home)
            .where(_h.app_id == room[0], _h.room_id == room[1], _h.term == row.term)
            .where(_h.number == row.holder.number, _h.incarnation == row.holder.incarnation)
            .values(number=mine.number, incarnation=mine.incarnation, term=term)
        )
        if c.execute(taken).rowcount == 0:
            return None
    return RoomHome(mine, _last_msg_id(c, room), term)


def _last_msg_id(c: Connection, room: Room) -> int:
    app_id, room_id = room
    query = select(func.max(_m.msg_id)).where(_m.app_id == app_id, _m.second_id == 0, _m.first_id == room_id)
    return c.scalar(query) or 0
