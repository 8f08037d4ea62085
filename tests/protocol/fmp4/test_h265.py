from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clips import draw, needs_ffmpeg
from mp4 import H265_FIXED, H265_RECORD, H265_SPS, H265_VPS
from qiyu.protocol.fmp4.h265 import read_h265
from qiyu.protocol.fmp4.tracks import Unsupported


def configuration(*options: str, size: str = "192x108") -> bytes:
    """The hvcC of an MP4 file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        draw(path, "-c:v", "libx265", "-x265-params", "log-level=error", *options, size=size, audio=False, seconds=0.2)
        data = path.read_bytes()
    at = data.index(b"hvcC")
    return data[at + 4 : at - 4 + int.from_bytes(data[at - 4 : at], "big")]


@needs_ffmpeg
@pytest.mark.parametrize("size", ["192x108", "320x240", "130x98"])
def test_the_codec_is_named_and_the_picture_has_its_size(size: str) -> None:
    record = configuration("-pix_fmt", "yuv420p", size=size)
    track = read_h265(record)
    assert f"{track.width}x{track.height}" == size
    assert track.codec in {"hvc1.1.6.L30.90", "hvc1.1.6.L60.90"}
    assert (track.sample_entry, track.configuration_box, track.configuration) == (b"hvc1", b"hvcC", record)


@needs_ffmpeg
def test_ten_bits_are_shown_and_more_colour_is_not() -> None:
    assert read_h265(configuration("-pix_fmt", "yuv420p10le")).codec == "hvc1.2.4.L30.90"
    with pytest.raises(Unsupported, match=r"H\.265 with more colour than 4:2:0"):
        read_h265(configuration("-pix_fmt", "yuv444p"))


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"", "the H.265 configuration is no HEVCDecoderConfigurationRecord"),
        (b"\x02" + H265_RECORD[1:], "the H.265 configuration is no HEVCDecoderConfigurationRecord"),
        (H265_FIXED + b"\x01" + H265_VPS, "the H.265 configuration has no sequence parameter set"),
        (H265_FIXED + b"\x02" + H265_VPS, "the H.265 configuration has no sequence parameter set"),
        (H265_RECORD[:-1], "the H.265 configuration ends within a parameter set"),
        (H265_FIXED + b"\x01\x21\x00\x01\x00\x04" + H265_SPS[5:9], "the H.265 sequence parameter set ends too early"),
    ],
)
def test_a_record_that_is_none_is_refused(record: bytes, reason: str) -> None:
    with pytest.raises(Unsupported) as raised:
        read_h265(record)
    assert str(raised.value) == reason


def test_the_name_has_what_rfc_6381_wants() -> None:
    assert read_h265(H265_RECORD).codec == "hvc1.1.6.L30.90"
    # A high tier, a profile space, and no constraints at all.
    assert read_h265(b"\x01\xa1" + H265_RECORD[2:6] + bytes(6) + H265_RECORD[12:]).codec == "hvc1.B1.6.H30"


@pytest.mark.property
@given(st.binary(max_size=60).map(lambda tail: H265_RECORD[:60] + tail) | st.binary(max_size=80))
def test_whatever_the_record_is_it_is_a_track_or_unsupported(record: bytes) -> None:
    """No bytes raise anything else, and a picture has a size that a decoder could have."""
    try:
        track = read_h265(record)
    except Unsupported as reason:
        assert str(reason)
        return
    assert 0 < track.width <= 16_384
    assert 0 < track.height <= 16_384
