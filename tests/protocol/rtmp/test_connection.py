from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clips import as_pieces
from qiyu.protocol.rtmp.amf0 import encode
from qiyu.protocol.rtmp.connection import Event, Media, Publish, RtmpConnection, Unpublish
from qiyu.protocol.rtmp.messages import Message, MessageType, RtmpLimits
from rtmp_encoder import HANDSHAKE, SECOND_HALF, Encoder, commands, read_answers

CUTS = st.lists(st.integers(0, 100_000), max_size=12)


class Peer:
    """A connection and all that came out of it; it accepts what is asked, or says why not."""

    def __init__(self, refusal: str = "", limits: RtmpLimits | None = None) -> None:
        self.connection = RtmpConnection(limits or RtmpLimits())
        self.events: list[Event] = []
        self.answers = b""
        self._refusal = refusal

    def feed(self, *pieces: bytes) -> Peer:
        for piece in pieces:
            for event in self.connection.receive_data(piece):
                self.events.append(event)
                if isinstance(event, Publish):
                    if self._refusal:
                        self.connection.end(self._refusal)
                    else:
                        self.connection.accept()
            assert self.connection.has_output in (True, False)
            self.answers += self.connection.data_to_send()
        return self

    @property
    def commands(self) -> list[list[Any]]:
        return commands(read_answers(self.answers))

    @property
    def error(self) -> str:
        assert self.connection.error is not None
        return self.connection.error.reason

    @property
    def last_words(self) -> tuple[str, str, str]:
        """Level, code and description of the last answer."""
        info = self.commands[-1][-1]
        return info["level"], info["code"], info["description"]


def push(chunk_bytes: int = 128, media: Iterable[tuple[int, int, bytes]] = ()) -> bytes:
    encoder = Encoder(chunk_bytes).publish("7?key=secret")
    for kind, timestamp, body in media:
        if kind == MessageType.AUDIO:
            encoder.audio(timestamp, body)
        else:
            encoder.video(timestamp, body)
    encoder.call("FCUnpublish", 6, None, "7?key=secret")
    encoder.call("deleteStream", 7, None, 1)
    return encoder.take()


@pytest.mark.property
@given(
    st.sampled_from([128, 4096, 60_000]),
    st.lists(
        st.tuples(st.sampled_from([8, 9]), st.integers(0, 2**32 - 1), st.binary(min_size=10, max_size=300)), max_size=6
    ),
    CUTS,
)
def test_a_push_is_the_same_however_it_is_cut(
    chunk_bytes: int, media: list[tuple[int, int, bytes]], cuts: list[int]
) -> None:
    """Any chunk size and any split, byte by byte included: the same events in the same order."""
    data = push(chunk_bytes, media)
    expected = [Publish("live", "7?key=secret"), *(Media(*one) for one in media), Unpublish()]
    handshake = len(HANDSHAKE + SECOND_HALF)
    assert Peer().feed(data).events == expected
    for places in (cuts, list(range(handshake, len(data)))):
        peer = Peer().feed(*as_pieces(data, places))
        assert peer.events == expected
        assert peer.connection.error is None


def test_a_push_that_ends_before_it_is_accepted_never_begins() -> None:
    peer = Peer().feed(push())
    assert peer.events == [Publish("live", "7?key=secret"), Unpublish()]
    assert peer.commands[-1][3]["code"] == "NetStream.Unpublish.Success"


@pytest.mark.property
@given(
    st.lists(
        st.binary(max_size=200)
        | st.builds(
            lambda kind, stream, body: Encoder().say(5, Message(kind, stream, 0, body)).take()[2 * 1536 + 1 :],
            st.integers(0, 30),
            st.integers(0, 2),
            st.binary(max_size=60),
        )
        | st.builds(
            lambda name, transaction, arguments, stream: (
                Encoder().call(name, transaction, *arguments, stream_id=stream).take()[2 * 1536 + 1 :]
            ),
            st.sampled_from(["connect", "createStream", "publish", "play", "deleteStream", "FCUnpublish", "what"]),
            st.sampled_from([0, 1, 5]),
            st.lists(st.none() | st.text(max_size=5) | st.integers(0, 3) | st.just({"app": "live"}), max_size=3),
            st.integers(0, 2),
        ),
        max_size=8,
    ),
    CUTS,
    st.booleans(),
)
def test_whatever_a_peer_says_nothing_is_raised(says: list[bytes], cuts: list[int], shakes_hands: bool) -> None:
    """Events and answers, or an error with a reason and then silence; the same for any split."""
    data = (HANDSHAKE + SECOND_HALF if shakes_hands else b"") + b"".join(says)
    peer = Peer().feed(*as_pieces(data, cuts))
    assert peer.events == Peer().feed(data).events
    peer.connection.receive_eof()
    error = peer.connection.error
    assert error is None or error.reason
    if error is not None:
        assert peer.feed(push()).events == peer.events


