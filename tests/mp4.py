"""MP4 as an independent parser sees it, and two decoder configurations that real encoders made."""

from __future__ import annotations

import tempfile
from typing import Any

import mp4analyzer

# x264's for 320x180, High profile: 180 is not a multiple of 16, so the picture is cropped.
H264_RECORD = bytes.fromhex(
    "0164000cffe1001a6764000cacd941419f9f011000000300100000030320f142996001000668ebe3cb22c0fdf8f800"
)

# x265's for 192x108, Main profile: the fixed part, its VPS and its SPS.
H265_FIXED = bytes.fromhex("0101600000009000000000001ef000fcfdf8f800000f")
H265_VPS = bytes.fromhex("200001001840010c01ffff01600000030090000003000003001e959809")
H265_SPS = bytes.fromhex("210001002942010101600000030090000003000003001ea0182071f796566924caf0168080000003008000000c84")
H265_RECORD = H265_FIXED + b"\x02" + H265_VPS + H265_SPS


def parse(data: bytes) -> list[Any]:
    """The boxes as an independent parser sees them."""
    with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
        file.write(data)
        file.flush()
        return list(mp4analyzer.parse_mp4_boxes(file.name))


def find(boxes: list[Any], path: str) -> list[Any]:
    name, _, rest = path.partition("/")
    found = [box for box in boxes if box.type == name]
    return [inner for box in found for inner in find(list(box.children), rest)] if rest else found


def one(boxes: list[Any], path: str) -> Any:
    (box,) = find(boxes, path)
    return box
