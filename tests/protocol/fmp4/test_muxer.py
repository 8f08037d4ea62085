from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clips import (
    AAC,
    AUDIO,
    DATA,
    H264,
    H264_AT_ONCE,
    VIDEO,
    Tag,
    copy,
    decode,
    flv,
    needs_ffmpeg,
    probe,
    read_flv,
    tags,
)
from mp4 import H264_RECORD, H265_RECORD, find, one, parse
from qiyu.protocol.fmp4 import Fragment, InitSegment, Muxer, Segment, Unsupported
from qiyu.protocol.rtmp import read_metadata

CONFIGURE_VIDEO = Tag(VIDEO, 0, b"\x17\0\0\0\0" + H264_RECORD)
CONFIGURE_AUDIO = Tag(AUDIO, 0, b"\xaf\0\x12\x10")
OTHER_H264 = H264_RECORD[:3] + b"\x1e" + H264_RECORD[4:]


def key(timestamp: int, data: bytes = b"key") -> Tag:
    return Tag(VIDEO, timestamp, b"\x17\1\0\0\0" + data)


def frame(timestamp: int, data: bytes = b"frame") -> Tag:
    return Tag(VIDEO, timestamp, b"\x27\1\0\0\0" + data)


def sound(timestamp: int, data: bytes = b"sound") -> Tag:
    return Tag(AUDIO, timestamp, b"\xaf\1" + data)


def feed(muxer: Muxer, clip: Iterable[Tag]) -> list[Segment]:
    segments: list[Segment] = []
    for tag in clip:
        if tag.type == DATA:
            metadata = read_metadata(tag.body)
            assert metadata is not None
            muxer.metadata(metadata.has_video, metadata.has_audio)
        elif tag.type == VIDEO:
            segments += muxer.video(tag.timestamp, tag.body)
        else:
            segments += muxer.audio(tag.timestamp, tag.body)
    return segments


def mux(*clip: Tag, video: bool = True, audio: bool = True) -> list[Segment]:
    muxer = Muxer()
    muxer.metadata(video, audio)
    return feed(muxer, clip)


def contents(segments: Iterable[Segment]) -> list[str]:
    """What they are: `init` and the MIME type, or the data of a frame, with a star where a viewer can begin."""
    told: list[str] = []
    for segment in segments:
        if isinstance(segment, InitSegment):
            told.append(f"init {segment.mime}")
        else:
            data = segment.data[segment.data.index(b"mdat") + 4 :].decode()
            told.append("*" * segment.is_start + data)
    return told


BOTH = 'init video/mp4; codecs="avc1.64000C,mp4a.40.2"'
PICTURE = 'init video/mp4; codecs="avc1.64000C"'
SOUND = 'init audio/mp4; codecs="mp4a.40.2"'


def test_first_the_tracks_then_a_fragment_a_frame() -> None:
    segments = mux(CONFIGURE_VIDEO, CONFIGURE_AUDIO, key(0), sound(3), frame(40), frame(80))
    assert contents(segments) == [BOTH, "*key", "sound", "frame", "frame"]
    assert [segment.time for segment in segments if isinstance(segment, Fragment)] == [0, 3, 40, 80]
    boxes = parse(b"".join(segment.data for segment in segments))
    assert [box.sequence_number for box in find(boxes, "moof/mfhd")] == [1, 2, 3, 4]


def test_it_begins_with_a_key_frame() -> None:
    muxer = Muxer()
    segments = feed(muxer, [CONFIGURE_VIDEO, CONFIGURE_AUDIO, frame(0), sound(10), frame(40), key(80), sound(90)])
    assert contents(segments) == [BOTH, "*key", "sound"]
    assert muxer.dropped == 3


def test_frames_without_a_configuration_are_dropped() -> None:
    muxer = Muxer()
    assert feed(muxer, [key(0), sound(10)]) == []
    assert muxer.dropped == 2


@pytest.mark.parametrize(
    ("video", "audio", "clip", "expected"),
    [
        (True, False, [CONFIGURE_VIDEO, key(0), frame(40)], [PICTURE, "*key", "frame"]),
        (False, True, [CONFIGURE_AUDIO, sound(0), sound(23)], [SOUND, "*sound", "*sound"]),
    ],
)
def test_a_track_that_the_metadata_does_not_name_is_not_waited_for(
    video: bool, audio: bool, clip: list[Tag], expected: list[str]
) -> None:
    assert contents(mux(*clip, video=video, audio=audio)) == expected


