from __future__ import annotations

import pytest

from clips import AAC, DATA, H264, needs_ffmpeg, tags
from qiyu.protocol.rtmp.amf0 import Value, encode
from qiyu.protocol.rtmp.metadata import Metadata, read_metadata


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["@setDataFrame", "onMetaData", {"videocodecid": 7, "audiocodecid": 10}], Metadata(True, True)),
        (["onMetaData", {"videocodecid": "avc1", "audiocodecid": "mp4a"}], Metadata(True, True)),
        (["@setDataFrame", "onMetaData", {"videocodecid": 7, "encoder": "x"}], Metadata(True, False)),
        (["@setDataFrame", "onMetaData", {"audiocodecid": 10}], Metadata(False, True)),
        (["@setDataFrame", "onMetaData", {"videocodecid": 0, "audiocodecid": ""}], Metadata(False, False)),
        (["@setDataFrame", "onTextData", {"text": "hi"}], None),
        (["onMetaData"], None),
        ([], None),
    ],
)
def test_it_says_which_tracks_there_will_be(values: list[Value], expected: Metadata | None) -> None:
    assert read_metadata(encode(values)) == expected


def test_what_cannot_be_read_is_no_metadata() -> None:
    assert read_metadata(b"\x02\x00\x0aonMeta") is None


@needs_ffmpeg
@pytest.mark.parametrize(("audio", "video"), [(True, True), (False, True), (True, False)])
def test_what_ffmpeg_says_is_understood(audio: bool, video: bool) -> None:
    clip = tags(*(H264 if video else ()), *(AAC if audio else ()), audio=audio, video=video)
    assert clip[0].type == DATA
    assert read_metadata(clip[0].body) == Metadata(has_video=video, has_audio=audio)
