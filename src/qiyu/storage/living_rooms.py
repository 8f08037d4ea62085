"""Living rooms: those that are open, and the record of those that were."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from sqlalchemy import Connection, Executable, bindparam, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from qiyu.storage.moderation import forget_restrictions
from qiyu.storage.tables import CLOSED, OPEN, t_living_room, t_living_room_record

TRIES: Final = 3
CHUNK: Final = 1000  # ids in one statement


@dataclass(frozen=True, slots=True)
class LivingRoom:
    id: int
    anchor_id: int
    type: int
    room_name: str
    covert_img: str
    watch_num: int
    good_num: int
    start_time: int
    peak_num: int = 0
    visit_num: int = 0


@dataclass(frozen=True, slots=True)
class LivingRoomRecord(LivingRoom):
    end_time: int = 0


class RoomCounts(NamedTuple):
    """What is counted of a room."""

    watch_num: int
    """Members at this moment."""
    good_num: int
    """Likes."""
    peak_num: int
    """The most members there ever were at once."""
    visit_num: int
    """How often somebody came."""


_LATER: Final = ("peak_num", "visit_num")
_COLUMNS: Final = ("id", "anchor_id", "type", "room_name", "covert_img", "watch_num", "good_num", "start_time", *_LATER)
_ROOMS: Final = select(*[t_living_room.c[name] for name in _COLUMNS])
_RECORDS: Final = select(*[t_living_room_record.c[name] for name in (*_COLUMNS, "end_time")])
_UPDATE_COUNTS: Final = (
    update(t_living_room)
    .where(t_living_room.c.id == bindparam("room_id"))
    .values(
        watch_num=bindparam("watch"),
        good_num=bindparam("good"),
        peak_num=bindparam("peak"),
        visit_num=bindparam("visits"),
        update_time=bindparam("now"),
    )
)


def start_room(
    c: Connection,
    *,
    anchor_id: int,
    type_: int,
    room_name: str,
    covert_img: str,
    now_ms: int,
    changes: Mapping[str, str] | None = None,
) -> tuple[LivingRoom, bool]:
    """The anchor's open room, and whether it was made just now.

    An anchor has one open room at most. Of several who start it at once, one makes it, and the others get that one:
    with `changes` (of room_name and covert_img) made to it, unless it is of another type.
    """
    row = {
        "anchor_id": anchor_id,
        "type": type_,
        "status": OPEN,
        "room_name": room_name,
        "covert_img": covert_img,
        "watch_num": 0,
        "good_num": 0,
        "start_time": now_ms,
        "update_time": now_ms,
        "peak_num": 0,
        "visit_num": 0,
    }
    for attempt in range(TRIES):
        room = find_room_of(c, anchor_id)
        if room is not None:
            return _changed(c, room, changes or {}, now_ms) if room.type == type_ else room, False
        try:
            with c.begin_nested():
                inserted = c.execute(insert(t_living_room).values(row)).inserted_primary_key
        except IntegrityError:
            # Another was first, and has committed: the insert waited for it. Unless it is closed by now, we see it.
            if attempt == TRIES - 1:
                raise
        else:
            room_id = int(inserted[0])  # type: ignore[index]  # there is one, as the id is generated
            return LivingRoom(room_id, anchor_id, type_, room_name, covert_img, 0, 0, now_ms), True
    raise AssertionError("the last attempt returns or raises")


def close_room(
    c: Connection, *, room_id: int, anchor_id: int, now_ms: int, counts: RoomCounts | None = None
) -> LivingRoom | None:
    """Move the room to the record, with its final counts; None where the anchor has no such open room.

    Without `counts`, those that were last written. Of several who close it at once, one gets the room.
    """
    mine = _ROOMS.where(t_living_room.c.id == room_id, t_living_room.c.anchor_id == anchor_id)
    open_room = _find(c, mine.with_for_update())
    if open_room is None:
        return None
    room = open_room if counts is None else replace(open_room, **counts._asdict())
    values = {name: getattr(room, name) for name in _COLUMNS}
    c.execute(insert(t_living_room_record).values(**values, status=CLOSED, update_time=now_ms, end_time=now_ms))
    c.execute(delete(t_living_room).where(t_living_room.c.id == room_id))
    forget_restrictions(c, room_id)
    return room


def find_room(c: Connection, room_id: int) -> LivingRoom | None:
    return _find(c, _ROOMS.where(t_living_room.c.id == room_id))


def lock_room(c: Connection, room_id: int) -> LivingRoom | None:
    """As `find_room`; until the transaction ends, nobody else closes it or locks it."""
    return _find(c, _ROOMS.where(t_living_room.c.id == room_id).with_for_update())


def find_rooms(c: Connection, room_ids: Collection[int]) -> dict[int, LivingRoom]:
    """Those that are open, by id; one query for each thousand."""
    wanted = sorted(set(room_ids))
    found: dict[int, LivingRoom] = {}
    for start in range(0, len(wanted), CHUNK):
        rows = c.execute(_ROOMS.where(t_living_room.c.id.in_(wanted[start : start + CHUNK])))
        found |= {row.id: LivingRoom(*row) for row in rows}
    return found


def find_room_of(c: Connection, anchor_id: int) -> LivingRoom | None:
    return _find(c, _ROOMS.where(t_living_room.c.anchor_id == anchor_id))


def find_record(c: Connection, room_id: int) -> LivingRoomRecord | None:
    row = c.execute(_RECORDS.where(t_living_room_record.c.id == room_id)).one_or_none()
    return None if row is None else LivingRoomRecord(*row)


def newest_rooms(c: Connection, type_: int, limit: int = 1000) -> list[LivingRoom]:
    """The open rooms of a type, the newest first."""
    newest = _ROOMS.where(t_living_room.c.type == type_).order_by(
        t_living_room.c.start_time.desc(), t_living_room.c.id.desc()
    )
    return [LivingRoom(*row) for row in c.execute(newest.limit(limit))]


def list_rooms(c: Connection, *, after_id: int = 0, limit: int = 1000) -> list[LivingRoom]:
    """The next open rooms in the order of their ids."""
    query = _ROOMS.where(t_living_room.c.id > after_id).order_by(t_living_room.c.id)
    return [LivingRoom(*row) for row in c.execute(query.limit(limit))]


def update_counts(c: Connection, counts: Mapping[int, RoomCounts], now_ms: int) -> None:
    """Set the counts by room id, and update_time; a room that is closed by now is passed over."""
    # In the order of the ids, so that two who do this at once do not wait for each other.
    rows = [
        {"room_id": room_id, "watch": watch, "good": good, "peak": peak, "visits": visits, "now": now_ms}
        for room_id, (watch, good, peak, visits) in sorted(counts.items())
    ]
    if rows:
        c.execute(_UPDATE_COUNTS, rows)


def _changed(c: Connection, room: LivingRoom, changes: Mapping[str, str], now_ms: int) -> LivingRoom:
    new = {name: value for name, value in changes.items() if getattr(room, name) != value}
    if new:
        c.execute(update(t_living_room).where(t_living_room.c.id == room.id).values(**new, update_time=now_ms))
    return replace(room, **new)  # type: ignore[arg-type]


def _find(c: Connection, query: Executable) -> LivingRoom | None:
    row = c.execute(query).one_or_none()
    return None if row is None else LivingRoom(*row)