def test_the_answers_are_those_that_encoders_wait_for() -> None:
    encoder = Encoder().publish("7")
    peer = Peer().feed(encoder.take(), encoder.call("deleteStream", 7, None, 1).take())
    messages = read_answers(peer.answers)
    assert [message.type for message in messages[:2]] == [
        MessageType.WINDOW_ACKNOWLEDGEMENT_SIZE,
        MessageType.SET_PEER_BANDWIDTH,
    ]
    answers = peer.commands
    assert [answer[:2] for answer in answers] == [
        ["_result", 1.0],
        ["_result", 2.0],
        ["_result", 3.0],
        ["_result", 4.0],
        ["onStatus", 0.0],
        ["onStatus", 0.0],
    ]
    assert answers[0][3]["code"] == "NetConnection.Connect.Success"
    assert answers[3][3] == 1.0  # the stream's id
    assert answers[4][3]["code"] == "NetStream.Publish.Start"
    assert answers[5][3]["code"] == "NetStream.Unpublish.Success"
    assert [message.stream_id for message in messages if message.type == MessageType.COMMAND] == [0, 0, 0, 0, 1, 1]


def test_a_refusal_says_why_and_ends_it() -> None:
    encoder = Encoder().publish("7?key=secret")
    peer = Peer(refusal="the key is wrong").feed(encoder.take(), encoder.audio(0, b"12345678").take())
    assert peer.events == [Publish("live", "7?key=secret")]
    assert peer.last_words == ("error", "NetStream.Publish.BadName", "the key is wrong")
    assert peer.connection.error is None


def test_a_push_can_be_ended_from_our_side() -> None:
    peer = Peer().feed(Encoder().publish("7").take())
    peer.connection.end("the room was closed")
    peer.feed(b"")
    peer.answers += peer.connection.data_to_send()
    assert peer.last_words == ("error", "NetStream.Failed", "the room was closed")
    encoder = Encoder().video(0, b"12345678")
    assert peer.feed(encoder.take()[1 + 2 * 1536 :]).events == [Publish("live", "7")]


def test_no_key_is_in_a_repr() -> None:
    peer = Peer().feed(push())
    assert "secret" not in repr(peer.events) + repr(peer.connection)


@pytest.mark.parametrize("app", ["live", "/live/", "live?a=b", "live/?a=b"])
def test_ways_to_write_the_application(app: str) -> None:
    assert Peer().feed(Encoder().publish("7", app).take()).events == [Publish("live", "7")]


@pytest.mark.parametrize(
    ("app", "quoted"), [("foo", "'foo'"), ("", "''"), ("app/7?key=secret", "'app'"), ("x" * 100, repr("x" * 64))]
)
def test_another_application_is_refused_by_the_answer_to_connect(app: str, quoted: str) -> None:
    peer = Peer().feed(Encoder().connect(app).take())
    reason = f"application {quoted}: expected live, as in rtmp://host/live"
    assert peer.error == reason
    assert peer.commands[-1][:2] == ["_error", 1.0]
    assert peer.last_words == ("error", "NetConnection.Connect.Rejected", reason)


def test_pings_are_answered() -> None:
    ping = Message(MessageType.USER_CONTROL, 0, 0, b"\x00\x06\x00\x00\x12\x34")
    peer = Peer().feed(Encoder().connect().say(2, ping).take())
    assert read_answers(peer.answers)[-1].payload == b"\x00\x07\x00\x00\x12\x34"


def test_what_came_is_acknowledged_by_the_window_that_the_peer_named() -> None:
    window = Message(MessageType.WINDOW_ACKNOWLEDGEMENT_SIZE, 0, 0, (1000).to_bytes(4, "big"))
    encoder = Encoder().publish("7").say(2, window)
    peer = Peer().feed(encoder.take())
    before = len(read_answers(peer.answers))
    for timestamp in range(5):
        peer.feed(encoder.video(timestamp, bytes(700)).take())
    news = read_answers(peer.answers)[before:]
    assert [message.type for message in news] == [MessageType.ACKNOWLEDGEMENT] * len(news)
    numbers = [int.from_bytes(message.payload, "big") for message in news]
    assert len(numbers) == 2
    assert all(later - earlier >= 1000 for earlier, later in itertools.pairwise(numbers))


def test_after_a_push_another_may_follow_and_late_media_of_the_first_is_left() -> None:
    encoder = Encoder().publish("7")
    encoder.call("deleteStream", 0, None, 1).video(0, b"12345678")
    encoder.call("createStream", 8, None).call("publish", 0, None, "8", stream_id=2)
    encoder.say(6, Message(MessageType.VIDEO, 2, 0, b"picture"))
    assert Peer().feed(encoder.take()).events == [
        Publish("live", "7"),
        Unpublish(),
        Publish("live", "8"),
        Media(9, 0, b"picture"),
    ]


def test_the_end_of_another_stream_ends_nothing() -> None:
    encoder = Encoder().publish("7").call("deleteStream", 0, None, 2).call("closeStream", 0, None, stream_id=0)
    peer = Peer().feed(encoder.call("closeStream", 0, None, stream_id=1).take())
    assert peer.events == [Publish("live", "7"), Unpublish()]


