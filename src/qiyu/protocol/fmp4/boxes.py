"""Init segments and fragments as bytes (ISO/IEC 14496-12, -14). Video is timed in milliseconds, audio in samples."""

from __future__ import annotations

import struct
from typing import Final

from qiyu.protocol.fmp4.tracks import AudioTrack, VideoTrack

VIDEO_ID: Final = 1
AUDIO_ID: Final = 2
VIDEO_TIMESCALE: Final = 1000

_MATRIX: Final = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
_LANGUAGE: Final = 0x55C4  # "und"
# Sample flags (section 8.8.3.1): depends on no other; depends on others and is no sync sample.
_IS_SYNC: Final = 0x02000000
_IS_NO_SYNC: Final = 0x01010000
_BASE_IS_MOOF: Final = 0x020000

# A moof of one sample, then the header of its mdat. In each box: size, name, then its fields.
#                               moof  mfhd     traf  tfhd     tfdt     trun
_VIDEO_FRAGMENT: Final = struct.Struct(">I4s I4sII I4s I4sII I4sIQ I4sIII IIIi I4s")
_AUDIO_FRAGMENT: Final = struct.Struct(">I4s I4sII I4s I4sII I4sIQ I4sIII II I4s")
_TFDT_64: Final = 1 << 24  # version 1
_VIDEO_RUN: Final = 1 << 24 | 0x000F01  # version 1 (signed offsets): data offset, duration, size, flags, offset
_AUDIO_RUN: Final = 0x000301  # data offset, duration, size
_MDAT_HEADER: Final = 8


def init_segment(video: VideoTrack | None, audio: AudioTrack | None) -> bytes:
    """The tracks and how to decode them."""
    tracks: list[bytes] = []
    extends: list[bytes] = []
    if video is not None:
        tracks.append(_video_track(video))
        extends.append(_trex(VIDEO_ID, _IS_NO_SYNC))
    if audio is not None:
        tracks.append(_audio_track(audio))
        extends.append(_trex(AUDIO_ID, _IS_SYNC))
    return _box(b"ftyp", b"iso5", struct.pack(">I", 512), b"iso5iso6mp41") + _box(
        b"moov", _movie_header(), *tracks, _box(b"mvex", *extends)
    )


def video_fragment(sequence: int, time: int, duration: int, offset: int, is_key: bool, data: bytes) -> bytes:
    """One picture: decoded at `time`, shown `offset` later, for `duration`."""
    moof = _VIDEO_FRAGMENT.size - _MDAT_HEADER
    head = _VIDEO_FRAGMENT.pack(
        moof, b"moof", 16, b"mfhd", 0, sequence,
        moof - 24, b"traf", 16, b"tfhd", _BASE_IS_MOOF, VIDEO_ID,
        20, b"tfdt", _TFDT_64, time,
        36, b"trun", _VIDEO_RUN, 1, moof + _MDAT_HEADER,
        duration, len(data), _IS_SYNC if is_key else _IS_NO_SYNC, offset,
        _MDAT_HEADER + len(data), b"mdat",
    )  # fmt: skip
    return head + data


def audio_fragment(sequence: int, time: int, duration: int, data: bytes) -> bytes:
    """One frame of audio."""
    moof = _AUDIO_FRAGMENT.size - _MDAT_HEADER
    head = _AUDIO_FRAGMENT.pack(
        moof, b"moof", 16, b"mfhd", 0, sequence,
        moof - 24, b"traf", 16, b"tfhd", _BASE_IS_MOOF, AUDIO_ID,
        20, b"tfdt", _TFDT_64, time,
        28, b"trun", _AUDIO_RUN, 1, moof + _MDAT_HEADER,
        duration, len(data),
        _MDAT_HEADER + len(data), b"mdat",
    )  # fmt: skip
    return head + data


def _box(name: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), name) + body


def _full_box(name: bytes, version: int, flags: int, *parts: bytes) -> bytes:
    return _box(name, struct.pack(">I", version << 24 | flags), *parts)


