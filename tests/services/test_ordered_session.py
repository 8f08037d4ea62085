"""A session whose messages go to different places."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import ERROR, Harness
from qiyu.errors import ErrorCode, Refused
from qiyu.services.ordered_session import OrderedSession, submit
from qiyu.services.sender_order import HERE

ANNA = 20_001


class Speaker:
    """A session, and what it has said: each message is answered when the test says so."""

    def __init__(self) -> None:
        self.harness = Harness()
        self.harness.node.sessions.make = OrderedSession
        self.client = self.harness.log_in(ANNA)
        session = self.client.session
        assert isinstance(session, OrderedSession)
        self.session = session
        self.started: list[tuple[str, str | None]] = []
        self.unanswered: list[str] = []

    def say(self, name: str, place: str | None, *, fails: bool = False, waits: bool = True) -> None:
        def start() -> bool:
            if fails:
                raise Refused(ErrorCode.UNAVAILABLE, "not now")
            self.started.append((name, place))
            if waits:
                self.session.waiting += 1
                self.unanswered.append(name)
            return waits

        submit(self.session, place, start, name, self.harness.metrics)

    def answer(self) -> None:
        self.unanswered.pop(0)
        self.session.settled()

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.started]


def test_who_talks_in_one_place_never_waits() -> None:
    speaker = Speaker()
    for n in range(3):
        speaker.say(f"m{n}", HERE)
    assert speaker.session.order is None
    for n in range(3):
        speaker.say(f"n{n}", "elsewhere")
        assert speaker.names[:3] == ["m0", "m1", "m2"]
    assert speaker.names == ["m0", "m1", "m2"]
    for _ in range(3):
        speaker.answer()
    assert speaker.names == ["m0", "m1", "m2", "n0", "n1", "n2"]


def test_what_waits_counts_and_nothing_is_kept_of_who_waits_for_nothing() -> None:
    speaker = Speaker()
    speaker.say("a", "one")
    speaker.say("b", "two")
    assert speaker.session.waiting == 2
    assert speaker.names == ["a"]
    speaker.answer()
    assert speaker.session.waiting == 1
    speaker.answer()
    assert (speaker.session.waiting, speaker.session.order) == (0, None)


def test_who_leaves_waits_for_all_of_it() -> None:
    speaker = Speaker()
    speaker.say("a", "one")
    speaker.say("b", "two")
    speaker.client.shut_down()
    speaker.answer()
    assert not speaker.session.ended
    speaker.answer()
    assert speaker.session.ended


def test_what_is_refused_at_once_is_raised_and_later_told() -> None:
    speaker = Speaker()
    with pytest.raises(Refused):
        speaker.say("a", "one", fails=True)
    assert (speaker.session.waiting, speaker.session.order) == (0, None)
    speaker.say("b", "one")
    speaker.say("c", "two", fails=True)
    speaker.say("d", "two")
    speaker.answer()
    (told,) = speaker.client.receive()
    assert (told.code, told.body["clientMsgId"]) == (ERROR, "c")
    assert speaker.names == ["b", "d"]


@pytest.mark.property
@given(
    st.lists(st.none() | st.tuples(st.sampled_from([HERE, "one", "two"]), st.booleans(), st.booleans()), max_size=40)
)
def test_order_is_kept(steps: list[tuple[str | None, bool, bool] | None]) -> None:
    """Invariant: messages start in the order said; two places are never at work for one sender at once."""
    speaker = Speaker()
    said = []
    for n, step in enumerate(steps):
        if step is None:
            if speaker.unanswered:
                speaker.answer()
        else:
            place, fails, waits = step
            try:
                speaker.say(str(n), place, fails=fails, waits=waits)
            except Refused:
                continue
            if not fails:
                said.append(str(n))
        places = {place for name, place in speaker.started if name in speaker.unanswered}
        assert len(places) <= 1
    while speaker.unanswered:
        speaker.answer()
    assert speaker.names == said
    assert (speaker.session.waiting, speaker.session.order) == (0, None)
