"""One timeline, in milliseconds from 0, out of an encoder's timestamps, and from it when each frame is decoded.

RTMP's timestamps have 32 bits, begin anywhere, begin again when an encoder restarts its own clock, and stand still
where a network did. A browser that finds a hole in the timeline stops in front of it; so what jumps is moved, audio and
video together, to where the last frame was.
"""

from __future__ import annotations

from typing import Final

JUMP_AHEAD_MS: Final = 10_000
JUMP_BACK_MS: Final = 2_000
"""Further than audio and video are ever interleaved."""
STEP_MS: Final = 40
"""What lies between two frames when that is all we know: 25 frames a second."""
MAX_STEP_MS: Final = 1_000

_HALF: Final = 2**31
_WHOLE: Final = 2**32


class Clock:
    """All timestamps of one push go through one of these."""

    __slots__ = ("_last", "_now")

    def __init__(self) -> None:
        self._last: int | None = None
        self._now = 0

    def time(self, timestamp: int) -> int:
        """When that is on the timeline; not below 0, and near the last one."""
        last = self._last
        self._last = timestamp
        if last is not None:
            step = (timestamp - last + _HALF) % _WHOLE - _HALF
            self._now += step if -JUMP_BACK_MS <= step <= JUMP_AHEAD_MS else STEP_MS
        return max(self._now, 0)


class VideoTimes:
    """When frames are decoded: strictly one after another."""

    __slots__ = ("_last", "step")

    def __init__(self) -> None:
        self._last = -1
        self.step = STEP_MS
        """How long the last frame is shown, as far as one can know when the next has not come: as the one before."""

    def next(self, time: int) -> int:
        """When a frame with that time is decoded."""
        last = self._last
        time = max(time, last + 1)
        if last >= 0:
            self.step = min(time - last, MAX_STEP_MS)
        self._last = time
        return time


class AudioTimes:
    """When frames are decoded, in samples: each where the last one ended, so that milliseconds do not make clicks.

    Where the encoder's own time has run away from that, for want of a frame or for a clock of another make, a frame is
    put where the encoder has it.
    """

    TOLERATED_MS: Final = 60

    __slots__ = ("_frame", "_next", "_rate")

    def __init__(self, rate: int, frame: int) -> None:
        self._rate = rate
        self._frame = frame
        self._next: int | None = None

    def next(self, time: int) -> int:
        """When a frame with that time (in milliseconds) is decoded (in samples)."""
        begin = time * self._rate // 1000
        expected = self._next
        if expected is not None:
            away = (begin - expected) * 1000 // self._rate
            # Never back: what overlaps has been played.
            if away <= self.TOLERATED_MS:
                begin = expected
        self._next = begin + self._frame
        return begin
