"""Judges a record when all is over: was everything kept that clients were promised?

What is promised, and with it each kind of `Fault`:

- What is received was sent (INVENTED), and as it was sent: content, sender, target (ALTERED). One message has one
  msgId, in every receipt and at every receiver, however often it is resent (TWO_IDS), and one msgId is one message
  (SHARED_ID).
- A receipt answers something that asked for one (UNSENT_RECEIPT). A message whose every send was refused with 400,
  403, 404, 409 or 507 is neither receipted nor delivered (REFUSED_YET_ACCEPTED); after any other refusal it may be.
- A direct message comes to its receiver only, a room message to connections that entered the room (MISDELIVERED), and
  never to its sender (ECHOED).
- A message may come again: to a later connection, by catch-up after another entry, or unacknowledged after the retry
  time; on one connection it does not come twice within that time (TOO_SOON). For room messages that holds within one
  stay, since a client that enters again asks for them again.
- A direct message with a confirmed ACK does not come to a connection that began after it, unless the server was
  killed between the confirmation and the copy (ACKNOWLEDGED_AGAIN).
- Messages of one connection to one target arrive in the order sent (OUT_OF_ORDER). See "Order" below.
- In one stay in a room msgIds grow from one arrival to the next (NOT_GROWING). Only a message's first arrival on the
  connection counts: what is redelivered, or asked for again with an older afterMsgId in a later stay, comes when it
  comes.
- A stay has no hole (HOLE). See "Holes" below.
- When all is drained, every receipted direct message was received by its receiver (LOST), and every send with a
  clientMsgId on a connection that is still open has a receipt or a refusal after it (UNANSWERED).

Order. A message that was resent was accepted at one of its sends; nobody can tell at which, but it was at one before
the first receipt, so later sends do not count. A is sure to have been accepted before B if A's last counting send
came before B's first send, both on one connection, and that send of A was not in doubt: A asked for no receipt, or
got it on that very connection with no refusal between. (A 503 may hide that A was stored: then it is delivered when
it is found.) That is "a resend counts at its resend" made sound. Of two such messages:

- in a room, if both first arrive on a connection within one stay, A does so before B. Across stays and connections
  nothing follows: A may have been dropped or lost with a connection, and come by catch-up long after B.
- directly, A's first arrival over all connections of the receiver is before B's. When B was sent to a connection, A
  had been accepted: either A went to it before (TCP keeps the order), or to an earlier connection that ended without
  an ACK for it, and then it is replayed at the login, before B. The one exception is in the clients: if A is read
  late from an older connection than one that was read from already, that is no news about the server. So arrivals on
  a connection older than the newest the receiver has read a direct message from are not judged.

Holes. In a stay, no room message of another user is missing between two arrivals, unless the client was told of a
drop between the two (ERROR 206). With recovered = true the same holds between afterMsgId and the first arrival; if
all is drained and the stay is still open, also from the last arrival on. A message is missing if it did not arrive on
that connection at all, was not refused for good, and

- was receipted, or was received by anybody and first sent in the time between kills in which the stay began: a kill
  takes with it what was delivered but not yet stored, and nothing promises that it does not;
- is sure to belong to the stay: the stay is recovered, or the arrival before it was itself sent after the entry, or
  it was;
- was not refused with 503 before its receipt. If it was, it may have been found stored when others had long gone on,
  and it is due only in a recovered stay that began after its receipt.

A message without a clientMsgId may be lost; when it is not, all the rest holds for it as well.

Several instances (`several`). What one of them has delivered without a receipt may be lost to the others with it, so
nobody misses that. What was sent again on another connection, which may lead to another instance, counts as sent there.
An ACK that one instance takes is written with its next batch, and until then another may send the message again.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

from history.record import (
    Acknowledged,
    Connected,
    Disconnected,
    Dropped,
    Entered,
    Event,
    History,
    Killed,
    Left,
    Receipted,
    Received,
    Refused,
    Room,
    Sent,
    User,
)

REFUSED_FOR_GOOD = frozenset({400, 403, 404, 409, 507})

CLOCK_SLACK = 1e-6
"""Sums of floating-point seconds are not exact."""

DIGITS = 19


class Kind(Enum):
    """What is wrong."""

    INVENTED = "nobody sent it"
    ALTERED = "not as it was sent"
    TWO_IDS = "one message under two msgIds"
    SHARED_ID = "one msgId for two messages"
    UNSENT_RECEIPT = "a receipt for nothing"
    REFUSED_YET_ACCEPTED = "refused for good, and accepted"
    MISDELIVERED = "at somebody whom it is not for"
    ECHOED = "a room message back at its sender"
    TOO_SOON = "twice on one connection within the retry time"
    ACKNOWLEDGED_AGAIN = "sent again after its ACK"
    OUT_OF_ORDER = "not in the order sent"
    NOT_GROWING = "msgIds do not grow"
    HOLE = "missing in a room"
    LOST = "receipted, and never received"
    UNANSWERED = "neither receipted nor refused"


class Fault(NamedTuple):
    """A promise that was not kept."""

    at: float
    kind: Kind
    text: str


def judge(history: History, *, retry_seconds: float = 4.0, drained: bool = True, several: bool = False) -> list[Fault]:
    """All faults by time; what only the end can tell is judged if all is `drained`."""
    events = sorted(history.events, key=lambda event: event.at)
    book = _Book(events)
    walk = _Walk(events, book, retry_seconds, several=several)
    faults = [*book.faults, *book.refused_yet_accepted(), *walk.faults, *walk.holes(drained=drained)]
    if drained:
        faults += [*book.lost(), *walk.unanswered()]
    return sorted(faults, key=lambda fault: fault.at)


@dataclass(slots=True, eq=False)
class _Message:
    """A message, and what became of it. `first` and the like are places in the record."""

    sent: Sent
    first: int
    epoch: int
    """How many kills there were before its first send."""
    last: int
    last_on: Hashable
    """The last send that counts, and the connection it was on."""
    settled: bool
    """It is sure to have been accepted when its last send that counts was handled, if it was accepted at all."""
    refused_since: bool = False
    doubtful: bool = False
    receipt: int | None = None
    receipted_at: float = 0.0
    reached: bool = False
    """Its one receiver has it."""
    ids: list[str] = field(default_factory=list)
    accepted_at: float = 0.0
    sends: Counter[Hashable] = field(default_factory=Counter)
    refusals: Counter[Hashable] = field(default_factory=Counter)

    @property
    def refused_for_good(self) -> bool:
        return all(self.refusals[connection] >= count for connection, count in self.sends.items())

    def __str__(self) -> str:
        client = f" ({self.sent.client_msg_id})" if self.sent.client_msg_id else ""
        return f"{self.sent.key!r}{client} of {self.sent.sender} for {self.sent.target}"


class _Book:
    """The first reading: which messages there are, and which msgIds are theirs."""

    def __init__(self, events: list[Event]) -> None:
        self.faults: list[Fault] = []
        self.messages: dict[Hashable, _Message] = {}
        self.by_content: dict[str, _Message] = {}
        self.owners: dict[str, _Message] = {}
        self._by_client_id: dict[tuple[int, str], list[_Message]] = {}
        self._receipts: dict[tuple[int, str], str] = {}
        self._unanswered: dict[tuple[Hashable, str], list[_Message]] = {}
        self._kills = 0
        self._contents = {event.msg_id: event.content for event in events if isinstance(event, Received)}
        _read(events, {Sent: self._sent, Receipted: self._receipted, Refused: self._refused, Received: self._received,
                       Killed: self._killed})  # fmt: skip

    def room_messages(self) -> dict[int, list[tuple[str, _Message]]]:
        """Those that were accepted, by room and msgId."""
        rooms: dict[int, list[tuple[str, _Message]]] = {}
        for message in self.messages.values():
            if isinstance(message.sent.target, Room) and message.ids and not message.refused_for_good:
                rooms.setdefault(message.sent.target.id, []).append((message.ids[0], message))
        for messages in rooms.values():
            messages.sort(key=lambda pair: pair[0])
        return rooms

    def refused_yet_accepted(self) -> Iterator[Fault]:
        for message in self.messages.values():
            if message.ids and message.refused_for_good:
                text = f"{message} was refused for good, and is {message.ids[0]}"
                yield Fault(message.accepted_at, Kind.REFUSED_YET_ACCEPTED, text)

    def lost(self) -> Iterator[Fault]:
        for message in self.messages.values():
            if isinstance(message.sent.target, User) and message.receipt is not None and not message.reached:
                text = f"{message} was receipted as {message.ids[0]}, and its receiver never got it"
                yield Fault(message.receipted_at, Kind.LOST, text)

    def _sent(self, index: int, event: Sent) -> None:
        message = self.messages.get(event.key) or self._new(index, event)
        message.sends[event.connection] += 1
        if message.receipt is None:
            message.last, message.last_on, message.refused_since = index, event.connection, False
        self._unanswered.setdefault((event.connection, event.client_msg_id), []).append(message)

    def _new(self, index: int, event: Sent) -> _Message:
        message = _Message(
            sent=event,
            first=index,
            epoch=self._kills,
            last=index,
            last_on=event.connection,
            settled=not event.client_msg_id,
        )
        self.messages[event.key] = self.by_content[event.content] = message
        if event.client_msg_id:
            self._by_client_id.setdefault((event.sender, event.client_msg_id), []).append(message)
        return message

    def _receipted(self, index: int, event: Receipted) -> None:
        name = event.sender, event.client_msg_id
        if name not in self._by_client_id:
            text = f"{event.sender} got {event.msg_id} as the receipt for {event.client_msg_id!r}, never sent"
            self.faults.append(Fault(event.at, Kind.UNSENT_RECEIPT, text))
            return
        message = self._receipted_one(event)
        first = self._receipts.setdefault(name, event.msg_id)
        if self._claim(event.at, message, event.msg_id) and first != event.msg_id:
            text = f"{event.client_msg_id!r} of {event.sender} was receipted as {first}, and as {event.msg_id}"
            self.faults.append(Fault(event.at, Kind.TWO_IDS, text))
        if message.receipt is None:
            message.receipt, message.receipted_at = index, event.at
            message.settled = event.connection == message.last_on and not message.refused_since
        self._answered(event.connection, message)

    def _receipted_one(self, event: Receipted) -> _Message:
        """Which message is meant, if one clientMsgId was used for several: the others should find a 409."""
        group = self._by_client_id[event.sender, event.client_msg_id]
        meant = self.by_content.get(self._contents.get(event.msg_id, ""))
        if meant in group:
            return meant
        waiting = self._waiting(event.connection, event.client_msg_id)
        return waiting or next((message for message in group if not message.refused_for_good), group[0])

    def _refused(self, index: int, event: Refused) -> None:
        for message in self._by_client_id.get((event.sender, event.client_msg_id), []):
            message.refused_since = True
            message.doubtful |= event.code not in REFUSED_FOR_GOOD and message.receipt is None
        refused = self.messages.get(event.key) if event.key is not None else None
        if refused is None and event.client_msg_id:
            refused = self._waiting(event.connection, event.client_msg_id)
        if refused is not None:
            refused.refusals[event.connection] += event.code in REFUSED_FOR_GOOD
            self._answered(event.connection, refused)

    def _waiting(self, connection: Hashable, client_msg_id: str) -> _Message | None:
        """What waits for an answer there, if that can be only one message."""
        waiting = set(self._unanswered.get((connection, client_msg_id), []))
        return waiting.pop() if len(waiting) == 1 else None

    def _answered(self, connection: Hashable, message: _Message) -> None:
        waiting = self._unanswered.get((connection, message.sent.client_msg_id), [])
        if message in waiting:
            waiting.remove(message)

    def _received(self, index: int, event: Received) -> None:
        message = self.by_content.get(event.content)
        if message is not None:
            self._claim(event.at, message, event.msg_id)

    def _claim(self, at: float, message: _Message, msg_id: str) -> bool:
        """Whether the msgId is the message's own; what it is not is said only once."""
        owner = self.owners.setdefault(msg_id, message)
        if msg_id in message.ids:
            return True
        if owner is not message:
            self.faults.append(Fault(at, Kind.SHARED_ID, f"{msg_id} is both {owner} and {message}"))
        if message.ids:
            self.faults.append(Fault(at, Kind.TWO_IDS, f"{message} is both {message.ids[0]} and {msg_id}"))
        else:
            message.accepted_at = at
        message.ids.append(msg_id)
        return len(message.ids) == 1

    def _killed(self, index: int, event: Killed) -> None:
        self._kills += 1


