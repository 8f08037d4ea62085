from __future__ import annotations

import pytest

from harness import BIZ, HEARTBEAT, LOGIN, Harness
from qiyu.errors import ProtocolViolation
from qiyu.handlers.watch import watched_room
from studio import MIME, EncoderPeer, ViewerPeer

ROOM = 7


@pytest.mark.parametrize(
    ("path", "room"),
    [
        ("/live/7", 7),
        ("/live/7/", 7),
        ("/live/9007199254740991", 2**53 - 1),
        ("/", None),
        ("/lively/7", None),
        ("/token%10001/10001/1001/7", None),
        ("/live/10001/1001/7", None),
    ],
)
def test_a_first_segment_live_is_the_picture(path: str, room: int | None) -> None:
    assert watched_room(path) == room


@pytest.mark.parametrize("path", ["/live", "/live/", "/live/x", "/live/0", "/live/9007199254740992", "/live/\u0667"])
def test_a_path_without_a_room_is_refused(path: str) -> None:
    with pytest.raises(ProtocolViolation, match="the path must be /live/ROOM"):
        watched_room(path)


def test_a_bad_path_is_refused_before_the_upgrade() -> None:
    viewer = ViewerPeer(Harness())
    viewer.upgrade("/live/x")
    viewer.receive()
    assert viewer.http.startswith(b"HTTP/1.1 400 ")


def test_who_logs_in_watches_and_is_not_online() -> None:
    harness = Harness()
    member = harness.log_in(10_001, room=ROOM)
    viewer = ViewerPeer(harness)
    viewer.watch(ROOM, user=10_001)
    assert viewer.seen() == ["''"]
    assert not member.session.ended
    assert len(harness.node.hub) == 1
    assert viewer.session.state.name == "watching"


@pytest.mark.parametrize("token", ["", "x"])
def test_who_may_not_is_told_in_the_close_frame(token: str) -> None:
    harness = Harness()
    viewer = ViewerPeer(harness)
    viewer.watch(ROOM, token=token)
    assert viewer.seen() == ["1008 login: the login token is malformed"]
    assert harness.node.streams.viewers == 0


def test_anything_before_the_login_is_refused() -> None:
    viewer = ViewerPeer(Harness())
    viewer.upgrade("/live/7")
    viewer.send(BIZ)
    assert viewer.seen() == ["1008 code 1003: expected 1001 (LOGIN) first"]


def test_where_pictures_are_open_nobody_need_log_in() -> None:
    harness = Harness(video={"open": True})
    encoder, viewer = EncoderPeer(harness), ViewerPeer(harness)
    encoder.publish(ROOM)
    encoder.show("*a")
    viewer.upgrade("/live/7")
    assert viewer.seen() == [MIME, "init", "a"]
    viewer.send(LOGIN, appId=10_001, userId=10_001, token="x")
    viewer.send(HEARTBEAT)
    encoder.show("b")
    assert viewer.seen() == ["b"]


def test_a_code_that_does_not_exist_is_refused_while_watching() -> None:
    harness = Harness(video={"open": True})
    viewer = ViewerPeer(harness)
    viewer.upgrade("/live/7")
    viewer.send(1234)
    assert viewer.seen()[0] == "''"
