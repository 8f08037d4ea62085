"""The feed against the plain way: what each member is sent, and what it owes ACKs for, packet for packet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from itertools import count

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from harness import in_flight_of
from qiyu.metrics import Metrics
from qiyu.model import Instant
from qiyu.protocol.tcp import TcpWire
from qiyu.protocol.websocket import WebSocketWire
from qiyu.protocol.wire import Wire
from qiyu.routing import inflight, room_log
from qiyu.routing.feed import Feed, Share
from qiyu.routing.hub import Hub
from qiyu.routing.inflight import InFlight
from qiyu.routing.outbox import Outbox, Outboxes, OutboxLimits
from qiyu.routing.publication import Kind, Publication
from qiyu.routing.room_log import RoomLog
from qiyu.routing.router import Router
from qiyu.routing.session import Room, Session
from qiyu.services.redelivery import Redelivery, RetryRules
from sessions import make_session

APP = 10_001
SECONDS = 4.0


def chat(number: int, length: int = 0, kind: Kind = Kind.DROPPABLE, *, is_event: bool = False) -> Publication:
    data = b'{"content":"%b"}' % (b"x" * length)
    msg_id = "" if is_event else str(10**18 + number)
    return Publication(app_id=APP, biz_code=5555, data=data, kind=kind, msg_id=msg_id)


def counts(metrics: Metrics) -> dict[str, int]:
    values = {each.name: getattr(metrics, each.name) for each in fields(metrics)}
    return {name: value for name, value in values.items() if isinstance(value, int)}


class PlainRouter(Router):
    """Every member is apart."""

    def _open(self, room: Room, sender: Session | None) -> Feed:
        if room.feed is None:
            room.feed = Feed(room.log, 1)
            room.feed.apart.update(dict.fromkeys(room.members))
        return room.feed


class Town:
    """Rooms, their members, and a driver."""

    def __init__(
        self,
        make_router: Callable[[Outboxes, InFlight, Metrics], Router] = Router,
        *,
        window: int = 64,
        soft: int = 0,
        hard: int = 0,
        deliveries: int = 1000,
        attempts: int = 2,
    ) -> None:
        self.metrics = Metrics()
        self.in_flight = InFlight(window, self.metrics)
        self.outboxes = Outboxes(OutboxLimits(soft, hard))
        self.router = make_router(self.outboxes, self.in_flight, self.metrics)
        self.hub = Hub(self.in_flight)
        self.redelivery = Redelivery(
            self.router, self.in_flight, RetryRules(SECONDS, attempts, deliveries), self.metrics
        )
        self.dirty: list[Outbox] = []
        self.sessions: list[Session] = []
        self.now = 0.0

    def member(self, user_id: int, room: int | None = 7, wire: Wire | None = None) -> Session:
        session = make_session(len(self.sessions), wire, self.outboxes.open(self.dirty.append))
        session.identify(APP, user_id, "", "")
        self.hub.bind(session)
        if room is not None:
            self.hub.enter(session, room)
        self.sessions.append(session)
        return session

    def say(self, publication: Publication, room: int = 7, sender: Session | None = None) -> None:
        found = self.hub.find_room(APP, room)
        if found is not None:
            self.router.to_room(found, publication, sender)
            if publication.msg_id:
                self.redelivery.sent_to_room(found, publication, Instant(self.now, 0))

    def room(self, room: int = 7) -> Room:
        found = self.hub.find_room(APP, room)
        assert found is not None
        return found

    def take(self, session: Session, at_most: int = 2**40, accepted: int = 2**40) -> bytes:
        """As the poller does: take, send what the kernel accepts, put back the rest."""
        outbox = session.outbox
        if outbox.overflowed:
            self.hub.unbind(session)
            outbox.discard()
            outbox.finish()
        data = outbox.take(at_most)
        if len(data) > accepted:
            outbox.put_back(data[accepted:])
        elif not outbox.size:
            outbox.is_awake = False
            self.dirty[:] = [each for each in self.dirty if each is not outbox]
        return data[:accepted]


# What is shared


def test_who_is_up_to_date_shares_and_who_is_not_is_apart() -> None:
    town = Town()
    members = [town.member(10_000 + n) for n in range(10)]
    members[3].outbox.push(b"an answer")
    for number in range(4):
        town.say(chat(number), sender=members[0])
    feed = town.room().feed
    assert feed is not None
    assert set(feed.apart) == {members[0], members[3]}
    assert (town.metrics.deliveries, town.metrics.deliveries_shared) == (9 * 4, 8 * 4)
    for member in members:
        town.take(member)
    town.say(chat(4))
    assert town.metrics.deliveries_shared == 8 * 4 + 10


def test_events_and_messages_are_shared_alike() -> None:
    town = Town()
    member, _ = town.member(10_000), town.member(10_001)
    town.say(chat(1))
    town.say(chat(0, 5, Kind.MERGEABLE, is_event=True))
    town.say(chat(2))
    assert town.metrics.deliveries_shared == 6
    assert list(in_flight_of(member)) == [chat(1).msg_id, chat(2).msg_id]
    assert town.take(member).count(b"userId") == 3


def test_a_room_goes_on_sharing_whatever_one_member_does() -> None:
    """One never acknowledges, one never reads, one acknowledges out of order, and others come and go."""
    town = Town(window=1024, soft=2000, hard=4000)
    steady = [town.member(10_000 + n) for n in range(40)]
    silent, odd = town.member(20_000), town.member(20_001)
    town.member(20_002)
    numbers = count()
    for turn in range(50):
        coming = town.member(30_000 + turn)
        ids = []
        for _ in range(4):
            publication = chat(next(numbers))
            ids.append(publication.msg_id)
            town.say(publication)
        for member in [*steady, silent, odd, coming]:
            town.take(member)
        for member in steady:
            assert not town.in_flight.take(member, ids)
        assert not town.in_flight.take(odd, ids[::-1])
        town.now += 0.25
        town.redelivery.tick(Instant(town.now, 0))
        for member in [*steady, silent, odd, coming]:
            town.take(member)
        town.hub.unbind(coming)
        coming.outbox.close()
    assert town.metrics.deliveries_shared > 0.9 * town.metrics.deliveries
    assert all(not in_flight_of(member) and not member.room_in_flight for member in [*steady, odd])
    assert len(in_flight_of(silent)) == 124  # sent less than eight seconds ago; the others are waited for no longer
    assert town.room().log.end == 200


def test_what_one_follower_is_sent_ends_the_turn_for_all() -> None:
    town = Town()
    first, second = town.member(10_000), town.member(10_001)
    town.say(chat(1))
    town.take(first)
    town.say(chat(2))
    assert second.outbox.follower is None  # the turn before is still to be sent to it
    assert town.take(second).count(b"userId") == 2
    assert town.take(first).count(b"userId") == 1
    assert town.outboxes.bytes == 0


def test_a_turn_has_no_more_packets_than_a_window_has_space_for() -> None:
    town = Town(window=8)
    member = town.member(10_000)
    for number in range(20):
        town.say(chat(number))
    assert [each.msg_id for each in in_flight_of(member).values()] == [chat(n).msg_id for n in range(12, 20)]
    assert town.metrics.in_flight_evicted == 12
    assert town.take(member).count(b"userId") == 20


def test_a_log_that_is_long_is_settled_and_nothing_comes_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inflight, "LONGEST", 6)
    town = Town()
    member = town.member(10_000)
    for number in range(4):
        town.say(chat(number))
    town.take(member)
    for number in range(4, 8):
        town.say(chat(number))
    assert town.take(member).count(b"userId") == 4
    assert list(in_flight_of(member)) == [chat(number).msg_id for number in range(8)]
    assert town.in_flight.deliveries == 8
    assert town.room().log.due == 4


def test_a_feed_that_all_have_taken_keeps_no_packets() -> None:
    town = Town()
    members = [town.member(10_000 + n) for n in range(3)]
    town.say(chat(1))
    feed = town.room().feed
    assert feed is not None
    assert repr(feed) == "<Feed 1 packets, 3 follow, 0 apart, space for 15>"
    for member in members:
        town.take(member)
    assert repr(feed) == "<Feed 0 packets, 0 follow, 0 apart, closed>"
    assert feed.shares == {}


def test_a_share_is_what_one_follower_is_owed() -> None:
    feed = Feed(RoomLog(), 3)
    session = make_session(wire=WebSocketWire(0))
    session.identify(APP, 10_000, "", "")
    share = feed.share_of(session)
    assert feed.share_of(session) is share
    share.followers = feed.followers = 2
    one, other = chat(1), chat(2, 10)
    size = share.encoded(one)[2]
    assert feed.admits(one, 1, size)
    assert not feed.admits(one, 1, size - 1)
    assert feed.add(one) == 2 * size
    assert not feed.admits(other, size, 10_000)  # it has reached the bound
    assert feed.add(other) == 2 * share.encoded(other)[2]
    data = feed.take(session)
    assert data == b"".join(b"10000".join(share.encoded(each)[:2]) for each in (one, other))
    assert (len(data), feed.space, feed.followers) == (share.size, 0, 1)
    assert isinstance(share, Share)


# The property

USERS = (10_000, 10_001, 10_002, 123_456_789)
ROOMS = (7, 8)
PICK = st.integers(0, 99)


class FeedAgainstPlain(RuleBasedStateMachine):
    """Whatever members and drivers do, nobody could tell from what is sent and owed whether there is a feed."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = pytest.MonkeyPatch()  # so that logs are long soon
        self.patches.setattr(inflight, "LONGEST", 6)
        self.patches.setattr(room_log, "_TRIMMED", 3)

    @initialize(
        window=st.sampled_from((1, 2, 5, 16)),
        soft=st.sampled_from((0, 300, 1500)),
        deliveries=st.sampled_from((3, 40, 1000)),
        attempts=st.integers(1, 3),
        rooms=st.tuples(*[st.sampled_from((None, 7, 7, 8))] * len(USERS)),
    )
    def begin(self, window: int, soft: int, deliveries: int, attempts: int, rooms: tuple[int | None, ...]) -> None:
        self.shared, self.plain = (
            Town(router, window=window, soft=soft, hard=2 * soft, deliveries=deliveries, attempts=attempts)
            for router in (Router, PlainRouter)
        )
        self.numbers = count()
        self.seen: dict[int, list[str]] = {}
        for user, room in zip(USERS, rooms, strict=True):
            self.log_in(user, room, user % 2 == 1)

    @rule(user=st.sampled_from(USERS), room=st.sampled_from((None, *ROOMS)), ws=st.booleans())
    def log_in(self, user: int, room: int | None, ws: bool) -> None:
        for town in self.towns:
            older = town.hub.find(APP, user)
            session = town.member(user, None, WebSocketWire(0) if ws else TcpWire(0))
            if ws:
                session.wire._sending = True  # type: ignore[attr-defined]  # as if it had been upgraded
            if older is not None:
                town.hub.unbind(older)
                older.outbox.finish()
            if room is not None:
                town.hub.enter(session, room)

    @rule(user=st.sampled_from(USERS), room=st.sampled_from((None, *ROOMS)))
    def move(self, user: int, room: int | None) -> None:
        for town in self.towns:
            session = self._find(town, user)
            if room is None:
                town.hub.leave(session)
            else:
                session.outbox.gap = False
                town.hub.enter(session, room)

    @rule(
        room=st.sampled_from(ROOMS),
        sender=st.sampled_from((None, *USERS)),
        times=st.integers(1, 6),
        length=st.sampled_from((0, 60)),
    )
    def say(self, room: int, sender: int | None, times: int, length: int) -> None:
        for _ in range(times):
            number = next(self.numbers)
            for town in self.towns:
                town.say(chat(number, length), room, self._find(town, sender) if sender is not None else None)

    @rule(room=st.sampled_from(ROOMS), kind=st.sampled_from((Kind.KEPT, Kind.MERGEABLE)))
    def happen(self, room: int, kind: Kind) -> None:
        for town in self.towns:
            town.say(chat(0, 10, kind, is_event=True), room)

    @rule(user=st.sampled_from(USERS), length=st.sampled_from((0, 60)))
    def whisper(self, user: int, length: int) -> None:
        number = next(self.numbers)
        for town in self.towns:
            session, publication = self._find(town, user), chat(number, length, Kind.KEPT)
            if town.router.to_session(session, publication):
                town.redelivery.sent_to(session, (publication.msg_id,), Instant(town.now, 0))

    @rule(user=st.sampled_from(USERS), back=st.integers(1, 3))
    def catch_up(self, user: int, back: int) -> None:
        """Room messages come to one session: some of them again, and some that it has in flight."""
        number = max(0, next(self.numbers) - back)
        for town in self.towns:
            session, publication = self._find(town, user), chat(number)
            if session.room is not None and town.router.to_session(session, publication):
                town.redelivery.sent_to(session, (publication.msg_id,), Instant(town.now, 0))

    @rule(user=st.sampled_from(USERS))
    def answer(self, user: int) -> None:
        for town in self.towns:
            self._find(town, user).outbox.push(b"<answer>")

    @rule(who=PICK, at_most=st.sampled_from((200, 600, 2**40)), accepted=st.sampled_from((0, 90, 2**40, 2**40, 2**40)))
    def flush(self, who: int, at_most: int, accepted: int) -> None:
        one, other = (town.take(self._any(town, who), at_most, accepted) for town in self.towns)
        assert one == other
        self._replace_the_slow()

    @rule()
    def flush_all(self) -> None:
        for one, other in zip(self.shared.sessions, self.plain.sessions, strict=True):
            assert self.shared.take(one) == self.plain.take(other)
        self._replace_the_slow()

    @rule(user=st.sampled_from(USERS), first=st.integers(0, 2), length=st.integers(1, 6), odd=st.booleans())
    def acknowledge(self, user: int, first: int, length: int, odd: bool) -> None:
        """A run of what is in flight: mostly the next ones, and now and then out of order, doubled or unknown."""
        ids = list(in_flight_of(self._find(self.plain, user)))[first : first + length]
        if odd:
            ids = [*ids[::-1], *ids[:1], "5"]
        others = []
        for town in self.towns:
            session = self._find(town, user)
            rest = list(town.in_flight.take(session, ids)) if ids else []
            others.append([(msg_id, town.in_flight.take_direct(session, msg_id) is not None) for msg_id in rest])
        assert others[0] == others[1]

    @rule(seconds=st.sampled_from((0.5, SECONDS)))
    def wait(self, seconds: float) -> None:
        for town in self.towns:
            town.now += seconds
            town.redelivery.tick(Instant(town.now, 0))
            for session in town.hub:
                town.in_flight.give_back(session)

    @rule(user=st.sampled_from(USERS), discards=st.booleans())
    def end(self, user: int, discards: bool) -> None:
        for town in self.towns:
            session = self._find(town, user)
            town.hub.unbind(session)
            if discards:
                session.outbox.discard()
            else:
                session.outbox.finish()
        self.log_in(user, None, ws=False)

    @rule(who=PICK)
    def close(self, who: int) -> None:
        users = []
        for town in self.towns:
            session = self._any(town, who)
            session.outbox.close()
            if town.hub.find(APP, session.user_id) is session:
                users.append(session.user_id)
            town.hub.unbind(session)
        for user in users[:1]:
            self.log_in(user, None, ws=False)

    # What must be true at any time

    @precondition(lambda self: hasattr(self, "shared"))
    @invariant()
    def nobody_could_tell(self) -> None:
        for one, other in zip(self.shared.sessions, self.plain.sessions, strict=True):
            assert list(in_flight_of(one)) == list(in_flight_of(other))
            a, b = one.outbox, other.outbox
            assert (a.size, a.gap, a.overflowed, a.is_awake, a.finished) == (
                b.size, b.gap, b.overflowed, b.is_awake, b.finished,
            )  # fmt: skip
        assert self.shared.in_flight.deliveries == self.plain.in_flight.deliveries
        assert self.shared.outboxes.bytes == self.plain.outboxes.bytes
        assert set(map(id, self.shared.dirty)) >= {
            id(session.outbox) for session in self.shared.sessions if session.outbox.size
        }
        ours, theirs = (counts(town.metrics) for town in self.towns)
        del ours["deliveries_shared"], theirs["deliveries_shared"]
        assert ours == theirs

    @precondition(lambda self: hasattr(self, "shared"))
    @invariant()
    def who_follows_and_who_is_apart_are_the_members(self) -> None:
        town = self.shared
        for room in town.hub._rooms.values():
            feed = room.feed
            following = {session for session in room.members if session.outbox.follower is not None}
            if feed is None:
                assert not following
                continue
            assert all(session.outbox.follower is session for session in following)
            mine = {session for session in following if session.feed is feed}
            assert feed.followers == len(mine) == sum(share.followers for share in feed.shares.values())
            if feed.space:
                assert following == mine == room.members - set(feed.apart)
            ranges = [session.range_start for session in room.members if session.range_length]
            assert all(start >= max(room.log.due, room.log.floor) for start in ranges)
        assert not any(session.feed for session in town.sessions if session.room is None)

    def teardown(self) -> None:
        self.patches.undo()
        if hasattr(self, "shared"):
            for session in self.shared.sessions:
                session.outbox.close()
            assert self.shared.outboxes.bytes == 0

    # How it is done

    @property
    def towns(self) -> tuple[Town, Town]:
        return self.shared, self.plain

    def _replace_the_slow(self) -> None:
        for user in USERS:
            if self.shared.hub.find(APP, user) is None:
                self.log_in(user, None, ws=False)

    @staticmethod
    def _find(town: Town, user: int) -> Session:
        session = town.hub.find(APP, user)
        assert session is not None
        return session

    @staticmethod
    def _any(town: Town, who: int) -> Session:
        return town.sessions[-1 - who % min(len(town.sessions), 6)]


TestFeedAgainstPlain = pytest.mark.property(FeedAgainstPlain.TestCase)


def test_an_ack_of_nothing_in_the_range_changes_nothing() -> None:
    town = Town()
    session = town.member(10_001)
    for number in (1, 3, 5):
        town.say(chat(number))
    strange = [str(10**18 + number) for number in (0, 2, 4, 6)] + ["7", "", "9" * 30]
    assert town.in_flight.take(session, strange) == strange
    assert session.range_length == 3


def test_an_ack_in_the_middle_is_found_where_ids_have_become_longer() -> None:
    town = Town()
    session = town.member(10_001)
    shorter = 10**17 - 10**18
    for number in (shorter, shorter + 1, 0, 1):
        town.say(chat(number))
    assert town.in_flight.take(session, [str(10**18)]) == []
    assert set(in_flight_of(session)) == {str(10**17), str(10**17 + 1), str(10**18 + 1)}