_Places = dict[Hashable, _Message]
"""Of what arrived from each sending connection, the message that was sent last."""


@dataclass(slots=True, eq=False)
class _Stay:
    """A client in a room, from an entry to the next, to a leave, or to the end of the connection."""

    entry: Entered
    index: int
    epoch: int
    start: str
    """From here on msgIds are this stay's."""
    seen: set[_Message]
    """What has arrived on the connection."""
    is_open: bool = True
    told: bool = False
    """It was told of a drop since the last arrival."""
    highest: str = ""
    arrivals: list[tuple[str, _Message, bool]] = field(default_factory=list)
    """Each with whether a drop was told of before it."""
    places: _Places = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Link:
    """A connection."""

    born: int
    rooms: set[int] = field(default_factory=set)
    stay: _Stay | None = None
    seen: set[_Message] = field(default_factory=set)
    copies: dict[str, tuple[float, _Stay | None]] = field(default_factory=dict)
    """When each msgId came last, and during which stay."""
    unanswered: dict[str, Sent] = field(default_factory=dict)

    def end_stay(self) -> None:
        if self.stay is not None:
            self.stay.is_open = False


class _Receiver:
    """A user, over all its connections, as a receiver of direct messages."""

    def __init__(self) -> None:
        self.newest = -1
        """When the newest connection that it has read one from began."""
        self.places: _Places = {}
        self.acknowledged: dict[str, tuple[int, int]] = {}
        """The place of each confirmed ACK, and how many kills there were before."""


