"""Where rooms are at home, as one instance sees it: it has the home itself, or is subscribed to it, or is finding out.

The database says who has a home, and gives it to another only where that one has released it or is fenced. Whoever has
it accepts, orders and stores what is said in the room, and sends each message once to every instance that subscribed.

    state     what it means
    -------   -----------------------------------------------------------------------------------------
    LOOKING   the database is asked who has the home, which is claimed where nobody has it
    HOME      here
    JOINING   at `holder`, who has not answered a SUBSCRIBE yet, or cannot be reached
    JOINED    at `holder`, who sends all that is said after `last`
    LEAVING   here, but not for long: nothing more is accepted, and when all is settled it is released

`TRANSITIONS` has every way from one to another. What comes late (an answer from a home that has moved meanwhile) finds
no way there, and is dropped.

Whoever is in the room stays in it while its home moves, for up to `lost_seconds`. Messages reach members in the order
of their ids, and none twice: what a home sends is taken only from the holder, only when JOINED, and only above `last`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final, NamedTuple, Protocol

from qiyu.metrics import Metrics
from qiyu.model import InstanceId
from qiyu.protocol.links import (
    Handover,
    LinkMessage,
    NotHome,
    RoomMessage,
    StoredMessage,
    Subscribe,
    Subscribed,
    Unsubscribe,
)

CLAIMS_AT_ONCE: Final = 200
RELEASES_AT_ONCE: Final = 200
AGAIN_SECONDS: Final = (0.05, 1.0)
"""Between two looks into the database for the home of one room: the first and the longest wait."""
EMPTY_SECONDS: Final = 60.0
"""A home with nobody in the room is kept so long: people come back, and a claim is a transaction."""
LOST_SECONDS: Final = 10.0


class RoomKey(NamedTuple):
    """A room of an app."""

    app_id: int
    room_id: int


class State(Enum):
    """See the table above."""

    LOOKING = auto()
    HOME = auto()
    JOINING = auto()
    JOINED = auto()
    LEAVING = auto()


class Event(Enum):
    """What happens to a room."""

    CLAIMED = auto()
    """The database says that the home is here."""
    HELD = auto()
    """It says that another instance has it."""
    SUBSCRIBED = auto()
    """The holder has answered."""
    LINK_LOST = auto()
    """To the holder."""
    MOVED = auto()
    """The holder says that it is not, or no longer, there; or it was fenced; or it cannot be reached."""
    LEAVE = auto()
    """This instance gives the home up."""
    RELEASED = auto()
    """The database knows that."""


_S, _E = State, Event
TRANSITIONS: Final[Mapping[tuple[State, Event], State]] = {
    (_S.LOOKING, _E.CLAIMED): _S.HOME,
    (_S.LOOKING, _E.HELD): _S.JOINING,
    (_S.JOINING, _E.SUBSCRIBED): _S.JOINED,
    (_S.JOINING, _E.LINK_LOST): _S.JOINING,
    (_S.JOINING, _E.MOVED): _S.LOOKING,
    (_S.JOINED, _E.LINK_LOST): _S.JOINING,
    (_S.JOINED, _E.MOVED): _S.LOOKING,
    (_S.HOME, _E.LEAVE): _S.LEAVING,
    (_S.LEAVING, _E.RELEASED): _S.LOOKING,
}
"""A room that nobody here wants any longer leaves the table from JOINING, JOINED (it unsubscribes) and from LEAVING."""


class Claimed(NamedTuple):
    """What the database says of a room: who has its home, and the largest msgId stored in it (0 for none).

    `term` is another one after each claim. A release names it: one that was thought lost, and is carried out late, must
    not take away a home that was claimed again meanwhile.
    """

    holder: InstanceId
    last_msg_id: int
    term: int


class Release(NamedTuple):
    """A home to be given up."""

    key: RoomKey
    term: int


class RoomSide(Protocol):
    """The room as it is on this instance: its members, its ring, what they say."""

    def became_home(self, key: RoomKey, after: int, last_msg_id: int) -> None:
        """From now on this instance orders the room: its ids come after `last_msg_id`, and those who wait may enter.

        Members who are here already have all up to `after` (0: none are), and get the rest from the database.
        """
        ...

    def joined(self, key: RoomKey, after: int, answer: Subscribed) -> None:
        """Those who wait may enter; members who are here have all up to `after` (0: none are), and get the rest."""
        ...

    def deliver(self, key: RoomKey, message: StoredMessage) -> None:
        """To all members here but its sender."""
        ...

    def interrupted(self, key: RoomKey) -> None:
        """The room has no home that can be reached; what was forwarded and not answered goes to the next one."""
        ...

    def lost(self, key: RoomKey) -> None:
        """For too long: end the sessions of its members as `lost`, and refuse those who wait to enter."""
        ...

    def is_wanted(self, key: RoomKey) -> bool:
        """Whether anybody here is in it, waits to enter it, or waits for a receipt from it."""
        ...

    def members(self, key: RoomKey) -> int:
        """How many are in it here."""
        ...

    def is_settled(self, key: RoomKey) -> bool:
        """Whether all that was accepted for it here is stored or refused, and sent out."""
        ...

    def counts(self, key: RoomKey) -> tuple[int, int]:
        """How many are in it on all instances, and its likes."""
        ...

    def since(self, key: RoomKey, after: int) -> Sequence[StoredMessage] | None:
        """What was said after a msgId, from memory; None where that does not reach so far back, or it is too much."""
        ...


@dataclass(eq=False, slots=True)
class RoomHome:
    """One room in the table."""

    key: RoomKey
    changed_at: float
    """When it last had a home that could be reached, or was first wanted."""
    state: State = State.LOOKING
    holder: InstanceId | None = None
    last: int = 0
    """The last msgId that was sent out to members here; 0 where there have been none."""
    term: int = 0
    """Of a home."""
    reference: int = 0
    """Of the latest SUBSCRIBE."""
    subscribers: dict[InstanceId, int] = field(default_factory=dict)
    """Of a home, with how many members each has."""
    early: dict[InstanceId, Subscribe] = field(default_factory=dict)
    """SUBSCRIBEs to be answered when it is known whether the home is here."""
    wait: float = 0.0
    """Seconds before the database is asked again."""
    ask_at: float | None = None
    empty_since: float | None = None

    def __repr__(self) -> str:
        where = f" at {self.holder}" if self.holder is not None else ""
        return f"<RoomHome {self.key.app_id}/{self.key.room_id} {self.state.name}{where} last={self.last}>"

    @property
    def has_home(self) -> bool:
        """Whether what is said in it is accepted."""
        return self.state in {State.HOME, State.JOINED}


@dataclass(slots=True)
class Homes:
    """The table. Times are monotonic seconds; `send` is False where there is no open link to that instance."""

    me: InstanceId
    side: RoomSide
    send: Callable[[InstanceId, LinkMessage], bool]
    has_link: Callable[[InstanceId], bool]
    watch: Callable[[InstanceId], None]
    """An instance that may have to be judged: it holds a home."""
    metrics: Metrics
    lost_seconds: float = LOST_SECONDS
    empty_seconds: float = EMPTY_SECONDS
    wake: Callable[[], None] = lambda: None
    """Called when `take_claims` or `take_releases` have something to give."""
    is_draining: bool = False
    _rooms: dict[RoomKey, RoomHome] = field(default_factory=dict)
    _claims: dict[RoomKey, None] = field(default_factory=dict)
    _releases: dict[RoomKey, None] = field(default_factory=dict)
    _asked: set[RoomKey] = field(default_factory=set)
    """On their way to the database and back."""
    _subscribes: int = 0

    def __repr__(self) -> str:
        return f"<Homes rooms={len(self._rooms)} here={self.here}>"

    @property
    def here(self) -> int:
        """Rooms at home here."""
        return sum(room.state in {State.HOME, State.LEAVING} for room in self._rooms.values())

    @property
    def is_idle(self) -> bool:
        """No home is here, and the database is asked nothing: a draining instance may stop."""
        return not (self.here or self._claims or self._releases or self._asked)

    def rooms(self) -> list[RoomHome]:
        """All that are known of."""
        return list(self._rooms.values())

    def find(self, key: RoomKey) -> RoomHome | None:
        """What is known of a room."""
        return self._rooms.get(key)

    # What happens here

    def want(self, key: RoomKey, now: float) -> RoomHome:
        """Somebody here wants to enter this room, or another instance to subscribe to it."""
        room = self._rooms.get(key)
        if room is None:
            room = self._rooms[key] = RoomHome(key, now)
            self._look(room)
        room.empty_since = None
        return room

    def said(self, key: RoomKey, message: StoredMessage) -> None:
        """A message was stored and delivered to members here: to all who subscribed."""
        room = self._rooms.get(key)
        if room is None or room.state not in {State.HOME, State.LEAVING}:
            return
        room.last = max(room.last, message.msg_id)
        packet = RoomMessage(*key, message)
        for instance in [instance for instance in room.subscribers if not self.send(instance, packet)]:
            del room.subscribers[instance]  # it subscribes again when it has a link
        self.metrics.room_messages_sent_on += len(room.subscribers)

    def drain(self) -> None:
        """This instance is stopping: give up every home, and claim none."""
        self.is_draining = True
        for room in list(self._rooms.values()):
            if room.state is State.HOME:
                self._leave(room)

    def tick(self, now: float) -> None:
        """Time has passed; to be called several times a second."""
        for room in list(self._rooms.values()):
            if room.has_home:
                room.changed_at = now
            elif now - room.changed_at > self.lost_seconds:
                room.changed_at = now
                self.side.lost(room.key)
            self._ask_again(room, now)
            self._tidy(room, now)

    # What the database says

    def take_claims(self) -> list[RoomKey]:
        """Rooms whose home is to be looked up or claimed, in one transaction; to be followed by `claimed` or
        `claims_failed`."""
        return self._take(self._claims, CLAIMS_AT_ONCE)

    def claimed(self, claims: Mapping[RoomKey, Claimed], now: float) -> None:
        """Who has the homes of these rooms."""
        for key, claim in claims.items():
            self._asked.discard(key)
            room = self._rooms[key]
            if claim.holder == self.me:
                self._claimed(room, claim)
            else:
                self._held(room, claim.holder, now)

    def claims_failed(self, keys: Iterable[RoomKey], now: float) -> None:
        """The database did not answer; whether they were claimed is not known. Asked again, it says."""
        for key in keys:
            self._asked.discard(key)
            self._look_later(self._rooms[key], now)

    def take_releases(self) -> list[Release]:
        """Homes here that are to be released, in one transaction; to be followed by `released` or `releases_failed`."""
        return [Release(key, self._rooms[key].term) for key in self._take(self._releases, RELEASES_AT_ONCE)]

    def released(self, keys: Iterable[RoomKey], now: float) -> None:
        """Nobody has these homes now."""
        for key in keys:
            self._asked.discard(key)
            room = self._rooms[key]
            self._move(room, Event.RELEASED)
            self.metrics.homes_released += 1
            for instance in room.subscribers:
                self.send(instance, Handover(*key))
            for instance in room.early:
                self.send(instance, NotHome(*key))
            room.subscribers.clear()
            room.early.clear()
            if self.side.is_wanted(key) and not self.is_draining:
                self._look(room)
            else:
                self._look_later(room, now)

    def releases_failed(self, keys: Iterable[RoomKey]) -> None:
        """The database did not answer: once more, at the next `tick`."""
        for key in keys:
            self._asked.discard(key)

    # What other instances say

    def link_opened(self, instance: InstanceId, now: float) -> None:
        """Subscribe to what is at home there."""
        for room in self._rooms.values():
            if room.holder == instance and room.state is State.JOINING:
                self._subscribe(room, now)

    def link_lost(self, instance: InstanceId, now: float) -> None:
        """Neither side knows what the other has received."""
        for room in self._rooms.values():
            room.subscribers.pop(instance, None)
            room.early.pop(instance, None)
            if room.holder == instance and self._move(room, Event.LINK_LOST):
                room.ask_at = now + AGAIN_SECONDS[1]
                self.side.interrupted(room.key)

    def fenced(self, instance: InstanceId) -> None:
        """It does no more: whoever is first takes its homes."""
        for room in self._rooms.values():
            room.subscribers.pop(instance, None)
            room.early.pop(instance, None)
            if room.holder == instance:
                self._moved(room)

    def subscribe(self, sender: InstanceId, message: Subscribe, now: float) -> None:
        """Another instance wants what is said in a room."""
        room = self.want(RoomKey(message.app_id, message.room_id), now)
        if room.state is State.HOME:
            self._let_in(room, sender, message)
        elif room.state in {State.LOOKING, State.LEAVING}:
            room.early[sender] = message
        else:
            self.send(sender, NotHome(*room.key))

    def unsubscribe(self, sender: InstanceId, message: Unsubscribe) -> None:
        """Another instance has nobody in a room any longer."""
        room = self._rooms.get(RoomKey(message.app_id, message.room_id))
        if room is not None:
            room.subscribers.pop(sender, None)
            room.early.pop(sender, None)

    def subscribed(self, sender: InstanceId, message: Subscribed) -> None:
        """The holder has let this instance in."""
        room = self._of_holder(sender, message.app_id, message.room_id)
        if room is None or room.reference != message.reference or not self._move(room, Event.SUBSCRIBED):
            return
        after, room.last = self._last(room), max(room.last, message.last_msg_id)
        room.wait = 0.0
        room.ask_at = None
        self.side.joined(room.key, after, message)

    def not_home(self, sender: InstanceId, message: NotHome, now: float) -> None:
        """The room is at home elsewhere, or will be: look again, after a while."""
        room = self._of_holder(sender, message.app_id, message.room_id)
        if room is not None and self._move(room, Event.MOVED):
            room.holder = None
            self.side.interrupted(room.key)
            self._look_later(room, now)

    def handover(self, sender: InstanceId, message: Handover) -> None:
        """The home is to be had: claim it."""
        room = self._of_holder(sender, message.app_id, message.room_id)
        if room is not None:
            self._moved(room)

    def room_message(self, sender: InstanceId, message: RoomMessage) -> None:
        """The home has sent a message of the room."""
        room = self._of_holder(sender, message.app_id, message.room_id)
        if room is None or room.state is not State.JOINED or message.message.msg_id <= room.last:
            self.metrics.room_messages_ignored += 1
            return
        room.last = message.message.msg_id
        self.side.deliver(room.key, message.message)

    def accepts(self, sender: InstanceId, key: RoomKey) -> bool:
        """Whether a message that another instance has forwarded may be accepted here; else it is told to look again.

        Not while the home is being given up: HANDOVER follows, and then it forwards what it has no answer for.
        """
        room = self._rooms.get(key)
        if room is not None and room.state is State.HOME:
            return True
        if room is None or room.state is not State.LEAVING:
            self.send(sender, NotHome(*key))
        return False

    # Within

    def _move(self, room: RoomHome, event: Event) -> bool:
        """Whether there is such a way; then it was gone."""
        state = TRANSITIONS.get((room.state, event))
        if state is None:
            return False
        room.state = state
        return True

    def _take(self, waiting: dict[RoomKey, None], at_most: int) -> list[RoomKey]:
        keys = list(waiting)[:at_most]
        for key in keys:
            del waiting[key]
        self._asked.update(keys)
        return keys

    def _look(self, room: RoomHome) -> None:
        room.holder = None
        room.ask_at = None
        self._claims[room.key] = None
        self.wake()

    def _look_later(self, room: RoomHome, now: float) -> None:
        first, longest = AGAIN_SECONDS
        room.wait = min(2 * room.wait, longest) or first
        room.ask_at = now + room.wait

    def _ask_again(self, room: RoomHome, now: float) -> None:
        if room.ask_at is None or now < room.ask_at:
            return
        if room.state is State.JOINING and room.holder is not None:
            if self.has_link(room.holder):
                self._subscribe(room, now)  # whatever became of the answer to the first
                return
            self._move(room, Event.MOVED)  # it may be fenced by now
        if room.state is State.LOOKING and (self.side.is_wanted(room.key) or room.early) and not self.is_draining:
            self._look(room)

    def _tidy(self, room: RoomHome, now: float) -> None:
        """What nobody needs goes."""
        if room.state is State.LEAVING:
            if room.key not in self._asked and self.side.is_settled(room.key):
                self._releases[room.key] = None
                self.wake()
            return
        if self.side.is_wanted(room.key) or room.subscribers or room.early:
            room.empty_since = None
            return
        if room.key in self._claims or room.key in self._asked:
            return  # the database may say that the home is here
        if room.state is State.HOME:
            room.empty_since = now if room.empty_since is None else room.empty_since
            if now - room.empty_since >= self.empty_seconds:
                self._leave(room)
            return
        if room.holder is not None:
            self.send(room.holder, Unsubscribe(*room.key))
        del self._rooms[room.key]

    def _leave(self, room: RoomHome) -> None:
        self._move(room, Event.LEAVE)
        self.side.interrupted(room.key)

    def _claimed(self, room: RoomHome, claim: Claimed) -> None:
        self._move(room, Event.CLAIMED)
        self.metrics.homes_claimed += 1
        room.wait = 0.0
        room.term = claim.term
        after, room.last = self._last(room), max(room.last, claim.last_msg_id)
        if self.is_draining:
            self._leave(room)
            return
        self.side.became_home(room.key, after, claim.last_msg_id)
        early, room.early = room.early, {}
        for sender, message in early.items():
            self._let_in(room, sender, message)

    def _held(self, room: RoomHome, holder: InstanceId, now: float) -> None:
        self._move(room, Event.HELD)
        room.holder = holder
        self.watch(holder)
        for sender in room.early:
            self.send(sender, NotHome(*room.key))
        room.early.clear()
        self._subscribe(room, now)

    def _moved(self, room: RoomHome) -> None:
        if self._move(room, Event.MOVED):
            self.side.interrupted(room.key)
            self._look(room)

    def _subscribe(self, room: RoomHome, now: float) -> None:
        assert room.holder is not None  # noqa: S101  # of a room that is JOINING
        room.ask_at = now + AGAIN_SECONDS[1]
        if self.has_link(room.holder):
            self._subscribes += 1
            room.reference = self._subscribes
            members = self.side.members(room.key)
            self.send(room.holder, Subscribe(*room.key, room.reference, self._last(room), members))

    def _last(self, room: RoomHome) -> int:
        """What members here have: nobody misses anything where nobody is."""
        return room.last if self.side.members(room.key) else 0

    def _let_in(self, room: RoomHome, sender: InstanceId, message: Subscribe) -> None:
        # Members who have seen nothing yet, for nothing was said, miss what came since as much as others.
        missed = self.side.since(room.key, message.after) if message.after or message.members else ()
        is_complete = missed is not None
        room.subscribers[sender] = message.members
        online, likes = self.side.counts(room.key)
        answer = Subscribed(
            *room.key, message.reference, room.last, online, likes, is_complete=is_complete, missed=tuple(missed or ())
        )
        if not self.send(sender, answer):
            del room.subscribers[sender]

    def _of_holder(self, sender: InstanceId, app_id: int, room_id: int) -> RoomHome | None:
        room = self._rooms.get(RoomKey(app_id, room_id))
        return room if room is not None and room.holder == sender else None
