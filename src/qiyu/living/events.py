"""What happens in a room, told to its members as 5557 events: who enters and leaves, how many there are, the likes.

None of it is stored or acknowledged, and all of it but the end of a room is the first to go when there is much to say:

- likes and the number of members are told once a second at most, whatever happened in it (`tick`);
- who enters and leaves is told at once while the room is quiet; each room has so many deliveries a second for it, and
  when they are spent, the next count has to do. So five thousand people entering do not cost five thousand squared;
- a receiver that is slow goes without events before it goes without messages (routing/router.py).
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Protocol

from qiyu.protocol.bodies import RoomEvent, encode_json
from qiyu.protocol.packet import APP_ID, BizCode
from qiyu.routing.hub import Hub
from qiyu.routing.publication import Kind, Publication
from qiyu.routing.router import Router
from qiyu.routing.session import Room, Session


class Counts:
    """What is counted of a room, beside its members of this moment."""

    __slots__ = ("likes", "peak", "visits")

    def __init__(self) -> None:
        self.likes = 0
        self.visits = 0
        """How often somebody came."""
        self.peak = 0
        """The most members there were at once."""


class Elsewhere(Protocol):
    """What there is of rooms on other instances (services/room_reports.py)."""

    def others(self, key: tuple[int, int], /) -> int:
        """Members there."""
        ...

    def is_counted_here(self, key: tuple[int, int], /) -> bool:
        """Whether it is known how many."""
        ...

    def is_home(self, key: tuple[int, int], /) -> bool:
        """Whether it is here that all is added up, and written to the database."""
        ...

    def counted(self, key: tuple[int, int], /, *, likes: int, visits: int) -> None:
        """Something was counted here."""
        ...

    def happened(self, key: tuple[int, int], data: bytes, /) -> None:
        """Members here were told of an event."""
        ...


class RoomEvents:
    """The events of all rooms here, and what is counted of them.

    `deliveries` bounds the enter and leave events of a room in a second; without `send_events`, members are
    told of nothing but that a room was closed, of its picture, and of what its anchor did about somebody.
    """

    def __init__(self, hub: Hub, router: Router, *, deliveries: int, send_events: bool) -> None:
        self._hub = hub
        self._send_events = send_events
        self._router = router
        self._deliveries = deliveries
        self._spent: dict[Room, int] = {}  # deliveries of enter and leave events in this second
        self._counts: dict[tuple[int, int], Counts] = {}
        self._kept: set[tuple[int, int]] = set()  # living rooms: their counts outlast their members
        self._untold: set[tuple[int, int]] = set()  # changed since the last count event
        self.elsewhere: Elsewhere | None = None
        """None for an instance that is alone."""
        self._unstored: set[tuple[int, int]] = set()  # living rooms that changed since they were last written

    def __repr__(self) -> str:
        return f"<RoomEvents rooms={len(self._counts)} untold={len(self._untold)} unstored={len(self._unstored)}>"

    def entered(self, session: Session, room: Room) -> None:
        """A session is in the room now, and was not before."""
        counts = self._counts_of(room.key)
        counts.visits += 1
        counts.peak = max(counts.peak, self.online(room))
        if self.elsewhere is not None:
            self.elsewhere.counted(room.key, likes=0, visits=1)
        self._changed(room.key)
        self._tell(room, session, "enter")

    def left(self, session: Session, room: Room) -> None:
        """A session is no longer in the room."""
        self._changed(room.key)
        if room.members:
            self._tell(room, session, "leave")
        else:
            self._spent.pop(room, None)
            if self.elsewhere is not None:
                self._tell(room, session, "leave")
            elif room.key not in self._kept:
                self._forget(room.key)

    def like(self, room: Room, count: int) -> None:
        """Somebody in the room likes it, `count` times."""
        self._counts_of(room.key).likes += count
        if self.elsewhere is not None:
            self.elsewhere.counted(room.key, likes=count, visits=0)
        self._changed(room.key)

    def online(self, room: Room) -> int:
        """How many are in the room, on whichever instance."""
        return len(room.members) + (0 if self.elsewhere is None else self.elsewhere.others(room.key))

    def members(self, app_id: int, room_id: int) -> int:
        """How many are in a room, on whichever instance."""
        room = self._hub.find_room(app_id, room_id)
        if room is not None:
            return self.online(room)
        return 0 if self.elsewhere is None else self.elsewhere.others((app_id, room_id))

    def likes(self, app_id: int, room_id: int) -> int:
        """How many likes the room has."""
        return self.counts(app_id, room_id).likes

    def counts(self, app_id: int, room_id: int) -> Counts:
        """What was counted of the room; not to be changed."""
        return self._counts.get((app_id, room_id)) or Counts()

    def keep_counts(self, app_id: int, room_id: int, *, likes: int, visits: int = 0, peak: int = 0) -> None:
        """This is a living room, and had these counts when they were last written; what is counted since stands."""
        key = (app_id, room_id)
        if key not in self._kept:
            self._kept.add(key)
            counts = self._counts_of(key)
            counts.likes += likes
            counts.visits += visits
            counts.peak = max(counts.peak, peak)

    def closed(self, app_id: int, room_id: int) -> None:
        """The living room is no more: those who are in it yet are told."""
        likes = self.likes(app_id, room_id)
        self._forget((app_id, room_id))
        room = self._hub.find_room(app_id, room_id)
        if room is None:
            return
        self._spent.pop(room, None)
        event = RoomEvent(room_id=room_id, event="closed", online=0, good_num=likes)
        self._router.to_room(room, self._publication(room, event, Kind.KEPT))

    def picture(self, app_id: int, room_id: int, is_on: bool) -> None:
        """The room's picture is on air from here on, or no longer."""
        room = self._hub.find_room(app_id, room_id)
        if room is not None:
            event = RoomEvent(
                room_id=room_id,
                event="onAir" if is_on else "offAir",
                online=self.online(room),
                good_num=self._good(room),
            )
            self._router.to_room(room, self._publication(room, event))

    def moderated(self, room_id: int, user_id: int, event: str) -> None:
        """A user of app 10001 was `muted`, `unmuted` or `removed`: the members are told, and who is removed is out."""
        room = self._hub.find_room(APP_ID, room_id)
        if room is None:
            return
        session = self._hub.find(APP_ID, user_id)
        data = RoomEvent(
            room_id=room_id,
            event=event,
            user_id=user_id,
            sender_name=session.nickname if session is not None else "",
            online=self.online(room),
            good_num=self._good(room),
        )
        self._router.to_room(room, self._publication(room, data, Kind.KEPT))
        if event == "removed" and session is not None and session.room is room:
            self._hub.leave(session)
            self.left(session, room)

    def tick(self) -> None:
        """Once a second: tell each room in which something changed how it stands."""
        self._spent.clear()
        untold, self._untold = self._untold, set()
        if not self._send_events:
            return
        for app_id, room_id in untold:
            room = self._hub.find_room(app_id, room_id)
            if room is not None:
                event = RoomEvent(room_id=room_id, event="count", online=self.online(room), good_num=self._good(room))
                self._router.to_room(room, self._publication(room, event))

    def take_unstored(self) -> set[tuple[int, int]]:
        """The living rooms, by (app, room), whose counts are to be written; they are not given again."""
        taken, self._unstored = self._unstored, set()
        taken &= self._kept
        return taken if self.elsewhere is None else {key for key in taken if self.elsewhere.is_home(key)}

    def put_back_unstored(self, keys: Iterable[tuple[int, int]]) -> None:
        """They could not be written."""
        self._unstored.update(keys)

    # What other instances say

    def is_counted_here(self, app_id: int, room_id: int) -> bool:
        """Whether what is counted here is all there is of a room."""
        return self.elsewhere is None or self.elsewhere.is_counted_here((app_id, room_id))

    def reported(self, key: tuple[int, int], *, likes: int, visits: int) -> None:
        """So much was counted on another instance, and is added up here."""
        counts = self._counts_of(key)
        counts.likes += likes
        counts.visits += visits
        self._changed(key)

    def told(self, key: tuple[int, int], *, likes: int) -> None:
        """So many likes a room has where they are added up."""
        counts = self._counts_of(key)
        counts.likes = max(counts.likes, likes)
        self._untold.add(key)

    def recount(self, key: tuple[int, int]) -> None:
        """How many there are has changed elsewhere."""
        self._changed(key)

    def peaked(self, key: tuple[int, int]) -> int:
        """How many are in a room now, wherever: perhaps as many as never before."""
        online = self.members(*key)
        counts = self._counts_of(key)
        counts.peak = max(counts.peak, online)
        return online

    def happened_elsewhere(self, key: tuple[int, int], data: bytes) -> None:
        """Somebody entered or left on another instance: the members here are told, within the same budget."""
        self._changed(key)
        room = self._hub.find_room(*key)
        if room is None:
            return
        spent = self._spent.get(room, 0) + len(room.members)
        if spent > self._deliveries or not self._send_events:
            return
        self._spent[room] = spent
        self._router.to_room(
            room, Publication(app_id=room.app_id, biz_code=BizCode.ROOM_EVENT, data=data, kind=Kind.MERGEABLE)
        )

    def forget_unused(self, used: Container[tuple[int, int]]) -> None:
        """What was counted of rooms that are no living rooms, and that nobody here has to do with any longer."""
        for key in [key for key in self._counts if key not in used and key not in self._kept]:
            self._forget(key)

    def _counts_of(self, key: tuple[int, int]) -> Counts:
        counts = self._counts.get(key)
        if counts is None:
            counts = self._counts[key] = Counts()
        return counts

    def _changed(self, key: tuple[int, int]) -> None:
        self._untold.add(key)
        self._unstored.add(key)

    def _forget(self, key: tuple[int, int]) -> None:
        self._counts.pop(key, None)
        self._kept.discard(key)
        self._untold.discard(key)
        self._unstored.discard(key)

    def _tell(self, room: Room, session: Session, event: str) -> None:
        receivers = len(room.members)
        spent = self._spent.get(room, 0) + receivers
        if spent > self._deliveries or not self._send_events:
            return
        self._spent[room] = spent
        data = RoomEvent(
            room_id=room.id,
            event=event,
            user_id=session.user_id,
            sender_name=session.nickname,
            online=self.online(room),
            good_num=self._good(room),
        )
        self._router.to_room(room, self._publication(room, data), session)
        if self.elsewhere is not None:
            self.elsewhere.happened(room.key, encode_json(data))

    def _good(self, room: Room) -> int:
        return self.likes(*room.key)

    @staticmethod
    def _publication(room: Room, event: RoomEvent, kind: Kind = Kind.MERGEABLE) -> Publication:
        return Publication(app_id=room.app_id, biz_code=BizCode.ROOM_EVENT, data=encode_json(event), kind=kind)
