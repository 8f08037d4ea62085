"""The database: each transaction happens at one moment, and whether it did is not always known.

It also watches over what no instance may do: write without being one, or in a room that is not at home there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from qiyu.errors import DatabaseUnavailable
from qiyu.model import InstanceId
from qiyu.presence.presence import User
from qiyu.protocol.links import StoredMessage
from qiyu.services.homes import Claimed, Release, RoomKey
from simulate.world import World

T = TypeVar("T")


class IsFenced(Exception):
    """Whoever asked may write nothing more."""


class Row(NamedTuple):
    """A message to be stored: in a room, or for a user."""

    message: StoredMessage
    client_msg_id: str
    room: RoomKey | None
    receiver: User | None


@dataclass
class Home:
    holder: InstanceId | None
    term: int


class Database:
    """`is_fencing` false is a fault that the simulation has to find."""

    def __init__(self, world: World, *, is_fencing: bool = True) -> None:
        self.world = world
        self.is_fencing = is_fencing
        self.is_away = False
        self.unknown = 0.0
        """How likely it is that nobody learns what became of a transaction."""
        self.instances: dict[int, tuple[int, bool]] = {}
        self.homes: dict[RoomKey, Home] = {}
        self.rows: dict[int, Row] = {}
        self.by_room: dict[RoomKey, list[int]] = {}
        self.by_client: dict[tuple[int, str], int] = {}
        self.inboxes: dict[User, dict[int, StoredMessage]] = {}
        self.broken: list[str] = []
        """Rules that somebody broke."""

    def transact(self, work: Callable[[], T], done: Callable[[T | Exception], None]) -> None:
        """Do it at some moment, and say so at a later one; or do it later than that, or not at all."""
        world = self.world
        if self.is_away:
            world.after(world.random.uniform(0.01, 1.0), lambda: done(DatabaseUnavailable("it is away")))
            return
        failure = DatabaseUnavailable("the connection was lost")
        if world.chance(self.unknown):
            world.after(world.random.uniform(0.01, 1.0), lambda: done(failure))
            if world.chance(0.7):  # it happens all the same, perhaps long after
                world.after(world.random.choice([0.005, 0.5, 3.0]), lambda: self._do(work, lambda _: None))
            return
        world.soon(lambda: self._do(work, lambda result: world.soon(lambda: done(result))))

    @staticmethod
    def _do(work: Callable[[], T], done: Callable[[T | Exception], None]) -> None:
        try:
            result: T | Exception = work()
        except IsFenced as exc:
            result = exc
        done(result)

    # Instances

    def join(self) -> InstanceId:
        for number in range(1024):
            incarnation, fenced = self.instances.get(number, (0, True))
            if fenced:
                self.instances[number] = (incarnation + 1, False)
                return InstanceId(number, incarnation + 1)
        raise AssertionError("no number is free")

    def is_unfenced(self, instance: InstanceId) -> bool:
        return self.instances[instance.number] == (instance.incarnation, False)

    def hold(self, instance: InstanceId) -> None:
        if self.is_fencing and not self.is_unfenced(instance):
            raise IsFenced

    def fence(self, by: InstanceId, whom: InstanceId) -> None:
        self.hold(by)
        if self.is_unfenced(whom):
            self.world.say(f"{by} fences {whom}")
            self.instances[whom.number] = (whom.incarnation, True)

    # Homes

    def claim(self, me: InstanceId, keys: Sequence[RoomKey]) -> dict[RoomKey, Claimed]:
        self.hold(me)
        claims = {}
        for key in keys:
            home = self.homes.setdefault(key, Home(None, 0))
            if home.holder is None or not self.is_unfenced(home.holder):
                home.holder = me
                home.term += 1
                self.world.say(f"{me} claims {key.room_id}")
            last = self.by_room.get(key, [0])[-1]
            claims[key] = Claimed(home.holder, last, home.term)
        return claims

    def release(self, me: InstanceId, releases: Sequence[Release]) -> None:
        self.hold(me)
        for key, term in releases:
            home = self.homes[key]
            if home.holder == me and home.term == term:
                home.holder = None
                self.world.say(f"{me} releases {key.room_id}")

    # Messages

    def store(self, me: InstanceId, rows: Sequence[Row]) -> dict[int, int]:
        """The msgId of the first for each that was there already."""
        self.hold(me)
        first = {}
        for row in rows:
            msg_id, sender = row.message.msg_id, row.message.sender
            if msg_id in self.rows:
                continue
            if row.client_msg_id and (sender, row.client_msg_id) in self.by_client:
                first[msg_id] = self.by_client[sender, row.client_msg_id]
                continue
            self.rows[msg_id] = row
            if row.client_msg_id:
                self.by_client[sender, row.client_msg_id] = msg_id
            if row.room is not None:
                self._store_in_room(me, row.room, msg_id)
            if row.receiver is not None:
                self.inboxes.setdefault(row.receiver, {})[msg_id] = row.message
        return first

    def existing(self, msg_ids: Sequence[int]) -> set[int]:
        return {msg_id for msg_id in msg_ids if msg_id in self.rows}

    def room_page(self, key: RoomKey, after: int, up_to: int) -> list[StoredMessage]:
        return [self.rows[msg_id].message for msg_id in self.by_room.get(key, []) if after < msg_id <= up_to]

    def inbox(self, user: User) -> list[StoredMessage]:
        return [message for _, message in sorted(self.inboxes.get(user, {}).items())]

    def acknowledge(self, me: InstanceId, acks: Sequence[tuple[User, int]]) -> None:
        self.hold(me)
        for user, msg_id in acks:
            self.inboxes.get(user, {}).pop(msg_id, None)

    def _store_in_room(self, me: InstanceId, key: RoomKey, msg_id: int) -> None:
        holder = self.homes[key].holder if key in self.homes else None
        if holder != me:
            self.broken.append(f"{self.world.now:.3f} {me} writes in room {key.room_id}, which is at home at {holder}")
        if not self.is_unfenced(me):
            self.broken.append(f"{self.world.now:.3f} {me} is fenced, and writes")
        ids = self.by_room.setdefault(key, [])
        if ids and msg_id <= ids[-1]:
            self.broken.append(f"{self.world.now:.3f} {me} writes {msg_id} in room {key.room_id} after {ids[-1]}")
        ids.append(msg_id)
