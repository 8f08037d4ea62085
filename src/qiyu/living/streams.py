"""The pictures of rooms: one push each, and whoever watches it.

A fragment is framed once, and every viewer's outbox gets a reference to it. What is kept of a push is what somebody who
joins needs: the MIME type, the init segment, and the fragments since the last key frame.

A viewer who does not keep up is never waited for:

- owed more than `viewer_bytes`, it gets nothing until half of that is read, and then goes on with a key frame;
- so for longer than `slow_seconds`, it is closed.

What a viewer gets, in messages: a text, the MIME type of what follows; binary, the init segment and the fragments. A
text again means that everything begins anew (other codecs, another push); an empty one, that there is no picture now.

The end of a push is never the end of a connection to a viewer: there may be another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from qiyu.errors import QiyuError
from qiyu.metrics import Metrics
from qiyu.model import Instant
from qiyu.protocol.fmp4 import Fragment, InitSegment, Muxer, Segment, Unsupported
from qiyu.protocol.frames import binary_message, text_message
from qiyu.protocol.rtmp import MessageType, read_metadata
from qiyu.routing.outbox import Outbox

NO_PICTURE: Final = text_message(b"")
REPLACE_SECONDS: Final = 2.0
"""A push that has been silent for so long makes room for another: an encoder that lost its network comes back."""
AHEAD_MS: Final = 10_000
"""How far a picture may run ahead of the clock: an encoder has a second in its buffers, and a network's pause some."""


class PushRefused(QiyuError):
    """A push may not begin; the text tells the encoder's user why."""


@dataclass(frozen=True, slots=True)
class StreamRules:
    """Bytes and seconds."""

    viewer_bytes: int = 1_048_576
    """What a viewer may be owed before it is left out."""
    gop_bytes: int = 4_194_304
    """What is kept from the last key frame on; where it is more, whoever joins waits for the next."""
    silent_seconds: float = 5.0
    """How long a push may bring nothing."""
    slow_seconds: float = 10.0


class Viewer:
    """Somebody who watches, or waits for a picture."""

    __slots__ = ("behind_since", "is_left_out", "opening", "outbox", "slow")

    def __init__(self, outbox: Outbox, slow: Callable[[], None]) -> None:
        self.outbox = outbox
        self.slow = slow
        """To be called when it has not kept up for too long; it then leaves."""
        self.opening: bytes | None = None
        """The last it was sent."""
        self.is_left_out = True
        """It gets nothing until a key frame."""
        self.behind_since: float | None = None
        """When it did not keep up, in monotonic seconds; None while it does."""


class Push:
    """What an encoder sends, from `Streams.begin` to its end."""

    __slots__ = ("begun", "end", "ended", "last_seen", "muxer", "room_id", "silent_seconds")

    def __init__(self, room_id: int, end: Callable[[str], None], silent_seconds: float, now: Instant) -> None:
        self.room_id = room_id
        self.end = end
        """To be called with a reason when it is ended from this side."""
        self.muxer = Muxer()
        self.begun = now.monotonic
        self.last_seen = now.monotonic
        self.silent_seconds = silent_seconds
        """How long it may bring nothing."""
        self.ended = False

    def __repr__(self) -> str:
        return f"<Push room={self.room_id} {'ended' if self.ended else 'on air'}>"


class _Stream:
    """One room: its push, and what its viewers need."""

    __slots__ = ("gop", "gop_size", "opening", "push", "viewers")

    def __init__(self) -> None:
        self.push: Push | None = None
        self.opening: bytes | None = None
        self.gop: list[bytes] | None = None  # None where it is too large, or has not begun
        self.gop_size = 0
        self.viewers: set[Viewer] = set()

    def forget(self) -> None:
        self.opening = self.gop = None
        self.gop_size = 0


