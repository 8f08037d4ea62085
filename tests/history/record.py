"""The record: what the clients of a server saw, written down as it happens.

It is plain data: no clock, no socket, times are arguments. Each call is made at the moment it names: `sent` before the
bytes go, everything else when the client has read it, each connection's in the order of its packets. In particular
`entered` stands where the answer to the entry was read (what is caught up comes after it) and `left` where the answer
to the leave, or the room's end, was read. Events of one time stay in the order they were recorded.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class Room:
    """All in a room."""

    id: int


@dataclass(frozen=True, slots=True)
class User:
    """One user."""

    id: int


Target = Room | User


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened."""

    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent(Event):
    connection: Hashable
    sender: int
    key: Hashable
    content: str
    target: Target
    client_msg_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipted(Event):
    connection: Hashable
    sender: int
    client_msg_id: str
    msg_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused(Event):
    connection: Hashable
    sender: int
    code: int
    client_msg_id: str
    key: Hashable


@dataclass(frozen=True, slots=True, kw_only=True)
class Connected(Event):
    connection: Hashable
    user: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Disconnected(Event):
    connection: Hashable


@dataclass(frozen=True, slots=True, kw_only=True)
class Entered(Event):
    connection: Hashable
    user: int
    room: int
    after: str
    recovered: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Left(Event):
    connection: Hashable


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped(Event):
    connection: Hashable


@dataclass(frozen=True, slots=True, kw_only=True)
class Received(Event):
    connection: Hashable
    user: int
    msg_id: str
    sender: int
    target: Target
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledged(Event):
    connection: Hashable
    user: int
    msg_id: str
    confirmed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Killed(Event):
    pass


class History:
    """The record. `key` names a message: it is the same for all its sends, and no two have the same content."""

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self.events = list(events)
        self._by_key: dict[Hashable, Sent] = {}
        self._contents: dict[str, Hashable] = {}

    def sent(
        self,
        at: float,
        *,
        connection: Hashable,
        sender: int,
        key: Hashable,
        content: str,
        target: Target,
        client_msg_id: str = "",
    ) -> None:
        """To be called before the bytes go; once more for each resend."""
        event = Sent(
            at=at,
            connection=connection,
            sender=sender,
            key=key,
            content=content,
            target=target,
            client_msg_id=client_msg_id,
        )
        self._check_identity(event)
        self.events.append(event)

    def receipted(self, at: float, *, connection: Hashable, sender: int, client_msg_id: str, msg_id: str) -> None:
        self.events.append(
            Receipted(at=at, connection=connection, sender=sender, client_msg_id=client_msg_id, msg_id=msg_id)
        )

    def refused(
        self,
        at: float,
        *,
        connection: Hashable,
        sender: int,
        code: int,
        client_msg_id: str = "",
        key: Hashable = None,
    ) -> None:
        """An ERROR to a message. Without a clientMsgId it is only counted, unless the caller knows the `key`."""
        self.events.append(
            Refused(at=at, connection=connection, sender=sender, code=code, client_msg_id=client_msg_id, key=key)
        )

    def connected(self, at: float, *, connection: Hashable, user: int) -> None:
        self.events.append(Connected(at=at, connection=connection, user=user))

    def disconnected(self, at: float, *, connection: Hashable) -> None:
        self.events.append(Disconnected(at=at, connection=connection))

    def entered(
        self,
        at: float,
        *,
        connection: Hashable,
        user: int,
        room: int,
        after: str = "",
        recovered: bool | None = None,
    ) -> None:
        """The answer to an entry; it ends the stay before, if there is one."""
        self.events.append(
            Entered(at=at, connection=connection, user=user, room=room, after=after, recovered=recovered)
        )

    def left(self, at: float, *, connection: Hashable) -> None:
        """The answer to a leave, or the news that the room was closed."""
        self.events.append(Left(at=at, connection=connection))

    def dropped(self, at: float, *, connection: Hashable) -> None:
        """ERROR 206."""
        self.events.append(Dropped(at=at, connection=connection))

    def received(
        self, at: float, *, connection: Hashable, user: int, msg_id: str, sender: int, target: Target, content: str
    ) -> None:
        self.events.append(
            Received(
                at=at, connection=connection, user=user, msg_id=msg_id, sender=sender, target=target, content=content
            )
        )

    def acknowledged(self, at: float, *, connection: Hashable, user: int, msg_id: str, confirmed: bool = False) -> None:
        """An ACK that was sent; and once more, `confirmed`, when it is known to have been handled."""
        self.events.append(Acknowledged(at=at, connection=connection, user=user, msg_id=msg_id, confirmed=confirmed))

    def killed(self, at: float) -> None:
        """The server process was killed: all connections end here, though what lies in sockets may be read after."""
        self.events.append(Killed(at=at))

    def summary(self) -> dict[str, int]:
        """How much there is of everything: a test that found no fault should also have had something to judge."""
        counts = Counter(type(event).__name__.lower() for event in self.events)
        sends = [event for event in self.events if isinstance(event, Sent)]
        received = [event for event in self.events if isinstance(event, Received)]
        entries = [event for event in self.events if isinstance(event, Entered)]
        names = [kind.__name__.lower() for kind in Event.__subclasses__()]
        return {name: counts[name] for name in names} | {
            "messages": len({event.key for event in sends}),
            "resends": len(sends) - len({event.key for event in sends}),
            "doubles": len(received) - len({(event.user, event.msg_id) for event in received}),
            "recovered": sum(event.recovered is True for event in entries),
        }

    def to_jsonl(self) -> str:
        """One line for each event, in the order recorded: for people, and grep."""
        return "".join(json.dumps(_plain(event), ensure_ascii=False, default=_jsonable) + "\n" for event in self.events)

    def _check_identity(self, event: Sent) -> None:
        """Nothing could be judged if the caller itself sent two things as one, or one thing as two."""
        first = self._by_key.setdefault(event.key, event)
        if _identity(first) != _identity(event) or self._contents.setdefault(event.content, event.key) != event.key:
            raise ValueError(f"{event.key!r} and {event.content!r} do not name one message")
        if first is not event and not event.client_msg_id:
            raise ValueError(f"{event.key!r} has no clientMsgId, so it cannot be resent")


def _identity(event: Sent) -> tuple[object, ...]:
    return event.sender, event.content, event.target, event.client_msg_id


def _plain(event: Event) -> dict[str, object]:
    return {"event": type(event).__name__.lower()} | {each.name: getattr(event, each.name) for each in fields(event)}


def _jsonable(value: object) -> object:
    if isinstance(value, Room | User):
        return {type(value).__name__.lower(): value.id}
    return repr(value)
