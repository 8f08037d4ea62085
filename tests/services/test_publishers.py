from __future__ import annotations

from harness import Harness
from qiyu.errors import EndReason
from studio import EncoderPeer, ViewerPeer

ROOM = 7


def on_air(harness: Harness) -> EncoderPeer:
    encoder = EncoderPeer(harness)
    encoder.publish(ROOM)
    encoder.show("*a")
    assert harness.node.streams.is_on_air(ROOM)
    return encoder


def test_who_connects_and_publishes_nothing_is_let_go() -> None:
    harness = Harness()
    encoder = EncoderPeer(harness)
    encoder.write(encoder.encoder.connect().take())
    harness.advance(4.9)
    assert not encoder.outbox.finished
    harness.advance(0.2)
    assert encoder.last_words == "nothing was published within 5 s"


def test_who_is_not_limited_may_take_its_time() -> None:
    harness = Harness(limits={"login_seconds": 0})
    encoder = EncoderPeer(harness)
    harness.advance(10_000)
    assert not encoder.is_shut


def test_the_end_of_the_connection_is_the_end_of_the_push() -> None:
    harness = Harness()
    encoder = on_air(harness)
    encoder.hang_up()
    assert not harness.node.streams.is_on_air(ROOM)
    assert encoder.publisher.ended
    assert repr(harness.node.publishers) == "<Publishers on_air=0 not_begun=0>"


def test_an_encoder_has_five_seconds_to_read_why_it_is_to_go() -> None:
    harness = Harness()
    encoder = on_air(harness)
    harness.node.streams.close_room(ROOM)
    assert encoder.last_words == "room 7 was closed"
    encoder.show("b", "c")  # it does not listen yet
    encoder.write(b"\xff" * 100)
    for _ in range(6):
        assert not encoder.is_shut
        harness.advance(1.0)
    assert encoder.is_shut
    assert harness.metrics.protocol_violations == 0


def test_one_that_goes_by_itself_is_closed_at_once() -> None:
    harness = Harness()
    encoder = on_air(harness)
    harness.node.streams.close_room(ROOM)
    encoder.hang_up()
    harness.advance(10)
    assert encoder.is_shut


def test_a_frozen_encoder_is_off_air() -> None:
    harness = Harness(video={"silent_seconds": 2.0})
    encoder = on_air(harness)
    harness.advance(1.9)
    assert harness.node.streams.is_on_air(ROOM)
    harness.advance(0.2)
    assert not harness.node.streams.is_on_air(ROOM)
    assert encoder.last_words == "nothing came for 2 s"


def test_what_is_not_rtmp_is_closed_without_a_word() -> None:
    harness = Harness()
    encoder = EncoderPeer(harness)
    encoder.write(b"GET / HTTP/1.1\r\n")
    assert encoder.is_shut
    assert encoder.outbox.size == 0
    assert harness.metrics.protocol_violations == 1


def test_who_asks_more_than_it_reads_is_closed() -> None:
    harness = Harness()
    encoder = on_air(harness)
    encoder.outbox.push(b"x" * 2**21)
    harness.dispatcher.overflowed(encoder.publisher)
    assert not harness.node.streams.is_on_air(ROOM)


def test_when_the_server_stops_every_encoder_is_told() -> None:
    harness = Harness()
    pushing, waiting = on_air(harness), EncoderPeer(harness)
    waiting.write(waiting.encoder.connect().take())
    harness.dispatcher.drain(lambda: 1000)
    for encoder in (pushing, waiting):
        assert encoder.last_words == "the server stops: push again in a moment"
        assert encoder.is_shut
    assert EndReason.DRAIN.ws_close == 1012


def test_a_bug_closes_the_encoder_it_was_met_on() -> None:
    harness = Harness()
    encoder = on_air(harness)
    viewer = ViewerPeer(harness)
    viewer.watch(ROOM)
    harness.dispatcher.crashed(encoder.publisher)
    assert encoder.last_words == "internal error"
    assert viewer.seen()[-1] == "''"


def test_its_repr_says_where_it_is() -> None:
    harness = Harness()
    assert "rtmp from 192.0.2.1 room=7 publisher" in repr(on_air(harness).publisher)
