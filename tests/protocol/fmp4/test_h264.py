from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clips import H264, VIDEO, needs_ffmpeg, tags
from mp4 import H264_RECORD
from qiyu.protocol.fmp4.h264 import read_h264
from qiyu.protocol.fmp4.tracks import Unsupported


def configuration(*options: str, **wanted: object) -> bytes:
    return next(tag.body[5:] for tag in tags(*options, audio=False, **wanted) if tag.type == VIDEO)


def test_the_codec_is_named_and_the_picture_has_its_size() -> None:
    track = read_h264(H264_RECORD)
    assert track.codec == "avc1.64000C"
    assert (track.width, track.height) == (320, 180)
    assert (track.sample_entry, track.configuration_box, track.configuration) == (b"avc1", b"avcC", H264_RECORD)


@needs_ffmpeg
@pytest.mark.parametrize("profile", ["baseline", "main", "high"])
@pytest.mark.parametrize("size", ["192x108", "130x98", "64x64"])
def test_any_size_of_any_profile_is_read(profile: str, size: str) -> None:
    options = () if profile == "high" else ("-bf", "0")
    track = read_h264(configuration(*H264, "-profile:v", profile, *options, size=size, seconds=0.1))
    assert f"{track.width}x{track.height}" == size
    assert track.codec.startswith({"baseline": "avc1.42C0", "main": "avc1.4D40", "high": "avc1.6400"}[profile])


@needs_ffmpeg
def test_interlaced_pictures_and_scaling_matrices_are_read() -> None:
    options = ("-x264-params", "tff=1:cqm=jvt:level=4.0", "-profile:v", "high")
    track = read_h264(configuration(*H264, *options, size="320x240", seconds=0.1))
    assert (track.width, track.height) == (320, 240)


@needs_ffmpeg
@pytest.mark.parametrize(
    ("form", "what"),
    [("yuv444p", "4:4:4 and 8 bits"), ("yuv422p", "4:2:2 and 8 bits"), ("yuv420p10le", "4:2:0 and 10 bits")],
)
def test_what_browsers_do_not_show_is_refused_with_what_to_do(form: str, what: str) -> None:
    record = configuration("-c:v", "libx264", "-pix_fmt", form, seconds=0.1)
    with pytest.raises(Unsupported) as raised:
        read_h264(record)
    assert str(raised.value) == (
        f"H.264 with {what}: browsers show 4:2:0 with 8 bits (ffmpeg: -pix_fmt yuv420p; OBS: colour format NV12)"
    )


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (b"", "the H.264 configuration is no AVCDecoderConfigurationRecord"),
        (b"\0" + H264_RECORD[1:], "the H.264 configuration is no AVCDecoderConfigurationRecord"),
        (H264_RECORD[:5] + b"\xe0" + H264_RECORD[6:], "the H.264 configuration has no sequence parameter set"),
        (H264_RECORD[:20], "the H.264 configuration ends within its sequence parameter set"),
        (H264_RECORD[:7] + b"\x04" + H264_RECORD[8:], "the H.264 sequence parameter set ends too early"),
        (H264_RECORD[:7] + b"\x00" + H264_RECORD[8:], "the H.264 configuration ends within its sequence parameter set"),
    ],
)
def test_a_record_that_is_none_is_refused(record: bytes, reason: str) -> None:
    with pytest.raises(Unsupported) as raised:
        read_h264(record)
    assert str(raised.value) == reason


@pytest.mark.property
@given(st.binary(max_size=60).map(lambda tail: H264_RECORD[:12] + tail) | st.binary(max_size=80))
def test_whatever_the_record_is_it_is_a_track_or_unsupported(record: bytes) -> None:
    """No bytes raise anything else, and a picture has a size that a decoder could have."""
    try:
        track = read_h264(record)
    except Unsupported as reason:
        assert str(reason)
        return
    assert 0 < track.width <= 16_384
    assert 0 < track.height <= 16_384
