from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clips import AUDIO, DATA, VIDEO
from mp4 import H264_RECORD
from qiyu.living.streams import Push, PushRefused, StreamRules, Streams, Viewer
from qiyu.metrics import Metrics
from qiyu.model import Instant
from qiyu.protocol.fmp4 import Unsupported
from qiyu.protocol.rtmp.amf0 import encode
from qiyu.routing.outbox import Outboxes, OutboxLimits

ROOM = 7
METADATA = encode(["@setDataFrame", "onMetaData", {"videocodecid": 7}])
OTHER_RECORD = H264_RECORD[:3] + b"\x1e" + H264_RECORD[4:]
MIME, OTHER_MIME = 'video/mp4; codecs="avc1.64000C"', 'video/mp4; codecs="avc1.64001E"'


def messages(data: bytes) -> Iterator[str]:
    """What WebSocket messages say: a text in quotes, `init`, or the data of a frame, with a star for a key frame."""
    at = 0
    while at < len(data):
        size, start = data[at + 1], at + 2
        if size >= 126:
            start = at + (4 if size == 126 else 10)
            size = int.from_bytes(data[at + 2 : start])
        payload = data[start : start + size]
        assert len(payload) == size
        if data[at] == 0x81:
            yield repr(payload.decode())
        else:
            assert data[at] == 0x82
            if payload[4:8] == b"ftyp":
                yield "init"
            else:
                is_key = payload[payload.index(b"trun") + 24 :][:4] == b"\x02\x00\x00\x00"
                yield "*" * is_key + payload[payload.index(b"mdat") + 4 :].decode().rstrip(".")
        at = start + size


class Watching:
    """A viewer, and what it reads."""

    def __init__(self, studio: Studio, room_id: int = ROOM) -> None:
        self.outbox = Outboxes(OutboxLimits(0, 0)).open(lambda _: None)
        self.viewer = Viewer(self.outbox, self._slow)
        self.is_closed = False
        self._studio, self._room = studio, room_id
        studio.streams.watch(room_id, self.viewer)

    def _slow(self) -> None:
        self.is_closed = True
        self.leave()

    def read(self) -> list[str]:
        return list(messages(self.outbox.take(1 << 40)))

    def leave(self) -> None:
        self._studio.streams.leave(self._room, self.viewer)


class Studio:
    """The streams, a clock, and an encoder."""

    def __init__(self, rules: StreamRules | None = None) -> None:
        self.metrics = Metrics()
        self.told: list[tuple[int, bool]] = []
        self.ended: list[str] = []
        self.streams = Streams(
            rules or StreamRules(), self.metrics, lambda room, is_on: self.told.append((room, is_on))
        )
        self.seconds = 100.0
        self.timestamp = 0
        self.push: Push | None = None

    @property
    def now(self) -> Instant:
        return Instant(self.seconds, int(self.seconds * 1000))

    def begin(self, room_id: int = ROOM) -> Push:
        self.push = self.streams.begin(room_id, self.ended.append, self.now)
        self.timestamp = 0
        self.send(DATA, METADATA)
        self.configure()
        return self.push

    def configure(self, record: bytes = H264_RECORD) -> None:
        self.send(VIDEO, b"\x17\0\0\0\0" + record)

    def send(self, kind: int, body: bytes) -> None:
        assert self.push is not None
        self.streams.receive(self.push, kind, self.timestamp, body, self.now)

    def show(self, *frames: str, size: int = 0) -> None:
        """Each 40 ms a frame; one with a star is a key frame."""
        for frame in frames:
            head = b"\x17" if frame.startswith("*") else b"\x27"
            self.send(VIDEO, head + b"\1\0\0\0" + frame.lstrip("*").encode().ljust(size, b"."))
            self.timestamp += 40
            self.seconds += 0.04


def test_a_viewer_gets_the_type_the_tracks_and_every_frame() -> None:
    studio = Studio()
    viewer = Watching(studio)
    assert viewer.read() == ["''"]
    studio.begin()
    studio.show("*a", "b", "c")
    assert viewer.read() == [repr(MIME), "init", "*a", "b", "c"]
    studio.show("*d", "e")
    assert viewer.read() == ["*d", "e"]


def test_who_joins_gets_everything_since_the_last_key_frame() -> None:
    studio = Studio()
    studio.begin()
    studio.show("*a", "b", "*c", "d")
    viewer = Watching(studio)
    studio.show("e")
    assert viewer.read() == [repr(MIME), "init", "*c", "d", "e"]


