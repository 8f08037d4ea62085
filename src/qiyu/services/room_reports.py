"""What rooms count and tell, where their members are on several instances.

A subscriber reports to the home once a second, if anything has changed: its members, the likes and the visits since its
last report. The home adds them up, and tells every subscriber how many there are in all. Who enters and leaves goes to
the home at once, within the room's budget, and from there to all the others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from qiyu.living.events import RoomEvents
from qiyu.model import InstanceId
from qiyu.protocol.links import Counts, RoomEvent, Subscribed
from qiyu.services.homes import Homes, RoomHome, RoomKey, State
from qiyu.services.links import Links


class Told(NamedTuple):
    """What was last said of a room over a link."""

    online: int
    likes: int


@dataclass(slots=True)
class _Unreported:
    likes: int = 0
    visits: int = 0


@dataclass(slots=True)
class RoomReports:
    """`RoomEvents` asks it for what is elsewhere (`Elsewhere` in living/events.py)."""

    homes: Homes
    links: Links
    events: RoomEvents
    _others: dict[RoomKey, int] = field(default_factory=dict)
    """Of rooms at home elsewhere: the members on other instances, as the home said last."""
    _told: dict[tuple[RoomKey, InstanceId], Told] = field(default_factory=dict)
    _unreported: dict[RoomKey, _Unreported] = field(default_factory=dict)
    _online: dict[RoomKey, int] = field(default_factory=dict)
    """As members here were told last."""

    def __repr__(self) -> str:
        return f"<RoomReports unreported={len(self._unreported)} told={len(self._told)}>"

    # See `Elsewhere` in living/events.py

    def others(self, key: tuple[int, int]) -> int:
        """Members of a room on other instances."""
        room = self.homes.find(RoomKey(*key))
        if room is None:
            return 0
        if room.state in {State.HOME, State.LEAVING}:
            return sum(room.subscribers.values())
        return self._others.get(room.key, 0)

    def is_counted_here(self, key: tuple[int, int]) -> bool:
        """Whether this instance knows how many members a room has."""
        room = self.homes.find(RoomKey(*key))
        return room is not None and room.has_home

    def is_home(self, key: tuple[int, int]) -> bool:
        """Whether this instance adds up what is counted of a room."""
        room = self.homes.find(RoomKey(*key))
        return room is not None and room.state in {State.HOME, State.LEAVING}

    def counted(self, key: tuple[int, int], *, likes: int, visits: int) -> None:
        """Something was counted here."""
        if not self.is_home(key):
            unreported = self._unreported.setdefault(RoomKey(*key), _Unreported())
            unreported.likes += likes
            unreported.visits += visits

    def happened(self, key: tuple[int, int], data: bytes) -> None:
        """Somebody entered or left here."""
        room = self.homes.find(RoomKey(*key))
        if room is None:
            return
        if room.state is State.HOME:
            self._tell(room, RoomEvent(*room.key, data))
        elif room.state is State.JOINED and room.holder is not None:
            self.links.send(room.holder, RoomEvent(*room.key, data))

    # Over links

    def joined(self, key: RoomKey, answer: Subscribed) -> None:
        """The home has let this instance in."""
        self._is_told(key, answer.online, answer.likes)

    def counts(self, sender: InstanceId, message: Counts) -> None:
        """A report from a subscriber, or what the home says."""
        key = RoomKey(message.app_id, message.room_id)
        room = self.homes.find(key)
        if room is None:
            return
        if room.state is State.HOME:
            if sender in room.subscribers:
                room.subscribers[sender] = message.online
                self.events.reported(key, likes=message.likes, visits=message.visits)
        elif room.holder == sender:
            self._is_told(key, message.online, message.likes)

    def event(self, sender: InstanceId, message: RoomEvent) -> None:
        """Somebody entered or left elsewhere."""
        key = RoomKey(message.app_id, message.room_id)
        room = self.homes.find(key)
        if room is None:
            return
        if room.state is State.HOME:
            self._tell(room, message, but=sender)
            self.events.happened_elsewhere(key, message.data)
        elif room.holder == sender:
            self.events.happened_elsewhere(key, message.data)

    def tick(self) -> None:
        """Once a second."""
        there = set()
        for room in self.homes.rooms():
            there.add(room.key)
            online = self.events.members(*room.key)
            if self._online.get(room.key) != online:  # with an instance that is gone, or a home that has moved
                self._online[room.key] = online
                self.events.recount(room.key)
            if room.state is State.HOME:
                self._tell_subscribers(room)
            elif room.state is State.JOINED and room.holder is not None:
                self._report(room, room.holder)
        self._forget_but(there)

    def _tell_subscribers(self, room: RoomHome) -> None:
        if not room.subscribers:
            return
        online = self.events.peaked(room.key)
        told = Told(online, self.events.likes(*room.key))
        message = Counts(*room.key, online, told.likes)
        for instance in list(room.subscribers):
            if self._told.get((room.key, instance)) != told and self.links.send(instance, message):
                self._told[room.key, instance] = told

    def _report(self, room: RoomHome, holder: InstanceId) -> None:
        unreported = self._unreported.get(room.key) or _Unreported()
        members = self.homes.side.members(room.key)
        told = Told(members, 0)
        if not (unreported.likes or unreported.visits) and self._told.get((room.key, holder)) == told:
            return
        if self.links.send(holder, Counts(*room.key, members, unreported.likes, unreported.visits)):
            self._told[room.key, holder] = told
            self._unreported.pop(room.key, None)

    def _tell(self, room: RoomHome, message: RoomEvent, but: InstanceId | None = None) -> None:
        for instance in room.subscribers:
            if instance != but:
                self.links.send(instance, message)

    def _is_told(self, key: RoomKey, online: int, likes: int) -> None:
        room = self.homes.find(key)
        holder = room.holder if room is not None else None
        reported = self._told.get((key, holder)) if holder is not None else None
        mine = reported.online if reported is not None else self.homes.side.members(key)
        self._others[key] = max(online - mine, 0)
        unreported = self._unreported.get(key)
        self.events.told(key, likes=likes + (unreported.likes if unreported is not None else 0))

    def _forget_but(self, there: set[RoomKey]) -> None:
        for kept in (self._others, self._unreported, self._online):
            for key in [key for key in kept if key not in there]:
                del kept[key]
        open_links = {link.peer for link in self.links}
        for each in [each for each in self._told if each[0] not in there or each[1] not in open_links]:
            del self._told[each]
        self.events.forget_unused(there)