class Streams:
    """All of this instance. `tell` is called with a room, and whether it is on air, when that changes."""

    def __init__(self, rules: StreamRules, metrics: Metrics, tell: Callable[[int, bool], None]) -> None:
        self._rules = rules
        self._metrics = metrics
        self._tell = tell
        self._streams: dict[int, _Stream] = {}

    def __repr__(self) -> str:
        return f"<Streams pushes={self.pushes} viewers={self.viewers}>"

    @property
    def pushes(self) -> int:
        """How many rooms are on air."""
        return sum(stream.push is not None for stream in self._streams.values())

    @property
    def viewers(self) -> int:
        """How many watch, or wait for a picture."""
        return sum(len(stream.viewers) for stream in self._streams.values())

    def is_on_air(self, room_id: int) -> bool:
        """Whether somebody pushes a picture for the room."""
        stream = self._streams.get(room_id)
        return stream is not None and stream.push is not None

    # Publishers

    def begin(self, room_id: int, end: Callable[[str], None], now: Instant) -> Push:
        """A push for the room begins; `end` is called with a reason if it must end. Raises `PushRefused`."""
        known = self._streams.get(room_id)
        before = known.push if known is not None else None
        if before is not None:
            if now.monotonic - before.last_seen < REPLACE_SECONDS or before.silent_seconds > self._rules.silent_seconds:
                raise PushRefused(f"room {room_id} is on air already: another encoder is pushing with this key")
            self.stop(before, "another push for the room came while this one was silent")
        push = Push(room_id, end, self._rules.silent_seconds, now)
        self._streams.setdefault(room_id, _Stream()).push = push
        self._metrics.pushes += 1
        self._tell(room_id, True)
        return push

    def receive(self, push: Push, kind: int, timestamp: int, body: bytes, now: Instant) -> None:
        """A tag of a push. Raises `Unsupported` for a picture that cannot be shown; then the push is to be ended."""
        if push.ended:
            return
        push.last_seen = now.monotonic
        muxer = push.muxer
        if kind == MessageType.DATA:
            metadata = read_metadata(body)
            if metadata is not None:
                muxer.metadata(metadata.has_video, metadata.has_audio)
            return
        dropped = muxer.dropped
        segments = muxer.video(timestamp, body) if kind == MessageType.VIDEO else muxer.audio(timestamp, body)
        self._metrics.frames_unshown += muxer.dropped - dropped
        for segment in segments:
            self._fan_out(push, segment, now)

    def finish(self, push: Push) -> None:
        """A push is over; nothing is said to who pushed."""
        if push.ended:
            return
        push.ended = True
        stream = self._streams[push.room_id]
        stream.push = None
        stream.forget()
        for viewer in stream.viewers:
            viewer.is_left_out = True
            viewer.behind_since = None
            viewer.opening = None
            viewer.outbox.push(NO_PICTURE)
        self._clear(push.room_id, stream)
        self._tell(push.room_id, False)

    def stop(self, push: Push, reason: str) -> None:
        """End a push from this side."""
        if not push.ended:
            self.finish(push)
            push.end(reason)

    def close_room(self, room_id: int) -> None:
        """The room is no more."""
        stream = self._streams.get(room_id)
        if stream is not None and stream.push is not None:
            self.stop(stream.push, f"room {room_id} was closed")

    # Viewers

    def watch(self, room_id: int, viewer: Viewer) -> None:
        """A viewer joins: what there is of the picture, then what comes."""
        stream = self._streams.setdefault(room_id, _Stream())
        stream.viewers.add(viewer)
        if stream.opening is None:
            viewer.outbox.push(NO_PICTURE)
        elif stream.gop is not None:
            self._open(stream, viewer)
            for frame in stream.gop:
                viewer.outbox.push(frame)
            self._metrics.fragments_sent += len(stream.gop)

    def leave(self, room_id: int, viewer: Viewer) -> None:
        """A viewer watches no more."""
        stream = self._streams.get(room_id)
        if stream is not None:
            stream.viewers.discard(viewer)
            self._clear(room_id, stream)

    def viewers_of(self, room_id: int) -> list[Viewer]:
        """Who watches the room, or waits for its picture."""
        stream = self._streams.get(room_id)
        return list(stream.viewers) if stream is not None else []

    # Both

    def sweep(self, now: Instant) -> None:
        """About once a second: end what has been silent too long, and let go who has not kept up for too long."""
        slow_since = now.monotonic - self._rules.slow_seconds
        for stream in list(self._streams.values()):
            push = stream.push
            if push is not None and push.last_seen <= now.monotonic - push.silent_seconds:
                self._metrics.pushes_silent += 1
                self.stop(push, f"nothing came for {push.silent_seconds:g} s")
            for viewer in list(stream.viewers):
                if viewer.behind_since is not None and viewer.behind_since <= slow_since:
                    self._metrics.viewers_slow += 1
                    viewer.slow()

    def _fan_out(self, push: Push, segment: Segment, now: Instant) -> None:
        stream = self._streams[push.room_id]
        if isinstance(segment, InitSegment):
            stream.forget()
            stream.opening = text_message(segment.mime.encode()) + binary_message(segment.data)
            for viewer in stream.viewers:
                viewer.is_left_out = True  # until the key frame, which comes next
            return
        self._check_pace(push, segment, now)
        frame = binary_message(segment.data)
        self._keep(stream, segment, frame)
        most = self._rules.viewer_bytes
        sent = 0
        for viewer in stream.viewers:
            if viewer.is_left_out:
                if not segment.is_start or not self._may_go_on(viewer):
                    continue
                self._open(stream, viewer)
            elif viewer.outbox.size > most:
                viewer.is_left_out = True
                viewer.behind_since = now.monotonic
                self._metrics.viewers_behind += 1
                continue
            viewer.outbox.push(frame)
            sent += 1
        self._metrics.fragments_sent += sent
        self._metrics.fragments_dropped += len(stream.viewers) - sent

    def _check_pace(self, push: Push, fragment: Fragment, now: Instant) -> None:
        if fragment.time - (now.monotonic - push.begun) * 1000 > AHEAD_MS:
            raise Unsupported("the picture comes faster than it is to be shown (ffmpeg: put -re before -i)")

    def _keep(self, stream: _Stream, fragment: Fragment, frame: bytes) -> None:
        if fragment.is_start:
            stream.gop = [frame]
            stream.gop_size = len(frame)
        elif stream.gop is not None:
            stream.gop.append(frame)
            stream.gop_size += len(frame)
            if stream.gop_size > self._rules.gop_bytes:
                stream.gop = None

    def _may_go_on(self, viewer: Viewer) -> bool:
        return viewer.outbox.size <= self._rules.viewer_bytes // 2

    @staticmethod
    def _open(stream: _Stream, viewer: Viewer) -> None:
        viewer.is_left_out = False
        viewer.behind_since = None
        if viewer.opening is not stream.opening and stream.opening is not None:
            viewer.opening = stream.opening
            viewer.outbox.push(stream.opening)

    def _clear(self, room_id: int, stream: _Stream) -> None:
        if stream.push is None and not stream.viewers:
            self._streams.pop(room_id, None)
