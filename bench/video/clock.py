"""A picture that says when it was drawn: the wall clock in black and white cells, over ffmpeg's test picture.

The cells survive any encoder, and a canvas can read them back: 32 for the milliseconds since 1970, the lowest bits of
them, and below each its opposite, so that a frame that was read wrongly is known as such.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

WIDTH: Final = 640
HEIGHT: Final = 360
RATE: Final = 25
BITS: Final = 32
CELL_WIDTH: Final = WIDTH // BITS
CELL_HEIGHT: Final = 16
BLACK, WHITE = b"\x10", b"\xeb"
FRAME_BYTES: Final = WIDTH * HEIGHT * 3 // 2

SHORT: Final = "at once, a key frame a second"
_OPTIONS: Final = {
    "at once": ("-preset", "veryfast", "-tune", "zerolatency", "-g", "50"),
    "ordinary": ("-preset", "veryfast", "-g", "50", "-bf", "2"),
    SHORT: ("-preset", "veryfast", "-tune", "zerolatency", "-g", "25"),
}
"""How ffmpeg is told to encode: without any delay, and as encoders do by themselves, with B-frames and look-ahead."""

ENCODERS: Final = ("at once", "ordinary")
"""Those with a key frame every two seconds."""
FFMPEG: Final = shutil.which("ffmpeg")


def cells(unix_ms: int) -> bytes:
    """The luma of the rows that say it."""
    value = unix_ms % 2**BITS
    bits = [value >> bit & 1 for bit in reversed(range(BITS))]
    row = b"".join((WHITE if bit else BLACK) * CELL_WIDTH for bit in bits)
    opposite = b"".join((BLACK if bit else WHITE) * CELL_WIDTH for bit in bits)
    return row * CELL_HEIGHT + opposite * CELL_HEIGHT


def background() -> list[bytes]:
    """Some seconds of a moving picture, as raw frames."""
    source = f"testsrc2=size={WIDTH}x{HEIGHT}:rate={RATE}:duration=4"
    command = [str(FFMPEG), "-v", "error", "-f", "lavfi", "-i", source, "-pix_fmt", "yuv420p", "-f", "rawvideo", "-"]
    raw = subprocess.run(command, check=True, capture_output=True).stdout
    return [raw[at : at + FRAME_BYTES] for at in range(0, len(raw), FRAME_BYTES)]


def stamped(frame: bytes, unix_ms: int) -> bytes:
    """The frame with the clock over its first rows, which have no colour there."""
    rows = WIDTH * CELL_HEIGHT * 2
    blue, red = WIDTH * HEIGHT, WIDTH * HEIGHT * 5 // 4
    grey = b"\x80" * (rows // 4)
    return cells(unix_ms) + frame[rows:blue] + grey + frame[blue + len(grey) : red] + grey + frame[red + len(grey) :]


@contextmanager
def push(url: str, encoder: str, *, sound: bool = True) -> Iterator[subprocess.Popen[bytes]]:
    """Push such a picture, 1 Mbit/s of it, while inside."""
    tone = ["-f", "lavfi", "-i", "sine=frequency=330:sample_rate=44100"] if sound else []
    raw = ["-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", f"{WIDTH}x{HEIGHT}", "-r", str(RATE)]
    raw += ["-probesize", "32", "-analyzeduration", "0", "-i", "-"]
    coded = ["-c:v", "libx264", *_OPTIONS[encoder], "-b:v", "1M", "-maxrate", "1M", "-bufsize", "500k"]
    coded += ["-c:a", "aac", "-b:a", "64k"] if sound else []
    process = subprocess.Popen(
        [str(FFMPEG), "-v", "error", *tone, *raw, *coded, "-f", "flv", url], stdin=subprocess.PIPE
    )
    stopping = threading.Event()
    drawing = threading.Thread(target=_draw, args=(process, stopping))
    drawing.start()
    try:
        yield process
    finally:
        stopping.set()
        process.kill()
        drawing.join()
        process.wait()


def _draw(process: subprocess.Popen[bytes], stopping: threading.Event) -> None:
    assert process.stdin is not None
    due = time.monotonic()
    with contextlib.suppress(BrokenPipeError):
        for frame in itertools.cycle(background()):
            due = max(due + 1 / RATE, time.monotonic() - 1)  # who was kept waiting long does not make up for it
            if stopping.wait(max(0.0, due - time.monotonic())):
                break
            process.stdin.write(stamped(frame, time.time_ns() // 1_000_000))
            process.stdin.flush()
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
