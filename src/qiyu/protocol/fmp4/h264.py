"""H.264's configuration: an AVCDecoderConfigurationRecord (ISO/IEC 14496-15, section 5.3.3) and its first SPS."""

from __future__ import annotations

from typing import Final

from qiyu.protocol.fmp4.bits import BitReader, OutOfBits, without_emulation
from qiyu.protocol.fmp4.tracks import Unsupported, VideoTrack

MAX_PIXELS: Final = 16_384  # a side: more than level 6.2 allows
_CHROMA_PROFILES: Final = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})
_LISTS: Final = 8
_LISTS_444: Final = 12


def read_h264(record: bytes) -> VideoTrack:
    """The track that this configuration describes. Raises `Unsupported`."""
    if len(record) < 8 or record[0] != 1:
        raise Unsupported("the H.264 configuration is no AVCDecoderConfigurationRecord")
    if record[5] & 0x1F == 0:
        raise Unsupported("the H.264 configuration has no sequence parameter set")
    size = int.from_bytes(record[6:8], "big")
    sps = record[8 : 8 + size]
    if len(sps) < size or size < 4:
        raise Unsupported("the H.264 configuration ends within its sequence parameter set")
    try:
        width, height = _dimensions(sps)
    except OutOfBits:
        raise Unsupported("the H.264 sequence parameter set ends too early") from None
    if not (0 < width <= MAX_PIXELS and 0 < height <= MAX_PIXELS):
        raise Unsupported(f"an H.264 picture of {width}x{height} pixels: expected at most {MAX_PIXELS} a side")
    return VideoTrack(f"avc1.{record[1:4].hex().upper()}", b"avc1", b"avcC", record, width, height)


def _dimensions(sps: bytes) -> tuple[int, int]:
    bits = BitReader(without_emulation(sps[1:]))  # after the NAL unit's header
    profile = bits.read(8)
    bits.read(16)  # constraints and level
    bits.unsigned()  # seq_parameter_set_id
    chroma = 1
    if profile in _CHROMA_PROFILES:
        chroma = bits.unsigned()
        planes = chroma == 3 and bits.flag()
        depth = 8 + max(bits.unsigned(), bits.unsigned())
        if chroma > 1 or planes or depth > 8:
            # Chromium has a decoder in software for it; Safari, Firefox and most hardware have none.
            raise Unsupported(
                f"H.264 with {('4:0:0', '4:2:0', '4:2:2', '4:4:4')[min(chroma, 3)]} and {depth} bits: browsers show "
                "4:2:0 with 8 bits (ffmpeg: -pix_fmt yuv420p; OBS: colour format NV12)"
            )
        bits.flag()  # qpprime_y_zero_transform_bypass_flag
        if bits.flag():
            _skip_scaling_lists(bits, _LISTS if chroma != 3 else _LISTS_444)
    bits.unsigned()  # log2_max_frame_num_minus4
    _skip_order_count(bits)
    bits.unsigned()  # max_num_ref_frames
    bits.flag()  # gaps_in_frame_num_value_allowed_flag
    width = (bits.unsigned() + 1) * 16
    map_units = bits.unsigned() + 1
    frames_only = bits.flag()
    height = map_units * 16 * (1 if frames_only else 2)
    if not frames_only:
        bits.flag()  # mb_adaptive_frame_field_flag
    bits.flag()  # direct_8x8_inference_flag
    if bits.flag():  # frame_cropping_flag
        left, right, top, bottom = (bits.unsigned() for _ in range(4))
        across = 2 if chroma else 1
        down = (2 if chroma else 1) * (1 if frames_only else 2)
        width -= (left + right) * across
        height -= (top + bottom) * down
    return width, height


def _skip_scaling_lists(bits: BitReader, lists: int) -> None:
    for index in range(lists):
        if not bits.flag():
            continue
        last = following = 8
        for _ in range(16 if index < 6 else 64):
            if following:
                following = (last + bits.signed()) % 256
            last = following or last


def _skip_order_count(bits: BitReader) -> None:
    kind = bits.unsigned()
    if kind == 0:
        bits.unsigned()  # log2_max_pic_order_cnt_lsb_minus4
    elif kind == 1:
        bits.flag()
        bits.signed()
        bits.signed()
        cycle = bits.unsigned()
        if cycle > 255:  # num_ref_frames_in_pic_order_cnt_cycle is "in the range of 0 to 255" (section 7.4.2.1.1)
            raise OutOfBits
        for _ in range(cycle):
            bits.signed()