def test_a_track_that_does_not_come_is_waited_for_a_second() -> None:
    clip = [CONFIGURE_VIDEO, key(0), frame(500), key(999), key(1000), frame(1040)]
    assert contents(mux(*clip)) == [PICTURE, "*key", "frame"]
    muxer = Muxer()  # that was told nothing
    assert contents(feed(muxer, [CONFIGURE_AUDIO, sound(0), sound(999), sound(1000)])) == [SOUND, "*sound"]


def test_metadata_that_names_nothing_is_not_believed() -> None:
    assert mux(CONFIGURE_VIDEO, key(0), video=False, audio=False) == []


def test_other_parameters_are_another_init_segment_at_the_next_key_frame() -> None:
    again = Tag(VIDEO, 0, b"\x17\0\0\0\0" + OTHER_H264)
    clip = [CONFIGURE_VIDEO, CONFIGURE_AUDIO, key(0), again, frame(40), sound(50), key(80, b"new"), sound(90)]
    muxer = Muxer()
    assert contents(feed(muxer, clip)) == [
        BOTH,
        "*key",
        'init video/mp4; codecs="avc1.64001E,mp4a.40.2"',
        "*new",
        "sound",
    ]
    assert muxer.dropped == 2


def test_a_track_that_comes_later_is_another_init_segment() -> None:
    clip = [CONFIGURE_VIDEO, key(0), CONFIGURE_AUDIO, frame(40), sound(50), key(80), sound(90)]
    assert contents(mux(*clip, audio=False)) == [PICTURE, "*key", BOTH, "*key", "sound"]


def test_another_codec_is_another_init_segment() -> None:
    other = Tag(VIDEO, 0, b"\x90hvc1" + H265_RECORD)
    clip = [CONFIGURE_VIDEO, key(0), other, Tag(VIDEO, 40, b"\x93hvc1new")]
    assert contents(mux(*clip, audio=False)) == [PICTURE, "*key", 'init video/mp4; codecs="hvc1.1.6.L30.90"', "*new"]


def test_the_same_parameters_again_change_nothing() -> None:
    clip = [CONFIGURE_VIDEO, CONFIGURE_AUDIO, key(0), CONFIGURE_VIDEO, CONFIGURE_AUDIO, frame(40)]
    assert contents(mux(*clip)) == [BOTH, "*key", "frame"]


def test_empty_tags_and_frames_are_left_out() -> None:
    clip = [CONFIGURE_VIDEO, key(0), Tag(VIDEO, 40, b""), Tag(VIDEO, 40, b"\x17\2\0\0\0"), frame(40, b""), frame(80)]
    assert contents(mux(*clip, Tag(AUDIO, 80, b""), audio=False)) == [PICTURE, "*key", "frame"]


def test_a_picture_shown_later_than_it_is_decoded_says_so() -> None:
    shown_later = Tag(VIDEO, 1000, b"\x17\1\0\0\x50key")
    same_time = Tag(VIDEO, 1000, b"\x27\1\0\0\x28frame")  # decoded a millisecond later, shown when it wants to be
    segments = mux(CONFIGURE_VIDEO, shown_later, same_time, audio=False)
    runs = find(parse(b"".join(segment.data for segment in segments)), "moof/traf")
    assert [one([run], "traf/tfdt").base_media_decode_time for run in runs] == [0, 1]
    assert [one([run], "traf/trun").sample_composition_time_offset for run in runs] == [[80], [39]]


def test_a_configuration_beyond_all_measure_is_refused() -> None:
    with pytest.raises(Unsupported, match="a codec configuration of 9000 bytes: expected at most 8192"):
        Muxer().video(0, b"\x17\0\0\0\0" + bytes(9000))


@pytest.mark.property
@given(
    st.lists(
        st.tuples(
            st.sampled_from([AUDIO, VIDEO]),
            st.integers(0, 2**32 - 1) | st.integers(0, 3000),
            st.binary(max_size=12)
            | st.sampled_from(
                [
                    CONFIGURE_VIDEO.body,
                    CONFIGURE_AUDIO.body,
                    b"\x90hvc1" + H265_RECORD,
                    key(0).body,
                    frame(0).body,
                    sound(0).body,
                    b"\x27\1\xff\x00\x00far",
                ]
            ),
        ),
        max_size=30,
    )
)
def test_whatever_is_muxed_a_viewer_can_follow(clip: list[tuple[int, int, bytes]]) -> None:
    """Segments or Unsupported; what comes is whole boxes, begins with an init segment and a start, and times go on."""
    muxer = Muxer()
    begun = fresh = False
    frames = 0
    for kind, timestamp, body in clip:
        try:
            segments = muxer.video(timestamp, body) if kind == VIDEO else muxer.audio(timestamp, body)
        except Unsupported as reason:
            assert str(reason)
            return
        for segment in segments:
            if isinstance(segment, InitSegment):
                begun = fresh = True
                continue
            frames += 1
            assert begun
            assert segment.is_start or not fresh
            fresh = False
            moof = int.from_bytes(segment.data[:4], "big")
            mdat = int.from_bytes(segment.data[moof : moof + 4], "big")
            assert moof + mdat == len(segment.data)
    assert frames + muxer.dropped <= len(clip)


