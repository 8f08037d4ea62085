"""What a track is, in a decoder's terms."""

from __future__ import annotations

from dataclasses import dataclass, field

from qiyu.errors import QiyuError


class Unsupported(QiyuError):
    """The stream cannot be shown in a browser, or cannot be understood; the text tells the encoder's user why."""


@dataclass(frozen=True, slots=True)
class VideoTrack:
    """`codec` is its name in a MIME type, `sample_entry` and `configuration` are the names of its boxes."""

    codec: str
    sample_entry: bytes
    configuration_box: bytes
    configuration: bytes = field(repr=False)
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class AudioTrack:
    """`rate` is in samples a second, `frame` how many of them a frame has, `configuration` an AudioSpecificConfig."""

    codec: str
    configuration: bytes = field(repr=False)
    rate: int
    channels: int
    frame: int


def mime_type(video: VideoTrack | None, audio: AudioTrack | None) -> str:
    """What a browser is told before the first byte (RFC 6381)."""
    codecs = ",".join(track.codec for track in (video, audio) if track is not None)
    return f'{"video" if video is not None else "audio"}/mp4; codecs="{codecs}"'