def test_the_parts_of_an_aggregate_are_media_at_their_own_times() -> None:
    def part(kind: int, timestamp: int, body: bytes) -> bytes:
        time = (timestamp & 0xFFFFFF).to_bytes(3, "big") + bytes((timestamp >> 24,))
        size = len(body).to_bytes(3, "big")
        return bytes((kind,)) + size + time + bytes(3) + body + (11 + len(body)).to_bytes(4, "big")

    parts = part(8, 0x1000000, b"sound") + part(9, 0x1000010, b"picture") + part(7, 0x1000020, b"?")
    encoder = Encoder().publish("7").say(6, Message(MessageType.AGGREGATE, 1, 500, parts))
    assert Peer().feed(encoder.take()).events[1:] == [Media(8, 500, b"sound"), Media(9, 516, b"picture")]
    cut = Encoder().publish("7").say(6, Message(MessageType.AGGREGATE, 1, 500, parts[:-1]))
    assert Peer().feed(cut.take()).error == "an aggregate message ends within a part of 1 bytes"


def test_commands_and_data_in_what_is_called_amf_3_are_read_as_well() -> None:
    encoder = Encoder().publish("7")
    encoder.say(4, Message(MessageType.DATA_AMF3, 1, 5, b"\0" + encode(["onMetaData", {}])))
    encoder.say(3, Message(MessageType.COMMAND_AMF3, 1, 0, b"\0" + encode(["closeStream", 0, None])))
    peer = Peer().feed(encoder.take())
    assert peer.events[1:] == [Media(MessageType.DATA, 5, encode(["onMetaData", {}])), Unpublish()]


def test_what_is_not_known_is_answered_or_ignored() -> None:
    encoder = Encoder().connect().call("whatIsThis", 9, None).call("notWorthAnAnswer", 0, None)
    encoder.say(2, Message(MessageType.ACKNOWLEDGEMENT, 0, 0, bytes(4))).say(5, Message(99, 0, 0, b"?"))
    peer = Peer().feed(encoder.take())
    assert peer.connection.error is None
    assert peer.commands[1:][0][:2] == ["_error", 9.0]
    assert len(peer.commands) == 2


@pytest.mark.parametrize(
    ("encoder", "reason"),
    [
        (Encoder().call("createStream", 1, None), "'createStream' came first: expected connect"),
        (Encoder().connect().connect(), "connect came twice"),
        (
            Encoder().connect().call("publish", 2, None, "7", stream_id=1),
            "publish on stream 1: expected one that createStream gave",
        ),
        (
            Encoder().publish("7").call("publish", 6, None, "8", stream_id=1),
            "publish came twice: a connection carries one push at a time",
        ),
        (
            Encoder().connect().call("createStream", 2, None).call("play", 3, None, "7", stream_id=1),
            "there is nothing to play over RTMP: the picture is watched over WebSocket",
        ),
        (
            Encoder().connect().say(3, Message(MessageType.COMMAND, 0, 0, b"\x02\x00\x09")),
            "a command is not AMF 0: 9 bytes of a value expected, 0 are there",
        ),
        (
            Encoder().connect().say(3, Message(MessageType.COMMAND, 0, 0, encode(["name"]))),
            "a command must begin with its name and the number of its transaction",
        ),
    ],
)
def test_what_breaks_the_protocol_is_told_in_words_that_encoders_show(encoder: Encoder, reason: str) -> None:
    peer = Peer().feed(encoder.take())
    assert peer.error == reason
    # While the first push waits for its answer, the fault is that answer.
    code = "NetStream.Publish.BadName" if "publish came twice" in reason else "NetStream.Failed"
    assert peer.last_words == ("error", code, reason)


def test_streams_are_bounded() -> None:
    encoder = Encoder().connect()
    for transaction in range(2, 6):
        encoder.call("createStream", transaction, None)
    limits = dataclasses.replace(RtmpLimits(), message_streams=3)
    assert Peer(limits=limits).feed(encoder.take()).error == "createStream: expected at most 3 of them"


def test_a_fault_in_the_handshake_is_no_answer_in_rtmp() -> None:
    peer = Peer().feed(b"\x16\x03\x01")
    assert peer.answers == b""
    assert peer.error.startswith("this is TLS")


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", "the connection ended within the handshake"),
        (HANDSHAKE, "the connection ended within the handshake"),
        (Encoder().publish("7").take(), None),
        (Encoder().publish("7").video(0, bytes(300)).take()[:-1], "the connection ended within a message"),
    ],
)
def test_an_end_within_something_is_an_error(data: bytes, error: str | None) -> None:
    peer = Peer().feed(data)
    peer.connection.receive_eof()
    assert (peer.connection.error and peer.connection.error.reason) == error
    peer.connection.receive_eof()
    assert peer.connection.receive_data(b"x") == []
