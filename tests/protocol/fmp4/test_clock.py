from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qiyu.protocol.fmp4.clock import AudioTimes, Clock, VideoTimes

TIMESTAMPS = st.lists(st.integers(0, 2**32 - 1) | st.integers(0, 5000), max_size=30)


def test_time_begins_at_nought_wherever_the_encoder_begins() -> None:
    clock = Clock()
    assert [clock.time(at) for at in (90_000, 90_023, 90_040, 90_046)] == [0, 23, 40, 46]


def test_audio_and_video_may_be_out_of_step() -> None:
    clock = Clock()
    assert [clock.time(at) for at in (1000, 1500, 900, 1040, 1540)] == [0, 500, 0, 40, 540]


def test_timestamps_that_begin_again_at_2_32_go_on() -> None:
    clock = Clock()
    assert [clock.time(at) for at in (2**32 - 40, 0, 2**32 - 20, 40)] == [0, 40, 20, 80]


@pytest.mark.parametrize("jump", [60_000, -60_000, 2**31])
def test_a_jump_is_taken_out_for_all_that_follows(jump: int) -> None:
    clock = Clock()
    after = (5000 + jump) % 2**32
    assert [clock.time(at) for at in (5000, 5040, after, after + 10, after + 40)] == [0, 40, 80, 90, 120]


def test_a_pause_is_a_pause() -> None:
    clock = Clock()
    assert [clock.time(at) for at in (0, 40, 8000, 8040)] == [0, 40, 8000, 8040]


@pytest.mark.property
@given(TIMESTAMPS)
def test_the_timeline_has_no_jump(timestamps: list[int]) -> None:
    """Whatever the timestamps are: from 0 on, and no further between two than two frames may be apart."""
    clock = Clock()
    times = [clock.time(at) for at in timestamps]
    assert all(time >= 0 for time in times)
    assert all(-2_000 <= later - earlier <= 10_000 for earlier, later in itertools.pairwise(times))


@pytest.mark.property
@given(TIMESTAMPS)
def test_pictures_are_decoded_one_after_another(timestamps: list[int]) -> None:
    """Whatever their times are: strictly later each, at its own time where that can be, shown for 1 to 1000 ms."""
    times = VideoTimes()
    last = -1
    for time in timestamps:
        at = times.next(time)
        assert at == max(time, last + 1)
        assert 1 <= times.step <= 1000
        last = at


@pytest.mark.property
@given(st.sampled_from([8000, 44100, 48000]), TIMESTAMPS)
def test_audio_never_overlaps(rate: int, timestamps: list[int]) -> None:
    """Whatever the times are: each frame begins where the last one ended, or later."""
    times = AudioTimes(rate, 1024)
    begins = [times.next(time) for time in timestamps]
    assert all(later - earlier >= 1024 for earlier, later in itertools.pairwise(begins))


def test_audio_in_rounded_milliseconds_has_no_gaps() -> None:
    times = AudioTimes(44100, 1024)
    begins = [times.next(number * 1024 * 1000 // 44100) for number in range(1000)]
    assert begins == [number * 1024 for number in range(1000)]


def test_audio_that_is_missing_leaves_its_gap() -> None:
    times = AudioTimes(48000, 960)  # 20 ms a frame
    assert [times.next(at) for at in (0, 20, 40, 100, 120)] == [0, 960, 1920, 2880, 3840]  # as yet no click
    assert times.next(500) == 24_000
