"""Clips that a real encoder made, as the tags that RTMP carries: ffmpeg draws and encodes them, once a run."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

AUDIO, VIDEO, DATA = 8, 9, 18

needs_ffmpeg = pytest.mark.skipif(
    shutil.which("ffmpeg") is None or shutil.which("ffprobe") is None, reason="ffmpeg is not installed"
)

H264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-g", "10")
H264_AT_ONCE = (*H264, "-preset", "ultrafast", "-tune", "zerolatency", "-bf", "0")
AAC = ("-c:a", "aac")


class Tag(NamedTuple):
    """One tag of an FLV file: the same as an RTMP message."""

    type: int
    timestamp: int
    body: bytes


def draw(
    output: Path | str,
    *options: str,
    seconds: float = 1.0,
    size: str = "192x108",
    audio: bool = True,
    video: bool = True,
    rate: int = 44100,
    picture: str = "testsrc",
) -> None:
    """Have ffmpeg encode a moving picture and a tone into `output`."""
    inputs: list[str] = []
    if video:
        inputs += ["-f", "lavfi", "-i", f"{picture}=size={size}:rate=25"]
    if audio:
        inputs += ["-f", "lavfi", "-i", f"sine=sample_rate={rate}"]
    command = ["ffmpeg", "-v", "error", "-y", "-threads", "1", *inputs, "-t", str(seconds), *options, str(output)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


@functools.lru_cache
def flv(*options: str, **wanted: Any) -> bytes:
    """An FLV file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.flv"
        draw(path, *options, "-f", "flv", **wanted)
        return path.read_bytes()


def tags(*options: str, **wanted: Any) -> list[Tag]:
    """The tags of such a file."""
    return read_flv(flv(*options, **wanted))


def read_flv(data: bytes) -> list[Tag]:
    """The tags of an FLV file (FLV 10.1, section E.4.1)."""
    found: list[Tag] = []
    at = 13
    while at < len(data):
        size = int.from_bytes(data[at + 1 : at + 4], "big")
        timestamp = int.from_bytes(data[at + 4 : at + 7], "big") | data[at + 7] << 24
        found.append(Tag(data[at], timestamp, data[at + 11 : at + 11 + size]))
        at += 11 + size + 4
    return found


def probe(data: bytes, *options: str) -> Any:
    """What ffprobe says of a file, as JSON; a complaint of it fails the test."""
    with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
        file.write(data)
        file.flush()
        command = ["ffprobe", "-v", "error", "-of", "json", *options, file.name]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    return json.loads(done.stdout)


def decode(data: bytes) -> list[str]:
    """Every frame of a file as ffmpeg decodes it: track and hash. A frame it cannot decode fails the test."""
    return _frames(data, "framemd5")


def copy(data: bytes) -> list[str]:
    """Every packet of a file as it is: track and hash."""
    return _frames(data, "framemd5", "-c", "copy", "-bsf:v", "null")


def _frames(data: bytes, form: str, *options: str) -> list[str]:
    with tempfile.NamedTemporaryFile(suffix=".media") as file:
        file.write(data)
        file.flush()
        # -copyts and passthrough: no frame is doubled or left out to fit a rate.
        command = ["ffmpeg", "-v", "error", "-copyts", "-i", file.name, "-fps_mode", "passthrough", *options]
        done = subprocess.run([*command, "-f", form, "-"], check=True, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    lines = [line.split(",") for line in done.stdout.splitlines() if not line.startswith("#")]
    return [f"{fields[0]} {fields[-1].strip()}" for fields in lines]


def as_pieces(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """The same bytes in pieces, some of them perhaps empty."""
    places = sorted(cut % (len(data) + 1) for cut in cuts)
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]