def _movie_header() -> bytes:
    times = struct.pack(">IIII", 0, 0, 1000, 0)  # made, changed, timescale, duration: of a live stream unknown
    rate_and_volume = struct.pack(">IH10x", 0x10000, 0x100)
    return _full_box(b"mvhd", 0, 0, times, rate_and_volume, _MATRIX, bytes(24), struct.pack(">I", AUDIO_ID + 1))


def _video_track(track: VideoTrack) -> bytes:
    entry = _box(
        track.sample_entry,
        struct.pack(">6xH16x", 1),  # data reference
        struct.pack(">HHII4xH", track.width, track.height, 0x480000, 0x480000, 1),  # at 72 dpi, a frame a sample
        bytes(32),  # the compressor's name
        struct.pack(">Hh", 24, -1),  # depth
        _box(track.configuration_box, track.configuration),
    )
    header = _track_header(VIDEO_ID, 0, track.width, track.height)
    media_header = _full_box(b"vmhd", 0, 1, bytes(8))
    return _track(header, VIDEO_TIMESCALE, b"vide", media_header, entry)


def _audio_track(track: AudioTrack) -> bytes:
    entry = _box(
        b"mp4a",
        struct.pack(">6xH8x", 1),
        struct.pack(">HH4xI", track.channels, 16, track.rate << 16 if track.rate <= 0xFFFF else 0),
        _esds(track.configuration),
    )
    return _track(_track_header(AUDIO_ID, 0x100, 0, 0), track.rate, b"soun", _full_box(b"smhd", 0, 0, bytes(4)), entry)


def _track_header(track_id: int, volume: int, width: int, height: int) -> bytes:
    numbers = struct.pack(">IIIII8xHHHxx", 0, 0, track_id, 0, 0, 0, 0, volume)
    return _full_box(
        b"tkhd", 0, 3, numbers, _MATRIX, struct.pack(">II", width << 16, height << 16)
    )  # enabled, in movie


def _track(header: bytes, timescale: int, handler: bytes, media_header: bytes, entry: bytes) -> bytes:
    media = struct.pack(">IIIIHH", 0, 0, timescale, 0, _LANGUAGE, 0)
    here = _full_box(b"dref", 0, 0, struct.pack(">I", 1), _full_box(b"url ", 0, 1))  # the data is in this very file
    no_samples = struct.pack(">I", 0)
    table = _box(
        b"stbl",
        _full_box(b"stsd", 0, 0, struct.pack(">I", 1), entry),
        _full_box(b"stts", 0, 0, no_samples),
        _full_box(b"stsc", 0, 0, no_samples),
        _full_box(b"stsz", 0, 0, no_samples, no_samples),
        _full_box(b"stco", 0, 0, no_samples),
    )
    return _box(
        b"trak",
        header,
        _box(
            b"mdia",
            _full_box(b"mdhd", 0, 0, media),
            _full_box(b"hdlr", 0, 0, bytes(4), handler, bytes(12), b"\0"),
            _box(b"minf", media_header, _box(b"dinf", here), table),
        ),
    )


def _trex(track_id: int, flags: int) -> bytes:
    return _full_box(b"trex", 0, 0, struct.pack(">IIIII", track_id, 1, 0, 0, flags))


def _esds(config: bytes) -> bytes:
    specific = _descriptor(0x05, config)
    # MPEG-4 audio (0x40), an audio stream (0x15), buffer size and bit rates unknown.
    decoder = _descriptor(0x04, struct.pack(">BB11x", 0x40, 0x15), specific)
    return _full_box(
        b"esds", 0, 0, _descriptor(0x03, struct.pack(">HB", AUDIO_ID, 0), decoder, _descriptor(0x06, b"\2"))
    )


def _descriptor(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    # Sizes of a descriptor take seven bits a byte (ISO/IEC 14496-1, section 8.3.3).
    size = len(body)
    groups = [size >> 21 & 0x7F | 0x80, size >> 14 & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size & 0x7F]
    return bytes((tag, *groups)) + body
