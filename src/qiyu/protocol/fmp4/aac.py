"""AAC's configuration: an AudioSpecificConfig (ISO/IEC 14496-3, section 1.6.2.1)."""

from __future__ import annotations

from typing import Final

from qiyu.protocol.fmp4.bits import BitReader, OutOfBits
from qiyu.protocol.fmp4.tracks import AudioTrack, Unsupported

_RATES: Final = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
_EXPLICIT_RATE: Final = 15
_ESCAPE: Final = 31
_LOW_COMPLEXITY: Final = 2
_SBR: Final = 5
_PARAMETRIC_STEREO: Final = 29
_EIGHT_CHANNELS: Final = 7  # channelConfiguration 7 is 7.1


def read_aac(config: bytes) -> AudioTrack:
    """The track that this configuration describes. Raises `Unsupported`."""
    try:
        return _read(BitReader(config), config)
    except OutOfBits:
        raise Unsupported("the AAC configuration ends too early") from None


def _read(bits: BitReader, config: bytes) -> AudioTrack:
    named = kind = _object_type(bits)
    rate = _rate(bits)
    channels = bits.read(4)
    if kind in (_SBR, _PARAMETRIC_STEREO):  # HE-AAC says so first, and what it extends after
        _rate(bits)
        kind = _object_type(bits)
    if kind != _LOW_COMPLEXITY:
        raise Unsupported(f"AAC of object type {kind}: browsers play AAC-LC (2) and HE-AAC (5, 29)")
    short = bits.flag()  # frameLengthFlag
    if not 1 <= channels <= _EIGHT_CHANNELS:
        raise Unsupported(f"AAC with channel configuration {channels}: expected 1 to 7")
    frame = 960 if short else 1024
    return AudioTrack(f"mp4a.40.{named}", config, rate, 8 if channels == _EIGHT_CHANNELS else channels, frame)


def _object_type(bits: BitReader) -> int:
    kind = bits.read(5)
    return 32 + bits.read(6) if kind == _ESCAPE else kind


def _rate(bits: BitReader) -> int:
    index = bits.read(4)
    if index == _EXPLICIT_RATE:
        rate = bits.read(24)
        if not 7350 <= rate <= 96_000:
            raise Unsupported(f"AAC with {rate} samples a second: expected 7350 to 96000")
        return rate
    if index >= len(_RATES):
        raise Unsupported(f"AAC with sampling frequency index {index}: expected 0 to 12, or 15")
    return _RATES[index]
