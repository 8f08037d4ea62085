from __future__ import annotations

from qiyu.errors import PresenceUnavailable
from qiyu.metrics import Metrics
from qiyu.model import InstanceId
from qiyu.presence.memory import MemoryPresence
from qiyu.presence.presence import FindPins, Pin, PinUser, User
from qiyu.protocol.links import CheckInbox, Direct, LinkMessage, StoredMessage
from qiyu.services.directs import MAX_MISSED, Committed, Directs
from qiyu.services.presence_queue import PresenceQueue

ANNA, BERT, CARL = (User(10_001, 20_001 + n) for n in range(3))
ME, OTHER = InstanceId(1, 1), InstanceId(2, 1)
AWAY = PresenceUnavailable("away")


class Sender:
    def __init__(self) -> None:
        self.presence = MemoryPresence()
        self.sent: list[tuple[InstanceId, LinkMessage]] = []
        self.read: list[User] = []
        self.gone: set[InstanceId] = set()
        self.orphaned: list[User] = []
        self.is_cut = False
        self.metrics = Metrics()
        self.queue = PresenceQueue(self.metrics)
        self.directs = Directs(
            ME,
            self.queue,
            self._send,
            self.read.append,
            self.gone.__contains__,
            self.orphaned.append,
            lambda _: None,
            self.metrics,
        )

    def _send(self, to: InstanceId, message: LinkMessage) -> bool:
        if not self.is_cut:
            self.sent.append((to, message))
        return not self.is_cut

    def pin(self, user: User, instance: InstanceId) -> None:
        self.presence.execute([PinUser(user, Pin(instance, 1, 1), is_fresh=True)])

    def ask(self) -> None:
        while asked := self.queue.take():
            self.queue.answered(asked, self.presence.execute([one.request for one in asked]))

    def tick(self) -> None:
        self.directs.tick(is_reachable=self.presence.failure is None)
        self.ask()


def message(msg_id: int = 7) -> StoredMessage:
    return StoredMessage(msg_id, 20_009, 5556, b"{}")


def test_a_batch_is_one_look_up_and_each_message_goes_where_its_receiver_is() -> None:
    sender = Sender()
    sender.pin(ANNA, OTHER)
    sender.pin(BERT, ME)
    sender.directs.committed([Committed(user, message(n)) for n, user in enumerate([ANNA, BERT, CARL, ANNA])])
    assert len(sender.queue) == 1
    sender.ask()
    assert sender.sent == [(OTHER, Direct(*ANNA, message(0))), (OTHER, Direct(*ANNA, message(3)))]
    assert sender.metrics.pins_looked_up == 3
    assert len(sender.directs) == 0
    sender.directs.committed([])
    assert len(sender.queue) == 0


def test_whom_presence_could_not_tell_is_looked_for_again_and_told_to_read_its_inbox() -> None:
    sender = Sender()
    for user, where in ((ANNA, OTHER), (BERT, ME)):
        sender.pin(user, where)
    sender.presence.failure = AWAY
    sender.directs.committed([Committed(user, message()) for user in (ANNA, BERT, CARL)])
    sender.ask()
    sender.tick()
    assert sender.sent == []
    assert len(sender.directs) == 3
    sender.presence.failure = None
    sender.tick()
    assert sender.sent == [(OTHER, CheckInbox(*ANNA))]
    assert sender.read == [BERT]
    assert len(sender.directs) == 0


def test_who_is_beyond_a_cut_is_told_when_the_link_is_back() -> None:
    sender = Sender()
    sender.pin(ANNA, OTHER)
    sender.is_cut = True
    sender.directs.committed([Committed(ANNA, message())])
    sender.ask()
    sender.tick()
    sender.tick()
    sender.is_cut = False
    sender.tick()
    assert sender.sent == [(OTHER, CheckInbox(*ANNA))]


def test_a_pin_that_leads_to_an_instance_that_is_gone_is_taken_away() -> None:
    sender = Sender()
    sender.pin(ANNA, OTHER)
    sender.gone.add(OTHER)
    sender.directs.committed([Committed(ANNA, message())])
    sender.ask()
    assert sender.sent == []
    assert len(sender.directs) == 0
    assert sender.presence.execute([FindPins((ANNA,))]) == [[None]]
    assert sender.orphaned == [ANNA]


def test_what_was_sent_into_a_link_that_broke_is_announced_again_unless_a_later_ping_was_answered() -> None:
    sender = Sender()
    for user in (ANNA, BERT, CARL):
        sender.pin(user, OTHER)
    for user, step in ((ANNA, "answered"), (BERT, "pinged"), (CARL, "")):
        sender.directs.committed([Committed(user, message())])
        sender.ask()
        if step:
            sender.directs.pinged(OTHER)
        if step == "answered":
            sender.directs.answered(OTHER)
    sender.sent.clear()
    sender.directs.link_lost(OTHER)
    sender.tick()
    assert sender.sent == [(OTHER, CheckInbox(*BERT)), (OTHER, CheckInbox(*CARL))]
    sender.directs.link_lost(OTHER)
    sender.tick()
    assert len(sender.sent) == 4  # nor is it certain that these arrived


def test_a_later_message_does_not_come_before_one_that_could_not_be_sent_on() -> None:
    sender = Sender()
    sender.pin(ANNA, OTHER)
    sender.is_cut = True
    sender.directs.committed([Committed(ANNA, message(1))])
    sender.ask()
    sender.is_cut = False
    sender.directs.committed([Committed(ANNA, message(2))])
    sender.ask()
    assert sender.sent == []
    sender.tick()
    sender.directs.committed([Committed(ANNA, message(3))])
    sender.ask()
    assert sender.sent == [(OTHER, CheckInbox(*ANNA)), (OTHER, Direct(*ANNA, message(3)))]


def test_those_who_are_remembered_are_bounded_and_the_oldest_goes() -> None:
    sender = Sender()
    sender.presence.failure = AWAY
    users = [User(10_001, 10_000 + n) for n in range(MAX_MISSED + 3)]
    sender.directs.committed([Committed(user, message()) for user in users])
    sender.ask()
    assert len(sender.directs) == MAX_MISSED
    assert sender.metrics.directs_not_announced == 3
