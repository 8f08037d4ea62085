"""How kicks end sessions in a cluster is in test_pins.py; here is what is said, and how often."""

from __future__ import annotations

from qiyu.metrics import Metrics
from qiyu.model import InstanceId
from qiyu.presence.presence import Pin, User
from qiyu.protocol.links import Kick, Kicked, LinkMessage
from qiyu.services.kicks import ANY_SESSION, Kicks

ANNA = User(10_001, 20_001)
ONE, TWO = InstanceId(1, 1), InstanceId(2, 1)


class Instance:
    def __init__(self) -> None:
        self.sent: list[tuple[InstanceId, LinkMessage]] = []
        self.ended: list[tuple[User, int]] = []
        self.written: list[User] = []
        self.watched: list[InstanceId] = []
        self.gone: set[InstanceId] = set()
        self.kicks = Kicks(
            self._send,
            lambda user, session: self.ended.append((user, session)),
            self.written.append,
            lambda: [one for one in (ONE, TWO) if one not in self.gone],
            self.gone.__contains__,
            self.watched.append,
            Metrics(),
        )

    def _send(self, to: InstanceId, message: LinkMessage) -> bool:
        self.sent.append((to, message))
        return False  # whether a link took it makes no difference: only the answer counts


def test_it_is_said_at_once_and_at_each_new_link_until_it_is_answered() -> None:
    instance = Instance()
    instance.kicks.kick(ANNA, Pin(ONE, 7, 1))
    instance.kicks.link_opened(ONE)
    instance.kicks.link_opened(TWO)
    assert instance.sent == [(ONE, Kick(*ANNA, 7))] * 2
    assert instance.watched == [ONE]
    instance.kicks.answered(TWO, Kicked(*ANNA, 7))
    instance.kicks.answered(ONE, Kicked(*ANNA, 8))
    assert len(instance.kicks) == 1
    instance.kicks.answered(ONE, Kicked(*ANNA, 7))
    instance.kicks.answered(ONE, Kicked(*ANNA, 7))
    instance.kicks.link_opened(ONE)
    assert len(instance.kicks) == 0
    assert len(instance.sent) == 2


def test_who_is_told_ends_that_session_or_has_its_pin_judged_and_says_so() -> None:
    instance = Instance()
    instance.kicks.received(ONE, Kick(*ANNA, 7))
    instance.kicks.received(ONE, Kick(*ANNA, ANY_SESSION))
    assert instance.ended == [(ANNA, 7)]
    assert instance.written == [ANNA]
    assert instance.sent == [(ONE, Kicked(*ANNA, 7)), (ONE, Kicked(*ANNA, ANY_SESSION))]


def test_where_the_one_to_be_told_is_gone_all_the_others_are() -> None:
    for late in (False, True):
        instance = Instance()
        if late:
            instance.kicks.kick(ANNA, Pin(ONE, 7, 1))
            instance.sent.clear()
        instance.gone.add(ONE)
        if late:
            instance.kicks.fenced(ONE)
        else:
            instance.kicks.kick(ANNA, Pin(ONE, 7, 1))
        assert instance.sent == [(TWO, Kick(*ANNA, ANY_SESSION))]
        assert len(instance.kicks) == 1
        instance.kicks.fenced(TWO)  # it ends all its sessions, and had been told of nobody's in particular
        assert len(instance.kicks) == 0
