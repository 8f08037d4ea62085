"""Instances: each has a number, which is in its msgIds, and for each start an incarnation, which can be fenced.

A fenced incarnation writes nothing more. `hold` looks at its row at the beginning of a transaction that writes, and
keeps it from being fenced until that transaction has ended; so whoever has fenced it knows that what it has written by
then is all there will ever be. That also holds for a process that stood still, was cut off, or was believed dead.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.exc import IntegrityError

from qiyu.errors import Fenced, StartupError
from qiyu.model import InstanceId
from qiyu.storage.tables import INSTANCES, t_im_instance

_t: Final = t_im_instance.c
_FREE: Final = 1
_TAKEN: Final = 0
_MUTEX: Final = -1
"""The number of a row that is no instance: whoever claims a number locks it, and `try_to_write` writes to it."""


class Instance(NamedTuple):
    """A row of t_im_instance."""

    number: int
    incarnation: int
    address: str
    """Where it runs, as host:pid: for people."""
    fenced: bool
    start_time: int


def claim(c: Connection, *, address: str, number: int | None, alone: bool, now_ms: int) -> InstanceId:
    """Become an instance: the smallest number that nobody has, or this one; with the next incarnation of it.

    With `alone`, whoever was one before is fenced. Raises StartupError where `number`, or every one, is taken.
    """
    _alone(c)
    if alone:  # this waits for their transactions that are under way
        c.execute(update(t_im_instance).where(_t.fenced == _TAKEN).values(fenced=_FREE))
    rows = {row.number: row for row in list_instances(c)}
    if number is None:
        number = next((each for each in range(INSTANCES) if each not in rows or rows[each].fenced), None)
        if number is None:
            raise StartupError(f"all {INSTANCES} instance numbers are taken: expected one that is free or fenced")
    before = rows.get(number)
    if before is None:
        _insert(c, number, 1, address, _TAKEN, now_ms)
        return InstanceId(number, 1)
    if not before.fenced:
        raise StartupError(
            f"instance.number = {number}: taken by {before.address}; expected a number that is free, or -1 for any"
        )
    mine = InstanceId(number, before.incarnation + 1)
    row = update(t_im_instance).where(_t.number == number)
    c.execute(row.values(incarnation=mine.incarnation, address=address, fenced=_TAKEN, start_time=now_ms))
    return mine


def hold(c: Connection, mine: InstanceId) -> None:
    """Let nobody fence this incarnation before the transaction ends. Raises Fenced where somebody has."""
    held = select(_t.number).where(_t.number == mine.number, _t.incarnation == mine.incarnation, _t.fenced == _TAKEN)
    if c.scalar(held.with_for_update(read=True)) is None:
        _raise_fenced(c, mine)


def check(c: Connection, mine: InstanceId) -> None:
    """`hold` without a lock, for who only wants to know."""
    row = find(c, mine.number)
    if row is None or row.fenced or row.incarnation != mine.incarnation:
        _raise_fenced(c, mine)


def fence(c: Connection, whom: InstanceId) -> bool:
    """Let it write nothing more, once its transactions that are under way have ended. Whether it was this that did."""
    those = update(t_im_instance).where(
        _t.number == whom.number, _t.incarnation == whom.incarnation, _t.fenced == _TAKEN
    )
    return c.execute(those.values(fenced=_FREE)).rowcount > 0


def try_to_write(c: Connection) -> None:
    """Write something, so that it raises what writing raises: to a full disk, to a file that can only be read."""
    c.execute(update(t_im_instance).where(_t.number == _MUTEX).values(beats=_t.beats + 1))


def find(c: Connection, number: int) -> Instance | None:
    row = c.execute(_INSTANCES.where(_t.number == number)).one_or_none()
    return None if row is None else _instance(row)


def list_instances(c: Connection) -> list[Instance]:
    """All there ever were, by number."""
    return [_instance(row) for row in c.execute(_INSTANCES.where(_t.number >= 0).order_by(_t.number))]


_INSTANCES: Final = select(_t.number, _t.incarnation, _t.address, _t.fenced, _t.start_time)


def _instance(row: Sequence[Any]) -> Instance:
    number, incarnation, address, fenced, start_time = row
    return Instance(number, incarnation, address, bool(fenced), start_time)


def _alone(c: Connection) -> None:
    """Let others who claim wait until this transaction has ended. SQLite has one writer at a time anyway."""
    mutex = select(_t.number).where(_t.number == _MUTEX).with_for_update()
    while c.scalar(mutex) is None:
        with suppress(IntegrityError), c.begin_nested():
            _insert(c, _MUTEX, 0, "", _FREE, 0)


def _insert(c: Connection, number: int, incarnation: int, address: str, fenced: int, now_ms: int) -> None:
    row = {"number": number, "incarnation": incarnation, "address": address, "fenced": fenced}
    c.execute(insert(t_im_instance).values(**row, start_time=now_ms, beats=0))


def _raise_fenced(c: Connection, mine: InstanceId) -> None:
    row = find(c, mine.number)
    by = f"{row.address} has started since" if row is not None and row.incarnation > mine.incarnation else "fenced"
    raise Fenced(
        f"this server (instance {mine.number}, incarnation {mine.incarnation}) may write no more to the database: {by}"
    )
