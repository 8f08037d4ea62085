"""Tags in, segments out: an init segment when the tracks are known, then a fragment a frame.

Nothing is held back for the sake of a better container: a frame is a fragment at once. So a frame's duration is a guess
(the last one's), and that its decoding time is in every fragment keeps guesses from adding up.

A browser can begin at an init segment followed by a key frame, and nowhere else. So:

- it begins with a key frame, once all tracks are known that the metadata names (where it names none: both), or the
  stream has gone on for a second without the missing one;
- other parameters of a track, or another track, mean another init segment, with the next key frame; what comes before
  that is dropped and counted.
"""

from __future__ import annotations

from typing import Final, TypeAlias

import msgspec

from qiyu.protocol.fmp4.aac import read_aac
from qiyu.protocol.fmp4.boxes import audio_fragment, init_segment, video_fragment
from qiyu.protocol.fmp4.clock import AudioTimes, Clock, VideoTimes
from qiyu.protocol.fmp4.flv import Codec, Kind, read_audio, read_video
from qiyu.protocol.fmp4.h264 import read_h264
from qiyu.protocol.fmp4.h265 import read_h265
from qiyu.protocol.fmp4.tracks import AudioTrack, Unsupported, VideoTrack, mime_type

__all__ = ["Fragment", "InitSegment", "Muxer", "Segment", "Unsupported"]

WAIT_MS: Final = 1_000
MAX_CONFIGURATION_BYTES: Final = 8192
"""What a decoder must know: fifty bytes of x264, but 2,400 of x265, which puts its command line in."""


class InitSegment(msgspec.Struct):
    """What a viewer needs before the fragments that follow; `mime` is what its browser must be told."""

    mime: str
    data: bytes


class Fragment(msgspec.Struct, gc=False):
    """One frame. A viewer who has the init segment can begin at one that `is_start`; `time` is in milliseconds."""

    data: bytes
    is_start: bool
    time: int


Segment: TypeAlias = "InitSegment | Fragment"


class Muxer:
    """One push. A fault raises `Unsupported`, and the push is at its end."""

    def __init__(self) -> None:
        self._clock = Clock()
        self._video: VideoTrack | None = None
        self._audio: AudioTrack | None = None
        self._video_record = b""
        self._video_times = VideoTimes()
        self._audio_times = AudioTimes(1, 1)
        self._awaits_video = True
        self._awaits_audio = True
        self._begun = False
        """The init segment with these tracks is out."""
        self._waits_since: int | None = None
        self._sequence = 0
        self.dropped = 0
        """Frames that no viewer could have shown."""

    def metadata(self, has_video: bool, has_audio: bool) -> None:
        """What the encoder says there will be. It is believed as to what is not worth waiting for."""
        if has_video or has_audio:
            self._awaits_video = has_video
            self._awaits_audio = has_audio

    def video(self, timestamp: int, body: bytes) -> list[Segment]:
        """The segments that follow from a video tag. Raises `Unsupported`."""
        tag = read_video(body)
        if tag is None or tag.kind is Kind.NOTHING:
            return []
        if tag.kind is Kind.CONFIGURATION:
            self._configure_video(tag.codec, tag.data)
            return []
        time = self._clock.time(timestamp)
        segments: list[Segment] = []
        if not self._may_go_on(time, tag.is_key, segments) or self._video is None or not tag.data:
            self.dropped += 1
            return segments
        times = self._video_times
        at = times.next(time)
        shown = time + tag.offset
        data = video_fragment(self._next(), at, times.step, shown - at, tag.is_key, tag.data)
        segments.append(Fragment(data, tag.is_key, at))
        return segments

    def audio(self, timestamp: int, body: bytes) -> list[Segment]:
        """The segments that follow from an audio tag. Raises `Unsupported`."""
        tag = read_audio(body)
        if tag is None:
            return []
        if tag.kind is Kind.CONFIGURATION:
            self._configure_audio(tag.data)
            return []
        time = self._clock.time(timestamp)
        segments: list[Segment] = []
        track = self._audio
        # Where there is a picture, it begins with the picture.
        is_start = self._video is None
        if not self._may_go_on(time, is_start, segments) or track is None or not tag.data:
            self.dropped += 1
            return segments
        at = self._audio_times.next(time)
        data = audio_fragment(self._next(), at, track.frame, tag.data)
        segments.append(Fragment(data, is_start, time))
        return segments

    def _may_go_on(self, time: int, can_begin: bool, segments: list[Segment]) -> bool:
        if self._begun:
            return True
        if self._waits_since is None:
            self._waits_since = time
        if not can_begin or not self._is_complete(time):
            return False
        self._begun = True
        self._waits_since = None
        segments.append(InitSegment(mime_type(self._video, self._audio), init_segment(self._video, self._audio)))
        return True

    def _is_complete(self, time: int) -> bool:
        if self._video is None and self._audio is None:
            return False
        is_all = (self._video is not None or not self._awaits_video) and (
            self._audio is not None or not self._awaits_audio
        )
        return is_all or time - (self._waits_since or 0) >= WAIT_MS

    def _configure_video(self, codec: Codec, record: bytes) -> None:
        _check_size(record)
        if record == self._video_record and self._video is not None:
            return  # some send it before every key frame
        self._video = read_h264(record) if codec is Codec.H264 else read_h265(record)
        self._video_record = record
        self._begun = False

    def _configure_audio(self, config: bytes) -> None:
        _check_size(config)
        if self._audio is not None and config == self._audio.configuration:
            return
        self._audio = read_aac(config)
        self._audio_times = AudioTimes(self._audio.rate, self._audio.frame)
        self._begun = False

    def _next(self) -> int:
        self._sequence = self._sequence + 1 & 0xFFFFFFFF
        return self._sequence


def _check_size(configuration: bytes) -> None:
    if len(configuration) > MAX_CONFIGURATION_BYTES:
        raise Unsupported(
            f"a codec configuration of {len(configuration)} bytes: expected at most {MAX_CONFIGURATION_BYTES}"
        )
