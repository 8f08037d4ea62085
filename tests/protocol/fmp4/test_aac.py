from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clips import AAC, AUDIO, needs_ffmpeg, tags
from qiyu.protocol.fmp4.aac import read_aac
from qiyu.protocol.fmp4.tracks import Unsupported


@pytest.mark.parametrize(
    ("config", "codec", "rate", "channels", "frame"),
    [
        ("1210", "mp4a.40.2", 44100, 2, 1024),
        ("1188", "mp4a.40.2", 48000, 1, 1024),
        ("1214", "mp4a.40.2", 44100, 2, 960),
        ("11b8", "mp4a.40.2", 48000, 8, 1024),  # 7.1
        ("2b920800", "mp4a.40.5", 22050, 2, 1024),  # HE-AAC: half the rate, and what makes up the rest
        ("eb8a0800", "mp4a.40.29", 22050, 1, 1024),  # HE-AAC v2: and half the channels
        ("1780 2ee0 10".replace(" ", ""), "mp4a.40.2", 24000, 2, 1024),  # a rate spelt out
    ],
)
def test_configurations(config: str, codec: str, rate: int, channels: int, frame: int) -> None:
    track = read_aac(bytes.fromhex(config))
    assert (track.codec, track.rate, track.channels, track.frame) == (codec, rate, channels, frame)
    assert track.configuration == bytes.fromhex(config)


@needs_ffmpeg
@pytest.mark.parametrize(("rate", "channels"), [(44100, 2), (48000, 1), (22050, 2), (8000, 1), (48000, 6)])
def test_what_ffmpeg_makes_is_read(rate: int, channels: int) -> None:
    options = (*AAC, "-ac", str(channels), "-ar", str(rate))
    # FLV's own header has no rate but four; ffmpeg's muxer refuses the others, though AAC would not need it.
    clip = tags(*options, video=False, seconds=0.2, rate=44100)
    track = read_aac(next(tag.body[2:] for tag in clip if tag.type == AUDIO))
    assert (track.codec, track.rate, track.channels) == ("mp4a.40.2", rate, channels)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ("", "the AAC configuration ends too early"),
        ("12", "the AAC configuration ends too early"),
        ("0a10", "AAC of object type 1: browsers play AAC-LC (2) and HE-AAC (5, 29)"),
        ("f8e0", "AAC of object type 39: browsers play AAC-LC (2) and HE-AAC (5, 29)"),
        ("1690", "AAC with sampling frequency index 13: expected 0 to 12, or 15"),
        ("1780000010", "AAC with 0 samples a second: expected 7350 to 96000"),
        ("1200", "AAC with channel configuration 0: expected 1 to 7"),
        ("1240", "AAC with channel configuration 8: expected 1 to 7"),
    ],
)
def test_what_browsers_do_not_play_is_refused(config: str, reason: str) -> None:
    with pytest.raises(Unsupported) as raised:
        read_aac(bytes.fromhex(config + ("00" * 4 if config[:2] == "f8" else "")))
    assert str(raised.value) == reason


@pytest.mark.property
@given(st.binary(max_size=12))
def test_whatever_the_configuration_is_it_is_a_track_or_unsupported(config: bytes) -> None:
    """No bytes raise anything else, and a track has a rate and channels that can be."""
    try:
        track = read_aac(config)
    except Unsupported as reason:
        assert str(reason)
        return
    assert 7350 <= track.rate <= 96_000
    assert 1 <= track.channels <= 8
