from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qiyu.protocol.fmp4.flv import Codec, Kind, Tag, read_audio, read_video
from qiyu.protocol.fmp4.tracks import Unsupported


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", None),
        (b"\x17\x00\x00\x00\x00conf", Tag(Kind.CONFIGURATION, Codec.H264, True, 0, b"conf")),
        (b"\x17\x01\x00\x00\x50data", Tag(Kind.FRAME, Codec.H264, True, 80, b"data")),
        (b"\x27\x01\xff\xff\xd8data", Tag(Kind.FRAME, Codec.H264, False, -40, b"data")),
        (b"\x17\x02\x00\x00\x00", Tag(Kind.NOTHING, Codec.H264, True, 0, b"")),
        (b"\x57\x00", Tag(Kind.NOTHING, Codec.H264, False, 0, b"")),
        (b"\x1c\x01\x00\x00\x00data", Tag(Kind.FRAME, Codec.H265, True, 0, b"data")),
        (b"\x90hvc1conf", Tag(Kind.CONFIGURATION, Codec.H265, True, 0, b"conf")),
        (b"\xa1hvc1\x00\x00\x28data", Tag(Kind.FRAME, Codec.H265, False, 40, b"data")),
        (b"\x93hvc1data", Tag(Kind.FRAME, Codec.H265, True, 0, b"data")),
        (b"\x92hvc1", Tag(Kind.NOTHING, Codec.H265, False, 0, b"")),
        (b"\x94hvc1meta", Tag(Kind.NOTHING, Codec.H265, False, 0, b"")),
        (b"\xd1hvc1\x00", Tag(Kind.NOTHING, Codec.H265, False, 0, b"")),
        (b"\x93avc1data", Tag(Kind.FRAME, Codec.H264, True, 0, b"data")),
    ],
)
def test_video_tags(body: bytes, expected: Tag | None) -> None:
    assert read_video(body) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", None),
        (b"\xaf\x00conf", Tag(Kind.CONFIGURATION, Codec.AAC, True, 0, b"conf")),
        (b"\xaf\x01data", Tag(Kind.FRAME, Codec.AAC, True, 0, b"data")),
    ],
)
def test_audio_tags(body: bytes, expected: Tag | None) -> None:
    assert read_audio(body) == expected


@pytest.mark.parametrize(
    ("read", "body", "reason"),
    [
        (read_video, b"\x12data", "video codec 2 (Sorenson H.263): expected H.264 or H.265"),
        (read_video, b"\x1fdata", "video codec 15 (unknown): expected H.264 or H.265"),
        (read_video, b"\x90av01conf", "video codec 'av01': expected H.264 (avc1) or H.265 (hvc1)"),
        (read_video, b"\x90\xff\x00", "video codec '\\\\xff\\x00': expected H.264 (avc1) or H.265 (hvc1)"),
        (
            read_video,
            b"\x96hvc1",
            "an enhanced video tag of type 6: expected 0 to 4 (one track, no extensions)",
        ),
        (read_video, b"\x91hvc1\x00", "a video tag is not complete"),
        (read_video, b"\x17\x01\x00", "a video tag is not complete"),
        (read_video, b"\x17\x03\x00\x00\x00", "a video tag is not complete"),
        (read_audio, b"\x2fdata", "audio codec 2 (MP3): expected AAC"),
        (read_audio, b"\x90Opus", "audio codec 9 (an enhanced audio codec): expected AAC"),
        (read_audio, b"\xdf\x00", "audio codec 13 (unknown): expected AAC"),
        (read_audio, b"\xaf", "an audio tag is not complete"),
        (read_audio, b"\xaf\x02", "an audio tag is not complete"),
    ],
)
def test_what_is_not_shown_is_named(read: Any, body: bytes, reason: str) -> None:
    with pytest.raises(Unsupported) as raised:
        read(body)
    assert str(raised.value) == reason


@pytest.mark.property
@given(st.binary(max_size=30))
def test_whatever_a_tag_holds_it_is_read_or_unsupported(body: bytes) -> None:
    """No bytes raise anything else, and the data of a tag is its end."""
    for read in (read_video, read_audio):
        try:
            tag = read(body)
        except Unsupported as reason:
            assert str(reason)
            continue
        assert tag is None or body.endswith(tag.data)
