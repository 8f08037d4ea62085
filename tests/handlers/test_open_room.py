from __future__ import annotations

from functools import partial

import pytest

from harness import Harness
from studio import EncoderPeer, ViewerPeer

ROOM = 7


def look_up(harness: Harness, is_open: bool | None) -> None:
    """What the driver does: the database has the answer for all who wait, or none."""
    for entries in harness.node.entering.lookups.take_all().values():
        for endpoint, found in entries:
            harness.dispatcher.resume(endpoint, partial(found, is_open), harness.now)


@pytest.fixture
def harness() -> Harness:
    return Harness(living={"require_open_room": True})


def test_a_room_that_memory_does_not_know_is_looked_up(harness: Harness) -> None:
    encoder, viewer = EncoderPeer(harness), ViewerPeer(harness)
    encoder.publish(ROOM)
    viewer.watch(ROOM)
    assert viewer.seen() == []
    assert len(harness.node.entering.lookups) == 2
    look_up(harness, True)
    assert encoder.last_words == "The push has begun."
    encoder.show("*a")
    assert viewer.seen()[-1] == "a"


@pytest.mark.parametrize(
    ("is_open", "reason", "code"),
    [(False, "room 7 is not open", 4004), (None, "the database does not answer; try again", 1013)],
)
def test_why_it_cannot_be_is_told(harness: Harness, is_open: bool | None, reason: str, code: int) -> None:
    encoder, viewer = EncoderPeer(harness), ViewerPeer(harness)
    encoder.publish(ROOM)
    viewer.watch(ROOM)
    look_up(harness, is_open)
    assert encoder.last_words == reason
    assert viewer.seen() == [f"{code} {reason}"]
    assert viewer.outbox.finished


def test_who_has_gone_meanwhile_is_forgotten(harness: Harness) -> None:
    encoder, viewer = EncoderPeer(harness), ViewerPeer(harness)
    encoder.publish(ROOM)
    viewer.watch(ROOM)
    encoder.hang_up()
    viewer.hang_up()
    look_up(harness, True)
    assert not harness.node.streams.is_on_air(ROOM)
    assert harness.node.streams.viewers == 0


def test_where_too_many_wait_one_is_told_to_try_again(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qiyu.services.lookups.WAITING_SESSIONS", 0)
    encoder, viewer = EncoderPeer(harness), ViewerPeer(harness)
    encoder.publish(ROOM)
    viewer.watch(ROOM)
    assert encoder.last_words == "too many are entering rooms; try again"
    assert viewer.seen() == ["1013 too many are entering rooms; try again"]
