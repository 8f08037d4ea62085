"""H.265's configuration: an HEVCDecoderConfigurationRecord (ISO/IEC 14496-15, section 8.3.3) and its first SPS."""

from __future__ import annotations

from typing import Final

from qiyu.protocol.fmp4.bits import BitReader, OutOfBits, without_emulation
from qiyu.protocol.fmp4.h264 import MAX_PIXELS
from qiyu.protocol.fmp4.tracks import Unsupported, VideoTrack

_FIXED_BYTES: Final = 23
_SPS: Final = 33
_SUB_LAYERS: Final = 8


def read_h265(record: bytes) -> VideoTrack:
    """The track that this configuration describes. Raises `Unsupported`."""
    if len(record) < _FIXED_BYTES or record[0] > 1:  # 0 was written by encoders of the draft
        raise Unsupported("the H.265 configuration is no HEVCDecoderConfigurationRecord")
    try:
        width, height = _dimensions(_first_sps(record))
    except OutOfBits:
        raise Unsupported("the H.265 sequence parameter set ends too early") from None
    if not (0 < width <= MAX_PIXELS and 0 < height <= MAX_PIXELS):
        raise Unsupported(f"an H.265 picture of {width}x{height} pixels: expected at most {MAX_PIXELS} a side")
    return VideoTrack(_codec(record), b"hvc1", b"hvcC", record, width, height)


def _codec(record: bytes) -> str:
    # ISO/IEC 14496-15, section E.3: profile, its compatibility flags in reverse, tier and level, six bytes of
    # constraints without the trailing zeros.
    space = ("", "A", "B", "C")[record[1] >> 6]
    tier = "H" if record[1] & 0x20 else "L"
    profile = record[1] & 0x1F
    compatibility = int(f"{int.from_bytes(record[2:6], 'big'):032b}"[::-1], 2)
    constraints = [f"{byte:X}" for byte in record[6:12].rstrip(b"\0")]
    return ".".join([f"hvc1.{space}{profile}", f"{compatibility:X}", f"{tier}{record[12]}", *constraints])


def _first_sps(record: bytes) -> bytes:
    at = _FIXED_BYTES
    for _ in range(record[22]):
        kind = record[at] & 0x3F if at < len(record) else -1
        count = int.from_bytes(record[at + 1 : at + 3], "big")
        at += 3
        for _ in range(count):
            size = int.from_bytes(record[at : at + 2], "big")
            nal = record[at + 2 : at + 2 + size]
            if len(nal) < size or at + 2 > len(record):
                raise Unsupported("the H.265 configuration ends within a parameter set")
            if kind == _SPS:
                return nal
            at += 2 + size
    raise Unsupported("the H.265 configuration has no sequence parameter set")


def _dimensions(sps: bytes) -> tuple[int, int]:
    bits = BitReader(without_emulation(sps[2:]))  # after the NAL unit's header
    bits.read(4)  # sps_video_parameter_set_id
    sub_layers = bits.read(3)
    bits.flag()  # sps_temporal_id_nesting_flag
    _skip_profile_tier_level(bits, sub_layers)
    bits.unsigned()  # sps_seq_parameter_set_id
    chroma = bits.unsigned()
    if chroma > 1:
        raise Unsupported("H.265 with more colour than 4:2:0: browsers show 4:2:0 (ffmpeg: -pix_fmt yuv420p)")
    width = bits.unsigned()
    height = bits.unsigned()
    if bits.flag():  # conformance_window_flag
        left, right, top, bottom = (bits.unsigned() for _ in range(4))
        unit = 2 if chroma else 1
        width -= (left + right) * unit
        height -= (top + bottom) * unit
    return width, height


def _skip_profile_tier_level(bits: BitReader, sub_layers: int) -> None:
    bits.read(88)  # general_profile_space to general_inbld_flag
    bits.read(8)  # general_level_idc
    present = [(bits.flag(), bits.flag()) for _ in range(sub_layers)]
    if sub_layers:
        bits.read(2 * (_SUB_LAYERS - sub_layers))
    for has_profile, has_level in present:
        bits.read(88 * has_profile + 8 * has_level)