class _Walk:
    """The second reading: each connection's course."""

    def __init__(self, events: list[Event], book: _Book, retry_seconds: float, *, several: bool) -> None:
        self._several = several
        self.faults: list[Fault] = []
        self._book = book
        self._retry_seconds = retry_seconds
        self._links: dict[Hashable, _Link] = {}
        self._open: dict[Hashable, _Link] = {}
        self._receivers: dict[int, _Receiver] = {}
        self._stays: list[_Stay] = []
        self._kills = 0
        self._highest = ""
        _read(events, {Sent: self._sent, Receipted: self._receipted, Refused: self._refused, Received: self._received,
                       Connected: self._connected, Disconnected: self._disconnected, Entered: self._entered,
                       Left: self._left, Dropped: self._dropped, Acknowledged: self._acknowledged,
                       Killed: self._killed})  # fmt: skip

    def holes(self, *, drained: bool) -> Iterator[Fault]:
        rooms = self._book.room_messages()
        for stay in self._stays:
            messages = rooms.get(stay.entry.room, [])
            if self._several:
                messages = [pair for pair in messages if pair[1].receipt is not None]
            yield from _holes(stay, messages, to_the_end=drained and stay.is_open)

    def unanswered(self) -> Iterator[Fault]:
        for link in self._open.values():
            for event in link.unanswered.values():
                text = f"{event.key!r} ({event.client_msg_id}) of {event.sender} has no answer on {event.connection!r}"
                yield Fault(event.at, Kind.UNANSWERED, text)

    def _link(self, index: int, connection: Hashable) -> _Link:
        if connection not in self._links:
            self._links[connection] = self._open[connection] = _Link(index)
        return self._links[connection]

    def _receiver(self, user: int) -> _Receiver:
        return self._receivers.setdefault(user, _Receiver())

    def _connected(self, index: int, event: Connected) -> None:
        self._link(index, event.connection)

    def _disconnected(self, index: int, event: Disconnected) -> None:
        self._link(index, event.connection).end_stay()
        self._open.pop(event.connection, None)

    def _killed(self, index: int, event: Killed) -> None:
        self._kills += 1
        for link in self._open.values():
            link.end_stay()
        self._open.clear()

    def _sent(self, index: int, event: Sent) -> None:
        if event.client_msg_id:
            self._link(index, event.connection).unanswered[event.client_msg_id] = event

    def _receipted(self, index: int, event: Receipted) -> None:
        self._highest = max(self._highest, event.msg_id)
        self._link(index, event.connection).unanswered.pop(event.client_msg_id, None)

    def _refused(self, index: int, event: Refused) -> None:
        message = self._book.messages.get(event.key)
        client_msg_id = event.client_msg_id or (message.sent.client_msg_id if message is not None else "")
        self._link(index, event.connection).unanswered.pop(client_msg_id, None)

    def _entered(self, index: int, event: Entered) -> None:
        link = self._link(index, event.connection)
        link.end_stay()
        link.rooms.add(event.room)
        # What is sent after the entry has a msgId above all that anybody has seen by now.
        start = event.after.zfill(DIGITS) if event.recovered else self._highest
        link.stay = _Stay(entry=event, index=index, epoch=self._kills, start=start, seen=link.seen)
        self._stays.append(link.stay)

    def _left(self, index: int, event: Left) -> None:
        link = self._link(index, event.connection)
        link.end_stay()
        link.stay = None

    def _dropped(self, index: int, event: Dropped) -> None:
        stay = self._link(index, event.connection).stay
        if stay is not None:
            stay.told = True

    def _acknowledged(self, index: int, event: Acknowledged) -> None:
        if event.confirmed:
            self._receiver(event.user).acknowledged[event.msg_id] = index, self._kills

    def _received(self, index: int, event: Received) -> None:
        link = self._link(index, event.connection)
        self._highest = max(self._highest, event.msg_id)
        message = self._identified(index, event)
        if message is None or not self._is_for(link, event, message):
            return
        self._check_interval(link, event, message)
        if isinstance(message.sent.target, User):
            self._direct(index, link, event, message)
        else:
            self._in_room(link, event, message)
        link.seen.add(message)

    def _identified(self, index: int, event: Received) -> _Message | None:
        """What was received: by its content, or else (and that is a fault) by its msgId."""
        message = self._book.by_content.get(event.content)
        altered = message is None
        if message is None:
            message = self._book.owners.get(event.msg_id)
        if message is None or message.first > index:
            self._fault(event, Kind.INVENTED, f"{event.content!r} of {event.sender}, which nobody had sent")
            return None
        if altered or event.sender != message.sent.sender or event.target != message.sent.target:
            what = f"{message} with {message.sent.content!r}"
            self._fault(event, Kind.ALTERED, f"{what} as {event.content!r} of {event.sender} for {event.target}")
        return message

    def _is_for(self, link: _Link, event: Received, message: _Message) -> bool:
        target = message.sent.target
        if isinstance(target, Room) and event.user == message.sent.sender:
            self._fault(event, Kind.ECHOED, f"its own {message}")
            return False
        if event.user == target.id if isinstance(target, User) else target.id in link.rooms:
            return True
        self._fault(event, Kind.MISDELIVERED, f"{message}, which is not for it")
        return False

    def _check_interval(self, link: _Link, event: Received, message: _Message) -> None:
        stay = link.stay if isinstance(message.sent.target, Room) else None
        before, then = link.copies.get(event.msg_id, (None, None))
        link.copies[event.msg_id] = event.at, stay
        if before is not None and stay is then and event.at - before < self._retry_seconds - CLOCK_SLACK:
            self._fault(event, Kind.TOO_SOON, f"{message} again {event.at - before:.3f} s after the copy before")

    def _direct(self, index: int, link: _Link, event: Received, message: _Message) -> None:
        receiver = self._receiver(event.user)
        acknowledged, kills = receiver.acknowledged.get(event.msg_id, (index, 0))
        if acknowledged < link.born and kills == self._kills and not self._several:
            self._fault(event, Kind.ACKNOWLEDGED_AGAIN, f"{message}, acknowledged before this connection began")
        if not message.reached and link.born >= receiver.newest:
            receiver.newest = link.born
            self._check_order(receiver.places, event, message)
        message.reached = True

    def _in_room(self, link: _Link, event: Received, message: _Message) -> None:
        stay = link.stay
        if message in link.seen or stay is None or Room(stay.entry.room) != message.sent.target:
            return
        if event.msg_id <= stay.highest:
            self._fault(event, Kind.NOT_GROWING, f"{message} after {stay.highest}")
        stay.highest = max(stay.highest, event.msg_id)
        stay.arrivals.append((event.msg_id, message, stay.told))
        stay.told = False
        self._check_order(stay.places, event, message)

    def _check_order(self, places: _Places, event: Received, message: _Message) -> None:
        later = places.get(message.last_on)
        if later is None or not message.settled or later.first <= message.last:
            pass
        elif not self._several or len(message.sends) == len(later.sends) == 1:
            # Of two, one of which was sent again on another connection, that one may count as sent there.
            self._fault(event, Kind.OUT_OF_ORDER, f"{message} after {later}, which was sent later")
        origin = message.sent.connection
        if origin not in places or places[origin].first < message.first:
            places[origin] = message

    def _fault(self, event: Received, kind: Kind, text: str) -> None:
        where = f"{event.user} on {event.connection!r} got {event.msg_id}"
        self.faults.append(Fault(event.at, kind, f"{where}: {text}"))


