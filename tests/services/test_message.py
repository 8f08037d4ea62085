from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from harness import TcpClient
from qiyu.routing.publication import Kind, Publication
from qiyu.routing.session import Session
from qiyu.services.message import TRANSITIONS, UNANSWERED, UNDELIVERED, Event, Message, MessageContent, Status
from qiyu.services.rings import Ring
from town import ALICE, CAROL, Town

ANY = st.integers(0, 1000)


def message(session: Session, ring: Ring | None = None, *, object_id: int = CAROL, cid: str = "") -> Message:
    content = MessageContent(5555, 7 if ring else 0, 0 if ring else object_id, 1, "x")
    publication = Publication(
        app_id=10_001, biz_code=5555, data=b"{}", msg_id="1", kind=Kind.DROPPABLE if ring else Kind.KEPT
    )
    return Message(1, 10_001, ALICE, content, cid, b'{"content":"x"}', 5, publication, [session], ring)


@pytest.fixture
def alice(town: Town) -> TcpClient:
    return town.alice


def follow(message: Message, *events: Event) -> Message:
    for event in events:
        message.move(event)
    return message


def reachable(status: Status) -> set[Status]:
    found: set[Status] = set()
    new = {status}
    while new:
        found |= new
        new = {after for each in new for after in TRANSITIONS[each].values()} - found
    return found


def test_every_status_is_in_the_table_and_can_come_about() -> None:
    assert set(TRANSITIONS) == set(Status) == reachable(Status.ACCEPTED)
    assert {event for events in TRANSITIONS.values() for event in events} == set(Event)


def test_every_message_can_be_settled_and_then_nothing_more_happens_to_it() -> None:
    assert all(Status.SETTLED in reachable(status) for status in Status)
    assert TRANSITIONS[Status.SETTLED] == {}


def test_what_its_sender_waits_for_its_room_waits_for() -> None:
    assert UNANSWERED < UNDELIVERED


@pytest.mark.parametrize("status", list(Status))
@pytest.mark.parametrize("event", list(Event))
def test_what_cannot_happen_is_a_bug_and_changes_nothing(alice: TcpClient, status: Status, event: Event) -> None:
    ring = Ring((10_001, 7), 0)
    here = message(alice.session, ring)
    here.status = status
    if event in TRANSITIONS[status]:
        here.move(event)
        assert here.status is TRANSITIONS[status][event]
        alice.session.waiting = 0
    else:
        with pytest.raises(RuntimeError, match=f"^message 1 is {status}: {event} cannot happen to it$"):
            here.move(event)
        assert (here.status, alice.session.waiting, ring.waiting) == (status, 0, 0)


def test_who_sends_it_again_waits_too_and_once(town: Town) -> None:
    here = follow(message(town.alice.session, cid="c-1"), Event.HOLD_BACK)
    for session in (town.alice.session, town.bob.session, town.bob.session):
        here.join(session)
    assert here.sessions == [town.alice.session, town.bob.session]
    assert town.alice.session.waiting == town.bob.session.waiting == 1
    follow(here, Event.TAKE, Event.SETTLE)
    assert town.alice.session.waiting == town.bob.session.waiting == 0


def test_who_reconnects_to_send_it_again_is_not_remembered_each_time(town: Town) -> None:
    here = follow(message(town.alice.session, cid="c-1"), Event.HOLD_BACK)
    older = town.alice.session
    for _ in range(5):
        newer = town.harness.log_in(ALICE).session  # which ends the older one
        here.join(newer)
        assert here.sessions == [newer]
        assert (older.waiting, newer.waiting) == (0, 1)
        older = newer


@pytest.mark.parametrize("put_back", [True, False])
def test_an_ack_that_comes_in_time_keeps_it_from_the_inbox(alice: TcpClient, put_back: bool) -> None:
    here = follow(message(alice.session), Event.DELIVER)
    assert here.acknowledge()
    assert here.acknowledge()
    follow(here, Event.TAKE)
    if put_back:
        follow(here, Event.PUT_BACK)
        assert here.acknowledge()
        follow(here, Event.TAKE)
    assert not here.row().into_inbox


def test_an_ack_that_comes_later_does_not(alice: TcpClient) -> None:
    here = follow(message(alice.session), Event.DELIVER, Event.TAKE)
    assert not here.acknowledge()
    assert here.row().into_inbox
    follow(here, Event.PUT_BACK)
    assert here.acknowledge()
    follow(here, Event.TAKE)
    assert not here.row().into_inbox


def test_what_is_stored_of_it(alice: TcpClient) -> None:
    direct, room = message(alice.session, cid="c-1"), message(alice.session, Ring((10_001, 7), 0))
    assert direct.row() == (1, 10_001, ALICE, 5555, 0, CAROL, "c-1", '{"content":"x"}', 5, True)
    assert room.row() == (1, 10_001, ALICE, 5555, 7, 0, "", '{"content":"x"}', 5, False)


class Counting(RuleBasedStateMachine):
    """Whatever happens to messages, each session and each room knows how many of them it waits for."""

    def __init__(self) -> None:
        super().__init__()
        town = Town.make()
        self.sessions = [town.alice.session, town.bob.session, town.carol.session]
        self.rings = [Ring((10_001, room), 0) for room in (7, 8)]
        self.messages: list[Message] = []

    @rule(sender=ANY, room=ANY)
    def accept(self, sender: int, room: int) -> None:
        ring = (*self.rings, None)[room % 3]
        self.messages.append(message(self.sessions[sender % 3], ring))

    @rule(which=ANY, who=ANY)
    def join(self, which: int, who: int) -> None:
        waiting = [each for each in self.messages if each.status in UNANSWERED]
        if waiting:
            waiting[which % len(waiting)].join(self.sessions[who % 3])

    @rule(which=ANY, event=st.sampled_from(list(Event)), times=st.integers(1, 3))
    def happen(self, which: int, event: Event, times: int) -> None:
        for each in self.messages[which % 5 :: 5][:times]:
            if event in TRANSITIONS[each.status]:
                each.move(event)
            else:
                with pytest.raises(RuntimeError):
                    each.move(event)

    @rule()
    def settle_all(self) -> None:
        for each in self.messages:
            while each.status is not Status.SETTLED:
                each.move(max(TRANSITIONS[each.status]))  # of all that can happen, TAKE or SETTLE
        assert [session.waiting for session in self.sessions] == [0, 0, 0]
        assert [ring.waiting for ring in self.rings] == [0, 0]
        self.messages.clear()

    @invariant()
    def the_counts_are_those_of_the_messages(self) -> None:
        for session in self.sessions:
            assert session.waiting == sum(
                session in each.sessions and each.status in UNANSWERED for each in self.messages
            )
        for ring in self.rings:
            assert ring.waiting == sum(each.ring is ring and each.status in UNDELIVERED for each in self.messages)


TestCounting = pytest.mark.property(Counting.TestCase)
