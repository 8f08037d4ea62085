from __future__ import annotations

import pytest

from mp4 import H264_RECORD, find, one, parse
from qiyu.protocol.fmp4.boxes import audio_fragment, init_segment, video_fragment
from qiyu.protocol.fmp4.tracks import AudioTrack, VideoTrack

VIDEO = VideoTrack("avc1.64000C", b"avc1", b"avcC", H264_RECORD, 320, 180)
AUDIO = AudioTrack("mp4a.40.2", bytes.fromhex("1210"), 44100, 2, 1024)


def test_an_init_segment_has_its_tracks() -> None:
    data = init_segment(VIDEO, AUDIO)
    boxes = parse(data)
    assert [box.type for box in boxes] == ["ftyp", "moov"]
    assert sum(box.size for box in boxes) == len(data)
    picture, sound = find(boxes, "moov/trak")
    assert one([picture], "trak/mdia/hdlr").handler == "vide"
    assert one([sound], "trak/mdia/hdlr").handler == "soun"
    entry = one([picture], "trak/mdia/minf/stbl/stsd/avc1")
    assert (entry.width, entry.height) == (320, 180)
    assert entry.children[0].type == "avcC"
    assert one([sound], "trak/mdia/mdhd").timescale == 44100
    assert one([sound], "trak/mdia/minf/stbl/stsd/mp4a").samplerate in {44100, 44100 << 16}
    assert [box.track_id for box in find(boxes, "moov/mvex/trex")] == [1, 2]


@pytest.mark.parametrize(("video", "audio", "ids"), [(VIDEO, None, [1]), (None, AUDIO, [2])])
def test_a_track_may_be_missing(video: VideoTrack | None, audio: AudioTrack | None, ids: list[int]) -> None:
    boxes = parse(init_segment(video, audio))
    assert [box.track_id for box in find(boxes, "moov/trak/tkhd")] == ids
    assert [box.track_id for box in find(boxes, "moov/mvex/trex")] == ids


def test_a_picture_is_a_fragment() -> None:
    boxes = parse(video_fragment(7, 2**33, 40, -80, True, b"picture"))
    assert [(box.type, box.size) for box in boxes] == [("moof", 104), ("mdat", 15)]
    assert one(boxes, "moof/mfhd").sequence_number == 7
    assert one(boxes, "moof/traf/tfhd").track_id == 1
    assert one(boxes, "moof/traf/tfdt").base_media_decode_time == 2**33
    run = one(boxes, "moof/traf/trun")
    assert run.data_offset == 112  # from the moof's first byte to the data's
    assert (run.sample_duration, run.sample_size) == ([40], [7])
    assert run.sample_composition_time_offset == [-80]
    assert run.sample_flags == [0x02000000]


def test_a_picture_that_depends_on_others_says_so() -> None:
    boxes = parse(video_fragment(8, 0, 40, 0, False, b"picture"))
    assert one(boxes, "moof/traf/trun").sample_flags == [0x01010000]


def test_a_frame_of_sound_is_a_fragment() -> None:
    boxes = parse(audio_fragment(9, 48000, 1024, b"sound"))
    assert [(box.type, box.size) for box in boxes] == [("moof", 96), ("mdat", 13)]
    assert one(boxes, "moof/traf/tfhd").track_id == 2
    assert one(boxes, "moof/traf/tfdt").base_media_decode_time == 48000
    run = one(boxes, "moof/traf/trun")
    assert run.data_offset == 104
    assert (run.sample_duration, run.sample_size) == ([1024], [5])