@needs_ffmpeg
@pytest.mark.parametrize("options", [H264_AT_ONCE, H264, (*H264, "-bf", "3", "-b_strategy", "0")])
def test_what_an_encoder_made_comes_out_frame_for_frame(options: tuple[str, ...]) -> None:
    """ffprobe reads the concatenation; every packet is the very one that went in; every frame is decoded."""
    original = flv(*options, *AAC, seconds=2.0)
    muxer = Muxer()
    segments = feed(muxer, read_flv(original))
    data = b"".join(segment.data for segment in segments)
    assert isinstance(segments[0], InitSegment)
    streams = probe(data, "-count_packets", "-show_entries", "stream=codec_name,width,height,nb_read_packets")[
        "streams"
    ]
    assert streams[0] == {"codec_name": "h264", "width": 192, "height": 108, "nb_read_packets": "50"}
    assert streams[1]["codec_name"] == "aac"
    came, went_in = Counter(copy(data)), Counter(copy(original))
    assert came <= went_in
    # Sound that came before the first picture has nobody to be heard by.
    missing = went_in - came
    assert missing.total() == muxer.dropped <= 2
    assert all(packet.startswith("1 ") for packet in missing)
    assert len([frame for frame in decode(data) if frame.startswith("0 ")]) == 50


@needs_ffmpeg
def test_the_times_are_those_of_the_encoder() -> None:
    segments = feed(Muxer(), tags(*H264, *AAC, seconds=2.0))
    data = b"".join(segment.data for segment in segments)
    packets = probe(data, "-show_entries", "packet=stream_index,pts_time,dts_time,duration_time,flags")["packets"]
    picture = [packet for packet in packets if packet["stream_index"] == 0]
    sound_packets = [packet for packet in packets if packet["stream_index"] == 1]
    decoded = [float(packet["dts_time"]) for packet in picture]
    assert decoded == pytest.approx([number * 0.04 for number in range(50)], abs=0.0015)
    shown = sorted(float(packet["pts_time"]) for packet in picture)
    assert shown == pytest.approx([shown[0] + number * 0.04 for number in range(50)], abs=0.0015)
    assert [number for number, packet in enumerate(picture) if packet["flags"].startswith("K")] == [0, 10, 20, 30, 40]
    begins = [float(packet["dts_time"]) for packet in sound_packets]
    steps = [later - earlier for earlier, later in itertools.pairwise(begins)]
    assert steps == pytest.approx([1024 / 44100] * len(steps), abs=0.00003)


@needs_ffmpeg
@pytest.mark.parametrize(("audio", "video"), [(False, True), (True, False)])
def test_one_track_alone_is_read(audio: bool, video: bool) -> None:
    original = flv(*(H264 if video else ()), *(AAC if audio else ()), audio=audio, video=video)
    segments = feed(Muxer(), read_flv(original))
    assert isinstance(segments[0], InitSegment)
    assert segments[0].mime.startswith("video/mp4" if video else "audio/mp4")
    assert sorted(copy(b"".join(segment.data for segment in segments))) == sorted(copy(original))


@needs_ffmpeg
def test_two_clips_one_after_the_other_are_one_stream_with_two_init_segments() -> None:
    muxer = Muxer()
    first = feed(muxer, tags(*H264, *AAC, seconds=3.0))
    second = feed(muxer, tags(*H264, *AAC, seconds=3.0, size="320x240"))
    assert [type(segment) for segment in second].count(InitSegment) == 1
    decode(b"".join(segment.data for segment in second))
    times = [segment.time for segment in [*first, *second] if isinstance(segment, Fragment)]
    assert max(times) < 6_300
    assert all(later - earlier > -100 for earlier, later in itertools.pairwise(times))
