from __future__ import annotations

import pytest

from harness import PING, Harness
from qiyu.handlers.registry import tcp_door
from studio import MIME, EncoderPeer, ViewerPeer

ROOM = 7


def watching(harness: Harness, room: int = ROOM) -> ViewerPeer:
    viewer = ViewerPeer(harness)
    viewer.watch(room)
    assert viewer.seen()[0] in {"''", MIME}
    return viewer


def test_who_does_not_log_in_is_let_go() -> None:
    harness = Harness()
    viewer = ViewerPeer(harness)
    viewer.upgrade("/live/7")
    harness.advance(5)
    assert viewer.seen() == ["1008 no login within 5 s"]
    assert harness.metrics.logins_timed_out == 1
    assert repr(harness.node.viewers) == "<Viewers 0, not logged in 0>"


def test_who_waits_for_a_picture_is_pinged_and_stays() -> None:
    harness = Harness()
    viewer = watching(harness)
    for _ in range(10):
        harness.advance(20)
    assert viewer.seen().count("ping") == 1  # until it is read, there is no need for another
    harness.advance(31)
    assert viewer.seen() == ["ping"]
    viewer.write(viewer.masked(PING, b"hi"))
    assert viewer.seen() == ["pong"]
    assert len(harness.node.viewers) == 1


def test_who_closes_is_forgotten() -> None:
    harness = Harness()
    viewer, other = watching(harness), watching(harness)
    viewer.write(viewer.masked(8, (1000).to_bytes(2, "big")))
    assert viewer.seen() == ["1000 "]
    other.hang_up()
    assert harness.node.streams.viewers == len(harness.node.viewers) == 0


def test_a_closed_room_closes_its_viewers() -> None:
    harness = Harness()
    here, there = watching(harness), watching(harness, room=8)
    harness.node.viewers.close_room(ROOM)
    assert here.seen() == ["1000 closed"]
    assert there.seen() == []


def test_who_is_owed_beyond_the_hard_bound_is_closed_as_slow() -> None:
    harness = Harness(limits={"outbox_soft_bytes": 0, "outbox_hard_bytes": 2000})
    encoder = EncoderPeer(harness)
    encoder.publish(ROOM)
    viewer = watching(harness)
    encoder.show("*" + "a" * 3000)
    assert viewer.seen()[-1] == "4009 slow"
    assert harness.metrics.viewers_slow == 1
    assert harness.node.streams.viewers == 0


def test_who_does_not_keep_up_for_too_long_is_closed_as_slow() -> None:
    harness = Harness(video={"viewer_bytes": 1000})
    encoder = EncoderPeer(harness)
    encoder.publish(ROOM)
    viewer = watching(harness)
    for _ in range(12):
        encoder.show("*" + "a" * 500)
        harness.advance(1.0)
    assert viewer.seen() == ["4009 slow"]
    assert not viewer.session.outbox.overflowed


def test_when_the_server_stops_every_viewer_is_told() -> None:
    harness = Harness()
    viewer = watching(harness)
    harness.dispatcher.drain(lambda: 1000)
    assert viewer.seen() == ["1012 drain"]


def test_what_it_is_sent_may_wait_for_others() -> None:
    harness = Harness()
    assert watching(harness).outbox.is_bulk
    assert not harness.log_in_ws(10_001).outbox.is_bulk


def test_no_door_is_theirs() -> None:
    harness = Harness()
    door = tcp_door(harness.node, 0)
    with pytest.raises(NotImplementedError):
        harness.node.viewers.open(door, harness.node.outboxes.open(harness.wake), b"", harness.now)
