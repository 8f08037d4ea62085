from __future__ import annotations

from typing import cast

import pytest

from qiyu.errors import ErrorCode, Refused
from qiyu.metrics import Metrics
from qiyu.model import InstanceId
from qiyu.protocol.links import Forward, LinkMessage, Receipt, Refusal, Subscribe, Subscribed
from qiyu.services import forwarding
from qiyu.services.forwarding import Forwarder, Forwarding, Origin, refusal_of
from qiyu.services.homes import Claimed, Homes, RoomKey, RoomSide
from services.test_homes import ROOM, Cluster, Side

ME, HOME, NEXT = InstanceId(1, 1), InstanceId(2, 1), InstanceId(3, 1)


class Sender:
    """Who waits for what becomes of one message."""

    def __init__(self) -> None:
        self.got: list[int | str] = []

    def receipted(self, msg_id: int) -> None:
        self.got.append(msg_id)

    def refused(self, refusal: Refused) -> None:
        self.got.append(f"{refusal.code:d} {refusal.client_msg_id}")


class Forwards:
    """An instance whose members talk in a room that is at home elsewhere."""

    def __init__(self) -> None:
        self.now = 100.0
        self.sent: list[tuple[InstanceId, LinkMessage]] = []
        self.links = {HOME, NEXT}
        self.accepted: list[tuple[Forward, Origin]] = []
        self.refuses: Refused | None = None
        self.side = Side(Cluster())
        self.side.people = 1
        self.homes = Homes(
            ME,
            cast("RoomSide", self),
            self._send,
            self.links.__contains__,
            lambda _: None,
            Metrics(),
        )
        self.forwarding = Forwarding(self.homes, self._send, self._accept, Metrics())

    def __getattr__(self, name: str) -> object:
        return getattr(self.side, name)

    def interrupted(self, key: RoomKey) -> None:
        self.forwarding.interrupted(key)

    def joined(self, key: RoomKey, _after: int, _answer: Subscribed) -> None:
        self.forwarding.has_home(key)

    def became_home(self, key: RoomKey, _after: int, _last: int) -> None:
        self.forwarding.has_home(key)

    def _send(self, to: InstanceId, message: LinkMessage) -> bool:
        if to in self.links:
            self.sent.append((to, message))
        return to in self.links

    def _accept(self, message: Forward, origin: Origin) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.accepted.append((message, origin))

    def is_at_home_at(self, holder: InstanceId) -> None:
        """The database says so, and the holder lets this instance in."""
        self.homes.want(ROOM, self.now)
        self.homes.take_claims()
        self.homes.claimed({ROOM: Claimed(holder, 0, 1)}, self.now)
        subscribes = [message for to, message in self.sent if to == holder and isinstance(message, Subscribe)]
        if subscribes:
            self.homes.subscribed(holder, Subscribed(*ROOM, subscribes[-1].reference, 0))

    def say(self, content: str = "hello", client_msg_id: str = "c") -> Sender:
        sender = Sender()
        message = Forward(0, *ROOM, 20_001, 5555, 0, content, "小明", "", client_msg_id)
        self.forwarding.forward(message, sender, self.now)
        return sender

    def forwarded(self) -> list[tuple[InstanceId, int, str]]:
        """What was sent on since the last call: to whom, with which reference."""
        sent, self.sent = self.sent, []
        return [(to, message.reference, message.content) for to, message in sent if isinstance(message, Forward)]


@pytest.fixture
def forwards() -> Forwards:
    return Forwards()


def test_a_message_goes_to_the_home_and_its_answer_to_who_said_it(forwards: Forwards) -> None:
    forwards.is_at_home_at(HOME)
    first, second = forwards.say("one"), forwards.say("two", "")
    assert forwards.forwarded() == [(HOME, 1, "one"), (HOME, 2, "two")]
    forwards.forwarding.refused(HOME, Refusal(2, 429, "too fast"))
    forwards.forwarding.receipted(HOME, Receipt(1, 77))
    assert (first.got, second.got) == ([77], ["429 "])
    assert len(forwards.forwarding) == 0
    assert not forwards.forwarding.has_pending(ROOM)


def test_an_answer_counts_once_and_only_from_where_it_was_asked(forwards: Forwards) -> None:
    forwards.is_at_home_at(HOME)
    sender = forwards.say()
    forwards.forwarding.receipted(NEXT, Receipt(1, 5))
    forwards.forwarding.receipted(HOME, Receipt(9, 5))
    assert sender.got == []
    for _ in range(2):
        forwards.forwarding.receipted(HOME, Receipt(1, 77))
    assert sender.got == [77]