def test_where_that_is_too_much_it_waits_for_the_next_key_frame() -> None:
    studio = Studio(StreamRules(gop_bytes=500))
    studio.begin()
    studio.show("*a", "b", "c", size=200)
    viewer = Watching(studio)
    assert viewer.read() == []
    studio.show("d", "*e", "f")
    assert viewer.read() == [repr(MIME), "init", "*e", "f"]


def test_one_room_is_not_another() -> None:
    studio = Studio()
    here, there = Watching(studio), Watching(studio, room_id=8)
    studio.begin()
    studio.show("*a")
    assert here.read()[-1] == "*a"
    assert there.read() == ["''"]
    assert (studio.streams.pushes, studio.streams.viewers) == (1, 2)


def test_other_parameters_are_told_and_begin_with_a_key_frame() -> None:
    studio = Studio()
    studio.begin()
    viewer = Watching(studio)
    studio.show("*a")
    studio.configure(OTHER_RECORD)
    studio.show("b", "*c")
    late = Watching(studio)
    assert viewer.read() == ["''", repr(MIME), "init", "*a", repr(OTHER_MIME), "init", "*c"]
    assert late.read() == [repr(OTHER_MIME), "init", "*c"]
    assert studio.metrics.frames_unshown == 1


def test_the_end_of_a_push_is_told_and_another_may_follow() -> None:
    studio = Studio()
    viewer = Watching(studio)
    push = studio.begin()
    studio.show("*a")
    studio.streams.finish(push)
    studio.streams.finish(push)
    studio.show("lost")
    studio.begin()
    studio.show("*b")
    assert viewer.read() == ["''", repr(MIME), "init", "*a", "''", repr(MIME), "init", "*b"]
    assert studio.told == [(ROOM, True), (ROOM, False), (ROOM, True)]
    assert studio.ended == []


def test_a_second_push_is_refused_unless_the_first_is_silent() -> None:
    studio = Studio()
    first = studio.begin()
    studio.show("*a")
    with pytest.raises(PushRefused, match="room 7 is on air already: another encoder is pushing with this key"):
        studio.streams.begin(ROOM, studio.ended.append, studio.now)
    assert not first.ended
    studio.seconds += 2
    viewer = Watching(studio)
    studio.begin()
    studio.show("*b")
    assert first.ended
    assert studio.ended == ["another push for the room came while this one was silent"]
    assert viewer.read() == [repr(MIME), "init", "*a", "''", repr(MIME), "init", "*b"]
    assert studio.told == [(ROOM, True), (ROOM, False), (ROOM, True)]


def test_a_frozen_encoder_is_noticed_after_five_seconds() -> None:
    studio = Studio()
    studio.begin()
    studio.show("*a")
    studio.seconds += 4.9
    studio.streams.sweep(studio.now)
    assert studio.streams.is_on_air(ROOM)
    studio.seconds += 0.1
    studio.streams.sweep(studio.now)
    assert not studio.streams.is_on_air(ROOM)
    assert studio.ended == ["nothing came for 5 s"]
    assert studio.metrics.pushes_silent == 1


def test_a_room_that_is_closed_ends_its_push() -> None:
    studio = Studio()
    studio.begin()
    studio.streams.close_room(8)
    assert studio.ended == []
    studio.streams.close_room(ROOM)
    studio.streams.close_room(ROOM)
    assert studio.ended == ["room 7 was closed"]
    assert studio.told == [(ROOM, True), (ROOM, False)]


def test_a_viewer_that_does_not_read_goes_on_with_a_key_frame() -> None:
    studio = Studio(StreamRules(viewer_bytes=2000))
    slow, quick = Watching(studio), Watching(studio)
    kept: list[str] = []
    studio.begin()
    for frame in ("*a", "b", "c", "d", "e", "f", "*g", "h"):
        studio.show(frame, size=400)
        kept += quick.read()
    assert slow.read() == ["''", repr(MIME), "init", "*a", "b", "c"]
    studio.show("i", "*j", "k", size=400)
    assert slow.read() == ["*j", "k"]
    assert [*kept, *quick.read()][3:] == ["*a", "b", "c", "d", "e", "f", "*g", "h", "i", "*j", "k"]
    assert studio.metrics.viewers_behind == 1
    assert studio.metrics.fragments_dropped == 6