def _holes(stay: _Stay, messages: list[tuple[str, _Message]], *, to_the_end: bool) -> Iterator[Fault]:
    low, is_live = stay.start, False
    for msg_id, message, told in stay.arrivals:
        if msg_id <= low:
            continue
        if not told:
            yield from _missing(stay, _between(messages, low, msg_id), is_live=is_live)
        low, is_live = msg_id, message.first > stay.index
    if to_the_end and not stay.told:
        yield from _missing(stay, _between(messages, low, ""), is_live=is_live)


def _between(messages: list[tuple[str, _Message]], low: str, high: str) -> list[_Message]:
    """Those with msgIds between the two; with no `high`, all above `low`."""
    begin = bisect_right(messages, low, key=lambda pair: pair[0])
    end = bisect_left(messages, high, key=lambda pair: pair[0]) if high else len(messages)
    return [message for _, message in messages[begin:end]]


def _missing(stay: _Stay, messages: list[_Message], *, is_live: bool) -> Iterator[Fault]:
    for message in messages:
        if message not in stay.seen and _is_due(stay, message, is_live=is_live):
            where = f"{stay.entry.user} on {stay.entry.connection!r} in room {stay.entry.room}"
            text = f"{where} (after {stay.entry.after!r}, recovered {stay.entry.recovered}) never got {message.ids[0]}"
            yield Fault(max(stay.entry.at, message.accepted_at), Kind.HOLE, f"{text}: {message}")


def _is_due(stay: _Stay, message: _Message, *, is_live: bool) -> bool:
    recovered = stay.entry.recovered is True
    if message.sent.sender == stay.entry.user:
        return False
    if message.doubtful:
        return recovered and message.receipt is not None and message.receipt < stay.index
    if message.receipt is None and message.epoch != stay.epoch:
        return False
    return recovered or is_live or message.first > stay.index


def _read(events: Iterable[Event], readers: dict[type[Any], Callable[[int, Any], None]]) -> None:
    for index, event in enumerate(events):
        reader = readers.get(type(event))
        if reader is not None:
            reader(index, event)
