"""What the body of an FLV tag holds (FLV 10.1, sections E.4.2 and E.4.3; Enhanced RTMP v1 for H.265)."""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

import msgspec

from qiyu.protocol.fmp4.tracks import Unsupported


class Kind(Enum):
    """What a tag is for."""

    CONFIGURATION = auto()
    FRAME = auto()
    NOTHING = auto()
    """An end of sequence, a seek, metadata: what a viewer needs nothing of."""


class Codec(Enum):
    """What may be in a tag."""

    H264 = auto()
    H265 = auto()
    AAC = auto()


class Tag(msgspec.Struct, gc=False):
    """`offset` is how many milliseconds after its decoding a frame is shown; `data` is what a decoder gets."""

    kind: Kind
    codec: Codec
    is_key: bool
    offset: int
    data: bytes


_H264: Final = 7
_H265: Final = 12  # never Adobe's, but what encoders in China have long sent
_KEY: Final = 1
_COMMAND: Final = 5
_AAC: Final = 10
_ENHANCED_AUDIO: Final = 9

_VIDEO_NAMES: Final = {2: "Sorenson H.263", 3: "screen video", 4: "VP6", 5: "VP6 with alpha", 6: "screen video 2"}
_AUDIO_NAMES: Final = {
    0: "PCM", 1: "ADPCM", 2: "MP3", 3: "PCM", 4: "Nellymoser 16 kHz", 5: "Nellymoser 8 kHz", 6: "Nellymoser",
    7: "G.711 A-law", 8: "G.711 mu-law", 9: "an enhanced audio codec", 11: "Speex", 14: "MP3 8 kHz",
}  # fmt: skip
_FOUR_CC: Final = {b"hvc1": Codec.H265, b"avc1": Codec.H264}

# The packet types of Enhanced RTMP. CODED_FRAMES_X leaves out an offset of 0.
_SEQUENCE_START: Final = 0
_CODED_FRAMES: Final = 1
_SEQUENCE_END: Final = 2
_CODED_FRAMES_X: Final = 3
_METADATA: Final = 4
_AVC_KINDS: Final = {0: Kind.CONFIGURATION, 1: Kind.FRAME, 2: Kind.NOTHING}


def read_video(body: bytes) -> Tag | None:
    """The tag of a video message; None if it is empty. Raises `Unsupported`."""
    if not body:
        return None
    frame_type = body[0] >> 4 & 7
    if body[0] & 0x80:
        return _read_enhanced(body, frame_type)
    codec_id = body[0] & 15
    if codec_id not in (_H264, _H265):
        raise Unsupported(f"video codec {codec_id} ({_VIDEO_NAMES.get(codec_id, 'unknown')}): expected H.264 or H.265")
    codec = Codec.H264 if codec_id == _H264 else Codec.H265
    if frame_type == _COMMAND:
        return Tag(Kind.NOTHING, codec, False, 0, b"")
    if len(body) < 5 or body[1] not in _AVC_KINDS:
        raise Unsupported("a video tag is not complete")
    return Tag(_AVC_KINDS[body[1]], codec, frame_type == _KEY, _signed24(body[2:5]), body[5:])


def _read_enhanced(body: bytes, frame_type: int) -> Tag:
    packet_type = body[0] & 15
    codec = _FOUR_CC.get(body[1:5])
    if codec is None:
        name = body[1:5].decode("ascii", "backslashreplace")
        raise Unsupported(f"video codec {name!r}: expected H.264 (avc1) or H.265 (hvc1)")
    is_key = frame_type == _KEY
    if frame_type == _COMMAND or packet_type in (_SEQUENCE_END, _METADATA):
        return Tag(Kind.NOTHING, codec, False, 0, b"")
    if packet_type == _SEQUENCE_START:
        return Tag(Kind.CONFIGURATION, codec, is_key, 0, body[5:])
    if packet_type == _CODED_FRAMES_X:
        return Tag(Kind.FRAME, codec, is_key, 0, body[5:])
    if packet_type != _CODED_FRAMES:
        raise Unsupported(f"an enhanced video tag of type {packet_type}: expected 0 to 4 (one track, no extensions)")
    if len(body) < 8:
        raise Unsupported("a video tag is not complete")
    return Tag(Kind.FRAME, codec, is_key, _signed24(body[5:8]), body[8:])


def read_audio(body: bytes) -> Tag | None:
    """The tag of an audio message; None if it is empty. Raises `Unsupported`."""
    if not body:
        return None
    codec_id = body[0] >> 4
    if codec_id != _AAC:
        raise Unsupported(f"audio codec {codec_id} ({_AUDIO_NAMES.get(codec_id, 'unknown')}): expected AAC")
    if len(body) < 2 or body[1] > 1:
        raise Unsupported("an audio tag is not complete")
    return Tag(Kind.FRAME if body[1] else Kind.CONFIGURATION, Codec.AAC, True, 0, body[2:])


def _signed24(data: bytes) -> int:
    return int.from_bytes(data, "big", signed=True)