def test_a_viewer_that_goes_on_not_reading_is_closed() -> None:
    studio = Studio(StreamRules(viewer_bytes=1000))
    viewer = Watching(studio)
    studio.begin()
    for _ in range(240):  # 9.6 s
        studio.show("*a", size=600)
    studio.streams.sweep(studio.now)
    assert not viewer.is_closed
    for _ in range(20):
        studio.show("*a", size=600)
    studio.streams.sweep(studio.now)
    assert viewer.is_closed
    assert studio.streams.viewers == 0
    assert studio.metrics.viewers_slow == 1
    assert viewer.outbox.size < 3000


def test_a_picture_faster_than_the_clock_is_refused() -> None:
    studio = Studio()
    studio.begin()
    for _ in range(250):
        studio.show("*a")
        studio.seconds -= 0.039
    studio.timestamp += 1000
    with pytest.raises(Unsupported, match="faster than it is to be shown"):
        studio.show("*a")


def test_sound_alone_is_a_picture_too() -> None:
    studio = Studio()
    push = studio.streams.begin(ROOM, studio.ended.append, studio.now)
    studio.push = push
    studio.send(DATA, encode(["onMetaData", {"audiocodecid": 10}]))
    studio.send(AUDIO, b"\xaf\0\x12\x10")
    viewer = Watching(studio)
    studio.send(AUDIO, b"\xaf\1sound")
    assert viewer.read()[:3] == ["''", repr('audio/mp4; codecs="mp4a.40.2"'), "init"]


def test_what_is_over_leaves_nothing() -> None:
    studio = Studio()
    viewer = Watching(studio)
    push = studio.begin()
    studio.streams.finish(push)
    viewer.leave()
    viewer.leave()
    assert repr(studio.streams) == "<Streams pushes=0 viewers=0>"
    assert studio.streams.viewers_of(ROOM) == []
    assert studio.streams._streams == {}


class Play:
    """A studio in which anything happens in any order."""

    ACTIONS = ("begin", "end", "key", "frame", "big", "configure", "join", "read", "leave", "wait", "sweep")

    def __init__(self) -> None:
        self.studio = Studio(StreamRules(viewer_bytes=3000, gop_bytes=2000, silent_seconds=1.0, slow_seconds=2.0))
        self.watching: list[tuple[Watching, list[str]]] = []
        self.frames = 0

    @property
    def _is_on(self) -> bool:
        return self.studio.push is not None and not self.studio.push.ended

    def begin(self) -> None:
        if not self._is_on:
            self.studio.begin()

    def end(self) -> None:
        if self._is_on:
            assert self.studio.push is not None
            self.studio.streams.finish(self.studio.push)

    def key(self, star: str = "*", size: int = 0) -> None:
        if self._is_on:
            self.frames += 1
            self.studio.show(f"{star}{self.frames}", size=size)

    def frame(self) -> None:
        self.key("")

    def big(self) -> None:
        self.key("", 1200)

    def configure(self) -> None:
        if self._is_on:
            self.studio.configure(OTHER_RECORD if self.frames % 2 else H264_RECORD)

    def join(self) -> None:
        if len(self.watching) < 3:
            self.watching.append((Watching(self.studio), []))

    def read(self) -> None:
        if self.watching:
            viewer, seen = self.watching[self.frames % len(self.watching)]
            seen += viewer.read()

    def leave(self) -> None:
        if self.watching:
            self.watching.pop()[0].leave()

    def wait(self) -> None:
        self.studio.seconds += 0.5

    def sweep(self) -> None:
        self.studio.streams.sweep(self.studio.now)


@pytest.mark.property
@given(st.lists(st.sampled_from(Play.ACTIONS), max_size=60))
def test_whatever_happens_what_a_viewer_reads_can_be_shown(actions: list[str]) -> None:
    """A text first; after one that is not empty the tracks; after those, or where something is left out, a key frame;
    in order and none twice. And no viewer is owed more than the bound, and the opening or one frame beyond it."""
    play = Play()
    for action in actions:
        getattr(play, action)()
        assert all(viewer.outbox.size < 3000 + 2000 + 3000 for viewer, _ in play.watching)
    for viewer, seen in play.watching:
        _check([*seen, *viewer.read()])


def _check(seen: list[str]) -> None:
    expects = ["text"]
    last = 0
    for said in seen:
        if said == "''":
            assert "text" in expects
            expects = ["text"]
        elif said.startswith("'"):
            assert "text" in expects
            expects = ["init"]
        elif said == "init":
            assert expects == ["init"]
            expects = ["key", "text"]
        else:
            number = int(said.lstrip("*"))
            assert number > last
            if number != last + 1 or "frame" not in expects:
                assert said.startswith("*")
                assert "key" in expects
            last = number
            expects = ["frame", "key", "text"]