def test_what_has_no_answer_goes_to_the_next_home_in_its_order(forwards: Forwards) -> None:
    forwards.is_at_home_at(HOME)
    senders = [forwards.say(str(n), f"c{n}") for n in range(3)]
    forwards.forwarding.receipted(HOME, Receipt(2, 77))
    forwards.forwarded()
    forwards.homes.fenced(HOME)
    forwards.is_at_home_at(NEXT)
    assert forwards.forwarded() == [(NEXT, 1, "0"), (NEXT, 3, "2")]
    forwards.forwarding.receipted(HOME, Receipt(1, 5))  # of the home before: the next one says the same, or another
    assert senders[0].got == []
    forwards.forwarding.receipted(NEXT, Receipt(1, 5))
    assert [sender.got for sender in senders] == [[5], [77], []]


def test_where_the_home_comes_here_it_is_accepted_here(forwards: Forwards) -> None:
    forwards.is_at_home_at(HOME)
    sender, refused = forwards.say("one", "c1"), forwards.say("two", "c2")
    forwards.homes.fenced(HOME)
    forwards.is_at_home_at(ME)
    assert [message.content for message, _ in forwards.accepted] == ["one", "two"]
    assert [origin for _, origin in forwards.accepted] == [sender, refused]
    assert len(forwards.forwarding) == 0


def test_a_refusal_here_is_told_to_who_said_it(forwards: Forwards) -> None:
    forwards.is_at_home_at(HOME)
    sender = forwards.say()
    forwards.refuses = Refused(ErrorCode.CONFLICT, "another message", client_msg_id="c")
    forwards.homes.fenced(HOME)
    forwards.is_at_home_at(ME)
    assert sender.got == ["409 c"]


def test_without_a_client_msg_id_it_is_refused_where_the_home_is_lost(forwards: Forwards) -> None:
    forwards.is_at_home_at(HOME)
    sender = forwards.say(client_msg_id="")
    forwards.homes.link_lost(HOME, forwards.now)
    assert sender.got == ["503 "]
    with pytest.raises(Refused, match="changing its home") as caught:
        forwards.say(client_msg_id="")
    assert caught.value.code is ErrorCode.UNAVAILABLE


def test_while_there_is_no_home_messages_are_kept_for_a_second_and_then_refused(forwards: Forwards) -> None:
    forwards.is_at_home_at(HOME)
    forwards.homes.tick(forwards.now)
    forwards.homes.link_lost(HOME, forwards.now)
    kept = forwards.say("kept", "c1")
    forwards.now += 1.5
    forwards.homes.tick(forwards.now)
    with pytest.raises(Refused, match="changing its home: send it again later"):
        forwards.say("late", "c2")
    forwards.now += 8
    forwards.forwarding.tick(forwards.now)
    assert kept.got == []
    forwards.now += 1
    forwards.forwarding.tick(forwards.now)
    assert kept.got == ["503 c1"]
    assert forwards.forwarding.metrics.forwards_given_up == 1


def test_what_waits_for_a_home_that_stores_slowly_is_not_given_up(forwards: Forwards) -> None:
    forwards.is_at_home_at(HOME)
    sender = forwards.say()
    forwards.forwarding.tick(forwards.now + 60)
    assert sender.got == []
    forwards.forwarding.receipted(HOME, Receipt(1, 77))
    assert sender.got == [77]


def test_what_waits_is_bounded(forwards: Forwards, monkeypatch: pytest.MonkeyPatch) -> None:
    forwards.is_at_home_at(HOME)
    monkeypatch.setattr(forwarding, "MAX_PENDING", 1)
    forwards.say()
    with pytest.raises(Refused, match="too many messages wait") as caught:
        forwards.say(client_msg_id="c2")
    assert caught.value.client_msg_id == "c2"
    forwards.forwarding.receipted(HOME, Receipt(1, 77))
    forwards.say(client_msg_id="c2")
    monkeypatch.setattr(forwarding, "MAX_PENDING", 100)
    monkeypatch.setattr(forwarding, "MAX_PENDING_BYTES", 1)
    with pytest.raises(Refused, match="too many messages wait"):
        forwards.say()


def test_who_forwarded_is_answered_over_the_link() -> None:
    sent: list[tuple[InstanceId, LinkMessage]] = []

    def send(to: InstanceId, message: LinkMessage) -> bool:
        sent.append((to, message))
        return True

    forwarder = Forwarder(HOME, 7, send)
    forwarder.receipted(77)
    forwarder.refused(Refused(ErrorCode.CONFLICT, "another message"))
    assert sent == [(HOME, Receipt(7, 77)), (HOME, Refusal(7, 409, "another message"))]


def test_a_refusal_that_a_later_release_knows_is_one_that_may_pass() -> None:
    assert refusal_of(Refusal(1, 403, "muted"), "c").code is ErrorCode.FORBIDDEN
    unknown = refusal_of(Refusal(1, 499, "new"), "c")
    assert (unknown.code, unknown.reason, unknown.client_msg_id) == (ErrorCode.UNAVAILABLE, "new", "c")
