from __future__ import annotations

import pytest

from harness import Harness
from studio import MIME, EncoderPeer, ViewerPeer

ROOM = 7


def test_an_encoder_with_the_rooms_key_is_on_air() -> None:
    harness = Harness()
    encoder = EncoderPeer(harness)
    encoder.publish(ROOM)
    assert encoder.last_words == "The push has begun."
    assert harness.node.streams.is_on_air(ROOM)
    viewer = ViewerPeer(harness)
    viewer.watch(ROOM)
    encoder.show("*a", "b")
    assert viewer.seen() == ["''", MIME, "init", "a", "b"]
    encoder.unpublish()
    assert viewer.seen() == ["''"]
    assert not harness.node.streams.is_on_air(ROOM)
    encoder.encoder.call("publish", 9, None, harness.node.stream_keys.issue(ROOM, harness.now.unix_ms), stream_id=1)
    encoder.write(encoder.encoder.take())
    encoder.show("*c")
    assert viewer.seen() == [MIME, "init", "c"]


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("7", "the stream key has no key: expected ROOM?key=…, as the room's page shows it"),
        ("7?key=1-" + "A" * 43, "the stream key is wrong, or that of another room"),
    ],
)
def test_a_wrong_key_is_refused(key: str, reason: str) -> None:
    harness = Harness()
    encoder = EncoderPeer(harness)
    encoder.publish(ROOM, key)
    assert encoder.last_words == reason
    assert not harness.node.streams.is_on_air(ROOM)
    assert harness.metrics.pushes_refused == 1


def test_a_second_encoder_is_refused() -> None:
    harness = Harness()
    first, second = EncoderPeer(harness), EncoderPeer(harness)
    first.publish(ROOM)
    second.publish(ROOM)
    assert second.last_words == "room 7 is on air already: another encoder is pushing with this key"
    assert first.last_words == "The push has begun."


def test_media_that_comes_before_or_after_a_push_is_left() -> None:
    harness = Harness(living={"require_open_room": True})
    encoder = EncoderPeer(harness)
    encoder.publish(ROOM)
    encoder.show("*a")  # its room is looked up meanwhile
    assert encoder.publisher.held is not None
    assert harness.metrics.fragments_sent == 0


def test_what_no_browser_shows_is_told() -> None:
    harness = Harness()
    encoder = EncoderPeer(harness)
    encoder.publish(ROOM)
    encoder.write(encoder.encoder.video(0, b"\x12sorenson").take())
    assert encoder.last_words == "video codec 2 (Sorenson H.263): expected H.264 or H.265"
    assert harness.metrics.pushes_unsupported == 1
    assert not harness.node.streams.is_on_air(ROOM)
